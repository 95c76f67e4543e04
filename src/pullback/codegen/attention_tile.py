"""What attention's kernels share: the product of small blocks, and moving rows into the blocks' order and back.

A *chunk* is two vectors of queries, one query a lane. Blocks of scores lie key by key, `chunk` numbers each, so that
maxima and sums along the keys are done lane by lane, and keys and values are read number by number where they lie: no
block is ever transposed but the chunk's queries and results. One compiled copy of each function serves all shapes.

With bfloat16 operands on a processor that multiplies pairs of them (`Tile.pairs`), an element of a block is a pair of
neighbours along the axis that is summed over, in 32 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from ..graph.types import DType, bfloat16, float64
from .arithmetic import LLVMArithmetic
from .matmul_tile import multiply_add, splat, transposed
from .registers import Value
from .target import Abilities, Target, abilities_of, is_x86
from .text import Code, Writer, code

#: steps of the sum that a product of blocks takes at a time
_UNROLL = 4


@dataclass(frozen=True)
class Tile:
    """The sizes that attention's blocks have on a processor, for operands of `dtype`.

    `lanes` numbers of the compute type to a vector; `rows` of a block that are multiplied at once; `keys` in a block,
    a multiple of `rows`; `pairs` tells that products are of pairs of bfloat16.
    """

    dtype: DType
    lanes: int
    rows: int
    keys: int
    pairs: bool
    abilities: Abilities

    @classmethod
    def of(cls, target: Target, dtype: DType, pairs: bool) -> Tile:
        """The tile for `dtype` on `target`: two vectors of sums a row, a block of scores in half of the L1 cache."""
        lanes = target.vector_bytes // dtype.compute.itemsize
        rows = 8 if target.registers >= 32 else 4
        keys = max(rows, min(256, target.l1 // 2 // (2 * target.vector_bytes) // rows * rows))
        return cls(dtype, lanes, rows, keys, pairs, abilities_of(target))

    @property
    def compute(self) -> DType:
        return self.dtype.compute

    @property
    def chunk(self) -> int:
        """Queries in a chunk."""
        return 2 * self.lanes

    @property
    def size(self) -> int:
        """Bytes of a number of the compute type, and of a pair."""
        return self.compute.itemsize

    @property
    def type(self) -> str:
        """The LLVM type of a sum."""
        return "double" if self.compute is float64 else "float"

    @property
    def unit(self) -> int:
        """How many numbers of the axis that is summed over an element of a block holds."""
        return 2 if self.pairs else 1

    def whole_rows(self, count: int) -> int:
        """`count` rounded up to whole groups of rows."""
        return -(-count // self.rows) * self.rows

    def arithmetic(self, writer: Writer, lanes: int = 0) -> LLVMArithmetic:
        """The arithmetic on vectors of `lanes`, of this tile's if it is not given."""
        return LLVMArithmetic(writer, lanes or self.lanes, self.abilities)


def multiplies_pairs(target: Target, dtype: DType) -> bool:
    """Whether the processor has products of pairs of `dtype`, summed in float32."""
    return dtype is bfloat16 and target.has_bf16 and is_x86(target.triple) and target.vector_bytes == 64


