"""Place: an offset in one arena for every value that lives for a while.

Each request is (bytes, first step, last step), both steps included; requests whose lives overlap get disjoint places.
Largest first is best in practice among the greedy orders (Pisarchyk & Lee, "Efficient memory management for deep neural
net inference", 2020), and within a part in a thousand of what lives at once in steps of 24 to 1,000 layers; where it is
not, other orders are tried, and what they leave above all that lives at once is placed earlier the next time (Joslin &
Clements, "Squeaky wheel optimization", 1999). Very long lists are placed in the order of time.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from math import inf, log
from typing import NamedTuple

import numpy as np

#: every value starts on a cache line of its own
ALIGNMENT = 64


class Request(NamedTuple):
    """Memory that is needed from the step `first` to the step `last`."""

    nbytes: int
    first: int
    last: int


class Placement(NamedTuple):
    """The offset of each request, in order, and the size of the arena."""

    offsets: list[int]
    nbytes: int


#: from so many requests on they are placed in the order of time, which takes 0.1 s for these and not 0.4, and up to an
#: eighth more memory
_MANY = 16_000


#: what lies within this of the bytes that live at once is not placed in another order
_NEAR = 1.001
#: how often an order is mended, by how much what lies too high comes earlier, and the part of the bytes that live at
#: once from which on a request takes part, of at most so many: some 25 ms, a thirtieth less of arena
_ROUNDS, _EARLIER, _LARGE, _FEW = 40, 1.5, 0.01, 400


def place(requests: Sequence[Request]) -> Placement:
    """Offsets such that no two requests that live at once overlap: the best of some orders."""
    sizes = [-(-request.nbytes // ALIGNMENT) * ALIGNMENT for request in requests]
    if len(requests) > _MANY:
        return _by_time(requests, sizes)
    alive = _alive(requests, sizes)
    enough = int(_NEAR * alive.max(initial=0))
    best: tuple[Placement, list[float]] | None = None
    for weights in _orders(requests, sizes, alive):
        placement = _largest_first(requests, sizes, weights)
        if best is None or placement.nbytes < best[0].nbytes:
            best = placement, weights
        if placement.nbytes <= enough:
            return placement
    assert best is not None
    mended = _mended(requests, sizes, best[1], enough)
    placement = best[0] if mended is None else _largest_first(requests, sizes, mended)
    return min(best[0], placement, key=lambda placement: placement.nbytes)


def _alive(requests: Sequence[Request], sizes: Sequence[int]) -> np.ndarray:
    """The bytes that live at each step."""
    changes = np.zeros(max((request.last for request in requests), default=0) + 2, np.int64)
    np.add.at(changes, [request.first for request in requests], sizes)
    np.subtract.at(changes, [request.last + 1 for request in requests], sizes)
    return changes.cumsum()


def _orders(requests: Sequence[Request], sizes: Sequence[int], alive: np.ndarray) -> Iterator[list[float]]:
    """What requests are placed by, the largest first: their bytes, or these the more, the fuller memory is while they
    live, or the longer they live.
    """
    yield list(map(float, sizes))
    fullest = [float(alive[request.first : request.last + 1].max()) for request in requests]
    yield [size * most**2 for size, most in zip(sizes, fullest, strict=True)]
    yield [size * log(2 + r.last - r.first) for size, r in zip(sizes, requests, strict=True)]


def _mended(
    requests: Sequence[Request], sizes: Sequence[int], weights: Sequence[float], enough: int
) -> list[float] | None:
    """What to place requests by: an order that is mended for the large ones; None where these are too many."""
    large = [number for number, size in enumerate(sizes) if size >= _LARGE * enough]
    if not 1 < len(large) <= _FEW:
        return None
    of, beside = [sizes[number] for number in large], _beside([requests[number] for number in large])
    own = [weights[number] for number in large]
    least, best = inf, list[int]()
    for _ in range(_ROUNDS):
        order = sorted(range(len(own)), key=lambda i: (-own[i], i))
        tops = _tops(order, of, beside)
        if (most := max(tops)) < least:
            least, best = most, order
        if most <= enough:
            break
        own = [weight * _EARLIER if top > enough else weight for weight, top in zip(own, tops, strict=True)]
    found, first = list(map(float, sizes)), 2.0 * max(sizes)
    for place, number in enumerate(best):
        found[large[number]] = first - place
    return found


def _beside(requests: Sequence[Request]) -> list[list[int]]:
    """The requests that live at once with each."""
    first, last = (np.array([request[field] for request in requests]) for field in (1, 2))
    meeting = (first[:, None] <= last) & (last[:, None] >= first)
    np.fill_diagonal(meeting, val=False)
    return [np.flatnonzero(row).tolist() for row in meeting]


def _tops(order: Sequence[int], sizes: Sequence[int], beside: Sequence[Sequence[int]]) -> list[int]:
    """The end of each request, placed in this order as `_largest_first` does."""
    offsets, tops = [-1] * len(order), [0] * len(order)
    for number in order:
        size, free = sizes[number], 0
        for offset, top in sorted((offsets[other], tops[other]) for other in beside[number] if tops[other]):
            if offset - free >= size:
                break
            free = max(free, top)
        offsets[number], tops[number] = free, free + size
    return tops


def _largest_first(requests: Sequence[Request], sizes: Sequence[int], weights: Sequence[float]) -> Placement:
    """By their weights, each at the lowest offset that is free throughout its life; quadratic."""
    offsets = [0] * len(requests)
    # what is placed, by offset: offset, end, first step, last step
    placed = np.empty((4, len(requests)), np.int64)
    total = 0
    for count, number in enumerate(sorted(range(len(requests)), key=lambda i: (-weights[i], i))):
        _, first, last = requests[number]
        starts, ends, begins, finishes = placed[:, :count]
        meeting = np.flatnonzero((begins <= last) & (finishes >= first))
        offset = _lowest(starts[meeting], ends[meeting], sizes[number])
        offsets[number] = offset
        position = int(np.searchsorted(starts, offset))
        placed[:, position + 1 : count + 1] = placed[:, position:count].copy()
        placed[:, position] = offset, offset + sizes[number], first, last
        total = max(total, offset + sizes[number])
    return Placement(offsets, total)


def _lowest(starts: np.ndarray, ends: np.ndarray, size: int) -> int:
    """The lowest offset from which `size` bytes touch none of the stretches, which stand by their starts."""
    if not len(starts):
        return 0
    free = np.concatenate(([0], np.maximum.accumulate(ends)))
    wide = starts - free[:-1] >= size
    place = int(wide.argmax())
    return int(free[place] if wide[place] else free[-1])


def _by_time(requests: Sequence[Request], sizes: list[int]) -> Placement:
    """In the order in which lives begin, each in the smallest gap that holds it, as an allocator would at run time."""
    offsets = [0] * len(requests)
    alive: list[tuple[int, int, int]] = []  # a heap: last step, offset, end
    gaps: list[tuple[int, int]] = []  # offset, end; by offset, no two touching; what lies behind the end is free too
    end = 0
    for number in sorted(range(len(requests)), key=lambda i: (requests[i].first, -sizes[i], i)):
        while alive and alive[0][0] < requests[number].first:
            _, start, stop = heappop(alive)
            _give_back(gaps, start, stop)
        size = sizes[number]
        fitting = [gap for gap in gaps if gap[1] - gap[0] >= size]
        if fitting:
            start, stop = min(fitting, key=lambda gap: gap[1] - gap[0])
            gaps.remove((start, stop))
            if stop - start > size:
                insort(gaps, (start + size, stop))
        else:
            start = gaps.pop()[0] if gaps and gaps[-1][1] == end else end
            end = start + size
        offsets[number] = start
        heappush(alive, (requests[number].last, start, start + size))
    return Placement(offsets, end)


def _give_back(gaps: list[tuple[int, int]], start: int, stop: int) -> None:
    """Enter a gap, joined with those that touch it."""
    position = bisect_left(gaps, (start, stop))
    if position < len(gaps) and gaps[position][0] == stop:
        stop = gaps.pop(position)[1]
    if position and gaps[position - 1][1] == start:
        start = gaps.pop(position - 1)[0]
    insort(gaps, (start, stop))
