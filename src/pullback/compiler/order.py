"""Order: before → after: kernels that free more memory than they take run as soon as what they read is there.

Nodes stand in the order in which they were made: all gradients first, then the optimizer's updates, so that every
gradient lives to the end of the backward pass although its update could have had it long before. Here such a reader is
brought forward, with what it needs besides (the optimizer's numbers of this step), to right behind the kernel that
makes the last of its operands. The kernels are the same, and so are the bits.

What holds a kernel back, besides its operands: state is written over its old value, so after whatever reads that; and
after all that may still stop the run (checks, host calls), so that a step is done as a whole or not at all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ..graph.node import Node
from ..ops.primitive import LEAF
from .groups import CALL, CHECK, STEPS, Fusion, Group
from .schedules import Problem

#: what is never brought forward: Python may do anything, checks have their place, loops write over what they begin with
_FIXED = (CALL, CHECK, STEPS)
#: the most kernels that are brought forward for one
_LONGEST = 32
#: what these may take of memory, as a part of what is freed: they are numbers
_SMALL = 1 / 16


@dataclass(frozen=True)
class Constraints:
    """For each step the steps that it must follow although it reads nothing of them."""

    after: Sequence[Collection[int]]
    fixed: Collection[int]


def constraints(fusion: Fusion, written_over: Mapping[Node, Node], early: Collection[Group]) -> Constraints:
    """What holds the groups of a fusion back, where outputs are written over inputs; `early` groups run before all
    others and stop nothing.
    """
    groups = fusion.groups
    fixed = {number for number, group in enumerate(groups) if group.kind in _FIXED}
    stops = [number for number in fixed if groups[number].kind != STEPS and groups[number] not in early]
    checks = {node: number for number, group in enumerate(groups) if group.kind == CHECK for node in group.members}
    readers: dict[Node, set[int]] = {base: set() for base in written_over.values()}
    after: list[set[int]] = []
    for number, group in enumerate(groups):
        passed = _passed(group, fusion)
        # an index that is not checked yet may lead anywhere
        after.append({checks[node] for node in passed if node in checks})
        for base in passed & readers.keys():
            readers[base].add(number)
    for number, group in enumerate(groups):
        bases = [written_over[node] for node in group.stored if node in written_over]
        after[number].update(stops if bases else (), *(readers[base] for base in bases))
        after[number].discard(number)
    return Constraints(after, fixed)


def _passed(group: Group, fusion: Fusion) -> set[Node]:
    """The leaves and the checked indices that the group's kernel reads, also by way of what it computes anew."""
    found: set[Node] = set()
    seen = set(group.members)
    stack = [operand for member in group.members for operand in member.inputs]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.op.kind == LEAF or node.buffer is not None or node.op.name == "bounded":
            found.add(node)
        if node.buffer is None and node not in fusion.materialized:
            stack.extend(node.inputs)
    return found


def forwarded(problem: Problem, held: Constraints) -> list[int]:
    """The steps of a problem in an order in which what frees memory comes early."""
    return _Order(problem, held).run()


class _Order:
    def __init__(self, problem: Problem, held: Constraints):
        self.problem, self.held = problem, held
        steps = problem.steps
        self.maker = {value: number for number, step in enumerate(steps) for value in step.makes}
        #: for each value the steps that have still to read it
        self.waiting: list[set[int]] = [set() for _ in problem.values]
        for number, step in enumerate(steps):
            for value in step.reads:
                self.waiting[value].add(number)
        #: for each step those that must follow it although they read nothing of it
        self.behind: list[list[int]] = [[] for _ in steps]
        for number, before in enumerate(held.after):
            for other in before:
                self.behind[other].append(number)
        self.done = [False] * len(steps)
        self.order: list[int] = []

    def run(self) -> list[int]:
        for number in range(len(self.problem.steps)):
            if not self.done[number]:
                self._do(number)
        return self.order

    def _do(self, number: int) -> None:
        """Run a step, and then whatever it makes worth while to bring forward."""
        self._enter(number)
        queue = deque(self._affected(number))
        while queue:
            chain = self._chain(queue.popleft())
            if chain is not None and self._frees(chain):
                for step in chain:
                    self._enter(step)
                    queue.extend(self._affected(step))

    def _enter(self, step: int) -> None:
        self.done[step] = True
        self.order.append(step)
        for value in self.problem.steps[step].reads:
            self.waiting[value].discard(step)

    def _affected(self, step: int) -> list[int]:
        """Steps that may have become worth bringing forward now that `step` has run."""
        reads, makes, _ = self.problem.steps[step]
        found = {other for value in makes for other in self.waiting[value]}
        for value in reads:
            if len(self.waiting[value]) == 1:  # the last of its readers lets go of it
                found |= self.waiting[value]
        found.update(self.behind[step])
        return sorted(n for n in found if not self.done[n] and n not in self.held.fixed)

    def _chain(self, step: int) -> list[int] | None:
        """What has to run for `step` to run now, in order, itself last; None where it cannot."""
        if self.done[step]:
            return None
        needed: set[int] = set()
        stack = [step]
        while stack:
            current = stack.pop()
            if current in needed:
                continue
            needed.add(current)
            if len(needed) > _LONGEST or current in self.held.fixed:
                return None
            stack += [m for v in self.problem.steps[current].reads if not self.done[m := self.maker[v]]]
        # steps stand in an order in which they can run
        chain = sorted(needed)
        entered: set[int] = set()
        for current in chain:
            if any(not self.done[n] and n not in entered for n in self.held.after[current]):
                return None
            entered.add(current)
        return chain

    def _frees(self, chain: Sequence[int]) -> bool:
        """Whether more is free after these steps than before, with next to nothing taken on the way to the last."""
        steps, values = self.problem.steps, self.problem.values
        inside = set(chain)
        made = {value for step in chain for value in steps[step].makes}
        read = {value for step in chain for value in steps[step].reads}
        gone = {v for v in made | read if v not in self.problem.wanted and self.waiting[v] <= inside}
        taken = sum(values[value].nbytes for value in made - gone)
        freed = sum(values[value].nbytes for value in gone - made)
        besides = sum(values[value].nbytes for step in chain[:-1] for value in steps[step].makes)
        return freed > taken and besides <= _SMALL * freed


__all__ = ["Constraints", "constraints", "forwarded"]
