"""The part that all large matrix products share: the product of packed blocks.

The scheme is that of Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008), in the form of
Van Zee and van de Geijn's BLIS (2015): A is cut into panels of `rows` rows, B into panels of `columns` columns, so that
one register tile of C reads both in the order they lie in memory. A block of A stays in the L2 cache while a panel of B
stays in L1. Sizes are arguments, so one compiled copy serves every product of a dtype.
"""

from __future__ import annotations

from functools import cache

from ..graph.types import int64
from .arithmetic import LLVMArithmetic, Value
from .matmul_pack import Geometry
from .matmul_tile import Matrix, Size, outer_tile
from .text import Code, Writer, code

#: Steps of k that the register tile takes at a time.
UNROLL = 4


@cache
def block_code(geometry: Geometry) -> Code:
    """`block(a, b, c, c_row, rows, columns, units, accumulate)`.

    C[:rows, :columns] = A @ B of packed operands, plus what C holds where `accumulate` is not 0; the rows of C are
    `c_row` elements apart.
    """
    micro = _micro(geometry)
    type_, tile_rows, tile_columns = geometry.unit_type, geometry.rows, geometry.columns
    names = ["c_row", "rows", "columns", "units", "adds"]
    writer = Writer("block", ["ptr %a", "ptr %b", "ptr %c", *(f"i64 %{name}" for name in names)])
    spare = writer.allocate(type_, tile_rows * tile_columns)
    accumulate = writer.op("icmp ne i64 %adds, 0")

    def call(a: str, b: str, c: str, c_row: Size, adds: str, coming: str) -> None:
        writer.line(f"call void @micro(ptr {a}, ptr {b}, ptr {c}, i64 {c_row}, i64 %units, i1 {adds}, ptr {coming})")

    with writer.loop(0, "%columns", tile_columns, as_written=True) as j:
        j_present = writer.minimum(writer.subtract("%columns", j), tile_columns)
        b = writer.element("%b", type_, writer.multiply(j, "%units"))
        next_b = writer.element(b, type_, writer.multiply(tile_columns, "%units"))
        with writer.loop(0, "%rows", tile_rows, as_written=True) as i:
            i_present = writer.minimum(writer.subtract("%rows", i), tile_rows)
            a = writer.element("%a", type_, writer.multiply(i, "%units"))
            # Each row of tiles fetches a part of the next panel of B.
            i_panel = writer.op(f"udiv exact i64 {i}, {tile_rows}")
            coming = writer.element(next_b, "i8", writer.multiply(i_panel, writer.multiply("%units", 64 // UNROLL)))
            c = Matrix("%c", "%c_row", 1).at(writer, type_, i, j)
            present = writer.multiply(i_present, j_present)
            whole = writer.op(f"icmp eq i64 {present}, {tile_rows * tile_columns}")
            with writer.when(whole):
                call(a, b, c, "%c_row", accumulate, coming)
            with writer.when(writer.op(f"xor i1 {whole}, true")):
                call(a, b, spare, tile_columns, "false", coming)
                _copy_tile(writer, geometry, spare, Matrix(c, "%c_row", 1), i_present, j_present, accumulate)
    return code("product_block", writer, micro)


def _micro(geometry: Geometry) -> Writer:
    """`micro(a, b, c, c_row, units, accumulate, coming)`: one register tile from a panel of A and a panel of B."""
    micro = Writer(
        "micro",
        ["ptr %a", "ptr %b", "ptr %c", "i64 %c_row", "i64 %units", "i1 %accumulate", "ptr %coming"],
        result="internal void",
        attributes="nounwind noinline",
    )
    outer_tile(
        micro, geometry.dtype, [geometry.lanes] * 2, geometry.rows, "%units",
        Matrix("%a", 1, geometry.rows), Matrix("%b", geometry.columns, 1), Matrix("%c", "%c_row", 1),
        "%accumulate", UNROLL, "%coming", geometry.pairs,
    )  # fmt: skip
    return micro


def _copy_tile(
    writer: Writer, geometry: Geometry, tile: str, c: Matrix, rows: str, columns: str, accumulate: str
) -> None:
    """The first `rows` rows and `columns` columns of a register tile in memory, to C or added to it."""
    lanes, dtype = geometry.lanes, geometry.dtype
    a = LLVMArithmetic(writer, lanes)
    masks = [
        a.lt(a.iota(int64), a.broadcast(Value(writer.subtract(columns, start), int64)))
        for start in range(0, geometry.columns, lanes)
    ]
    with writer.loop(0, rows, as_written=True) as row:
        for number, mask in enumerate(masks):
            source = Matrix(tile, geometry.columns, 1).at(writer, geometry.unit_type, row, number * lanes)
            target = c.at(writer, geometry.unit_type, row, number * lanes)
            value = writer.variable(a.llvm_type(dtype), a.load(source, dtype).ref)
            with writer.when(accumulate):
                held = a.masked_load(target, dtype, mask, a.constant(0, dtype))
                value.set(a.add(held, Value(value.get(), dtype)).ref)
            a.masked_store(Value(value.get(), dtype), target, dtype, mask)
