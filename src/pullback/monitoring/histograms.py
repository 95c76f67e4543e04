"""Histograms: how many elements lie in equal bins between the largest magnitude and its negative.

The bins of a tensor are known when its largest magnitude is, so it is gone through a second time: in steps for which
histograms are asked alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from ..graph.node import Node
from ..ops.elementwise import convert, lt, maximum, mul, neg
from ..ops.primitive import constant
from ..ops.reduction import reduce_max
from .statistics import share

#: bins of a histogram: its inner edges are one fewer, which fit in the registers of one kernel
BINS = 30


@dataclass(frozen=True)
class Histogram:
    """`counts` of elements in equal bins from -`largest` to `largest`; they lie from `minimum` to `maximum`."""

    largest: float
    counts: tuple[float, ...]
    minimum: float
    maximum: float

    @property
    def edges(self) -> tuple[float, ...]:
        """The ends of the bins, one more than there are bins."""
        return tuple(self.largest * (2 * place / len(self.counts) - 1) for place in range(len(self.counts) + 1))

    @classmethod
    def of(cls, count: int, sums: Mapping[str, float]) -> Histogram:
        """From what `sums_of_bins` names, of `count` elements."""
        below = [0.0, *(sums[f"below {edge}"] for edge in range(1, BINS)), float(count)]
        counts = tuple(high - low for low, high in pairwise(below))
        least, greatest = -sums["minus least"], sums["greatest"]
        return cls(max(-least, greatest), counts, least, greatest)


def sums_of_bins(x: Node) -> dict[str, Node]:
    """How many elements lie below each inner edge, the greatest, and the least, turned round."""
    wide, axes = convert(x, x.dtype.compute), tuple(range(len(x.shape)))
    found = {"greatest": reduce_max(wide, axes), "minus least": reduce_max(neg(wide), axes)}
    largest = maximum(found["greatest"], found["minus least"])
    for edge in range(1, BINS):
        limit = mul(largest, constant(2 * edge / BINS - 1, wide.dtype))
        found[f"below {edge}"] = share(lt(wide, limit), wide)
    return found


__all__ = ["BINS", "Histogram", "sums_of_bins"]
