"""Mixed precision by region: matrix products in a 16-bit float, what needs its range or digits in float32.

Micikevicius et al., "Mixed Precision Training" (ICLR 2018). Parameters stay as they are: the cast of one is a `convert`
node, whose gradient converts back. Which operations are done in which dtype is PyTorch's choice for CPUs; each of them
calls `lowered` or `in_float32` on its operands, and all others take the dtypes that they are given.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from contextlib import ContextDecorator
from types import TracebackType
from typing import Any, ClassVar
from weakref import WeakValueDictionary

from ..graph.types import DType, bfloat16, float16, float32, float64
from ..ops.elementwise import convert
from ..ops.primitive import MODE, Lowering, autocast_mode, user_source
from .handle import Handle

#: the dtype that a region takes where none is given, by device
_DEFAULTS = {"cpu": bfloat16, "cuda": float16}
_LOW = (bfloat16, float16)


class _State:
    #: of what it has been said that it runs on the CPU
    warned: ClassVar[set[str]] = set()


def _check_device(device_type: Any) -> None:
    if not isinstance(device_type, str):
        raise ValueError(
            f'autocast: device_type must be a string, got {device_type!r} (at {user_source()}); write autocast("cpu")'
        )
    if device_type not in _DEFAULTS:
        raise RuntimeError(
            f"autocast: no device {device_type!r} (at {user_source()}): expected one of {', '.join(_DEFAULTS)}; "
            'Pullback runs on "cpu"'
        )


def warn_of_device(name: str, device_type: str) -> None:
    """Say once of each name that what is meant for "cuda" runs on the CPU. Raises RuntimeError for other devices."""
    _check_device(device_type)
    if device_type == "cuda" and name not in _State.warned:
        _State.warned.add(name)
        warnings.warn(
            f'{name}("cuda") at {user_source()}: there is no such device, so that it runs in the same precision on the '
            f'CPU; write {name}("cpu")',
            stacklevel=3,
        )


class autocast(ContextDecorator):
    """The region, or decorated function, in which matrix products are done in `dtype` and losses in float32.

    `dtype` is bfloat16 or float16: unless given that of the region around it, or else bfloat16. Products,
    `nn.functional.linear` and attention take float32 operands rounded to it, and give it; losses are computed from, and
    in, float32; everything else follows its operands' dtypes (`docs/autocast.md` has the table). Parameters stay
    float32, and so do their gradients; the backward pass runs in the dtypes of the forward pass, inside the region or
    after it. `enabled=False` switches a part of a region off.
    `cache_enabled` (as outside unless given) has a parameter that several operations read cast once.

    `device_type` "cuda" warns once and runs in the same precision (float16 unless given) on the CPU. Raises
    RuntimeError for another device. A dtype other than these two warns and leaves the region off, as in PyTorch.

    >>> layer = pb.nn.Linear(4, 2)
    >>> with pb.autocast("cpu"):
    ...     y = layer(pb.ones(3, 4))
    >>> y.dtype, layer.weight.dtype
    (pullback.bfloat16, pullback.float32)
    """

    def __init__(
        self, device_type: str, dtype: DType | None = None, enabled: bool = True, cache_enabled: bool | None = None
    ):
        _check_device(device_type)
        if dtype is not None and not isinstance(dtype, DType):
            raise TypeError(f"autocast: dtype must be bfloat16 or float16, got {dtype!r} (at {user_source()})")
        if enabled and dtype is not None and dtype not in _LOW:
            warnings.warn(
                f"autocast: {dtype.name} is not supported (at {user_source()}), only bfloat16 and float16 are; "
                "the region is switched off",
                stacklevel=2,
            )
            enabled = False
        if enabled:
            warn_of_device("autocast", device_type)
        self.device, self.dtype = device_type, dtype or get_autocast_dtype(device_type)
        self.enabled, self.cache_enabled = enabled, cache_enabled
        self._before: list[Lowering] = []

    def __enter__(self) -> autocast:
        before = MODE.autocast
        self._before.append(before)
        cache = before.cache if self.cache_enabled is None else self.cache_enabled
        casts = WeakValueDictionary() if before.casts is None else before.casts
        chosen = {**before.chosen, self.device: self.dtype}
        MODE.autocast = Lowering(self.dtype if self.enabled else None, cache, casts, chosen)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        MODE.autocast = self._before.pop()


def is_autocast_enabled(device_type: str | None = None) -> bool:
    """Whether operations are in an enabled autocast region now; there is only one device, whichever is named."""
    if device_type is not None:
        _check_device(device_type)
    return MODE.autocast.dtype is not None


def set_autocast_enabled(device_type: str, enabled: bool) -> None:
    """Switch autocast on, in the dtype of the region that is entered or the default, or off, up to the region's end.

    Outside of regions it stays so for this thread. A region, `with autocast(…)`, is surer to end where it should.
    """
    before = MODE.autocast
    if enabled:
        warn_of_device("autocast", device_type)
    chosen = get_autocast_dtype(device_type)
    casts = WeakValueDictionary() if before.casts is None else before.casts
    MODE.autocast = Lowering(chosen if enabled else None, before.cache, casts, {**before.chosen, device_type: chosen})


def set_autocast_dtype(device_type: str, dtype: DType) -> None:
    """Have regions for `device_type` that are given none take this dtype, and the one that is entered too, up to its
    end; outside of regions it stays so for this thread. Raises TypeError for what is neither bfloat16 nor float16.
    """
    _check_device(device_type)
    if dtype not in _LOW:
        raise TypeError(f"set_autocast_dtype: dtype must be bfloat16 or float16, got {dtype!r} (at {user_source()})")
    before = MODE.autocast
    now = None if before.dtype is None else dtype
    MODE.autocast = before._replace(dtype=now, chosen={**before.chosen, device_type: dtype})


def set_autocast_cache_enabled(enabled: bool) -> None:
    """Whether regions have a parameter that several operations read cast once, from here to the end of the region that
    is entered.
    """
    MODE.autocast = MODE.autocast._replace(cache=bool(enabled))


def get_autocast_dtype(device_type: str) -> DType:
    """The dtype of the region that is entered, or else the one that a region for `device_type` would take."""
    _check_device(device_type)
    return MODE.autocast.chosen.get(device_type, _DEFAULTS[device_type])


def is_autocast_cache_enabled() -> bool:
    """Whether regions have a parameter that several operations read cast once."""
    return MODE.autocast.cache


def clear_autocast_cache() -> None:
    """Have parameters cast anew by what reads them next in the region that is entered."""
    if MODE.autocast.casts is not None:
        MODE.autocast.casts.clear()


def is_autocast_available(device_type: str) -> bool:
    """Whether autocast(device_type) can be entered: for "cpu", and for "cuda" with a warning."""
    return device_type in _DEFAULTS


def lowered(*operands: Any) -> list[Any]:
    """The operands of a matrix product: float32 and 16-bit floats in the region's dtype, all else (None too) as it is.

    Integers and float64 are not touched, as in PyTorch; without a region nothing is.
    """
    region = MODE.autocast
    if region.dtype is None:
        return list(operands)
    return [
        _rounded(o, region.dtype, region) if _is_castable(o) and o.dtype is not region.dtype else o for o in operands
    ]


def _rounded(operand: Any, dtype: DType, region: Lowering) -> Any:
    node = operand.node
    parameter = node.requires_grad and operand.is_leaf
    if region.casts is None or not (region.cache and parameter and node.dtype is float32):
        return operand._wrap(convert(node, dtype))
    key = (id(node), dtype, MODE.grad)
    made = region.casts.get(key)
    # a node that is gone may have left its id to another
    if made is None or made.inputs != (node,):
        made = region.casts[key] = convert(node, dtype)
    return operand._wrap(made)


def _is_castable(operand: Any) -> bool:
    return isinstance(operand, Handle) and operand.dtype.is_floating_point and operand.dtype is not float64


def in_float32(*operands: Any) -> list[Any]:
    """The operands of what a region does in float32: 16-bit floats widened, all else (None too) as it is."""
    if MODE.autocast.dtype is None:
        return list(operands)
    return [o._wrap(convert(o.node, float32)) if _is_castable(o) else o for o in operands]


def unlowered(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` done in the dtypes of its operands, in autocast regions too."""

    @functools.wraps(function)
    def _run(*args: Any, **options: Any) -> Any:
        if MODE.autocast.dtype is None:
            return function(*args, **options)
        with autocast_mode(Lowering()):
            return function(*args, **options)

    return _run


def widening(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` done in float32 in autocast regions, whatever 16-bit floats it is given."""

    @functools.wraps(function)
    def _run(*args: Any, **options: Any) -> Any:
        if MODE.autocast.dtype is None:
            return function(*args, **options)
        wide = in_float32(*args)
        named = dict(zip(options, in_float32(*options.values()), strict=True))
        with autocast_mode(Lowering()):
            return function(*wide, **named)

    return _run


__all__ = [
    "autocast",
    "clear_autocast_cache",
    "get_autocast_dtype",
    "in_float32",
    "is_autocast_available",
    "is_autocast_cache_enabled",
    "is_autocast_enabled",
    "lowered",
    "set_autocast_cache_enabled",
    "set_autocast_dtype",
    "set_autocast_enabled",
    "unlowered",
    "widening",
]
