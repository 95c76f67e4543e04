"""The parts that all large matrix products share: packing into panels, and the product of packed blocks.

The scheme is that of Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008), in the form of
Van Zee and van de Geijn's BLIS (2015): A is cut into panels of `rows` rows, B into panels of `columns` columns, so that
one register tile of C reads both in the order they lie in memory. A block of A stays in the L2 cache while a panel of B
stays in L1. Sizes and strides are arguments, so one compiled copy of each function serves every product of a dtype.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from ..graph.types import DType
from .matmul_tile import Matrix, Size, outer_tile, prefetch, scalar_type, transposed
from .text import Code, Writer, code

#: Steps of k that the register tile takes at a time.
UNROLL = 4


@dataclass(frozen=True)
class Geometry:
    """What the register tile of a processor looks like for one dtype.

    `lanes` elements to a vector; `registers` vector registers; the tile is `rows` x `columns` elements, two vectors
    wide: the widest one for which all accumulators, two vectors of B and one element of A stay in registers.
    """

    dtype: DType
    lanes: int
    registers: int

    @property
    def rows(self) -> int:
        return (self.registers - 3) // 2

    @property
    def columns(self) -> int:
        return 2 * self.lanes

    @property
    def slack(self) -> int:
        """Bytes that packing may write beyond the last panel, because it stores whole vectors."""
        return 64


@cache
def pack_code(geometry: Geometry, width: int) -> Code:
    """`pack(ptr to, ptr from, i64 across, i64 along, i64 count, i64 k)`: copy a matrix into panels.

    The matrix has `count` rows (of A, or columns of B) `across` elements apart, each of `k` elements `along` apart.
    Panel p holds, for each k in turn, the elements of the rows p*width … p*width + width - 1; missing rows are zero.
    Rows that lie side by side are copied as vectors, rows contiguous in k are transposed in registers.
    """
    type_, size, lanes = scalar_type(geometry.dtype), geometry.dtype.itemsize, geometry.lanes
    writer = Writer("pack", ["ptr %to", "ptr %from", "i64 %across", "i64 %along", "i64 %count", "i64 %k"])
    beside = writer.op("icmp eq i64 %across, 1")
    whole = writer.multiply(writer.divide("%count", width)[0], width)
    # How many rows have been done by the vectors of rows that lie side by side.
    copied = writer.variable("i64", "0")
    with writer.when(beside):
        # All panels for one k before the next: the source is then read once, in its own order.
        with writer.loop(0, "%k", as_written=True) as position:
            row = writer.element("%from", type_, writer.multiply(position, "%along"))
            to = writer.element("%to", type_, writer.multiply(position, width))
            # Rows lie too far apart for the processor to foresee them.
            ahead = writer.element(row, type_, writer.multiply("%along", 8))
            with writer.loop(0, whole, width, as_written=True) as first:
                prefetch(writer, writer.element(ahead, type_, first))
                value = writer.op(f"load <{width} x {type_}>, ptr {writer.element(row, type_, first)}, align {size}")
                target = writer.element(to, type_, writer.multiply(first, "%k"))
                writer.line(f"store <{width} x {type_}> {value}, ptr {target}, align {size}")
        copied.set(whole)
    with writer.loop(copied.get(), "%count", width, as_written=True) as first:
        panel = writer.element("%to", type_, writer.multiply(first, "%k"))
        source = writer.element("%from", type_, writer.multiply(first, "%across"))
        present = writer.minimum(writer.subtract("%count", first), width)
        full = writer.op(f"icmp eq i64 {present}, {width}")
        # How many k have been done by whole vectors; single elements do the rest.
        done = writer.variable("i64", "0")
        contiguous = writer.op("icmp eq i64 %along, 1")
        with writer.when(writer.op(f"and i1 {full}, {contiguous}")):
            squares = writer.op(f"and i64 %k, {-lanes}")
            with writer.loop(0, squares, lanes, as_written=True) as position:
                _pack_square(writer, geometry, width, panel, source, position)
            done.set(squares)
        with writer.loop(done.get(), "%k", as_written=True) as position:
            target = writer.element(panel, type_, writer.multiply(position, width))
            column = writer.element(source, type_, writer.multiply(position, "%along"))
            with writer.loop(0, present, as_written=True) as row:
                address = writer.element(column, type_, writer.multiply(row, "%across"))
                value = writer.op(f"load {type_}, ptr {address}, align {size}")
                writer.line(f"store {type_} {value}, ptr {writer.element(target, type_, row)}, align {size}")
            with writer.loop(present, width, as_written=True) as row:
                writer.line(f"store {type_} 0.0, ptr {writer.element(target, type_, row)}, align {size}")
    return code("pack", writer)


def _pack_square(writer: Writer, geometry: Geometry, width: int, panel: str, source: str, position: str) -> None:
    """Transpose `lanes` steps of k, from `position`, of `width` rows that are contiguous in k.

    A width that is no multiple of the lanes writes past its row, over what the next row then overwrites.
    """
    type_, size, lanes = scalar_type(geometry.dtype), geometry.dtype.itemsize, geometry.lanes
    vector = f"<{lanes} x {type_}>"
    groups = []
    for start in range(0, width, lanes):
        rows = []
        for row in range(start, start + lanes):
            if row < width:
                address = writer.element(source, type_, writer.add(writer.multiply(row, "%across"), position))
                rows.append(writer.op(f"load {vector}, ptr {address}, align {size}"))
            else:
                rows.append("zeroinitializer")
        groups.append(transposed(writer, type_, rows))
    for step in range(lanes):
        target = writer.element(panel, type_, writer.multiply(writer.add(position, step), width))
        for number, group in enumerate(groups):
            address = writer.element(target, type_, number * lanes)
            writer.line(f"store {vector} {group[step]}, ptr {address}, align {size}")


@cache
def block_code(geometry: Geometry) -> Code:
    """`block(a, a_panel, a_row, a_k, a_back, b, b_panel, b_k, b_back, c, c_row, rows, columns, k, accumulate)`.

    C[:rows, :columns] = A @ B, plus what C holds where `accumulate` is not 0. Tile (i, j) reads its A at
    `a + i*a_panel` with strides `a_row` and `a_k`, and its B at `b + j*b_panel` with stride `b_k` from row to row.
    The last panel of a packed operand is padded; one read in place is not, and is told so by `a_back` or `b_back` = 1:
    its last tile then starts earlier by what is missing, and the elements computed twice are dropped.
    """
    type_, size = scalar_type(geometry.dtype), geometry.dtype.itemsize
    tile_rows, tile_columns = geometry.rows, geometry.columns
    micro = Writer(
        "micro",
        [
            "ptr %a",
            "i64 %a_row",
            "i64 %a_k",
            "ptr %b",
            "i64 %b_k",
            "ptr %c",
            "i64 %c_row",
            "i64 %k",
            "i1 %accumulate",
            "ptr %coming",
        ],
        result="internal void",
        attributes="nounwind noinline",
    )
    operands = Matrix("%a", "%a_row", "%a_k"), Matrix("%b", "%b_k", 1), Matrix("%c", "%c_row", 1)
    outer_tile(
        micro, geometry.dtype, [geometry.lanes] * 2, tile_rows, "%k", *operands, "%accumulate", UNROLL, "%coming"
    )

    names = ["a_panel", "a_row", "a_k", "a_back", "b_panel", "b_k", "b_back", "c_row", "rows", "columns", "k", "adds"]
    writer = Writer("block", ["ptr %a", "ptr %b", "ptr %c", *(f"i64 %{name}" for name in names)])
    spare = writer.allocate(type_, tile_rows * tile_columns)
    accumulate = writer.op("icmp ne i64 %adds, 0")

    def call(a: str, b: str, c: str, c_row: Size, adds: str, coming: str) -> None:
        writer.line(
            f"call void @micro(ptr {a}, i64 %a_row, i64 %a_k, ptr {b}, i64 %b_k, "
            f"ptr {c}, i64 {c_row}, i64 %k, i1 {adds}, ptr {coming})"
        )

    with writer.loop(0, "%columns", tile_columns, as_written=True) as j:
        j_present = writer.minimum(writer.subtract("%columns", j), tile_columns)
        j_back = writer.multiply("%b_back", writer.subtract(tile_columns, j_present))
        j_panel = writer.op(f"udiv exact i64 {j}, {tile_columns}")
        b = writer.element("%b", type_, writer.subtract(writer.multiply(j_panel, "%b_panel"), j_back))
        with writer.loop(0, "%rows", tile_rows, as_written=True) as i:
            i_present = writer.minimum(writer.subtract("%rows", i), tile_rows)
            i_back = writer.multiply("%a_back", writer.subtract(tile_rows, i_present))
            i_panel = writer.op(f"udiv exact i64 {i}, {tile_rows}")
            offset = writer.subtract(writer.multiply(i_panel, "%a_panel"), writer.multiply(i_back, "%a_row"))
            a = writer.element("%a", type_, offset)
            # Each row of tiles fetches a part of the next panel of B.
            part = writer.multiply(i_panel, writer.multiply("%k", 64 // UNROLL))
            coming = writer.element(writer.element(b, type_, "%b_panel"), "i8", part)
            c = Matrix("%c", "%c_row", 1).at(writer, type_, i, j)
            present = writer.multiply(i_present, j_present)
            whole = writer.op(f"icmp eq i64 {present}, {tile_rows * tile_columns}")
            with writer.when(whole):
                call(a, b, c, "%c_row", accumulate, coming)
            with writer.when(writer.op(f"xor i1 {whole}, true")):
                call(a, b, spare, tile_columns, "false", coming)
                rows = writer.loop(0, i_present, as_written=True)
                columns = writer.loop(0, j_present, as_written=True)
                with rows as row, columns as column:
                    source = Matrix(spare, tile_columns, 1).at(
                        writer, type_, writer.add(row, i_back), writer.add(column, j_back)
                    )
                    value = writer.variable(type_, writer.op(f"load {type_}, ptr {source}, align {size}"))
                    target = Matrix(c, "%c_row", 1).at(writer, type_, row, column)
                    with writer.when(accumulate):
                        old = writer.op(f"load {type_}, ptr {target}, align {size}")
                        value.set(writer.op(f"fadd {type_} {old}, {value.get()}"))
                    writer.line(f"store {type_} {value.get()}, ptr {target}, align {size}")
    return code("product_block", writer, micro)
