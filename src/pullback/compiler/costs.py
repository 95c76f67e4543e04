"""What kernels cost, from the graph alone: floating-point operations, and bytes that have to cross memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from ..graph.node import Node
from ..ops.attention import features_compared
from ..ops.convolution import multiplications
from ..ops.primitive import ATTENTION, CONTRACTION, LEAF, MOVEMENT, REDUCTION
from .groups import Group, elements


def operations(node: Node) -> int:
    """Floating-point operations to compute `node` from its inputs: its record's cost, an element of what it goes
    through.
    """
    if node.op.kind in (LEAF, MOVEMENT):
        return 0
    if node.op.name == "convolution":
        return node.op.cost * multiplications(node)
    if node.op.kind == CONTRACTION:
        return node.op.cost * elements(node) * node.inputs[0].shape[-1]
    if node.op.kind == ATTENTION:
        return node.op.cost * features_compared(node)
    through = node.inputs[0] if node.op.kind == REDUCTION else node
    return node.op.cost * elements(through)


def computed(group: Group, in_memory: Callable[[Node], bool]) -> list[Node]:
    """What the kernel of a group computes: its members, and what is computed again for them."""
    found = dict.fromkeys(group.members)
    stack = list(group.members)
    while stack:
        for operand in stack.pop().inputs:
            if operand not in found and not in_memory(operand):
                found[operand] = None
                stack.append(operand)
    return [node for node in found if node.op.kind not in (LEAF, MOVEMENT) or node.op.name == "concatenate"]


def traffic(group: Group, nodes: Iterable[Node], in_memory: Callable[[Node], bool]) -> int:
    """Bytes that a group reads and writes at least, if it reads each element once; `nodes` are what it computes.

    Of a value of which it reads a slice, or the rows that an index names, only that part counts.
    """
    read: dict[Node, int] = {}
    for node in nodes:
        for operand in node.inputs:
            limit = elements(node) if node.op.name == "take" else elements(operand)
            _read(operand, limit, set(nodes), in_memory, read)
    total = sum(min(count, elements(node)) * node.dtype.itemsize for node, count in read.items())
    return total + sum(elements(node) * node.dtype.itemsize for node in group.stored)


def _read(node: Node, limit: int, inside: set[Node], in_memory: Callable[[Node], bool], read: dict[Node, int]) -> None:
    """Enter what reading `limit` elements of `node` reads in memory."""
    while node not in inside:
        limit = min(limit, elements(node))
        if in_memory(node):
            read[node] = read.get(node, 0) + limit
            return
        if len(node.inputs) != 1:
            return  # a number, or an index, which lie nowhere
        node = node.inputs[0]


def weight(node: Node, stored: bool) -> float:
    """About how much of its kernel's time a node takes, in operations: products do _AT_ONCE of them in the time of one,
    since they add to what they have multiplied, in full vectors from registers.
    """
    count = operations(node)
    if node.op.kind in (CONTRACTION, ATTENTION):
        return count / _AT_ONCE
    return count + elements(node) * (3 if stored else 1)


#: measured on two virtual cores of an AMD Zen 4, by kernels of elementwise operations (100 a nanosecond, with what they
#: move): products do 210, attention 170 to 190, convolutions 130
_AT_ONCE = 2
#: operations for which memory moves one byte: a core's share of the bandwidth over its rate in such loops
_PER_BYTE = 0.75


def work(groups: Iterable[Group], in_memory: Collection[Node]) -> float:
    """About how long kernels take one after the other, in operations: for comparing programs of one step."""
    total = 0.0
    for group in groups:
        nodes = computed(group, in_memory.__contains__)
        moved = traffic(group, nodes, in_memory.__contains__)
        total += sum(weight(node, False) for node in nodes) + _PER_BYTE * moved
    return total
