"""Rematerialize: before → after: values that memory has no room for are computed again where they are next needed.

What is computed again is chosen over the groups of a fused graph (`retention` states the problem, `retention.solve`
chooses), and written into it: a group that makes such a value once more stands right before the group that reads it.
The other groups stay as they were fused, and the new ones compute the same expressions by the same kernels, so that
the bits are the same and next to nothing has to be compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import takewhile

from ..graph.node import Graph, Node
from ..ops.primitive import ATTENTION, CONTRACTION, ELEMENTWISE, HOST, LEAF, RECURRENCE, SCAN
from .costs import weight
from .groups import ACROSS, AFTER, CALL, CHECK, COLUMN, FULL, LOOP, PRODUCT, ROW, STEPS, TOTAL, Fusion, Group, elements
from .retention import Solver
from .schedules import Again, Part, Problem, Schedule, Step, Timeline, Value

#: how many steps before its reader a value is looked for a kernel to make it along
_NEAR = 4
#: how the members of a kernel stand that can make other elements of its domain along
_PLAIN = {FULL, TOTAL, COLUMN, AFTER, ACROSS}
#: what is never done again for next to nothing
_PRODUCTS = (ATTENTION, CONTRACTION, RECURRENCE, SCAN)
#: groups that may not run a second time: Python may do anything, and a check has been made
_ONCE = (CALL, CHECK)
#: how a value stands to a product whose tiles it is summed from, or to what it is a total of when that is finished: it
#: costs the product, and is small
_SUMMED = (TOTAL, COLUMN, ACROSS)


@dataclass(eq=False)
class Retention:
    """The problem of what to keep, and which node each of its values is. `columns` are the loops in which a group's
    kernel sums rows; `asked` are the values that the user wants computed again, and `calls` where they were made;
    `products` are those that take a product to make, with what of their work that is.
    """

    problem: Problem
    nodes: list[Node]
    groups: list[Group]
    #: all nodes, each after its operands
    order: Sequence[Node]
    columns: Mapping[Group, tuple[int, ...]] = field(default_factory=dict)
    asked: Sequence[int] = ()
    calls: Calls | None = None
    products: Mapping[int, float] = field(default_factory=dict)

    @cached_property
    def solver(self) -> Solver:
        """What looks for schedules of the problem."""
        return Solver(self.problem)

    def without_products(self) -> Problem:
        """The problem with none of the products computed again."""
        values = [v._replace(work=None) if n in self.products else v for n, v in enumerate(self.problem.values)]
        return replace(self.problem, values=values)

    def with_cheap_products(self) -> Problem:
        """The problem in which products cost a quarter of what they do."""
        values = [
            v if v.work is None else v._replace(work=max(v.work - 0.75 * self.products.get(n, 0.0), 0.0))
            for n, v in enumerate(self.problem.values)
        ]
        return replace(self.problem, values=values)

    def priced(self, schedule: Schedule) -> Schedule:
        """The schedule with the work that this problem says it adds."""
        return replace(schedule, work=sum(self.problem.values[again.value].work or 0.0 for again in schedule.again))

    def forward_work(self) -> float:
        """What it takes to compute once more all that kernels of the forward pass make, slopes included; of a step with
        several updates those of all forward passes.
        """
        after: set[Node] = set()
        for node in self.order:
            if is_backward(node) or any(operand in after for operand in node.inputs):
                after.add(node)
        # what a backward pass goes back through is of a forward pass, though an update may come before it
        later = after & self._before_backward()

        def is_forward(group: Group) -> bool:
            if not group.members.keys() <= after:
                return True
            # the product that makes a gradient may have the update in it
            goes_back = any(is_backward(node) and node.op.kind in _PRODUCTS for node in group.members)
            return not goes_back and not later.isdisjoint(group.members)

        steps = zip(self.groups, self.problem.steps, strict=True)
        made = (value for group, step in steps if is_forward(group) for value in step.makes)
        return sum(self.problem.values[value].work or 0.0 for value in made)

    def _before_backward(self) -> set[Node]:
        """What the backward passes are made of."""
        found: set[Node] = set()
        for node in reversed(self.order):
            if node in found or is_backward(node):
                found.update(node.inputs)
        return found

    def ordered(self, order: Sequence[int]) -> Retention:
        """The same with its steps in another order."""
        steps, groups = [self.problem.steps[number] for number in order], [self.groups[number] for number in order]
        parts = _parts(groups, self.nodes, steps, self.asked, self.calls)
        return replace(self, problem=replace(self.problem, steps=steps, parts=parts), groups=groups)


#: what a user says of a value: that it is kept, that it is computed again; None leaves it to the search
KEEP, RECOMPUTE = "keep", "recompute"
Policy = Callable[[Node], str | None]


def retention(
    fusion: Fusion, extra: Callable[[Group], int], outside: Callable[[Node], bool], policy: Policy | None = None,
    calls: Calls | None = None,
) -> Retention:  # fmt: skip
    """The problem that a fused graph poses.

    `extra` tells the bytes that a group's kernels need besides while they run, `outside` which nodes lie in memory that
    the arena does not hold: they are there throughout. `policy` is asked about each value that may be computed again,
    and `calls` are those of the fusion where they are known.
    """
    nodes = [node for group in fusion.groups for node in group.stored]
    number = {node: place for place, node in enumerate(nodes)}
    starts = {start for group in fusion.groups if group.kind == STEPS for start in _starts(group)}
    apart = {node: place for node, place in number.items() if node not in starts}
    values, steps, products = [], [], {}
    said: dict[int, str | None] = {}
    for node in nodes:
        interior, read = _made_of([node], apart)
        work: float | None = sum(work_of(n, n is node) for n in interior)
        if any(n.op.kind in _PRODUCTS for n in interior):
            products[number[node]] = sum(work_of(n, n is node) for n in interior if n.op.kind in _PRODUCTS)
        group = fusion.group_of[node]
        if group.kind == STEPS:
            work = (work or 0.0) / len(group.stored)  # what a loop makes is mostly wanted together
        once = group.kind in _ONCE or group.members[node] in _SUMMED or any(n.op.kind == HOST for n in interior)
        if once or node in starts or outside(node):
            work = None
        said[number[node]] = policy(node) if policy is not None and work is not None else None
        if said[number[node]] == KEEP:
            work = None
        nbytes = 0 if node in starts or outside(node) else aligned(elements(node) * node.dtype.itemsize)
        values.append(Value(nbytes, work, tuple(read)))
    for group in fusion.groups:
        reads = _made_of(group.members, number)[1]
        makes = tuple(number[node] for node in group.stored)
        steps.append(Step(tuple(n for n in reads if n not in makes), makes, extra(group)))
    wanted = frozenset(number[node] for node in fusion.graph.outputs if node in number)
    asked = [value for value, word in said.items() if word == RECOMPUTE]
    if asked and calls is None:
        calls = Calls.of(fusion)
    parts = _parts(fusion.groups, nodes, steps, asked, calls)
    return Retention(
        Problem(steps, values, wanted, parts), nodes, list(fusion.groups), fusion.graph.nodes, asked=asked, calls=calls,
        products=products,
    )  # fmt: skip


def _starts(loop: Group) -> tuple[Node, ...]:
    """What the carries of a loop begin with. It is computed right into memory of the loop, which the steps write over:
    a loop that is run again is given it anew.
    """
    node = next(iter(loop.members))
    return node.inputs[: len(node["body"].next)]


def is_backward(node: Node) -> bool:
    """Whether the node is part of a gradient."""
    return node.source is not None and node.source.is_backward


def _parts(
    groups: Sequence[Group], nodes: Sequence[Node], steps: Sequence[Step], asked: Sequence[int], calls: Calls | None
) -> list[Part]:
    """The values of the forward pass that the user wants computed again, by where the backward pass first reads one of
    what was made in the same checkpointed call.
    """
    if not asked or calls is None:
        return []
    made: dict[int, int] = {}
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for step, (reads, makes, _) in enumerate(steps):
        made.update(dict.fromkeys(makes, step))
        last.update(dict.fromkeys(makes, step))
        backward = groups[step] in calls.late
        for value in reads:
            if backward:
                first.setdefault(value, step)
            else:
                last[value] = step
    together: dict[object, set[int]] = {}
    for value in asked:
        node = nodes[value]
        if last[value] < first.get(value, 0) and groups[made[value]] not in calls.late:
            together.setdefault(calls.innermost.get(node, node), set()).add(value)
    parts = []
    for call, rest in together.items():
        path = _path(nodes[next(iter(rest))])
        around = frozenset(path[: path.index(call)]) if isinstance(call, int) else frozenset()
        while rest:  # a call in which gradients are taken goes on after the first of them is needed
            start = min(first[value] for value in rest)
            done = frozenset(value for value in rest if last[value] < start)
            parts.append(Part(start, done, call, around))
            rest -= done
    return parts


def late_groups(fusion: Fusion) -> set[Group]:
    """The kernels that belong to a backward pass. One that makes a part of a gradient beside something of the forward
    pass, as the slope of an activation, does not; one that makes an optimizer's update of a gradient does.
    """
    return {
        group
        for group in fusion.groups
        if any(map(is_backward, group.members)) and not any(_is_forward(node, group, fusion) for node in group.members)
    }


def _is_forward(node: Node, group: Group, fusion: Fusion) -> bool:
    """Whether a member of a group is of a forward pass: it is made of no part of a gradient that the same kernel makes.
    What other kernels have made may be, as the weights of a forward pass after an update are.
    """
    if is_backward(node):
        return False
    if _path(node):
        return True
    seen, stack = {node}, [node]
    while stack:
        for operand in stack.pop().inputs:
            elsewhere = operand in fusion.materialized and operand not in group.members
            if elsewhere or operand in seen or operand.op.kind == LEAF or operand.buffer is not None:
                continue
            if is_backward(operand):
                return False
            seen.add(operand)
            stack.append(operand)
    return True


@dataclass
class Calls:
    """The kernels of a backward pass, and the checkpointed call that a value of the forward pass does not leave: the
    innermost such call of each value that has one.
    """

    late: set[Group]
    innermost: dict[Node, int]

    @classmethod
    def of(cls, fusion: Fusion) -> Calls:
        """Those of a fusion."""
        late = late_groups(fusion)
        return cls(late, _innermost(fusion, late))

    def policy(self, node: Node) -> str | None:
        """What the forward pass reads in its own call alone is not kept for the backward pass."""
        return RECOMPUTE if node in self.innermost else None


def checkpointed(fusion: Fusion) -> Calls | None:
    """The checkpointed calls of a fusion; None where there are none."""
    return Calls.of(fusion) if any(map(_path, fusion.graph.nodes)) else None


def _path(node: Node) -> tuple[int, ...]:
    """The checkpointed calls that a node was made in, the outermost first."""
    return node.source.checkpoint if node.source is not None else ()


def _innermost(fusion: Fusion, backward: Collection[Group]) -> dict[Node, int]:
    """For each value of the forward pass the innermost checkpointed call that it does not leave; nothing for one that
    is read outside of all.

    What no kernel stores is read where its readers are: the call's result may be a relu that is computed where the next
    call reads it, and then it is what the relu is made of that leaves the call.
    """
    within: dict[Node, tuple[int, ...]] = {}

    def late(node: Node) -> bool:
        return fusion.group_of[node] in backward if node in fusion.group_of else is_backward(node)

    def read(node: Node, path: tuple[int, ...]) -> None:
        own = within.get(node, _path(node))
        within[node] = own[: sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(own, path, strict=False)))]

    for output in fusion.graph.outputs:
        read(output, ())
    for node in reversed(fusion.graph.nodes):
        if node.buffer is None and not late(node):
            path = _path(node) if node in fusion.materialized else within.get(node, _path(node))
            for operand in node.inputs:
                read(operand, path)
    return {
        node: within.get(node, path)[-1]
        for node in fusion.materialized
        if (path := _path(node)) and within.get(node, path) and not late(node)
    }


def aligned(nbytes: int) -> int:
    """The bytes that a value takes in the arena."""
    return -(-max(nbytes, 1) // 64) * 64


def _made_of(nodes: Iterable[Node], number: Mapping[Node, int]) -> tuple[list[Node], list[int]]:
    """What is computed along with `nodes` to make them from values that are in memory, and the numbers of these."""
    interior: dict[Node, None] = dict.fromkeys(nodes)
    read: dict[int, None] = {}
    stack = list(interior)
    while stack:
        for operand in stack.pop().inputs:
            if operand in number:
                read[number[operand]] = None
            elif operand not in interior and operand.op.kind != LEAF:
                interior[operand] = None
                stack.append(operand)
    return list(interior), list(read)


def work_of(node: Node, stored: bool) -> float:
    """About how long a node takes, in operations; a loop as long as all its turns."""
    if node.op.name == "scan":
        return float(node["length"]) * sum(weight(n, True) for n in set(node["body"].values))
    return weight(node, stored)


@dataclass
class Rematerialized:
    """A fused graph in which values are computed again; `copies` are the nodes that stand again, with the originals."""

    fusion: Fusion
    copies: dict[Node, Node]


class _Writer:
    """Writes a fused graph anew with what a schedule makes again."""

    def __init__(self, fusion: Fusion, known: Retention, again: Sequence[Again]):
        self.fusion, self.known = fusion, known
        self.value_of = {node: place for place, node in enumerate(known.nodes)}
        self.step_of = {member: step for step, group in enumerate(known.groups) for member in group.members}
        #: what is made again right before each step, in order
        self.lists: dict[int, list[Node]] = {}
        for step, value in again:
            self.lists.setdefault(step, []).append(known.nodes[value])
        #: steps that are put off: nobody reads what they make before it is made again
        self.idle = self._put_off(Schedule(tuple(again), 0, 0.0).before())
        #: what is made by itself for the first time where it is made again
        self.later = {groups[0] for step in self.idle if len(groups := known.groups[step].stored) == 1}
        #: the nodes in order; a set that keeps it
        self.order = {n: None for n in fusion.graph.nodes if n.op.kind == LEAF or n.buffer is not None}
        self.groups: list[Group] = []
        self.group_of: dict[Node, Group] = {}
        self.materialized = self.order.keys() & fusion.materialized
        #: the node that is each value at the moment, and what each node is to the kernel being written
        self.now: dict[Node, Node] = {}
        self.here: dict[Node, Node] = {}
        self.copies: dict[Node, Node] = {}

    def _put_off(self, before: dict[int, list[int]]) -> set[int]:
        """The steps of which all results are made again before anybody reads them."""
        problem, found = self.known.problem, set()
        timeline = Timeline(problem, before)
        read = {(life.value, life.made) for life in timeline.lives if life.read}
        for event, step in enumerate(timeline.events):
            if step < 0 or not (makes := problem.steps[step].makes):
                continue
            group = self.known.groups[step]
            looks = len(makes) > 1 and any(node.op.name == "bounded" for node in group.members)
            can = not looks and group.kind not in _ONCE and all(problem.values[v].work is not None for v in makes)
            if can and not any((value, event) in read for value in makes):
                found.add(step)
        return found

    def write(self) -> Rematerialized:
        self._join_readers()
        for step, group in enumerate(self.known.groups):
            for nodes in self._in_one_go(self.lists.get(step, ())):
                alone = self._alone(nodes[0])
                if alone.kind == STEPS:
                    for start in _starts(alone):
                        self._group(self._alone(start), (start,), again=True)
                self._group(alone, nodes, again=self._is_again(nodes[0]))
            if step not in self.idle:
                self._group(group, group.stored, again=False, along=self.joined.get(step, ()))
        outputs = [node if node.op.kind == LEAF else self.now[node] for node in self.fusion.graph.outputs]
        graph = Graph(list(self.order), outputs)
        return Rematerialized(Fusion(graph, self.groups, self.materialized, self.group_of), self.copies)

    def _is_again(self, node: Node) -> bool:
        """Whether a value that is made now was made before."""
        is_later = node in self.later
        self.later.discard(node)
        return not is_later

    def _join_readers(self) -> None:
        """Have what is cheap made again by a kernel that reads, shortly before, all that it is made of: as the gradient
        of an activation reads what the activation is of.
        """
        #: by step what the group's own kernel makes again
        self.joined: dict[int, list[Node]] = {}
        for step, nodes in self.lists.items():
            for node in list(nodes):
                reader = self._reader(node, step)
                if reader is not None:
                    self.joined.setdefault(reader, []).append(node)
                    nodes.remove(node)

    def _reader(self, node: Node, step: int) -> int | None:
        """The step, not long before `step`, whose kernel can make `node` again element by element on its way."""
        alone = self._alone(node)
        if alone.kind != LOOP or set(alone.members.values()) != {FULL} or elements(node) != alone.size:
            return None
        needs = self.known.problem.values[self.value_of[node]].needs
        large = {value for value in needs if elements(self.known.nodes[value]) == alone.size}
        changing = {*needs, self.value_of[node]}
        for before in range(step - 1, max(step - 1 - _NEAR, -1), -1):
            again = self.lists.get(before + 1, [])
            earlier = again[: again.index(node)] if before + 1 == step else again
            if changing & {self.value_of[n] for n in earlier}:
                return None
            group, (reads, makes, _) = self.known.groups[before], self.known.problem.steps[before]
            if changing & set(makes):
                return None
            if before in self.idle:
                continue
            plain = group.kind in (PRODUCT, LOOP) and group.row is None and set(group.members.values()) <= _PLAIN
            if plain and group.size == alone.size and large and large <= set(reads):
                return before
        return None

    def _in_one_go(self, nodes: Sequence[Node]) -> list[list[Node]]:
        """Values that are made again right before one step, those of one loop together: it makes all that it is made
        of anyway, and at the first of them everything is there that it needs.
        """
        found: dict[object, list[Node]] = {}
        for node in nodes:
            step = self.step_of[node]
            found.setdefault(step if self.known.groups[step].kind == STEPS else node, []).append(node)
        return list(found.values())

    def _alone(self, node: Node) -> Group:
        """The part of a group that computes one value from what is in memory; a loop as a whole, whose body then
        computes the same.
        """
        group = self.known.groups[self.step_of[node]]
        if group.kind == STEPS:
            return group
        needed = {n for n in _made_of([node], self.value_of)[0] if n in group.members}
        members = {member: level for member, level in group.members.items() if member in needed}
        kind = group.kind if any(n.op.kind != ELEMENTWISE for n in members) else LOOP
        row = group.row if ROW in members.values() else None
        columns = self.known.columns.get(group, ()) if row else ()
        return replace(group, kind=kind, members=members, row=row, columns=columns, stored=[node], readers=set())

    def _group(self, group: Group, stored: Sequence[Node], again: bool, along: Sequence[Node] = ()) -> None:
        self.here = {}
        members = {self._written(node, group, again): level for node, level in group.members.items()}
        for node in along:
            alone, anew = self._alone(node), self._is_again(node)
            members.update({self._written(member, alone, anew): FULL for member in alone.members})
        if along:  # the kernel's own members may read what those along are made of, which then stands before them
            members = {node: members[node] for node in self.here.values() if node in members}
        stored = [*stored, *along]
        made = [self.here[node] for node in stored]
        placed = group  # the same where all is the same: its kernels need not be emitted anew
        if list(members) != list(group.members) or made != group.stored:
            placed = replace(group, members=members, stored=made, readers=set(), position=len(self.groups))
        self.groups.append(placed)
        self.group_of.update(dict.fromkeys(members, placed))
        for inside in self.here.values():  # what no kernel stores is computed by each that reads it
            self.group_of.setdefault(inside, placed)
        self.materialized |= set(made)
        self.now.update(zip(stored, made, strict=True))

    def _written(self, node: Node, group: Group, again: bool) -> Node:
        """What `node` is to the kernel of `group`: what is in memory of it, or the node on what its operands are."""
        if node.op.kind == LEAF or node.buffer is not None:
            return node
        if node in self.here:
            return self.here[node]
        if node not in group.members:
            if node in self.value_of:
                return self.now[node]
            if again and node.op.name == "bounded":
                return self._written(node.inputs[0], group, again)  # it was checked when it was first read
        inputs = tuple(self._written(operand, group, again) for operand in node.inputs)
        became = node.copy(inputs) if again or inputs != node.inputs else node
        if again:
            self.copies[became] = node
        self.here[node] = became
        self.order[became] = None
        return became


def rematerialize(fusion: Fusion, known: Retention, again: Sequence[Again]) -> Rematerialized:
    """The fused graph with what a schedule makes again."""
    return _Writer(fusion, known, again).write()
