"""Search: values are let go one after the other where the profile of memory is above a limit, the one first whose bytes
are cheapest to come by: the greedy of dynamic tensor rematerialization (Kirisame et al. 2021), with the future known.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from heapq import heapify, heappop, heappush
from math import inf
from typing import NamedTuple

import numpy as np

from .schedules import Again, Life, Problem, Schedule, Timeline


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
#: how much more than the most may be added for a while: some is kept again at the end
_BEYOND = 1.25
#: a search ends when it has gone through so many values: most that kept to their limit went through 55,000 at most; and
#: a thorough one
_LONG, _LONGER = 150_000, 400_000


class Search:
    """Lets go of values until the peak is at most `limit`."""

    def __init__(
        self, problem: Problem, limit: int, before: dict[int, list[int]] | None = None, thorough: bool = False
    ):
        """`before` is what is made again to begin with. A `thorough` search takes longer, and finds a little less."""
        self.problem, self.limit = problem, limit
        self.before: dict[int, list[int]] = {s: list(v) for s, v in (before or {}).items()}
        self.timeline = Timeline(problem, self.before)
        #: values that were taken out of the list of what is made again, by step: they are not taken out twice
        self.spared: set[tuple[int, int]] = set()
        #: how many values were gone through in looking for what would have to be made again
        self.visited = 0
        #: how much more may be added, and at most for one value: a whole forward pass
        self.left = self.whole = inf if thorough else _forward(self.timeline)
        self.long = _LONGER if thorough else _LONG
        #: values that it took more to make again: it will not take less when more has left memory
        self.hopeless: set[int] = set()

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
        while self.timeline.peak > self.limit and vain < attempts and self.visited < self.long and self.work <= most:
            self.left = min(_BEYOND * most - self.work, self.whole)
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
        excess, touched = timeline.peak - self.limit, set[int]()
        edits: list[_Choice] = []
        for choice in self._cheapest(full, over, price):
            own = {*choice.chain, *choice.spared, *(n for v in choice.chain for n in self.problem.values[v].needs)}
            if own & touched:
                continue
            touched |= {*choice.chain, *choice.spared}
            edits.append(choice)
            excess -= choice.gain
            if excess <= 0:
                break
        if edits:
            self._apply(edits)
        return bool(edits)

    def _cheapest(self, full: int, over: Sequence[int], price: float) -> Iterator[_Choice]:
        """The choices that are cheapest for their bytes, an eighth of all, each looked at only when its turn can have
        come: making a value costs at least its own work, whatever it is made of.
        """
        found: list[tuple[float, int, _Choice | None]] = []
        lives = [life for life in self.timeline.lives if life.made < full < life.end]
        for number, life in enumerate(lives):
            least = self._least_price(life, full, over, price)
            if least is not None:
                found.append((least, number, None))
        heapify(found)
        left = 1 + len(found) // 8
        while found and left:
            _, number, choice = heappop(found)
            if choice is not None:
                left -= 1
                yield choice
                continue
            choice = self._choice(lives[number], full, over)
            if choice is not None and choice.work <= price * choice.gain:
                heappush(found, (choice.price, number, choice))

    def _least_price(self, life: Life, full: int, over: Sequence[int], price: float) -> float | None:
        """The least that a byte costs by interrupting a life at the event `full`; None where that cannot be, or costs
        more than `price`.
        """
        value = self.problem.values[life.value]
        if value.work is None or not value.nbytes or life.value in self.hopeless or value.work > price * value.nbytes:
            return None
        since, until = self._gap(life, full)
        if until == full:
            return None
        return value.work / (value.nbytes * max(over[until] - over[since + 1], 1))

    def _gap(self, life: Life, full: int) -> tuple[int, int]:
        """The events around `full` at which a life is made or read."""
        place = bisect_left(life.read, full)
        return life.read[place - 1] if place else life.made, life.read[place]

    def _choice(self, life: Life, full: int, over: Sequence[int]) -> _Choice | None:
        """What it would take for the life not to be in memory at the event `full`, which it is across."""
        value = self.problem.values[life.value]
        since, until = self._gap(life, full)
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
        nbytes, of = values[value].nbytes, timeline.of
        chain: list[int] = []
        known: set[int] = {value}
        held, work = 0, 0.0
        stack = [(value, iter(values[value].needs))]
        while stack:
            current, needs = stack[-1]
            for needed in needs:
                if needed in known:
                    continue
                lives = of[needed]
                life = lives[0] if len(lives) == 1 else timeline.life_before(needed, until)
                end = life.end
                if end >= until:
                    continue
                known.add(needed)
                if values[needed].work is None or values[needed].nbytes <= _SMALL * nbytes:
                    if life.made < full and end < full:
                        held += values[needed].nbytes
                        if held >= nbytes:
                            self.visited += len(known)
                            return None
                    continue
                if end >= full and self._has_room(needed, end, until, nbytes):
                    continue  # it is there when memory is fullest, and stays for a little longer
                stack.append((needed, iter(values[needed].needs)))
                break
            else:
                stack.pop()
                chain.append(current)
                work += values[current].work or 0.0
                if len(chain) > _LONGEST_CHAIN or work > self.left:
                    self.visited += len(known)
                    self.hopeless.add(value)
                    return None
        self.visited += len(known)
        return tuple(chain), held

    def _has_room(self, value: int, end: int, until: int, freed: int) -> bool:
        """Whether a value can stay in memory from `end` until an event, memory being no fuller then than it may be."""
        most = max(self.limit, self.timeline.peak - freed)
        return self.timeline.most_in(end + 1, until + 1) + self.problem.values[value].nbytes <= most

    def _spared(self, chain: Iterable[int], until: int) -> tuple[int, ...]:
        """The values of the chain whose next making again is then not needed: they stay in memory for it."""
        timeline, found = self.timeline, []
        for value in chain:
            if timeline.of[value][-1].made <= until:
                continue
            later = next(life for life in timeline.of[value] if life.made > until)
            if (timeline.step_of[later.made], value) not in self.spared:
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
            gap = slice(old.end + 1, new.made)
            if filled[gap].max(initial=0) + values[value].nbytes <= self.limit:
                filled[gap] += values[value].nbytes
                kept.add((timeline.step_of[new.made], value))
        if kept:
            self.before = {s: [v for v in again if (s, v) not in kept] for s, again in self.before.items()}
            self.timeline = Timeline(self.problem, self.before)


def _forward(timeline: Timeline) -> float:
    """The work to make once what is made up to where memory is fullest."""
    full, values = timeline.bytes.index(timeline.peak) if timeline.bytes else 0, timeline.problem.values
    return sum(values[lives[0].value].work or 0.0 for lives in timeline.of if lives and lives[0].made <= full)


__all__ = ["Search"]
