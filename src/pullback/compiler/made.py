"""Made: operands that a matrix product computes while it packs them, so that they never lie in memory as a whole.

So it is where an operand is made element by element of values that are in memory before the program begins, and is at
least 1.6 times as large as these: a weight that is kept as codes of 4 or 8 bits, with scales. What the product computes
moves fewer bytes than reading the operand would, and forward and backward each compute it anew.
"""

from __future__ import annotations

import math

from ..graph.node import Node
from ..graph.types import DType
from ..ops.primitive import ELEMENTWISE, LEAF, MOVEMENT
from .copies import SMALL_FLOATS, product_view
from .index import View

#: elements below which an operand is written to memory: it takes next to none, and small products read it faster there
_FEWEST = 4096
#: nodes, and operations an element, that an operand is made with at most
_MOST_NODES, _MOST_COST = 48, 40


def made_with(operand: Node) -> set[Node]:
    """All that a matrix product computes to make its operand on its way; nothing where it reads it from memory."""
    root = _root(operand)
    if root is None or _elements(root) < _FEWEST:
        return set()
    view, rounded = made_view(operand)
    if view is None or 1 not in view.strides[-2:]:
        return set()
    found = _computed(root)
    if found is None:
        return set()
    given = {node for node in found if _is_given(node)}
    read = sum(_elements(node) * node.dtype.itemsize for node in given)
    wanted = _elements(root) * (rounded or root.dtype).itemsize
    return found - given if given and 16 * read <= 10 * wanted else set()


def made_view(operand: Node) -> tuple[View | None, DType | None]:
    """How the product reads what it makes, as if that lay in memory, and to which 16-bit type it rounds it, if to any.
    The base of the view is the node whose elements are computed.
    """
    root = _root(operand)
    return (None, None) if root is None else product_view(operand, lambda node: node is root)


def _root(operand: Node) -> Node | None:
    """The node whose elements are computed; a product rounds them to 16 bits by itself."""
    node = _under_movements(operand)
    if not _is_plain(node):
        return None
    if node.op.name == "convert" and node.dtype in SMALL_FLOATS:
        wide = _under_movements(node.inputs[0])
        if _is_plain(wide) and wide.dtype.compute is wide.dtype and wide.dtype.is_floating_point:
            return wide
    return node if node.dtype.is_floating_point and node.shape else None


def _under_movements(node: Node) -> Node:
    while node.op.kind == MOVEMENT and node.op.name != "concatenate":
        node = node.inputs[0]
    return node


def _is_plain(node: Node) -> bool:
    return node.op.kind == ELEMENTWISE and node.op.name != "copy"


def _is_given(node: Node) -> bool:
    return node.op.kind == LEAF and node.op.name not in ("constant", "iota")


def _computed(root: Node) -> set[Node] | None:
    """All nodes that make the root, down to leaves; None where others than elementwise ones do, or too many."""
    found: set[Node] = set()
    cost, stack = 0, [root]
    while stack:
        node = stack.pop()
        if node in found:
            continue
        moved = node.op.kind == MOVEMENT and node.op.name != "concatenate"
        if not (moved or _is_plain(node) or node.op.kind == LEAF):
            return None
        found.add(node)
        cost += node.op.cost
        if cost > _MOST_COST or len(found) > _MOST_NODES:
            return None
        stack.extend(node.inputs)
    return found


def _elements(node: Node) -> int:
    return math.prod(node.shape)


__all__ = ["made_view", "made_with"]
