"""Signals: `pullback.signal.windows`, as PyTorch has it."""

from . import windows

__all__ = ["windows"]
