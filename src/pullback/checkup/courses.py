"""How the losses of a training go, beside those of the same training with weights that stay as they are.

Both draw the same numbers and see the same batches, so that the noise of dropout and of batches is in both, and the
difference is what the updates have done: a fall of a hundred-thousandth can be told from it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise
from statistics import fmean, median, pstdev
from typing import NamedTuple

from .facts import Facts

#: what a loss falls a step, as a part of what it is, to have fallen: 2% in ten thousand steps
LEAST = 2e-6
#: and what part of it is a rise
_MORE = 0.02
#: how many deviations a difference is that is no noise; told from this many losses on
_CLEAR, _FEW = 3.0, 8


class Course(NamedTuple):
    """A loss before and after; `change` is the latter as a part of the former (infinite where it is no number), and
    `is_clear` whether that is more than noise. It has `fallen` where it would be 2% less in ten thousand steps.
    """

    before: float
    after: float
    change: float
    is_clear: bool
    steps: int

    @property
    def has_fallen(self) -> bool:
        """Whether the updates have made the loss smaller."""
        return self.change < 1 - LEAST * self.steps

    @property
    def rises(self) -> bool:
        """Whether they have made it clearly larger."""
        return self.change > 1 + _MORE


def course(facts: Facts, still: Facts) -> Course:
    """The course of what is trained: the sum of the losses of each step where one optimizer follows all of them, and of
    several players the loss that falls most. `still` are the facts of the training with weights that stay.
    """
    pairs = [(moved, still.losses[line]) for line, moved in facts.losses.items() if still.losses.get(line)]
    if not pairs or facts.error is not None or not all(math.isfinite(loss) for moved, _ in pairs for loss in moved):
        before = [kept[0] for _, kept in pairs] or [math.nan]
        return Course(before[0], math.inf, math.inf, True, facts.steps)
    sign = -1 if facts.maximizes else 1
    counts = {len(losses) for pair in pairs for losses in pair}
    if facts.optimizers == 1 and len(pairs) > 1 and facts.steps and not any(count % facts.steps for count in counts):
        together = [[_by_step(pair[i], facts.steps) for pair in pairs] for i in (0, 1)]
        moved, kept = ([sum(step) for step in zip(*lines, strict=True)] for lines in together)
        pairs = [(moved, kept)]
    return min((_compared(moved, kept, facts.steps, sign) for moved, kept in pairs), key=lambda one: one.change)


def _by_step(losses: list[float], steps: int) -> list[float]:
    """The mean of the losses of each step."""
    each = len(losses) // steps
    return [fmean(losses[place : place + each]) for place in range(0, len(losses), each)]


def _compared(moved: list[float], kept: list[float], steps: int, sign: int) -> Course:
    """With a `sign` of -1 a rise counts as a fall."""
    count = min(len(moved), len(kept))
    few = max(1, count // 4)
    moved, kept = moved[:count], kept[:count]
    gains = [sign * (before - after) for before, after in zip(kept, moved, strict=True)]
    gain, before = fmean(gains[-few:]), fmean(kept[-few:])
    size = abs(before) + _CLEAR * pstdev(kept) or 1e-30
    noise = _CLEAR * _typical(b - a for a, b in pairwise(gains)) / math.sqrt(few)
    is_clear = count < _FEW or noise <= max(abs(gain), LEAST * steps * size)
    return Course(before, fmean(moved[-few:]), 1 - gain / size, is_clear, steps)


def _typical(values: Iterable[float]) -> float:
    sizes = [abs(value) for value in values]
    return median(sizes) if sizes else 0.0


__all__ = ["LEAST", "Course", "course"]
