"""Derivatives of sampled functions by finite differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import ShapeError
from ..ops.primitive import user_source
from .handle import Handle
from .joining import cat
from .reductions import normalize_axis

if TYPE_CHECKING:
    from . import Tensor


def gradient(
    input: Tensor, *, spacing: Any = None, dim: int | Sequence[int] | None = None, edge_order: int = 1
) -> tuple[Tensor, ...]:
    """The derivatives of a function sampled in `input` along `dim` (each axis by default): central differences within.

    `spacing` is the distance of samples (1), one number or one an axis, or a list of one coordinate vector an axis. At
    the ends the differences are one-sided, to the first or second order by `edge_order` (1 or 2). An axis needs
    edge_order + 1 samples.

    >>> pb.gradient(pb.tensor([0.0, 1.0, 4.0, 9.0]))
    (tensor([1., 2., 4., 5.]),)
    """
    if edge_order not in (1, 2):
        raise ValueError(f"gradient: edge_order must be 1 or 2, got {edge_order!r} (at {user_source()})")
    listed = range(input.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    axes = [normalize_axis(axis, input.ndim, "gradient") for axis in listed]
    if len(set(axes)) != len(axes):
        raise ValueError(f"gradient: dim names an axis twice, {list(axes)} (at {user_source()})")
    spacing = 1 if spacing is None else spacing
    spacings = spacing if isinstance(spacing, (list, tuple)) else [spacing] * len(axes)
    if len(spacings) != len(axes):
        raise ValueError(f"gradient: {len(axes)} axes need as many spacings, got {len(spacings)} (at {user_source()})")
    return tuple(_along(input, axis, space, edge_order) for axis, space in zip(axes, spacings, strict=True))


def _along(x: Tensor, axis: int, spacing: Any, edge_order: int) -> Tensor:
    size = x.shape[axis]
    if size < edge_order + 1:
        raise ShapeError(
            f"gradient: axis {axis} of {list(x.shape)} needs at least {edge_order + 1} samples (at {user_source()})"
        )
    if not isinstance(spacing, Handle):
        return _evenly(x, axis, spacing, edge_order)
    if spacing.shape != (size,):
        raise ShapeError(
            f"gradient: the coordinates along axis {axis} must be [{size}], got {list(spacing.shape)} "
            f"(at {user_source()})"
        )
    return _unevenly(x, axis, spacing, edge_order)


def _evenly(x: Tensor, axis: int, step: Any, edge_order: int) -> Tensor:
    at = _Samples(x, axis)
    first, last = at[0:1], at[at.size - 1 :]
    if edge_order == 1:
        begin, end = (at[1:2] - first) / step, (last - at[at.size - 2 : at.size - 1]) / step
    else:
        begin = (-1.5 * first + 2 * at[1:2] - 0.5 * at[2:3]) / step
        end = (1.5 * last - 2 * at[at.size - 2 : at.size - 1] + 0.5 * at[at.size - 3 : at.size - 2]) / step
    within = (at[2:] - at[: at.size - 2]) / (2 * step)
    return cat([begin, within, end], axis)


def _unevenly(x: Tensor, axis: int, coordinates: Any, edge_order: int) -> Tensor:
    """As numpy.gradient: weights from the Taylor series of three neighbours."""
    at, n = _Samples(x, axis), x.shape[axis]
    steps = (coordinates[1:] - coordinates[:-1]).reshape([-1 if a == axis else 1 for a in range(x.ndim)])
    step = _Samples(steps, axis)
    if edge_order == 1:
        begin = (at[1:2] - at[0:1]) / step[0:1]
        end = (at[n - 1 :] - at[n - 2 : n - 1]) / step[n - 2 :]
    else:
        a, b = step[0:1], step[1:2]
        begin = at[0:1] * (-(2 * a + b) / (a * (a + b))) + at[1:2] * ((a + b) / (a * b)) - at[2:3] * (a / (b * (a + b)))
        a, b = step[n - 3 : n - 2], step[n - 2 :]
        end = at[n - 3 : n - 2] * (b / (a * (a + b))) - at[n - 2 : n - 1] * ((a + b) / (a * b))
        end = end + at[n - 1 :] * ((2 * b + a) / (b * (a + b)))
    a, b = step[: n - 2], step[1:]
    left, centre = -b / (a * (a + b)), (b - a) / (a * b)
    within = at[: n - 2] * left + at[1 : n - 1] * centre + at[2:] * (a / (b * (a + b)))
    return cat([begin, within, end], axis)


class _Samples:
    """Slices of a tensor along one axis."""

    def __init__(self, x: Tensor, axis: int):
        self.x, self.before, self.size = x, (slice(None),) * axis, x.shape[axis]

    def __getitem__(self, part: slice) -> Tensor:
        return self.x[(*self.before, part)]


__all__ = ["gradient"]
