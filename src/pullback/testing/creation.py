"""Tensors for tests: `make_tensor`, as PyTorch's."""

from __future__ import annotations

import math
from typing import Any

from ..graph.types import BOOL, DType
from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.arithmetic import where
from ..tensor.limits import finfo, iinfo
from ..tensor.random import rand, randint
from ..tensor.shapes import as_shape


def make_tensor(
    *shape: Any,
    dtype: DType,
    device: str,
    low: float | None = None,
    high: float | None = None,
    requires_grad: bool = False,
    noncontiguous: bool = False,
    exclude_zero: bool = False,
    memory_format: object = None,
) -> Tensor:
    """A tensor drawn uniformly from [low, high), which are kept to what `dtype` can hold.

    By default from -9 to 9 of floats, from -9 (unsigned: 0) to below 10 of integers, and any bool. `noncontiguous`
    makes it a view of every second element of another; `exclude_zero` puts 1, or the least normal float, in the place
    of zeros.

    >>> made = pb.testing.make_tensor((2, 3), dtype=pb.uint8, device="cpu", low=3, high=5)
    >>> made.shape, sorted({*made.flatten().tolist()} | {3, 4})
    (pullback.Size([2, 3]), [3, 4])
    """
    sizes = as_shape(shape)
    if noncontiguous and memory_format is not None:
        raise ValueError(
            f"make_tensor: noncontiguous and memory_format exclude each other, got {memory_format!r} "
            f"(at {user_source()})"
        )
    if requires_grad and not dtype.is_floating_point:
        raise ValueError(f"make_tensor: requires_grad is not for {dtype.name} (at {user_source()})")
    spread = noncontiguous and math.prod(sizes) > 1
    made = _drawn((*sizes[:-1], 2 * sizes[-1]) if spread else sizes, dtype, device, low, high)
    if exclude_zero:
        made = where(made == 0, finfo(dtype).tiny if dtype.is_floating_point else 1, made).to(dtype)
    if spread:
        made = made[..., 1::2]
    elif memory_format is not None:
        made = made.clone(memory_format=memory_format)
    return made.requires_grad_(requires_grad) if requires_grad else made


def _drawn(sizes: tuple[int, ...], dtype: DType, device: str, low: float | None, high: float | None) -> Tensor:
    if dtype.is_floating_point:
        bounds = finfo(dtype)
        least, most = _within(low, high, (-9, 9), (bounds.min, bounds.max), dtype)
        half = rand(sizes, dtype=dtype, device=device) * (most / 2 - least / 2)  # the whole may be beyond the dtype
        return (half + least / 2) * 2 if most - least >= bounds.max else half * 2 + least
    limits = (0, 2) if dtype.category == BOOL else (iinfo(dtype).min, min(iinfo(dtype).max + 1, 2**63 - 1))
    usual = (0, 2) if dtype.category == BOOL else (-9, 10)
    least, most = (math.ceil(bound) for bound in _within(low, high, usual, limits, dtype))
    if most - least > 2**63:  # which is more than there are numbers to draw from at once
        return randint(least // 2, most // 2, sizes, device=device) * 2 + randint(0, 2, sizes, device=device)
    return randint(least, most, sizes, dtype=dtype, device=device)


def _within(
    low: float | None, high: float | None, usual: tuple[float, float], limits: tuple[float, float], dtype: DType
) -> tuple[float, float]:
    """The bounds of a draw, kept to what the dtype can hold."""
    low, high = usual[0] if low is None else low, usual[1] if high is None else high
    if math.isnan(low) or math.isnan(high):
        raise ValueError(f"make_tensor: low and high cannot be NaN, got {low} and {high} (at {user_source()})")
    if low > high or (low == high and not dtype.is_floating_point):
        raise ValueError(f"make_tensor: low must be less than high, got {low} >= {high} (at {user_source()})")
    if high < limits[0] or low >= limits[1]:
        raise ValueError(
            f"make_tensor: {dtype.name} holds [{limits[0]}, {limits[1]}), got [{low}, {high}) (at {user_source()})"
        )
    return min(max(low, limits[0]), limits[1]), min(max(high, limits[0]), limits[1])
