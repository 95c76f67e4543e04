"""The part that all large matrix products share: the product of packed blocks.

The scheme is that of Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008), in the form of
Van Zee and van de Geijn's BLIS (2015): A is cut into panels of `rows` rows, B into panels of `columns` columns, so that
one register tile of C reads both in the order they lie in memory. A block of A stays in the L2 cache while a panel of B
stays in L1. Sizes are arguments, so one compiled copy serves every product of a dtype.
"""

from __future__ import annotations

from functools import cache

from ..graph.types import bfloat16, int64
from .arithmetic import LLVMArithmetic
from .matmul_pack import Geometry
from .matmul_tile import Matrix, Size, outer_tile
from .registers import Value
from .text import Code, Writer, code

#: Steps of k that the register tile takes at a time.
UNROLL = 4


@cache
def block_code(geometry: Geometry, rounds: bool = False) -> Code:
    """`block(a, b, c, c_row, rows, columns, units, accumulate)`.

    C[:rows, :columns] = A @ B of packed operands, plus what C holds where `accumulate` is not 0; the rows of C are
    `c_row` elements apart. With `rounds` C is bfloat16 and nothing can be added to it.
    """
    return _Block(geometry, rounds).code()


class _Block:
    """The function `block`, and the register tiles that it calls: `tiles[rows, columns]`."""

    def __init__(self, geometry: Geometry, rounds: bool):
        self.geometry, self.rounds = geometry, rounds
        self.type = "i16" if rounds else geometry.unit_type
        self.tiles = {
            (rows, columns): _tile(geometry, rows, columns, rounds)
            for rows in range(geometry.row_step, geometry.rows + 1, geometry.row_step)
            for columns in range(geometry.column_step, geometry.columns + 1, geometry.column_step)
        }
        names = ["c_row", "rows", "columns", "units", "adds"]
        self.writer = Writer("block", ["ptr %a", "ptr %b", "ptr %c", *(f"i64 %{name}" for name in names)])

    def code(self) -> Code:
        writer, geometry, type_ = self.writer, self.geometry, self.geometry.unit_type
        height, width = geometry.rows, geometry.columns
        self.spare = writer.allocate(self.type, height * width)
        self.accumulate = writer.op("icmp ne i64 %adds, 0")
        with writer.loop(0, "%columns", width, as_written=True) as j:
            across = writer.minimum(writer.subtract("%columns", j), width)
            b = writer.element("%b", type_, writer.multiply(j, "%units"))
            next_b = writer.element(b, type_, writer.multiply(width, "%units"))
            with writer.loop(0, "%rows", height, as_written=True) as i:
                down = writer.minimum(writer.subtract("%rows", i), height)
                a = writer.element("%a", type_, writer.multiply(i, "%units"))
                # Each row of tiles fetches a part of the next panel of B.
                part = writer.multiply(writer.op(f"udiv exact i64 {i}, {height}"), 64 // UNROLL)
                coming = writer.element(next_b, "i8", writer.multiply(part, "%units"))
                operands = f"ptr {a}, ptr {b}"
                c = Matrix("%c", "%c_row", 1).at(writer, self.type, i, j)
                whole = writer.op(f"icmp eq i64 {writer.multiply(down, across)}, {height * width}")
                with writer.when(whole):
                    self._call((height, width), operands, c, "%c_row", self.accumulate, coming)
                with writer.when(writer.op(f"xor i1 {whole}, true")):
                    self._edge(operands, c, down, across, coming)
        return code("product_block", writer, *self.tiles.values())

    def _edge(self, operands: str, c: str, down: str, across: str, coming: str) -> None:
        """`down` rows by `across` columns: the smallest tile that covers them, what C lacks of it computed aside."""
        writer, geometry = self.writer, self.geometry
        row_step, column_step = geometry.row_step, geometry.column_step
        row_steps = writer.divide(writer.add(down, row_step - 1), row_step)[0]
        column_steps = writer.divide(writer.add(across, column_step - 1), column_step)[0]
        covered = writer.multiply(writer.multiply(row_steps, column_steps), row_step * column_step)
        exact = writer.op(f"icmp eq i64 {writer.multiply(down, across)}, {covered}")
        to = writer.op(f"select i1 {exact}, ptr {c}, ptr {self.spare}")
        to_row = writer.op(f"select i1 {exact}, i64 %c_row, i64 {geometry.columns}")
        adds = writer.op(f"and i1 {exact}, {self.accumulate}")
        for rows, columns in self.tiles:
            fits = (
                writer.op(f"icmp eq i64 {row_steps}, {rows // row_step}"),
                writer.op(f"icmp eq i64 {column_steps}, {columns // column_step}"),
            )
            with writer.when(writer.op(f"and i1 {fits[0]}, {fits[1]}")):
                self._call((rows, columns), operands, to, to_row, adds, coming)
        with writer.when(writer.op(f"xor i1 {exact}, true")):
            self._copy_tile(Matrix(c, "%c_row", 1), down, across)

    def _copy_tile(self, c: Matrix, rows: str, columns: str) -> None:
        """The first `rows` rows and `columns` columns of the spare tile, to C or added to it."""
        writer, geometry, lanes = self.writer, self.geometry, self.geometry.lanes
        dtype = bfloat16 if self.rounds else geometry.dtype
        a = LLVMArithmetic(writer, lanes)
        masks = [
            a.lt(a.iota(int64), a.broadcast(Value(writer.subtract(columns, start), int64)))
            for start in range(0, geometry.columns, lanes)
        ]
        with writer.loop(0, rows, as_written=True) as row:
            for number, mask in enumerate(masks):
                source = Matrix(self.spare, geometry.columns, 1).at(writer, self.type, row, number * lanes)
                target = c.at(writer, self.type, row, number * lanes)
                value = a.load(source, dtype)
                if not self.rounds:
                    total = writer.variable(a.llvm_type(dtype), value.ref)
                    with writer.when(self.accumulate):
                        held = a.masked_load(target, dtype, mask, a.constant(0, dtype))
                        total.set(a.add(held, value).ref)
                    value = Value(total.get(), dtype)
                a.masked_store(value, target, dtype, mask)

    def _call(self, tile: tuple[int, int], operands: str, c: str, c_row: Size, adds: str, coming: str) -> None:
        arguments = f"{operands}, ptr {c}, i64 {c_row}, i64 %units, i1 {adds}, ptr {coming}"
        self.writer.line(f"call void @{self.tiles[tile].name}({arguments})")


def _tile(geometry: Geometry, rows: int, columns: int, rounds: bool) -> Writer:
    """`tile(a, b, c, c_row, units, accumulate, coming)`: the first rows and columns of a panel of A by one of B."""
    name = f"tile_{rows}_by_{columns}"
    parameters = ["ptr %a", "ptr %b", "ptr %c", "i64 %c_row", "i64 %units", "i1 %accumulate", "ptr %coming"]
    tile = Writer(name, parameters, result="internal void", attributes="nounwind noinline")
    # A smaller tile is for the edges alone, and is kept short.
    unroll, coming = (UNROLL, "%coming") if (rows, columns) == (geometry.rows, geometry.columns) else (1, None)
    widths = [min(geometry.lanes, columns - start) for start in range(0, columns, geometry.lanes)]
    outer_tile(
        tile, geometry.dtype, widths, rows, "%units",
        Matrix("%a", 1, geometry.rows), Matrix("%b", geometry.columns, 1), Matrix("%c", "%c_row", 1),
        None if rounds else "%accumulate", unroll, coming, geometry.pairs, rounds=rounds,
    )  # fmt: skip
    return tile
