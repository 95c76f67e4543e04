"""What the backward pass of a loop keeps of each forward step, and what it computes again.

The choice is that of `compiler/kept.py` for straight programs: elementwise arithmetic that is cheaper than the memory
it would take, made of what is kept anyway, is done again. Slices of the loop's operands are in memory already; so is
what a carry becomes where the carry itself is kept, since the one is the other a step later.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..graph.node import Node
from .body import Body, is_number
from .primitive import ALIAS, ELEMENTWISE, MOVEMENT

#: the most operations an element that are done again rather than kept
_RECOMPUTE = 40


def choose(frontier: Iterable[Node], body: Body, slices: int) -> list[Node]:
    """The values of `body` to be kept, so that all of `frontier` can be computed from them and from constants.

    `slices` of the body's parameters, after the carries, are slices of operands.
    """
    return _Choice(body, slices).run(frontier)


class _Choice:
    def __init__(self, body: Body, slices: int):
        count = len(body.next)
        self.carries = body.parameters[:count]
        self.slices = body.parameters[count : count + slices]
        self.constants = body.parameters[count + slices :]
        self.successor = dict(zip(body.next, self.carries, strict=True))
        self.kept: dict[Node, None] = {}

    def run(self, frontier: Iterable[Node]) -> list[Node]:
        wanted = sorted(_under_movement(frontier).difference(self.constants), key=lambda node: node.serial)
        for node in wanted:
            if not _is_arithmetic(node):
                self.kept[node] = None
        for node in wanted:
            if _is_arithmetic(node):
                leaves = self._leaves(node)
                self.kept.update(dict.fromkeys([node] if leaves is None else leaves))
        return list(self.kept)

    def _is_free(self, node: Node) -> bool:
        """Whether keeping the value takes no memory beyond what is kept already."""
        return node in self.kept or node in self.slices or self.successor.get(node) in self.kept

    def _leaves(self, node: Node) -> list[Node] | None:
        """What `node` is to be computed from again; None if it is better kept."""
        cost, leaves, seen, stack = 0, [], set(), [node]
        while stack:
            current = stack.pop()
            if current in seen or is_number(current) or current in self.constants:
                continue
            seen.add(current)
            if self._is_free(current):
                leaves.append(current)
            elif _is_arithmetic(current) or _is_read_through(current):
                cost += current.op.cost
                stack.extend(current.inputs)
            else:
                return None
            if cost > _RECOMPUTE:
                return None
        return leaves


def _is_arithmetic(node: Node) -> bool:
    return node.op.kind == ELEMENTWISE


def _is_read_through(node: Node) -> bool:
    return (node.op.kind == MOVEMENT and node.op.name != "concatenate") or node.op.kind == ALIAS


def _under_movement(nodes: Iterable[Node]) -> set[Node]:
    """The values that `nodes` move, and the operands of loops among them, which are run again."""
    found: set[Node] = set()
    seen: set[Node] = set()
    stack = list(nodes)
    while stack:
        node = stack.pop()
        if node in seen or is_number(node):
            continue
        seen.add(node)
        if _is_read_through(node) or node.op.name == "scan":
            stack.extend(node.inputs)
        else:
            found.add(node)
    return found
