"""Statistics of tensors that are composed of sums: spreads with their means, covariance, histograms, integrals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import DTypeError, ShapeError
from ..graph.types import BOOL, FLOAT, DType, float32, float64, int64
from ..ops import elementwise as e
from ..ops.host import detach, host_call
from ..ops.indexing import take
from ..ops.movement import reshape, slice_
from ..ops.primitive import constant, iota, user_source
from ..ops.reduction import sum_to_shape
from .arguments import UNSAID, whole_number
from .autocast_mode import widening
from .creation import linspace, ones, spaced, tensor
from .handle import Handle
from .order import checked, realized
from .promotion import Number, get_default_dtype, require_float
from .reductions import Axes, normalize_axis
from .shapes import as_shape

if TYPE_CHECKING:
    from . import Tensor


class MinMax(NamedTuple):
    """What aminmax gives."""

    min: Tensor
    max: Tensor


class Histogram(NamedTuple):
    """What histogram gives: the counts of the bins, and their edges."""

    hist: Tensor
    bin_edges: Tensor


@cache
def _counting(bins: int, low: float, high: float) -> Callable[[np.ndarray], np.ndarray]:
    """The function that counts values in `bins` equal bins from low to high, or over the values' own range."""

    def counts(values: np.ndarray) -> np.ndarray:
        values = values.reshape(-1)
        first, last = (low, high) if low != high else _range_of("histc", values)
        if first == last:
            first, last = first - 1, last + 1
        with np.errstate(all="ignore"):
            inside = values[(values >= first) & (values <= last)]
        place = ((inside - values.dtype.type(first)) / values.dtype.type(last - first) * bins).astype(np.int64)
        return np.bincount(np.minimum(place, bins - 1), minlength=bins)

    return counts


def _range_of(name: str, values: np.ndarray) -> tuple[float, float]:
    """The least and greatest value, which must be finite; 0 and 0 of none."""
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"{name}: the range of the values, {low} to {high}, is not finite; give one")
    return low, high


def _ends(values: np.ndarray) -> np.ndarray:
    """The ends of the range of the values, apart in any case."""
    low, high = _range_of("histogram", values)
    margin = 0.5 * (low == high)
    return np.array([low - margin, high + margin])


