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

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from math import inf
from typing import NamedTuple

import numpy as np

from .schedules import Again, Life, Problem, Schedule, Timeline, borders
from .stages import GRAINS, Plan, Stages


class _Choice(NamedTuple):
    """A life that may be interrupted between two readings, and what is made again for it, in order."""

    price: float
    work: float
    gain: int
    life: Life
    until: int
    chain: tuple[int, ...]
    spared: tuple[int, ...]


#: a value of at most this part of another's bytes is kept for it rather than made again
_SMALL = 1 / 16
#: the most values that are made again for one
_LONGEST_CHAIN = 4096


class _Search:
    """Lets go of values until the peak is at most `limit`."""

    def __init__(self, problem: Problem, limit: int, before: dict[int, list[int]] | None = None):
        self.problem, self.limit = problem, limit
        self.before: dict[int, list[int]] = {s: list(v) for s, v in (before or {}).items()}
        self.timeline = Timeline(problem, self.before)
        #: values that were taken out of the list of what is made again, by step: they are not taken out twice
        self.spared: set[tuple[int, int]] = set()
        #: how many values were gone through in looking for what would have to be made again
        self.visited = 0

    def schedule(self) -> Schedule:
        again = tuple(Again(s, v) for s in sorted(self.before) for v in self.before[s])
        return Schedule(again, self.timeline.peak, self.work)

    @property
    def work(self) -> float:
        """What is added so far."""
        return sum(self.problem.values[v].work or 0.0 for again in self.before.values() for v in again)

    def run(self, attempts: int, most: float = inf, price: float = inf) -> bool:
        """Whether the limit is met in the end; gives up after `attempts` in a row that have not lowered the peak, where
        more work than `most` is added, where nothing helps that adds at most `price` a byte, and where it takes long.
        """
        least, vain = (self.before, self.timeline), 0
        while self.timeline.peak > self.limit and vain < attempts and self.visited < _LONG and self.work <= most:
            if not self._let_go(price):
                break
            vain += 1
            if self.timeline.peak < least[1].peak:
                least, vain = (self.before, self.timeline), 0
        self.before, self.timeline = least
        return self.timeline.peak <= self.limit

    def _let_go(self, price: float) -> bool:
        """Interrupt the lives that are cheapest for their bytes where memory is fullest; False where none helps that
        adds at most `price` work a byte.
        """
        timeline = self.timeline
        full = timeline.bytes.index(timeline.peak)
        over = [0]
        for nbytes in timeline.bytes:
            over.append(over[-1] + (nbytes > self.limit))
        choices = []
        for life in timeline.lives:
            # making it costs at least its own work, whatever it is made of
            dear = (self.problem.values[life.value].work or 0.0) > price * self.problem.values[life.value].nbytes
            choice = None if dear else self._choice(life, full, over)
            if choice is not None and choice.work <= price * choice.gain:
                choices.append(choice)
        if not choices:
            return False
        choices.sort(key=lambda choice: choice.price)
        excess, touched = timeline.peak - self.limit, set[int]()
        edits: list[_Choice] = []
        for choice in choices[: 1 + len(choices) // 8]:
            if excess <= 0:
                break
            own = {*choice.chain, *choice.spared, *(n for v in choice.chain for n in self.problem.values[v].needs)}
            if own & touched:
                continue
            touched |= {*choice.chain, *choice.spared}
            edits.append(choice)
            excess -= choice.gain
        self._apply(edits)
        return True

    def _choice(self, life: Life, full: int, over: list[int]) -> _Choice | None:
        """What it would take for the life not to be in memory at the event `full`."""
        value = self.problem.values[life.value]
        if value.work is None or not value.nbytes or not life.made < full < self.timeline.end(life):
            return None
        place = bisect_left(life.read, full)
        if life.read[place] == full:
            return None
        until, since = life.read[place], life.read[place - 1] if place else life.made
        found = self._chain(life.value, until, full)
        if found is None:
            return None
        chain, held = found
        gain = value.nbytes - held
        if gain <= 0:
            return None
        spared = self._spared(chain[:-1], until)
        work = sum(self.problem.values[v].work or 0.0 for v in chain)
        work -= sum(self.problem.values[v].work or 0.0 for v in spared)
        events = over[until] - over[since + 1]
        work = max(work, 0.0)
        return _Choice(work / (gain * max(events, 1)), work, gain, life, until, chain, spared)

    def _chain(self, value: int, until: int, full: int) -> tuple[tuple[int, ...], int] | None:
        """What has to be made again before the event `until` for `value` to be made there, in order, `value` last; and
        the bytes that are in memory at `full` for it instead.
        """
        values, timeline = self.problem.values, self.timeline
        chain: list[int] = []
        known: set[int] = {value}
        held = 0
        stack: list[tuple[int, int]] = [(value, 0)]
        while stack:
            current, place = stack.pop()
            needs = values[current].needs
            if place == len(needs):
                chain.append(current)
                if len(chain) > _LONGEST_CHAIN:
                    return None
                continue
            stack.append((current, place + 1))
            needed = needs[place]
            if needed in known:
                continue
            life = timeline.life_before(needed, until)
            end = timeline.end(life)
            if end >= until:
                continue
            known.add(needed)
            if values[needed].work is None or values[needed].nbytes <= _SMALL * values[value].nbytes:
                if life.made < full and end < full:
                    held += values[needed].nbytes
                continue
            if end >= full and self._has_room(needed, end, until, values[value].nbytes):
                continue  # it is there when memory is fullest, and stays for a little longer
            stack.append((needed, 0))
        self.visited += len(known)
        return tuple(chain), held

    def _has_room(self, value: int, end: int, until: int, freed: int) -> bool:
        """Whether a value can stay in memory from `end` until an event, memory being no fuller then than it may be."""
        most = max(self.limit, self.timeline.peak - freed)
        return max(self.timeline.bytes[end + 1 : until + 1], default=0) + self.problem.values[value].nbytes <= most

    def _spared(self, chain: Iterable[int], until: int) -> tuple[int, ...]:
        """The values of the chain whose next making again is then not needed: they stay in memory for it."""
        timeline, found = self.timeline, []
        for value in chain:
            later = next((life for life in timeline.of[value] if life.made > until), None)
            if later is not None and (timeline.step_of[later.made], value) not in self.spared:
                found.append(value)
        return tuple(found)

    def _apply(self, choices: Sequence[_Choice]) -> None:
        timeline = self.timeline
        #: what is put before an event, and the events that are taken out
        put: dict[int, list[int]] = {}
        out: set[int] = set()
        for choice in choices:
            put.setdefault(choice.until, []).extend(choice.chain)
            for value in choice.spared:
                later = next(life for life in timeline.of[value] if life.made > choice.until)
                out.add(later.made)
                self.spared.add((timeline.step_of[later.made], value))
        before: dict[int, list[int]] = {}
        for event, number in enumerate(timeline.events):
            step = timeline.step_of[event]
            if event in put:
                here = before.setdefault(step, [])
                here += [v for v in put[event] if v not in here]
            if number < 0 and event not in out:
                before.setdefault(step, []).append(~number)
        self.before = {step: list(dict.fromkeys(again)) for step, again in before.items()}
        self.timeline = Timeline(self.problem, self.before)

    def keep_again(self) -> None:
        """Keep what there turns out to be room for, the dearest first."""
        values, timeline = self.problem.values, self.timeline
        # keeping a value shortens the lives of what it would be made of: the sums only ever say too much
        filled = np.array(timeline.bytes)
        kept: set[tuple[int, int]] = set()
        again = [
            (value, place)
            for value, lives in enumerate(timeline.of)
            for place in range(1, len(lives))
            if timeline.events[lives[place].made] < 0
        ]
        for value, place in sorted(again, key=lambda pair: (-(values[pair[0]].work or 0.0), pair)):
            old, new = timeline.of[value][place - 1 : place + 1]
            gap = slice(timeline.end(old) + 1, new.made)
            if filled[gap].max(initial=0) + values[value].nbytes <= self.limit:
                filled[gap] += values[value].nbytes
                kept.add((timeline.step_of[new.made], value))
        if kept:
            self.before = {s: [v for v in again if (s, v) not in kept] for s, again in self.before.items()}
            self.timeline = Timeline(self.problem, self.before)


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
        life
        for life in timeline.lives
        if life.made < full < timeline.end(life) and problem.values[life.value].work is not None
    ]
    before: dict[int, list[int]] = {}
    first = 0
    for border in [*borders(problem, timeline, saved, full, count), full]:
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
            if needed in absent or timeline.end(timeline.life_before(needed, start)) < start:
                found.add(needed)
                stack.append(needed)
    made = {life.value: life.made for life in timeline.lives}
    return sorted(found, key=made.__getitem__)


