"""Sorting, and what follows from it: places in order, greatest elements, medians, quantiles, searching.

The order itself is found by a host call (NumPy), in compiled steps too; elements are then taken in that order natively,
which is also what their gradients go through. NaN counts as greatest. Equal elements keep their order.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import DTypeError, IndexOutOfRange, ShapeError
from ..graph.node import Node
from ..graph.types import bool_, int32, int64
from ..ops import elementwise as e
from ..ops.host import detach, host_call
from ..ops.indexing import take
from ..ops.movement import expand, reshape
from ..ops.primitive import constant, iota, user_source
from ..ops.reduction import kept_shape
from .arguments import whole_number
from .autocast_mode import widening
from .creation import full, tensor
from .cumulative import taken_along
from .handle import Handle
from .reductions import ValuesIndices, normalize_axis
from .selecting import kth, least, middle, ordered_keys

if TYPE_CHECKING:
    from . import Tensor

#: topk selects where it gives at most one in so many elements, and sorts where more
_SELECTED = 8
#: test elements of isin that are compared one by one; more are sorted and searched
_COMPARED = 16


def _ascending(array: np.ndarray) -> np.ndarray:
    """The stable order of the last axis. Short values are sorted together with their places, by vector instructions."""
    if array.itemsize > 4 or array.shape[-1] >= 2**32:
        return np.argsort(array, axis=-1, kind="stable")
    packed = (ordered_keys(array).astype(np.uint64) << np.uint64(32)) | np.arange(array.shape[-1], dtype=np.uint64)
    packed.sort(axis=-1)
    return (packed & np.uint64(2**32 - 1)).astype(np.int64)


@cache
def _ordering(axis: int, descending: bool) -> Callable[[np.ndarray], np.ndarray]:
    """The function that gives the stable order along an axis."""

    def order(array: np.ndarray) -> np.ndarray:
        rows = np.ascontiguousarray(np.moveaxis(array, axis, -1))
        if descending:  # the order of the reversed row, reversed: equal elements keep theirs
            found = rows.shape[-1] - 1 - np.flip(_ascending(np.ascontiguousarray(np.flip(rows, -1))), -1)
        else:
            found = _ascending(rows)
        return np.ascontiguousarray(np.moveaxis(found, -1, axis))

    return order


def _most_frequent(array: np.ndarray) -> np.ndarray:
    """For each row of a matrix, where the last of its most frequent values stands; of several the least value."""
    rows, length = array.shape
    order = np.argsort(array, axis=1, kind="stable")
    ordered = np.take_along_axis(array, order, 1)
    same = np.concatenate([np.zeros((rows, 1), bool), ordered[:, 1:] == ordered[:, :-1]], axis=1)
    place = np.arange(length)
    run = place - np.maximum.accumulate(np.where(same, 0, place), axis=1)
    return np.take_along_axis(order, run.argmax(axis=1)[:, None], 1)[:, 0]


class SortingMethods(Handle):
    """Elements in order along the axis `dim`, the last one by default."""

    __slots__ = ()

    def _order(self, axis: int, descending: bool) -> Node:
        if not self.shape:
            return constant(0, int64)
        return host_call((detach(self.node),), _ordering(axis, descending), self.shape, int64)

    def sort(self, dim: int = -1, descending: bool = False, stable: bool | None = False) -> ValuesIndices:
        """The elements in order, and where each stood (int64). Always stable; NaN counts as greatest.

        >>> pb.tensor([3.0, 1.0, 2.0]).sort()[1]
        tensor([1, 2, 0])
        """
        axis = normalize_axis(dim, self.ndim, "sort")
        order = self._order(axis, descending)
        return ValuesIndices(self._wrap(taken_along(self.node, order, axis)), self._wrap(order))

    def argsort(self, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
        """Where the elements in order stand, int64. Always stable; NaN counts as greatest."""
        return self._wrap(self._order(normalize_axis(dim, self.ndim, "argsort"), descending))

    def msort(self) -> Tensor:
        """The elements in order along the first axis."""
        return self.sort(0)[0]

    def topk(self, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> ValuesIndices:
        """The `k` greatest (or least) elements in order, whatever `sorted` says, and where they stand.

        Of equal elements those that stand first; PyTorch gives any.
        """
        axis, k = normalize_axis(dim, self.ndim, "topk"), whole_number(k, "topk", "k")
        size = self.shape[axis] if self.shape else 1
        if not 0 <= k <= size:
            raise IndexOutOfRange(
                f"topk: k must be from 0 to {size}, the size of axis {dim}, got {k} (at {user_source()})"
            )
        if 0 < _SELECTED * k <= size:
            shape = (*self.shape[:axis], k, *self.shape[axis + 1 :])
            found = host_call((detach(self.node),), least(k, axis, bool(largest)), shape, int64)
            return ValuesIndices(self._wrap(taken_along(self.node, found, axis)), self._wrap(found))
        order = self._wrap(self._order(axis, largest))
        if self.shape:
            order = order.narrow(axis, 0, k)
        elif not k:
            nothing: Any = self
            return ValuesIndices(nothing.reshape(1).narrow(0, 0, 0), order.reshape(1).narrow(0, 0, 0))
        return ValuesIndices(self._wrap(taken_along(self.node, order.node, axis)), order)

    def kthvalue(self, k: int, dim: int = -1, keepdim: bool = False) -> ValuesIndices:
        """The `k`-th least element, counted from 1, and where it stands."""
        axis = normalize_axis(dim, self.ndim, "kthvalue")
        size = self.shape[axis] if self.shape else 1
        if not 1 <= k <= size:
            raise IndexOutOfRange(
                f"kthvalue: k must be from 1 to {size}, the size of axis {dim}, got {k} (at {user_source()})"
            )
        if not self.shape:
            return self._selected(self._wrap(self._order(axis, False)), axis, keepdim)
        return self._selected(self._place(kth(k - 1, axis), axis), axis, keepdim)

    def _place(self, function: Callable[[np.ndarray], np.ndarray], axis: int) -> Tensor:
        """What the host call of `function` finds: a place along the axis, which has size 1."""
        return self._wrap(host_call((detach(self.node),), function, kept_shape(self.shape, (axis,)), int64))

    def _selected(self, index: Tensor, axis: int, keepdim: bool) -> ValuesIndices:
        """The elements at `index`, which has size 1 along the axis."""
        values = self._wrap(taken_along(self.node, index.node, axis))
        if keepdim or not self.shape:
            return ValuesIndices(values, index)
        return ValuesIndices(values.squeeze(axis), index.squeeze(axis))

    def median(self, dim: int | None = None, keepdim: bool = False) -> Any:
        """The middle element, of two the lesser; NaN if there is one. Along `dim` a pair (values, indices)."""
        return self._median(dim, keepdim, "median")

    def nanmedian(self, dim: int | None = None, keepdim: bool = False) -> Any:
        """The middle of the elements that are not NaN, of two the lesser; along `dim` a pair (values, indices)."""
        return self._median(dim, keepdim, "nanmedian")

    def _median(self, dim: int | None, keepdim: bool, name: str) -> Any:
        if self.dtype is bool_:
            raise DTypeError(f"{name} does not take bool (at {user_source()}); convert with .to(dtype)")
        if dim is None:
            if not self.numel():
                return full((), float("nan") if self.dtype.is_floating_point else -(2**63), dtype=self.dtype)
            flat: Any = self.reshape(-1)  # type: ignore[attr-defined]
            return _shared_among_equals(flat._median(0, False, name)[0], self)
        axis = normalize_axis(dim, self.ndim, name)
        if not self.shape:
            return ValuesIndices(self._wrap(e.copy(self.node)), full((), 0, dtype=int64))
        if not self.shape[axis]:
            raise IndexOutOfRange(
                f"{name}: axis {dim} of shape {list(self.shape)} has no elements (at {user_source()})"
            )
        return self._selected(self._place(middle(axis, name == "nanmedian"), axis), axis, keepdim)

    def mode(self, dim: int = -1, keepdim: bool = False) -> ValuesIndices:
        """The most frequent value, of several the least, and where it last stands. A host call finds the place."""
        axis = normalize_axis(dim, self.ndim, "mode")
        if not self.shape:
            return ValuesIndices(self._wrap(e.copy(self.node)), full((), 0, dtype=int64))
        size = self.shape[axis]
        if not size:
            raise IndexOutOfRange(f"mode: axis {dim} of shape {list(self.shape)} has no elements (at {user_source()})")
        rows: Any = self.detach().movedim(axis, -1).reshape(-1, size)
        place = host_call((rows.node,), _most_frequent, (rows.shape[0],), int64)
        return self._selected(self._wrap(reshape(place, kept_shape(self.shape, (axis,)))), axis, keepdim)

    @widening
    def quantile(
        self, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
    ) -> Tensor:
        """The value below which the part `q` (a number or a vector, in [0, 1]) of the elements lies; NaN if one is NaN.

        The result has q's axis first. Between two elements, `interpolation` is "linear", "lower", "higher",
        "nearest" or "midpoint".

        >>> pb.tensor([0.0, 1.0, 2.0, 4.0]).quantile(0.5)
        tensor(1.5000)
        """
        return self._quantile(q, dim, keepdim, interpolation, "quantile")

    @widening
    def nanquantile(
        self, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
    ) -> Tensor:
        """As `quantile`, of the elements that are not NaN; NaN where there is none."""
        return self._quantile(q, dim, keepdim, interpolation, "nanquantile")

    def _quantile(self, q: Any, dim: int | None, keepdim: bool, interpolation: str, name: str) -> Tensor:
        from .arithmetic import where

        q = self._checked_quantile(q, interpolation, name)
        if dim is None:
            flat: Any = self.reshape(-1)  # type: ignore[attr-defined]
            found = flat._quantile(q, 0, False, interpolation, name)
            return found.reshape((*q.shape, *(1,) * self.ndim)) if keepdim else found
        axis = normalize_axis(dim, self.ndim, name)
        rows: Any = self
        rows = rows.reshape(1) if not self.shape else rows.movedim(axis, -1)
        size = rows.shape[-1]
        if not size:
            raise ShapeError(f"{name} of no elements: shape {list(self.shape)}, dim {dim} (at {user_source()})")
        missing = rows.isnan().sum(-1, keepdim=True)
        last = (size - 1 - missing).clamp(min=0) if name == "nanquantile" else missing * 0 + (size - 1)
        flat_q = q.reshape((1,) * (rows.ndim - 1) + (-1,))
        rank = flat_q * last.to(rows.dtype)
        if name == "quantile":  # the last in order is NaN if any is
            rank = where(missing > 0, size - 1, rank)
        result = _between(rows.sort()[0], rank, interpolation)
        result = result.movedim(-1, 0)  # q's axis, then the others
        if keepdim:
            result = result.unsqueeze(axis + 1) if self.shape else result
        elif not self.shape:
            result = result.reshape(q.shape)
        return result if q.shape else result.squeeze(0)

    def _checked_quantile(self, q: Any, interpolation: str, name: str) -> Any:
        if self.dtype.name not in ("float32", "float64"):
            raise DTypeError(f"{name} takes float32 or float64, got {self.dtype.name} (at {user_source()})")
        if interpolation not in ("linear", "lower", "higher", "nearest", "midpoint"):
            raise ValueError(
                f'{name}: interpolation must be "linear", "lower", "higher", "nearest" or "midpoint", '
                f"got {interpolation!r} (at {user_source()})"
            )
        if not isinstance(q, Handle):
            if not 0 <= q <= 1:
                raise ValueError(f"{name}: q must be in [0, 1], got {q} (at {user_source()})")
            q = tensor(float(q), dtype=self.dtype)
        if q.ndim > 1:
            raise ShapeError(f"{name}: q must be a number or a vector, got shape {list(q.shape)} (at {user_source()})")
        if q.dtype is not self.dtype:
            raise DTypeError(
                f"{name}: q must be {self.dtype.name} as the tensor, got {q.dtype.name} (at {user_source()})"
            )
        return q


def _shared_among_equals(found: Any, x: Any) -> Any:
    """`found`, one of the elements of `x`, with a gradient in equal shares to all that equal it, as PyTorch has it."""
    from ..autograd.function import with_gradient
    from .arithmetic import where

    def rule(value: Any, cotangent: Any) -> list[Any]:
        equal = (x == value) | (x.isnan() & value.isnan())
        return [where(equal, cotangent / equal.sum(), 0.0)]

    return with_gradient(found.detach(), [x], rule)


def _between(ordered: Any, rank: Any, interpolation: str) -> Any:
    """The values at fractional places of the last axis of `ordered`."""
    shape = e.broadcast_shapes("quantile", (*ordered.shape[:-1], 1), rank.shape)
    rank = rank.expand(shape)

    def at(place: Any) -> Any:
        return ordered._wrap(taken_along(ordered.node, place.detach().long().node, len(shape) - 1))

    if interpolation in ("lower", "higher", "nearest"):
        return at({"lower": rank.floor, "higher": rank.ceil, "nearest": rank.round}[interpolation]())
    below = rank.floor()
    low, high = at(below), at(rank.ceil())
    weight = 0.5 * (rank != below).to(rank.dtype) if interpolation == "midpoint" else rank - below.detach()
    return low + weight * (high - low)


class _Search(NamedTuple):
    """How places are searched: int32 or int64 places, before or behind equal elements."""

    right: bool
    int32: bool

    @classmethod
    def of(cls, right: bool, side: str | None, out_int32: bool) -> _Search:
        """From searchsorted's arguments."""
        if side not in (None, "left", "right") or (side == "left" and right):
            raise ValueError(f'searchsorted: side must be "left" or "right" and agree with right={right}, got {side!r}')
        return cls(right or side == "right", out_int32)

    def places(self, ordered: Node, values: Node) -> Node:
        """For each of `values` [..., m] the first place in `ordered` [..., n] or [n] behind all that come before it."""
        size = ordered.shape[-1]
        rows = 1
        for axis_size in ordered.shape[:-1]:
            rows *= axis_size
        flat = reshape(ordered, (rows * size,))
        base = constant(0, int64)
        if rows > 1:
            shape = (rows, values.shape[-1])
            base = reshape(e.mul(iota(shape, 0, int64), constant(size, int64)), values.shape)
        place = expand(constant(0, int64), values.shape)
        missing = e.ne(values, values)  # NaN goes behind everything
        step = 1 << size.bit_length() >> 1 if size else 0
        while step:  # as far as `step` more elements all come before the value
            probe = e.add(place, constant(step, int64))
            inside = e.le(probe, constant(size, int64))
            looked = e.minimum(e.add(place, constant(step - 1, int64)), constant(size - 1, int64))
            found = take(flat, e.add(base, looked))
            before = e.bit_or(e.le(found, values) if self.right else e.lt(found, values), missing)
            place = e.where(e.bit_and(inside, before), probe, place)
            step >>= 1
        return e.convert(place, int32) if self.int32 else place


