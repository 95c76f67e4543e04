"""Kernels that reduce axes before the last one: each vector of columns is gone through by itself.

A unit of work is one place of the axes outside and a block of columns: it runs over the reduced axes with a vector of
totals. A task does one unit; where totals of what is reduced are taken as well it does several that are small, so that
there are few partial results of those.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ..compiler.groups import FULL, Group
from ..compiler.index import Affine, Index, variable
from ..graph.node import Node
from ..graph.types import int64
from .emitter import COMBINE, LANE, VECTOR, Emitter, Slots, identity_of, lane_variable
from .launch import Argument, Launch
from .loops import TASK_ELEMENTS
from .partials import Across, Partials, across_of
from .registers import Value
from .target import Target, abilities_of
from .text import Variable, Writer, code

#: so many elements are added up by themselves before they are added to the total
_LINE = 64


def emit_columns(group: Group, in_memory: Callable[[Node], bool], target: Target) -> list[Launch]:
    """The launches that compute a group of kind COLUMNS: reductions of operands of one shape over the same axes, and
    totals of these.
    """
    return _ColumnsKernel(group, in_memory, target).launches()


class _ColumnsKernel:
    def __init__(self, group: Group, in_memory: Callable[[Node], bool], target: Target):
        self.target = target
        self.members = [node for node, level in group.members.items() if level == FULL]
        self.shape, self.axes = self.members[0].inputs[0].shape, self.members[0]["axes"]
        self.last = len(self.shape) - 1
        self.kept = [axis for axis in range(self.last) if axis not in self.axes]
        width = self.shape[self.last]
        lanes = min(target.vector_bytes // 4 * 4, 1 << max(0, width - 1).bit_length())
        self.blocks = -(-width // lanes)
        self.units = self.blocks * math.prod(self.shape[axis] for axis in self.kept)

        def loadable(node: Node) -> bool:
            return node not in group.members and in_memory(node)

        self.across = list(across_of(group, loadable).values())
        height = math.prod(self.shape[axis] for axis in self.axes)
        self.each = max(1, TASK_ELEMENTS // (lanes * height)) if self.across else 1
        self.tasks = -(-self.units // self.each)
        #: how many slots the places of totals take, before all others
        self.slots = sum(len(one.totals) for one in self.across)
        self.writer = Writer("kernel", ["ptr %args", "ptr %scratch", "i64 %task"])
        self.emitter = Emitter(self.writer, lanes, Slots(self.slots), loadable, abilities_of(target))
        self.arithmetic = self.emitter.vector
        self.places = [self._place(axis) for axis in range(len(self.shape))]
        out = tuple(place for axis, place in enumerate(self.places) if axis not in self.axes)
        #: the number of an element of a result
        self.domain = Index(self.members[0].shape, out).flat()

    def _place(self, axis: int) -> Affine:
        if axis == self.last:
            return lane_variable(self.shape[axis])
        return variable(f"{'r' if axis in self.axes else 'k'}{axis}", self.shape[axis])

    def launches(self) -> list[Launch]:
        for node in self.members:
            self.emitter.pointer(node)
        sums = self._begin_across()
        if self.each == 1:
            self._unit("%task", sums)
        else:
            first = self.writer.multiply("%task", self.each)
            stop = self.writer.minimum(self.writer.add(first, self.each), self.units)
            with self.writer.loop(first, stop) as number:
                self._unit(number, sums)
        places: list[Argument] = []
        following: list[Launch] = []
        for across, partials in sums:
            across.end(partials)
            found, more = across.finish(self.tasks, self.target)
            places += found
            following += more
        nodes = list(self.emitter.slots.nodes)
        written = {*self.members, *(place for place in places if isinstance(place, Node))}
        kernel = code("columns", self.writer)
        return [Launch(kernel, self.tasks, [*places, *nodes], 0, set(nodes) - written, written, set()), *following]

    def _begin_across(self) -> list[tuple[Across, Partials]]:
        """What a task sums of the results that it finishes."""
        found, slot = [], 0
        for across in self.across:
            found.append((across, across.begin(self.emitter, slot, "%task")))
            slot += len(across.totals)
        return found

    def _unit(self, number: str, sums: list[tuple[Across, Partials]]) -> None:
        start, mask = self._begin(number)
        totals = self._nothing()
        self._nest(totals, [axis for axis in self.axes if self.shape[axis] > 1], {LANE: start, "first": start}, mask)
        values = [Value(total.get(), node.dtype) for node, total in zip(self.members, totals, strict=True)]
        with self.emitter.body({LANE: start, "first": start}, mask):
            for node, value in zip(self.members, values, strict=True):
                self.emitter.store(value, node, self.domain, VECTOR)
        for across, partials in sums:
            across.take(partials, values[self.members.index(across.base)], self.domain, start, mask)

    def _begin(self, number: str) -> tuple[str, Value | None]:
        """Where the columns of unit `number` begin, and which of them there are."""
        writer, a = self.writer, self.arithmetic
        block, names = "0", {}
        if self.blocks > 1:
            number, block = writer.divide(number, self.blocks)
        for axis in reversed(self.kept):
            number, names[f"k{axis}"] = writer.divide(number, self.shape[axis])
        start = writer.multiply(block, a.lanes)
        self.emitter.begin_row(names)
        width = self.shape[self.last]
        if width % a.lanes == 0:
            return start, None
        return start, a.lt(a.iota(int64), a.broadcast(Value(writer.subtract(width, start), int64)))

    def _nothing(self) -> list[Variable]:
        a = self.arithmetic
        return [
            self.writer.variable(a.llvm_type(n.dtype), a.constant(identity_of(n.op.name, n.dtype), n.dtype).ref)
            for n in self.members
        ]

    def _add(self, totals: list[Variable], values: list[Value]) -> None:
        for node, total, value in zip(self.members, totals, values, strict=True):
            combine = getattr(self.arithmetic, COMBINE[node.op.name])
            total.set(combine(Value(total.get(), node.dtype), value).ref)

    def _take(self, into: list[Variable], names: dict[str, str], mask: Value | None) -> None:
        place = Index(self.shape, tuple(self.places))
        with self.emitter.body(names, mask):
            self._add(into, [self.emitter.value(node.inputs[0], place) for node in self.members])

    def _nest(self, totals: list[Variable], axes: list[int], names: dict[str, str], mask: Value | None) -> None:
        """Loops over the reduced `axes`."""
        if not axes:
            self._take(totals, names, mask)
        elif len(axes) == 1:
            self._by_lines(totals, axes[0], names, mask)
        else:
            axis, *rest = axes
            inside: Callable[[str], None] = lambda i: self._nest(totals, rest, {**names, f"r{axis}": i}, mask)  # noqa: E731
            self.emitter.loop("0", str(self.shape[axis]), 1, inside)

    def _by_lines(self, totals: list[Variable], axis: int, names: dict[str, str], mask: Value | None) -> None:
        """Some elements of the innermost axis are added up by themselves first, so that less is rounded off."""
        size = self.shape[axis]

        def line(first: str) -> None:
            own = self._nothing()
            stop = self.writer.minimum(self.writer.add(first, _LINE), str(size))
            self.emitter.loop(first, stop, 1, lambda i: self._take(own, {**names, f"r{axis}": i}, mask))
            self._add(totals, [Value(one.get(), node.dtype) for node, one in zip(self.members, own, strict=True)])

        self.emitter.loop("0", str(size), _LINE, line)