#: into how many segments a search begins, besides not at all
_SEGMENTS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
#: a search goes on up to so many times the work of the best one that has kept to the limit: some is kept again then
_WORTH = 1.25
#: from how many of those that do not keep to the limit by themselves
_CLOSEST = 2


#: after so many attempts in a row that have not lowered the peak a search gives up: of chains, GPTs, a ResNet and an
#: LSTM at limits from 0.1 to 0.75 none came lower or cheaper with a hundred
_VAIN = 20
#: and when it has gone through so many values: those that kept to their limit went through 55,000 at most
_LONG = 400_000


def solve(problem: Problem, limit: int, most: float = inf, attempts: int = _VAIN) -> Schedule:
    """The schedule with the least added work whose peak is at most `limit`, as far as it is found; where none is found,
    the one with the least peak. What adds more than `most` is of no use, and is not looked for.
    """
    limit = max(limit, floor(problem))
    searches = [_Search(problem, limit, _asked_for(problem))]
    if searches[0].timeline.peak > limit and not problem.parts:
        base = searches[0].timeline
        counts = [n for n in _SEGMENTS if 4 * n <= len(problem.values)]
        begun = [_Search(problem, limit, segments(problem, n, base)) for n in counts]
        begun += _staged(problem, limit, base)
        beyond = sorted((s for s in begun if s.timeline.peak > limit), key=lambda search: search.timeline.peak)
        searches += [s for s in begun if s.timeline.peak <= limit] + beyond[:_CLOSEST]
    found: list[Schedule] = []
    # those that keep to the limit come first: what they add tells how far it is worth to go from the others
    for search in sorted(searches, key=lambda search: max(search.timeline.peak - limit, 0)):
        if search.run(attempts, most) and not problem.parts:
            search.keep_again()
            most = min(most, _WORTH * search.work)
        found.append(search.schedule())
    return min(found, key=lambda schedule: (max(schedule.peak - limit, 0), schedule.work))