def searchsorted(
    sorted_sequence: Tensor,
    input: Any,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    """Where in the ascending last axis of `sorted_sequence` each value of `input` is to be put in so that it stays so.

    `sorted_sequence` is a vector, or has the axes of `input` but the last. Of equal elements the place is the first, or
    with `right` (side="right") behind the last. `sorter` is the order of a sequence that is not sorted, from argsort.
    Native: a binary search of all values at once.

    >>> pb.searchsorted(pb.tensor([1.0, 3.0, 5.0]), pb.tensor([0.0, 3.0, 6.0]))
    tensor([0, 1, 3])
    """
    search = _Search.of(right, side, out_int32)
    if not sorted_sequence.shape:
        raise ShapeError(f"searchsorted: the sorted sequence must have an axis, got shape [] (at {user_source()})")
    if not isinstance(input, Handle):
        input = tensor(input, dtype=sorted_sequence.dtype)
        if sorted_sequence.ndim != 1:
            raise ShapeError(
                f"searchsorted of a number takes a vector, got {list(sorted_sequence.shape)} (at {user_source()})"
            )
    if input.dtype is not sorted_sequence.dtype:
        raise DTypeError(
            f"searchsorted: the sequence is {sorted_sequence.dtype.name}, the values {input.dtype.name} "
            f"(at {user_source()}); convert one with .to(dtype)"
        )
    if sorted_sequence.ndim > 1 and sorted_sequence.shape[:-1] != input.shape[:-1]:
        raise ShapeError(
            f"searchsorted: sequence {list(sorted_sequence.shape)} and values {list(input.shape)} must have the same "
            f"axes but the last (at {user_source()})"
        )
    if sorter is not None:
        if sorter.shape != sorted_sequence.shape or sorter.dtype is not int64:
            raise ShapeError(
                f"searchsorted: sorter must be int64{list(sorted_sequence.shape)}, got "
                f"{sorter.dtype.name}{list(sorter.shape)} (at {user_source()})"
            )
        sorted_sequence = sorted_sequence.gather(-1, sorter)
    flat = input.reshape(1) if not input.shape else input
    found = search.places(detach(sorted_sequence.node), detach(flat.node))
    return input._wrap(reshape(found, input.shape))


def bucketize(input: Any, boundaries: Tensor, *, out_int32: bool = False, right: bool = False) -> Tensor:
    """Which of the ascending `boundaries` (a vector) each value lies behind: searchsorted with its operands exchanged.

    A value that equals a boundary is in the bucket below it, with `right` in the one above.
    """
    if boundaries.ndim != 1:
        raise ShapeError(f"bucketize: boundaries must be a vector, got {list(boundaries.shape)} (at {user_source()})")
    if isinstance(input, Handle) and input.dtype is not boundaries.dtype:
        from .promotion import result_type

        dtype = result_type(input, boundaries)
        input, boundaries = input.to(dtype), boundaries.to(dtype)  # type: ignore[attr-defined]
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)


