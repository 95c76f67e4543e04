"""Switching the recording of history on and off: `no_grad` and its kin."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator
from types import TracebackType
from typing import Any, Self

from ..ops.primitive import MODE
from .arguments import flag


class _Mode:
    """A context manager, and a decorator of functions, that sets the mode inside.

    A generator runs in the mode whenever it goes on, and whoever takes its values in their own.
    """

    mode: bool
    #: the modes that blocks of this object were entered in
    _before: list[bool]

    def __enter__(self) -> None:
        self._before.append(MODE.grad)
        MODE.grad = self.mode

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        MODE.grad = self._before.pop()

    def __call__(self, function: Callable[..., Any]) -> Any:
        if inspect.isgeneratorfunction(function):
            return self._resumed(function)

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return run

    def _resumed(self, function: Callable[..., Generator[Any, Any, Any]]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            steps = function(*args, **kwargs)
            resume, sent = steps.send, None
            try:
                while True:
                    with self:
                        try:
                            given = resume(sent)
                        except StopIteration as end:
                            return end.value
                    try:
                        resume, sent = steps.send, (yield given)
                    except GeneratorExit:
                        raise
                    except BaseException as error:
                        resume, sent = steps.throw, error
            finally:
                with self:
                    steps.close()

        return run


class set_grad_enabled(_Mode):
    """Record history (True) or not (False): at once, and back at the end if used as a context manager."""

    def __init__(self, mode: bool):
        flag(mode, "set_grad_enabled", "mode")
        self._before = []
        self.mode, self._at_once = mode, [MODE.grad]
        MODE.grad = mode

    def __enter__(self) -> None:
        # what was there before the mode was set at once is what is to be there after the block
        super().__enter__()
        if self._at_once:
            self._before[-1] = self._at_once.pop()

    def __call__(self, function: Callable[..., Any]) -> Any:
        if self._at_once:
            MODE.grad = self._at_once.pop()
        return super().__call__(function)


class _Fixed(_Mode):
    """A mode that is written with its parentheses or, as a decorator, without."""

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        made = super().__new__(cls)
        made._before = []
        return made if function is None else made(function)


class no_grad(_Fixed):
    """Nothing computed inside is recorded for differentiation.

    >>> w = pb.ones(1, requires_grad=True)
    >>> with pb.no_grad():
    ...     w -= 0.5
    >>> w
    tensor([0.5000], requires_grad=True)
    """

    mode = False


class enable_grad(_Fixed):
    """What is computed inside is recorded, also within no_grad()."""

    mode = True


class inference_mode(_Mode):
    """`no_grad()`; with `mode` False `enable_grad()`. What is computed inside may be used outside as any tensor."""

    _outside: list[bool]

    def __new__(cls, mode: bool | Callable[..., Any] = True) -> Self:
        made = super().__new__(cls)
        made._before, made._outside = [], []
        if not isinstance(mode, bool):
            made.mode = False
            return made(mode)
        made.mode = not mode
        return made

    def __enter__(self) -> None:
        super().__enter__()
        self._outside.append(MODE.inference)
        MODE.inference = not self.mode

    def __exit__(self, *error: Any) -> None:
        MODE.inference = self._outside.pop()
        super().__exit__(*error)


def is_inference_mode_enabled() -> bool:
    """Whether the innermost `inference_mode` block says so."""
    return MODE.inference


def is_grad_enabled() -> bool:
    """Whether operations are recorded for differentiation now."""
    return MODE.grad
