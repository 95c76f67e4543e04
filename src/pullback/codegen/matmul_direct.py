"""Direct kernels: specialized to one shape, for products that fit into the cache or are too thin to repay packing.

Operands are read where they lie. Only a B whose rows are not contiguous is transposed first, into the task's scratch
memory, unless A has so few rows that dot products along k are cheaper.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from .matmul_packed import Geometry, pack_code
from .matmul_tasks import Epilogue, Grid, Product, Stage, emit_pack, kernel, offset_matrix, operand
from .matmul_tile import Matrix, dot_tile, outer_tile, scalar_type
from .text import Code, Writer, code

#: Floating-point operations below which a product is one task: two threads gain nothing on about a microsecond.
SINGLE_TASK = 131_072


@dataclass(frozen=True)
class _Tiling:
    """The register tile of a direct kernel: `rows` x `columns` elements, and its estimated cycles per step of k."""

    rows: int
    columns: int
    cycles: float


def _outer_tiling(product: Product, geometry: Geometry) -> _Tiling:
    """The tile shape that needs the fewest cycles, counting two fused multiply-adds or loads to a cycle.

    Four cycles at least, because each addition to an accumulator waits for the one before.
    """

    def cycles(rows: int, vectors: int) -> float:
        return max(rows * vectors / 2, (rows + vectors) / 2, 4) + (8 + rows * vectors) / max(product.k, 1)

    def pieces(total: int, size: int) -> list[tuple[int, int]]:
        """(count, size) of the whole pieces and of the rest."""
        return [(total // size, size), (1 if total % size else 0, total % size)]

    best = None
    vectors_in_row = -(-product.n // geometry.lanes)
    for rows in range(1, min(product.m, geometry.rows * 2) + 1):
        for vectors in range(1, min(vectors_in_row, 8) + 1):
            if rows * vectors + (vectors if rows > 1 else 1) + 1 > geometry.registers:
                continue
            total = sum(
                row_count * column_count * cycles(row_size, column_size)
                for row_count, row_size in pieces(product.m, rows)
                for column_count, column_size in pieces(vectors_in_row, vectors)
                if row_count and column_count
            )
            if best is None or total < best.cycles:
                best = _Tiling(rows, vectors * geometry.lanes, total)
    assert best is not None
    return best


def direct_stage(product: Product, geometry: Geometry, epilogue: Epilogue | None) -> Stage:
    """A product in one launch of a kernel of its own shape."""
    *_, b_k, b_n = product.b_strides
    a_k = product.a_strides[-1]
    use_dot = b_n != 1 and b_k == 1 and a_k == 1 and product.m <= 8 and product.k >= geometry.lanes
    pack = b_n != 1 and not use_dot
    if use_dot:
        group = 16 // product.dtype.itemsize
        rows = min(product.m, 2 if geometry.registers < 32 else 4)
        tiling = _Tiling(rows, group * (2 if rows == 1 else 1), 0.0)
    else:
        tiling = _outer_tiling(product, geometry)
    grid = _direct_grid(product, tiling, pack)

    needs: tuple[Code, ...] = ()
    scratch = 0
    if pack:
        needs = (pack_code(geometry, tiling.columns),)
        panels = -(-grid.columns // tiling.columns)
        scratch = panels * tiling.columns * product.k * product.dtype.itemsize + geometry.slack

    type_ = scalar_type(product.dtype)
    writer = kernel()
    with grid.region(writer) as (index, m0, m1, n0, n1):
        a, b, c = (
            operand(writer, type_, slot, index, strides)
            for slot, strides in enumerate((product.a_strides, product.b_strides, (*product.c_strides, 1)))
        )
        if pack:
            emit_pack(
                writer,
                needs[0],
                "%scratch",
                b.at(writer, type_, 0, n0),
                b.column,
                b.row,
                writer.subtract(n1, n0),
                product.k,
            )
        for j, width in _pieces(writer, n0, n1, product.n, tiling.columns):
            with j as column:
                if pack:
                    start = writer.multiply(writer.subtract(column, n0), product.k)
                    right = Matrix(writer.element("%scratch", type_, start), tiling.columns, 1)
                else:
                    right = offset_matrix(writer, type_, b, 0, column)
                for i, height in _pieces(writer, m0, m1, product.m, tiling.rows):
                    with i as row:
                        left, result = (
                            offset_matrix(writer, type_, a, row, 0),
                            offset_matrix(writer, type_, c, row, column),
                        )
                        if use_dot:
                            dot_tile(
                                writer, product.dtype, geometry.lanes, height, width, product.k, left, right, result
                            )
                        else:
                            widths = [geometry.lanes] * (width // geometry.lanes)
                            widths += [width % geometry.lanes] if width % geometry.lanes else []
                            outer_tile(writer, product.dtype, widths, height, product.k, left, right, result)
        if epilogue is not None:
            epilogue.emit(writer, 3, index, m0, m1, n0, n1)
    operands = ("a", "b", "c") if epilogue is None else ("a", "b", "c", "epilogue")
    return Stage(code("product", writer, needs=needs), grid.tasks, operands, scratch)


def _pieces(
    writer: Writer, start: str, stop: str, total: int, size: int
) -> Iterator[tuple[AbstractContextManager[str], int]]:
    """The loop over whole pieces of `size` in start..stop, and the smaller piece at the end of `total` if any.

    Each comes as a context that gives the position, with its size. `start` must be a multiple of `size`.
    """
    whole = total - total % size
    if whole:
        bound = str(whole) if stop == str(total) else writer.minimum(stop, whole)
        yield writer.loop(start, bound, size, as_written=True), size
    if total % size:

        @contextmanager
        def rest() -> Iterator[str]:
            with writer.when(writer.op(f"icmp eq i64 {stop}, {total}")):
                yield str(whole)

        yield rest(), total % size


def _direct_grid(product: Product, tiling: _Tiling, pack: bool) -> Grid:
    """Tasks of about SINGLE_TASK operations: whole batch items first, then rows or columns of tiles.

    A task that packs B packs all the columns it uses, so few rows are not divided further.
    """
    items = math.prod(product.batch)
    wanted = max(1, min(64, items * product.operations // SINGLE_TASK))
    if items >= wanted:
        return Grid(product, -(-items // wanted), product.m, product.n)
    parts = -(-wanted // items)
    row_tiles, column_tiles = -(-product.m // tiling.rows), -(-product.n // tiling.columns)
    repeats_packing = pack and product.m < 64 * parts and column_tiles > 1
    if row_tiles >= column_tiles and not repeats_packing:
        return Grid(product, 1, tiling.rows * -(-row_tiles // min(parts, row_tiles)), product.n)
    return Grid(product, 1, product.m, tiling.columns * -(-column_tiles // min(parts, column_tiles)))
