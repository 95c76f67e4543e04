"""Switches of a library that is not there: they are kept, and there is nothing that they could act on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def switched(space: dict[str, Any], **values: Any) -> Iterator[None]:
    """A module's switches with other values inside."""
    before = {name: space[name] for name in values}
    space.update(values)
    try:
        yield
    finally:
        space.update(before)
