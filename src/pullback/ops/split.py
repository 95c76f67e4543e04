"""What of a loop's body need not wait for the step before: products of slices, and products of what is stacked.

The product of a slice with a weight, as of a recurrent layer's input, is computed for all steps at once before the
loop; so is a check of a slice's indices. A product that only an output needs is computed for all steps at once after
it. Both are one long product in place of many short ones, and so are their gradients.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..graph.node import Node, ancestors
from .batching import batched, can_batch
from .primitive import source_of


class Split:
    """A recorded body, parted into what comes before the loop, within it (`slices`, `stacked`) and after it.

    `slices` are the body's own and the values computed before, `operands` what the loop reads them from; `stacked` are
    the values to be stacked, from which `after` makes the outputs.
    """

    def __init__(
        self,
        carries: Sequence[Node],
        slices: Sequence[Node],
        operands: Sequence[Node],
        next_: Sequence[Node],
        outputs: Sequence[Node],
        length: int,
    ):
        self.length, self.outputs = length, outputs
        self.slices, self.operands = list(slices), list(operands)
        first = min((node.serial for node in [*carries, *slices]), default=0)
        found = ancestors([*next_, *outputs])
        self.nodes = sorted((n for n in found if n.serial >= first and n.buffer is None), key=lambda n: n.serial)
        #: values for all steps at once, outside of the loop
        self.outside: dict[Node, Node] = dict(zip(slices, operands, strict=True))
        self._before(set(carries), next_)
        self._find_after(set(carries), next_)

    # ---- before the loop

    def _before(self, carries: set[Node], next_: Sequence[Node]) -> None:
        early, triggered = self._early(carries)
        needed = ancestors(triggered) & early
        for node in self.nodes:
            if node in needed and node not in self.outside:
                self._batch(node)
        asked = {i for node in self.nodes if node not in needed for i in node.inputs} | {*next_, *self.outputs}
        for node in self.nodes:
            if node in needed and node in asked and node not in self.slices:
                self.slices.append(node)
                self.operands.append(self.outside[node])

    def _early(self, carries: set[Node]) -> tuple[set[Node], set[Node]]:
        """The nodes that depend on slices alone, and those among them that are worth computing before the loop."""
        early = set(self.outside)
        late: set[Node] = set(carries)
        triggered: set[Node] = set()
        for node in self.nodes:
            if node in early or not any(i in early or i in late for i in node.inputs):
                continue
            varying = [i in early for i in node.inputs]
            if any(i in late for i in node.inputs) or not can_batch(node, varying):
                late.add(node)
                continue
            early.add(node)
            before = [i for i in node.inputs if i in triggered]
            if node.op.name in ("matmul", "bounded") or (before and _size(node) <= max(map(_size, before))):
                triggered.add(node)
        return early, triggered

    def _batch(self, node: Node) -> None:
        varying = [i in self.outside for i in node.inputs]
        operands = [self.outside.get(i, i) for i in node.inputs]
        with source_of(node, steps=self.length):
            self.outside[node] = batched(node, operands, varying, self.length)

    # ---- after the loop

    def _find_after(self, carries: set[Node], next_: Sequence[Node]) -> None:
        """The outputs' products and what follows them, and what they are to be computed from."""
        within = ancestors(next_)
        inside = {*carries, *self.slices}
        self.late: set[Node] = set()
        for node in self.nodes:
            if node in inside or not any(i in inside for i in node.inputs):
                continue
            inside.add(node)
            varying = [i in inside for i in node.inputs]
            product = node.op.name == "matmul" or any(i in self.late for i in node.inputs)
            if node not in within and product and can_batch(node, varying):
                self.late.add(node)
        self._withdraw()
        wanted = {o for o in self.outputs if o not in self.late}
        wanted |= {i for node in self.late for i in node.inputs if i in inside and i not in self.late}
        self.stacked = [node for node in [*self.outputs, *sorted(wanted, key=lambda n: n.serial)] if node in wanted]
        self.stacked = list(dict.fromkeys(self.stacked))

    def _withdraw(self) -> None:
        """What something within the loop reads is computed there."""
        for node in reversed(self.nodes):
            if node not in self.late:
                self.late.difference_update(node.inputs)

    def after(self, stacks: Sequence[Node]) -> list[Node]:
        """The outputs for all steps, given the stacks of `stacked`."""
        found = dict(zip(self.stacked, stacks, strict=True))
        self.outside.update(found)
        for node in self.nodes:
            if node in self.late:
                self._batch(node)
        return [self.outside[output] for output in self.outputs]


def _size(node: Node) -> int:
    return math.prod(node.shape)
