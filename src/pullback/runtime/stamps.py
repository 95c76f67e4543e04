"""Launches with time stamps: for each launch and thread when its first task began and its last one ended.

A launch is run with stamps by running, in place of its kernel, one that reads the clock, calls the kernel and reads the
clock again. So the driver is the same as without, and a run that is not profiled pays nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from .. import debug
from ..codegen.text import Code
from .buffers import ALIGNMENT, allocate
from .jit import load
from .schedule import Bundle, Entry, Schedule
from .threads import clock

#: words of what a stamped task is given: kernel, its arguments, stamps, first scratch, bytes of scratch a thread
_RECORD = 5
#: words of one thread's stamps of one launch, on a cache line of their own
_LINE = ALIGNMENT // 8
BEGIN, END, BUSY, TASKS = range(4)


def stamped() -> Code:
    """`void(record, scratch, task)`: the task of the record's kernel, its time added to the thread's stamps."""
    text = f"""declare i64 @pullback_clock()
define void @pullback_stamped(ptr %record, ptr %scratch, i64 %task) nounwind {{
  %function = load ptr, ptr %record
  %arguments.at = getelementptr i64, ptr %record, i64 1
  %arguments = load ptr, ptr %arguments.at
  %stamps.at = getelementptr i64, ptr %record, i64 2
  %stamps = load ptr, ptr %stamps.at
  %first.at = getelementptr i64, ptr %record, i64 3
  %first = load i64, ptr %first.at
  %stride.at = getelementptr i64, ptr %record, i64 4
  %stride = load i64, ptr %stride.at
  %own = ptrtoint ptr %scratch to i64
  %distance = sub i64 %own, %first
  %thread = udiv i64 %distance, %stride
  %line = mul i64 %thread, {_LINE}
  %begin.at = getelementptr i64, ptr %stamps, i64 %line
  %end.at = getelementptr i64, ptr %begin.at, i64 {END}
  %busy.at = getelementptr i64, ptr %begin.at, i64 {BUSY}
  %count.at = getelementptr i64, ptr %begin.at, i64 {TASKS}
  %begin = call i64 @pullback_clock()
  call void %function(ptr %arguments, ptr %scratch, i64 %task)
  %end = call i64 @pullback_clock()
  %count = load i64, ptr %count.at
  %is.first = icmp eq i64 %count, 0
  %known = load i64, ptr %begin.at
  %since = select i1 %is.first, i64 %begin, i64 %known
  store i64 %since, ptr %begin.at
  store i64 %end, ptr %end.at
  %took = sub i64 %end, %begin
  %busy = load i64, ptr %busy.at
  %busy.more = add i64 %busy, %took
  store i64 %busy.more, ptr %busy.at
  %count.more = add i64 %count, 1
  store i64 %count.more, ptr %count.at
  ret void
}}
"""
    return Code("pullback_stamped", text, (clock(),))


def ready() -> int:
    """The address of `stamped`, compiled when it is first asked for."""
    return load([stamped()])["pullback_stamped"]


def prepare() -> None:
    """Compile `stamped` where kernels are native, so that the first run with stamps need not."""
    if debug.get("backend") == "native":
        ready()


class StampedSchedule:
    """A schedule that tells when each launch ran, on which threads. See `Schedule` for the arguments."""

    def __init__(
        self, launches: Sequence[Entry], threads: int, scratch_bytes: int, bundles: Iterable[Bundle] | None = None
    ):
        address = ready()
        self._stamps = allocate(len(launches) * threads * ALIGNMENT).view(np.int64)
        self.stamps = self._stamps.reshape(len(launches), threads, _LINE)
        self._records = np.zeros((len(launches), _RECORD), np.int64)
        # the end of a loop has no kernel
        wrapped = [
            (address, self._records.ctypes.data + number * 8 * _RECORD, tasks) if function else (0, arguments, tasks)
            for number, (function, arguments, tasks) in enumerate(launches)
        ]
        # each thread is told by its scratch, so each has some
        self._schedule = Schedule(wrapped, threads, max(scratch_bytes, 1), bundles)
        for number, (function, arguments, _) in enumerate(launches):
            place = self._stamps.ctypes.data + number * threads * ALIGNMENT
            self._records[number] = function, arguments, place, self._schedule.scratch, self._schedule.stride

    def run(self) -> np.ndarray:
        """Run all launches; int64 [launches, threads, 4] of BEGIN and END (nanoseconds of the monotonic clock), BUSY
        (nanoseconds within tasks) and the number of TASKS that the thread ran.
        """
        self.stamps.fill(0)
        self._schedule.run()
        return self.stamps[:, :, :4].copy()