@cache
def product_code(tile: Tile, vectors: int) -> Code:
    """`product(a, a_row, a_k, rows, b, b_k, c, c_row, k, factor)`: C = A @ B, plus C * `factor` if that is not null.

    C has `rows` rows of `vectors` vectors, B `k` of them, `c_row` and `b_k` elements apart; element [row, k] of A is
    row * a_row + k * a_k bytes from `a`. `factor` has a number a column. C is written in whole groups of `tile.rows`
    rows: what the last group has too many repeats the last row.
    """
    parameters = [
        *("ptr %a", "i64 %a_row", "i64 %a_k", "i64 %rows", "ptr %b", "i64 %b_k", "ptr %c", "i64 %c_row", "i64 %k"),
        "ptr %factor",
    ]
    writer = Writer("product", parameters)
    lanes, type_, size = tile.lanes, tile.type, tile.size
    vector = f"<{lanes} x {type_}>"
    last = writer.subtract("%rows", 1)
    fresh = writer.op("icmp eq ptr %factor, null")

    def step(position: str, rows: list[str], sums: list[list[str]]) -> list[list[str]]:
        right_row = writer.element("%b", type_, writer.multiply(position, "%b_k"))
        right = [
            writer.op(f"load {vector}, ptr {writer.element(right_row, type_, i * lanes)}, align {size}")
            for i in range(vectors)
        ]
        offset = writer.multiply(position, "%a_k")
        result = []
        for row, old in zip(rows, sums, strict=True):
            left = writer.op(f"load {type_}, ptr {writer.element(row, 'i8', offset)}, align {tile.dtype.itemsize}")
            left = splat(writer, type_, lanes, left)
            result.append([_multiply_add(writer, tile, left, x, y) for x, y in zip(right, old, strict=True)])
        return result

    with writer.loop(0, "%rows", tile.rows, as_written=True) as first:
        rows = []
        for number in range(tile.rows):
            row = writer.minimum(writer.add(first, number), last)
            rows.append(writer.element("%a", "i8", writer.multiply(row, "%a_row")))
        sums = [[writer.variable(vector, "zeroinitializer") for _ in range(vectors)] for _ in rows]

        def advance(position: str, steps: int) -> None:
            values = [[variable.get() for variable in row] for row in sums]
            for ahead in range(steps):
                values = step(writer.add(position, ahead), rows, values)
            for slots, found in zip(sums, values, strict=True):
                for slot, value in zip(slots, found, strict=True):
                    slot.set(value)

        whole = writer.op(f"and i64 %k, {-_UNROLL}")
        with writer.loop(0, whole, _UNROLL, as_written=True) as position:
            advance(position, _UNROLL)
        with writer.loop(whole, "%k", as_written=True) as position:
            advance(position, 1)
        places = []
        for number in range(tile.rows):
            row = writer.element("%c", type_, writer.multiply(writer.add(first, number), "%c_row"))
            places.append([writer.element(row, type_, i * lanes) for i in range(vectors)])
        with writer.when(writer.op(f"xor i1 {fresh}, true")):
            for i in range(vectors):
                factor = writer.op(f"load {vector}, ptr {writer.element('%factor', type_, i * lanes)}, align {size}")
                for place, slots in zip(places, sums, strict=True):
                    held = writer.op(f"load {vector}, ptr {place[i]}, align {size}")
                    slots[i].set(multiply_add(writer, type_, lanes, held, factor, slots[i].get()))
        for place, slots in zip(places, sums, strict=True):
            for address, slot in zip(place, slots, strict=True):
                writer.line(f"store {vector} {slot.get()}, ptr {address}, align {size}")
    return code("attention_product", writer)


def _multiply_add(writer: Writer, tile: Tile, left: str, right: str, total: str) -> str:
    """left * right + total; with pairs the sum of both products."""
    if not tile.pairs:
        return multiply_add(writer, tile.type, tile.lanes, left, right, total)
    sums, pairs = f"<{tile.lanes} x float>", f"<{2 * tile.lanes} x bfloat>"
    name = f"llvm.x86.avx512bf16.dpbf16ps.{32 * tile.lanes}"
    writer.declare(f"declare {sums} @{name}({sums}, {pairs}, {pairs})")
    left, right = (writer.op(f"bitcast {sums} {x} to {pairs}") for x in (left, right))
    return writer.op(f"call {sums} @{name}({sums} {total}, {pairs} {left}, {pairs} {right})")


