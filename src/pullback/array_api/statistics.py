"""Reductions and running totals. An empty tuple of axes reduces nothing, as the standard has it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..errors import ShapeError
from ..graph import types
from ..graph.types import INTEGER, DType
from ..ops.primitive import user_source
from ..tensor import Tensor, joining
from ..tensor.reductions import normalize_axes, normalize_axis
from .creation import ones, zeros

Axes = int | tuple[int, ...] | None


def _over(x: Tensor, axis: Axes, reduce: Callable[[Tensor, Any], Tensor]) -> Tensor:
    """`reduce` over the axes; over those of an empty tuple as over one new axis of size 1."""
    return reduce(x.unsqueeze(-1), -1) if axis == () else reduce(x, axis)


def _counted_in(x: Tensor, dtype: DType | None) -> DType:
    """The dtype of a sum: that asked for, or for integers 64 bits with or without a sign."""
    if dtype is not None:
        return dtype
    if x.dtype.category == INTEGER and x.dtype.is_unsigned:
        return types.uint64
    return x.dtype if x.is_floating_point() else types.int64


def sum(x: Tensor, /, *, axis: Axes = None, dtype: DType | None = None, keepdims: bool = False) -> Tensor:
    """The sum; of integers in 64 bits unless `dtype` says otherwise."""
    dtype = _counted_in(x, dtype)
    return x.to(dtype) if axis == () else x.sum(axis, keepdims, dtype=dtype)


def prod(x: Tensor, /, *, axis: Axes = None, dtype: DType | None = None, keepdims: bool = False) -> Tensor:
    """The product; of integers in 64 bits unless `dtype` says otherwise."""
    found, dtype = x, _counted_in(x, dtype)
    if axis == ():
        return x.to(dtype)
    axes = normalize_axes(axis, x.ndim, "prod")
    found = x.to(dtype)
    for place in reversed(axes):
        found = found.prod(place, keepdims, dtype=dtype)
    return found


def max(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The greatest element; NaN if there is one."""
    return +x if axis == () else x.amax(axis, keepdims)


def min(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The least element; NaN if there is one."""
    return +x if axis == () else x.amin(axis, keepdims)


def any(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Whether any element is not zero."""
    return x != 0 if axis == () else (x != 0).any(axis, keepdims)


def all(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Whether every element is not zero."""
    return x != 0 if axis == () else (x != 0).all(axis, keepdims)


def mean(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The mean; NaN of no elements."""
    return +x if axis == () else x.mean(axis, keepdims)


def var(x: Tensor, /, *, axis: Axes = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """The variance; the sum of squares is divided by the number of elements less `correction`."""
    return _over(x, axis, lambda t, a: t.var(a, keepdim=keepdims and axis != (), correction=correction))


def std(x: Tensor, /, *, axis: Axes = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """The square root of `var`."""
    return _over(x, axis, lambda t, a: t.std(a, keepdim=keepdims and axis != (), correction=correction))


def count_nonzero(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """How many elements are not zero."""
    return sum(x != 0, axis=axis, keepdims=keepdims)


def argmax(x: Tensor, /, *, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Where the greatest element stands first."""
    return x.argmax(axis, keepdims)


def argmin(x: Tensor, /, *, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Where the least element stands first."""
    return x.argmin(axis, keepdims)


def _only_axis(x: Tensor, axis: int | None, name: str) -> int:
    if axis is None and x.ndim != 1:
        raise ShapeError(f"{name}: axis must be given for an array of {x.ndim} axes (at {user_source()})")
    return 0 if axis is None else normalize_axis(axis, x.ndim, name)


def cumulative_sum(
    x: Tensor, /, *, axis: int | None = None, dtype: DType | None = None, include_initial: bool = False
) -> Tensor:
    """The sum of the elements so far; with `include_initial` a 0 comes first."""
    place, dtype = _only_axis(x, axis, "cumulative_sum"), _counted_in(x, dtype)
    found = x.cumsum(place, dtype=dtype)
    return joining.cat([zeros(_one(x, place), dtype=dtype), found], place) if include_initial else found


def cumulative_prod(
    x: Tensor, /, *, axis: int | None = None, dtype: DType | None = None, include_initial: bool = False
) -> Tensor:
    """The product of the elements so far; with `include_initial` a 1 comes first."""
    place, dtype = _only_axis(x, axis, "cumulative_prod"), _counted_in(x, dtype)
    found = x.cumprod(place, dtype=dtype)
    return joining.cat([ones(_one(x, place), dtype=dtype), found], place) if include_initial else found


def _one(x: Tensor, axis: int) -> tuple[int, ...]:
    return (*x.shape[:axis], 1, *x.shape[axis + 1 :])


def diff(
    x: Tensor, /, *, axis: int = -1, n: int = 1, prepend: Tensor | None = None, append: Tensor | None = None
) -> Tensor:
    """Differences of neighbours along `axis`, taken `n` times."""
    return x.diff(n, axis, prepend, append)


def number_of(shape: tuple[int, ...]) -> int:
    """How many elements an array of `shape` has."""
    return math.prod(shape)
