"""Mixed precision under PyTorch's names."""

from ..tensor.autocast_mode import autocast, is_autocast_available
from .grad_scaler import GradScaler

__all__ = ["GradScaler", "autocast", "is_autocast_available"]
