"""Indexing: `t[...]`, `t[...] = v`, gather, scatter and the matrix products.

A basic index (integers, slices, None, Ellipsis) is a slice and a reshape. Integer tensors address the flattened axes
that they stand on by one computed index, so reading is one `take` and writing one `put`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DTypeError, IndexOutOfRange, ShapeError, ViewError
from ..graph.node import Node, Shape
from ..graph.types import BOOL, bool_, int64
from ..ops import elementwise as e
from ..ops.contraction import matmul as matmul_nodes
from ..ops.indexing import bounded, flat_index, put, scatter_add, take
from ..ops.movement import expand, permute, reshape, slice_
from ..ops.primitive import constant, iota, user_source
from .autocast_mode import lowered
from .handle import Handle
from .promotion import Operand, as_node
from .reductions import normalize_axis

if TYPE_CHECKING:
    from . import Tensor


def _integers(index: Any, size_name: str) -> Node:
    """An index operand as an int64 node."""
    from .creation import tensor

    if not isinstance(index, Handle):
        index = tensor(index)
    if index.dtype is bool_:
        raise DTypeError(
            f"indexing with a bool tensor gives a result whose size depends on data (at {user_source()}); use "
            "pb.where(mask, t, other) or t.masked_fill(mask, value)"
        )
    if index.dtype.is_floating_point:
        raise DTypeError(
            f"an index must be of integers, got {index.dtype.name} ({size_name}, at {user_source()}); use .long()"
        )
    return e.convert(index.node, int64)


def _wrapped(index: Node, size: int, axis: int) -> Node:
    """Negative indices counted from the end; others outside the axis are an error when they are computed."""
    index = bounded(index, -size, size, f"index into axis {axis}:")
    return e.where(e.lt(index, constant(0, int64)), e.add(index, constant(size, int64)), index)


class _Parsed:
    """An index taken apart: what to cut from each axis, then which axes integer tensors address.

    `bounds` and `steps` stand for the axes of the indexed tensor; `shape` is that of the cut with integer axes dropped
    and None axes put in; `tensors` maps an axis of that shape to its integer tensor.
    """

    def __init__(self, index: Any, shape: Shape):
        items = list(index) if isinstance(index, tuple) else [index]
        self.bounds: list[tuple[int, int]] = []
        self.steps: list[int] = []
        self.shape: list[int] = []
        self.tensors: dict[int, Node] = {}
        used = sum(1 for i in items if i is not None and i is not Ellipsis)
        if used > len(shape):
            raise IndexOutOfRange(
                f"{used} indices for a tensor with {len(shape)} axes, shape {list(shape)} (at {user_source()})"
            )
        if sum(1 for i in items if i is Ellipsis) > 1:
            raise IndexOutOfRange(f"more than one Ellipsis in an index (at {user_source()})")
        if Ellipsis not in [i for i in items if not isinstance(i, (Handle, np.ndarray, list))]:
            items.append(Ellipsis)
        for item in items:
            if item is Ellipsis:
                for size in shape[len(self.bounds) : len(self.bounds) + len(shape) - used]:
                    self._cut(slice(None), size)
            elif item is None:
                self.shape.append(1)
            else:
                self._take(item, shape[len(self.bounds)])

    def _take(self, item: Any, size: int) -> None:
        if isinstance(item, slice):
            self._cut(item, size)
        elif isinstance(item, (bool, np.bool_)):
            raise DTypeError(f"indexing with a Python bool is not there (at {user_source()}); use None to add an axis")
        elif isinstance(item, (int, np.integer)):
            place = int(item)
            if not -size <= place < size:
                raise IndexOutOfRange(
                    f"index {place} is outside axis {len(self.bounds)} of size {size} (at {user_source()})"
                )
            place %= size
            self.bounds.append((place, place + 1))
            self.steps.append(1)
        else:
            self.tensors[len(self.shape)] = _wrapped(
                _integers(item, f"axis {len(self.bounds)}"), size, len(self.bounds)
            )
            self._cut(slice(None), size)

    def _cut(self, item: slice, size: int) -> None:
        plain = [None if part is None else int(part) for part in (item.start, item.stop, item.step)]
        start, stop, step = slice(*plain).indices(size)
        if step < 0:
            raise IndexOutOfRange(f"a slice with a negative step (at {user_source()}); use .flip(axis)")
        count = max(0, -(-(stop - start) // step))
        self.bounds.append((start, start + (count - 1) * step + 1 if count else start))
        self.steps.append(step)
        self.shape.append(count)

    def cut(self, x: Node) -> Node:
        """The part of `x` that the basic indices leave, in `self.shape`."""
        x = slice_(x, tuple(self.bounds))
        for axis, step in enumerate(self.steps):
            if step > 1:
                x = _every(x, axis, step)
        return reshape(x, tuple(self.shape))


def _every(x: Node, axis: int, step: int) -> Node:
    """Every `step`-th element along `axis`, by cutting the axis in two: the gradients are slice's and reshape's."""
    from ..ops.movement import pad

    size = x.shape[axis]
    count = -(-size // step)
    x = pad(x, tuple((0, count * step - size) if i == axis else (0, 0) for i in range(len(x.shape))))
    x = reshape(x, (*x.shape[:axis], count, step, *x.shape[axis + 1 :]))
    x = slice_(x, tuple((0, 1) if i == axis + 1 else (0, s) for i, s in enumerate(x.shape)))
    return reshape(x, (*x.shape[: axis + 1], *x.shape[axis + 2 :]))


def _address(tensors: dict[int, Node], shape: Shape) -> tuple[tuple[int, ...], Node, int]:
    """The addressed axes, one index into them flattened, and how many places they have."""
    axes = tuple(sorted(tensors))
    common = e.broadcast_shapes("index", *(tensors[a].shape for a in axes))
    flat: Node | None = None
    for axis in axes:
        part = tensors[axis]
        flat = part if flat is None else e.add(e.mul(flat, constant(shape[axis], int64)), part)
    assert flat is not None
    return axes, expand(flat, common), math.prod(shape[a] for a in axes)


def _front(axes: tuple[int, ...], rank: int) -> tuple[int, ...]:
    return (*axes, *(a for a in range(rank) if a not in axes))


def _result_order(axes: tuple[int, ...], rank: int, index_rank: int) -> tuple[int, ...]:
    """Where the index's axes go in the result: in place of the addressed ones if they are neighbours, else in front."""
    neighbours = axes == tuple(range(axes[0], axes[0] + len(axes)))
    before = axes[0] if neighbours else 0
    rest = rank - len(axes)
    return (*range(index_rank, index_rank + before), *range(index_rank), *range(index_rank + before, index_rank + rest))


