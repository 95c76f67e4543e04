"""What stands around training: feeding data, calling Python from inside a step."""

from . import data
from .host import host_call

__all__ = ["data", "host_call"]
