"""Spread: the sum of squared distances from the mean, as a variance has it, as one reduction of the values.

sum((x - sum(x) * (1 / n))²) → spread(x), where n elements are summed. Written out, every element is read once for the
mean and once more when the mean is known; a kernel that has a part of the elements in its cache can do both there, and
parts are put together without cancelling (see `codegen/partials.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..graph.node import Node
from ..graph.types import float32
from ..ops.movement import reshape
from ..ops.reduction import spread


@dataclass(frozen=True)
class Distances:
    """The squared distances that `node` sums are those of `values` from the mean that the sums `total` give."""

    node: Node
    values: Node
    total: Node

    def spread(self) -> Node:
        """`node` as a reduction of the values."""
        return spread(reshape(self.values, self.node.inputs[0].shape), self.node["axes"])


def distances_from_mean(node: Node) -> Distances | None:
    """What `node` sums, if that is squared distances from the mean along its own leading axes."""
    axes = node["axes"]
    if node.op.name != "sum" or axes != tuple(range(len(axes))) or not node.dtype.is_floating_point:
        return None
    square = _within(node.inputs[0], "reshape")
    if square.op.name != "mul" or square.inputs[0] is not square.inputs[1]:
        return None
    distance = _within(square.inputs[0], "reshape")
    if distance.op.name != "sub" or distance.inputs[0].shape != distance.shape:
        return None
    values, mean = distance.inputs[0], _within(distance.inputs[1], "reshape", "expand")
    total = _summed(mean, math.prod(node.inputs[0].shape[axis] for axis in axes))
    if total is None or total["axes"] != tuple(range(len(total["axes"]))) or total.shape != node.shape:
        return None
    if _within(total.inputs[0], "reshape") is not _within(values, "reshape"):
        return None
    return Distances(node, values, total)


def _summed(mean: Node, count: int) -> Node | None:
    """The sum that `mean` is, times 1 / `count` or divided by `count`."""
    orders, wanted = {"mul": ((0, 1), (1, 0)), "div": ((0, 1),)}.get(mean.op.name, ()), 1 / count
    exact = 2.0 ** (-24 if mean.dtype is float32 else -53)
    for first, second in orders:
        total, number = _within(mean.inputs[first], "reshape"), _within(mean.inputs[second], "reshape", "expand")
        if total.op.name == "sum" and number.op.name == "constant":
            factor = float(number["value"])
            factor = factor if mean.op.name == "mul" else 1 / factor if factor else math.inf
            return total if math.isclose(factor, wanted, rel_tol=2 * exact) else None
    return None


def _within(node: Node, *movements: str) -> Node:
    """What the node is but for these movements."""
    while node.op.name in movements:
        node = node.inputs[0]
    return node
