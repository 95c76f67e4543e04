"""`torch.cuda.amp`, the former place of `torch.amp`."""

from __future__ import annotations

import functools

from ..amp import GradScaler as _GradScaler
from ..amp.autocast_mode import custom_bwd as _custom_bwd
from ..amp.autocast_mode import custom_fwd as _custom_fwd
from ..graph.types import DType, float16
from ..tensor.autocast_mode import autocast as _autocast


class autocast(_autocast):
    """`amp.autocast("cuda", …)`, which says that there is no such device and runs in the same precision on the CPU."""

    def __init__(self, enabled: bool = True, dtype: DType = float16, cache_enabled: bool | None = True):
        super().__init__("cuda", dtype, enabled, cache_enabled)


class GradScaler(_GradScaler):
    """`amp.GradScaler("cuda", …)`, which says that there is no such device and scales just so."""

    def __init__(
        self, init_scale: float = 2.0**16, growth_factor: float = 2.0, backoff_factor: float = 0.5,
        growth_interval: int = 2000, enabled: bool = True,
    ):  # fmt: skip
        super().__init__("cuda", init_scale, growth_factor, backoff_factor, growth_interval, enabled)


custom_fwd = functools.partial(_custom_fwd, device_type="cuda")
custom_bwd = functools.partial(_custom_bwd, device_type="cuda")

__all__ = ["GradScaler", "autocast", "custom_bwd", "custom_fwd"]
