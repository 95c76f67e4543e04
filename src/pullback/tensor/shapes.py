"""Methods of tensors that move elements without computing: reshaping, transposing, joining, cutting."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import ShapeError
from ..graph.node import Node
from ..graph.types import int64
from ..ops import elementwise as e
from ..ops.movement import concatenate, expand, flip, permute, reshape, slice_
from ..ops.primitive import constant, iota, user_source
from .handle import Handle
from .promotion import result_type
from .reductions import normalize_axes, normalize_axis

if TYPE_CHECKING:
    from . import Tensor


def as_shape(sizes: tuple[Any, ...]) -> tuple[int, ...]:
    """Sizes given one by one or as one sequence."""
    listed = sizes[0] if len(sizes) == 1 and not isinstance(sizes[0], int) and isinstance(sizes[0], Sequence) else sizes
    return tuple(int(s) for s in listed)


class ShapeMethods(Handle):
    """The same elements under another shape. Results are new tensors: writing to them in place is refused."""

    __slots__ = ()

    def _view_of(self, node: Node) -> Tensor:
        return self._wrap(node, view=True)

    def size(self, dim: int | None = None) -> Any:
        """The shape, or the size of one axis."""
        return self.shape if dim is None else self.shape[normalize_axis(dim, self.ndim, "size")]

    def dim(self) -> int:
        """How many axes there are."""
        return self.ndim

    def reshape(self, *shape: Any) -> Tensor:
        """The elements in row-major order under `shape`; one size may be -1."""
        sizes = as_shape(shape)
        if sizes.count(-1) == 1:
            known = math.prod(s for s in sizes if s != -1)
            if known and self.numel() % known == 0:
                sizes = tuple(self.numel() // known if s == -1 else s for s in sizes)
        if any(s < 0 for s in sizes) or math.prod(sizes) != self.numel():
            raise ShapeError(
                f"reshape: {list(self.shape)} has {self.numel()} elements, which {list(sizes)} cannot hold "
                f"(at {user_source()})"
            )
        return self._view_of(reshape(self.node, sizes))

    view = reshape

    def contiguous(self) -> Tensor:
        """Itself: layout is the compiler's concern."""
        return self  # type: ignore[return-value]

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """The axes from `start_dim` to `end_dim` made one."""
        if not self.shape:
            return self.reshape(1)
        start, end = (normalize_axis(d, self.ndim, "flatten") for d in (start_dim, end_dim))
        if start > end:
            raise ShapeError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim} (at {user_source()})")
        return self.reshape((*self.shape[:start], math.prod(self.shape[start : end + 1]), *self.shape[end + 1 :]))

    def unflatten(self, dim: int, sizes: Sequence[int]) -> Tensor:
        """One axis cut into several."""
        axis = normalize_axis(dim, self.ndim, "unflatten")
        sizes = list(sizes)
        if sizes.count(-1) == 1:
            sizes[sizes.index(-1)] = self.shape[axis] // max(1, math.prod(s for s in sizes if s != -1))
        return self.reshape((*self.shape[:axis], *sizes, *self.shape[axis + 1 :]))

    def permute(self, *dims: Any) -> Tensor:
        """The axes in another order."""
        listed = as_shape(dims)
        axes = tuple(normalize_axis(d, self.ndim, "permute") for d in listed)
        if sorted(axes) != list(range(self.ndim)):
            raise ShapeError(f"permute: {listed} is no order of the {self.ndim} axes (at {user_source()})")
        return self._view_of(permute(self.node, axes))

    def transpose(self, dim0: int, dim1: int) -> Tensor:
        """Two axes exchanged."""
        axes = list(range(self.ndim))
        i, j = (normalize_axis(d, self.ndim, "transpose") for d in (dim0, dim1))
        if axes:
            axes[i], axes[j] = axes[j], axes[i]
        return self._view_of(permute(self.node, tuple(axes)))

    def movedim(self, source: int, destination: int) -> Tensor:
        """One axis moved to another place."""
        i, j = (normalize_axis(d, self.ndim, "movedim") for d in (source, destination))
        axes = [a for a in range(self.ndim) if a != i]
        axes.insert(j, i)
        return self.permute(axes)

    def t(self) -> Tensor:
        """The transpose of a matrix; a vector as it is."""
        if self.ndim > 2:
            raise ShapeError(
                f"t() takes at most 2 axes, got {list(self.shape)} (at {user_source()}); use .mT or permute"
            )
        return self.T

    @property
    def T(self) -> Tensor:
        """The axes in reverse order."""
        return self.permute(tuple(reversed(range(self.ndim))))

    @property
    def mT(self) -> Tensor:
        """Each matrix of the batch transposed."""
        return self.transpose(-2, -1)

    def squeeze(self, dim: int | tuple[int, ...] | None = None) -> Tensor:
        """Without the axes of size 1, or without those of `dim` that have size 1."""
        axes = range(self.ndim) if dim is None else normalize_axes(dim, self.ndim, "squeeze")
        return self.reshape(tuple(s for i, s in enumerate(self.shape) if i not in axes or s != 1))

    def unsqueeze(self, dim: int) -> Tensor:
        """With a new axis of size 1 at `dim`."""
        axis = normalize_axis(dim, self.ndim + 1, "unsqueeze")
        return self.reshape((*self.shape[:axis], 1, *self.shape[axis:]))

    def expand(self, *sizes: Any) -> Tensor:
        """Axes of size 1 repeated; -1 keeps a size."""
        wanted = as_shape(sizes)
        lead = len(wanted) - self.ndim
        shape = tuple(self.shape[i - lead] if s == -1 and i >= lead else s for i, s in enumerate(wanted))
        return self._view_of(expand(self.node, shape))

    def expand_as(self, other: Tensor) -> Tensor:
        """Repeated to the shape of `other`."""
        return self.expand(other.shape)

    broadcast_to = expand

    def repeat(self, *sizes: Any) -> Tensor:
        """Copies side by side: axis i `sizes[i]` times."""
        times = as_shape(sizes)
        if len(times) < self.ndim:
            raise ShapeError(
                f"repeat: {list(times)} has fewer entries than {list(self.shape)} has axes (at {user_source()})"
            )
        shape = (1,) * (len(times) - self.ndim) + self.shape
        spread = tuple(x for s in shape for x in (1, s))
        repeated = tuple(x for n, s in zip(times, shape, strict=True) for x in (n, s))
        node = expand(reshape(self.node, spread), repeated)
        return self._wrap(reshape(node, tuple(n * s for n, s in zip(times, shape, strict=True))))

    def flip(self, *dims: Any) -> Tensor:
        """The order reversed along `dims`."""
        return self._wrap(flip(self.node, normalize_axes(as_shape(dims), self.ndim, "flip")))

    def narrow(self, dim: int, start: int, length: int) -> Tensor:
        """`length` elements from `start` along `dim`."""
        axis = normalize_axis(dim, self.ndim, "narrow")
        size = self.shape[axis]
        start = start + size if start < 0 else start
        if not 0 <= start <= start + length <= size:
            raise IndexError(
                f"narrow: {start} to {start + length} is outside axis {dim} of size {size} (at {user_source()})"
            )
        bounds = tuple((start, start + length) if i == axis else (0, s) for i, s in enumerate(self.shape))
        return self._view_of(slice_(self.node, bounds))

    def split(self, split_size_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
        """Pieces along `dim`: of one size (the last may be smaller), or of the sizes given."""
        size = self.shape[normalize_axis(dim, self.ndim, "split")]
        if isinstance(split_size_or_sections, int):
            each = split_size_or_sections
            if each <= 0:
                raise ShapeError(f"split: the size of a piece must be positive, got {each} (at {user_source()})")
            sections = [min(each, size - start) for start in range(0, size, each)] or [0]
        else:
            sections = list(split_size_or_sections)
            if sum(sections) != size:
                raise ShapeError(
                    f"split: {sections} adds up to {sum(sections)}, axis {dim} has {size} (at {user_source()})"
                )
        starts = [sum(sections[:i]) for i in range(len(sections))]
        return tuple(self.narrow(dim, start, length) for start, length in zip(starts, sections, strict=True))

    def chunk(self, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
        """At most `chunks` pieces of equal size along `dim`, the last maybe smaller."""
        size = self.shape[normalize_axis(dim, self.ndim, "chunk")]
        return self.split(max(1, -(-size // chunks)), dim)

    def unbind(self, dim: int = 0) -> tuple[Tensor, ...]:
        """The slices along `dim`, without it."""
        return tuple(self.narrow(dim, i, 1).squeeze(dim) for i in range(self.size(dim)))

    def tril(self, diagonal: int = 0) -> Tensor:
        """Zero above the diagonal of each matrix."""
        return self._triangle(lambda row, column: e.le(column, e.add(row, constant(diagonal, int64))), "tril")

    def triu(self, diagonal: int = 0) -> Tensor:
        """Zero below the diagonal of each matrix."""
        return self._triangle(lambda row, column: e.le(e.add(row, constant(diagonal, int64)), column), "triu")

    def _triangle(self, keep: Callable[[Node, Node], Node], name: str) -> Tensor:
        if self.ndim < 2:
            raise ShapeError(f"{name} takes matrices, got shape {list(self.shape)} (at {user_source()})")
        shape = self.shape[-2:]
        mask = keep(iota(shape, 0, int64), iota(shape, 1, int64))
        return self._wrap(e.where(mask, self.node, constant(0, self.dtype)))


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors one after the other along `dim`; their other sizes must agree.

    >>> pb.cat([pb.ones(2), pb.zeros(1)])
    tensor([1., 1., 0.])
    """
    listed = list(tensors)
    if not listed:
        raise ShapeError(f"cat: no tensors given (at {user_source()})")
    dtype = result_type(*listed)
    # PyTorch lets an empty vector join anything
    listed = [t for t in listed if t.shape != (0,)] or listed[:1]
    axis = normalize_axis(dim, listed[0].ndim, "cat")
    if any(t.ndim != listed[0].ndim for t in listed):
        raise ShapeError(
            f"cat: shapes {[list(t.shape) for t in listed]} have different numbers of axes (at {user_source()})"
        )
    return listed[0]._wrap(concatenate(tuple(e.convert(t.node, dtype) for t in listed), axis))


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors of one shape side by side along a new axis `dim`."""
    listed = list(tensors)
    if not listed or any(t.shape != listed[0].shape for t in listed):
        raise ShapeError(f"stack: shapes must be equal, got {[list(t.shape) for t in listed]} (at {user_source()})")
    axis = normalize_axis(dim, listed[0].ndim + 1, "stack")
    return cat([t.unsqueeze(axis) for t in listed], axis)
