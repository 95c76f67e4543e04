"""Schedules: what a step computes and holds, as plain numbers, and what becomes of it where values are made again.

Here stand the problem that `retention` solves, its answer, and the timeline by which both are looked at.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import numpy as np

#: events up to which the most bytes at them are found by looking at each
_FEW_EVENTS = 64


class Step(NamedTuple):
    """One kernel: the values that it reads and makes, by number, and what it needs besides while it runs, in bytes."""

    reads: tuple[int, ...]
    makes: tuple[int, ...]
    extra: int = 0


class Value(NamedTuple):
    """What a kernel makes: its bytes, the work to make it once more (None: it may not be), and what that reads."""

    nbytes: int
    work: float | None
    needs: tuple[int, ...] = ()


class Part(NamedTuple):
    """Values that are made again in one go before a step, whatever memory there is. What is inside of another part
    names it among those `around`: the outer one is made again without keeping what belongs to the inner.
    """

    before: int
    values: frozenset[int]
    name: Hashable = None
    around: frozenset[Hashable] = frozenset()


@dataclass(frozen=True)
class Problem:
    """Steps in order, the values that they make, those that are wanted at the end, and parts that are made again."""

    steps: Sequence[Step]
    values: Sequence[Value]
    wanted: frozenset[int] = frozenset()
    parts: Sequence[Part] = ()


class Again(NamedTuple):
    """The value `value` computed again, right before the step `before`."""

    before: int
    value: int


@dataclass(frozen=True)
class Schedule:
    """What is computed again, in order; the most bytes that live at once; the added work."""

    again: tuple[Again, ...]
    peak: int
    work: float

    def before(self) -> dict[int, list[int]]:
        """What is made again right before each step, in order."""
        found: dict[int, list[int]] = {}
        for step, value in self.again:
            found.setdefault(step, []).append(value)
        return found


@dataclass(slots=True)
class Life:
    """One copy of a value in memory: the events at which it is made and read, in order."""

    value: int
    made: int
    read: list[int] = field(default_factory=list)
    #: the last event at which it is in memory, once the timeline is whole
    end: int = -1


class Timeline:
    """The events of a schedule (steps, and values made again), the lives of all values, the bytes at each event."""

    def __init__(self, problem: Problem, before: dict[int, list[int]]):
        """`before` are the values that are made again right before a step."""
        self.problem = problem
        #: a step's number; ~v where v is made again
        self.events: list[int] = []
        #: the step that an event stands at, or right before
        self.step_of: list[int] = []
        for number in range(len(problem.steps)):
            again = before.get(number, ())
            self.events += [~value for value in again]
            self.events.append(number)
            self.step_of += [number] * (len(again) + 1)
        self._follow()

    def _follow(self) -> None:
        steps, values = self.problem.steps, self.problem.values
        lives: list[Life] = []
        of: list[list[Life]] = [[] for _ in values]
        current: list[Life | None] = [None] * len(values)
        changes = [0] * (len(self.events) + 1)
        for event, number in enumerate(self.events):
            reads, makes = (values[~number].needs, (~number,)) if number < 0 else steps[number][:2]
            for value in reads:
                life = current[value]
                if life is None:
                    raise ValueError(f"step {self.step_of[event]} reads value {value}, which no step before it makes")
                life.read.append(event)
            for value in makes:
                life = current[value] = Life(value, event, [])
                lives.append(life)
                of[value].append(life)
            if number >= 0 and steps[number].extra:
                changes[event] += steps[number].extra
                changes[event + 1] -= steps[number].extra
        for value in self.problem.wanted:
            life = current[value]
            if life is not None:
                life.read.append(len(self.events) - 1)
        for life in lives:
            nbytes = values[life.value].nbytes
            life.end = life.read[-1] if life.read else life.made
            changes[life.made] += nbytes
            changes[life.end + 1] -= nbytes
        self.lives = lives
        #: for each value its lives in the order of time
        self.of = of
        self.bytes = list(accumulate(changes[:-1]))
        self.peak = max(self.bytes, default=0)

    def most_in(self, first: int, stop: int) -> int:
        """The most bytes at an event from `first` to `stop` (excluded); 0 where there is none."""
        if stop - first < _FEW_EVENTS:
            return max(self.bytes[first:stop], default=0)
        level = (stop - first).bit_length() - 1
        row = self._most[level]
        return int(max(row[first], row[stop - (1 << level)]))

    @cached_property
    def _most(self) -> list[np.ndarray]:
        """By level the most bytes in each run of 2**level events, so that any stretch is covered by two runs (a sparse
        table: Bender & Farach-Colton 2000).
        """
        rows = [np.array(self.bytes)]
        while 2 << len(rows) - 1 <= len(self.bytes):
            half, row = 1 << len(rows) - 1, rows[-1]
            rows.append(np.maximum(row[:-half], row[half:]))
        return rows

    def life_before(self, value: int, event: int) -> Life:
        """The copy of a value that is read at an event: the last one made before."""
        lives = self.of[value]
        place = len(lives) - 1
        while place and lives[place].made >= event:
            place -= 1
        return lives[place]


def crossing(problem: Problem, timeline: Timeline, full: int) -> list[int]:
    """For each event up to `full` the bytes made before it that an event from there to `full` reads."""
    found = [0] * (full + 1)
    for life in timeline.lives:
        read = [event for event in life.read if event <= full]
        if life.made < full and read:
            found[life.made + 1] += problem.values[life.value].nbytes
            found[read[-1] + 1 if read[-1] < full else full] -= problem.values[life.value].nbytes
    return list(accumulate(found))


def borders(
    problem: Problem, saved: Sequence[Life], crosses: Sequence[int], count: int, stop: int | None = None
) -> list[int]:
    """Events before `stop` that part what is saved into `count` parts of about the same bytes, each where the least
    `crosses` nearby.
    """
    stop = len(crosses) - 1 if stop is None else stop
    done = list(accumulate(problem.values[life.value].nbytes for life in saved))
    total = done[-1] if done else 0
    found: set[int] = set()
    for number in range(1, count):
        low, high = (bisect_left(done, (number + shift) * total / count) for shift in (-0.5, 0.5))
        inside = [life.made + 1 for life in saved[low:high] if life.made + 1 < stop]
        if inside:
            found.add(min(inside, key=lambda event: (crosses[event], event)))
    return sorted(found)
