"""What the command prints: progress, errors, and how it ends."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import NoReturn

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from ..train import Progress

#: on what is no terminal, a line is printed after each evaluation, and when none was printed for so many seconds
PLAIN_SECONDS = 5.0

EXIT_FAILED = 1
EXIT_USAGE = 2
#: 128 and the number of SIGINT, as shells have it
EXIT_INTERRUPTED = 130


def fail(message: str, status: int = EXIT_USAGE) -> NoReturn:
    """Say on standard error, under the command's name, why there is no going on, and exit."""
    print(f"pullback: {message}", file=sys.stderr)
    raise typer.Exit(status)


@contextmanager
def interruptible(stop: Callable[[], None]) -> Iterator[None]:
    """Have the first Ctrl-C call `stop`; the second one raises KeyboardInterrupt as ever."""

    def handle(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print("\nstopping after this step; press Ctrl-C again to abort", file=sys.stderr)
        stop()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Reporter:
    """Shows how a training goes: one living line in a terminal, now and then a line elsewhere.

    `unit` is what items are called, such as "characters".
    """

    def __init__(self, unit: str):
        self.unit = unit
        self.last: Progress | None = None
        self._console = Console()
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self._shown = time.monotonic()

    def __enter__(self) -> Reporter:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            if self.last is not None:
                self._live.update(Text(describe(self.last, self.unit)), refresh=True)
            self._live.stop()

    def __call__(self, progress: Progress) -> None:
        """Take in the state after a step."""
        self.last = progress
        now = time.monotonic()
        line = describe(progress, self.unit)
        if self._live is None:
            if progress.evaluated or now - self._shown >= PLAIN_SECONDS:
                self._shown = now
                print(line, flush=True)
        elif progress.evaluated or now - self._shown >= 0.1:
            self._shown = now
            if progress.evaluated:
                self._live.console.print(Text(line))
            self._live.update(Text(line), refresh=True)


def describe(progress: Progress, unit: str) -> str:
    """One line: the step, losses in nats, gradient norm, speed and time left."""
    validation = "–" if progress.validation_loss is None else f"{progress.validation_loss:.3f}"
    return (
        f"step {progress.step:>{len(str(progress.steps))}}/{progress.steps}  loss {progress.loss:.3f}  "
        f"validation loss {validation}  gradient norm {progress.gradient_norm:.2f}  "
        f"{_count(progress.items_per_second)} {unit}/s  {_clock(progress.seconds_left)} left"
    )


def _count(number: float) -> str:
    return f"{number:,.0f}" if number < 10_000 else f"{number / 1000:,.0f}k"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
