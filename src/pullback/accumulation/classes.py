"""How a value of a function of a batch stands to the values that the function has for parts of the batch.

A value is one of these:

- SAME: it does not depend on the batch.
- EVEN: its shape does; its elements are all alike, or a random draw each, so that any of them may stand for any other.
- `Rows`: each part's value is the rows of the whole one that belong to the part.
- TOTAL: the sum of the parts' values.
- `Mixed`: none of these, or it could not be shown; `where` is the node with which that began.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from ..graph.node import Node, Shape


class Numbers(NamedTuple):
    """Integers that are `scale` times the number of the example, and something from `low` to `high` (included)."""

    scale: int
    low: int
    high: int


@dataclass(frozen=True)
class Rows:
    """`stride` elements, in row-major order, lie between an element and the one of the next example.

    Where the value counts examples, as the indices of their rows do, `numbers` says how: a part counts from 0 again.
    """

    stride: int
    numbers: Numbers | None = None


@dataclass(frozen=True)
class Mixed:
    """Examples have been mixed by `where`."""

    where: Node


SAME, EVEN, TOTAL = "same", "even", "total"
Class = str | Rows | Mixed


class Place(NamedTuple):
    """Where the batch lies: in `axis`, counted from the end, with `inner` elements of that axis an example."""

    axis: int
    inner: int


def place_of(shape: Shape, rows: Rows, count: int) -> Place | None:
    """Where in `shape` the `count` examples lie; None where they are spread over several axes."""
    trailing = 1
    for axis in range(-1, -len(shape) - 1, -1):
        size = shape[axis]
        if rows.stride < trailing * size:
            inner, rest = divmod(rows.stride, trailing)
            fits = rest == 0 and size % (inner * count) == 0
            return Place(axis, inner) if fits else None
        trailing *= size
    return None


def rows_at(shape: Shape, place: Place, numbers: Numbers | None = None) -> Rows:
    """The class of a value of `shape` whose examples lie at `place`."""
    return Rows(place.inner * math.prod(shape[len(shape) + place.axis + 1 :]), numbers)


def counts_from_zero(found: Class) -> bool:
    """Whether these are numbers of rows, none of them negative."""
    return isinstance(found, Rows) and found.numbers is not None and found.numbers.low >= 0
