"""What stands out of the values before it, by statistics that the outlier itself cannot move.

The scale of a window is its median absolute deviation, which is that of a normal distribution after division by 0.6745
(Hampel, "The Influence Curve and Its Role in Robust Estimation", 1974): half of the window may be wild.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

from ..diagnosis import spreads_above

#: of a normal distribution: the standard deviation over the median absolute deviation
_NORMAL = 1 / 0.6745
#: the least scale, as a share of the median: a loss that hardly moves must not make a spike of every flicker
_LEAST = 0.05
#: from fewer values than this no scale is told
_FEWEST = 8


class Window:
    """The newest `size` good values. `logarithmic` ones are compared by their ratios."""

    def __init__(self, size: int, logarithmic: bool = False):
        self.logarithmic = logarithmic
        self.values: deque[float] = deque(maxlen=size)

    def add(self, value: float) -> None:
        """Take in a good value."""
        self.values.append(value)

    @property
    def is_short(self) -> bool:
        """Whether there are too few values for a scale."""
        return len(self.values) < _FEWEST

    def deviation(self, value: float) -> tuple[float, float]:
        """By how many scales `value` lies above the median, and the median. While there are too few values for a scale,
        by how many of their spreads above the largest, and that; of logarithmic ones 0.
        """
        if self.is_short:
            # norms of the first gradients differ by whatever the initialization was off
            above = 0.0 if self.logarithmic else spreads_above(value, self.values)
            return above, max(self.values, default=math.nan)
        known = sorted(map(math.log, self.values)) if self.logarithmic else sorted(self.values)
        middle = _middle(known)
        spread = _middle(sorted(abs(v - middle) for v in known)) * _NORMAL
        scale = max(spread, _LEAST if self.logarithmic else _LEAST * abs(middle), 1e-300)
        given = math.log(max(value, 1e-300)) if self.logarithmic else value
        return (given - middle) / scale, math.exp(middle) if self.logarithmic else middle

    def set(self, values: Iterable[float]) -> None:
        """Have these values in the place of those that there are."""
        self.values.clear()
        self.values.extend(values)


def _middle(ordered: list[float]) -> float:
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else 0.5 * (ordered[half - 1] + ordered[half])


__all__ = ["Window"]
