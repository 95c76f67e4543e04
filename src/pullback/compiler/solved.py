"""Schedules that were found, for when the same problem is posed again: by the step after its plan, by what an error
looks at, by the step that follows its advice.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256

from .schedules import Problem, Schedule

#: what is made again in all schedules together that are kept: some 100 bytes each
_MOST = 20_000


class Solved:
    """The schedules that were asked for last, by problem and by what was asked."""

    def __init__(self, most: int = _MOST):
        self.most, self.size = most, 0
        self._found: OrderedDict[tuple[object, ...], Schedule] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[object, ...], solve: Callable[[], Schedule]) -> Schedule:
        """The schedule under a key; where there is none, the one that `solve` finds."""
        with self._lock:
            if key in self._found:
                self._found.move_to_end(key)
                return self._found[key]
        schedule = solve()
        with self._lock:
            if key not in self._found:
                self._found[key] = schedule
                self.size += 1 + len(schedule.again)
            while self.size > self.most:
                self.size -= 1 + len(self._found.popitem(last=False)[1].again)
        return schedule


#: the process's
SOLVED = Solved()


def digest(problem: Problem) -> bytes:
    """The same for the same problem, of which there may be no parts: their names are only good for one recording."""
    text = repr((list(problem.steps), list(problem.values), sorted(problem.wanted)))
    return sha256(text.encode()).digest()


__all__ = ["SOLVED", "Solved", "digest"]
