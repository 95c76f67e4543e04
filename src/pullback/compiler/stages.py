"""Stages: Revolve for a chain of unequal stages, as a beginning of the search for what to keep (see `retention`).

The forward pass is cut into stages where little crosses, repeated layers (see `repeats`) all at the same places. Which
stages are kept, whole or in part, at which cuts only what crosses is kept, and in what order stages are run again, is
chosen at least work by dynamic programming over (first stage, last stage, memory): the recursion of Griewank & Walther
("Algorithm 799: revolve", ACM TOMS 2000) for stages of unequal work and bytes, which may also be kept whole (Beaumont
et al., "Optimal checkpointing for heterogeneous chains", 2021) or in some ways that are solved for each kind of stage
by itself (Zhao et al., "Rockmate", 2023). It is exact for chains to the grain of memory, and only a beginning for
graphs.

Equal stages are solved once, and so is each sequence of stages of the same kinds: of S stages in layers of P stages
there are about S P sequences in the place of S² / 2.
"""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from .repeats import repeats
from .schedules import Life, Part, Problem, Timeline, borders, crossing

#: into how many stages the forward pass is cut at most, where layers are repeated and where not; and into how many a
#: layer
_REPEATED, _UNLIKE, _IN_A_LAYER = 256, 96, 2
#: how finely the memory of saved values is divided, and up to how many of these grains plans are made: a stage takes
#: whole grains, so that plans say a little too much
GRAINS = 192
TOP = 2 * GRAINS
#: in how many ways a stage is kept in part at most
_WAYS = 12


class Way(NamedTuple):
    """A way to keep a stage: which of its saved values (their places among them), their bytes, and the work to make the
    rest again.
    """

    kept: tuple[int, ...]
    nbytes: int
    work: float


class Stage(NamedTuple):
    """What a plan has to know of a stage: bytes that cross from all before into it, bytes that its backward pass leaves
    to the end as gradients, its work, and how it may be kept, first of all whole. Stages that are alike in this are of
    one kind.
    """

    before: int
    leaves: int
    work: float
    ways: tuple[Way, ...]


@dataclass
class Stages:
    """The forward pass of a problem in stages: their kinds, their saved values, and where each begins. In the timeline
    what crosses into a stage waits for its backward pass, too.
    """

    problem: Problem
    timeline: Timeline
    full: int
    starts: list[int]
    saved: list[list[Life]]
    kinds: list[Stage]

    @classmethod
    def of(cls, problem: Problem, timeline: Timeline) -> Stages | None:
        """The stages of a problem, given the timeline with everything kept; None where there are not at least two."""
        if not timeline.events:
            return None
        full = timeline.bytes.index(timeline.peak)
        cuts = _cuts(problem, timeline, _waiting(problem, timeline, full), full)
        if not cuts:
            return None
        starts = [0, *cuts]
        timeline = _with_borders(problem, timeline, starts, full)
        saved = _by_stage(_waiting(problem, timeline, full), starts)
        found = cls(problem, timeline, full, starts, saved, [])
        found.kinds = found._kinds()
        return found

    def _kinds(self) -> list[Stage]:
        values, stops = self.problem.values, [*self.starts[1:], self.full]
        made = _by_stage([life for life in self.timeline.lives if life.made < self.full], self.starts)
        found, left = [], self._left()
        for stage, (lives, stop) in enumerate(zip(made, stops, strict=True)):
            before = sum(values[value].nbytes for value in self.border(0, stage))
            work = sum(values[life.value].work or 0.0 for life in lives)
            place = {life.value: number for number, life in enumerate(lives)}
            saved = {life.value for life in self.saved[stage]}
            rows = tuple(
                _Made(
                    values[life.value].nbytes, values[life.value].work, life.value in saved,
                    any(stop <= event <= self.full for event in life.read),
                    tuple(place[value] for value in values[life.value].needs if value in place),
                )
                for life in lives
            )  # fmt: skip
            found.append(Stage(before, left[stage], work, _ways(rows)))
        return found

    def _left(self) -> list[int]:
        """The bytes that the backward pass of each stage leaves to the end: what is made after that of the stage behind
        it is done, and up to where the last of its saved values is read.
        """
        done = [max((life.end for life in lives), default=self.full) for lives in self.saved]
        last, found = max(done), [0] * len(done)
        until = np.maximum.accumulate(done[::-1])  # by stages from the last one on
        for life in self.timeline.lives:
            if self.full < life.made <= last <= life.end:
                stage = len(done) - 1 - int(np.searchsorted(until, life.made))
                found[stage] += self.problem.values[life.value].nbytes
        return found

    def border(self, first: int, cut: int) -> list[int]:
        """The saved values made in the stages from `first` on that the forward pass reads from the stage `cut` on."""
        since = self.starts[cut]
        return [
            life.value
            for stage in self.saved[first:cut]
            for life in stage
            if any(since <= event <= self.full for event in life.read)
        ]

    def beside(self) -> int:
        """The bytes that are not saved values where memory is fullest."""
        return self.timeline.bytes[self.full] - sum(stage.ways[0].nbytes for stage in self.kinds)


