"""What takes time inside Pullback, told to whoever listens: recording, compiling, running.

    with span("compile"): ...          a stretch of time, which may hold others
    with listen(spans.append): ...     every stretch that ends meanwhile, in any thread

Where nobody listens a span costs a look at an empty tuple.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from . import forks
from .graph.node import Source


class Span(NamedTuple):
    """A stretch of time of one thread (its identifier), in nanoseconds of `now()`; `detail` belongs to its kind.

    `source` is the user's line that it was spent for, where there is one.
    """

    name: str
    begin: int
    end: int
    thread: int
    detail: Any = None
    source: Source | None = None


Listener = Callable[[Span], None]

#: who is told of every span; replaced, never changed
LISTENERS: tuple[Listener, ...] = ()
#: who wants to know the times of kernels too, which are then run with time stamps
PROFILES: tuple[Listener, ...] = ()
_lock = threading.Lock()


@forks.in_child
def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


#: the clock that native code reads too
_CLOCK = getattr(time, "CLOCK_MONOTONIC", None)


def now() -> int:
    """Monotonic time in nanoseconds."""
    return time.monotonic_ns() if _CLOCK is None else time.clock_gettime_ns(_CLOCK)


class span:
    """A stretch of time, from entering to leaving the block; told when it ends, also by an exception."""

    __slots__ = ("begin", "detail", "name", "source")

    def __init__(self, name: str, detail: Any = None, source: Source | None = None):
        self.name, self.detail, self.source = name, detail, source

    def __enter__(self) -> None:
        self.begin = now() if LISTENERS else 0

    def __exit__(self, *error: object) -> None:
        if self.begin:
            tell(Span(self.name, self.begin, now(), threading.get_ident(), self.detail, self.source))


def tell(what: Span) -> None:
    """Tell every listener of a span."""
    for listener in LISTENERS:
        listener(what)


@contextmanager
def listen(listener: Listener, kernels: bool = False) -> Iterator[None]:
    """Inside, `listener` is called with every span that ends, in whatever thread; with `kernels` those of programs'
    runs hold the times of their kernels.
    """
    global LISTENERS, PROFILES
    with _lock:
        LISTENERS = (*LISTENERS, listener)
        PROFILES = (*PROFILES, listener) if kernels else PROFILES
    try:
        yield
    finally:
        with _lock:
            LISTENERS = _without(LISTENERS, listener)
            PROFILES = _without(PROFILES, listener) if kernels else PROFILES


def _without(listeners: tuple[Listener, ...], gone: Listener) -> tuple[Listener, ...]:
    place = listeners.index(gone)
    return listeners[:place] + listeners[place + 1 :]


def own_times(spans: list[Span]) -> list[tuple[Span, float]]:
    """Each span with its seconds outside of the spans within it."""
    own: dict[int, float] = {}
    ordered = sorted(spans, key=lambda span: (span.thread, span.begin, -span.end))
    open_: list[tuple[int, Span]] = []
    for number, span in enumerate(ordered):
        while open_ and (open_[-1][1].thread != span.thread or open_[-1][1].end <= span.begin):
            open_.pop()
        length = (span.end - span.begin) * 1e-9
        own[number] = length
        if open_:
            own[open_[-1][0]] -= length
        open_.append((number, span))
    return [(span, own[number]) for number, span in enumerate(ordered)]
