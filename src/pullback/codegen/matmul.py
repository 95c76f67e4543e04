"""Matrix products: which kernels compute C[batch, m, n] = sum over k of A[batch, m, k] * B[batch, k, n].

Two kinds of kernel. A *direct* one is specialized to its shape, reads its operands where they lie and is meant for
products that fit into the cache, or that are too thin to repay packing. A *packed* one copies blocks of both operands
into the order in which the register tile reads them, and calls code shared by all packed products. Either takes any
strides, so a transposed or sliced operand is never copied as a whole.

Work is cut into tasks by the shapes and the processor's caches alone, never by the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from ..graph.types import DType
from .matmul_packed import Geometry, block_code, pack_code
from .matmul_tile import Matrix, dot_tile, outer_tile, scalar_type
from .target import Target
from .text import Code, Writer, code

#: Floating-point operations below which a product is one task: two threads gain nothing on about a microsecond.
SINGLE_TASK = 131_072
#: Floating-point operations of one batch item up to which a direct kernel is at least as fast as a packed one.
DIRECT = 3_000_000
#: Up to how many panels of B a task reads A in place, by whether A is contiguous in k: packing a panel of A costs
#: about as much as multiplying it by one to three panels of B, and reading across its rows wastes more of each cache line.
IN_PLACE = {True: 16, False: 4}


@dataclass(frozen=True)
class Product:
    """One batched matrix product. Strides are in elements, zero where an operand is broadcast along a batch axis.

    `a_strides` are those of the batch axes, m and k; `b_strides` of the batch axes, k and n; `c_strides` of the batch
    axes and m: the rows of C are contiguous.
    """

    batch: tuple[int, ...]
    m: int
    n: int
    k: int
    a_strides: tuple[int, ...]
    b_strides: tuple[int, ...]
    c_strides: tuple[int, ...]
    dtype: DType

    @property
    def operations(self) -> int:
        """Floating-point operations of one batch item."""
        return 2 * self.m * self.n * self.k


@dataclass(frozen=True)
class Stage:
    """One launch: `tasks` independent calls of `code`.

    `operands` names what the argument slots hold: "a", "b", "c", "workspace", and "epilogue" for all slots that the
    epilogue asked for.
    """

    code: Code
    tasks: int
    operands: tuple[str, ...]
    scratch_bytes: int


class Epilogue(Protocol):
    """What is done to each tile of C after its last addition, while it is in the cache: bias, activation, residual.

    `slots` argument slots are reserved for it from `slot_base` on. `emit` writes loops over C[batch, m0:m1, n0:n1], all
    given as the SSA names (or decimal literals) of i64 values.
    """

    slots: int

    def emit(self, writer: Writer, slot_base: int, batch: list[str], m0: str, m1: str, n0: str, n1: str) -> None: ...


@dataclass(frozen=True)
class _Mirrored:
    """The epilogue of a product that is computed as its transpose."""

    inner: Epilogue

    @property
    def slots(self) -> int:
        return self.inner.slots

    def emit(self, writer: Writer, slot_base: int, batch: list[str], m0: str, m1: str, n0: str, n1: str) -> None:
        self.inner.emit(writer, slot_base, batch, n0, n1, m0, m1)


def product_stages(product: Product, target: Target, epilogue: Epilogue | None = None) -> tuple[list[Stage], int]:
    """The launches, in order, that compute `product`, and the bytes of workspace they share."""
    if 0 in (*product.batch, product.m, product.n):
        return [], 0
    geometry = Geometry(product.dtype, target.vector_bytes // product.dtype.itemsize, target.registers)
    if product.n == 1 and product.m > 1 and product.c_strides[-1] == 1:
        stages, workspace = product_stages(_mirrored(product), target, epilogue and _Mirrored(epilogue))
        names = {"a": "b", "b": "a"}
        return [
            replace(stage, operands=tuple(names.get(name, name) for name in stage.operands)) for stage in stages
        ], workspace
    if epilogue is None:
        product = folded(product)
    # A vector's stride is meaningless where there is one element; call it contiguous.
    if product.n == 1:
        product = replace(product, b_strides=(*product.b_strides[:-1], 1))
    if product.k == 1:
        product = replace(product, a_strides=(*product.a_strides[:-1], 1))
    thin = product.m <= geometry.rows or product.n <= geometry.lanes
    if product.operations <= DIRECT or thin or product.k < 8:
        return [_direct_stage(product, geometry, epilogue)], 0
    return _packed_stages(product, geometry, target, epilogue)


def _mirrored(product: Product) -> Product:
    """C^T = B^T A^T, for a product with one column: C is then one row."""
    *batch_a, row_a, column_a = product.a_strides
    *batch_b, row_b, column_b = product.b_strides
    return replace(
        product,
        m=product.n,
        n=product.m,
        a_strides=(*batch_b, column_b, row_b),
        b_strides=(*batch_a, column_a, row_a),
        c_strides=(*product.c_strides[:-1], 1),
    )


def folded(product: Product) -> Product:
    """`product` with the batch axes along which B does not change made part of m, where A and C allow it.

    Callers with an epilogue must do this themselves, before they build it, because it renames the indexes.
    """
    while product.batch and product.b_strides[-3] == 0:
        *outer_a, batch_a, row_a, column_a = product.a_strides
        *outer_c, batch_c, row_c = product.c_strides
        if batch_a != row_a * product.m or batch_c != row_c * product.m:
            return product
        product = replace(
            product,
            batch=product.batch[:-1],
            m=product.batch[-1] * product.m,
            a_strides=(*outer_a, row_a, column_a),
            b_strides=(*product.b_strides[:-3], *product.b_strides[-2:]),
            c_strides=(*outer_c, row_c),
        )
    return product


@dataclass(frozen=True)
class Grid:
    """How a product is cut into tasks: each takes `items` batch items, or `rows` x `columns` of C of one item."""

    product: Product
    items: int
    rows: int
    columns: int

    @property
    def row_tasks(self) -> int:
        return -(-self.product.m // self.rows)

    @property
    def column_tasks(self) -> int:
        return -(-self.product.n // self.columns)

    @property
    def tasks(self) -> int:
        return -(-math.prod(self.product.batch) // self.items) * self.row_tasks * self.column_tasks

    @contextmanager
    def region(self, writer: Writer) -> Iterator[tuple[list[str], str, str, str, str]]:
        """The batch index and the bounds m0, m1, n0, n1 of what %task is to compute."""
        rest = "%task"
        rest, n0, n1 = _share(writer, rest, self.column_tasks, self.columns, self.product.n)
        rest, m0, m1 = _share(writer, rest, self.row_tasks, self.rows, self.product.m)
        total = math.prod(self.product.batch)
        if self.items == 1:
            yield _batch_index(writer, self.product.batch, rest), m0, m1, n0, n1
        else:
            start = writer.multiply(rest, self.items)
            with writer.loop(start, writer.minimum(writer.add(start, self.items), total)) as item:
                yield _batch_index(writer, self.product.batch, item), m0, m1, n0, n1


def _share(writer: Writer, task: str, parts: int, length: int, total: int) -> tuple[str, str, str]:
    """What remains of the task number after its lowest digit, of base `parts`; and that digit's share of `total`."""
    if parts == 1:
        return task, "0", str(total)
    rest, digit = writer.divide(task, parts)
    start = writer.multiply(digit, length)
    return rest, start, writer.minimum(writer.add(start, length), total)


