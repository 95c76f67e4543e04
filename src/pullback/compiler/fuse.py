"""Fuse: which nodes are computed together by one kernel.

Nodes join the group (see `groups`) of the operand that is computed last; so a group needs nothing but what groups
before it have made, and the order of groups is an order of execution.

A reduction of all that a matrix product or a convolution computes, or of its columns, joins it: it is summed while a
tile is in the cache. So is the spread of a convolution's channels (see `spread`). A reduction of all that is reduced by
columns, or scattered, joins the kernel that finishes it (see `across`). Other reductions that are long are cut in two
(see `cut`), which makes new nodes.

Movement nodes belong to no group: a kernel reads through them by computing other addresses.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence

from ..graph.node import Graph, Node, ancestors, enter, exact
from ..ops.convolution import is_by_windows
from ..ops.primitive import ATTENTION, ELEMENTWISE, LEAF, MOVEMENT, RECURRENCE, REDUCTION, grad_mode, source_of
from .across import Behind
from .cut import cut
from .groups import (
    ACROSS,
    AFTER,
    ATTEND,
    CALL,
    CHECK,
    COLUMN,
    COLUMNS,
    CONVOLUTION,
    FULL,
    JOIN,
    JOINED,
    LOOP,
    MANY_ROWS,
    PRODUCT,
    PUT,
    RECUR,
    ROW,
    SCATTER,
    STEPS,
    TOTAL,
    Fusion,
    Group,
    elements,
    is_real,
    part_run,
    resolve,
    sources,
    unfilled,
)
from .kept import kept
from .spread import distances_from_mean

#: members of one kernel: more would take long to compile and run out of registers
_MOST_MEMBERS = 96
#: operations an element of one kernel
_MOST_COST = 320
#: reductions of columns that one kernel does: each takes four registers
_MOST_COLUMNS = 3
#: how many of the last groups are looked at for one that a reduction of columns can join
_NEAR = 64
#: nodes that may stand one behind the other in a kernel
_DEEPEST = 48
#: elements in a row of the parts of a joined member, so that they are written by whole vectors
_SHORTEST_PART = 16


class _Fuser:
    def __init__(self, graph: Graph):
        self.graph = graph
        self.groups: list[Group] = []
        self.group_of: dict[Node, Group] = {}
        #: for each node how many nodes of its own group, and movements, stand one behind the other to compute it
        self.depth: dict[Node, int] = {}
        #: scatters that one node alone reads
        self.read_once: set[Node] = set()
        #: the group of each family of attention: nodes of the same operands, computed by one kernel
        self.attention: dict[Hashable, Group] = {}
        #: where nodes are to stand that are made to be computed behind a result
        self.behind: dict[Node, tuple[Group, str]] = {}
        #: what the graph's outputs have become
        self.outputs: set[Node] = set()
        #: reductions that have several readers, or are outputs themselves
        self.read_again: set[Node] = set()

    def run(self) -> Graph:
        """Place all nodes; returns the graph of what they have become."""
        order: list[Node] = []
        entered: set[Node] = set()
        new: dict[Node, Node] = {}
        users = self.graph.users()
        outputs = set(self.graph.outputs)
        with grad_mode(False):
            for node in _numbers_first(self.graph.nodes):
                current = node if node.buffer is not None else node.with_inputs(tuple(new[i] for i in node.inputs))
                if current.op.kind == REDUCTION:
                    with source_of(node):
                        current = self._reduction(current)
                if current.op.name == "scatter_add" and len(users[node]) == 1 and node not in outputs:
                    self.read_once.add(current)
                if current.op.kind == REDUCTION and (len(users[node]) > 1 or node in outputs):
                    self.read_again.add(current)
                placed = len(order)
                enter(current, order, entered)
                for made in order[placed:]:
                    self._place(made)
                new[node] = current
                if node in outputs:
                    self.outputs.add(current)
        return self._needed(Graph(order, [new[node] for node in self.graph.outputs]))

    def _needed(self, graph: Graph) -> Graph:
        """Without what nodes have been made in the place of."""
        needed = ancestors(graph.outputs)
        for group in self.groups:
            group.members = {node: level for node, level in group.members.items() if node in needed}
        return Graph([node for node in graph.nodes if node in needed], graph.outputs)

    def _reduction(self, node: Node) -> Node:
        """A reduction in the form in which it joins what computes its operand, or in as many steps as it wants."""
        distances = distances_from_mean(node)
        if distances is not None and self._is_summed(distances.total):
            taken = distances.spread()
            if self._tiles_level(taken):
                return taken
        if self._tiles_level(node):
            return node
        return self._across(node) or cut(node, self._row_behind(node))

    def _across(self, node: Node) -> Node | None:
        """A total of what a kernel finishes, on nodes of its own, so that it is computed there; None for others, and
        where another kernel writes a node between: it takes the total as well.
        """
        found = Behind.of(node, self._is_finished)
        if found is None or not self.outputs.isdisjoint(found.between):
            return None
        group = self.group_of[found.base]
        others = [self.group_of[source] for operand in found.others for source in sources(operand)]
        if any(other.position >= group.position for other in others):
            return None
        total = found.again(node)
        if not self._has_room(group, sum(n.op.cost for n in (*found.made, total)), len(found.made) + 1):
            return None
        self.behind.update({made: (group, AFTER) for made in found.made if is_real(made)})
        self.behind[total] = group, ACROSS
        return total

    def _is_finished(self, node: Node) -> bool:
        """Whether a kernel finishes `node` piece by piece, so that totals of it can be taken there."""
        group = self.group_of.get(node)
        if group is None or node.op.name == "spread":
            return False
        if group.kind in (PRODUCT, CONVOLUTION):
            return group.members[node] == COLUMN
        if group.kind == SCATTER:
            return node is [member for member, level in group.members.items() if level == FULL][-1]
        if group.kind == LOOP:  # what is read by the total alone, as the losses of rows are, is not written for it
            return group.members[node] == ROW and node in self.read_again
        return group.kind == COLUMNS and group.members[node] == FULL

    def _row_behind(self, node: Node) -> int | None:
        """The rows that the kernel which makes the operand of a total goes through, so that it can join that."""
        operand, group, found = node.inputs[0], self._latest(node), resolve(node.inputs[0])
        if group is None or group.kind != LOOP or found is None or found[1] != 1:
            return None
        whole = len(node["axes"]) == len(operand.shape) and elements(operand) == group.size
        return group.row if whole and group.members.get(found[0]) == FULL else None

    def _is_summed(self, total: Node) -> bool:
        """Whether a convolution gives the sums of its channels `total` on its way."""
        group = self.group_of.get(total)
        return group is not None and group.kind == CONVOLUTION and group.members[total] == COLUMN

    def _place(self, node: Node) -> None:
        if not is_real(node):
            return
        if node in self.behind:
            self._join(node, *self.behind[node])
        elif (scattered := self._scattered_onto(node)) is not None:
            self._place_sum(node, scattered)
        elif node.op.name == "copy" and not node.shape:
            self._open(LOOP, node)  # so that what follows it is computed apart from what it is reduced from
        elif node.op.kind == ELEMENTWISE:
            self._place_elementwise(node, list(node.inputs))
        elif node.op.name == "take":
            self._place_elementwise(node, [])
        elif node.op.kind == REDUCTION:
            self._place_reduction(node)
        elif node.op.kind == ATTENTION:
            self._place_attention(node)
        elif node.op.kind == RECURRENCE:
            self._open(RECUR, node)
        elif node.op.name == "part":
            self._join(node, self.group_of[node.inputs[0]], FULL)
        elif node.op.name == "concatenate":
            self._place_concatenate(node)
        else:
            kinds = {
                "matmul": PRODUCT, "scatter_add": SCATTER, "put": PUT, "bounded": CHECK, "host_call": CALL,
                "convolution": CONVOLUTION, "scan": STEPS,
            }  # fmt: skip
            self._open(kinds[node.op.name], node)

    # ---- which group a node goes to

    def _operand_groups(self, node: Node) -> list[Group]:
        return [self.group_of[s] for operand in node.inputs for s in sources(operand)]

    def _latest(self, node: Node) -> Group | None:
        return max(self._operand_groups(node), key=lambda g: g.position, default=None)

    def _open(self, kind: str, node: Node, row: int | None = None, level: str = FULL) -> None:
        size = elements(node if level == FULL else unfilled(node))
        group = Group(kind, size, row, position=len(self.groups))
        self.groups.append(group)
        self._join(node, group, level)

    def _has_room(self, group: Group, cost: int, members: int = 1) -> bool:
        """Whether the group can take more without its kernel growing too long to compile."""
        return len(group.members) + members <= _MOST_MEMBERS and group.cost + cost <= _MOST_COST

    def _depth_in(self, node: Node, group: Group) -> int:
        """How deep computing `node` would go as a member of `group`."""
        deepest = 0
        for operand in node.inputs:
            steps = 1
            while not is_real(operand) and operand.inputs:
                operand, steps = operand.inputs[0], steps + 1
            inside = self.group_of.get(operand) is group
            deepest = max(deepest, steps + (self.depth[operand] if inside else 0))
        return deepest

    def _join(self, node: Node, group: Group, level: str) -> None:
        self.depth[node] = self._depth_in(node, group)
        group.members[node] = level
        group.cost += node.op.cost
        self.group_of[node] = group
        for other in self._operand_groups(node):
            if other is not group:
                other.readers.add(group)

    def _place_elementwise(self, node: Node, operands: list[Node]) -> None:
        group = self._latest(node)
        if group is not None:
            level = self._level(node, operands, group)
            if level is not None and self._merge(node, group):
                level = self._level(node, operands, group)
            small = self._has_room(group, node.op.cost) and self._depth_in(node, group) < _DEEPEST
            if level is not None and small:
                self._join(node, group, level)
                return
        self._open(LOOP, node)

    def _merge(self, node: Node, group: Group) -> bool:
        """Take earlier groups that `node` also reads into `group`, where nothing in between needs them; whether there
        were any.
        """
        before = len(group.members)
        if group.kind == LOOP:
            for other in dict.fromkeys(self._operand_groups(node)):  # in an order that is the same in every process
                if (
                    other is not group
                    and other.kind == LOOP
                    and other.size == group.size
                    and (other.row is None or group.row is None or other.row == group.row)
                    and all(reader.position >= group.position for reader in other.readers)
                    and self._has_room(group, other.cost, len(other.members))
                    and self._reads_alike(group, other)
                    and _rows_fit((group.members | other.members).items(), group.size, group.row or other.row)
                ):
                    self._take_in(group, other)
        return len(group.members) > before

    def _reads_alike(self, group: Group, other: Group) -> bool:
        """Whether every reading of `other` by `group` is element for element or row for row."""
        row = group.row or other.row
        for node in group.members:
            for operand in node.inputs:
                if any(self.group_of[s] is other for s in sources(operand)):
                    found = resolve(operand)
                    if found is None or other.members[found[0]] in (JOINED, ACROSS):
                        return False
                    if found[1] != (1 if other.members[found[0]] == FULL else row or 1):
                        return False
        return True

    def _take_in(self, group: Group, other: Group) -> None:
        group.row = group.row or other.row
        group.members = {**other.members, **group.members}
        group.cost += other.cost
        for node in other.members:
            self.group_of[node] = group
        for node in other.members:
            for read in self._operand_groups(node):
                read.readers = {group if reader is other else reader for reader in read.readers} - {read}
        group.readers = (group.readers | other.readers) - {group, other}
        other.members = {}

    def _level(self, node: Node, operands: list[Node], group: Group) -> str | None:
        """How `node` would stand in `group` ("full" or "row"), or None where it cannot be computed there."""
        if group.kind not in (LOOP, PRODUCT, CONVOLUTION):
            return None
        size = elements(node)
        if size == group.size:
            level = FULL
        elif group.row is not None and size == group.rows:
            level = ROW
        else:
            return None
        direct = {s for operand in operands for s in sources(operand) if self.group_of[s] is group}
        if any(self.group_of[s] is group and s not in direct for o in node.inputs for s in sources(o)):
            return None
        for operand in operands:
            inside = [s for s in sources(operand) if self.group_of[s] is group]
            if inside:
                found = resolve(operand)
                if found is None:
                    return None
                stands = group.members[found[0]]
                wanted = 1 if stands == level else (group.row or 0) if stands == ROW else 0
                if found[1] != wanted:
                    return None
        return level

    def _scattered_onto(self, node: Node) -> Node | None:
        """The scatter that `node` alone reads, to add it to something of its shape."""
        if node.op.name != "add" or node.inputs[0] is node.inputs[1]:
            return None
        found = [operand for operand in node.inputs if operand in self.read_once]
        same = all(operand.shape == node.shape for operand in node.inputs)
        return found[-1] if found and same else None

    def _place_sum(self, node: Node, scattered: Node) -> None:
        """With the scatter, which then begins with the other operand and not with zeros: so the gradient of a tied
        embedding is added to that of the output layer where this lies, a row after the other.
        """
        before = self.group_of[scattered]
        before.members = {}
        for read in self._operand_groups(scattered):
            read.readers.discard(before)
        self._open(SCATTER, scattered)
        self._join(node, self.groups[-1], FULL)

    def _place_attention(self, node: Node) -> None:
        """With the nodes of the same operands and options, which are all there when the first of them is placed."""
        options = (exact(value) for name, value in sorted(node.attributes.items()) if name != "axes")
        key = (node.inputs, *options)
        if key in self.attention:
            self._join(node, self.attention[key], FULL)
        else:
            self._open(ATTEND, node)
            self.attention[key] = self.groups[-1]

    def _place_concatenate(self, node: Node) -> None:
        """With the kernel that computes all its parts, which then writes them to their places, or by itself."""
        group = self._latest(node)
        if group is not None and self._computes_parts(group, node):
            self._join(node, group, JOINED)
        else:
            self._open(JOIN, node)

    def _computes_parts(self, group: Group, node: Node) -> bool:
        """Whether each part of a concatenation is computed by `group`, element for element, in rows worth a vector."""
        run = part_run(node)
        if group.kind != LOOP or group.row is not None or run < _SHORTEST_PART or not self._has_room(group, 0):
            return False
        if any(level == JOINED and part_run(other) != run for other, level in group.members.items()):
            return False
        for part in node.inputs:
            found = resolve(part)
            if found is None or found[1] != 1 or self.group_of.get(found[0]) is not group:
                return False
            if group.members[found[0]] != FULL or elements(part) != group.size:
                return False
        return True

    def _tiles_level(self, node: Node) -> str | None:
        """How a reduction stands in the product or convolution whose tiles hold what it goes through; None where there
        is none.
        """
        operand, axes = node.inputs[0], node["axes"]
        group, found = self._latest(node), resolve(operand)
        if group is None or group.kind not in (PRODUCT, CONVOLUTION) or not self._has_room(group, 1):
            return None
        if found is None or found[1] != 1 or elements(operand) != group.size:
            return None
        if group.members.get(found[0]) != FULL:
            return None
        if len(axes) == len(operand.shape):
            return TOTAL
        product = next(iter(group.members))
        if axes != tuple(range(len(axes))):
            return None
        if group.kind == CONVOLUTION:
            places, channels = math.prod(product.shape[1:-2]), math.prod(product.shape[-2:])
            return COLUMN if elements(node) == channels and places >= MANY_ROWS and not is_by_windows(product) else None
        whole = elements(node) == product.shape[-1]
        return COLUMN if whole and _rows_of_an_item(product) >= MANY_ROWS else None

    def _place_reduction(self, node: Node) -> None:
        level = self._tiles_level(node)
        if level is not None:
            self._join(node, self.group_of[sources(node.inputs[0])[0]], level)
            return
        operand = node.inputs[0]
        rank = len(operand.shape)
        if node["axes"][-1] != rank - 1:
            self._place_columns(node)
            return
        row = math.prod(operand.shape[a] for a in node["axes"])
        operand, group = unfilled(node), self._latest(node)
        if group is not None and group.kind == LOOP and group.row in (None, row) and self._has_room(group, 1):
            found = resolve(operand)
            if (
                found is not None
                and found[1] == 1
                and group.members.get(found[0]) == FULL
                and elements(operand) == group.size
                and _rows_fit(group.members.items(), group.size, row)
            ):
                group.row = row
                self._join(node, group, ROW)
                return
        self._open(LOOP, node, row, ROW)

    def _place_columns(self, node: Node) -> None:
        """With a reduction that goes through something of the same, or alone.

        So the gradients by gain and bias of a normalization come out of one pass over the cotangent.
        """
        operand, read = node.inputs[0], _read_by(node)
        before = max((g.position for g in self._operand_groups(node)), default=-1)
        for group in self.groups[max(before + 1, len(self.groups) - _NEAR) :]:
            if group.kind != COLUMNS:
                continue
            members = [member for member, level in group.members.items() if level == FULL]
            if not 0 < len(members) < _MOST_COLUMNS:
                continue
            other = members[0]
            alike = other.inputs[0].shape == operand.shape and other["axes"] == node["axes"]
            if alike and other.dtype is node.dtype and any(read & _read_by(member) for member in members):
                self._join(node, group, FULL)
                return
        self._open(COLUMNS, node)


def _rows_fit(members: Iterable[tuple[Node, str]], size: int, row: int | None) -> bool:
    """Whether the members that join parts can do it where rows are gone over: a vector must not leave a part."""
    runs = {part_run(node) for node, level in members if level == JOINED}
    return row is None or not runs or (size % row == 0 and all(row % run == 0 or run % row == 0 for run in runs))


def _numbers_first(nodes: Sequence[Node]) -> list[Node]:
    """The nodes in an order in which numbers that are made of numbers from outside alone, such as a learning rate in
    another dtype, come before all else: what reads one beside larger values can then join the kernel that makes these.
    """
    numbers: set[Node] = set()
    for node in nodes:
        if node.shape == () and (
            node.op.kind == LEAF or (node.op.kind == ELEMENTWISE and numbers.issuperset(node.inputs))
        ):
            numbers.add(node)
    return [*(node for node in nodes if node in numbers), *(node for node in nodes if node not in numbers)]


def _rows_of_an_item(product: Node) -> int:
    """Rows that are multiplied by the same matrix: those of all items of a batch where it is one for all."""
    *batch, rows, _ = product.shape
    matrix = product.inputs[1]
    while matrix.op.kind == MOVEMENT:
        matrix = matrix.inputs[0]
    items = math.prod(batch)
    return rows * items if elements(matrix) * items == elements(product.inputs[1]) else rows


def _read_by(reduction: Node) -> set[Node]:
    """The values of its operand's size that a reduction's kernel may come to read, or to compute on the way."""
    size = elements(reduction.inputs[0])
    found: set[Node] = set()
    seen: set[Node] = set()
    stack = list(reduction.inputs)
    while stack and len(seen) < 64:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if elements(node) == size:
            found.add(node)
        if node.op.kind in (ELEMENTWISE, MOVEMENT) and node.op.name != "concatenate":
            stack.extend(node.inputs)
    return found


def fuse(graph: Graph) -> Fusion:
    """The groups of `graph`'s nodes in order, and the values in memory."""
    fuser = _Fuser(graph)
    graph = fuser.run()
    materialized = kept(graph, fuser.groups, fuser.group_of)
    groups = []
    for group in fuser.groups:
        group.stored = [node for node in group.members if node in materialized]
        if group.stored or group.kind in (CHECK, CALL):
            groups.append(group)
    return Fusion(graph, groups, materialized, fuser.group_of)
