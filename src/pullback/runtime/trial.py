"""Trial: which of several ways to run a program is the fastest on this machine, found by running it.

What sharing a small program among threads gains depends on what no cost model knows: whether the cores have a cache in
common (a line takes 20 to 200 ns from one to the other), what else runs on them, and how fast the system wakes a
thread. All ways give the same bits, so they are tried in turn on real runs, and once in a while again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median

#: how often each way is timed, after how many runs that only warm the caches, and how many runs later again
_TIMES, _WARMING, AGAIN = 9, 2, 20_000

Calls = Sequence[Callable[[], None]]


class Trial:
    """Runs some ways to do the same in turn until it is known which is the fastest."""

    def __init__(self, ways: Sequence[Calls]):
        self.ways = ways
        self._times: list[list[int]] = [[] for _ in ways]

    def run(self) -> int | None:
        """Run the way whose turn it is; gives the number of the fastest when it is known."""
        place = min(range(len(self.ways)), key=lambda way: len(self._times[way]) // (_WARMING + 1))
        begin = time.perf_counter_ns()
        for call in self.ways[place]:
            call()
        self._times[place].append(time.perf_counter_ns() - begin)
        if min(map(len, self._times)) < _TIMES * (_WARMING + 1):
            return None
        # of runs that follow one another the last counts: the first ones find their data with other cores
        medians = [median(times[_WARMING :: _WARMING + 1]) for times in self._times]
        return medians.index(min(medians))


__all__ = ["AGAIN", "Calls", "Trial"]
