"""Statistics of a tensor: the sums that a step computes on its way, and what they say.

Each is an ordinary reduction over all elements, so the compiler takes it in the pass that makes the tensor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..graph.node import Node
from ..ops.elementwise import absolute, convert, eq, mul, where
from ..ops.primitive import constant
from ..ops.reduction import reduce_max, reduce_sum


@dataclass(frozen=True)
class Statistics:
    """Of `count` elements: the L2 norm, mean, standard deviation, share of zeros, and the largest magnitude.

    Mean and deviation come from sums of elements and of their squares in float32 (float64 for float64), so the
    deviation of what lies a thousand deviations away from zero has few digits.
    """

    count: int
    norm: float
    mean: float
    std: float
    zeros: float
    largest: float

    @classmethod
    def of(cls, count: int, sums: Mapping[str, float]) -> Statistics:
        """From the sums that `sums_of` names, of one tensor or of several added up (see `merged`)."""
        mean, square = sums["sum"] / count, sums["squares"] / count
        variance = square - mean * mean
        std = math.sqrt(variance) if variance > 0 else variance * 0
        return cls(count, math.sqrt(sums["squares"]), mean, std, sums["zeros"] / count, sums["largest"])

    @property
    def rms(self) -> float:
        """The root of the mean square, which does not depend on how many elements there are."""
        return self.norm / math.sqrt(self.count)

    @property
    def is_finite(self) -> bool:
        """Whether all elements are finite. The sum of squares of what is above 1e19 overflows, and counts as not."""
        return math.isfinite(self.norm) and math.isfinite(self.largest)

    def to_dict(self) -> dict[str, Any]:
        """The fields, for a file."""
        return asdict(self)


def sum_of_squares(x: Node) -> Node:
    """In float32 at least. `clip_grad_norm_` and the guard of a step make the same node."""
    wide = convert(x, x.dtype.compute)
    return over_all(mul(wide, wide))


def sums_of(x: Node) -> dict[str, Node]:
    """The numbers that `Statistics.of` takes, of all elements of `x`."""
    wide = convert(x, x.dtype.compute)
    return {
        "sum": over_all(wide),
        "squares": sum_of_squares(x),
        "largest": reduce_max(absolute(wide), tuple(range(len(x.shape)))),
        "zeros": share(eq(wide, constant(0.0, wide.dtype)), wide),
    }


def over_all(x: Node) -> Node:
    """The sum of all elements."""
    return reduce_sum(x, tuple(range(len(x.shape))))


def share(mask: Node, like: Node) -> Node:
    """How many elements of `mask` hold, counted in the dtype of `like`."""
    return over_all(where(mask, constant(1.0, like.dtype), constant(0.0, like.dtype)))


def merged(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    """The sums of two tensors together."""
    return {name: max(v, other[name]) if name == "largest" else v + other[name] for name, v in one.items()}


__all__ = ["Statistics", "merged", "over_all", "share", "sum_of_squares", "sums_of"]
