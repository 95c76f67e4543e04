"""The limits of this machine as plans use them: measured, and kept where compiled code is kept.

What `limits` measures takes a tenth of a second, longer than planning a small step, and comes out low where another
program takes its part of the machine. So the first few processes that ask measure, and the best of them all is kept.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable

from .cache import digest
from .jit import host_target, templates
from .limits import bandwidth, moving_seconds, peak_operations

#: how rates are measured, as part of the key of those that are kept; change it together with `limits`
_METHOD = "multiply-adds, writing in place and reading, best of 5"
#: the processes that measure before a rate is final
_MEASURED = 8
#: a rate, and how many processes have measured it
_ENTRY = struct.Struct("<dq")


def expected_seconds(operations: float, read: float, written: float, dtype: str, threads: int) -> float:
    """The time of a kernel of so many operations, bytes read and bytes written by the machine's kept rates: the longer
    of computing and moving (see `limits.least_seconds`).
    """
    computing = operations / operations_rate(dtype, threads) if operations else 0.0
    return max(computing, moving_seconds(read, written, threads, bytes_rate))


@functools.lru_cache
def operations_rate(dtype: str, threads: int) -> float:
    """`limits.peak_operations`, kept."""
    return _kept(f"operations {dtype} {threads}", lambda: peak_operations(dtype, threads))


@functools.lru_cache
def bytes_rate(level: int, threads: int, reading: bool) -> float:
    """`limits.bandwidth`, kept."""
    return _kept(f"bytes {level} {threads} {reading}", lambda: bandwidth(level, threads, reading))


def _kept(what: str, measure: Callable[[], float]) -> float:
    key = digest("rate", _METHOD, repr(host_target()), what)
    found = templates().get(key)
    rate, times = _ENTRY.unpack(found) if found is not None and len(found) == _ENTRY.size else (0.0, 0)
    if times < _MEASURED:
        rate = max(rate, measure())
        templates().put(key, _ENTRY.pack(rate, times + 1))
    return float(rate)
