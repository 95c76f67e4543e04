"""What arguments have to be, whoever takes them."""

from __future__ import annotations

import operator
from typing import Any

from ..ops.primitive import user_source


def whole_number(value: Any, name: str, argument: str) -> int:
    """A count, size or offset; TypeError where it is no whole number, such as 2.0."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: {argument} must be a whole number, got {value!r} (at {user_source()})") from None