@cache
def pack_code(tile: Tile, dtype: DType) -> Code:
    """`pack(to, from, row, column, rows, columns, factor)`: the transpose of up to a chunk of rows, times `factor`.

    `to` gets `columns` rows of a chunk of numbers of the compute type; missing rows repeat the last one. `row` and
    `column` are distances in bytes. For pairs `dtype` is float32: 32 bits are moved whatever they stand for.
    """
    parameters = [
        "ptr %to",
        "ptr %from",
        "i64 %row",
        "i64 %column",
        "i64 %rows",
        "i64 %columns",
        f"{tile.type} %factor",
    ]
    writer = Writer("pack", parameters)
    a, one = tile.arithmetic(writer), tile.arithmetic(writer, 1)
    compute, lanes = dtype.compute, tile.lanes
    moved = tile.pairs
    factor = None if moved else a.broadcast(Value("%factor", compute))
    last = writer.subtract("%rows", 1)
    beside = writer.op(f"icmp eq i64 %column, {dtype.itemsize}")
    done = writer.variable("i64", "0")
    with writer.when(beside):
        squares = writer.op(f"and i64 %columns, {-lanes}")
        with writer.loop(0, tile.chunk, lanes) as half, writer.loop(0, squares, lanes) as column:
            vectors = []
            for number in range(lanes):
                row = writer.minimum(writer.add(half, number), last)
                source = writer.element("%from", "i8", writer.multiply(row, "%row"))
                value = a.load(writer.element(source, one.storage_type(dtype), column), dtype)
                vectors.append((value if factor is None else a.mul(value, factor)).ref)
            for number, vector in enumerate(transposed(writer, tile.type, vectors)):
                place = writer.add(writer.multiply(writer.add(column, number), tile.chunk), half)
                a.store(Value(vector, compute), writer.element("%to", tile.type, place), compute)
        done.set(squares)
    with writer.loop(done.get(), "%columns") as column, writer.loop(0, tile.chunk) as lane:
        row = writer.minimum(lane, last)
        offset = writer.add(writer.multiply(row, "%row"), writer.multiply(column, "%column"))
        value = one.load(writer.element("%from", "i8", offset), dtype)
        value = value if moved else one.mul(value, Value("%factor", compute))
        place = writer.add(writer.multiply(column, tile.chunk), lane)
        one.store(value, writer.element("%to", tile.type, place), compute)
    return code("attention_pack", writer)


@cache
def widen_code(tile: Tile, dtype: DType) -> Code:
    """`widen(to, to_row, from, row, column, rows, given, columns)`: rows copied in the compute type.

    `to_row` is in elements, `row` and `column` in bytes; rows from `given` on repeat the last one.
    """
    parameters = [
        *("ptr %to", "i64 %to_row", "ptr %from", "i64 %row", "i64 %column", "i64 %rows", "i64 %given", "i64 %columns"),
    ]
    writer = Writer("widen", parameters)
    a, one = tile.arithmetic(writer), tile.arithmetic(writer, 1)
    compute, last = dtype.compute, writer.subtract("%given", 1)
    beside = writer.op(f"icmp eq i64 %column, {dtype.itemsize}")
    whole = writer.op(f"and i64 %columns, {-tile.lanes}")
    whole = writer.op(f"select i1 {beside}, i64 {whole}, i64 0")
    with writer.loop(0, "%rows") as row:
        source = writer.element("%from", "i8", writer.multiply(writer.minimum(row, last), "%row"))
        target = writer.element("%to", tile.type, writer.multiply(row, "%to_row"))
        with writer.loop(0, whole, tile.lanes) as column:
            value = a.load(writer.element(source, one.storage_type(dtype), column), dtype)
            a.store(value, writer.element(target, tile.type, column), compute)
        with writer.loop(whole, "%columns") as column:
            value = one.load(writer.element(source, "i8", writer.multiply(column, "%column")), dtype)
            one.store(value, writer.element(target, tile.type, column), compute)
    return code("attention_widen", writer)


@cache
def pair_code(tile: Tile) -> Code:
    """`pair(to, to_row, from, row, rows, given, columns)`: rows of bfloat16 2i and 2i + 1 joined to row i of pairs.

    As `widen`, for rows whose numbers lie side by side; `rows` counts rows of pairs.
    """
    parameters = ["ptr %to", "i64 %to_row", "ptr %from", "i64 %row", "i64 %rows", "i64 %given", "i64 %columns"]
    writer = Writer("pair", parameters)
    last, lanes = writer.subtract("%given", 1), tile.lanes
    whole = writer.op(f"and i64 %columns, {-lanes}")

    def joined(first: str, second: str, width: int) -> str:
        """The pairs of two vectors of bfloat16."""
        kind = f"<{width} x i32>" if width > 1 else "i32"
        narrow = f"<{width} x i16>" if width > 1 else "i16"
        low, high = (writer.op(f"load {narrow}, ptr {place}, align 2") for place in (first, second))
        low, high = (writer.op(f"zext {narrow} {x} to {kind}") for x in (low, high))
        shift = "splat (i32 16)" if width > 1 else "16"
        return f"{kind} " + writer.op(f"or {kind} {low}, {writer.op(f'shl {kind} {high}, {shift}')}")

    with writer.loop(0, "%rows") as row:
        sources = []
        for number in range(2):
            place = writer.minimum(writer.add(writer.multiply(row, 2), number), last)
            sources.append(writer.element("%from", "i8", writer.multiply(place, "%row")))
        target = writer.element("%to", "i32", writer.multiply(row, "%to_row"))
        for start, stop, width in ((0, whole, lanes), (whole, "%columns", 1)):
            with writer.loop(start, stop, width) as column:
                low, high = (writer.element(source, "i16", column) for source in sources)
                value = joined(low, high, width)
                writer.line(f"store {value}, ptr {writer.element(target, 'i32', column)}, align 4")
    return code("attention_pair", writer)


