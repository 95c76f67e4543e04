"""Whether a loss stands with the right sign: what is never negative must be made smaller, and not larger.

Told from the graph, as far as a loss is a sum of what is known, scaled by numbers: of `1 - mse_loss(x, y)` it is clear
which way is better, of a product of two things that are computed it is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..graph.node import Node
from ..ops.primitive import INDEXING, MOVEMENT

#: functions that are the better the smaller they are
_SMALLER = {
    "cross_entropy", "nll_loss", "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "binary_cross_entropy",
    "binary_cross_entropy_with_logits", "multi_margin_loss", "multilabel_soft_margin_loss", "ctc_loss",
}  # fmt: skip
#: logarithms of probabilities, which are the better the larger they are
_LARGER = {"log_softmax", "logsigmoid"}
_PROBABILITIES = {"softmax", "sigmoid"}
#: what keeps the sign, of the operands that a gradient goes to
_KEEPING = {"add", "sum", "convert", "where"}


class Part(NamedTuple):
    """A part of a loss of which it is known whether it is to be made smaller, and whether minimizing the loss does."""

    operation: str
    source: str
    is_right: bool


def parts(loss: Node) -> Iterator[Part]:
    """The parts of a loss of which the right sign is known."""
    stack, seen = [(loss, 1)], {(loss, 1)}
    while stack:
        node, sign = stack.pop()
        better = _better(node)
        if better:
            assert node.source is not None
            yield Part(node.source.operation, str(node.source), sign == better)
            continue
        for operand, of_operand in _terms(node):
            found = operand, sign * of_operand
            if found not in seen:
                seen.add(found)
                stack.append(found)


def _better(node: Node) -> int:
    """1 where a value is the better the smaller it is, -1 where it is the other way round, 0 where neither is known."""
    operation = "" if node.source is None else node.source.operation
    if operation in _SMALLER:
        return 1
    if operation in _LARGER:
        return -1
    if node.op.name == "log" and node.inputs:
        source = node.inputs[0].source
        return -1 if source is not None and source.operation in _PROBABILITIES else 0
    return 0


def _terms(node: Node) -> Iterator[tuple[Node, int]]:
    """The operands that a value grows with (1), or falls with (-1), as far as that is clear."""
    inputs, name = node.inputs, node.op.name
    if name in _KEEPING or node.op.kind in (MOVEMENT, INDEXING):
        yield from ((i, 1) for i in inputs if i.requires_grad)
    elif name == "neg":
        yield from ((i, -1) for i in inputs)
    elif name == "sub":
        yield inputs[0], 1
        yield inputs[1], -1
    elif name in ("mul", "div") and len(inputs) == 2:
        for operand, other in [(inputs[0], inputs[1]), *([(inputs[1], inputs[0])] if name == "mul" else [])]:
            scale = _number(other)
            if scale and operand.requires_grad:
                yield operand, 1 if scale > 0 else -1


def _number(node: Node) -> float:
    """The number that a node spreads out; 0 where it is none."""
    while node.op.name in ("expand", "reshape", "permute", "convert") and node.inputs:
        node = node.inputs[0]
    return float(node["value"]) if node.op.name == "constant" else 0.0


__all__ = ["Part", "parts"]