def _waiting(problem: Problem, timeline: Timeline, full: int) -> list[Life]:
    """What is in memory where it is fullest, between two of its events, and may be made again."""
    return [
        life for life in timeline.lives if life.made < full < life.end and problem.values[life.value].work is not None
    ]


def _by_stage(lives: Sequence[Life], starts: Sequence[int]) -> list[list[Life]]:
    """Lives by the stage that makes them."""
    found: list[list[Life]] = [[] for _ in starts]
    for life in lives:
        found[bisect_right(starts, life.made) - 1].append(life)
    return found


def _with_borders(problem: Problem, timeline: Timeline, starts: Sequence[int], full: int) -> Timeline:
    """The timeline in which what crosses into a stage and is not read by the backward pass, as a sum of which only the
    normalization is, is there until the last of what the stage has saved is read: the stage may be made again from it.
    """
    waiting = _by_stage(_waiting(problem, timeline, full), starts)
    done = [max((life.end for life in lives), default=0) for lives in waiting]
    more: dict[int, set[int]] = {}
    for life in timeline.lives:
        value = problem.values[life.value]
        if value.work is not None and value.nbytes and life.made < full and life.end < full:
            own = bisect_right(starts, life.made)
            for stage in {bisect_right(starts, event) for event in life.read} - {own}:
                more.setdefault(done[stage - 1], set()).add(life.value)
    more.pop(0, None)
    if not more:
        return timeline
    steps = [
        step._replace(reads=tuple(dict.fromkeys((*step.reads, *sorted(more.get(number, ()))))))
        for number, step in enumerate(problem.steps)
    ]
    return Timeline(replace(problem, steps=steps), {})


# ---- where stages begin