def _after(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The place behind the edges that do not exceed each value, by halving. Unlike NumPy's it is that of the C++
    library, and so PyTorch's, for edges that do not ascend as well.
    """
    first, length = np.zeros(values.shape, np.int64), np.full(values.shape, len(edges))
    while np.any(length > 0):
        half = length >> 1
        middle = np.minimum(first + half, len(edges) - 1)
        behind = (length > 0) & ~(values < edges[middle])
        first = np.where(behind, middle + 1, first)
        length = np.where(behind, length - half - 1, half)
    return first


def _counted_in_boxes(values: np.ndarray, weights: np.ndarray, *edges: np.ndarray) -> np.ndarray:
    """The sum of the weights of the points [N, D] in each box; the last bin of an axis has its upper edge."""
    place, inside = np.zeros(len(values), np.int64), np.ones(len(values), bool)
    for axis, ends in enumerate(edges):
        column = values[:, axis]
        inside &= (column >= ends[0]) & (column <= ends[-1])
        bins = len(ends) - 1
        bin_ = _after(column, ends) - 1
        inside &= bin_ >= 0
        place = place * bins + np.minimum(bin_, bins - 1)
    shape = tuple(len(ends) - 1 for ends in edges)
    return np.bincount(place[inside], weights[inside], minlength=math.prod(shape)).reshape(shape)


class StatisticsMethods(Handle):
    """Composed of sums, means and products."""

    __slots__ = ()

    def var_mean(self, dim: Any = None, unbiased: bool = UNSAID, keepdim: bool = False, *,
                 correction: float | None = None) -> tuple[Tensor, Tensor]:  # fmt: skip
        """The variance and the mean, see `var`."""
        return self._with_mean(self.var, dim, unbiased, keepdim, correction)  # type: ignore[attr-defined]

    def std_mean(self, dim: Any = None, unbiased: bool = UNSAID, keepdim: bool = False, *,
                 correction: float | None = None) -> tuple[Tensor, Tensor]:  # fmt: skip
        """The standard deviation and the mean, see `std`."""
        return self._with_mean(self.std, dim, unbiased, keepdim, correction)  # type: ignore[attr-defined]

    def _with_mean(
        self, spread: Callable[..., Tensor], dim: Any, unbiased: bool, keepdim: bool, correction: float | None
    ) -> tuple[Tensor, Tensor]:
        if isinstance(dim, bool):
            dim, unbiased = None, dim
        mean: Tensor = self.mean(dim, keepdim)  # type: ignore[attr-defined]
        return spread(dim, unbiased, keepdim, correction=correction), mean

    def nansum(self, dim: Axes = None, keepdim: bool = False, *, dtype: DType | None = None) -> Tensor:
        """The sum of the elements that are not NaN."""
        from .arithmetic import where

        x: Any = where(self.isnan(), 0, self) if self.dtype.is_floating_point else self  # type: ignore[attr-defined]
        return x.sum(dim, keepdim, dtype=dtype)

    def nanmean(self, dim: Axes = None, keepdim: bool = False, *, dtype: DType | None = None) -> Tensor:
        """The mean of the elements that are not NaN; NaN where there is none."""
        require_float("nanmean", self)
        count = self.isnan().logical_not().sum(dim, keepdim)  # type: ignore[attr-defined]
        return self.nansum(dim, keepdim, dtype=dtype) / count

    def count_nonzero(self, dim: Axes = None) -> Tensor:
        """How many elements are not zero, int64."""
        x: Any = self
        return (x != 0).sum(dim)

    def aminmax(self, *, dim: int | None = None, keepdim: bool = False) -> MinMax:
        """The least and the greatest element; the gradients go in equal shares to all that equal them."""
        x: Any = self
        return MinMax(x.amin(dim, keepdim), x.amax(dim, keepdim))

    def dist(self, other: Tensor, p: float = 2) -> Tensor:
        """The norm of order p of the difference."""
        difference: Any = self - other
        return difference.norm(p)

    def renorm(self, p: float, dim: int, maxnorm: float) -> Tensor:
        """Each slice along `dim` whose norm of order p is above `maxnorm` made that long."""
        from .arithmetic import where

        require_float("renorm", self)
        if p <= 0 or maxnorm < 0:
            raise ValueError(
                f"renorm: p must be positive and maxnorm not negative, got {p} and {maxnorm} (at {user_source()})"
            )
        if self.ndim < 2:
            raise ShapeError(f"renorm takes at least two axes, got shape {list(self.shape)} (at {user_source()})")
        axis = normalize_axis(dim, self.ndim, "renorm")
        others = tuple(a for a in range(self.ndim) if a != axis)
        x: Any = self
        length = x.norm(p, others, keepdim=True, dtype=self.dtype.compute)
        factor = where(length > maxnorm, maxnorm / (length + 1e-7), 1.0)
        return x * factor.to(self.dtype)

    @widening
    def trace(self) -> Tensor:
        """The sum of a matrix's diagonal."""
        if self.ndim != 2:
            raise ShapeError(f"trace takes a matrix, got shape {list(self.shape)} (at {user_source()})")
        rows, columns = self.shape
        place = e.mul(iota((min(rows, columns),), 0, int64), constant(columns + 1, int64))
        return self._wrap(take(reshape(self.node, (rows * columns,)), place)).sum()

    def sum_to_size(self, *size: Any) -> Tensor:
        """Summed over what broadcasting a tensor of `size` to this shape would repeat: what undoes a broadcast."""
        shape = as_shape(size)
        lead = self.ndim - len(shape)
        if lead < 0 or any(s not in (1, full) for s, full in zip(shape, self.shape[lead:], strict=True)):
            raise ShapeError(
                f"sum_to_size: {list(shape)} does not broadcast to {list(self.shape)} (at {user_source()})"
            )
        whole = self.dtype.category != FLOAT and (shape != self.shape or not shape)
        x = e.convert(self.node, int64) if whole else self.node
        return self._wrap(sum_to_shape(x, shape))

    def cov(self, *, correction: int = 1, fweights: Tensor | None = None, aweights: Tensor | None = None) -> Tensor:
        """The covariance matrix of variables (rows) over observations (columns); of a vector its variance.

        `fweights` (integers) say how often each observation was made, `aweights` how much each counts.
        """
        x, correction = self._variables("cov"), whole_number(correction, "cov", "correction")
        observations = x.shape[1]
        for name, weights, floating in (("fweights", fweights, False), ("aweights", aweights, True)):
            if weights is None:
                continue
            if weights.shape != (observations,) or (weights.dtype.category == FLOAT) != floating:
                raise ShapeError(
                    f"cov: {name} must be {'floats' if floating else 'integers'} of shape [{observations}], got "
                    f"{weights.dtype.name}{list(weights.shape)} (at {user_source()})"
                )
        fweights, aweights = _not_negative("fweights", fweights), _not_negative("aweights", aweights)
        weight: Any = fweights if aweights is None else aweights if fweights is None else fweights * aweights
        if weight is None:
            total: Any = observations
            distance = x - x.mean(1, keepdim=True)
            weighted, degrees = distance, max(observations - correction, 0)
            return self._covariance(distance, weighted, tensor(degrees, dtype=x.dtype))
        total = weight.sum()
        distance = x - (x * weight).sum(1, keepdim=True) / total
        lost = correction if aweights is None or not correction else correction * (weight * aweights).sum() / total
        weighted = distance * weight
        return self._covariance(distance, weighted, (total - lost).to(weighted.dtype).clamp(min=0))

    @staticmethod
    def _covariance(distance: Any, weighted: Any, degrees: Any) -> Tensor:
        return (distance @ weighted.t() / degrees).squeeze()

    def _variables(self, name: str) -> Any:
        if self.ndim > 2:
            raise ShapeError(f"{name} takes a matrix or a vector, got shape {list(self.shape)} (at {user_source()})")
        if self.dtype.category == BOOL:
            raise DTypeError(f"{name} does not take bool (at {user_source()}); convert with .float()")
        x: Any = self if self.dtype.is_floating_point else self.to(get_default_dtype())  # type: ignore[attr-defined]
        return x if x.ndim == 2 else x.reshape(1, -1)

    def corrcoef(self) -> Tensor:
        """The correlation matrix of variables (rows) over observations (columns), within [-1, 1]."""
        covariance: Any = self.cov()
        if not covariance.shape:
            return covariance / covariance
        size = covariance.shape[0]
        place = tensor(np.arange(size) * (size + 1))
        deviation = covariance.reshape(-1)[place].sqrt()
        return (covariance / deviation.reshape(-1, 1) / deviation).clamp(-1, 1)

    def histc(self, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
        """How many elements are in each of `bins` equal bins from `min` to `max` (both equal: the elements' own range).

        What lies outside is not counted. A host call, without a gradient; the counts have the tensor's dtype.
        """
        require_float("histc", self)
        bins = whole_number(bins, "histc", "bins")
        if bins <= 0 or max < min or not (math.isfinite(min) and math.isfinite(max)):
            raise ValueError(
                f"histc: bins must be positive and min at most max, got {bins}, {min}, {max} (at {user_source()})"
            )
        counts = host_call((detach(self.node),), _counting(bins, float(min), float(max)), (bins,), self.dtype)
        return self._wrap(counts)

    def histogram(
        self,
        bins: Any,
        *,
        range: tuple[float, float] | None = None,
        weight: Tensor | None = None,
        density: bool = False,
    ) -> Histogram:
        """The sums of `weight` (ones by default) in bins, and the edges of the bins.

        `bins` is the number of equal bins over `range` (by default the elements' own), or an ascending vector of edges.
        With `density` the sums are divided by the widths and the total. A host call counts; there is no gradient.
        """
        if self.dtype not in (float32, float64):
            raise DTypeError(f"histogram takes float32 or float64, got {self.dtype.name} (at {user_source()})")
        if weight is not None and (weight.shape != self.shape or weight.dtype is not self.dtype):
            raise ShapeError(
                f"histogram: weight must be {self.dtype.name}{list(self.shape)}, got {weight.dtype.name}"
                f"{list(weight.shape)} (at {user_source()})"
            )
        edges = self._edges(bins, range)
        x: Any = self.detach()
        weights: Any = ones(self.shape, dtype=self.dtype) if weight is None else weight.detach()
        operands = (x.reshape(-1, 1).node, weights.reshape(-1).node, edges.node)
        counts: Any = self._wrap(host_call(operands, _counted_in_boxes, (edges.shape[0] - 1,), self.dtype))
        if density:
            counts = counts / counts.sum() / (edges[1:] - edges[:-1])
        return Histogram(counts, edges)

    def _edges(self, bins: Any, range: tuple[float, float] | None) -> Any:
        if isinstance(bins, Handle):
            if bins.ndim != 1 or bins.shape[0] < 2 or bins.dtype is not self.dtype or range is not None:
                raise ShapeError(
                    f"histogram: edges must be a vector of {self.dtype.name}, at least two, without range; got "
                    f"{bins.dtype.name}{list(bins.shape)} and range {range} (at {user_source()})"
                )
            return bins.detach()
        if not isinstance(bins, int) or isinstance(bins, bool) or bins <= 0:
            raise ValueError(
                f"histogram: bins must be positive or a vector of edges, got {bins!r} (at {user_source()})"
            )
        if range is None and self.numel():
            return self._edges_of_range(bins)
        low, high = range or (0.0, 1.0)
        if not low <= high:
            raise ValueError(f"histogram: range must ascend, got {low} to {high} (at {user_source()})")
        margin = 0.5 * (low == high)
        return linspace(low - margin, high + margin, bins + 1, dtype=self.dtype)

    def _edges_of_range(self, bins: int) -> Any:
        """The edges of equal bins over the elements' own range."""
        ends = host_call((detach(self.node),), _ends, (2,), float64)
        low, high = (reshape(slice_(ends, ((at, at + 1),)), ()) for at in (0, 1))
        each = e.div(e.sub(high, low), constant(float(bins), float64))
        return self._wrap(e.convert(spaced(low, high, each, bins + 1), self.dtype))

    def bincount(self, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
        """How often each whole number from 0 to the greatest occurs in a vector, or the sum of its `weights`.

        At least `minlength` numbers are counted. Computed at once, without a gradient: TraceError inside a compiled
        step. Counts are int64, sums float64 (float32 of float32).
        """
        if self.ndim != 1 or self.dtype.category == FLOAT:
            raise ShapeError(
                f"bincount takes a vector of integers, got {self.dtype.name}{list(self.shape)} (at {user_source()})"
            )
        if minlength < 0:
            raise ValueError(f"bincount: minlength must not be negative, got {minlength} (at {user_source()})")
        if weights is not None and weights.shape != self.shape:
            raise ShapeError(
                f"bincount: weights {list(weights.shape)} must have the shape {list(self.shape)} (at {user_source()})"
            )
        numbers = realized(self, "bincount").astype(np.int64)
        if numbers.size and numbers.min() < 0:
            raise ValueError(f"bincount: numbers must not be negative, got {numbers.min()} (at {user_source()})")
        if weights is None:
            return tensor(np.bincount(numbers, minlength=minlength).astype(np.int64))
        sums = np.bincount(numbers, realized(weights, "bincount"), minlength)
        return tensor(sums, dtype=float32 if weights.dtype is float32 else float64)


class HistogramOfPoints(NamedTuple):
    """What histogramdd gives: the counts of the boxes, and the edges along each axis."""

    hist: Tensor
    bin_edges: tuple[Tensor, ...]


def histogramdd(
    input: Tensor,
    bins: Any,
    *,
    range: Sequence[float] | None = None,
    weight: Tensor | None = None,
    density: bool = False,
) -> HistogramOfPoints:
    """The sums of `weight` (ones by default) of points [..., D] in boxes, and the edges of the boxes along the D axes.

    `bins` is the number of equal bins along every axis, or for each axis such a number or an ascending vector of
    edges. `range` is the least and the greatest edge of the first axis, of the second, …; by default the points' own.
    With `density` the sums are divided by the boxes' volumes and the total. A host call
    counts; there is no gradient.

    >>> pb.histogramdd(pb.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 0.0], [2.0, 2.0]]), [2, 2]).hist
    tensor([[0., 1.],
            [2., 1.]])
    """
    points: Any = input.detach()
    if input.dtype not in (float32, float64):
        raise DTypeError(f"histogramdd takes float32 or float64, got {input.dtype.name} (at {user_source()})")
    if points.ndim < 2:
        raise ShapeError(f"histogramdd takes points [..., D], got shape {list(points.shape)} (at {user_source()})")
    axes = points.shape[-1]
    listed = [bins] * axes if isinstance(bins, int) else list(bins)
    if len(listed) != axes:
        raise ValueError(
            f"histogramdd: The size of bins must be equal to the innermost dimension of the input. There are "
            f"{len(listed)} bins for {axes} (at {user_source()})"
        )
    if range is not None and len(range) != 2 * axes:
        raise ValueError(
            f"histogramdd: range must have two numbers for each of {axes} axes, got {len(range)} (at {user_source()})"
        )
    if weight is not None and (weight.shape != points.shape[:-1] or weight.dtype is not input.dtype):
        raise ShapeError(
            f"histogramdd: weight must be {input.dtype.name}{list(points.shape[:-1])}, got {weight.dtype.name}"
            f"{list(weight.shape)} (at {user_source()})"
        )
    points = points.reshape(math.prod(points.shape[:-1]), axes)
    ends = None if range is None else [(range[2 * axis], range[2 * axis + 1]) for axis, _ in enumerate(listed)]
    edges = [points[:, axis]._edges(each, ends and ends[axis]) for axis, each in enumerate(listed)]
    weights: Any = ones(points.shape[:1], dtype=input.dtype) if weight is None else weight.detach().reshape(-1)
    shape = tuple(each.shape[0] - 1 for each in edges)
    operands = (points.node, weights.node, *(each.node for each in edges))
    counts: Any = Handle._wrap(host_call(operands, _counted_in_boxes, shape, input.dtype))
    if density:
        counts = counts / counts.sum()
        for axis, each in enumerate(edges):
            widths = (each[1:] - each[:-1]).reshape([-1 if a == axis else 1 for a, _ in enumerate(edges)])
            counts = counts / widths
    return HistogramOfPoints(counts, tuple(edges))


def _not_negative(name: str, weights: Tensor | None) -> Tensor | None:
    """The weights of cov, whose computing raises DomainError where one is negative."""
    if weights is None:
        return None
    holds = e.le(constant(0, weights.dtype), weights.node)
    return Handle._wrap(checked(weights.node, holds, f"cov: {name} cannot be negative"))


def _spacing(name: str, y: Any, x: Tensor | None, dx: Number | None, axis: int) -> Any:
    """The distances between neighbours along the axis: a number, or a tensor that broadcasts with them."""
    if y.dtype.category == BOOL:
        raise DTypeError(f"{name} does not take bool (at {user_source()}); convert with .to(dtype)")
    if x is None:
        return 1 if dx is None else dx
    if dx is not None:
        raise ValueError(f"{name} takes x or dx, not both (at {user_source()})")
    if x.ndim == 1:
        if x.shape[0] != y.shape[axis]:
            raise ShapeError(
                f"{name}: x has {x.shape[0]} places, y {y.shape[axis]} along the axis (at {user_source()})"
            )
        spread: Any = x
        return spread.diff().reshape(tuple(-1 if a == axis else 1 for a in range(y.ndim)))
    spread = x.reshape((*(1,) * (y.ndim - x.ndim), *x.shape))
    return spread.diff(dim=axis - y.ndim)


def _slabs(name: str, y: Any, x: Tensor | None, dx: Number | None, dim: int) -> Any:
    """Twice the area between each two neighbours along `dim`."""
    axis = normalize_axis(dim, y.ndim, name)
    spacing = _spacing(name, y, x, dx, axis)
    size = y.shape[axis]
    if size < 1:
        return y
    return (y.narrow(axis, 0, size - 1) + y.narrow(axis, 1, size - 1)) * spacing


def trapezoid(y: Tensor, x: Tensor | None = None, *, dx: Number | None = None, dim: int = -1) -> Tensor:
    """The integral of `y` along `dim` by the trapezoidal rule, over the places `x` or at distances `dx` (1).

    >>> pb.trapezoid(pb.tensor([1.0, 2.0, 4.0]))
    tensor(4.5000)
    """
    return _slabs("trapezoid", y, x, dx, dim).sum(dim) / 2


trapz = trapezoid


def cumulative_trapezoid(y: Tensor, x: Tensor | None = None, *, dx: Number | None = None, dim: int = -1) -> Tensor:
    """The integral of `y` along `dim` up to each place but the first, by the trapezoidal rule."""
    return _slabs("cumulative_trapezoid", y, x, dx, dim).cumsum(dim) / 2


__all__ = [
    "Histogram",
    "HistogramOfPoints",
    "MinMax",
    "StatisticsMethods",
    "cumulative_trapezoid",
    "histogramdd",
    "trapezoid",
    "trapz",
]
