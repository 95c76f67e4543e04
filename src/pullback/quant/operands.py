"""What the functions of codes take."""

from __future__ import annotations

from typing import Any

from ..errors import DTypeError
from ..ops.primitive import user_source
from ..tensor import Tensor


def check_tensors(name: str, **given: Any) -> None:
    """Raise TypeError where an argument is no tensor."""
    for argument, value in given.items():
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{name}: {argument} must be a tensor, got {type(value).__name__} (at {user_source()}); "
                "pullback.tensor(…) makes one of numbers or an array"
            )


def check_floats(name: str, **given: Any) -> None:
    """Raise TypeError where an argument is no tensor, DTypeError where it is none of floats."""
    check_tensors(name, **given)
    for value in given.values():
        if not value.dtype.is_floating_point:
            raise DTypeError(f"{name} takes floats, got {value.dtype.name} (at {user_source()})")


__all__ = ["check_floats", "check_tensors"]
