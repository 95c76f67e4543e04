"""What losses over classes are given: logarithms that were normalized over another axis than that of the classes, and
batches of one class alone.
"""

from __future__ import annotations

from typing import NamedTuple

from ..graph.node import Node, ancestors
from ..ops.primitive import REDUCTION

_LOSSES = ("cross_entropy", "nll_loss")


class OtherAxis(NamedTuple):
    """The loss, what was normalized over another axis than it takes the classes from, both axes, and the line."""

    loss: str
    function: str
    axis: int
    classes: int
    line: str


def over_another_axis(loss: Node) -> OtherAxis | None:
    """The first log_softmax in what a loss was made of whose sum is over something else than the classes."""
    for node in _in_order(loss):
        if _called(node) != "nll_loss" or node.op.name != "where" or len(node.shape) < 2:
            continue
        made = next((i for i in node.inputs if _called(i) in ("log_softmax", "softmax")), None)
        axes = set() if made is None else _reduced(made)
        if made is not None and len(axes) == 1 and 1 not in axes and made.shape == node.shape:
            return OtherAxis("nll_loss", _called(made), axes.pop(), 1, str(made.source))
    return None


def labels_of(loss: Node) -> list[Node]:
    """Labels that the losses over classes in a loss were given."""
    return [node.inputs[0] for node in _in_order(loss) if node.op.name == "bounded" and _called(node) in _LOSSES]


def _in_order(loss: Node) -> list[Node]:
    return sorted(ancestors([loss], stop_at_buffers=False), key=lambda n: n.serial)


def _reduced(made: Node) -> set[int]:
    """The axes that a function has reduced."""
    own: set[Node] = {made}
    stack = [made]
    while stack:
        new = [i for i in stack.pop().inputs if _called(i) == _called(made) and i not in own]
        own.update(new)
        stack += new
    return {axis for node in own if node.op.kind == REDUCTION for axis in node["axes"]}


def _called(node: Node) -> str:
    return "" if node.source is None else node.source.operation


__all__ = ["OtherAxis", "labels_of", "over_another_axis"]