@cache
def unpack_code(tile: Tile, dtype: DType) -> Code:
    """`unpack(to, row, from, rows, columns, factor)`: what `pack` does, back: rows of `dtype`, each times its factor.

    `row` is in bytes; the numbers of a row are written side by side.
    """
    parameters = ["ptr %to", "i64 %row", "ptr %from", "i64 %rows", "i64 %columns", "ptr %factor"]
    writer = Writer("unpack", parameters)
    a, one = tile.arithmetic(writer), tile.arithmetic(writer, 1)
    compute, lanes, type_ = dtype.compute, tile.lanes, tile.type
    for half in (0, lanes):
        done = writer.variable("i64", "0")
        with writer.when(writer.op(f"icmp sge i64 %rows, {half + lanes}")):
            factor = a.load(writer.element("%factor", type_, half), compute)
            squares = writer.op(f"and i64 %columns, {-lanes}")
            with writer.loop(0, squares, lanes) as column:
                vectors = []
                for number in range(lanes):
                    place = writer.add(writer.multiply(writer.add(column, number), tile.chunk), half)
                    vectors.append(a.mul(a.load(writer.element("%from", type_, place), compute), factor).ref)
                for number, vector in enumerate(transposed(writer, type_, vectors)):
                    target = writer.element("%to", "i8", writer.multiply(half + number, "%row"))
                    a.store(Value(vector, compute), writer.element(target, one.storage_type(dtype), column), dtype)
            done.set(squares)
        stop = writer.minimum("%rows", half + lanes)
        with writer.loop(half, stop) as row:
            factor = one.load(writer.element("%factor", type_, row), compute)
            target = writer.element("%to", "i8", writer.multiply(row, "%row"))
            with writer.loop(done.get(), "%columns") as column:
                place = writer.add(writer.multiply(column, tile.chunk), row)
                value = one.mul(one.load(writer.element("%from", type_, place), compute), factor)
                one.store(value, writer.element(target, one.storage_type(dtype), column), dtype)
    return code("attention_unpack", writer)


@cache
def narrow_code(tile: Tile, dtype: DType) -> Code:
    """`narrow(to, row, from, from_row, rows, columns, factor)`: rows of the compute type times `factor`, as `dtype`.

    `row` is in bytes, `from_row` in elements; the numbers of a row are written side by side.
    """
    parameters = [
        *("ptr %to", "i64 %row", "ptr %from", "i64 %from_row", "i64 %rows", "i64 %columns"),
        f"{tile.type} %factor",
    ]
    writer = Writer("narrow", parameters)
    a, one = tile.arithmetic(writer), tile.arithmetic(writer, 1)
    compute = dtype.compute
    whole = writer.op(f"and i64 %columns, {-tile.lanes}")
    factor = a.broadcast(Value("%factor", compute))
    with writer.loop(0, "%rows") as row:
        source = writer.element("%from", tile.type, writer.multiply(row, "%from_row"))
        target = writer.element("%to", "i8", writer.multiply(row, "%row"))
        with writer.loop(0, whole, tile.lanes) as column:
            value = a.mul(a.load(writer.element(source, tile.type, column), compute), factor)
            a.store(value, writer.element(target, one.storage_type(dtype), column), dtype)
        with writer.loop(whole, "%columns") as column:
            value = one.mul(one.load(writer.element(source, tile.type, column), compute), Value("%factor", compute))
            one.store(value, writer.element(target, one.storage_type(dtype), column), dtype)
    return code("attention_narrow", writer)