def _cuts(problem: Problem, timeline: Timeline, saved: Sequence[Life], full: int) -> list[int]:
    """The events at which stages begin, save for the first: in repeated layers at the same places in each."""
    crosses = crossing(problem, timeline, full)
    waiting = {life.value for life in saved}
    layers = repeats([_described(problem, event, waiting) for event in range(full)])
    if layers is None or 2 * layers.period * layers.times < full:  # most of it is not repeated
        return borders(problem, saved, crosses, _UNLIKE)
    together = -(-layers.times // _REPEATED)
    period, count = layers.period * together, layers.times // together
    middle = layers.first + count // 2 * period
    begin = min(range(middle, middle + period), key=lambda event: (crosses[event], event))
    layer = _between(saved, begin, begin + period)
    places = [begin, *borders(problem, layer, crosses, min(_IN_A_LAYER, _REPEATED // count), begin + period)]
    cuts = sorted(
        {
            event
            for place in places
            for event in range(place % period, full, period)
            if layers.first <= event <= layers.first + count * period
        }
        - {0}
    )
    if not cuts:
        return borders(problem, saved, crosses, _UNLIKE)
    size = _bytes(problem, layer) / len(places)
    head, tail = _between(saved, 0, cuts[0]), _between(saved, cuts[-1], full)
    parts = [min(int(_bytes(problem, part) / max(size, 1)) + 1, _UNLIKE) for part in (head, tail)]
    ends = [*borders(problem, head, crosses, parts[0], cuts[0]), *borders(problem, tail, crosses, parts[1], full)]
    return sorted({*cuts, *ends})


def _described(problem: Problem, event: int, saved: set[int]) -> Hashable:
    """What the kernels of repeated layers have in common."""
    reads, makes, extra = problem.steps[event]
    made = tuple((problem.values[v].nbytes, problem.values[v].work, v in saved) for v in makes)
    return len(reads), made, extra


def _between(saved: Sequence[Life], start: int, stop: int) -> list[Life]:
    return [life for life in saved if start <= life.made < stop]


def _bytes(problem: Problem, lives: Sequence[Life]) -> int:
    return sum(problem.values[life.value].nbytes for life in lives)


# ---- how stages may be kept


class _Made(NamedTuple):
    """A value of a stage: bytes, work, whether it is saved for the backward pass, whether a later stage of the forward
    pass reads it, and which values of its stage it is made of.
    """

    nbytes: int
    work: float | None
    saved: bool
    crosses: bool
    needs: tuple[int, ...]


@functools.lru_cache(maxsize=1024)
def _ways(made: tuple[_Made, ...]) -> tuple[Way, ...]:
    """How a stage may be kept: whole, and each time without what is cheapest of the rest for its bytes."""
    saved = [number for number, value in enumerate(made) if value.saved]
    place = {number: place for place, number in enumerate(saved)}
    left = {number for number in saved if made[number].nbytes and not made[number].crosses}
    kept, work = set(saved), 0.0
    at_once = -(-len(left) // _WAYS)
    ways = [Way(tuple(range(len(saved))), sum(made[number].nbytes for number in saved), 0.0)]
    while left:
        prices = {number: (_work(made, kept - {number}) - work) / made[number].nbytes for number in left}
        gone = sorted((number for number in left if prices[number] < np.inf), key=lambda n: (prices[n], n))[:at_once]
        if not gone:
            break
        kept, left = kept.difference(gone), left.difference(gone)
        work = _work(made, kept)
        if work < np.inf:
            ways.append(Way(tuple(place[n] for n in sorted(kept)), sum(made[n].nbytes for n in kept), work))
    return tuple(ways)


def _work(made: Sequence[_Made], kept: set[int]) -> float:
    """What it takes to make the saved values again that are not kept; infinity where that cannot be."""
    needed = {number for number, value in enumerate(made) if value.saved and number not in kept}
    stack = list(needed)
    while stack:
        for number in made[stack.pop()].needs:
            if number not in kept and number not in needed:
                needed.add(number)
                stack.append(number)
    works = [made[number].work for number in needed]
    return sum(np.inf if work is None else work for work in works)


# ---- what is kept


class Plan:
    """The least works for all numbers of bytes up to `limit` that saved values may take, and how they are reached."""

    def __init__(self, stages: Stages, limit: int):
        self.stages, self.count = stages, len(stages.starts)
        self.grain = limit / GRAINS
        self.sums = np.cumsum([0.0, *(stage.work for stage in stages.kinds)])
        self.leaves = np.cumsum([0, *(stage.leaves for stage in stages.kinds)])
        numbers, rows = _sequences(stages.kinds)
        #: by first stage and length less one the row of such a sequence of stages in the tables
        self.numbers = numbers
        #: by sequence and grains of memory: the least work, and the same for the last stages behind a cut before the
        #: first, with what crosses there kept
        self.least = np.full((rows, TOP + 1), np.inf)
        self.behind = np.full_like(self.least, np.inf)
        #: what it is reached by: the way in which the first stage is kept, or the number of ways and how many stages
        #: more than one there are before a cut
        self.choice = np.zeros(self.least.shape, np.int16)
        filled = [False] * rows
        for length in range(1, self.count + 1):
            for first in range(self.count - length + 1):
                number = numbers[first][length - 1]
                if not filled[number]:
                    self._fill(number, first, first + length - 1)
                    filled[number] = True

    def _grains(self, nbytes: int) -> int:
        return -int(-nbytes // self.grain)

    def _fill(self, number: int, first: int, last: int) -> None:
        stage, numbers = self.stages.kinds[first], self.numbers
        rest = self.least[numbers[first + 1][last - first - 1]] if first < last else np.zeros(TOP + 1)
        every = np.full((len(stage.ways) + last - first, TOP + 1), np.inf)
        later = int(self.leaves[last + 1] - self.leaves[first + 1])
        for place, way in enumerate(stage.ways):
            grains = self._grains(way.nbytes)
            # when its turn comes in the backward pass, all of it is there again
            whole = max(grains, self._grains(stage.ways[0].nbytes + later))
            if whole <= TOP:
                every[place, whole:] = rest[whole - grains : TOP + 1 - grains] + (stage.work + way.work)
        if first < last:
            heads = numbers[first][: last - first]
            tails = [numbers[cut][last - cut] for cut in range(first + 1, last + 1)]
            to_cut = (self.sums[first + 1 : last + 1] - self.sums[first])[:, None]
            left = self.leaves[last + 1] - self.leaves[first + 1 : last + 1]
            every[len(stage.ways) :] = self._with_less(heads, left) + self.behind[tails] + to_cut
        best = every.argmin(0)
        self.choice[number] = best
        self.least[number] = every[best, np.arange(TOP + 1)]
        before = self._grains(stage.before)
        if before <= TOP:
            self.behind[number, before:] = self.least[number, : TOP + 1 - before]

    def _with_less(self, rows: Sequence[int], nbytes: np.ndarray) -> np.ndarray:
        """The least works of sequences, each with so many bytes less of memory."""
        if not nbytes.any():
            return self.least[rows]
        places = np.arange(TOP + 1) - np.ceil(nbytes / self.grain).astype(np.int64)[:, None]
        found = self.least[np.array(rows)[:, None], np.maximum(places, 0)]
        found[places < 0] = np.inf
        return found

    @property
    def works(self) -> np.ndarray:
        """The least work of the whole forward pass, its first run included, by grains of memory ([TOP + 1])."""
        return self.least[self.numbers[0][-1]]

    def levels(self) -> np.ndarray:
        """The numbers of grains from which on less work is enough, in order."""
        works = self.works
        return np.flatnonzero(works < np.concatenate(([np.inf], works[:-1])))

    def parts(self, memory: int) -> list[Part]:
        """The nested parts that are made again where there are so many grains of memory, one of the `levels` or more;
        what belongs to none is kept from when it is made first.
        """
        found: list[tuple[Hashable, frozenset[Hashable], list[int]]] = []
        assigned: set[int] = set()
        stack: list[tuple[int, int, int, frozenset[Hashable]]] = [(0, self.count - 1, memory, frozenset())]
        while stack:
            first, last, memory, around = stack.pop()
            name = len(found)
            own: list[int] = []
            found.append((name, around, own))
            within = around | {name} if name else around  # the first run of all is the step's own
            while first <= last:
                kind = self.stages.kinds[first]
                choice = int(self.choice[self.numbers[first][last - first], memory])
                cut = choice - len(kind.ways)
                if cut >= 0:
                    until = first + 1 + cut
                    values = self.stages.border(first, until)
                    less = self._grains(int(self.leaves[last + 1] - self.leaves[until]))
                    stack.append((first, until - 1, memory - less, within))
                    memory -= self._grains(self.stages.kinds[until].before)
                    first = until
                else:
                    values, gone = self._parted(first, kind.ways[choice])
                    if gone:
                        found.append((len(found), within, gone))
                    memory -= self._grains(kind.ways[choice].nbytes)
                    first += 1
                own += [v for v in values if v not in assigned]
                assigned.update(values)
        return [self._part(name, around, own) for name, around, own in found[1:] if own]

    def _parted(self, stage: int, way: Way) -> tuple[list[int], list[int]]:
        """The saved values of a stage that are kept in a way, and the others."""
        saved, kept = [life.value for life in self.stages.saved[stage]], set(way.kept)
        return [saved[n] for n in way.kept], [value for n, value in enumerate(saved) if n not in kept]

    def _part(self, name: Hashable, around: frozenset[Hashable], values: Sequence[int]) -> Part:
        timeline, full = self.stages.timeline, self.stages.full
        reads = [event for v in values for event in timeline.of[v][0].read if event > full]
        return Part(min(reads), frozenset(values), name, around)


def _sequences(kinds: Sequence[Stage]) -> tuple[list[list[int]], int]:
    """By first stage and length less one a number for each sequence of stages, the same for stages of the same kinds;
    and how many there are.
    """
    number_of: dict[Stage, int] = {}
    own = [number_of.setdefault(kind, len(number_of)) for kind in kinds]
    known: dict[tuple[int, int], int] = {}
    found = []
    for first in range(len(own)):
        row: list[int] = []
        current = -1
        for number in own[first:]:
            current = known.setdefault((current, number), len(known))
            row.append(current)
        found.append(row)
    return found, len(known)
