"""PyTorch's file of autocast, and what a custom Function's methods do in it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ..graph.types import DType
from ..ops.primitive import MODE
from ..tensor import Tensor
from ..tensor.autocast_mode import (
    _check_device,
    autocast,
    get_autocast_dtype,
    is_autocast_available,
    is_autocast_enabled,
)
from ..trees import flatten, unflatten


def custom_fwd(
    fwd: Callable[..., Any] | None = None, *, device_type: str, cast_inputs: DType | None = None
) -> Callable[..., Any]:
    """A decorator of a Function's `forward`: with `cast_inputs` its floating-point arguments (not float64) are
    converted to that dtype and it runs without autocast, where autocast is on; else it runs in the mode of its caller.

    `custom_bwd` has `backward` run in the mode that forward ran in.
    """
    if fwd is None:
        return functools.partial(custom_fwd, device_type=device_type, cast_inputs=cast_inputs)
    _check_device(device_type)

    @functools.wraps(fwd)
    def forward(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        ctx._dtype = MODE.autocast.dtype or get_autocast_dtype(device_type)
        ctx._fwd_used_autocast = is_autocast_enabled(device_type)
        if cast_inputs is None or not ctx._fwd_used_autocast:
            return fwd(ctx, *args, **kwargs)
        ctx._fwd_used_autocast = False
        with autocast("cpu", enabled=False):
            return fwd(ctx, *_cast(args, cast_inputs), **_cast(kwargs, cast_inputs))

    return forward


def custom_bwd(bwd: Callable[..., Any] | None = None, *, device_type: str) -> Callable[..., Any]:
    """A decorator of a Function's `backward`: it runs in the mode of autocast that its `custom_fwd` forward ran in."""
    if bwd is None:
        return functools.partial(custom_bwd, device_type=device_type)
    _check_device(device_type)

    @functools.wraps(bwd)
    def backward(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        with autocast("cpu", enabled=ctx._fwd_used_autocast, dtype=ctx._dtype):
            return bwd(ctx, *args, **kwargs)

    return backward


def _cast(held: Any, dtype: DType) -> Any:
    def cast(value: Any) -> Any:
        is_cast = isinstance(value, Tensor) and value.dtype.is_floating_point and value.dtype.name != "float64"
        return value.to(dtype) if is_cast else value

    leaves, shape = flatten(held)
    return unflatten(shape, [cast(leaf) for leaf in leaves])


__all__ = ["autocast", "custom_bwd", "custom_fwd", "is_autocast_available"]
