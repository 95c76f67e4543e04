"""Images made larger or smaller: each axis by itself, of one, two or four neighbours with weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from ...errors import DTypeError, ShapeError
from ...graph.types import float64, int32, uint8
from ...ops.indexing import take
from ...ops.primitive import user_source
from ...tensor import Tensor
from ...tensor.creation import tensor
from .activation import finished, widened
from .pooling_shares import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d

OutputSizes = int | Sequence[int] | None
Factors = float | Sequence[float] | None
#: (size, places, factor, whether corners are aligned, NumPy's type): the neighbours and their weights, [taps, places]
Taps = Callable[[int, int, float | None, bool, type], tuple[np.ndarray, np.ndarray]]
Numbers = TypeVar("Numbers", np.ndarray, Tensor)

#: the modes that weigh neighbours, and how many axes each takes
_WEIGHING = {"linear": 1, "bilinear": 2, "bicubic": 2, "trilinear": 3}
_COPYING = ("nearest", "nearest-exact")
_AREAS = (adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d)
#: up to so many neighbours are read one after the other; more are gathered at once
_MOST_TERMS = 4
#: of Keys, "Cubic Convolution Interpolation for Digital Image Processing" (1981), the slope that PyTorch takes
_CUBIC = -0.75


def interpolate(
    input: Tensor, size: OutputSizes = None, scale_factor: Factors = None, mode: str = "nearest",
    align_corners: bool | None = None, recompute_scale_factor: bool | None = None, antialias: bool = False,
) -> Tensor:  # fmt: skip
    """The input at another size: [N, C, sizes…] to [N, C, places…], one to three axes.

    `size` says the places, or else `scale_factor` how many times as many. `mode`: "nearest" (as OpenCV counts),
    "nearest-exact" (as PIL does), "linear", "bilinear" and "trilinear" for one, two and three axes, "bicubic", "area"
    (adaptive average pooling). With `align_corners` the first and last elements keep their places; else the edges of
    the first and last do. `recompute_scale_factor`: positions from the sizes, not from the factor. `antialias`, of
    "bilinear" and "bicubic": an image made smaller is read through a filter as wide as the step, as PIL does.

    Images of uint8 are taken by "nearest", "nearest-exact", "bilinear" and "bicubic", and give uint8.

    Raises `ShapeError` where sizes do not fit and `ValueError` for arguments that contradict each other.

    >>> pb.nn.functional.interpolate(pb.tensor([[[0.0, 1.0]]]), size=4, mode="linear", align_corners=False)
    tensor([[[0.0000, 0.2500, 0.7500, 1.0000]]])
    """
    rank = input.ndim - 2
    _check(input, mode, align_corners, antialias)
    if recompute_scale_factor and size is not None:
        raise ValueError(f"interpolate: recompute_scale_factor needs scale_factor, not size (at {user_source()})")
    places, factors = _places(input, size, scale_factor, mode == "area" or bool(recompute_scale_factor))
    if mode == "area":
        return _AREAS[rank - 1](input, places)
    if not all(size > 0 for size in (*input.shape[1:], *places)):
        raise ShapeError(f"interpolate: sizes {list(input.shape)} to {places} must be positive (at {user_source()})")
    if mode in _COPYING:
        x = input
        for axis, (wanted, factor) in enumerate(zip(places, factors, strict=True), 2):
            x = _copied(x, axis, _nearest(x.shape[axis], wanted, factor, mode == "nearest-exact"))
        return x.clone() if x is input else x
    if input.dtype is uint8:
        return _of_bytes(input, places, factors, _taps(mode, antialias), bool(align_corners))
    x = widened("interpolate", input)
    exact = np.float64 if x.dtype is float64 else np.float32
    for axis, (wanted, factor) in enumerate(zip(places, factors, strict=True), 2):
        taps = _taps(mode, antialias)
        x = _weighed(x, axis, *taps(x.shape[axis], wanted, factor, bool(align_corners), exact))
    return finished(x, input)


def _taps(mode: str, antialias: bool) -> Taps:
    return _filtered(mode) if antialias else _four if mode == "bicubic" else _two


def _of_bytes(input: Tensor, places: list[int], factors: list[float | None], taps: Taps, corners: bool) -> Tensor:
    """An image of uint8 with weights that are whole numbers, rounded after each axis, columns first, as PyTorch's."""
    x = input.to(int32)
    for axis in (3, 2):
        if x.shape[axis] == places[axis - 2]:
            continue
        numbers, weights = taps(x.shape[axis], places[axis - 2], factors[axis - 2], corners, np.float64)
        for tap in range(1, len(numbers)):  # an element at the edge that is read twice has one weight, rounded once
            again = np.where(numbers[tap] == numbers[tap - 1], weights[tap - 1], 0.0)
            weights[tap] += again
            weights[tap - 1] -= again
        shift = _shift(float(weights.max()))
        whole = np.trunc(weights * 2**shift + np.copysign(0.5, weights)).astype(np.int32)
        x = ((_weighed(x, axis, numbers, whole) + 2 ** (shift - 1)) >> shift).clamp(0, 255)
    return x.to(uint8)


