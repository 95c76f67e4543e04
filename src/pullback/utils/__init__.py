"""What stands around training: feeding data."""

from . import data

__all__ = ["data"]
