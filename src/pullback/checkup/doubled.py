"""Losses that are given what they make themselves: probabilities where they take scores, or logarithms.

`cross_entropy` takes a softmax of what it is given. Of probabilities, which are all between 0 and 1, that is nearly the
same for each class: the loss cannot come near to 0, and its gradients are small. Nothing fails, and training is slow
and ends at a worse model.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..graph.node import Node, ancestors
from ..ops.primitive import INDEXING, MOVEMENT

#: by the function: the operation in it that reads scores (and no target), what must not have made these, and the mend
_LOSSES = {
    "cross_entropy": ("max", ("softmax",), "give cross_entropy the scores, without softmax: it takes one itself"),
    "log_softmax": ("max", ("softmax",), "take log_softmax of the scores, without softmax before it"),
    "nll_loss": (
        "where", ("softmax", "sigmoid"),
        "nll_loss takes logarithms of probabilities: give it log_softmax(scores), or give cross_entropy the scores",
    ),
    "binary_cross_entropy_with_logits": (
        "abs", ("sigmoid",),
        "give binary_cross_entropy_with_logits the scores, without sigmoid: it takes one itself; or take "
        "binary_cross_entropy, which does not",
    ),
}  # fmt: skip


class Doubled(NamedTuple):
    """A loss, what made that which it was given, the line of the latter, and the mend."""

    loss: str
    made_by: str
    line: str
    mend: str


def doubled(loss: Node) -> Iterator[Doubled]:
    """The losses in what a loss was made of that are given probabilities in place of scores."""
    for node in sorted(ancestors([loss], stop_at_buffers=False), key=lambda n: n.serial):
        function = _called(node)
        reading, makers, mend = _LOSSES.get(function, ("", (), ""))
        if node.op.name == reading:
            for operand in node.inputs:
                made = _origin(operand)
                if operand.requires_grad and _called(made) in makers:
                    yield Doubled(function, _called(made), str(made.source), mend)


def _called(node: Node) -> str:
    return "" if node.source is None else node.source.operation


def _origin(node: Node) -> Node:
    """What made a value, where it was only moved, picked from or converted since."""
    while node.inputs and (node.op.kind in (MOVEMENT, INDEXING) or node.op.name in ("convert", "identity")):
        node = node.inputs[0]
    return node


__all__ = ["Doubled", "doubled"]
