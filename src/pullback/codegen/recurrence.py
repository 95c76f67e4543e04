"""Kernels of recurrences along the middle axis of [outer, length, inner].

A task takes some of the outer places, and of each a few vectors of inner columns, through the whole length: the carry
stays in registers, and what the operands are composed of is computed where it is read. Where there is one column the
carry is a number, and an element waits for the one before: four cycles of a sum, which a single row of a million
elements passes in one or two milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable

from ..compiler.groups import Group
from ..compiler.index import Affine, Index, variable
from ..graph.node import Node
from ..graph.types import int64
from ..ops.recurrence import carried_in
from .arithmetic import LLVMArithmetic
from .emitter import LANE, VECTOR, Emitter, Slots, lane_variable
from .launch import Launch
from .loops import TASK_ELEMENTS
from .registers import Value
from .target import Target, abilities_of
from .text import Variable, Writer, code

#: vectors of columns that one pass over the length takes: enough for the sums of one step to overlap
_VECTORS = 4


def _step(a: LLVMArithmetic, name: str, carry: Value, operands: list[Value]) -> Value:
    """The carry after the next elements."""
    if name == "recurrence":
        factor, term = operands
        return a.add(a.mul(factor, carry), term)
    return a.maximum(carry, operands[0]) if name == "running_max" else a.minimum(carry, operands[0])


class _Recurrence:
    """The kernel of one node: `vectors` of `lanes` columns at a time."""

    def __init__(self, node: Node, in_memory: Callable[[Node], bool], target: Target):
        self.node = node
        inner = node.shape[2]
        self.lanes = min(target.vector_bytes // 4, 1 << max(0, inner - 1).bit_length())
        self.vectors = min(_VECTORS, -(-inner // self.lanes))
        self.writer = Writer("kernel", ["ptr %args", "ptr %scratch", "i64 %task"])
        slots, halves = Slots(), abilities_of(target)
        self.emitter = Emitter(self.writer, self.lanes, slots, lambda n: n is not node and in_memory(n), halves)
        self.wide = carried_in(node.dtype)

    def launch(self) -> Launch:
        """The launch of all tasks."""
        outer, length, inner = self.node.shape
        writer, emitter = self.writer, self.emitter
        emitter.pointer(self.node)
        blocks = -(-inner // (self.lanes * self.vectors))
        items = outer * blocks
        each = max(1, TASK_ELEMENTS // (length * self.lanes * self.vectors))
        first = writer.multiply("%task", each)
        last = writer.minimum(writer.add(first, each), items)
        with writer.loop(first, last) as item:
            place, block = writer.divide(item, blocks)
            emitter.begin_row({"outer": place})
            self._columns(writer.multiply(block, self.lanes * self.vectors))
        nodes = emitter.slots.nodes
        name = code(self.node.op.name, writer)
        return Launch(name, -(-items // each), list(nodes), 0, set(nodes) - {self.node}, {self.node}, set())

    def _columns(self, start: str) -> None:
        """The columns from `start` on through the whole length."""
        starts = [self.writer.add(start, number * self.lanes) for number in range(self.vectors)]
        masks = [self._inside(column) for column in starts]
        kind = self.emitter.vector.llvm_type(self.wide)
        carries: list[Variable] = []
        for column, mask in zip(starts, masks, strict=True):
            with self.emitter.body({LANE: column, "first": column}, mask):
                operands = self._operands(Affine((), 0))
                carries.append(self.writer.variable(kind, operands[-1].ref))
                self._store(operands[-1], Affine((), 0))

        def one(step: str) -> None:
            for column, mask, carry in zip(starts, masks, carries, strict=True):
                with self.emitter.body({LANE: column, "first": column, "step": step}, mask):
                    place = variable("step", self.node.shape[1])
                    before = Value(carry.get(), self.wide)
                    after = _step(self.emitter.vector, self.node.op.name, before, self._operands(place))
                    carry.set(after.ref)
                    self._store(after, place)

        self.emitter.loop("1", str(self.node.shape[1]), 1, one)

    def _inside(self, column: str) -> Value | None:
        """Which lanes of the vector from `column` on are columns; None where all are."""
        inner, a = self.node.shape[2], self.emitter.vector
        if inner % (self.lanes * self.vectors) == 0:
            return None
        left = self.writer.subtract(inner, column)
        return a.lt(a.iota(int64), a.broadcast(Value(left, int64)))

    def _place(self, step: Affine) -> tuple[Affine, Affine, Affine]:
        outer, _, inner = self.node.shape
        return variable("outer", outer), step, lane_variable(inner)

    def _operands(self, step: Affine) -> list[Value]:
        a, emitter = self.emitter.vector, self.emitter
        index = Index(self.node.shape, self._place(step))
        return [a.convert(emitter.value(operand, index), self.wide) for operand in self.node.inputs]

    def _store(self, value: Value, step: Affine) -> None:
        flat = Index(self.node.shape, self._place(step)).flat()
        narrow = self.emitter.vector.convert(value, self.node.dtype.compute)
        self.emitter.store(narrow, self.node, flat, VECTOR)


def emit_recurrence(group: Group, in_memory: Callable[[Node], bool], target: Target) -> list[Launch]:
    """The launch of a recurrence."""
    (node,) = group.members
    return [_Recurrence(node, in_memory, target).launch()]