def _shift(greatest: float) -> int:
    """How many bits of a weight stand behind the point, so that the greatest is below 2^15."""
    return next(bits for bits in range(22) if bits == 21 or int(0.5 + greatest * 2 ** (bits + 1)) >= 2**15)


def _check(input: Tensor, mode: str, align_corners: bool | None, antialias: bool) -> None:
    rank = input.ndim - 2
    if mode not in (*_WEIGHING, *_COPYING, "area"):
        modes = ", ".join((*_COPYING, *_WEIGHING, "area"))
        raise NotImplementedError(f"interpolate: mode must be one of {modes}, got {mode!r} (at {user_source()})")
    if rank not in (1, 2, 3) or _WEIGHING.get(mode, rank) != rank:
        takes = _WEIGHING.get(mode)
        axes = "one to three axes" if takes is None else f"axes {takes}"
        raise ShapeError(
            f"interpolate: mode {mode!r} takes [N, C, sizes…] with {axes} of sizes, got {list(input.shape)} "
            f"(at {user_source()})"
        )
    if align_corners is not None and mode not in _WEIGHING:
        raise ValueError(f"interpolate: mode {mode!r} takes no align_corners (at {user_source()}); leave it None")
    if antialias and mode not in _FILTERS:
        raise ValueError(
            f"interpolate: antialias takes mode {' or '.join(_FILTERS)}, got {mode!r} (at {user_source()})"
        )
    if not (input.dtype.is_floating_point or (input.dtype is uint8 and mode in (*_COPYING, *_FILTERS))):
        raise DTypeError(
            f"interpolate: mode {mode!r} takes floating point numbers, got {input.dtype.name} (at {user_source()})"
        )


def _places(
    input: Tensor, size: OutputSizes, scale_factor: Factors, recompute: bool
) -> tuple[list[int], list[float | None]]:
    """The places along each axis, and the factors that positions are counted with: None for that of the sizes."""
    sizes, given = input.shape[2:], size if scale_factor is None else scale_factor
    if (size is None) == (scale_factor is None):
        raise ValueError(f"interpolate: give one of size and scale_factor (at {user_source()})")
    values = list(given) if isinstance(given, Sequence) else [given] * len(sizes)
    if len(values) != len(sizes):
        raise ShapeError(
            f"interpolate: {values} must be one number or one for each of the axes {list(sizes)} (at {user_source()})"
        )
    if scale_factor is None:
        if not all(isinstance(value, (int, np.integer)) and not isinstance(value, bool) for value in values):
            raise TypeError(f"interpolate: size must be an int or ints, got {size!r} (at {user_source()})")
        return [int(value) for value in values], [None] * len(sizes)  # type: ignore[arg-type]
    factors = [float(value) for value in values]  # type: ignore[arg-type]
    if not all(0 < factor < float("inf") for factor in factors):
        raise ValueError(f"interpolate: scale_factor must be positive, got {scale_factor!r} (at {user_source()})")
    places = [int(have * factor) for have, factor in zip(sizes, factors, strict=True)]
    return places, [None] * len(sizes) if recompute else list(factors)


