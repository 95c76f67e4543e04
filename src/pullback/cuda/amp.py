"""`torch.cuda.amp`, the former place of `torch.amp`."""

from __future__ import annotations

from ..amp import GradScaler
from ..graph.types import DType, float16
from ..tensor.autocast_mode import autocast as _autocast


class autocast(_autocast):
    """`amp.autocast("cuda", …)`, which says that there is no such device and runs in the same precision on the CPU."""

    def __init__(self, enabled: bool = True, dtype: DType = float16, cache_enabled: bool | None = True):
        super().__init__("cuda", dtype, enabled, cache_enabled)


__all__ = ["GradScaler", "autocast"]
