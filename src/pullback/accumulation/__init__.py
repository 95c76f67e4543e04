"""The gradient of a batch from its parts, one after the other: `pullback.accumulate`."""

from .accumulate import accumulate

__all__ = ["accumulate"]