def _step(size: int, places: int, factor: float | None, corners: bool, exact: type) -> np.floating:
    """How far apart in the input two places are, counted in the precision of the numbers, as PyTorch does."""
    if corners:
        return exact(size - 1) / exact(max(places - 1, 1)) if places > 1 else exact(0)
    return exact(size) / exact(places) if factor is None else exact(1.0 / factor)


def _nearest(size: int, places: int, factor: float | None, centred: bool) -> np.ndarray:
    place = np.arange(places)
    if not centred and places in (size, 2 * size):  # whatever the factor, as PyTorch has it
        return place * size // places
    step = _step(size, places, factor, False, np.float32)
    position = (place.astype(np.float32) + np.float32(0.5 if centred else 0)) * step
    return np.minimum(np.floor(position).astype(np.int64), size - 1)


def _positions(size: int, places: int, factor: float | None, corners: bool, exact: type) -> np.ndarray:
    place: np.ndarray = np.arange(places).astype(exact)
    step = _step(size, places, factor, corners, exact)
    half = exact(0.5)
    return place * step if corners else (place + half) * step - half


def _two(size: int, places: int, factor: float | None, corners: bool, exact: type) -> tuple[np.ndarray, np.ndarray]:
    """The two neighbours of each place and their weights, each [2, places]."""
    if places == size:
        return np.arange(size)[np.newaxis], np.ones((1, size), exact)
    position = np.maximum(_positions(size, places, factor, corners, exact), exact(0))
    first = np.minimum(position.astype(np.int64), size - 1)
    share = np.clip(position - first.astype(exact), exact(0), exact(1))
    return np.stack([first, np.minimum(first + 1, size - 1)]), np.stack([exact(1) - share, share])


def _four(size: int, places: int, factor: float | None, corners: bool, exact: type) -> tuple[np.ndarray, np.ndarray]:
    """The four neighbours of each place and their weights by cubic convolution, each [4, places]."""
    position = _positions(size, places, factor, corners, exact)
    first = np.minimum(np.floor(position).astype(np.int64), size - 1)
    share = np.clip(position - first.astype(exact), exact(0), exact(1))
    numbers = np.clip(first + np.arange(-1, 3)[:, np.newaxis], 0, size - 1)
    return numbers, np.stack(cubic_weights(share)).astype(exact)


def _filtered(mode: str) -> Taps:
    """The neighbours of each place and their weights, by a filter that is as wide as the step where that is above 1."""
    reach, weigh = _FILTERS[mode]

    def taps(size: int, places: int, factor: float | None, corners: bool, exact: type) -> tuple[np.ndarray, np.ndarray]:
        step = _step(size, places, factor, corners, exact)
        width = max(step, exact(1))
        support, half = exact(reach) * width, exact(0.5)
        centre = step * (np.arange(places).astype(exact) + half)
        first = np.maximum((centre - support + half).astype(np.int64), 0)
        count = np.minimum((centre + support + half).astype(np.int64), size) - first
        count = np.clip(count, 0, int(np.ceil(support)) * 2 + 1)
        number = np.arange(count.max())[:, np.newaxis]
        weights: np.ndarray = weigh(np.abs((number + first - centre + half) / width)).astype(exact)
        weights = np.where(number < count, weights, exact(0))
        # a tap beyond a place's own is its first once more, with no weight
        return np.where(number < count, number + first, first), weights / weights.sum(0)

    return taps


