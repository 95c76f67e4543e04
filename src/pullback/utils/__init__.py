"""What stands around training: feeding data, calling Python from inside a step, checkpoints."""

from . import checkpoint, data
from .host import host_call

__all__ = ["checkpoint", "data", "host_call"]
