"""Which backend a graph is made ready for."""

from __future__ import annotations

from typing import Any

from .. import debug
from .interpreted import Interpreted
from .native import Native
from .program import Program


def made_program(*given: Any, **options: Any) -> Program:
    """A program on the backend that is switched on; it takes what `Program` takes."""
    return (Interpreted if debug.get("backend") == "reference" else Native)(*given, **options)


__all__ = ["made_program"]
