"""Retention: which values are kept from where they are made to where they are read, and which are computed again.

The order of a step's kernels is given. Between two of its readings a value may leave memory and be computed again
before the second, from what it is made of; where that has left memory too, it is computed again first. Wanted is the
least added work with which the bytes that live at once never exceed a limit.

The problem is that of tensor rematerialization, which is NP-hard for a graph (Naumann, "Call tree reversal is
NP-complete", 2008). Here values are let go one after the other where the profile of memory is above the limit, the
one first whose bytes are cheapest to come by (the greedy of dynamic tensor rematerialization, Kirisame et al. 2021,
with the future known), begun from segments of several lengths (Chen et al., "Training deep nets with sublinear memory
cost", 2016) and from Revolve's plans for the stages of the forward pass (see `stages`) as well as from keeping
everything; what was let go in vain is kept again at the end. docs/decisions/rematerialization.md compares the methods.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from math import inf

import numpy as np

from .schedules import Problem, Schedule, Timeline, borders, crossing
from .search import Search
from .solved import SOLVED, Solved, digest
from .stages import GRAINS, Plan, Stages


def segments(problem: Problem, count: int, base: Timeline | None = None) -> dict[int, list[int]]:
    """Chen's segments, as what is made again before each step: of what is in memory where it is fullest only what
    crosses from one of `count` parts into a later one is kept, the rest of a part made again in one go right before the
    first of it is read. `base` is the timeline with everything kept, where it is known.
    """
    timeline = base or Timeline(problem, {})
    if not timeline.events:
        return {}
    full = timeline.bytes.index(timeline.peak)
    saved = [
        life for life in timeline.lives if life.made < full < life.end and problem.values[life.value].work is not None
    ]
    before: dict[int, list[int]] = {}
    first = 0
    for border in [*borders(problem, saved, crossing(problem, timeline, full), count), full]:
        part = [life for life in saved if first <= life.made < border]
        gone = [life for life in part if not any(border <= event <= full for event in life.read)]
        if gone:
            start = min(event for life in gone for event in life.read if event > full)
            before.setdefault(start, []).extend(_closure(problem, timeline, {life.value for life in gone}, start))
        first = border
    return before


def _closure(
    problem: Problem, timeline: Timeline, gone: Collection[int], start: int, absent: Collection[int] = ()
) -> list[int]:
    """What has to be made again before the event `start` for the values `gone` to be there, in order; those `absent`
    are not in memory then.
    """
    found = {value for value in gone if problem.values[value].work is not None}
    stack = list(found)
    while stack:
        for needed in problem.values[stack.pop()].needs:
            if needed in found or problem.values[needed].work is None:
                continue
            if needed in absent or timeline.life_before(needed, start).end < start:
                found.add(needed)
                stack.append(needed)
    return sorted(found, key=lambda value: timeline.of[value][-1].made)


#: a search goes on up to so many times the work of the best one that has kept to the limit: some is kept again then
_WORTH = 1.25
#: from how many of those beginnings that do not keep to the limit by themselves; from all where there are few values
_CLOSEST, _FEW = 2, 100
#: up to how many values a search may be thorough, and from how many segments it begins then
_SOME, _SEGMENTS = 1600, (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)

#: after so many attempts in a row that have not lowered the peak a search gives up: of chains, GPTs, a ResNet and an
#: LSTM at limits from 0.1 to 0.75 none came lower or cheaper with a hundred
_VAIN = 20

#: how many amounts of memory for saved values are tried on the way to the most whose plan keeps to the limit
_TRIED = 6
#: how much lower each limit is that is tried on the way to the least, and so near that it is not tried
_LOWER, _LOWEST = 0.9, 0.98
#: with which parts of a limit, with how many of the values kept one by one that take most to make again, and with how
#: many at once, less work is looked for; and what is clearly less
_LOWER_LIMITS, _DEAREST, _SEVERAL, _CLEARLY = (0.95, 0.85), 8, (2, 4), 0.97
#: how many plans say where that way begins
_FINER = 2


def _rank(schedule: Schedule, limit: int) -> tuple[int, float]:
    """What is to be least: first of all the bytes above the limit."""
    return max(schedule.peak - limit, 0), schedule.work


class Solver:
    """Looks for schedules of one problem; what does not depend on a limit is found out once."""

    def __init__(self, problem: Problem):
        self.problem = problem
        #: what was found; what is only good for this solver is kept by it
        self.solved = Solved() if problem.parts else SOLVED

    @cached_property
    def base(self) -> Timeline:
        """The timeline with everything kept."""
        return Timeline(self.problem, {})

    @cached_property
    def stages(self) -> Stages | None:
        """The forward pass in stages."""
        return Stages.of(self.problem, self.base)

    @cached_property
    def floor(self) -> int:
        """Bytes below which no schedule can stay: at each step what it reads, makes and needs besides, and what else is
        in memory that may not be made again; at the end all that is wanted.
        """
        values = self.problem.values
        changes = [0] * (len(self.base.events) + 1)
        for life in self.base.lives:
            if values[life.value].work is None:
                changes[life.made] += values[life.value].nbytes
                changes[life.end + 1] -= values[life.value].nbytes
        most, lasting = sum(values[value].nbytes for value in self.problem.wanted), 0
        for step, change in zip(self.problem.steps, changes, strict=False):
            lasting += change
            passing = {value for value in (*step.reads, *step.makes) if values[value].work is not None}
            most = max(most, lasting + step.extra + sum(values[value].nbytes for value in passing))
        return most

    @cached_property
    def lowest(self) -> Schedule:
        """The schedule of the lowest peak that is found, whatever it adds."""
        return self.solve(self.floor, thorough=True)

    @cached_property
    def segmented(self) -> list[dict[int, list[int]]]:
        """About √n segments of n stages, as what is made again before each step."""
        root = math.isqrt(len(self.stages.kinds)) if self.stages is not None else 1
        return [segments(self.problem, count, self.base) for count in (root // 2, root, 2 * root) if count > 1]

    @cached_property
    def _digest(self) -> object:
        return None if self.problem.parts else digest(self.problem)

    def solve(self, limit: int, most: float = inf, thorough: bool = False) -> Schedule:
        """The schedule with the least added work whose peak is at most `limit`, as far as it is found; where none is
        found, the one with the least peak. What adds more than `most` is of no use, and is not looked for. Where
        nothing keeps to the limit, a `thorough` search goes on for a second or two.
        """
        limit = max(limit, self.floor)
        return self.solved.get((self._digest, limit, most, thorough), lambda: self._solve(limit, most, thorough))

    def _solve(self, limit: int, most: float, thorough: bool) -> Schedule:
        problem = self.problem
        searches = [Search(problem, limit, _asked_for(problem, self.base))]
        if searches[0].timeline.peak > limit and not problem.parts:
            begun = [Search(problem, limit, before) for before in self.segmented] + self._staged(limit)
            begun = [search for search in begun if search.work <= _WORTH * most]
            beyond = sorted((s for s in begun if s.timeline.peak > limit), key=lambda search: search.timeline.peak)
            searches += [s for s in begun if s.timeline.peak <= limit] + beyond[
                : _CLOSEST if len(problem.values) > _FEW else None
            ]
        found = self._searched(searches, most)
        if thorough and found.peak > limit and _FEW < len(problem.values) <= _SOME and not problem.parts:
            found = min(found, self._searched_long(limit, most), key=lambda one: _rank(one, limit))
        return found

    def _searched_long(self, limit: int, most: float) -> Schedule:
        """What a search finds that takes a second or two."""
        counts = [n for n in _SEGMENTS if 4 * n <= len(self.problem.values)]
        parted = [segments(self.problem, n, self.base) for n in counts]
        parted.sort(key=lambda before: Timeline(self.problem, before).peak)
        return self._searched([Search(self.problem, limit, b, thorough=True) for b in ({}, *parted[:_CLOSEST])], most)

    def _searched(self, searches: Sequence[Search], most: float) -> Schedule:
        """The best schedule that the searches find, each with at most so much more work than the best before."""
        limit = searches[0].limit
        found: list[Schedule] = []
        # those that keep to the limit come first: what they add tells how far it is worth to go from the others
        for search in sorted(searches, key=lambda search: max(search.timeline.peak - limit, 0)):
            if search.run(_VAIN, most) and not self.problem.parts:
                search.keep_again()
                most = min(most, _WORTH * search.work)
            found.append(search.schedule())
        return min(found, key=lambda schedule: _rank(schedule, limit))

    def _staged(self, limit: int) -> list[Search]:
        """Searches that begin with the best plans for stages of the forward pass (see `stages`): what is made again
        needs some memory too, so that the most that saved values may take is come to from what plans take too much.
        """
        stages = self.stages
        if stages is None or (left := limit - stages.beside()) <= 0:
            return []
        plan = Plan(stages, left)
        levels, grain = plan.levels(), plan.grain
        found: list[Search] = []
        low, level, high = -1, max(int(np.searchsorted(levels, GRAINS, "right")) - 1, 0), len(levels)
        while low < level < high and len(found) < _TRIED:
            parts = plan.parts(int(levels[level]))
            found.append(Search(self.problem, limit, _asked_for(replace(self.problem, parts=parts), stages.timeline)))
            excess = found[-1].timeline.peak - limit
            low, high = (low, level) if excess > 0 else (level, high)
            # what a plan takes more or less than the limit is about what the next one is to take less or more
            level = int(np.searchsorted(levels, levels[level] - excess / grain, "right")) - 1
            level = min(max(level, (low + high) // 2), high - 1) if excess <= 0 else max(level, (low + high) // 2)
        return found

    def cheaper(
        self, limit: int, found: Schedule, kept: frozenset[int] = frozenset()
    ) -> Iterator[tuple[Schedule, frozenset[int]]]:
        """Schedules that keep to a limit at clearly less work than one that was found, and what is kept in each: those
        of somewhat lower limits, and those in which more than what is `kept` already is not made again, of what takes
        most. A search that lets go of what is cheapest at the moment does not see what that leaves for the rest.
        """
        if self.problem.parts or len(self.problem.values) > _SOME:
            return
        spent: dict[int, float] = {}
        for _, value in found.again:
            spent[value] = spent.get(value, 0.0) + (self.problem.values[value].work or 0.0)
        dearest = sorted(spent, key=lambda value: (-spent[value], value))[:_DEAREST]
        several = [dearest[:count] for count in _SEVERAL if count < len(dearest)]
        more = [(kept, part) for part in _LOWER_LIMITS]
        more += [(kept.union(values), 1.0) for values in (*([value] for value in dearest), *several)]
        for values, part in more:
            other = self.keeping(values).solve(int(limit * part), _CLEARLY * found.work)
            if other.peak <= limit and other.work < _CLEARLY * found.work:
                yield other, values

    def keeping(self, kept: frozenset[int]) -> Solver:
        """The same of the problem in which these values are not made again."""
        if not kept:
            return self
        values = [v._replace(work=None) if n in kept else v for n, v in enumerate(self.problem.values)]
        return Solver(replace(self.problem, values=values))

    def least(self, work: float) -> Schedule:
        """The schedule with the lowest peak that is found among those that add at most `work`: that of the forward
        pass.
        """
        best, limit = self.solve(self.base.peak), self.base.peak if self.problem.parts else self._near(work)
        while limit < best.peak:
            begun = self.solve(limit, work)
            if begun.peak < best.peak and begun.work <= work:
                best = begun
            limit = int(limit / _LOWER) + 1
        part = _LOWER
        while best.peak > self.floor and part < _LOWEST:
            lower = self.solve(max(int(best.peak * part), self.floor), work)
            if lower.peak < best.peak and lower.work <= work:
                best = lower
            else:  # too far at once
                part = (1 + part) / 2
        return best

    def _near(self, work: float) -> int:
        """About the fewest bytes at so much added work, by plans for stages, each of a finer grain than the last."""
        stages = self.stages
        if stages is None:
            return self.base.peak
        once = sum(stage.work for stage in stages.kinds)
        left = self.base.peak - stages.beside()
        for _ in range(_FINER):
            if left <= 0:
                break
            plan = Plan(stages, left)
            enough = np.flatnonzero(plan.works <= once + work)
            left = min(left, int(enough[0] * plan.grain)) if len(enough) else left
        return stages.beside() + left


def solve(problem: Problem, limit: int) -> Schedule:
    """The schedule that `Solver.solve` finds thoroughly."""
    return Solver(problem).solve(limit, thorough=True)


def _asked_for(problem: Problem, base: Timeline | None = None) -> dict[int, list[int]]:
    """What is made again before each step because somebody asked for it."""
    timeline = base or Timeline(problem, {})
    parts = problem.parts
    part_of = {value: number for number, part in enumerate(parts) for value in part.values}
    inside = [{v for inner in parts if part.name in inner.around for v in inner.values} for part in parts]
    ready = [max(_events(timeline, part.values, before=part.before)) for part in parts]
    starts = [part.before for part in parts]
    found: dict[int, list[int]] = {}
    changed = list(range(len(parts)))
    while changed:  # what a part is made of is there before it: starts only ever move to earlier steps
        part = changed.pop()
        found[part] = _closure(problem, timeline, parts[part].values, starts[part], inside[part])
        needed = {n for value in found[part] for n in problem.values[value].needs} - inside[part]
        for other in {part_of.get(value, part) for value in needed}:
            if ready[other] < starts[part] < starts[other]:
                starts[other] = starts[part]
                changed.append(other)
    together: dict[int, set[int]] = {}
    for part, closure in found.items():
        together.setdefault(starts[part], set()).update(closure)
    return {step: sorted(v, key=lambda value: timeline.of[value][-1].made) for step, v in together.items()}


def asked(problem: Problem) -> Schedule:
    """The schedule of what somebody asked for, whatever memory that takes."""
    return Search(problem, 0, _asked_for(problem)).schedule()


def _events(timeline: Timeline, values: Iterable[int], before: int) -> Iterator[int]:
    """The events before one at which values are made or read."""
    for value in values:
        for life in timeline.of[value]:
            yield from (event for event in (life.made, *life.read) if event < before)


def cheap(problem: Problem, price: float) -> Schedule:
    """The schedule that lowers the peak by all that is made again for at most `price` work a byte."""
    search = Search(problem, 0, _asked_for(problem))
    search.run(_VAIN, price=price)
    return search.schedule()
