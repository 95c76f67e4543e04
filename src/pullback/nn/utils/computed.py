"""Tensors of modules that are computed where they are read: properties of a class that a module has to itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...ops.primitive import user_source
from ...tensor import Tensor
from ...tensor.grad_modes import no_grad
from ...tensor.store import structure_changed
from ..parameter import Parameter

#: what a module's own class holds: the class that the module had, and what reads each computed tensor
_BEFORE, _READERS = "_class_before", "_computed_tensors"
#: in a module's attributes: what its computed weights are, by kind and name, with what takes them away
_WEIGHTS = "_computed_weights"

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


def weight_of(function: str, module: Any, name: str) -> Parameter:
    """The module's parameter of that name; ValueError where there is none."""
    weight = module._parameters.get(name)
    if weight is None:
        raise ValueError(f"{function}: {type(module).__name__} has no parameter {name!r} (at {user_source()})")
    return weight


def keep_computed(
    kind: str, module: Any, name: str, read: Callable[[Any], Tensor], undo: Callable[[Any], None]
) -> None:
    """Have `module.name` be what `read` gives, until `undo` takes what it is computed from away from the module, or
    from a copy of it.
    """
    compute(module, name, read)
    module.__dict__.setdefault(_WEIGHTS, {})[kind, name] = undo


def keep_no_more(kind: str, module: Any, name: str) -> Any:
    """Make what `keep_computed` made a parameter again, of the value that it has."""
    undo = module.__dict__.get(_WEIGHTS, {}).pop((kind, name), None)
    if undo is None:
        raise ValueError(f"{type(module).__name__} has no {kind} of {name!r} (at {user_source()})")
    with no_grad():
        value = getattr(module, name).detach().clone()
    undo(module)
    computed_no_more(module, name)
    module.register_parameter(name, Parameter(value))
    return module


__all__ = ["compute", "computed_no_more", "keep_computed", "keep_no_more", "weight_of"]
