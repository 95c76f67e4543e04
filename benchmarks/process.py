"""A measured process, as the one that measures sees it: it is asked a line at a time, answers in JSON, and may fail."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).parents[1]

#: Seconds between an answer and the next question. Idle threads of the process that answered look for work for a while
#: before they sleep (OpenBLAS's for 2^26 cycles, some 25 ms), and would take a core from the one asked next.
_SETTLING = 0.05


class Failure(Exception):
    """A process that ended or did not answer in time; says which."""


class Worker:
    """A process of `benchmarks.worker`; ends with the `with` block.

    `environment` is all of its environment; it has `timeout` seconds for every answer.
    """

    def __init__(self, *arguments: str, environment: Mapping[str, str], timeout: float):
        self._timeout = timeout
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - __exit__ closes
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, cwd=ROOT, env=environment,
        )  # fmt: skip
        self._answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put(None)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Let the process end by itself; one that does not within its time is killed."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # of a question that a process that has ended did not read
            self._process.stdin.close()
        if isinstance(error, Failure):
            self._process.kill()
        try:
            self._process.wait(self._timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def told(self) -> dict[str, Any]:
        """What the process tells next. Raises Failure where it has ended or takes too long."""
        try:
            line = self._answers.get(timeout=self._timeout)
        except queue.Empty:
            self._process.kill()
            raise Failure(f"no answer within {self._timeout:g} s") from None
        if line is None:
            raise Failure(self._last_words())
        told: dict[str, Any] = json.loads(line)
        return told

    def asked(self, *words: int | str) -> dict[str, Any]:
        """Ask for something with a line of words, and return the answer."""
        assert self._process.stdin is not None
        time.sleep(_SETTLING)
        try:
            print(*words, file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise Failure(self._last_words()) from None
        return self.told()

    def _last_words(self) -> str:
        status = self._process.wait()
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors if line.strip()]
        return f"ended with status {status}" + (f": {lines[-1]}" if lines else "")