class IndexMethods(Handle):
    """Reading and writing by index, and matrix products."""

    __slots__ = ()

    def __getitem__(self, index: Any) -> Tensor:
        parsed = _Parsed(index, self.shape)
        part = parsed.cut(self.node)
        if not parsed.tensors:
            return self._wrap(part, view=True)
        axes, flat, places = _address(parsed.tensors, part.shape)
        rest = tuple(s for a, s in enumerate(part.shape) if a not in axes)
        rows = reshape(permute(part, _front(axes, len(part.shape))), (places, *rest))
        taken = take(rows, flat)
        return self._wrap(permute(taken, _result_order(axes, len(part.shape), len(flat.shape))))

    def __setitem__(self, index: Any, value: Operand) -> None:
        if self._view:
            raise ViewError(
                f"writing into a view (at {user_source()}): this tensor was made from another by indexing, reshaping "
                "or transposing, and Pullback's tensors do not share storage. Write base[index] = value on the tensor "
                "itself, or take a .clone() first."
            )
        from .creation import tensor

        if not isinstance(value, (Handle, bool, int, float)):
            value = tensor(value, dtype=self.dtype)
        # every element's number, cut like the tensor, says where each written element goes
        numbers = reshape(iota((self.numel(),), 0, int64), self.shape)
        parsed = _Parsed(index, self.shape)
        target = parsed.cut(numbers)
        if parsed.tensors:
            target = self._wrap(target)[_tensor_index(parsed, self)].node
        rows = as_node(value, self.dtype)
        if e.broadcast_shapes("assignment", rows.shape, target.shape) != target.shape:
            raise ShapeError(
                f"cannot write shape {list(rows.shape)} into a part of shape {list(target.shape)} (at {user_source()})"
            )
        flat = put(
            reshape(self.node, (self.numel(),)),
            reshape(target, (math.prod(target.shape),)),
            reshape(expand(rows, target.shape), (math.prod(target.shape),)),
        )
        self._assign(reshape(flat, self.shape))

    def __iter__(self) -> Iterator[Tensor]:
        if not self.shape:
            raise ShapeError(f"a tensor of shape [] cannot be iterated (at {user_source()})")
        return iter([self[i] for i in range(self.shape[0])])

    def gather(self, dim: int, index: Tensor) -> Tensor:
        """result[i][j] = self[index[i][j]][j] for dim 0, and so on; `index` has as many axes as self."""
        axis = normalize_axis(dim, self.ndim, "gather")
        self._check_index("gather", axis, index)
        flat = self._flat_index("gather", axis, index)
        return self._wrap(take(reshape(self.node, (self.numel(),)), flat))

    def _flat_index(self, name: str, axis: int, index: Tensor) -> Node:
        """Where in the flattened tensor each element of `index` along `axis` points, checked."""
        size = self.shape[axis] if self.shape else 1
        checked = bounded(e.convert(index.node, int64), 0, size, f"{name}: index along axis {axis}:")
        return flat_index(checked, self.shape, axis) if self.shape else checked

    def _check_index(self, name: str, axis: int, index: Tensor) -> None:
        if index.dtype.category != 1:
            raise DTypeError(f"{name}: the index must be of integers, got {index.dtype.name} (at {user_source()})")
        fits = index.ndim == self.ndim and all(
            i <= s for a, (i, s) in enumerate(zip(index.shape, self.shape, strict=True)) if a != axis
        )
        if not fits:
            raise ShapeError(
                f"{name}: index {list(index.shape)} must have the axes of {list(self.shape)} and be no larger outside "
                f"axis {axis} (at {user_source()})"
            )

    def scatter_add(self, dim: int, index: Tensor, src: Tensor) -> Tensor:
        """self with src[i][j] added at [index[i][j]][j] for dim 0, and so on."""
        axis = normalize_axis(dim, self.ndim, "scatter_add")
        self._check_index("scatter_add", axis, index)
        if src.dtype is not self.dtype or any(i > s for i, s in zip(index.shape, src.shape, strict=True)):
            raise ShapeError(
                f"scatter_add: src {src.dtype.name}{list(src.shape)} must have dtype {self.dtype.name} and cover the "
                f"index {list(index.shape)} (at {user_source()})"
            )
        rows = slice_(src.node, tuple((0, s) for s in index.shape))
        flat = self._flat_index("scatter_add", axis, index)
        added = scatter_add(reshape(flat, (index.numel(),)), reshape(rows, (index.numel(),)), self.numel())
        return self._wrap(e.add(self.node, reshape(added, self.shape)))

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """The slices along `dim` that the vector `index` names."""
        axis = normalize_axis(dim, self.ndim, "index_select")
        if index.ndim > 1:
            raise ShapeError(f"index_select: the index must be a vector, got {list(index.shape)} (at {user_source()})")
        where = (slice(None),) * axis
        return self[(*where, index.reshape(-1))]

    # ---- matrix products

    def __matmul__(self, other: Tensor) -> Tensor:
        return matmul(self, other)  # type: ignore[arg-type]

    def matmul(self, other: Tensor) -> Tensor:
        """The product of matrices, batches of matrices and vectors; the batch axes broadcast."""
        return matmul(self, other)  # type: ignore[arg-type]

    def mm(self, other: Tensor) -> Tensor:
        """The product of two matrices."""
        return matmul(*self._of_rank(other, 2, "mm"))

    def bmm(self, other: Tensor) -> Tensor:
        """The products of two batches of matrices."""
        return matmul(*self._of_rank(other, 3, "bmm"))

    def dot(self, other: Tensor) -> Tensor:
        """The inner product of two vectors, in their own dtype also under autocast."""
        return _matmul(*self._of_rank(other, 1, "dot"))

    def _of_rank(self, other: Tensor, rank: int, name: str) -> tuple[Any, Tensor]:
        if self.ndim != rank or other.ndim != rank:
            raise ShapeError(
                f"{name} takes two tensors with {rank} axes, got {list(self.shape)} and {list(other.shape)} "
                f"(at {user_source()})"
            )
        return self, other


