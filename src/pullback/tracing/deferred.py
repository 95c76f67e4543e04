"""Gradients that a step leaves behind as a product which is computed if somebody looks.

`clip_grad_norm_` multiplies every gradient by one number. The optimizer's kernels do that as they read the gradient; to
have `parameter.grad` hold the product as well, it would have to be written, which is one pass over memory as large as
the model, for a value that is seldom read. So the step gives the gradient before the multiplication, which lies in
memory anyway, and the number; `parameter.grad` is the pending product of the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ..graph.node import Node
from ..ops.primitive import ALIAS, ELEMENTWISE, LEAF


class Deferred(NamedTuple):
    """An output `top` that is elementwise in `base`, of its shape, and in `numbers`, which are of shape ()."""

    top: Node
    base: Node
    numbers: tuple[Node, ...]

    def on(self, values: Mapping[Node, Node]) -> Node:
        """The same expression on the leaves that stand for the values of `base` and `numbers`."""
        chain = []
        node = self.top
        while node is not self.base:
            chain.append(node)
            node = _large(node)
        result = values[self.base]
        for node in reversed(chain):
            result = node.copy(tuple(result if i is _large(node) else values.get(i, i) for i in node.inputs))
        return result


def defer(top: Node) -> Deferred | None:
    """How the output `top` can be left uncomputed; None where it is no product of a computed value and a number, or
    where what it is made of is larger."""
    base = top
    found: list[Node] = []
    numbers: dict[Node, None] = {}
    node = top
    while node.shape and not node.requires_grad and node.op.kind in (ELEMENTWISE, ALIAS) and _is_chained(node):
        found += [i for i in node.inputs if not i.shape and i.op.name != "constant"]
        node = _large(node)
        if node.op.kind == LEAF or node.buffer is not None:
            break
        if node.dtype.itemsize <= top.dtype.itemsize:
            base, numbers = node, dict.fromkeys(found)
    return Deferred(top, base, tuple(numbers)) if numbers else None


def _is_chained(node: Node) -> bool:
    """Whether the node has one operand of its shape, and numbers else."""
    return sum(i.shape == node.shape for i in node.inputs) == 1 and all(
        i.shape in ((), node.shape) for i in node.inputs
    )


def _large(node: Node) -> Node:
    """The operand of the node's own shape."""
    return next(i for i in node.inputs if i.shape == node.shape)
