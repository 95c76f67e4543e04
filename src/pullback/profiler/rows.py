"""What a profile measured, summed up in rows: by kernel, by operation, by line, and of Python."""

from __future__ import annotations

import linecache
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..compiler.describe import Kernel, describe
from ..compiler.groups import Group
from ..graph.node import Source
from ..runtime.limits import least_seconds
from ..runtime.program import KernelTimes
from ..runtime.stamps import BEGIN, BUSY, END, TASKS
from ..timeline import Span, own_times

#: the name of all stages of compiling together; PULLBACK_DEBUG=compile tells them apart
COMPILING = "compiling"
#: compiling in threads that did not enter the block, such as LLVM's: it went on beside what makes up the block's time
MEANWHILE = "compiling, on another thread meanwhile"
#: how spans of Python are named in tables; what is not here is a stage of compiling
PYTHON = {
    "step": "Python: calling a compiled step",
    "record": "Python: recording a step",
    "compile": COMPILING,
    "materialize": "Python: computing what is pending",
    "kernels": "between kernels",
    "host_call": "host_call",
    "check": "Python: looking at a check",
}
#: of what has several stages the one that is counted as a call; of LLVM's the last, once for each kernel
_COUNTED = {COMPILING: "compile", MEANWHILE: "LLVM: generate"}
OUTSIDE = "Python: the rest of your program"


@dataclass
class Row:
    """One line of a profile's table.

    `name` says what it is in the user's words, `source` the line "file:line" ("" where there is none), and `result`, of
    kernels, the dtype and shape of what it writes. `calls` counts runs, `seconds` is their time in all, `operations`
    and `nbytes` are floating-point operations and bytes of memory in all, and `least_seconds` the time that the machine
    would need at its limits.
    """

    name: str
    source: str = ""
    result: str = ""
    calls: int = 0
    seconds: float = 0.0
    operations: float = 0.0
    nbytes: float = 0.0
    least_seconds: float = 0.0

    @property
    def operations_per_second(self) -> float:
        """Floating-point operations a second."""
        return self.operations / self.seconds if self.seconds else 0.0

    @property
    def bytes_per_second(self) -> float:
        """Bytes a second, read and written."""
        return self.nbytes / self.seconds if self.seconds else 0.0

    @property
    def limit_share(self) -> float:
        """The part of the machine's limit that is reached, 1 at the limit. More is possible where the machine was kept
        busy by others when its limits were measured.
        """
        return self.least_seconds / self.seconds if self.seconds else 0.0

    @property
    def code(self) -> str:
        """The text of the user's line; "" where it cannot be read."""
        file, _, line = self.source.rpartition(":")
        return linecache.getline(file, int(line)).strip() if file else ""


@dataclass
class KernelRun:
    """One run of one group's launches: when each thread worked on it, in nanoseconds."""

    kernel: Kernel
    group: Group
    seconds: float
    threads: int
    #: how often: as many times as there are steps, in a loop
    times: int
    #: (thread of the pool, begin, end) of each launch and thread that took part
    stretches: list[tuple[int, int, int]]


class Kernels:
    """The kernels of programs, each described once."""

    def __init__(self) -> None:
        self._known: dict[Group, Kernel] = {}

    def runs(self, times: KernelTimes) -> list[KernelRun]:
        """What ran in some launches, group by group."""
        runs: dict[Group, KernelRun] = {}
        for group, tasks, stamps, seconds in zip(times.groups, times.tasks, times.stamps, _seconds(times), strict=True):
            at_work = np.flatnonzero(stamps[:, TASKS])
            if group is None or not at_work.size:
                continue
            stretches = [(int(t), int(stamps[t, BEGIN]), int(stamps[t, END])) for t in at_work]
            count = int(stamps[:, TASKS].sum()) // tasks * group.times
            if group in runs:
                runs[group].seconds += seconds
                runs[group].stretches += stretches
                runs[group].times = max(runs[group].times, count)
            else:
                runs[group] = KernelRun(self._describe(group, times), group, seconds, stamps.shape[0], count, stretches)
        return list(runs.values())

    def _describe(self, group: Group, times: KernelTimes) -> Kernel:
        known = self._known.get(group)
        if known is None:
            known = self._known[group] = describe(group, times.program.in_memory.__contains__)
        return known


def _seconds(times: KernelTimes) -> Iterator[float]:
    """How long each launch took: its part, by the time that threads were in it, of how long its bundle took."""
    for first, last in _bundles(times.bundles):
        stamps = times.stamps[first:last]
        busy = stamps[:, :, BUSY].sum(1)
        took = _bundle_seconds(stamps, sum(times.tasks[first:last]))
        yield from (took * busy / max(busy.sum(), 1)).tolist()


