"""Place: an offset in one arena for every value that lives for a while.

Each request is (bytes, first step, last step), both steps included; requests whose lives overlap get disjoint places.
Largest first, each at the lowest offset that is free throughout its life: best in practice among the greedy orders
(Pisarchyk & Lee, "Efficient memory management for deep neural net inference", 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

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


def place(requests: Sequence[Request]) -> Placement:
    """Offsets such that no two requests that live at once overlap."""
    offsets = [0] * len(requests)
    placed: list[tuple[int, int, int, int]] = []  # offset, end, first, last; by offset
    total = 0
    for number in sorted(range(len(requests)), key=lambda i: (-requests[i].nbytes, i)):
        nbytes, first, last = requests[number]
        size = -(-nbytes // ALIGNMENT) * ALIGNMENT
        offset = 0
        for start, end, begins, ends in placed:
            if begins <= last and first <= ends:
                if start - offset >= size:
                    break
                offset = max(offset, end)
        offsets[number] = offset
        placed.append((offset, offset + size, first, last))
        placed.sort()
        total = max(total, offset + size)
    return Placement(offsets, total)
