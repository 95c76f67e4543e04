"""Order, places, and distinct values."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..graph.types import int64
from ..tensor import Tensor, sorting
from .creation import asarray
from .dtypes import promoted


class UniqueAllResult(NamedTuple):
    """Distinct values, where each stands first, where each element's value stands among them, how often each comes."""

    values: Tensor
    indices: Tensor
    inverse_indices: Tensor
    counts: Tensor


class UniqueCountsResult(NamedTuple):
    """Distinct values, and how often each comes."""

    values: Tensor
    counts: Tensor


class UniqueInverseResult(NamedTuple):
    """Distinct values, and where each element's value stands among them."""

    values: Tensor
    inverse_indices: Tensor


def sort(x: Tensor, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The elements in order; NaN counts as greatest. Always stable."""
    return x.sort(axis, descending, stable)[0]


def argsort(x: Tensor, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """Where the elements in order stand. Always stable."""
    return x.argsort(axis, descending, stable)


def searchsorted(x1: Tensor, x2: Any, /, *, side: str = "left", sorter: Tensor | None = None) -> Tensor:
    """Before which of the ordered `x1` each of `x2` belongs; among equals on `side`."""
    ordered, values = promoted(x1, x2)
    return sorting.searchsorted(ordered, values, side=side, sorter=sorter)


def isin(x1: Any, x2: Any, /, *, invert: bool = False) -> Tensor:
    """Whether each element of `x1` is one of `x2`."""
    one, other = (asarray(x) for x in (x1, x2)) if not isinstance(x1, Tensor) else promoted(x1, x2)
    return sorting.isin(one, other, invert=invert)


def nonzero(x: Tensor, /) -> tuple[Tensor, ...]:
    """Where the elements are that are not zero: a vector for each axis."""
    return tuple(x.nonzero(as_tuple=True))


def _distinct(x: Tensor) -> Any:
    """Distinct values of `x`, the inverse and the counts; each NaN is a value of its own, as the standard has it."""
    ordered, order = x.reshape(-1).sort(0)
    if not x.numel():
        nothing = asarray([], dtype=int64)
        return ordered, nothing, nothing.reshape(x.shape), nothing
    is_new = joined_front(ordered[1:] != ordered[:-1])
    starts = is_new.nonzero()[:, 0]
    group = is_new.cumsum(0) - 1
    inverse = (order * 0).scatter(0, order, group).reshape(x.shape)
    ends = joined_end(starts[1:], x.numel())
    return ordered[starts], order[starts], inverse, ends - starts


def joined_front(changes: Tensor) -> Tensor:
    """True, then `changes`."""
    from ..tensor.joining import cat

    return cat([asarray([True]), changes])


def joined_end(places: Tensor, last: int) -> Tensor:
    """`places`, then `last`."""
    from ..tensor.joining import cat

    return cat([places, asarray([last], dtype=int64)])


def unique_all(x: Tensor, /) -> UniqueAllResult:
    """The distinct values in order, first places, inverse and counts. Reads the values."""
    return UniqueAllResult(*_distinct(x))


def unique_counts(x: Tensor, /) -> UniqueCountsResult:
    """The distinct values in order, and how often each comes. Reads the values."""
    values, _, _, counts = _distinct(x)
    return UniqueCountsResult(values, counts)


def unique_inverse(x: Tensor, /) -> UniqueInverseResult:
    """The distinct values in order, and which of them each element is. Reads the values."""
    values, _, inverse, _ = _distinct(x)
    return UniqueInverseResult(values, inverse)


def unique_values(x: Tensor, /) -> Tensor:
    """The distinct values in order. Reads the values."""
    return _distinct(x)[0]
