"""Mixed precision under PyTorch's names."""

from ..tensor.autocast_mode import autocast, is_autocast_available

__all__ = ["autocast", "is_autocast_available"]