def _batch_index(writer: Writer, batch: tuple[int, ...], item: str) -> list[str]:
    """The index along each batch axis of the batch item number `item`."""
    index: list[str] = []
    for size in reversed(batch):
        item, digit = writer.divide(item, size)
        index.insert(0, digit)
    return index


def _operand(writer: Writer, type_: str, slot: int, index: list[str], strides: tuple[int, ...]) -> Matrix:
    """The matrix of one batch item of the operand in argument slot `slot`."""
    pointer = writer.argument(slot)
    for position, stride in zip(index, strides, strict=False):
        pointer = writer.element(pointer, type_, writer.multiply(position, stride))
    return Matrix(pointer, *strides[len(index) :])


def _offset(writer: Writer, type_: str, matrix: Matrix, row: str | int, column: str | int) -> Matrix:
    """`matrix` without its first `row` rows and `column` columns."""
    return replace(matrix, pointer=matrix.at(writer, type_, row, column))


# ---------------------------------------------------------------------------------------------- direct kernels


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


def _direct_stage(product: Product, geometry: Geometry, epilogue: Epilogue | None) -> Stage:
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
    grid = _direct_grid(product, tiling)

    needs: tuple[Code, ...] = ()
    scratch = 0
    if pack:
        needs = (pack_code(geometry, tiling.columns),)
        panels = -(-grid.columns // tiling.columns)
        scratch = panels * tiling.columns * product.k * product.dtype.itemsize + geometry.slack

    type_ = scalar_type(product.dtype)
    writer = _kernel()
    with grid.region(writer) as (index, m0, m1, n0, n1):
        a, b, c = (
            _operand(writer, type_, slot, index, strides)
            for slot, strides in enumerate((product.a_strides, product.b_strides, (*product.c_strides, 1)))
        )
        if pack:
            _emit_pack(
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
                    right = _offset(writer, type_, b, 0, column)
                for i, height in _pieces(writer, m0, m1, product.m, tiling.rows):
                    with i as row:
                        left, result = _offset(writer, type_, a, row, 0), _offset(writer, type_, c, row, column)
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


def _direct_grid(product: Product, tiling: _Tiling) -> Grid:
    """Tasks of about SINGLE_TASK operations: whole batch items first, then rows of tiles, then columns of tiles."""
    items = math.prod(product.batch)
    wanted = max(1, min(64, items * product.operations // SINGLE_TASK))
    if items >= wanted:
        return Grid(product, -(-items // wanted), product.m, product.n)
    parts = -(-wanted // items)
    row_tiles, column_tiles = -(-product.m // tiling.rows), -(-product.n // tiling.columns)
    if row_tiles >= column_tiles:
        return Grid(product, 1, tiling.rows * -(-row_tiles // min(parts, row_tiles)), product.n)
    return Grid(product, 1, product.m, tiling.columns * -(-column_tiles // min(parts, column_tiles)))


# ---------------------------------------------------------------------------------------------- packed kernels


def _packed_stages(
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

    writer = _kernel()
    writer.declare(f"declare void @{block.name}({', '.join(['ptr'] * 3 + ['i64'] * 12)})")
    with grid.region(writer) as (index, m0, m1, n0, n1):
        a, b, c = (
            _operand(writer, type_, slot, index, strides)
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
                _emit_pack(writer, pack_a, "%scratch", left, a.row, a.column, rows, length)
                left = "%scratch"
                panel = writer.multiply(length, geometry.rows)
                a_place = [f"i64 {panel}", "i64 1", f"i64 {geometry.rows}", "i64 0"]
            if shared:
                offset = writer.add(writer.multiply(start, columns), writer.multiply(n0, length))
                right = writer.element(packed_b, type_, offset)
            else:
                _emit_pack(writer, pack_b, packed_b, b.at(writer, type_, start, n0), b.column, b.row, width, length)
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
    items = math.prod(product.batch)
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
    writer = _kernel()
    with grid.region(writer) as (index, k0, k1, n0, n1):
        b = _operand(writer, type_, 0, index, strides)
        start = _packed_item(writer, source, type_, writer.argument(1), index, columns)
        length = writer.subtract(k1, k0)
        offset = writer.add(writer.multiply(k0, columns), writer.multiply(n0, length))
        to = writer.element(start, type_, offset)
        _emit_pack(writer, pack, to, b.at(writer, type_, k0, n0), b.column, b.row, writer.subtract(n1, n0), length)
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


def _kernel() -> Writer:
    """An empty kernel, in the calling convention of all kernels."""
    return Writer("kernel", ["ptr %args", "ptr %scratch", "i64 %task"])


def _emit_pack(
    writer: Writer,
    pack: Code,
    to: str,
    source: str,
    across: str | int,
    along: str | int,
    count: str | int,
    k: str | int,
) -> None:
    """Call the shared packing function `pack` (see `pack_code` for the arguments)."""
    writer.declare(f"declare void @{pack.name}(ptr, ptr, i64, i64, i64, i64)")
    arguments = f"ptr {to}, ptr {source}, i64 {across}, i64 {along}, i64 {count}, i64 {k}"
    writer.line(f"call void @{pack.name}({arguments})")
