"""Losses that are given what they make themselves, or what they do not take: probabilities where they take scores or
logarithms, and scores where they take logarithms.

`cross_entropy` takes a softmax of what it is given. Of probabilities, which are all between 0 and 1, that is nearly the
same for each class: the loss cannot come near to 0, and its gradients are small. Nothing fails, and training is slow
and ends at a worse model. A loss that takes logarithms falls without end where it is given scores.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..graph.node import Node, ancestors
from ..ops.primitive import ALIAS, CONTRACTION, ELEMENTWISE, INDEXING, MOVEMENT

#: kl_div multiplies by its target, which comes first there, and takes no logarithms for one
_SWAPPED = (
    "give kl_div the logarithms first, and the probabilities as its target; or say log_target=True where the target "
    "is logarithms too"
)
_LOGARITHMS = "takes logarithms of probabilities: give it log_softmax(scores)"
#: by the function: the operation in it that reads scores (and no target), what must not have made these, and the mend
_LOSSES = {
    "cross_entropy": (
        "max", ("softmax", "sigmoid"),
        "give cross_entropy the scores, without softmax or sigmoid: it takes a softmax itself",
    ),
    "log_softmax": ("max", ("softmax",), "take log_softmax of the scores, without softmax before it"),
    "nll_loss": ("where", ("softmax", "sigmoid"), f"nll_loss {_LOGARITHMS}, or give cross_entropy the scores"),
    "kl_div": ("mul", ("softmax", "sigmoid"), f"kl_div {_LOGARITHMS}"),
    "binary_cross_entropy_with_logits": (
        "abs", ("sigmoid",),
        "give binary_cross_entropy_with_logits the scores, without sigmoid: it takes one itself; or take "
        "binary_cross_entropy, which does not",
    ),
}  # fmt: skip
#: those that take logarithms of probabilities, and what makes such, or what nothing is known of
_OF_LOGARITHMS = ("nll_loss", "kl_div")
_MAKERS = ("log_softmax", "logsigmoid", "logsumexp", "softmax", "sigmoid", *_OF_LOGARITHMS)
#: what is computed element by element: what was made of scores alone by these is no probability either
_LOCAL = (ELEMENTWISE, MOVEMENT, INDEXING, ALIAS)


class Doubled(NamedTuple):
    """A loss, what made that which it was given, the line of the latter, and the mend."""

    loss: str
    made_by: str
    line: str
    mend: str


def doubled(loss: Node) -> Iterator[Doubled]:
    """The losses in what a loss was made of that are given another kind of values than they take."""
    for node in sorted(ancestors([loss], stop_at_buffers=False), key=lambda n: n.serial):
        function = _called(node)
        reading, makers, mend = _LOSSES.get(function, ("", (), ""))
        if node.op.name == reading:
            # of a product the target comes first
            target = _origin(node.inputs[0])
            if function == "kl_div" and _called(target) in ("log_softmax", "logsigmoid"):
                yield Doubled("kl_div", _called(target), str(target.source), _SWAPPED)
            for operand in node.inputs[1:] if reading == "mul" else node.inputs:
                made = _origin(operand)
                is_wrong = _called(made) in makers or (function in _OF_LOGARITHMS and _is_score(made))
                if operand.requires_grad and is_wrong:
                    yield Doubled(function, _called(made), str(made.source), mend)


def _is_score(node: Node) -> bool:
    """Whether a value was made of products of matrices, and no logarithm of a probability was taken on the way."""
    seen, stack, is_product = {node}, [node], False
    while stack:
        node = stack.pop()
        if _called(node) in _MAKERS or node.op.name.startswith("log"):
            return False
        if node.op.kind == CONTRACTION:
            is_product = True
        elif node.inputs and node.op.kind not in _LOCAL:
            return False  # who knows
        else:
            stack += [i for i in node.inputs if i.requires_grad and i not in seen]
            seen.update(node.inputs)
    return is_product


def _called(node: Node) -> str:
    return "" if node.source is None else node.source.operation


def _origin(node: Node) -> Node:
    """What made a value, where it was only moved, picked from or converted since."""
    while node.inputs and (node.op.kind in (MOVEMENT, INDEXING) or node.op.name in ("convert", "identity")):
        node = node.inputs[0]
    return node


__all__ = ["Doubled", "doubled"]
