"""Reading and writing along an axis by an index tensor: gather, scatter, and the functions whose names begin in index.

Sums are the primitive `scatter_add`, writes `put`; greatest, least and product go through the host call (NumPy).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DTypeError, ShapeError
from ..graph.node import Node
from ..graph.types import INTEGER, bool_, int64
from ..ops import elementwise as e
from ..ops.indexing import bounded, flat_index, put, scatter_add, take
from ..ops.movement import expand, permute, reshape, slice_
from ..ops.primitive import constant, user_source
from .arranging import taken_along
from .handle import Handle
from .indexing import wrapped
from .promotion import Number, Operand, as_node
from .reductions import normalize_axis

if TYPE_CHECKING:
    from . import Tensor

_REDUCTIONS = ("sum", "prod", "mean", "amax", "amin")


def _integers(name: str, index: Tensor) -> Node:
    """The index as int64."""
    if not isinstance(index, Handle):
        raise TypeError(f"{name}: the index must be a tensor of integers, got {index!r} (at {user_source()})")
    if index.dtype.category != INTEGER:
        raise DTypeError(f"{name}: the index must be of integers, got {index.dtype.name} (at {user_source()})")
    return e.convert(index.node, int64)


def _flat(x: Node) -> Node:
    return reshape(x, (math.prod(x.shape),))


class _Along:
    """An index along an axis of a tensor: where in the flattened tensor each of its elements points."""

    def __init__(self, name: str, x: Handle, dim: int, index: Tensor, src: Handle | None = None):
        self.axis = normalize_axis(dim, x.ndim, name)
        self.name = name
        self.shape = x.shape or (1,)
        self.index_shape = index.shape
        raw = _integers(name, index)
        sizes = index.shape or (1,)
        self.is_empty = index.numel() == 0
        fits = self.is_empty or (
            len(sizes) == len(self.shape)
            and all(i <= s for a, (i, s) in enumerate(zip(sizes, self.shape, strict=True)) if a != self.axis)
        )
        if not fits:
            raise ShapeError(
                f"{name}: index {list(index.shape)} must have the axes of {list(x.shape)} and be no larger outside "
                f"axis {self.axis} (at {user_source()})"
            )
        if src is not None:
            self.check(src, x)
        self.sizes = sizes
        if not self.is_empty:
            checked = bounded(reshape(raw, sizes), 0, self.shape[self.axis], f"{name}: index along axis {self.axis}:")
            self.flat = flat_index(checked, self.shape, self.axis)

    def check(self, src: Handle, x: Handle) -> None:
        """Raise where `src` does not cover the index."""
        index, sizes = self.index_shape or (1,), src.shape or (1,)
        if src.dtype is not x.dtype:
            raise DTypeError(
                f"{self.name}: src is {src.dtype.name}, the tensor {x.dtype.name} (at {user_source()}); convert one"
            )
        if not self.is_empty and (len(sizes) != len(index) or any(i > s for i, s in zip(index, sizes, strict=True))):
            raise ShapeError(
                f"{self.name}: src {list(src.shape)} must have the axes of the index {list(self.index_shape)} and "
                f"cover it (at {user_source()})"
            )

    def rows(self, src: Handle) -> Node:
        """The part of `src` that the index has a place for, flat."""
        return _flat(slice_(reshape(src.node, src.shape or (1,)), tuple((0, s) for s in self.sizes)))


class ScatterMethods(Handle):
    """Reading and writing along one axis at places that a tensor of integers names."""

    __slots__ = ()

    # ---- reading

    def gather(self, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
        """result[i][j] = self[index[i][j]][j] for dim 0, and so on; `index` has as many axes as self.

        `sparse_grad` is refused: gradients are dense.
        """
        if sparse_grad:
            raise ValueError(f"gather: sparse gradients are not there (at {user_source()}); leave sparse_grad out")
        along = _Along("gather", self, dim, index)
        if along.is_empty:
            return self._wrap(take(_flat(self.node), expand(constant(0, int64), index.shape)))
        return self._wrap(reshape(take(_flat(self.node), along.flat), index.shape))

    def take_along_dim(self, indices: Tensor, dim: int | None = None) -> Tensor:
        """`gather` whose operands broadcast outside `dim`; without `dim` of the flattened tensors."""
        if dim is None:
            return self.reshape(self.numel()).gather(0, indices.reshape(indices.numel()))  # type: ignore[attr-defined]
        _integers("take_along_dim", indices)
        axis = normalize_axis(dim, self.ndim, "take_along_dim")
        if indices.ndim != self.ndim:
            raise ShapeError(
                f"take_along_dim: indices {list(indices.shape)} must have as many axes as {list(self.shape)} "
                f"(at {user_source()})"
            )
        ours = tuple(1 if a == axis else s for a, s in enumerate(self.shape))
        theirs = tuple(1 if a == axis else s for a, s in enumerate(indices.shape))
        common = list(e.broadcast_shapes("take_along_dim", ours, theirs))
        sizes = [(*common[:axis], t.shape[axis], *common[axis + 1 :]) if common else () for t in (self, indices)]
        size = self.shape[axis] if self.shape else 1
        places = wrapped(_integers("take_along_dim", indices), size, f"take_along_dim: index along axis {axis}:")
        return self.expand(sizes[0]).gather(dim, self._wrap(expand(places, sizes[1])))  # type: ignore[attr-defined]

    def take(self, index: Tensor) -> Tensor:
        """The elements that `index` names by their number in the flattened tensor, negative ones from the end."""
        places = wrapped(_integers("take", index), self.numel(), "take: index")
        return self._wrap(take(_flat(self.node), places))

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """The slices along `dim` that the vector `index` names."""
        axis, places = self._vector("index_select", dim, index)
        if not self.shape:
            if index.numel() != 1:
                raise ShapeError(f"index_select of shape [] takes one index, got {index.numel()} (at {user_source()})")
            return self._wrap(reshape(take(_flat(self.node), places), ()))
        return self._wrap(taken_along(self.node, places, axis))

    def _vector(self, name: str, dim: int, index: Tensor) -> tuple[int, Node]:
        """An axis, and the places along it that a vector names."""
        axis = normalize_axis(dim, self.ndim, name)
        if index.ndim > 1:
            raise ShapeError(f"{name}: the index must be a vector, got {list(index.shape)} (at {user_source()})")
        size = self.shape[axis] if self.shape else 1
        return axis, bounded(_flat(_integers(name, index)), 0, size, f"{name}: index along axis {axis}:")

    # ---- writing along an axis, element by element

    def scatter(
        self,
        dim: int,
        index: Tensor,
        src: Operand | None = None,
        *,
        value: Number | None = None,
        reduce: str | None = None,
    ) -> Tensor:
        """self with src[i][j] (or a number) written at [index[i][j]][j] for dim 0, and so on.

        Of several for one place the last stays. `reduce` "add" or "multiply" combines them with what is there.
        """
        given = src if value is None else value
        if given is None or (src is not None and value is not None):
            raise TypeError(f"scatter takes src or value, one of them (at {user_source()})")
        if reduce not in (None, "add", "multiply"):
            raise ValueError(f'scatter: reduce must be "add" or "multiply", got {reduce!r} (at {user_source()})')
        source = given if isinstance(given, Handle) else self._wrap(expand(as_node(given, self.dtype), index.shape))
        if reduce is not None:
            return self.scatter_reduce(dim, index, source, "sum" if reduce == "add" else "prod")  # type: ignore[arg-type]
        along = _Along("scatter", self, dim, index, source)
        if along.is_empty:
            return self.clone()  # type: ignore[attr-defined]
        return self._wrap(reshape(put(_flat(self.node), _flat(along.flat), along.rows(source)), self.shape))

    def scatter_add(self, dim: int, index: Tensor, src: Tensor) -> Tensor:
        """self with src[i][j] added at [index[i][j]][j] for dim 0, and so on."""
        along = _Along("scatter_add", self, dim, index, src)
        if along.is_empty:
            return self.clone()  # type: ignore[attr-defined]
        added = scatter_add(_flat(along.flat), along.rows(src), self.numel())
        return self._wrap(e.add(self.node, reshape(added, self.shape)))

    def scatter_reduce(self, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True) -> Tensor:
        """What `src` has for each place combined with what is there: "sum", "prod", "mean", "amax" or "amin".

        Without `include_self` only what `src` has counts; a place without any keeps its element. Among equal extremes
        the gradient is shared.
        """
        if reduce not in _REDUCTIONS:
            raise ValueError(
                f"scatter_reduce: reduce must be one of {', '.join(_REDUCTIONS)}, got {reduce!r} (at {user_source()})"
            )
        along = _Along("scatter_reduce", self, dim, index, src)
        if along.is_empty:
            return self.clone()  # type: ignore[attr-defined]
        from .scatter_reductions import reduced

        places, rows = _flat(along.flat), self._wrap(along.rows(src))
        result = reduced(self._wrap(_flat(self.node)), self._wrap(places), rows, reduce, include_self)
        return result.reshape(self.shape)

    # ---- writing along an axis, slice by slice

    def _front(self, axis: int) -> tuple[int, ...]:
        return (axis, *(a for a in range(self.ndim) if a != axis))

    def _source_rows(self, name: str, axis: int, index: Tensor, source: Handle) -> Node:
        """The slices of `source` along an axis, first; source has the shape of self but for the axis."""
        count = index.numel()
        wanted = tuple(count if a == axis else s for a, s in enumerate(self.shape))
        if source.dtype is not self.dtype:
            raise DTypeError(
                f"{name}: source is {source.dtype.name}, the tensor {self.dtype.name} (at {user_source()}); convert one"
            )
        node = source.node
        if not source.shape or not self.shape:
            node = reshape(node, wanted or ((1,) if source.numel() == 1 else source.shape))
        elif source.shape != wanted:
            raise ShapeError(
                f"{name}: source {list(source.shape)} must be {list(wanted)}, one slice an index (at {user_source()})"
            )
        return permute(node, self._front(axis)) if self.shape else node

    def _with_rows(self, axis: int, changed: Any) -> Tensor:
        """self with its slices along an axis, as rows, changed."""
        if not self.shape:
            return self._wrap(reshape(changed(_flat(self.node)), ()))
        front = self._front(axis)
        rows = changed(permute(self.node, front))
        return self._wrap(permute(rows, tuple(int(i) for i in np.argsort(front))))

    def index_add(self, dim: int, index: Tensor, source: Tensor, *, alpha: Number = 1) -> Tensor:
        """self with `alpha` times the slices of `source` added to the slices that `index` names."""
        axis, places = self._vector("index_add", dim, index)
        rows = self._source_rows("index_add", axis, index, source)
        if alpha != 1:
            factor = as_node(alpha, self.dtype)
            rows = e.bit_and(rows, factor) if self.dtype is bool_ else e.mul(rows, factor)
        return self._with_rows(axis, lambda x: _added(x, places, rows))

    def index_copy(self, dim: int, index: Tensor, source: Tensor) -> Tensor:
        """self with the slices of `source` written over the slices that `index` names."""
        axis, places = self._vector("index_copy", dim, index)
        rows = self._source_rows("index_copy", axis, index, source)
        return self._with_rows(axis, lambda x: put(x, places, rows))

    def index_fill(self, dim: int, index: Tensor, value: Operand) -> Tensor:
        """self with `value` in the slices that `index` names."""
        axis, places = self._vector("index_fill", dim, index)
        if isinstance(value, Handle) and value.ndim:
            raise ShapeError(f"index_fill: value must have shape [], got {list(value.shape)} (at {user_source()})")
        size = self.shape[axis] if self.shape else 1
        chosen = put(expand(constant(False, bool_), (size,)), places, expand(constant(True, bool_), places.shape))
        mask = reshape(chosen, tuple(size if a == axis else 1 for a in range(self.ndim)))
        return self._wrap(e.where(mask, as_node(value, self.dtype), self.node))

    def index_reduce(
        self, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True
    ) -> Tensor:
        """The slices of `source` combined into the slices that `index` names: "prod", "mean", "amax" or "amin"."""
        if reduce not in _REDUCTIONS[1:]:
            raise ValueError(
                f"index_reduce: reduce must be prod, mean, amax or amin, got {reduce!r} (at {user_source()})"
            )
        axis, places = self._vector("index_reduce", dim, index)
        rows = self._source_rows("index_reduce", axis, index, source)
        if not self.shape:
            return self.scatter_reduce(0, index.reshape(1), source.reshape(1), reduce, include_self=include_self)
        count = places.shape[0]
        wide = tuple(count if a == axis else s for a, s in enumerate(self.shape))
        along = reshape(places, tuple(count if a == axis else 1 for a in range(self.ndim)))
        back = self._wrap(permute(rows, tuple(int(i) for i in np.argsort(self._front(axis)))))
        return self.scatter_reduce(dim, self._wrap(expand(along, wide)), back, reduce, include_self=include_self)

    # ---- writing by number and by mask

    def put(self, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
        """self with the elements of `source` written (or added) at their numbers in the flattened tensor."""
        if source.dtype is not self.dtype or source.numel() != index.numel():
            raise ShapeError(
                f"put: source {source.dtype.name}{list(source.shape)} must be {self.dtype.name} and have an element "
                f"for each of the {index.numel()} indices (at {user_source()})"
            )
        places = wrapped(_flat(_integers("put", index)), self.numel(), "put: index")
        x, rows = _flat(self.node), _flat(source.node)
        return self._wrap(reshape(_added(x, places, rows) if accumulate else put(x, places, rows), self.shape))

    def masked_scatter(self, mask: Tensor, source: Tensor) -> Tensor:
        """self with the elements of `source`, one after the other, where the bool `mask` holds."""
        if mask.dtype is not bool_ or source.dtype is not self.dtype:
            raise DTypeError(
                f"masked_scatter: mask {mask.dtype.name} must be bool, source {source.dtype.name} {self.dtype.name} "
                f"(at {user_source()})"
            )
        shape = e.broadcast_shapes("masked_scatter", self.shape, mask.shape)
        spread = expand(mask.node, shape)

        before = self._wrap(_flat(spread)).cumsum(0).node
        number = e.where(spread, e.sub(reshape(before, shape), constant(1, int64)), constant(-1, int64))
        checked = bounded(number, -1, source.numel(), "masked_scatter: source has too few elements, number")
        if not source.numel():
            kept = e.where(e.lt(checked, constant(0, int64)), expand(self.node, shape), constant(0, self.dtype))
            return self._wrap(kept)
        place = e.where(e.lt(checked, constant(0, int64)), constant(0, int64), checked)
        return self._wrap(e.where(spread, take(_flat(source.node), place), self.node))

    # ---- into the tensor itself

    def scatter_(
        self,
        dim: int,
        index: Tensor,
        src: Operand | None = None,
        *,
        value: Number | None = None,
        reduce: str | None = None,
    ) -> Tensor:
        """`scatter` into the tensor itself."""
        return self._assign(self.scatter(dim, index, src, value=value, reduce=reduce).node)

    def scatter_add_(self, dim: int, index: Tensor, src: Tensor) -> Tensor:
        """`scatter_add` into the tensor itself."""
        return self._assign(self.scatter_add(dim, index, src).node)

    def scatter_reduce_(
        self, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
    ) -> Tensor:
        """`scatter_reduce` into the tensor itself."""
        return self._assign(self.scatter_reduce(dim, index, src, reduce, include_self=include_self).node)

    def index_add_(self, dim: int, index: Tensor, source: Tensor, *, alpha: Number = 1) -> Tensor:
        """`index_add` into the tensor itself."""
        return self._assign(self.index_add(dim, index, source, alpha=alpha).node)

    def index_copy_(self, dim: int, index: Tensor, source: Tensor) -> Tensor:
        """`index_copy` into the tensor itself."""
        return self._assign(self.index_copy(dim, index, source).node)

    def index_fill_(self, dim: int, index: Tensor, value: Operand) -> Tensor:
        """`index_fill` of the tensor itself."""
        return self._assign(self.index_fill(dim, index, value).node)

    def index_reduce_(
        self, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True
    ) -> Tensor:
        """`index_reduce` into the tensor itself."""
        return self._assign(self.index_reduce(dim, index, source, reduce, include_self=include_self).node)

    def put_(self, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
        """`put` into the tensor itself."""
        return self._assign(self.put(index, source, accumulate).node)

    def masked_scatter_(self, mask: Tensor, source: Tensor) -> Tensor:
        """`masked_scatter` into the tensor itself."""
        return self._assign(self.masked_scatter(mask, source).node)


def _added(x: Node, places: Node, rows: Node) -> Node:
    if x.dtype is bool_:  # the sum of bools is whether any holds
        counted = scatter_add(places, e.convert(rows, int64), x.shape[0])
        return e.bit_or(x, e.convert(counted, bool_))
    return e.add(x, scatter_add(places, rows, x.shape[0]))


__all__ = ["ScatterMethods"]