def _triangle(distance: np.ndarray) -> np.ndarray:
    return np.maximum(1 - distance, 0)


def _cubic(distance: np.ndarray) -> np.ndarray:
    """Keys' filter with the slope that PIL takes."""
    a, d = -0.5, distance
    return np.where(d < 1, ((a + 2) * d - (a + 3)) * d * d + 1, np.where(d < 2, (((d - 5) * d + 8) * d - 4) * a, 0))


#: with antialiasing: how far each filter reaches, and what it is at a distance
_FILTERS: dict[str, tuple[float, Callable[[np.ndarray], np.ndarray]]] = {
    "bilinear": (1.0, _triangle),
    "bicubic": (2.0, _cubic),
}


def cubic_weights(share: Numbers) -> list[Numbers]:
    """The weights of the elements at -1, 0, 1 and 2 for a place at `share`, from 0 to 1 (Keys, 1981)."""
    a, rest = _CUBIC, 1 - share
    outer = [((a * d - 5 * a) * d + 8 * a) * d - 4 * a for d in (share + 1, rest + 1)]
    inner = [((a + 2) * d - (a + 3)) * d * d + 1 for d in (share, rest)]
    return [outer[0], inner[0], inner[1], outer[1]]


def _copied(x: Tensor, axis: int, numbers: np.ndarray) -> Tensor:
    """The elements of those numbers along an axis."""
    size, places = x.shape[axis], len(numbers)
    if places == size and (numbers == np.arange(size)).all():
        return x
    if places % size == 0 and (numbers == np.arange(places) // (places // size)).all():  # no table to look up
        wide = x.unsqueeze(axis + 1).expand(*x.shape[: axis + 1], places // size, *x.shape[axis + 1 :])
        return wide.reshape(*x.shape[:axis], places, *x.shape[axis + 1 :])
    return Tensor(take(x.movedim(axis, 0).node, tensor(numbers).node)).movedim(0, axis)


def _weighed(x: Tensor, axis: int, numbers: np.ndarray, weights: np.ndarray) -> Tensor:
    """The sums of elements along an axis, numbers and weights [taps, places]."""
    if len(numbers) == 1:  # of weight 1
        return _copied(x, axis, numbers[0])
    if len(numbers) > _MOST_TERMS:
        windows = Tensor(take(x.movedim(axis, 0).node, tensor(numbers.T).node))
        return (windows * tensor(weights.T.reshape(*windows.shape[:2], *(1,) * (x.ndim - 1)))).sum(1).movedim(0, axis)
    shape = (-1,) + (1,) * (x.ndim - 1 - axis)
    terms = [
        _copied(x, axis, number) * tensor(weight.reshape(shape))
        for number, weight in zip(numbers, weights, strict=True)
    ]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def upsample(
    input: Tensor, size: OutputSizes = None, scale_factor: Factors = None, mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:  # fmt: skip
    """`interpolate` under its old name, which warns."""
    warnings.warn("nn.functional.upsample is deprecated; use nn.functional.interpolate", stacklevel=2)
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(input: Tensor, size: OutputSizes = None, scale_factor: Factors = None) -> Tensor:
    """`interpolate` with mode "nearest" under its old name, which warns."""
    warnings.warn("nn.functional.upsample_nearest is deprecated; use nn.functional.interpolate", stacklevel=2)
    return interpolate(input, size, scale_factor, "nearest")


def upsample_bilinear(input: Tensor, size: OutputSizes = None, scale_factor: Factors = None) -> Tensor:
    """`interpolate` with mode "bilinear" and aligned corners under its old name, which warns."""
    warnings.warn("nn.functional.upsample_bilinear is deprecated; use nn.functional.interpolate", stacklevel=2)
    return interpolate(input, size, scale_factor, "bilinear", align_corners=True)


__all__ = ["interpolate", "upsample", "upsample_bilinear", "upsample_nearest"]
