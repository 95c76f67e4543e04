"""What stands out of values that are too few for a deviation to be told from them."""

from __future__ import annotations

from collections.abc import Collection
from statistics import median


def spreads_above(value: float, known: Collection[float]) -> float:
    """By how many spreads a value lies above the largest of the `known` ones; 0 where there is none.

    The spread is from the least to the largest, so that one of them that stands out itself makes it longer and nothing
    more is told. It is at least a part of the median that falls with their number, 1/n² of it down to a twentieth:
    beside a single loss a spike is what is many times as large, and a loss may rise by half after the first update.
    """
    if not known:
        return 0.0
    least = max(1 / len(known) ** 2, 0.05) * abs(median(known))
    return (value - max(known)) / max(max(known) - min(known), least, 1e-12)


__all__ = ["spreads_above"]
