"""Packed kernels: large products cut into blocks, copied into the order in which the register tile reads them.

One such kernel is small: it packs and calls code that all products of a dtype share (see `matmul_packed`).
"""

from __future__ import annotations

import math
from dataclasses import replace

from .matmul_packed import Geometry, block_code, pack_code
from .matmul_tasks import Epilogue, Grid, Product, Stage, emit_pack, kernel, operand
from .matmul_tile import scalar_type
from .target import Target
from .text import Writer, code

#: Up to how many panels of B a task reads A in place, by whether A is contiguous in k: packing a panel of A costs
#: about as much as multiplying it by one to three panels of B, and reading across its rows uses
#: less of each cache line.
IN_PLACE = {True: 16, False: 4}


def packed_stages(
    product: Product, geometry: Geometry, target: Target, epilogue: Epilogue | None
) -> tuple[list[Stage], int]:
    """A product by blocks: B is packed once for all tasks where several share it, else by the task that uses it."""
    type_, size = scalar_type(product.dtype), product.dtype.itemsize
    # A panel of B should take most of the L1 cache but leave room for the panel of A that passes by.
    depth = max(64, target.l1 * 3 // 4 // (geometry.columns * size))
    depth = -(-product.k // -(-product.k // depth))
    depth = -(-depth // geometry.lanes) * geometry.lanes
    grid = _packed_grid(product, geometry, target, depth)
    shared = grid.row_tasks > 1 or 0 in product.b_strides[: len(product.batch)]
    # Read in place A should be read once: row panels are then the outer loop, and B must stay in the L2 cache.
    few_columns = grid.columns <= IN_PLACE[product.a_strides[-1] == 1] * geometry.columns
    in_place = few_columns and depth * grid.columns * size <= target.l2 // 2

    pack_a, pack_b, block = (
        pack_code(geometry, geometry.rows),
        pack_code(geometry, geometry.columns),
        block_code(geometry),
    )
    a_bytes = 0 if in_place else -(-grid.rows // geometry.rows) * geometry.rows * depth * size
    a_bytes = -(-(a_bytes + geometry.slack) // 64) * 64
    b_bytes = 0 if shared else -(-grid.columns // geometry.columns) * geometry.columns * depth * size + geometry.slack
    columns = -(-product.n // geometry.columns) * geometry.columns

    stages, workspace = [], 0
    if shared:
        stage, workspace = _pack_stage(product, geometry, depth)
        stages.append(stage)

    writer = kernel()
    writer.declare(f"declare void @{block.name}({', '.join(['ptr'] * 3 + ['i64'] * 12)})")
    with grid.region(writer) as (index, m0, m1, n0, n1):
        a, b, c = (
            operand(writer, type_, slot, index, strides)
            for slot, strides in enumerate((product.a_strides, product.b_strides, (*product.c_strides, 1)))
        )
        rows, width = writer.subtract(m1, m0), writer.subtract(n1, n0)
        if shared:
            packed_b = _packed_item(writer, product, type_, writer.argument(3), index, columns)
        else:
            packed_b = writer.element("%scratch", "i8", a_bytes)
        result = c.at(writer, type_, m0, n0)
        with writer.loop(0, product.k, depth, as_written=True) as start:
            length = writer.minimum(writer.subtract(product.k, start), depth)
            left = a.at(writer, type_, m0, start)
            if in_place:
                a_place = ["i64 0", f"i64 {a.row}", f"i64 {a.column}", "i64 1"]
            else:
                emit_pack(writer, pack_a, "%scratch", left, a.row, a.column, rows, length)
                left = "%scratch"
                panel = writer.multiply(length, geometry.rows)
                a_place = [f"i64 {panel}", "i64 1", f"i64 {geometry.rows}", "i64 0"]
            if shared:
                offset = writer.add(writer.multiply(start, columns), writer.multiply(n0, length))
                right = writer.element(packed_b, type_, offset)
            else:
                emit_pack(writer, pack_b, packed_b, b.at(writer, type_, start, n0), b.column, b.row, width, length)
                right = packed_b
            b_place = [f"i64 {writer.multiply(length, geometry.columns)}", f"i64 {geometry.columns}", "i64 0"]
            adds = writer.op(f"zext i1 {writer.op(f'icmp sgt i64 {start}, 0')} to i64")

            def multiply(left: str, result: str, rows: str) -> None:
                sizes = [f"i64 {value}" for value in (c.row, rows, width, length, adds)]
                arguments = ", ".join([f"ptr {left}", f"ptr {right}", f"ptr {result}", *a_place, *b_place, *sizes])
                writer.line(f"call void @{block.name}({arguments})")

            if in_place:
                with writer.loop(0, rows, geometry.rows, as_written=True) as i:
                    few = writer.minimum(writer.subtract(rows, i), geometry.rows)
                    multiply(
                        a.at(writer, type_, writer.add(m0, i), start), c.at(writer, type_, writer.add(m0, i), n0), few
                    )
            else:
                multiply(left, result, rows)
        if epilogue is not None:
            epilogue.emit(writer, 4 if shared else 3, index, m0, m1, n0, n1)
    operands = ("a", "b", "c") + (("workspace",) if shared else ()) + (("epilogue",) if epilogue is not None else ())
    needs = tuple(need for need, used in ((pack_a, not in_place), (pack_b, not shared), (block, True)) if used)
    stages.append(Stage(code("product", writer, needs=needs), grid.tasks, operands, a_bytes + b_bytes))
    return stages, workspace


def _packed_grid(product: Product, geometry: Geometry, target: Target, depth: int) -> Grid:
    """The blocks of C that cost least, on average over machines of 2, 4 and 8 threads.

    Counted in cycles per step of k: the tiles at two vector operations a cycle, the packing of A, fetching B from the
    outer caches (and packing it, where that is the task's own), and idle threads while the last tasks run.
    """
    size = product.dtype.itemsize
    row_panels, column_panels = -(-product.m // geometry.rows), -(-product.n // geometry.columns)
    most_rows = max(1, target.l2 // 2 // (depth * size * geometry.rows))
    heights = {min(height, row_panels) for height in range(1, most_rows + 1)}
    if _is_item_sized(product, depth, target):
        heights.add(row_panels)
    widths = {-(-column_panels // parts) for parts in range(1, 17)}
    best: tuple[float, Grid] | None = None
    for height in heights:
        for width in widths:
            rows, columns = height * geometry.rows, width * geometry.columns
            if rows * columns * size > 2 * target.l2 and width > min(widths):
                continue
            grid = Grid(product, 1, rows, columns)
            cycles = rows * columns / (2 * geometry.lanes) + 3 * rows + 0.6 * columns + 1000 / product.k
            shared = 3000 / product.k + 0.5 * product.n if grid.row_tasks > 1 else 0
            cost = sum(-(-grid.tasks // threads) * threads * cycles + threads * shared for threads in (2, 4, 8))
            if best is None or cost < best[0]:
                best = cost, grid
    assert best is not None
    return best[1]


def _is_item_sized(product: Product, depth: int, target: Target) -> bool:
    """Whether one task may compute a whole batch item: its packed B then fits into half of the L2 cache."""
    return depth * product.n * product.dtype.itemsize <= target.l2 // 2


def _pack_stage(product: Product, geometry: Geometry, depth: int) -> tuple[Stage, int]:
    """The launch that packs all of B into the workspace, and the workspace's size in bytes.

    It is laid out as [item of B][block of k][panel][k in the block][column in the panel].
    """
    type_, size = scalar_type(product.dtype), product.dtype.itemsize
    pack = pack_code(geometry, geometry.columns)
    strides = product.b_strides
    batch = tuple(1 if stride == 0 else size for size, stride in zip(product.batch, strides, strict=False))
    columns = -(-product.n // geometry.columns) * geometry.columns
    items = math.prod(batch)
    # Tasks of some 8,000 elements, a few microseconds.
    panels = max(1, 8_192 // (depth * geometry.columns))
    source = replace(product, batch=batch, m=product.k)
    grid = Grid(source, 1, depth, panels * geometry.columns)
    writer = kernel()
    with grid.region(writer) as (index, k0, k1, n0, n1):
        b = operand(writer, type_, 0, index, strides)
        start = _packed_item(writer, source, type_, writer.argument(1), index, columns)
        length = writer.subtract(k1, k0)
        offset = writer.add(writer.multiply(k0, columns), writer.multiply(n0, length))
        to = writer.element(start, type_, offset)
        emit_pack(writer, pack, to, b.at(writer, type_, k0, n0), b.column, b.row, writer.subtract(n1, n0), length)
    workspace = items * columns * product.k * size + geometry.slack
    return Stage(code("pack_product", writer, needs=(pack,)), grid.tasks, ("b", "workspace"), 0), workspace


def _packed_item(writer: Writer, product: Product, type_: str, workspace: str, index: list[str], columns: int) -> str:
    """The address in the workspace of the packed B of the batch item `index`."""
    stride = columns * product.k
    for position, size, b_stride in reversed(list(zip(index, product.batch, product.b_strides, strict=False))):
        if b_stride != 0:
            workspace = writer.element(workspace, type_, writer.multiply(position, stride))
            stride *= size
    return workspace
