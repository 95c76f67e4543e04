"""Operands of matrix products that are computed from other nodes: rows of their elements, by vectors.

Where elements come out of one byte in pairs, as codes of 4 bits do, a vector of bytes gives two vectors, of the even
and of the odd elements, which are then put together.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ..compiler.index import Affine, Index, Quotient, View, variable
from ..graph.node import Node
from ..graph.types import int64
from .emitter import LANE, Emitter, Slots, lane_variable
from .matmul_tile import Size
from .registers import Value
from .target import Target, abilities_of
from .text import Writer


class MadeOperand:
    """See `matmul_tile.Made`: the elements of `view.base`, in the order that they would have in memory.

    They are computed in whole rows of its last axis, or of vectors at least: so where scales belong to rows, there is
    one of them for many elements. A vector that reaches over the ends of what is asked for writes into the margin.
    """

    def __init__(self, view: View, in_memory: Callable[[Node], bool], target: Target):
        self.root, self.offset, self.in_memory, self.target = view.base, view.offset, in_memory, target
        self.lanes = target.vector_bytes // 4
        self.row = self.root.shape[-1]
        self.nodes: list[Node] = []
        #: vectors that are computed together, whose elements alternate
        self.together = 2 if self._alternates() else 1
        self.nodes = self._trial(self.together)[0]

    @property
    def slots(self) -> int:
        """See `Made`."""
        return len(self.nodes)

    @property
    def margin(self) -> int:
        """See `Made`."""
        return self.lanes * self.together

    def _alternates(self) -> bool:
        """Whether neighbours are made of the same element of something, in pairs, and vectors divide a row."""
        if self.row % (2 * self.lanes) or self.root.dtype.compute is not self.root.dtype:
            return False
        return _divides_lanes(self._trial(1)[1]) and not _divides_lanes(self._trial(2)[1])

    def _trial(self, together: int) -> tuple[list[Node], set[Affine]]:
        """The nodes that are read in memory, and at which elements, with so many vectors together."""
        writer = Writer("trial", ["ptr %args", "ptr %scratch", "i64 %task"])
        emitter = self._emitter(writer, Slots())
        emitter.begin_row({"row": "%row"})
        with emitter.body({"vector": "%vector", LANE: "0", "first": "0"}, None):
            self._values(emitter, together)
        places = {place for found in emitter.loaded.values() for place in found}
        return list(emitter.slots.nodes), places

    def _emitter(self, writer: Writer, slots: Slots) -> Emitter:
        return Emitter(writer, self.lanes, slots, self.in_memory, abilities_of(self.target))

    def _values(self, emitter: Emitter, together: int) -> list[Value]:
        """The vectors that are numbers "vector" and following of the row "row"."""
        *outer, _ = self.root.shape
        before = Index.at(variable("row", math.prod(outer)), tuple(outer)).axes
        width = self.lanes * together
        vectors = variable("vector", -(-self.row // width)) * width
        found = []
        for number in range(together):
            place = vectors + lane_variable(self.lanes) * together + number
            found.append(emitter.value(self.root, Index(self.root.shape, (*before, place))))
        return found

    def emit(
        self, writer: Writer, slot_base: int, first: str, rows: Size, step: Size, length: Size, to: str, pitch: int
    ) -> None:
        """See `Made.emit`."""
        slots = Slots(slot_base)
        for node in self.nodes:
            slots.of(node)
        emitter = self._emitter(writer, slots)
        with writer.loop(0, rows, as_written=True) as number:
            begin = writer.add(writer.add(first, self.offset), writer.multiply(number, step))
            end = writer.add(begin, length)
            line = writer.element(to, emitter.scalar.storage_type(self.root.dtype), writer.multiply(number, pitch))
            low, high = writer.divide(begin, self.row)[0], writer.divide(writer.add(end, self.row - 1), self.row)[0]
            with writer.loop(low, high, as_written=True) as row:
                self._part(emitter, row, begin, end, line)

    def _part(self, emitter: Emitter, row: str, begin: str, end: str, line: str) -> None:
        """The elements from `begin` to `end` that are of the given row of the last axis."""
        writer, width = emitter.writer, self.lanes * self.together
        writer.declare("declare i64 @llvm.smax.i64(i64, i64)")
        start = writer.multiply(row, self.row)
        left = writer.op(f"call i64 @llvm.smax.i64(i64 {writer.subtract(begin, start)}, i64 0)")
        stop = writer.minimum(writer.subtract(end, start), self.row)
        line = writer.element(line, emitter.scalar.storage_type(self.root.dtype), writer.subtract(start, begin))
        emitter.begin_row({"row": row})

        def body(place: str) -> None:
            vector, mask = writer.op(f"udiv exact i64 {place}, {width}"), None
            if self.row % width:
                a = emitter.vector
                rest = writer.subtract(self.row, place)
                mask = a.lt(a.iota(int64), a.broadcast(Value(rest, int64)))
            with emitter.body({"vector": vector, LANE: "0", "first": "0"}, mask):
                self._store(emitter, self._values(emitter, self.together), line, place)

        emitter.loop(writer.op(f"and i64 {left}, {-width}"), stop, width, body)

    def _store(self, emitter: Emitter, values: list[Value], line: str, place: str) -> None:
        """The values one after the other, an element of each in turn."""
        writer, a, dtype = emitter.writer, emitter.vector, self.root.dtype
        address = writer.element(line, emitter.scalar.storage_type(dtype), place)
        if len(values) == 1:
            a.store(values[0], address, dtype)
            return
        type_, both = a.llvm_type(dtype), 2 * self.lanes
        order = ", ".join(f"i32 {i}, i32 {self.lanes + i}" for i in range(self.lanes))
        mixed = writer.op(f"shufflevector {type_} {values[0].ref}, {type_} {values[1].ref}, <{both} x i32> <{order}>")
        element = emitter.scalar.storage_type(dtype)
        writer.line(f"store <{both} x {element}> {mixed}, ptr {address}, align {dtype.itemsize}")


def _divides_lanes(places: set[Affine]) -> bool:
    """Whether lanes of a vector are read by the quotient of their number."""
    atoms = (atom for place in places for atom, _ in place.terms)
    return any(isinstance(a, Quotient) and any(v.name == LANE for v in a.of.variables()) for a in atoms)
