"""Retention without the solver: schedules replayed one event at a time, exact optima, and random problems.

Nothing of the solver's own bookkeeping is used: `replay` walks through a schedule with a set of the values that are in
memory, and `optimum` searches all schedules of a small problem.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence

import hypothesis.strategies as st
import numpy as np

from pullback.compiler.schedules import Again, Problem, Step, Value


def replay(problem: Problem, again: Sequence[Again]) -> tuple[int, float]:
    """The most bytes that a schedule holds at once and the work it adds; AssertionError where it is wrong: where a
    value is read that is not in memory, or is made again that may not be, or outside of the steps.

    A copy of a value is in memory from where it is made to where it is read last before the next is made.
    """
    assert [a.before for a in again] == sorted(a.before for a in again)
    assert all(0 <= a.before < len(problem.steps) for a in again)
    events: list[tuple[tuple[int, ...], tuple[int, ...], int]] = []
    left = list(again)
    for number, step in enumerate(problem.steps):
        while left and left[0].before == number:
            value = left.pop(0).value
            assert problem.values[value].work is not None, f"value {value} may not be made again"
            events.append((problem.values[value].needs, (value,), 0))
        events.append((step.reads, step.makes, step.extra))
    # backwards: which values are read later, before they are made anew
    needed = set(problem.wanted)
    after: list[set[int]] = []
    for reads, makes, _ in reversed(events):
        after.append(set(needed))
        needed = (needed - set(makes)) | set(reads)
    assert not needed, f"values {needed} are read before they are made"
    after.reverse()
    held: set[int] = set()
    peak = 0
    for (reads, makes, extra), later in zip(events, after, strict=True):
        assert set(reads) <= held, f"values {set(reads) - held} are read when they are not in memory"
        held |= set(makes)
        # a value that is made again while an older copy is still there is one of them: nobody reads both
        peak = max(peak, sum(problem.values[v].nbytes for v in held) + extra)
        held &= later
    return peak, sum(problem.values[a.value].work or 0.0 for a in again)


def optimum(problem: Problem, limit: int, most: int = 2_000_000) -> float | None:
    """The least added work with which a problem keeps to a limit, by Dijkstra's algorithm over all that can be in
    memory after each step; None where there is none. Raises where more than `most` states are looked at.
    """
    sizes = [value.nbytes for value in problem.values]

    def nbytes(held: frozenset[int]) -> int:
        return sum(sizes[v] for v in held)

    start = (0, frozenset[int]())
    best = {start: 0.0}
    queue: list[tuple[float, int, int, frozenset[int]]] = [(0.0, 0, 0, frozenset())]
    made_by = {v: number for number, step in enumerate(problem.steps) for v in step.makes}
    seen = 0
    while queue:
        work, _, number, held = heapq.heappop(queue)
        if work > best[number, held]:
            continue
        seen += 1
        if seen > most:
            raise RuntimeError("too many states")
        if number == len(problem.steps):
            if problem.wanted <= held:
                return work
            continue
        step = problem.steps[number]
        following = []
        if set(step.reads) <= held and nbytes(held | set(step.makes)) + step.extra <= limit:
            following.append((work, number + 1, frozenset(held | set(step.makes))))
        for v, value in enumerate(problem.values):
            fits = value.work is not None and made_by[v] < number and v not in held and set(value.needs) <= held
            if fits and nbytes(held | {v}) <= limit:
                following.append((work + (value.work or 0.0), number, held | {v}))
        following += [(work, number, held - {v}) for v in held]
        for cost, at, now in following:
            if cost < best.get((at, now), math.inf):
                best[at, now] = cost
                heapq.heappush(queue, (cost, -at, at, now))
    return None


def chain(length: int, nbytes: int = 1, work: float = 1.0) -> Problem:
    """A chain of `length` equal layers and its backward pass: layer i makes value i of value i - 1 (the first one's
    input is outside of memory), its backward step reads value i - 1 and the gradient that the one before has made, of
    no bytes.
    """
    steps = [Step((i - 1,) if i else (), (i,)) for i in range(length)]
    values = [Value(nbytes, work, (i - 1,) if i else ()) for i in range(length)]
    for i in reversed(range(length)):
        reads = [*([i - 1] if i else []), *([len(values) - 1] if i < length - 1 else [length - 1])]
        steps.append(Step(tuple(reads), (len(values),)))
        values.append(Value(0, None))
    return Problem(steps, values)


def revolve(length: int, slots: int) -> int:
    """The least number of layers computed again for the backward pass of a chain of equal layers, where `slots` of
    their inputs can be kept at once besides the first (Griewank & Walther, "Algorithm 799: revolve", 2000): each of the
    layers is computed once on the way, and a backward step needs its layer's input alone.
    """
    table = np.zeros((slots + 1, length + 1), np.int64)
    for n in range(2, length + 1):
        table[0, n] = n * (n - 1) // 2
        for s in range(1, slots + 1):
            split = np.arange(1, n)
            table[s, n] = (split + table[s - 1, n - split] + table[s, split]).min()
    return int(table[slots, length]) - (length - 1)


@st.composite
def problems(draw: st.DrawFn, steps: int = 9) -> Problem:
    """Small problems: each step reads some of what was made before and makes one or two values."""
    found: list[Step] = []
    values: list[Value] = []
    for _ in range(draw(st.integers(1, steps))):
        reads = draw(st.lists(st.sampled_from(range(len(values))), max_size=3, unique=True)) if values else []
        makes = tuple(range(len(values), len(values) + draw(st.integers(1, 2))))
        for _ in makes:
            needs = tuple(sorted(draw(st.sets(st.sampled_from(reads))) if reads else ()))
            work = draw(st.none() | st.integers(1, 9).map(float))
            values.append(Value(draw(st.integers(0, 9)), work, needs))
        found.append(Step(tuple(reads), makes, draw(st.sampled_from((0, 0, 1, 5)))))
    wanted = frozenset(draw(st.sets(st.sampled_from(range(len(values))), max_size=2)))
    return Problem(found, values, wanted)
