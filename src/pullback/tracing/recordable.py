"""What can be compiled: something callable that runs to its end when it is called."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from ..tensor.store import Store


def is_module(thing: Any) -> bool:
    """Whether it is a module of `nn`, which this room must not import."""
    return isinstance(getattr(thing, "__dict__", {}).get("_modules"), Store)


def refuse(function: Any) -> None:
    """Raise TypeError for what is no function that can be recorded."""
    if isinstance(function, type):
        raise TypeError(
            f"compile takes a function, got the class {function.__name__}. Compile an object of it, or its methods."
        )
    if not callable(function):
        raise TypeError(f"compile takes a function, got {function!r}")
    inner = inspect.unwrap(function)
    while isinstance(inner, functools.partial):
        inner = inner.func
    called = inner if inspect.isroutine(inner) else type(inner).__call__
    for each in (called, inner.forward) if is_module(inner) else (called,):
        for is_one, kind in (
            (inspect.isasyncgenfunction, "an asynchronous generator"),
            (inspect.iscoroutinefunction, "asynchronous"),
            (inspect.isgeneratorfunction, "a generator"),
        ):
            if is_one(each):
                raise TypeError(
                    f"compile takes a function that runs to its end when it is called, and "
                    f"{getattr(function, '__name__', type(function).__name__)} is {kind}. Compile the function that "
                    "computes one step, and call that from it."
                )
