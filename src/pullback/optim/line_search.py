"""A line search for the strong Wolfe conditions: Nocedal & Wright, "Numerical Optimization" (2006), section 3.5, in the
form of Schmidt's minFunc, which PyTorch has too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

#: the conditions: how much the loss must fall, and how far the slope
_ARMIJO, _CURVATURE = 1e-4, 0.9
#: brackets whose ends are nearer than this, in the greatest element moved, are not searched further
_TOLERANCE = 1e-9


class _Point(NamedTuple):
    """A place on the line: how far along, the loss, the gradient, and the slope along the line."""

    length: Any
    loss: float
    gradient: np.ndarray
    slope: Any


@dataclass
class _Search:
    at: Callable[[Any], tuple[float, np.ndarray]]
    direction: np.ndarray
    start: _Point
    #: how many more evaluations may follow the first
    left: int

    def point(self, length: Any) -> _Point:
        loss, gradient = self.at(length)
        return _Point(length, loss, gradient, (gradient * self.direction).sum())

    def is_low(self, point: _Point) -> bool:
        return not point.loss > self.start.loss + _ARMIJO * point.length * self.start.slope

    def is_flat(self, point: _Point) -> bool:
        return bool(abs(point.slope) <= -_CURVATURE * self.start.slope)

    def bracket(self, length: Any) -> tuple[list[_Point], bool]:
        """Two points with a good one between them, or the good one itself."""
        before, point = self.start, self.point(length)
        turns = 0
        while turns < self.left:
            if not self.is_low(point) or (turns > 1 and point.loss >= before.loss):
                break
            if self.is_flat(point):
                self.left -= turns
                return [point], True
            if point.slope >= 0:
                break
            least, most = point.length + 0.01 * (point.length - before.length), point.length * 10
            length = _cubic(before, point, (least, most))
            before, point = point, self.point(length)
            turns += 1
        else:
            before = self.start
        self.left -= turns
        return [before, point], False

    def zoom(self, bracket: list[_Point]) -> _Point:
        """Narrow the bracket until a point fulfils the conditions, or no more can be done."""
        low, high = _by_loss(bracket)
        stuck = False
        while self.left > 0:
            ends = low.length, high.length
            if abs(ends[1] - ends[0]) * np.abs(self.direction).max() < _TOLERANCE:
                break
            length, stuck = _inside(_cubic(bracket[0], bracket[1]), min(ends), max(ends), stuck)
            point = self.point(length)
            self.left -= 1
            place = 0 if bracket[0] is low else 1
            if not self.is_low(point) or point.loss >= low.loss:
                bracket[1 - place] = point
                low, high = _by_loss(bracket)
                continue
            good = self.is_flat(point)
            if not good and point.slope * (high.length - low.length) >= 0:
                bracket[1 - place] = high = low
            bracket[place] = low = point
            if good:
                break
        return low


def _by_loss(bracket: list[_Point]) -> tuple[_Point, _Point]:
    first, second = bracket
    return (first, second) if first.loss <= second.loss else (second, first)


def _inside(length: Any, least: Any, most: Any, stuck: bool) -> tuple[Any, bool]:
    """A trial that is not too near the ends of its bracket twice running, and whether it was near this time."""
    margin = 0.1 * (most - least)
    if min(most - length, length - least) >= margin:
        return length, False
    if stuck or length >= most or length <= least:
        return (most - margin if abs(length - most) < abs(length - least) else least + margin), False
    return length, True


def _cubic(one: _Point, two: _Point, bounds: tuple[Any, Any] | None = None) -> Any:
    """Where the cubic through two points and their slopes is least, within bounds."""
    (x1, f1, _, g1), (x2, f2, _, g2) = one, two
    low, high = bounds or ((x1, x2) if x1 <= x2 else (x2, x1))
    d1 = g1 + g2 - 3 * (f1 - f2) / (x1 - x2)
    square = d1**2 - g1 * g2
    if not square >= 0:
        return (low + high) / 2.0
    d2 = math.sqrt(square)
    if x1 <= x2:
        least = x2 - (x2 - x1) * ((g2 + d2 - d1) / (g2 - g1 + 2 * d2))
    else:
        least = x1 - (x1 - x2) * ((g1 + d2 - d1) / (g1 - g2 + 2 * d2))
    return min(max(least, low), high)


def strong_wolfe(
    at: Callable[[Any], tuple[float, np.ndarray]],
    length: Any,
    direction: np.ndarray,
    loss: float,
    gradient: np.ndarray,
    slope: Any,
    evaluations: int,
) -> tuple[float, np.ndarray, Any]:
    """The loss, the gradient and the length of a step along `direction` at which the loss has fallen enough and is
    flat enough; the best one found where `evaluations` (beyond a first) are not enough.

    `at(length)` evaluates loss and gradient there; `loss`, `gradient` and `slope` are those at the start.
    """
    search = _Search(at, direction, _Point(0, loss, gradient, slope), evaluations)
    bracket, done = search.bracket(length)
    best = bracket[0] if done else search.zoom(bracket)
    return best.loss, best.gradient, best.length


__all__ = ["strong_wolfe"]
