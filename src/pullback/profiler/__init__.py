"""Where a program's time goes: by kernel, by operation, and by line of the user's code."""

from .profile import profile
from .rows import Row

__all__ = ["Row", "profile"]
