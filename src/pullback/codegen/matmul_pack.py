"""Packing: an operand of a matrix product copied into panels, in the order in which the register tile reads them.

What the operand is stored as is converted on the way: 16-bit floats are widened, float32 is rounded to the 16-bit type
that the product takes, and where the processor multiplies pairs of bfloat16 two steps of k are put side by side. So
neither a transposed nor a converted copy of an operand ever lies in memory as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from ..graph.types import DType, bfloat16, bool_, int64
from .arithmetic import LLVMArithmetic
from .matmul_tile import Element, Size, prefetch, scalar_type, shuffle, transposed
from .registers import Value
from .target import PLAIN, Abilities
from .text import Code, Writer, code

#: Steps of k of a panel that are copied before the next panel's, where rows lie side by side: the source is then read
#: along its rows, and each panel is written a stretch at a time.
_STRETCH = 4


@dataclass(frozen=True)
class Geometry:
    """What the register tile of a processor looks like for one dtype.

    `lanes` accumulators of `dtype` to a vector; `registers` vector registers; the tile is `rows` x `columns` elements,
    two vectors wide. Of 16 registers it takes all that two vectors of B and one element of A leave. Of 32 it takes 16
    for accumulators: more hide no more of the latency, and 8 rows divide the sizes of most matrices.

    A *unit* is what one lane multiplies at a time: an element of `dtype`, or with `pairs` two bfloat16 that are
    neighbours in k. `abilities` tells that the processor converts float16.
    """

    dtype: DType
    lanes: int
    registers: int
    pairs: bool = False
    abilities: Abilities = PLAIN

    @property
    def rows(self) -> int:
        return min(8, (self.registers - 3) // 2)

    @property
    def row_step(self) -> int:
        """Tiles at the lower edge of a block have multiples of so many rows."""
        return self.rows // 2

    @property
    def columns(self) -> int:
        return 2 * self.lanes

    @property
    def column_step(self) -> int:
        """Tiles at the right edge have multiples of so many columns.

        That is half a vector of 64 bytes: where the units are 32 bytes wide, as in AMD's Zen 4, it takes half the time.
        """
        return self.lanes // 2 if self.lanes * self.unit_bytes == 64 else self.lanes

    @property
    def unit_bytes(self) -> int:
        return 4 if self.pairs else self.dtype.itemsize

    @property
    def unit_type(self) -> str:
        """The LLVM type that panels are made of."""
        return scalar_type(self.dtype)

    def units(self, k: int) -> int:
        """Units that `k` steps take."""
        return -(-k // 2) if self.pairs else k


class _Reader:
    """Reads the units of an operand of `element`s, converted to what is multiplied."""

    def __init__(self, writer: Writer, geometry: Geometry, element: Element):
        self.writer, self.geometry, self.element = writer, geometry, element
        self.arithmetic = LLVMArithmetic(writer, geometry.lanes, geometry.abilities)
        self.scalar = LLVMArithmetic(writer, 1, geometry.abilities)
        self.stored = self.scalar.storage_type(element.stored)

    def at(self, pointer: str, index: str | int) -> str:
        """The address of a stored element."""
        return self.writer.element(pointer, self.stored, index)

    def _converted(self, a: LLVMArithmetic, address: str, mask: Value | None) -> str:
        dtype = self.element.stored
        if mask is None:
            value = a.load(address, dtype)
        else:
            value = a.masked_load(address, dtype, mask, a.constant(0, dtype))
        return a.round_to(value, self.element.rounded or dtype).ref

    def below(self, limit: str | int) -> Value:
        """The lanes whose number is below `limit`."""
        a = self.arithmetic
        return a.lt(a.iota(int64), a.broadcast(Value(str(limit), int64)))

    def along_k(self, address: str) -> str:
        """A vector of units from elements that are neighbours in k."""
        lanes = self.geometry.lanes
        if not self.geometry.pairs:
            return self._converted(self.arithmetic, address, None)
        if self.element.stored is bfloat16:
            return self.writer.op(f"load <{lanes} x float>, ptr {address}, align 2")
        halves = [self._plain(self.at(address, start), None) for start in (0, lanes)]
        return self._as_units(self._rounded_pair(halves[0], halves[1]))

    def beside(self, address: str, along: str | int, second: str | None, mask: Value | None) -> str:
        """A vector of units, one of each of `lanes` neighbouring rows; the i1 `second` tells that there is a second k.

        `along` is the distance from one k to the next; `second` None is for a k that is known to be there.
        """
        if not self.geometry.pairs:
            return self._converted(self.arithmetic, address, mask)
        lanes, next_address = self.geometry.lanes, self.at(address, along)
        present = mask
        if second is not None:
            there = self.arithmetic.broadcast(Value(second, bool_))
            present = there if mask is None else self.arithmetic.bit_and(mask, there)
        if self.element.stored is bfloat16:
            low, high = self._sixteen(address, mask), self._sixteen(next_address, present)
            type_ = f"<{lanes} x i32>"
            parts = [self.writer.op(f"zext <{lanes} x i16> {part} to {type_}") for part in (low, high)]
            shifted = self.writer.op(f"shl {type_} {parts[1]}, splat (i32 16)")
            both = self.writer.op(f"or {type_} {parts[0]}, {shifted}")
            return self.writer.op(f"bitcast {type_} {both} to <{lanes} x float>")
        packed = self._rounded_pair(self._plain(address, mask), self._plain(next_address, present))
        order = [place for lane in range(lanes) for place in (lane, lanes + lane)]
        return self._as_units(shuffle(self.writer, "bfloat", 2 * lanes, packed, "poison", order))

    def one(self, address: str, along: str | int, second: str | None) -> str:
        """A single unit; the arguments are those of `beside`."""
        if not self.geometry.pairs:
            return self._converted(self.scalar, address, None)
        words = []
        for place, present in ((address, None), (self.at(address, along), second)):
            bits = self.writer.variable("i16", "0")
            if present is None:
                bits.set(self._one_word(place))
            else:
                with self.writer.when(present):
                    bits.set(self._one_word(place))
            words.append(self.writer.op(f"zext i16 {bits.get()} to i32"))
        shifted = self.writer.op(f"shl i32 {words[1]}, 16")
        both = self.writer.op(f"or i32 {words[0]}, {shifted}")
        return self.writer.op(f"bitcast i32 {both} to float")

    def _one_word(self, address: str) -> str:
        if self.element.stored is bfloat16:
            return self.writer.op(f"load i16, ptr {address}, align 2")
        value = self._converted(self.scalar, address, None)
        bits = self.writer.op(f"bitcast float {value} to i32")
        return self.writer.op(f"trunc i32 {self.writer.op(f'lshr i32 {bits}, 16')} to i16")

    def _plain(self, address: str, mask: Value | None) -> str:
        """A vector of float32, to be rounded by `_rounded_pair`."""
        a = self.arithmetic
        if mask is None:
            return a.load(address, self.element.stored).ref
        return a.masked_load(address, self.element.stored, mask, a.constant(0, self.element.stored)).ref

    def _rounded_pair(self, low: str, high: str) -> str:
        """Two vectors of float32 as one of bfloat16. Denormal numbers become zeros, as they do in the product."""
        lanes = self.geometry.lanes
        name = f"llvm.x86.avx512bf16.cvtne2ps2bf16.{32 * lanes}"
        self.writer.declare(f"declare <{2 * lanes} x bfloat> @{name}(<{lanes} x float>, <{lanes} x float>)")
        return self.writer.op(f"call <{2 * lanes} x bfloat> @{name}(<{lanes} x float> {high}, <{lanes} x float> {low})")

    def _as_units(self, packed: str) -> str:
        lanes = self.geometry.lanes
        return self.writer.op(f"bitcast <{2 * lanes} x bfloat> {packed} to <{lanes} x float>")

    def _sixteen(self, address: str, mask: Value | None) -> str:
        lanes = self.geometry.lanes
        if mask is None:
            return self.writer.op(f"load <{lanes} x i16>, ptr {address}, align 2")
        return self._masked_words(address, mask.ref, lanes)

    def _masked_words(self, address: str, mask: str, count: int) -> str:
        vector, masks = f"<{count} x i16>", f"<{count} x i1>"
        self.writer.declare(f"declare {vector} @llvm.masked.load.v{count}i16.p0(ptr, {masks}, {vector})")
        return self.writer.op(
            f"call {vector} @llvm.masked.load.v{count}i16.p0(ptr align 2 {address}, {masks} {mask}, "
            f"{vector} zeroinitializer)"
        )


@cache
def pack_code(geometry: Geometry, width: int, element: Element) -> Code:
    """`pack(ptr to, ptr from, i64 across, i64 along, i64 count, i64 k)`: copy a matrix into panels.

    The matrix has `count` rows (of A, or columns of B) `across` elements apart, each of `k` elements `along` apart.
    Panel p holds, for each unit of k in turn, the units of the rows p*width … p*width + width - 1. What stands in the
    place of missing rows is of no meaning, but what stands past the end of k within a unit is zero.
    Rows that lie side by side are copied as vectors, rows contiguous in k are transposed in registers.
    """
    writer = Writer("pack", ["ptr %to", "ptr %from", "i64 %across", "i64 %along", "i64 %count", "i64 %k"])
    units = writer.divide(writer.add("%k", 1), 2)[0] if geometry.pairs else "%k"
    packer = _Packer(writer, geometry, width, _Reader(writer, geometry, element), units)
    contiguous, beside = (writer.op(f"icmp eq i64 {name}, 1") for name in ("%along", "%across"))
    # How many units of each row vectors have done; single ones do the rest.
    done = writer.variable("i64", "0")
    with writer.when(contiguous):
        done.set(packer.rows_along_k())
    with writer.when(writer.op(f"and i1 {writer.op(f'xor i1 {contiguous}, true')}, {beside}")):
        packer.rows_beside()
        done.set(units)
    packer.one_by_one(done.get())
    return code("pack", writer)


class _Packer:
    """The three ways of packing; `units` is the SSA name of their number in a row."""

    def __init__(self, writer: Writer, geometry: Geometry, width: int, reader: _Reader, units: str):
        self.writer, self.geometry, self.width, self.reader, self.units = writer, geometry, width, reader, units
        self.steps = 2 if geometry.pairs else 1

    def _panel(self, first: str) -> str:
        """The address of the panel that begins with the row `first`, a multiple of the width."""
        return self.writer.element("%to", self.geometry.unit_type, self.writer.multiply(first, self.units))

    def _store(self, vector: str, panel: str, unit: str, start: Size, kept: int, skipped: int = 0) -> None:
        """`kept` lanes of `vector`, after the `skipped` first, as the units of the rows from `start` on of a panel."""
        lanes, type_ = self.geometry.lanes, self.geometry.unit_type
        place = self.writer.add(self.writer.multiply(unit, self.width), start)
        if kept < lanes:
            vector = shuffle(self.writer, type_, lanes, vector, "poison", range(skipped, skipped + kept))
        address = self.writer.element(panel, type_, place)
        self.writer.line(f"store <{kept} x {type_}> {vector}, ptr {address}, align {self.geometry.unit_bytes}")

    def rows_along_k(self) -> str:
        """Squares of `lanes` rows by `lanes` units are transposed in registers; gives the units done of each row."""
        writer, lanes = self.writer, self.geometry.lanes
        last = writer.subtract("%count", 1)
        squares = writer.multiply(writer.divide("%k", lanes * self.steps)[0], lanes)
        with writer.loop(0, "%count", self.width, as_written=True) as first:
            panel = self._panel(first)
            for begin, end in self._bands():
                with writer.loop(begin, end, lanes, as_written=True) as start:
                    rows = [writer.add(writer.add(first, start), row) for row in range(min(lanes, end - begin))]
                    # A missing row is read as the last one again.
                    places = [writer.multiply(writer.minimum(row, last), "%across") for row in rows]
                    pointers = [self.reader.at("%from", place) for place in places]
                    with writer.loop(0, squares, lanes, as_written=True) as unit:
                        self._square(panel, pointers, unit, start)
        return squares

    def _bands(self) -> list[tuple[int, int]]:
        """The rows of a panel in whole vectors, and what is left of them."""
        whole = self.width - self.width % self.geometry.lanes
        return [band for band in ((0, whole), (whole, self.width)) if band[0] < band[1]]

    def _square(self, panel: str, rows: list[str], unit: str, start: str) -> None:
        writer, lanes = self.writer, self.geometry.lanes
        position = writer.multiply(unit, self.steps)
        vectors = [self.reader.along_k(self.reader.at(row, position)) for row in rows]
        columns = transposed(writer, self.geometry.unit_type, vectors + ["zeroinitializer"] * (lanes - len(rows)))
        for step, vector in enumerate(columns):
            self._store(vector, panel, writer.add(unit, step), start, len(rows))

    def rows_beside(self) -> None:
        """Vectors of neighbouring rows, unit by unit; all panels for a stretch of k before the next stretch."""
        writer, lanes = self.writer, self.geometry.lanes
        #: panels that one vector fills
        filled = lanes // self.width if lanes % self.width == 0 else 1
        reach = self.width * filled if filled > 1 else -(-self.width // lanes) * lanes
        with writer.loop(0, self.units, _STRETCH, as_written=True) as begin:
            end = writer.minimum(writer.add(begin, _STRETCH), self.units)
            # only the last unit of all can lack its second step
            paired = writer.minimum(end, writer.divide("%k", 2)[0]) if self.geometry.pairs else end
            done = writer.variable("i64", "0")
            with writer.loop(0, writer.subtract("%count", reach - 1), self.width * filled, as_written=True) as first:
                self._stretch(first, begin, paired, filled, masked=False)
                done.set(writer.add(first, self.width * filled))
            with writer.loop(done.get(), "%count", self.width, as_written=True) as first:
                self._stretch(first, begin, paired, 1, masked=True)
            if self.geometry.pairs:
                with writer.loop(0, "%count", self.width, as_written=True) as first:
                    self._stretch(first, paired, end, 1, masked=True, second="false")

    def _stretch(self, first: str, begin: str, end: str, filled: int, masked: bool, second: str | None = None) -> None:
        """The units from `begin` to `end` of the rows of `filled` panels, from the row `first` on."""
        writer, lanes = self.writer, self.geometry.lanes
        starts = range(0, self.width, lanes)
        panels = [self._panel(writer.add(first, number * self.width)) for number in range(filled)]
        masks = [self.reader.below(writer.subtract("%count", writer.add(first, s))) if masked else None for s in starts]
        with writer.loop(begin, end, as_written=True) as unit:
            row = self.reader.at("%from", writer.multiply(writer.multiply(unit, self.steps), "%along"))
            for start, mask in zip(starts, masks, strict=True):
                address = self.reader.at(row, writer.add(first, start))
                # Rows lie too far apart for the processor to foresee them.
                prefetch(writer, self.reader.at(address, writer.multiply("%along", 2 * _STRETCH * self.steps)))
                vector = self.reader.beside(address, "%along", second, mask)
                for number, panel in enumerate(panels):
                    self._store(vector, panel, unit, start, min(lanes, self.width - start), number * self.width)

    def one_by_one(self, begin: str) -> None:
        """One unit after the other, from the unit `begin` of each row on."""
        writer = self.writer
        with writer.loop(0, "%count", self.width, as_written=True) as first:
            panel = self._panel(first)
            present = writer.minimum(writer.subtract("%count", first), self.width)
            with (
                writer.loop(begin, self.units, as_written=True) as unit,
                writer.loop(0, present, as_written=True) as row,
            ):
                position = writer.multiply(unit, self.steps)
                second = writer.op(f"icmp slt i64 {writer.add(position, 1)}, %k")
                place = writer.add(
                    writer.multiply(writer.add(first, row), "%across"), writer.multiply(position, "%along")
                )
                value = self.reader.one(self.reader.at("%from", place), "%along", second)
                target = writer.element(
                    panel, self.geometry.unit_type, writer.add(writer.multiply(unit, self.width), row)
                )
                writer.line(f"store {self.geometry.unit_type} {value}, ptr {target}, align {self.geometry.unit_bytes}")
