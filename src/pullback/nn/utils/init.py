"""Modules made without drawing their initial values."""

from __future__ import annotations

import inspect
from typing import Any

from ...ops.primitive import user_source
from ...tensor.random import default_generator
from ..modules.module import Module


def skip_init(module_cls: type[Module], *args: Any, **kwargs: Any) -> Any:
    """`module_cls(*args, **kwargs)` with parameters and buffers to be filled: they hold zeros (see `pullback.empty`).

    The default generator stays where it was. Raises RuntimeError for a class that is no module or takes no `device`.

    >>> pb.nn.utils.skip_init(pb.nn.Linear, 2, 1).weight.tolist()
    [[0.0, 0.0]]
    """
    if not (isinstance(module_cls, type) and issubclass(module_cls, Module)):
        raise RuntimeError(f"skip_init takes a class of modules, got {module_cls!r} (at {user_source()})")
    if "device" not in inspect.signature(module_cls).parameters:
        raise RuntimeError(f"skip_init: {module_cls.__name__} takes no `device` argument (at {user_source()})")
    # nothing that is drawn here is ever computed: values are computed when they are asked for
    generator = default_generator()
    state = generator.get_state()
    try:
        return module_cls(*args, **kwargs).to_empty(device=kwargs.get("device") or "cpu")
    finally:
        generator.set_state(state)


__all__ = ["skip_init"]
