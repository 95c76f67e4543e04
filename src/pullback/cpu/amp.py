"""`torch.cpu.amp`, the former place of `torch.amp` on the CPU."""

from __future__ import annotations

from ..amp import GradScaler as _GradScaler
from ..graph.types import DType, bfloat16
from ..tensor.autocast_mode import autocast as _autocast


class autocast(_autocast):
    """`amp.autocast("cpu", …)`.

    >>> with pb.cpu.amp.autocast():
    ...     (pb.ones(2, 2) @ pb.ones(2, 2)).dtype
    pullback.bfloat16
    """

    def __init__(self, enabled: bool = True, dtype: DType = bfloat16, cache_enabled: bool | None = True):
        super().__init__("cpu", dtype, enabled, cache_enabled)


class GradScaler(_GradScaler):
    """`amp.GradScaler("cpu", …)`."""

    def __init__(
        self, init_scale: float = 2.0**16, growth_factor: float = 2.0, backoff_factor: float = 0.5,
        growth_interval: int = 2000, enabled: bool = True,
    ):  # fmt: skip
        super().__init__("cpu", init_scale, growth_factor, backoff_factor, growth_interval, enabled)


__all__ = ["GradScaler", "autocast"]
