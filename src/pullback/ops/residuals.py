"""What the backward pass of a loop keeps of each forward step, and what it computes again.

The choice is that of `compiler/kept.py` for straight programs: elementwise arithmetic that is cheaper than the memory
it would take, made of what is kept anyway, is done again. Slices of the loop's operands are in memory already; so is
what a carry becomes where the carry itself is kept, since the one is the other a step later. Of what a checkpointed
call in the body makes only what is read outside of the call is kept; the rest is computed again from what the call
reads.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ..graph.node import Node
from .body import Body, is_number
from .primitive import ALIAS, ELEMENTWISE, HOST, MOVEMENT

#: the most operations an element that are done again rather than kept
_RECOMPUTE = 40


def choose(frontier: Iterable[Node], body: Body, slices: int, again: Collection[Node] = ()) -> list[Node]:
    """The values of `body` to be kept, so that all of `frontier` can be computed from them and from constants.

    `slices` of the body's parameters, after the carries, are slices of operands. None of those `again` is kept.
    """
    return _Choice(body, slices, again).run(frontier)


def inside_calls(body: Body, depth: int, stacked: Iterable[Node]) -> set[Node]:
    """The values that a checkpointed call in the body makes and that nothing outside of it reads: no other step, and
    nobody by whom they are `stacked`. The loop itself stands in `depth` such calls.
    """
    call = {node: node.source.checkpoint[depth : depth + 1] if node.source else () for node in body.values}
    left = {*body.next, *stacked}
    found: set[Node] = set()
    for node in sorted(body.values, key=lambda n: n.serial, reverse=True):
        outside = node in left
        if call[node] and not outside and node.inputs and node.op.kind != HOST and node.op.name not in _RULES:
            found.add(node)
        # what is moved on its way out is what leaves
        left.update(i for i in node.inputs if call.get(i) != call[node] or (outside and _is_read_through(node)))
    return found


#: what has a gradient rule of the user's own, which may refer to the very nodes
_RULES = ("custom", "several", "result")


class _Choice:
    def __init__(self, body: Body, slices: int, again: Collection[Node]):
        self.again = again
        count = len(body.next)
        self.carries = body.parameters[:count]
        self.slices = body.parameters[count : count + slices]
        self.constants = body.parameters[count + slices :]
        self.successor = dict(zip(body.next, self.carries, strict=True))
        self.kept: dict[Node, None] = {}

    def run(self, frontier: Iterable[Node]) -> list[Node]:
        under = _under_movement(self._read_by_calls(frontier))
        wanted = sorted(under.difference(self.constants, self.again), key=lambda node: node.serial)
        for node in wanted:
            if not _is_arithmetic(node):
                self.kept[node] = None
        for node in wanted:
            if _is_arithmetic(node):
                leaves = self._leaves(node)
                self.kept.update(dict.fromkeys([node] if leaves is None else leaves))
        return list(self.kept)

    def _read_by_calls(self, frontier: Iterable[Node]) -> set[Node]:
        """The frontier, with what is read from outside to compute what is not kept in place of that."""
        found: set[Node] = set()
        seen: set[Node] = set()
        stack = list(frontier)
        while stack:
            node = stack.pop()
            if node not in seen:
                seen.add(node)
                if node in self.again or _is_read_through(node):
                    stack.extend(node.inputs)
                else:
                    found.add(node)
        return found

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
