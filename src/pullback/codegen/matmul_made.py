"""Operands that are computed while they are packed: a strip at a time, into a task's memory, and packed from there.

A strip fits into the L1 cache, so an operand that is kept in another form, as codes with scales, is written and read
nowhere else. Strips lie along the axis in which the operand's elements follow each other.
"""

from __future__ import annotations

from .matmul_pack import Geometry, pack_code
from .matmul_tasks import aligned, emit_pack, stored_type
from .matmul_tile import Element, Made, Size
from .text import Writer

#: elements of a row of a strip, and steps of k of one whose rows lie across k
_LENGTH, _STEPS = 128, 32


def strip_bytes(element: Element, width: int) -> int:
    """The memory that a task needs for strips of an operand, in panels `width` wide."""
    if element.made is None:
        return 0
    return aligned((max(width, _STEPS) * _pitch(element.made) + 2 * element.made.margin) * element.stored.itemsize)


def _pitch(made: Made) -> int:
    return _LENGTH + 2 * made.margin


class MadePacker:
    """Packs an operand that is computed, into panels `width` wide.

    `strides` are those from row to row and along k, of which one is 1; `slot_base` is the first of the operand's
    arguments, and `strips` the memory for strips.
    """

    def __init__(
        self, writer: Writer, element: Element, slot_base: int, strips: str, geometry: Geometry, width: int,
        strides: tuple[int, int],
    ):  # fmt: skip
        assert element.made is not None
        self.writer, self.made, self.slot_base, self.geometry = writer, element.made, slot_base, geometry
        self.pack = pack_code(geometry, width, element.in_memory)
        self.type, self.pitch = stored_type(writer, element), _pitch(element.made)
        self.width, (self.across, self.along) = width, strides
        self.strip = writer.element(strips, self.type, self.made.margin)

    def emit(self, to: str, first: str, count: Size, k: Size) -> None:
        """Pack, as `pack_code` has it, `count` rows of `k` elements, the first of which has the place `first`."""
        self.to, self.first = to, first
        (self.rows_along_k if self.along == 1 else self.rows_beside)(count, k)

    def rows_along_k(self, count: Size, k: Size) -> None:
        """A panel at a time: its rows are those of the strip."""
        writer = self.writer
        with writer.loop(0, count, self.width, as_written=True) as row:
            rows = writer.minimum(writer.subtract(count, row), self.width)
            with writer.loop(0, k, _LENGTH, as_written=True) as start:
                length = writer.minimum(writer.subtract(k, start), _LENGTH)
                self._make(row, start, rows, self.across, length)
                self._pack(row, start, k, self.strip, (self.pitch, 1), (rows, length))

    def rows_beside(self, count: Size, k: Size) -> None:
        """Several panels at a time: a row of the strip is a step of k of all of them."""
        writer = self.writer
        length = max(_LENGTH // self.width, 1) * self.width
        with writer.loop(0, k, _STEPS, as_written=True) as start:
            steps = writer.minimum(writer.subtract(k, start), _STEPS)
            with writer.loop(0, count, length, as_written=True) as row:
                rows = writer.minimum(writer.subtract(count, row), length)
                self._make(row, start, steps, self.along, rows)
                with writer.loop(0, rows, self.width, as_written=True) as panel:
                    source = writer.element(self.strip, self.type, panel)
                    some = writer.minimum(writer.subtract(rows, panel), self.width)
                    self._pack(writer.add(row, panel), start, k, source, (1, self.pitch), (some, steps))

    def _make(self, row: str, start: str, rows: Size, step: int, length: Size) -> None:
        """The strip that begins with the row and the step of k of these numbers."""
        writer = self.writer
        place = writer.add(
            self.first, writer.add(writer.multiply(row, self.across), writer.multiply(start, self.along))
        )
        self.made.emit(writer, self.slot_base, place, rows, step, length, self.strip, self.pitch)

    def _pack(
        self, row: str, start: str, k: Size, source: str, strides: tuple[int, int], sizes: tuple[Size, Size]
    ) -> None:
        """Rows and steps of k of these sizes, of a single panel, to their place among all k."""
        writer, pairs = self.writer, self.geometry.pairs
        units = writer.op(f"lshr i64 {writer.add(k, 1)}, 1") if pairs else k
        unit = writer.op(f"lshr i64 {start}, 1") if pairs else start
        offset = writer.add(writer.multiply(row, units), writer.multiply(unit, self.width))
        to = writer.element(self.to, self.geometry.unit_type, offset)
        emit_pack(writer, self.pack, to, source, *strides, *sizes)
