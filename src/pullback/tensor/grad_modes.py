"""Switching the recording of history on and off: `no_grad` and its kin."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ContextDecorator
from types import TracebackType
from typing import Any

from ..ops.primitive import MODE


class set_grad_enabled(ContextDecorator):
    """Record history (True) or not (False): at once, and back at the end if used as a context manager."""

    def __init__(self, mode: bool):
        self.mode = mode
        self._before = [MODE.grad]
        MODE.grad = mode

    def __enter__(self) -> None:
        self._before.append(MODE.grad)
        MODE.grad = self.mode

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._before.pop()
        MODE.grad = self._before[-1] if self._before else True


class _Mode(ContextDecorator):
    """A context manager, and decorator, that sets the mode inside."""

    enabled: bool

    def __init__(self) -> None:
        self._before: list[bool] = []

    def __enter__(self) -> None:
        self._before.append(MODE.grad)
        MODE.grad = self.enabled

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        MODE.grad = self._before.pop()

    def __call__(self, function: Callable[..., Any]) -> Any:
        # PyTorch's users write both @no_grad and @no_grad()
        return super().__call__(function)


class no_grad(_Mode):
    """Nothing computed inside is recorded for differentiation.

    >>> w = pb.ones(1, requires_grad=True)
    >>> with pb.no_grad():
    ...     w -= 0.5
    >>> w
    tensor([0.5000], requires_grad=True)
    """

    enabled = False


class enable_grad(_Mode):
    """What is computed inside is recorded, also within no_grad()."""

    enabled = True


inference_mode = no_grad


def is_grad_enabled() -> bool:
    """Whether operations are recorded for differentiation now."""
    return MODE.grad