def _tensor_index(parsed: _Parsed, like: Handle) -> tuple[Any, ...]:
    return tuple(
        like._wrap(parsed.tensors[axis]) if axis in parsed.tensors else slice(None) for axis in range(len(parsed.shape))
    )


def matmul(x: Tensor, y: Tensor) -> Tensor:
    """The product of matrices, batches of matrices and vectors; the batch axes broadcast.

    Shapes: [..., m, k] @ [..., k, n] -> [..., m, n]; a vector counts as a row on the left and a column on the right,
    and that axis is dropped from the result. Both operands have one dtype, unless an autocast region gives them one.
    """
    return _matmul(*lowered(x, y))


def _matmul(x: Tensor, y: Tensor) -> Tensor:
    """matmul in the dtype of its operands."""
    if x.ndim == 0 or y.ndim == 0:
        raise ShapeError(
            f"matmul takes tensors with axes, got {list(x.shape)} and {list(y.shape)} (at {user_source()})"
        )
    if x.dtype is not y.dtype:
        raise DTypeError(
            f"matmul: operands have dtypes {x.dtype.name} and {y.dtype.name} (at {user_source()}); "
            "convert one with .to(dtype)"
        )
    if x.dtype.category == BOOL:
        raise DTypeError(f"matmul does not take bool (at {user_source()})")
    a = reshape(x.node, (1, *x.shape)) if x.ndim == 1 else x.node
    b = reshape(y.node, (*y.shape, 1)) if y.ndim == 1 else y.node
    if a.shape[-1] != b.shape[-2]:
        raise ShapeError(
            f"matmul: {list(x.shape)} @ {list(y.shape)}: inner sizes {a.shape[-1]} and {b.shape[-2]} differ "
            f"(at {user_source()}). Transpose or reshape one so that they meet."
        )
    batch = e.broadcast_shapes("matmul", a.shape[:-2], b.shape[:-2])
    rows, columns, inner = a.shape[-2], b.shape[-1], a.shape[-1]
    if len(b.shape) == 2 and len(a.shape) > 2:
        # one matrix for the whole batch: one product of all rows
        flat = matmul_nodes(reshape(a, (math.prod(batch) * rows, inner)), b)
        product = reshape(flat, (*batch, rows, columns))
    else:
        product = matmul_nodes(expand(a, (*batch, rows, inner)), expand(b, (*batch, inner, columns)))
    shape = (*batch, *((rows,) if x.ndim > 1 else ()), *((columns,) if y.ndim > 1 else ()))
    return x._wrap(reshape(product, shape))


__all__ = ["IndexMethods", "matmul"]