def _bundles(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First and last launch, exclusive, of each bundle."""
    first = 0
    for last in range(1, len(numbers) + 1):
        if last == len(numbers) or numbers[last] != numbers[first]:
            yield first, last
            first = last


def _bundle_seconds(stamps: np.ndarray, tasks: int) -> float:
    """From the first task's beginning to the last one's end, or, where the bundle ran many times, as long as the
    busiest thread was in it.
    """
    begun = stamps[:, :, TASKS] > 0
    if not begun.any():
        return 0.0
    if stamps[:, :, TASKS].sum() > tasks:
        return float(stamps[:, :, BUSY].sum(0).max()) * 1e-9
    return float(stamps[begun][:, END].max() - stamps[begun][:, BEGIN].min()) * 1e-9


def _least_seconds(run: KernelRun) -> float:
    """The time that the machine would need for all turns of a run."""
    kernel = run.kernel
    read = kernel.nbytes - kernel.written
    return run.times * least_seconds(kernel.operations, read, kernel.written, kernel.dtype, run.threads)


def by_kernel(runs: Iterable[KernelRun]) -> list[Row]:
    """A row for each kernel: equal ones that serve the same line count as one."""
    rows: dict[tuple[object, ...], Row] = {}
    for run in runs:
        kernel = run.kernel
        key = kernel.name, kernel.source, kernel.result, kernel.operations
        row = rows.setdefault(key, Row(kernel.name, _place(kernel.source), kernel.result))
        row.calls += run.times
        row.seconds += run.seconds
        row.operations += kernel.operations * run.times
        row.nbytes += kernel.nbytes * run.times
        row.least_seconds += _least_seconds(run)
    return _longest_first(rows.values())


def by_part(runs: Iterable[KernelRun], key_of: Callable[[Source | None, str], tuple[str, str]]) -> list[Row]:
    """A row for each `(name, source)` that `key_of(source, operation)` gives; a kernel's time, bytes and limit are
    shared among its parts by the work that each does.
    """
    rows: dict[tuple[str, str], Row] = {}
    for run in runs:
        kernel = run.kernel
        least = _least_seconds(run)
        keys = set()
        for part in kernel.parts:
            key = key_of(part.source, part.operation)
            row = rows.setdefault(key, Row(*key))
            row.calls += key not in keys
            keys.add(key)
            row.seconds += run.seconds * part.share
            row.operations += part.operations * run.times
            row.nbytes += kernel.nbytes * part.share * run.times
            row.least_seconds += least * part.share
    return _longest_first(rows.values())


def by_line(runs: Iterable[KernelRun]) -> list[Row]:
    """A row for each line of the user's code."""
    return by_part(runs, lambda source, _: (_short(source), _place(source)))


def by_operation(runs: Iterable[KernelRun]) -> list[Row]:
    """A row for each operation: linear, layer_norm backward, optimizer.step …"""
    return by_part(runs, lambda _, operation: (operation, ""))


def of_python(spans: list[Span], seconds: float, in_kernels: float, threads: set[int]) -> list[Row]:
    """Rows for what is not in kernels: recording, compiling, feeding programs, Python functions, and the program
    around, in time of its own without what it calls. They and the kernels make up `seconds`, which `threads` spent;
    what was compiled in other threads (MEANWHILE) is no part of it.
    """
    rows: dict[tuple[str, str], Row] = {}
    covered = 0.0
    for span, own in own_times(spans):
        place = _place(span.source)
        name = python_name(span) or COMPILING
        if name == COMPILING and span.thread not in threads:
            name = MEANWHILE
        row = rows.setdefault((name, place), Row(name, place))
        row.calls += span.name == _COUNTED.get(name, span.name)
        row.seconds += own
        covered += own if span.thread in threads else 0.0
    between = rows.get((PYTHON["kernels"], ""))
    if between is not None:
        between.seconds = max(between.seconds - in_kernels, 0.0)
    rows[OUTSIDE, ""] = Row(OUTSIDE, calls=1, seconds=max(seconds - covered, 0.0))
    return _longest_first(rows.values())


def python_name(span: Span) -> str:
    """How a span of Python is named, a host call by what the user called; empty for a stage of compiling."""
    called = span.source.operation if span.name == "host_call" and span.source is not None else ""
    return f"{called}, a host_call" if called else PYTHON.get(span.name, "")


def _longest_first(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (-row.seconds, row.name, row.source))


def _place(source: Source | None) -> str:
    return "" if source is None else str(source)


def _short(source: Source | None) -> str:
    """The line as tables name it: the file without its folders."""
    return "(no line of yours)" if source is None else f"{os.path.basename(source.file)}:{source.line}"
