"""How long a function takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any


def median(function: Callable[[], Any], budget: float) -> float:
    """The median time of a call, in seconds, over calls for `budget` seconds, three at least, after an untimed one."""
    function()
    times: list[float] = []
    start = time.perf_counter()
    while len(times) < 3 or time.perf_counter() - start < budget:
        before = time.perf_counter()
        function()
        times.append(time.perf_counter() - before)
    return statistics.median(times)
