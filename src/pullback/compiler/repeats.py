"""Repeats: the layers of a network, as the stretch of a sequence that is the same over and over.

What is decided for one of its repetitions holds for all: see `stages`.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

#: the longest repetition that is looked for, in members of the sequence
_LONGEST = 1024


class Repeats(NamedTuple):
    """`times` repetitions of `period` members each, one behind the other, from the member `first` on."""

    first: int
    period: int
    times: int


def repeats(sequence: Sequence[Hashable]) -> Repeats | None:
    """The repetitions that cover most of a sequence, the shortest ones of those; None where nothing is repeated."""
    numbers: dict[Hashable, int] = {}
    members = np.array([numbers.setdefault(member, len(numbers)) for member in sequence], np.int64)
    best, covered = None, 0
    for period in range(1, min(len(members) // 2, _LONGEST) + 1):
        first, length = _longest_run(members[period:] == members[:-period])
        times = length // period + 1
        if times > 1 and times * period > covered:
            best, covered = Repeats(first, period, times), times * period
    return best


def _longest_run(same: np.ndarray) -> tuple[int, int]:
    """Where the longest stretch of true values begins, and how long it is."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], same.view(np.int8), [0]))))
    starts, ends = edges[::2], edges[1::2]
    if not len(starts):
        return 0, 0
    place = int((ends - starts).argmax())
    return int(starts[place]), int(ends[place] - starts[place])


__all__ = ["Repeats", "repeats"]
