"""Methods of tensors that give the same elements in other places: turned, repeated, on diagonals, in triangles."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DTypeError, GradientError, ShapeError, TraceError
from ..graph.node import Node
from ..graph.types import BOOL, FLOAT, int64
from ..ops import elementwise as e
from ..ops.host import host_call
from ..ops.indexing import take
from ..ops.movement import concatenate, expand, flip, pad, permute, reshape, slice_
from ..ops.primitive import MODE, constant, iota, user_source
from .arguments import whole_number
from .reductions import normalize_axes, normalize_axis
from .shapes import ShapeMethods, as_shape, one_or_listed
from .state import STATE
from .views import Chain, Cut, Diagonal, Link, Movement

if TYPE_CHECKING:
    from . import Tensor
    from .handle import Handle


class ArrangeMethods(ShapeMethods):
    """New tensors of the same elements, and views put in the place of the tensor itself."""

    __slots__ = ()

    # ---- turned

    def flip(self, *given: Any, dims: Any = None) -> Tensor:
        """The order reversed along `dims`."""
        listed = one_or_listed(given, dims, "flip", "dims")
        return self._wrap(flip(self.node, normalize_axes(listed, self.ndim, "flip") if listed else ()))

    def fliplr(self) -> Tensor:
        """The columns in reverse order."""
        if self.ndim < 2:
            raise ShapeError(f"fliplr takes at least 2 axes, got {list(self.shape)} (at {user_source()})")
        return self.flip(1)

    def flipud(self) -> Tensor:
        """The rows in reverse order."""
        if self.ndim < 1:
            raise ShapeError(f"flipud takes at least 1 axis, got {list(self.shape)} (at {user_source()})")
        return self.flip(0)

    def rot90(self, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
        """Turned by 90 degrees `k` times in the plane of two axes, from the first to the second."""
        axes = [normalize_axis(d, self.ndim, "rot90") for d in dims]
        if len(axes) != 2 or axes[0] == axes[1] or self.ndim < 2:
            raise ShapeError(f"rot90: dims {tuple(dims)} must be two axes of {list(self.shape)} (at {user_source()})")
        first, second = axes
        turns = whole_number(k, "rot90", "k") % 4
        if turns == 0:
            return self.clone()  # type: ignore[attr-defined]
        if turns == 2:
            return self.flip(first, second)
        return (self.flip(second) if turns == 1 else self.flip(first)).transpose(first, second)

    def roll(self, shifts: Any, dims: Any = None) -> Tensor:
        """Elements moved along `dims` (None: along the flattened tensor), what leaves one end entering at the other."""
        moves = as_shape((shifts,))
        axes = () if dims is None else as_shape((dims,))
        if not axes:
            if len(moves) != 1:
                raise ShapeError(f"roll: {len(moves)} shifts need as many dims (at {user_source()})")
            return self.reshape(-1 if self.numel() else 0).roll(moves, 0).reshape(self.shape)
        if len(axes) != len(moves):
            raise ShapeError(f"roll: {len(moves)} shifts for {len(axes)} dims (at {user_source()})")
        node = self.node
        for move, dim in zip(moves, axes, strict=True):
            self._require_axes("roll")
            node = _rolled(node, normalize_axis(dim, self.ndim, "roll"), move)
        return self._wrap(node)

    # ---- repeated

    def repeat(self, *given: Any, repeats: Any = None) -> Tensor:
        """Copies side by side: axis i `repeats[i]` times."""
        times = one_or_listed(given, repeats, "repeat", "repeats")
        if len(times) < self.ndim or any(n < 0 for n in times):
            raise ShapeError(
                f"repeat: {list(times)} must not be negative, nor fewer than the axes of {list(self.shape)} "
                f"(at {user_source()})"
            )
        shape = (1,) * (len(times) - self.ndim) + self.shape
        spread = tuple(x for s in shape for x in (1, s))
        repeated = tuple(x for n, s in zip(times, shape, strict=True) for x in (n, s))
        node = expand(reshape(self.node, spread), repeated)
        return self._wrap(reshape(node, tuple(n * s for n, s in zip(times, shape, strict=True))))

    def tile(self, *given: Any, dims: Any = None) -> Tensor:
        """As `repeat`; with fewer entries than axes the last axes are repeated."""
        times = one_or_listed(given, dims, "tile", "dims")
        return self.repeat((*(1,) * (self.ndim - len(times)), *times))

    def repeat_interleave(
        self, repeats: int | Tensor | None = None, dim: int | None = None, *, output_size: int | None = None
    ) -> Tensor:
        """Each slice along `dim` (None: each element) `repeats` times, one after the other.

        A tensor of `repeats` says how often for each; the size of the result depends on it, so it is read at once:
        inside compiled steps `output_size` must be given. Of a tensor alone, as `repeats`, the indices.
        """
        if repeats is None:
            if self.dtype.category == FLOAT or self.dtype.category == BOOL or self.ndim != 1:
                raise DTypeError(f"repeat_interleave: repeats must be a vector of int64 or int32 (at {user_source()})")
            return self._wrap(_interleaved(self, self.shape[0], output_size))
        x: ShapeMethods = self.reshape(self.numel()) if dim is None else self
        axis = normalize_axis(0 if dim is None else dim, x.ndim, "repeat_interleave")
        if not x.shape:
            x = x.reshape(1)
        if not isinstance(repeats, ShapeMethods):
            repeats = whole_number(repeats, "repeat_interleave", "repeats")
            if repeats < 0:
                raise ShapeError(f"repeat_interleave: repeats must not be negative, got {repeats} (at {user_source()})")
            size = x.shape[axis]
            many = expand(
                reshape(x.node, (*x.shape[: axis + 1], 1, *x.shape[axis + 1 :])),
                (*x.shape[: axis + 1], repeats, *x.shape[axis + 1 :]),
            )
            return self._wrap(reshape(many, (*x.shape[:axis], size * repeats, *x.shape[axis + 1 :])))
        index = _interleaved(repeats, x.shape[axis], output_size)
        return self._wrap(taken_along(x.node, index, axis))

    # ---- diagonals and triangles

    def diag(self, diagonal: int = 0) -> Tensor:
        """The diagonal of a matrix, or the matrix with a vector on its diagonal and zeros elsewhere."""
        if self.ndim not in (1, 2):
            raise ShapeError(f"diag takes a vector or a matrix, got {list(self.shape)} (at {user_source()})")
        return self.diag_embed(diagonal) if self.ndim == 1 else self.diagonal(diagonal).clone()

    def diagflat(self, offset: int = 0) -> Tensor:
        """All elements on the diagonal of a matrix of zeros."""
        return self.reshape(self.numel()).diag_embed(offset)

    def diag_embed(self, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
        """The last axis on the diagonals of matrices of zeros, which lie along the axes `dim1` and `dim2`."""
        self._require_axes("diag_embed")
        rank = self.ndim + 1
        first, second = (normalize_axis(d, rank, "diag_embed") for d in (dim1, dim2))
        if first == second:
            raise ShapeError(f"diag_embed: dim1 and dim2 are one axis, {first} (at {user_source()})")
        kept, length = self.shape[:-1], self.shape[-1]
        none = ((0, 0),) * len(kept)
        # each element is followed by `length` zeros, so that the next row begins one place earlier
        rows = pad(reshape(self.node, (*kept, length, 1)), (*none, (0, 0), (0, length)))
        flat = slice_(reshape(rows, (*kept, length * (length + 1))), (*((0, s) for s in kept), (0, length * length)))
        offset = whole_number(offset, "diag_embed", "offset")
        above, below = max(offset, 0), max(-offset, 0)
        square = pad(reshape(flat, (*kept, length, length)), (*none, (below, above), (above, below)))
        rest = iter(range(rank - 2))
        axes = tuple(rank - 2 if a == first else rank - 1 if a == second else next(rest) for a in range(rank))
        return self._wrap(permute(square, axes))

    def _scattered(self, name: str, src: Handle, movement: Movement) -> Tensor:
        """self with `src` in place of what `movement` reads."""
        wanted = movement.read(self.node).shape
        if src.shape != wanted:
            raise ShapeError(
                f"{name}: src {list(src.shape)} must have the shape of what it replaces, {list(wanted)} "
                f"(at {user_source()})"
            )
        return self._wrap(movement.write(self.node, e.convert(src.node, self.dtype)))

    def diagonal_scatter(self, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
        """self with `src` written over its diagonals (see `diagonal`)."""
        first, second = (normalize_axis(d, self.ndim, "diagonal_scatter") for d in (dim1, dim2))
        if first == second:
            raise ShapeError(f"diagonal_scatter: dim1 and dim2 are one axis, {first} (at {user_source()})")
        return self._scattered("diagonal_scatter", src, Diagonal.of(self.shape, offset, first, second))

    def select_scatter(self, src: Tensor, dim: int, index: int) -> Tensor:
        """self with `src` written over the slice at `index` along `dim`."""
        part = self.select(dim, index)
        assert part._link is not None
        return self._scattered("select_scatter", src, part._link.movement)

    def slice_scatter(
        self, src: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
    ) -> Tensor:
        """self with `src` written over every `step`-th slice from `start` to `end` along `dim`."""
        self._require_axes("slice_scatter")
        axis = normalize_axis(dim, self.ndim, "slice_scatter")
        if step <= 0:
            raise ValueError(f"slice_scatter: the step must be positive, got {step} (at {user_source()})")
        first, last, _ = slice(start, end, step).indices(self.shape[axis])
        bounds = tuple((first, max(first, last)) if a == axis else (0, s) for a, s in enumerate(self.shape))
        steps = tuple(step if a == axis else 1 for a in range(self.ndim))
        return self._scattered("slice_scatter", src, Cut(bounds, steps))

    def as_strided_scatter(
        self, src: Tensor, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None
    ) -> Tensor:
        """self with `src` written over the elements at the given strides and offset (see `as_strided`)."""
        fresh = self.clone()  # type: ignore[attr-defined]
        part = fresh.as_strided(size, stride, storage_offset or 0)
        return self._scattered("as_strided_scatter", src, part._link.movement)

    def tril(self, diagonal: int = 0) -> Tensor:
        """Zero above the diagonal of each matrix."""
        offset = constant(whole_number(diagonal, "tril", "diagonal"), int64)
        return self._triangle(lambda row, column: e.le(column, e.add(row, offset)), "tril")

    def triu(self, diagonal: int = 0) -> Tensor:
        """Zero below the diagonal of each matrix."""
        offset = constant(whole_number(diagonal, "triu", "diagonal"), int64)
        return self._triangle(lambda row, column: e.le(e.add(row, offset), column), "triu")

    def _triangle(self, keep: Callable[[Node, Node], Node], name: str) -> Tensor:
        if self.ndim < 2:
            raise ShapeError(f"{name} takes matrices, got shape {list(self.shape)} (at {user_source()})")
        shape = self.shape[-2:]
        mask = keep(iota(shape, 0, int64), iota(shape, 1, int64))
        return self._wrap(e.where(mask, self.node, constant(0, self.dtype)))

    # ---- the tensor itself given another shape or order, or another diagonal or triangle

    def _become(self, movement: Movement) -> Tensor:
        """This tensor becomes a view of what it was, as when the sizes of PyTorch's tensor are changed in place."""
        if self.requires_grad and self.is_leaf and MODE.grad:
            raise GradientError(
                f"an in-place operation on a leaf that requires grad (at {user_source()}): its history would be lost"
            )
        trace = STATE.trace
        if trace is not None and (trace.is_foreign(self._node) or trace.knows(self)):
            raise TraceError(
                f"a tensor from outside cannot be given another shape in place in a compiled step (at {user_source()})"
            )
        base: Handle
        turns = 1 + (0 if self._link is None else self._link.turns)
        if self._link is not None and self._link.base is not None:
            base, movement = self._link.base, Chain((self._link.movement, movement))
        else:
            base = self._wrap(self.node)
        node = movement.read(base.node)
        self._rebind(node)
        self._link = Link(base, movement, base._stamp())
        self._link.turns = turns
        return self  # type: ignore[return-value]

    def _as_movement(self, view: Tensor) -> Tensor:
        """Take the place of a view of this very tensor."""
        assert view._link is not None
        return self._become(view._link.movement)

    def squeeze_(self, dim: int | Sequence[int] | None = None) -> Tensor:
        """`squeeze` of the tensor itself."""
        return self._as_movement(self.squeeze(dim))

    def unsqueeze_(self, dim: int) -> Tensor:
        """`unsqueeze` of the tensor itself."""
        return self._as_movement(self.unsqueeze(dim))

    def transpose_(self, dim0: int, dim1: int) -> Tensor:
        """`transpose` of the tensor itself."""
        return self._as_movement(self.transpose(dim0, dim1))

    def swapdims_(self, dim0: int, dim1: int) -> Tensor:
        """`swapdims` of the tensor itself."""
        return self.transpose_(dim0, dim1)

    def swapaxes_(self, axis0: int, axis1: int) -> Tensor:
        """`swapaxes` of the tensor itself."""
        return self.transpose_(axis0, axis1)

    def t_(self) -> Tensor:
        """`t` of the tensor itself."""
        return self._as_movement(self.t())

    def tril_(self, diagonal: int = 0) -> Tensor:
        """Zero above the diagonal of each matrix."""
        return self._assign(self.tril(diagonal).node)

    def triu_(self, diagonal: int = 0) -> Tensor:
        """Zero below the diagonal of each matrix."""
        return self._assign(self.triu(diagonal).node)

    def fill_diagonal_(self, fill_value: float, wrap: bool = False) -> Tensor:
        """`fill_value` on the main diagonal; of a tall matrix with `wrap` again and again after each square."""
        if self.ndim < 2 or (self.ndim > 2 and len(set(self.shape)) > 1):
            raise ShapeError(
                f"fill_diagonal_ takes a matrix, or more axes of one size, got {list(self.shape)} (at {user_source()})"
            )
        number = iota((self.numel(),), 0, int64)
        step = sum(math.prod(self.shape[a + 1 :]) for a in range(self.ndim))
        on = e.eq(e.remainder(number, constant(step, int64)), constant(0, int64))
        if not wrap:
            last = constant((min(self.shape) - 1) * step, int64)
            on = e.bit_and(on, e.le(number, last))
        return self._assign(e.where(reshape(on, self.shape), constant(fill_value, self.dtype), self.node))


