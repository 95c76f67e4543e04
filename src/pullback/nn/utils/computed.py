"""Tensors of modules that are computed where they are read: properties of a class that a module has to itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...tensor import Tensor
from ...tensor.handle import structure_changed

#: what a module's own class holds: the class that the module had, and what reads each computed tensor
_BEFORE, _READERS = "_class_before", "_computed_tensors"

Readers = dict[str, Callable[[Any], Tensor]]


def compute(module: Any, name: str, read: Callable[[Any], Tensor]) -> None:
    """Have `module.name` be what `read(module)` gives."""
    _give_class(module, {**_readers(module), name: read})


def computed_no_more(module: Any, name: str) -> None:
    """Have `module.name` be free again."""
    _give_class(module, {other: read for other, read in _readers(module).items() if other != name})


def _readers(module: Any) -> Readers:
    return vars(type(module)).get(_READERS, {})


def _give_class(module: Any, readers: Readers) -> None:
    # always a new class: copies of the module may have the present one
    before = vars(type(module)).get(_BEFORE, type(module))
    properties = {name: property(read) for name, read in readers.items()}
    held = {"__module__": before.__module__, _BEFORE: before, _READERS: readers, **properties}
    structure_changed()
    module.__class__ = type(before.__name__, (before,), held) if readers else before


__all__ = ["compute", "computed_no_more"]