#: how often the memory for saved values is halved on the way to the most whose plan keeps to the limit
_HALVINGS = 6


def _staged(problem: Problem, limit: int, base: Timeline) -> list[_Search]:
    """Searches that begin with the best plans for stages of the forward pass (see `stages`): what is made again needs
    some memory too, so that the most that saved values may take is found by halving.
    """
    stages = Stages.of(problem, base)
    if stages is None or (left := limit - stages.beside()) <= 0:
        return []
    plan = Plan(stages, left)
    found: list[_Search] = []
    low, high = 0, GRAINS + 1
    for _ in range(_HALVINGS):
        memory = (low + high) // 2 if found else GRAINS
        parts = plan.parts(memory)
        if parts is None:
            break
        found.append(_Search(problem, limit, _asked_for(replace(problem, parts=parts), base)))
        if found[-1].timeline.peak > limit:
            high = memory
        else:
            low = memory
    return found


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
    made = {life.value: life.made for life in timeline.lives}
    return {step: sorted(values, key=made.__getitem__) for step, values in together.items()}


def asked(problem: Problem) -> Schedule:
    """The schedule of what somebody asked for, whatever memory that takes."""
    return _Search(problem, 0, _asked_for(problem)).schedule()


def _events(timeline: Timeline, values: Iterable[int], before: int) -> Iterator[int]:
    """The events before one at which values are made or read."""
    for value in values:
        for life in timeline.of[value]:
            yield from (event for event in (life.made, *life.read) if event < before)


def cheap(problem: Problem, price: float) -> Schedule:
    """The schedule that lowers the peak by all that is made again for at most `price` work a byte."""
    search = _Search(problem, 0, _asked_for(problem))
    search.run(_VAIN, price=price)
    return search.schedule()


#: how much lower each limit is that is tried on the way to the least, and so near that it is not tried
_LOWER, _LOWEST = 0.9, 0.98


def least(problem: Problem, work: float) -> Schedule:
    """The schedule with the lowest peak that is found among those that add at most `work`: that of the forward pass."""
    best = solve(problem, Timeline(problem, {}).peak)
    counts = [] if problem.parts else [n for n in _SEGMENTS if 4 * n <= len(problem.values)]
    for schedule in (_Search(problem, 0, segments(problem, n)).schedule() for n in counts):
        if schedule.peak < best.peak and schedule.work <= work:
            best = schedule
    bottom, part = floor(problem), _LOWER
    while best.peak > bottom and part < _LOWEST:
        lower = solve(problem, max(int(best.peak * part), bottom), work)
        if lower.peak < best.peak and lower.work <= work:
            best = lower
        else:  # too far at once
            part = (1 + part) / 2
    return best


def floor(problem: Problem) -> int:
    """Bytes below which no schedule can stay: at each step what it reads, makes and needs besides, and what else is in
    memory that may not be made again; at the end all that is wanted.
    """
    timeline, values = Timeline(problem, {}), problem.values
    changes = [0] * (len(timeline.events) + 1)
    for life in timeline.lives:
        if values[life.value].work is None:
            changes[life.made] += values[life.value].nbytes
            changes[timeline.end(life) + 1] -= values[life.value].nbytes
    most, lasting = sum(values[value].nbytes for value in problem.wanted), 0
    for step, change in zip(problem.steps, changes, strict=False):
        lasting += change
        passing = {value for value in (*step.reads, *step.makes) if values[value].work is not None}
        most = max(most, lasting + step.extra + sum(values[value].nbytes for value in passing))
    return most
