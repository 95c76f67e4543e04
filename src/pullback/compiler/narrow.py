"""Narrow: before → after: float32 values that wait for the backward pass wait in bfloat16, where the user allows that.

The kernel that makes such a value writes it rounded as well, or instead where the forward pass does not read it from
memory. Kernels of the backward pass widen what they read element by element; for those that take it as it lies in
memory, such as products, it is widened right before them. Half the bytes are saved for as long as the value waits, for
two operations an element; what reads it then is off by up to 2⁻⁹ of it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..graph.node import Graph, Node
from ..graph.types import bfloat16, float32
from ..ops.elementwise import convert
from ..ops.primitive import LEAF, grad_mode, source_of
from .groups import CALL, CHECK, FULL, LOOP, PRODUCT, RECUR, STEPS, Fusion, Group, elements, reads_memory, sources
from .rematerialize import Retention, aligned, late_groups
from .schedules import Problem, Step

#: groups that read or write what they do not choose the form of
_RIGID = (CALL, CHECK, STEPS, RECUR)
#: elements from which on rounding a value saves anything worth a kernel's while
_FEWEST = 1024


@dataclass(frozen=True)
class Narrowable:
    """A value that may wait in bfloat16, what it would take to make it again, in operations a byte, and by how many
    bytes memory holds more then at the events from `made` on.
    """

    node: Node
    price: float
    made: int
    changes: np.ndarray

    @property
    def life(self) -> slice:
        """The events at which it is in memory."""
        return slice(self.made, self.made + len(self.changes))


def narrowable(fusion: Fusion, known: Retention) -> list[Narrowable]:
    """The values that may wait for a backward pass in bfloat16; those first that are dearest to make again."""
    timeline, found = known.solver.base, []
    backward = late_groups(fusion)
    late = {number for number, group in enumerate(known.groups) if group in backward}
    for life in timeline.lives:
        node, value = known.nodes[life.value], known.problem.values[life.value]
        wanted = life.value in known.problem.wanted
        if wanted or node.dtype is not float32 or elements(node) < _FEWEST or not value.nbytes:
            continue
        readers = [(event, timeline.events[event]) for event in life.read]
        back = [event for event, number in readers if number in late]
        rigid = [*(known.groups[timeline.events[event]] for event in back), fusion.group_of[node]]
        if not back or timeline.events[life.made] in late or any(group.kind in _RIGID for group in rigid):
            continue
        small = aligned(elements(node) * bfloat16.itemsize)
        changes = np.full(life.end + 1 - life.made, small - value.nbytes)
        early = [event for event, number in readers if number not in late]
        if early:
            changes[: max(early) + 1 - life.made] = small
        for event in back:
            if node in _taken(known.groups[timeline.events[event]]):
                changes[event - life.made] = small
        if changes.min() < 0:
            price = float("inf") if value.work is None else value.work / value.nbytes
            found.append(Narrowable(node, price, life.made, changes))
    return sorted(found, key=lambda one: (-one.price, one.node.serial))


def _taken(group: Group) -> set[Node]:
    """What the kernel of a group takes from memory as it lies there."""
    return {
        source
        for member in group.members
        for operand in member.inputs
        if reads_memory(member, operand)
        for source in sources(operand)
    }


def in_numbers(fusion: Fusion, known: Retention, chosen: Collection[Node]) -> Problem:
    """About the problem that the fusion poses in which the values `chosen` wait in bfloat16, without making it: what
    may be gained by that is known from it in a fraction of the time.
    """
    backward = late_groups(fusion)
    late = [group in backward for group in known.groups]
    problem, number = known.problem, {node: place for place, node in enumerate(known.nodes)}
    made_late = {value for step, is_late in zip(problem.steps, late, strict=True) if is_late for value in step.makes}
    read_wide = {
        value for step, is_late in zip(problem.steps, late, strict=True) if not is_late for value in step.reads
    }
    values, small = list(problem.values), dict[int, int]()
    for node in chosen:
        wide = number[node]
        small[wide] = len(values)
        values.append(values[wide]._replace(nbytes=aligned(elements(node) * bfloat16.itemsize)))
        if wide not in read_wide:
            values[wide] = values[wide]._replace(nbytes=0)

    def instead(reads: Sequence[int]) -> tuple[int, ...]:
        return tuple(dict.fromkeys(small.get(value, value) for value in reads))

    values = [v._replace(needs=instead(v.needs)) if n in made_late else v for n, v in enumerate(values)]
    steps = []
    for step, is_late, group in zip(problem.steps, late, known.groups, strict=True):
        if is_late and not small.keys().isdisjoint(step.reads):
            # what is read as it lies in memory is widened right before
            taken = _taken(group)
            widened = sum(problem.values[v].nbytes for v in step.reads if v in small and known.nodes[v] in taken)
            step = Step(instead(step.reads), step.makes, step.extra + widened)
        steps.append(step._replace(makes=(*step.makes, *(small[v] for v in step.makes if v in small))))
    return replace(problem, steps=steps, values=values)


def narrowed(fusion: Fusion, chosen: Collection[Node]) -> Fusion:
    """The fusion in which the values `chosen` wait for the backward pass in bfloat16."""
    with grad_mode(False):
        return _Narrower(fusion, chosen).run()


class _Narrower:
    def __init__(self, fusion: Fusion, chosen: Collection[Node]):
        self.fusion, self.late, self.chosen = fusion, late_groups(fusion), set(chosen)
        #: the rounded form of each chosen value, of what it has become itself: its operands may be others now, as the
        #: weights are that an update before it has made
        self.small: dict[Node, Node] = {}
        #: values that something but the backward pass reads from memory
        self.read_wide = self._read_wide()
        self.groups: list[Group] = []
        self.group_of: dict[Node, Group] = {}
        self.order: dict[Node, None] = {}
        self.materialized: set[Node] = set()
        #: what became of what is in memory
        self.now: dict[Node, Node] = {}

    def _read_wide(self) -> set[Node]:
        found = {node for node in self.fusion.graph.outputs if node in self.chosen}
        for group in self.fusion.groups:
            if group not in self.late:
                found |= {node for node in self._read_by(group) if node not in group.members}
        return found

    def _read_by(self, group: Group) -> set[Node]:
        """The chosen values that a group's kernel reads, also by way of what it computes anew."""
        found: set[Node] = set()
        seen: set[Node] = set()
        stack = [operand for member in group.members for operand in member.inputs]
        while stack:
            node = stack.pop()
            if node in seen or node in group.members or node.op.kind == LEAF or node.buffer is not None:
                continue
            seen.add(node)
            if node in self.chosen:
                found.add(node)
            elif node not in self.fusion.materialized:
                stack.extend(node.inputs)
        return found

    def run(self) -> Fusion:
        for group in self.fusion.groups:
            wide = self._widened(group) if group in self.late else {}
            self._place(group, wide)
            self._round(group)
        outputs = [node if node.op.kind == LEAF else self.now[node] for node in self.fusion.graph.outputs]
        return Fusion(Graph(list(self.order), outputs), self.groups, self.materialized, self.group_of)

    def _widened(self, group: Group) -> dict[Node, Node]:
        """What a group of the backward pass reads in the place of the chosen values: kernels of their own widen those
        that it takes from memory.
        """
        taken = _taken(group)
        wide: dict[Node, Node] = {}
        for node in sorted(self._read_by(group), key=lambda node: node.serial):
            with source_of(next(iter(group.members))):
                wide[node] = convert(self.small[node], float32)
            self.order[wide[node]] = None
            if node in taken:
                self._add(Group(LOOP, elements(node), None, {wide[node]: FULL}, [wide[node]]))
            else:
                self.group_of.setdefault(wide[node], self.group_of[self.small[node]])
        return wide

    def _place(self, group: Group, wide: dict[Node, Node]) -> None:
        here: dict[Node, Node] = dict(wide)
        members = {self._written(node, group, here): level for node, level in group.members.items()}
        rounded = {node for node in group.stored if node in self.chosen and self._joins(group, node)}
        stored = [here[node] for node in group.stored if node not in rounded or node in self.read_wide]
        self.now.update({node: here[node] for node in group.stored})
        placed = replace(group, members=members, stored=stored, readers=set())
        for node in (node for node in group.stored if node in rounded):
            small = self._rounded(node)
            placed.members[small] = FULL
            placed.stored.append(small)
        self._add(placed)
        for inside in here.values():
            self.group_of.setdefault(inside, placed)

    @staticmethod
    def _joins(group: Group, node: Node) -> bool:
        return group.kind in (LOOP, PRODUCT) and group.members[node] == FULL and elements(node) == group.size

    def _round(self, group: Group) -> None:
        """Have a kernel of its own round what the kernel of `group` cannot."""
        for node in group.stored:
            if node in self.chosen and not self._joins(group, node):
                small = self._rounded(node)
                self._add(Group(LOOP, elements(node), None, {small: FULL}, [small]))

    def _rounded(self, node: Node) -> Node:
        with source_of(node):
            self.small[node] = convert(self.now[node], bfloat16)
        return self._entered(self.small[node])

    def _entered(self, node: Node) -> Node:
        self.order[node] = None
        return node

    def _add(self, group: Group) -> None:
        group.position = len(self.groups)
        self.groups.append(group)
        self.group_of.update(dict.fromkeys(group.members, group))
        self.materialized |= set(group.stored)

    def _written(self, node: Node, group: Group, here: dict[Node, Node]) -> Node:
        """What `node` is to the kernel of `group`."""
        if node.op.kind == LEAF or node.buffer is not None:
            return node
        if node in here:
            return here[node]
        if node not in group.members and node in self.now:
            return self.now[node]
        became = node.with_inputs(tuple(self._written(operand, group, here) for operand in node.inputs))
        here[node] = became
        return self._entered(became)


def chosen_for(values: Sequence[Narrowable], known: Retention, limit: int) -> list[Node]:
    """The dearest of the values to make again by whose rounding memory holds at most `limit` bytes at every event; all
    that help where that is not enough.
    """
    filled = np.array(known.solver.base.bytes)
    chosen: list[Node] = []
    for value in values:
        before = filled[value.life]
        after = before + value.changes
        if np.maximum(after - limit, 0).sum() < np.maximum(before - limit, 0).sum():
            chosen.append(value.node)
            filled[value.life] = after
    return chosen


__all__ = ["Narrowable", "chosen_for", "in_numbers", "narrowable", "narrowed"]
