"""Kept: which members of groups are written to memory, and which are computed again by each kernel that reads them.

A member's value stays in registers unless another group needs it. Then it is either written to memory or computed again
there: again if it is elementwise, cheap, and made of at most one large value that is in memory anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..graph.node import Graph, Node
from ..ops.primitive import ELEMENTWISE, LEAF, MOVEMENT, REDUCTION
from .groups import (
    ACROSS,
    AFTER,
    ATTEND,
    CALL,
    COLUMNS,
    CONVOLUTION,
    FULL,
    JOIN,
    LOOP,
    MANY_ROWS,
    PRODUCT,
    PUT,
    RECUR,
    SCATTER,
    STEPS,
    Group,
    elements,
    reads_memory,
    resolve,
    sources,
)
from .made import made_with

#: the movements that a value is read through, from the last one to the first
Way = tuple[Node, "Way"] | None

#: the most operations an element that are done again rather than kept in memory
_RECOMPUTE = 40
#: the same for a value of a column, such as a channel's deviation, that a kernel of many rows would do for each row
_BY_COLUMN = 3
#: the same where the value has one reader alone, so that nothing is done twice
_MOVE = 250
#: the same of a mask or of the choice of dropout, which attention computes where it needs it
_PULLED = 400
#: operations to find out whether an element is padding, and not to read it then
_PAD = 4
#: elements of a row from which on numbers that are computed from it are small beside it
_LONG_ROW = 32


def kept(graph: Graph, groups: Iterable[Group], group_of: Mapping[Node, Group]) -> set[Node]:
    """The nodes of a grouped graph whose values are in memory."""
    return _Memory(graph, groups, group_of).materialized


class _Memory:
    """Which values are written to memory."""

    def __init__(self, graph: Graph, groups: Iterable[Group], group_of: Mapping[Node, Group]):
        self.group_of = group_of
        self.materialized = set(graph.outputs) | {n for n in graph.nodes if n.op.name == "copy"}
        self.readers: dict[Node, set[Group]] = {}
        #: the value itself and what it is moved to, as other groups read it
        self.read_as: dict[Node, set[Node]] = {}
        #: small values that a large kernel reads anew for every element, as those of channels are
        self.by_column: set[Node] = set()
        #: what a kernel finishes and then takes totals of
        self.finished: set[Node] = set()
        #: what products compute on their way, and everybody else who reads it
        self.made: set[Node] = set()
        order = [n for n in graph.nodes if n in self.group_of]
        for node in order:
            group = self.group_of[node]
            for operand in node.inputs:
                if node.op.name == "matmul":
                    self.made |= made_with(operand)
                for source in sources(operand):
                    if group.members[node] in (AFTER, ACROSS) and group.members.get(source, AFTER) != AFTER:
                        self.finished.add(source)
                    if self.group_of[source] is not group:
                        self.readers.setdefault(source, set()).add(group)
                        self.read_as.setdefault(source, set()).add(operand)
                        if elements(node) >= MANY_ROWS * elements(source) and resolve(operand) is None:
                            self.by_column.add(source)
                        if reads_memory(node, operand):
                            self.materialized.add(source)
        self.materialized |= {node for node in order if self._is_always_kept(node)}
        for group in groups:
            self._share_a_root(group)
        for node in order:
            if node in self.readers and not self._computed_again(node):
                self.materialized.add(self._narrowest(node))

    def _is_always_kept(self, node: Node) -> bool:
        """Whether no other kernel can compute `node` on its way, but one has to, or has its result in memory anyway."""
        kind, members = self.group_of[node].kind, self.group_of[node].members
        if kind == SCATTER and members[node] == FULL:  # of a sum with something else that is what there is of it
            return node is [member for member, level in members.items() if level == FULL][-1]
        if node.op.kind == ELEMENTWISE or node.op.name == "scan":
            return False
        if kind in (PRODUCT, CONVOLUTION):
            return node in self.readers or node in self.finished
        return kind in (COLUMNS, ATTEND, SCATTER, PUT, JOIN, CALL, STEPS, RECUR)

    def _narrowest(self, node: Node) -> Node:
        """What `node` was widened from, where that is a member beside it: the smaller of two that hold the same."""
        members = self.group_of[node].members
        while node.op.name == "convert" and node.inputs[0].dtype.itemsize < node.dtype.itemsize:
            if members.get(node.inputs[0]) != members[node]:
                break
            node = node.inputs[0]
        return node

    def _computed_again(self, node: Node) -> bool:
        """Whether the readers of `node` in other groups do better to compute it themselves."""
        if node in self.materialized:
            return False
        if node.op.name == "bounded" or node in self.made:
            return True
        if node in self.by_column and self._cost(node, _BY_COLUMN) is None:
            return False
        is_moved = len(self.readers[node]) == len(self.read_as[node]) == 1 and self._unused_at_home(node)
        limit = _MOVE if is_moved else _RECOMPUTE
        if self._pulled(node):
            limit = _PULLED
        kept: set[Node] = set()
        if self._cost(node, limit, kept) is None:
            return False
        self.materialized |= kept
        return True

    def _share_a_root(self, group: Group) -> None:
        """Where other groups read several members that one member gives cheaply, that one is kept in their place.

        So of gelu(x) + … only x is kept for the backward pass, not each factor of the derivative.
        """
        wanted = [
            n
            for n in group.members
            if n in self.readers and n not in self.materialized and n.op.kind == ELEMENTWISE and not self._pulled(n)
        ]
        # what memory gives cheaply already, as the square of a gradient that is kept, needs no root
        wanted = [n for n in wanted if self._cost(n, _RECOMPUTE) is None]
        if not 2 <= len(wanted) <= 12:
            return
        best, covered = None, max(1, sum(self._cost(n, _RECOMPUTE) is not None for n in wanted))
        for root in reversed(group.members):
            if root in self.materialized or group.members[root] != FULL:
                continue
            self.materialized.add(root)
            count = sum(n is root or self._cost(n, _RECOMPUTE) is not None for n in wanted)
            self.materialized.discard(root)
            if count > covered:
                best, covered = root, count
        if best is not None:
            self.materialized.add(self._narrowest(best))

    def _pulled(self, node: Node) -> bool:
        """Whether attention alone reads the node: it does so element by element, a tile at a time."""
        return all(reader.kind == ATTEND for reader in self.readers[node])

    def _unused_at_home(self, node: Node) -> bool:
        return not any(node in sources(i) for other in self.group_of[node].members for i in other.inputs)

    def _cost(self, node: Node, limit: int, kept: set[Node] | None = None) -> int | None:
        """Operations an element to compute `node` from memory; None above `limit` or where memory lacks something.

        What is read along several ways of moving it, as the value of an element and those beside it, is computed once
        for each of them. Reductions of rows that memory lacks are entered in `kept`, if given: they are small beside
        `node`.
        """
        cost, large = 0, set()
        stack: list[tuple[Node, Way]] = [(node, None)]
        seen: set[tuple[Node, Way]] = set()
        while stack:
            current, way = stack.pop()
            if (current, way) in seen:
                continue
            seen.add((current, way))
            if current.op.kind == LEAF or current in self.materialized:
                if current.op.name not in ("constant", "iota") and elements(current) * 4 > elements(node):
                    large.add(current)
                continue
            if kept is not None and self._is_number_a_row(current, node):
                kept.add(current)
                continue
            passed = current.op.kind in (ELEMENTWISE, MOVEMENT) and current.op.name != "concatenate"
            if not passed and current.op.name != "bounded":
                return None
            cost += _PAD if current.op.name == "pad" else current.op.cost
            if cost > limit or len(seen) > 64:
                return None
            moves = current.op.kind == MOVEMENT and current.op.name != "reshape"
            stack.extend((operand, (current, way) if moves else way) for operand in current.inputs)
        few = 1 if limit == _RECOMPUTE else 4
        return cost if len(large) <= few else None

    def _is_number_a_row(self, node: Node, beside: Node) -> bool:
        """Whether `node` is a reduction of rows, such as a mean: next to no memory `beside` another value."""
        if node.op.kind != REDUCTION or elements(node) * _LONG_ROW > elements(beside):
            return False
        return self.group_of[node].kind == LOOP
