"""Across: totals over what a kernel finishes piece by piece, as the sum of the squares of a bias's gradient.

The totals of columns, and what is added up by index, are final only where a launch has seen the last of what goes into
them. A total over an elementwise function of them is computed by that launch: from registers as the columns are stored,
or while the rows of a task are in its cache. So nothing is read once more for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ..graph.node import Node
from ..ops.primitive import ELEMENTWISE, LEAF
from .groups import ACROSS, AFTER, Group, elements, sources

#: values on the way from the total to what is finished that are looked at, at most
_MOST_LOOKED_AT = 64


@dataclass
class Behind:
    """What stands between a result `base`, finished by a kernel, and a total of it: `between` are the nodes that are
    made of it element by element, in order, `others` what else these read.
    """

    base: Node
    between: list[Node]
    others: list[Node]
    #: the nodes that were made anew in the places of those between
    made: list[Node] = field(default_factory=list)

    @classmethod
    def of(cls, total: Node, is_finished: Callable[[Node], bool]) -> Behind | None:
        """None where `total` does not go through all elements, or not through those of such a result alone."""
        if len(total["axes"]) != len(total.inputs[0].shape) or total.op.name == "spread":
            return None
        walk = _Walk(is_finished, elements(total.inputs[0]))
        if not walk.leads(total.inputs[0]) or len(walk.bases) != 1 or elements(walk.bases[0]) != walk.size:
            return None
        return cls(walk.bases[0], walk.between, walk.others)

    def again(self, total: Node) -> Node:
        """The total of nodes of its own."""
        new = {self.base: self.base}
        for node in self.between:
            new[node] = node.copy(tuple(new.get(operand, operand) for operand in node.inputs))
            self.made.append(new[node])
        return total.copy((new[total.inputs[0]],))


class _Walk:
    """The way from a total's operand down to what a kernel finishes."""

    def __init__(self, is_finished: Callable[[Node], bool], size: int):
        self.is_finished, self.size = is_finished, size
        self.bases: list[Node] = []
        self.between: list[Node] = []
        self.others: list[Node] = []
        self.known: dict[Node, bool] = {}
        self.looked_at = 0

    def leads(self, node: Node) -> bool:
        """Whether `node` is made of something finished, element by element."""
        if node not in self.known:
            self.known[node] = self._leads(node)
        return self.known[node]

    def _leads(self, node: Node) -> bool:
        if self.is_finished(node):
            self.bases.append(node)
            return True
        plain = node.op.kind == ELEMENTWISE and node.op.name != "copy"
        if (not plain and node.op.name != "reshape") or elements(node) != self.size:
            return False
        self.looked_at += 1
        if self.looked_at > _MOST_LOOKED_AT:
            return False
        inside = [self.leads(operand) for operand in node.inputs]
        if not any(inside):
            return False
        self.between.append(node)
        apart = (operand for operand, leads in zip(node.inputs, inside, strict=True) if not leads)
        self.others += [operand for operand in apart if operand.op.kind != LEAF]
        return True


def finished_for(total: Node, group: Group) -> Node:
    """The member of `group` that its member `total`, which stands across, is made of."""
    stack = list(total.inputs)
    while stack:
        for source in sources(stack.pop()):
            level = group.members.get(source)
            if level == AFTER:
                stack.extend(source.inputs)
            elif level is not None:
                return source
    raise AssertionError(f"{total!r} (made at {total.source}) is of nothing that its kernel finishes")


def totals_across(group: Group) -> dict[Node, list[Node]]:
    """The stored totals of a group by what they are of."""
    found: dict[Node, list[Node]] = {}
    for node in group.stored:
        if group.members[node] == ACROSS:
            found.setdefault(finished_for(node, group), []).append(node)
    return found


__all__ = ["Behind", "finished_for", "totals_across"]