def isin(elements: Any, test_elements: Any, *, assume_unique: bool = False, invert: bool = False) -> Tensor:
    """Whether each of `elements` is among `test_elements`; either may be a number. NaN is among nothing.

    `assume_unique` changes nothing: it only speeds PyTorch's up.
    """
    from .promotion import result_type

    if not isinstance(elements, Handle) and not isinstance(test_elements, Handle):
        raise TypeError(f"isin takes at least one tensor, got {elements!r} and {test_elements!r} (at {user_source()})")
    dtype = result_type(elements, test_elements)
    x: Any = elements.to(dtype) if isinstance(elements, Handle) else tensor(elements, dtype=dtype)  # type: ignore[attr-defined]
    tests: Any = test_elements if isinstance(test_elements, Handle) else tensor(test_elements, dtype=dtype)
    tests = tests.to(dtype).reshape(-1)
    if tests.numel() <= _COMPARED:
        found = (x.unsqueeze(-1) == tests).any(-1)
    else:
        ordered = tests.sort()[0]
        place = searchsorted(ordered, x).clamp(max=tests.numel() - 1)
        found = x._wrap(take(ordered.node, place.node)) == x
    return found.logical_not() if invert else found


__all__ = ["SortingMethods", "bucketize", "isin", "searchsorted"]
