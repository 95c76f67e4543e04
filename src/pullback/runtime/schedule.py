"""Schedules: launches, and bundles of them, as the tables that the native driver runs (see `driver`).

A bundle is launches that do not depend on one another, run as one whose tasks are all of theirs.
"""

from __future__ import annotations

import ctypes
import functools
import platform
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ..codegen.text import Code
from . import threads as workers
from .buffers import ALIGNMENT, allocate
from .driver import run_bundled, run_chunk, run_serial, run_shared, run_together
from .jit import load

#: a launch: (address of the kernel, address of its arguments, number of tasks)
Entry = tuple[int, int, int]


class Bundle(NamedTuple):
    """Launches that may run at the same time, as they stand in a list of launches.

    `members` are their numbers, those with the longest tasks first, and `lengths` about how long a task of each takes,
    all the same if left out. What is not worth `sharing`, the caller does alone.
    """

    members: Sequence[int]
    sharing: bool = True
    lengths: Sequence[float] = ()


def bundled(launches: Sequence[Entry], bundles: Iterable[Bundle]) -> tuple[list[Entry], list[np.ndarray]]:
    """One launch for each bundle, and the memory of their arguments, which must stay."""
    entries: list[Entry] = []
    kept: list[np.ndarray] = []
    for bundle in bundles:
        members = [launches[number] for number in bundle.members]
        tasks = sum(count for _, _, count in members)
        if tasks <= 1 or (len(members) == 1 and bundle.sharing):
            entries.append(next((member for member in members if member[2]), members[0]))
            continue
        dealt = _dealt(members, bundle.lengths or [1.0] * len(members))
        kept.append(np.array([tasks, *(word for row in dealt for word in row)], np.int64))
        place = kept[-1].ctypes.data
        if bundle.sharing:
            entries.append((load([run_bundled()])["pullback_run_bundled"], place + 8, tasks))
        else:
            entries.append((load([run_together()])["pullback_run_together"], place, 1))
    return entries, kept


def _dealt(members: Sequence[Entry], lengths: Sequence[float]) -> list[tuple[int, int, int]]:
    """(function, arguments, task) of all tasks, in an order in which threads that begin at both ends do best.

    The first half of each launch stands in the first half and the last in the last, so that a thread goes on with the
    part of a tensor that it made; longer tasks stand further outside, so that short ones are left for the end.
    """
    first: list[tuple[int, int, int]] = []
    last: list[tuple[int, int, int]] = []
    ahead = 0.0  # by how much the first half takes longer
    for (function, arguments, count), length in zip(members, lengths, strict=True):
        rows = [(function, arguments, task) for task in range(count)]
        middle = (count + (ahead <= 0)) // 2
        first += rows[:middle]
        last += reversed(rows[middle:])
        ahead += (2 * middle - count) * length
    return [*first, *reversed(last)]


def _in_chunks(launch: Entry) -> tuple[Entry, list[np.ndarray]]:
    """The launch with no more tasks than can be handed out one by one; the memory of its arguments if they are new."""
    function, arguments, tasks = launch
    if tasks <= workers.MAXIMUM_CLAIMS:
        return launch, []
    each = -(-tasks // workers.MAXIMUM_CLAIMS)
    kept = np.array([function, arguments, tasks, each], np.int64)
    return (load([run_chunk()])["pullback_run_chunk"], kept.ctypes.data, -(-tasks // each)), [kept]


class Schedule:
    """Launches (address of the kernel, address of its arguments, number of tasks), ready to run.

    (0, address of its arguments, 0) ends a loop; the arguments are those of the loop's `move_on`.

    `threads` is the most threads that share the work, `scratch_bytes` what each of them gets, 64-byte aligned. Code and
    arguments must stay where they are. One schedule is run by one thread at a time; different ones may run at once:
    the first has the workers, the others run on their callers alone.

    Where `bundles` are given, they are run in their place, each as one launch.

    `run()` runs it. For one thread it is a single native call prepared beforehand. `scratch` is the address of the
    first thread's scratch, `stride` the bytes from one thread's to the next one's.
    """

    __slots__ = ("__weakref__", "_scratch", "_table", "run", "scratch", "stride", "threads")

    run: Callable[[], None]

    def __init__(
        self, launches: Sequence[Entry], threads: int, scratch_bytes: int, bundles: Iterable[Bundle] | None = None
    ):
        kept: list[np.ndarray] = []
        if bundles is not None:
            launches, kept = bundled(launches, bundles)
        for _, _, tasks in launches:
            if not 0 <= tasks <= workers.MAXIMUM_TASKS:
                raise ValueError(f"a launch has 0 to {workers.MAXIMUM_TASKS} tasks, got {tasks}")
        chunked = [_in_chunks(launch) for launch in launches]
        launches = [launch for launch, _ in chunked]
        kept += [words for _, some in chunked for words in some]
        self.threads = threads if _HAS_WORKERS and any(tasks > 1 for _, _, tasks in launches) else 1
        self.stride = -(-scratch_bytes // ALIGNMENT) * ALIGNMENT
        self._scratch = allocate(self.stride * self.threads)
        self.scratch: int = self._scratch.ctypes.data
        words = [len(launches), self.scratch, self.stride, self.threads]
        for launch in launches:
            words += launch
        self._table = (ctypes.c_int64 * len(words))(*words)
        self._table.kept = self._scratch, kept  # type: ignore[attr-defined]  # `run` may outlive the schedule
        if self.threads == 1:
            self.run = functools.partial(_native(run_serial()), self._table)
        else:
            self.run = functools.partial(_run_shared, _native(run_shared()), self._table, self.threads)


def _run_shared(native: Callable[..., None], table: ctypes.Array[ctypes.c_int64], threads: int) -> None:
    pool = workers.pool()
    pool.grow(threads)
    native(table, pool.pointer)


@functools.lru_cache
def _native(code: Code) -> Callable[..., None]:
    """The driver function `code`. ctypes lets go of the interpreter's lock for the time of a call."""
    return ctypes.CFUNCTYPE(None)(load([code])[code.name])


#: Windows has no POSIX threads to wait on; there, schedules run on their caller.
_HAS_WORKERS = platform.system() != "Windows"
