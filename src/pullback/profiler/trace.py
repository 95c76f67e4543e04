"""A profile as a file in Google's Trace Event Format, which chrome://tracing and Perfetto read."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..runtime.program import KernelTimes
from ..timeline import Span
from .rows import Kernels, python_name

#: the pool's threads stand below those of Python
_FIRST_WORKER = 1000


def write_trace(path: Path, spans: list[Span], kernels: Kernels) -> None:
    """Write the spans, and the kernels in them, as complete events ("X"): times in microseconds, a row for each
    thread. The pool's threads have rows of their own; what the caller of a program ran itself stands on its own row.
    """
    events = list(_events(spans, kernels))
    start = min((event["ts"] for event in events), default=0.0)
    for event in events:
        event["ts"] = round(event["ts"] - start, 3)
    named = [_named(thread, name) for thread, name in _names({event["tid"] for event in events}).items()]
    text = json.dumps({"traceEvents": [*named, *sorted(events, key=_order)], "displayTimeUnit": "ms"})
    path.write_text(text, encoding="utf-8")


def _order(event: dict[str, Any]) -> tuple[float, float]:
    return event["ts"], -event["dur"]


def _events(spans: list[Span], kernels: Kernels) -> Iterator[dict[str, Any]]:
    for span in spans:
        where = {"line": str(span.source)} if span.source else {}
        what = {"what": span.detail} if isinstance(span.detail, str) else {}
        if not isinstance(span.detail, KernelTimes):
            yield _event(python_name(span) or span.name, "python", span.begin, span.end, span.thread, where | what)
            continue
        yield _event("program", "program", span.begin, span.end, span.thread, {})
        for run in kernels.runs(span.detail):
            kernel = run.kernel
            facts = {
                "line": str(kernel.source),
                "writes": kernel.result,
                "operations": kernel.operations,
                "bytes": kernel.nbytes,
            }
            for thread, begin, end in run.stretches:
                row = span.thread if thread == 0 else _FIRST_WORKER + thread
                yield _event(kernel.name, "kernel", begin, end, row, facts)


def _event(name: str, category: str, begin: int, end: int, thread: int, facts: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "cat": category,
        "ph": "X",
        "ts": begin / 1e3,
        "dur": (end - begin) / 1e3,
        "pid": os.getpid(),
        "tid": thread,
        "args": facts,
    }


def _named(thread: int, name: str) -> dict[str, Any]:
    return {"name": "thread_name", "ph": "M", "pid": os.getpid(), "tid": thread, "args": {"name": name}}


def _names(threads: set[int]) -> dict[int, str]:
    alive = {thread.ident: thread.name for thread in threading.enumerate()}
    return {
        thread: f"Pullback's thread {thread - _FIRST_WORKER}"
        if _FIRST_WORKER < thread < 2 * _FIRST_WORKER + 1
        else alive.get(thread, f"thread {thread}")
        for thread in sorted(threads)
    }
