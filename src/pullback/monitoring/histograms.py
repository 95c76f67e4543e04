"""Histograms: how many elements lie in equal bins between the largest magnitude and its negative.

The bins of a tensor are known when its largest magnitude is, so it is gone through a second time: in steps for which
histograms are asked alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from ..graph.node import Node
from ..ops.elementwise import absolute, convert, lt, mul
from ..ops.primitive import constant
from ..ops.reduction import reduce_max
from .statistics import share

#: bins of a histogram: its inner edges are one fewer, which fit in the registers of one kernel
BINS = 30


@dataclass(frozen=True)
class Histogram:
    """`counts` of elements in equal bins from -`largest` to `largest`."""

    largest: float
    counts: tuple[float, ...]

    @property
    def edges(self) -> tuple[float, ...]:
        """The ends of the bins, one more than there are bins."""
        return tuple(self.largest * (2 * place / len(self.counts) - 1) for place in range(len(self.counts) + 1))

    @classmethod
    def of(cls, count: int, sums: Mapping[str, float]) -> Histogram:
        """From what `sums_of_bins` names, of `count` elements."""
        below = [0.0, *(sums[f"below {edge}"] for edge in range(1, BINS)), float(count)]
        return cls(sums["edge"], tuple(high - low for low, high in pairwise(below)))


def sums_of_bins(x: Node) -> dict[str, Node]:
    """How many elements lie below each inner edge, and the outermost edge."""
    wide = convert(x, x.dtype.compute)
    largest = reduce_max(absolute(wide), tuple(range(len(x.shape))))
    found = {"edge": largest}
    for edge in range(1, BINS):
        limit = mul(largest, constant(2 * edge / BINS - 1, wide.dtype))
        found[f"below {edge}"] = share(lt(wide, limit), wide)
    return found


__all__ = ["BINS", "Histogram", "sums_of_bins"]
