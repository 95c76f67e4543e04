"""Stages: Revolve for a chain of unequal stages, as a beginning of the search for what to keep (see `retention`).

The forward pass is cut into stages where little crosses. Which stages are kept whole, at which cuts only what crosses
is kept, and in what order stages are run again, is chosen at least work by dynamic programming over (first stage, last
stage, memory): the recursion of Griewank & Walther ("Algorithm 799: revolve", ACM TOMS 2000) for stages of unequal
work and bytes, which may also be kept whole (Beaumont et al., "Optimal checkpointing for heterogeneous chains", 2021).
It is exact for chains to the grain of memory, and only a beginning for graphs. For S stages and M grains it looks at
S³ M / 6 sums.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np

from .schedules import Life, Part, Problem, Timeline, borders

#: into how many stages the forward pass is cut at most, and how finely memory is divided
_STAGES, GRAINS = 96, 128


@dataclass
class Stages:
    """The forward pass of a problem in stages: its saved values by the stage that makes them, and where each begins."""

    problem: Problem
    timeline: Timeline
    full: int
    starts: list[int]
    saved: list[list[Life]]
    #: bytes of what is saved that crosses from each stage into later ones, and work of each stage
    crossing: list[int] = field(default_factory=list)
    work: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, problem: Problem, timeline: Timeline) -> Stages | None:
        """The stages of a problem, given the timeline with everything kept; None where there are not at least two."""
        if not timeline.events:
            return None
        full = timeline.bytes.index(timeline.peak)
        lives = [
            life
            for life in timeline.lives
            if life.made < full < timeline.end(life) and problem.values[life.value].work is not None
        ]
        cuts = borders(problem, timeline, lives, full, _STAGES)
        if not cuts:
            return None
        starts = [0, *cuts]
        saved: list[list[Life]] = [[] for _ in starts]
        ends = [*cuts, full]
        for life in lives:
            saved[next(number for number, end in enumerate(ends) if life.made < end)].append(life)
        found = cls(problem, timeline, full, starts, saved)
        values = problem.values
        found.crossing = [sum(values[v].nbytes for v in found.border(0, k)) for k in range(1, len(starts))]
        found.work = [
            sum(values[life.value].work or 0.0 for life in timeline.lives if start <= life.made < end)
            for start, end in zip(starts, ends, strict=True)
        ]
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
        values = self.problem.values
        return self.timeline.peak - sum(values[life.value].nbytes for stage in self.saved for life in stage)

    def whole(self, stage: int) -> list[int]:
        """The saved values that a stage makes."""
        return [life.value for life in self.saved[stage]]


class Plan:
    """The least works for all numbers of bytes up to `limit` that saved values may take, and how they are reached."""

    def __init__(self, stages: Stages, limit: int):
        self.stages, self.count = stages, len(stages.starts)
        grain = limit / GRAINS
        values = stages.problem.values
        self.whole = [-int(-sum(values[v].nbytes for v in stages.whole(i)) // grain) for i in range(self.count)]
        self.cross = [0, *(-int(-nbytes // grain) for nbytes in stages.crossing)]
        self.sums = np.cumsum([0.0, *stages.work])
        #: by first stage, last stage and grains of memory: the least work, and the same for the last stages behind a
        #: cut before the first, with what crosses there kept
        self.least = np.full((self.count + 1, self.count, GRAINS + 1), np.inf)
        self.behind = np.full_like(self.least, np.inf)
        #: what it is reached by: 0 the first stage is kept whole, else the stage before which is cut
        self.choice = np.zeros(self.least.shape, np.int16)
        for length in range(1, self.count + 1):
            for first in range(self.count - length + 1):
                self._fill(first, first + length - 1)

    def _fill(self, first: int, last: int) -> None:
        rest = self.least[first + 1, last] if first < last else np.zeros(GRAINS + 1)
        kept = _shifted(rest, self.whole[first]) + self.stages.work[first]
        to_cut = (self.sums[first + 1 : last + 1] - self.sums[first])[:, None]
        cut = self.least[first, first:last] + self.behind[first + 1 : last + 1, last] + to_cut
        every = np.concatenate([kept[None], cut])
        best = every.argmin(0)
        self.choice[first, last] = np.where(best, first + best, 0)
        self.least[first, last] = every[best, np.arange(GRAINS + 1)]
        self.behind[first, last] = _shifted(self.least[first, last], self.cross[first])

    def parts(self, memory: int) -> list[Part] | None:
        """The nested parts that are made again where there are so many grains of memory; what belongs to none is kept
        from when it is made first. None where there is no way.
        """
        last = self.count - 1
        if not np.isfinite(self.least[0, last, memory]):
            return None
        found: list[tuple[Hashable, frozenset[Hashable], list[int]]] = []
        assigned: set[int] = set()
        stack: list[tuple[int, int, int, frozenset[Hashable]]] = [(0, last, memory, frozenset())]
        while stack:
            first, last, memory, around = stack.pop()
            name = len(found)
            own: list[int] = []
            found.append((name, around, own))
            within = around | {name} if name else around  # the first run of all is the step's own
            stage = first
            while stage <= last:
                cut = int(self.choice[stage, last, memory])
                values = self.stages.border(stage, cut) if cut else self.stages.whole(stage)
                own += [v for v in values if v not in assigned]
                assigned.update(values)
                if cut:
                    stack.append((stage, cut - 1, memory, within))
                memory -= self.cross[cut] if cut else self.whole[stage]
                stage = cut or stage + 1
        return [self._part(name, around, own) for name, around, own in found[1:] if own]

    def _part(self, name: Hashable, around: frozenset[Hashable], values: Sequence[int]) -> Part:
        timeline, full = self.stages.timeline, self.stages.full
        reads = [event for v in values for event in timeline.of[v][0].read if event > full]
        return Part(min(reads), frozenset(values), name, around)


def _shifted(array: np.ndarray, grains: int) -> np.ndarray:
    """The array for `grains` grains less of memory."""
    if not grains:
        return array
    found = np.full(len(array), np.inf)
    if grains < len(array):
        found[grains:] = array[:-grains]
    return found
