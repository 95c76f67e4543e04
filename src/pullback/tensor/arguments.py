"""What arguments have to be, whoever takes them."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from ..ops.primitive import user_source


class _Unsaid:
    """What stands for an argument that was not given, where None is not taken for it."""

    def __repr__(self) -> str:
        return "<unsaid>"


UNSAID: Any = _Unsaid()


def flag(value: Any, name: str, argument: str) -> bool:
    """A switch; TypeError where it is not True or False, such as 1, "no" or NumPy's True, which PyTorch refuses too."""
    if value is True or value is False:
        return bool(value)
    raise TypeError(f"{name}(): argument {argument!r} must be bool, not {type(value).__name__} (at {user_source()})")


def truth(value: Any, name: str, argument: str) -> bool:
    """A switch of which PyTorch takes whole numbers too; TypeError for anything else."""
    try:
        return bool(operator.index(value))
    except TypeError:
        raise TypeError(f"{name}(): argument {argument!r} must be bool, got {value!r} (at {user_source()})") from None


def real(value: Any, name: str, argument: str) -> Any:
    """A number, also of NumPy or in a tensor; TypeError where it is none, such as "0.1", or complex."""
    if isinstance(value, (str, bytes, complex, np.complexfloating)) or not hasattr(value, "__float__"):
        raise TypeError(
            f"{name}(): argument {argument!r} must be float, not {type(value).__name__} (at {user_source()})"
        )
    return value


def whole_number(value: Any, name: str, argument: str) -> int:
    """A count, size or offset; TypeError where it is no whole number, such as 2.0."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: {argument} must be a whole number, got {value!r} (at {user_source()})") from None