def _rolled(x: Node, axis: int, move: int) -> Node:
    size = x.shape[axis]
    move = move % size if size else 0
    if not move:
        return x

    def part(start: int, stop: int) -> Node:
        return slice_(x, tuple((start, stop) if a == axis else (0, s) for a, s in enumerate(x.shape)))

    return concatenate((part(size - move, size), part(0, size - move)), axis)


def taken_along(x: Node, index: Node, axis: int) -> Node:
    """The slices along `axis` that a vector of indices, all of them in range, names."""
    rank = len(x.shape)
    rows = take(permute(x, (axis, *(a for a in range(rank) if a != axis))), index)
    return permute(rows, (*range(1, axis + 1), 0, *range(axis + 1, rank)))


def _interleaved(repeats: Handle, size: int, output_size: int | None) -> Node:
    """The number of each slice as often as `repeats` says."""
    if repeats.dtype.category != 1 or repeats.ndim > 1 or (repeats.ndim and repeats.shape[0] not in (1, size)):
        raise ShapeError(
            f"repeat_interleave: repeats {repeats.dtype.name}{list(repeats.shape)} must be integers, one or {size} "
            f"(at {user_source()})"
        )
    if output_size is None:
        if STATE.trace is not None:
            raise TraceError(
                f"repeat_interleave by a tensor inside a compiled step (at {user_source()}): the size of the result "
                "depends on values. Give it as output_size=."
            )
        counts = np.broadcast_to(repeats._numbers(), (size,))
        if (counts < 0).any():
            raise ShapeError(f"repeat_interleave: repeats must not be negative (at {user_source()})")
        output_size = int(counts.sum())
    total = operator.index(output_size)

    def repeated(counts: np.ndarray) -> np.ndarray:
        return np.repeat(np.arange(size), np.broadcast_to(counts, (size,)))

    return host_call((repeats.node,), repeated, (total,), int64)


__all__ = ["ArrangeMethods", "taken_along"]
