"""Direct kernels: specialized to one shape, for products that fit into the cache or are too thin to repay packing.

Operands are read where they lie. Only a B whose rows are not contiguous is transposed first, into the task's scratch
memory, unless A has so few rows that dot products along k are cheaper. Operands of 16 bits are widened, save for dot
products of bfloat16 where the processor multiplies pairs of these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace

from ..graph.types import bfloat16
from .arithmetic import LLVMArithmetic
from .matmul_pack import Geometry, pack_code
from .matmul_slices import sliced_product, with_sum
from .matmul_tasks import (
    Epilogue,
    Grid,
    Product,
    Region,
    Stage,
    aligned,
    emit_pack,
    kernel,
    offset_matrix,
    operand,
    stored_type,
)  # fmt: skip
from .matmul_tile import Element, Matrix, Size, dot_tile, joined, outer_tile, scalar_type
from .registers import Value
from .text import Writer, code

#: Floating-point operations below which a product is one task: two threads gain nothing on about a microsecond.
SINGLE_TASK = 131_072
#: The k of one slice, about, of a sum over k of more than twice that: what a task of two rows reads in microseconds.
SLICE = 16_384
#: Elements of C that one task keeps until its epilogue, at most about.
_TILE_ELEMENTS = 65_536


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
    for rows in range(1, min(product.task_rows or product.m, geometry.rows * 2) + 1):
        if product.task_rows % rows:
            continue
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


def direct_stages(product: Product, geometry: Geometry, epilogue: Epilogue | None) -> tuple[list[Stage], int]:
    """A product in one launch of a kernel of its own shape, and the bytes of workspace that it needs.

    Where B is the same for many products, a launch before it packs B into the workspace, once for all of them. A long
    sum over k is computed in slices, and a launch after it adds these.
    """
    if product.k < 2 * SLICE:
        return _Direct(product, geometry, epilogue).stages()
    length = -(-product.k // (product.k // SLICE) // 64) * 64
    slices = -(-product.k // length)
    sliced = sliced_product(product, slices, length)
    stages, _ = _Direct(sliced, geometry, None, product.k - (slices - 1) * length).stages()
    return with_sum(stages, product, geometry, slices, epilogue)


class _Direct:
    """One direct kernel: what it does about its operands, and its code. `last` is the k of the last item of the first
    batch axis, where that is not `product.k`."""

    def __init__(self, product: Product, geometry: Geometry, epilogue: Epilogue | None, last: int | None = None):
        self.product, self.epilogue = product, epilogue
        self.lengths = [product.k] if last in (None, product.k) else [product.k, last]
        by_pairs, geometry = geometry.pairs, replace(geometry, pairs=False)
        self.geometry = geometry
        *_, b_k, b_n = product.b_strides
        a_k = product.a_strides[-1]
        #: along k, in vectors
        self.dots = b_k == 1 and a_k == 1 and (b_n != 1 or product.n == 1)
        self.dots = self.dots and product.m <= 8 and product.k >= geometry.lanes
        #: B lies packed in the workspace
        batch = zip(product.batch, product.b_strides, strict=False)
        self.prepared = product.repeated and all(size == 1 or stride == 0 for size, stride in batch)
        self.dots = self.dots and not self.prepared
        stored = product.a.stored is bfloat16 and product.b.stored is bfloat16
        #: in dot products of bfloat16, by pairs
        self.pairs = self.dots and by_pairs and stored
        if self.dots:
            group = 16 // product.dtype.itemsize
            rows = min(product.m, 2 if geometry.registers < 32 else 4)
            self.tiling = _Tiling(rows, group * (2 if rows == 1 else 1), 0.0)
        else:
            self.tiling = _outer_tiling(product, geometry)
        # What is read for several tiles is converted once.
        repeated = product.m > self.tiling.rows
        self.packs = not self.dots and not self.prepared and (b_n != 1 or (product.b.converts and repeated))
        self.widens_a = product.a.converts and not self.pairs
        self.grid = _direct_grid(product, self.tiling, self.packs, epilogue is not None)
        #: the code that packs B
        self.pack = pack_code(geometry, self.tiling.columns, product.b)

    def stages(self) -> tuple[list[Stage], int]:
        if not self.prepared:
            return [self._stage()], 0
        product, width = self.product, self.tiling.columns
        columns = -(-product.n // width) * width
        # tasks of some 16,000 elements, a few microseconds
        panels = max(1, 16_384 // (product.k * width))
        source = replace(product, batch=(), m=1)
        grid = Grid(source, 1, 1, panels * width)
        writer = kernel()
        with grid.region(writer) as region:
            b = operand(writer, stored_type(writer, product.b), 0, [], product.b_strides[-2:])
            at = b.at(writer, stored_type(writer, product.b), 0, region.n0)
            start = writer.multiply(region.n0, product.k)
            to = writer.element(writer.argument(1), scalar_type(product.dtype), start)
            count = writer.subtract(region.n1, region.n0)
            emit_pack(writer, self.pack, to, at, b.column, b.row, count, product.k)
        pack = Stage(code("pack_product", writer, needs=(self.pack,)), grid.tasks, ("b", "workspace"), 0)
        return [pack, self._stage()], aligned(columns * product.k * product.dtype.itemsize)

    def _stage(self) -> Stage:
        product, grid, size = self.product, self.grid, self.product.dtype.itemsize
        panels = -(-grid.columns // self.tiling.columns)
        bytes_b = aligned(panels * self.tiling.columns * product.k * size) if self.packs else 0
        bytes_a = aligned(grid.rows * product.k * size) if self.widens_a else 0
        # the epilogue may read whole vectors from each row of its tile
        row = -(-grid.columns // self.geometry.columns) * self.geometry.columns
        bytes_c = grid.rows * row * size if self.epilogue else 0
        writer = kernel()
        self.packed = "%scratch"
        self.widened = writer.element("%scratch", "i8", bytes_b)
        tile = Matrix(writer.element("%scratch", "i8", bytes_b + bytes_a), row, 1)
        with grid.region(writer) as region:
            if len(self.lengths) == 1:
                self._task(writer, region, tile, product.k)
            else:
                is_last = writer.op(f"icmp eq i64 {region.batch[0]}, {product.batch[0] - 1}")
                for length, chosen in zip(self.lengths, (writer.op(f"xor i1 {is_last}, true"), is_last), strict=True):
                    with writer.when(chosen):
                        self._task(writer, region, tile, length)
        operands = ("a", "workspace" if self.prepared else "b", "epilogue" if self.epilogue else "c")
        return Stage(
            code("product", writer, needs=(self.pack,) if self.packs else ()),
            grid.tasks,
            operands,
            bytes_b + bytes_a + bytes_c,
        )

    def _task(self, writer: Writer, region: Region, tile: Matrix, k: int) -> None:
        product, type_ = self.product, scalar_type(self.product.dtype)
        a = operand(writer, stored_type(writer, product.a), 0, region.batch, product.a_strides)
        # packed beforehand it is one matrix of panels
        batch, strides = ([], (1, 1)) if self.prepared else (region.batch, product.b_strides)
        b = operand(writer, stored_type(writer, product.b), 1, batch, strides)
        if self.epilogue is None:
            c = operand(writer, type_, 2, region.batch, (*product.c_strides, 1))
            c = offset_matrix(writer, type_, c, region.m0, region.n0)
        else:
            c = tile
        if self.widens_a:
            a = self._widened_a(writer, region, a, k)
        else:
            a = offset_matrix(writer, self._left_type(writer), a, region.m0, 0)
        if self.packs:
            source = b.at(writer, stored_type(writer, product.b), 0, region.n0)
            width = writer.subtract(region.n1, region.n0)
            emit_pack(writer, self.pack, self.packed, source, b.column, b.row, width, k)
        for j, wide in _pieces(writer, region.n0, region.n1, product.n, self.tiling.columns):
            with j as column:
                for i, high in _pieces(writer, region.m0, region.m1, product.m, self.tiling.rows):
                    with i as row:
                        down, across = writer.subtract(row, region.m0), writer.subtract(column, region.n0)
                        left = offset_matrix(writer, self._left_type(writer), a, down, 0)
                        result = offset_matrix(writer, type_, c, down, across)
                        self._tile(writer, (high, wide, k), left, b, (column, across), result)
        if self.epilogue is not None:
            self.epilogue.emit(writer, 2, region, tile)

    def _left_type(self, writer: Writer) -> str:
        """The LLVM type of A's elements as the register tile reads them."""
        return stored_type(writer, self.product.a) if self.pairs else scalar_type(self.product.dtype)

    def _widened_a(self, writer: Writer, region: Region, a: Matrix, k: int) -> Matrix:
        """The task's rows of A, converted into scratch memory in the order in which they lie."""
        product, stored = self.product, stored_type(writer, self.product.a)
        a = offset_matrix(writer, stored, a, region.m0, 0)
        rows = writer.subtract(region.m1, region.m0)
        by_rows = a.column == 1 or a.row != 1
        outer, inner = (rows, str(k)) if by_rows else (str(k), rows)
        place = Matrix(self.widened, k, 1) if by_rows else Matrix(self.widened, 1, self.grid.rows)
        step, along = (a.row, a.column) if by_rows else (a.column, a.row)
        lanes = self.geometry.lanes if along == 1 else 1
        whole = writer.op(f"and i64 {inner}, {-lanes}")
        parts: list[tuple[Size, str, int]] = [(0, whole, lanes), (whole, inner, 1)]
        with writer.loop(0, outer, as_written=True) as one:
            source = writer.element(a.pointer, stored, writer.multiply(one, step))
            to = writer.element(
                place.pointer,
                scalar_type(product.dtype),
                writer.multiply(one, place.row if by_rows else place.column),
            )
            for start, stop, width in parts if lanes > 1 else parts[:1]:
                arithmetic = LLVMArithmetic(writer, width, self.geometry.abilities)
                with writer.loop(start, stop, width, as_written=True) as two:
                    value = _read(arithmetic, product.a, writer.element(source, stored, writer.multiply(two, along)))
                    address = writer.element(to, scalar_type(product.dtype), two)
                    arithmetic.store(value, address, product.dtype)
        return place

    def _tile(
        self,
        writer: Writer,
        sizes: tuple[int, int, int],
        left: Matrix,
        b: Matrix,
        columns: tuple[str, str],
        result: Matrix,
    ) -> None:
        """One register tile of `sizes`, k last; `columns` is its first column, in B and in what was packed."""
        product, geometry, (height, width, k), (column, across) = self.product, self.geometry, sizes, columns
        type_, stored = scalar_type(product.dtype), stored_type(writer, product.b)
        load = None
        if self.prepared:
            start = writer.multiply(column, k)
            right = Matrix(writer.element(b.pointer, type_, start), self.tiling.columns, 1)
        elif self.packs:
            start = writer.multiply(across, k)
            right = Matrix(writer.element(self.packed, type_, start), self.tiling.columns, 1)
        else:
            right = offset_matrix(writer, stored, b, 0, column)
            if product.b.converts and not self.dots:
                load = self._loader(writer, right)
        if self.dots:
            converts = product.b.converts and not self.pairs
            dot_tile(
                writer, product.dtype, geometry.lanes, height, width, k, left, right, result,
                self._loader_along_k(writer) if converts else None, stored, self.pairs,
            )  # fmt: skip
            return
        widths = [geometry.lanes] * (width // geometry.lanes)
        widths += [width % geometry.lanes] if width % geometry.lanes else []
        outer_tile(writer, product.dtype, widths, height, k, left, right, result, right=load)

    def _loader(self, writer: Writer, right: Matrix) -> Callable[[Size, int, int], str]:
        """Loads of neighbouring elements of a row of B, converted."""
        element, stored = self.product.b, stored_type(writer, self.product.b)

        def load(position: Size, start: int, width: int) -> str:
            address = writer.element(right.at(writer, stored, position, 0), stored, start)
            return self._converted(writer, element, address, width)

        return load

    def _loader_along_k(self, writer: Writer) -> Callable[[str, Size, int], str]:
        """Loads of elements of a column of B that are neighbours in k, converted."""
        element, stored = self.product.b, stored_type(writer, self.product.b)

        def load(pointer: str, position: Size, width: int) -> str:
            return self._converted(writer, element, writer.element(pointer, stored, position), width)

        return load

    def _converted(self, writer: Writer, element: Element, address: str, width: int) -> str:
        """`width` elements: the arithmetic has powers of two only, so parts of these sizes are put together."""
        type_ = scalar_type(self.product.dtype)
        parts: list[tuple[str, int]] = []
        start = 0
        while start < width:
            size = 1 << ((width - start).bit_length() - 1)
            arithmetic = LLVMArithmetic(writer, size, self.geometry.abilities)
            ref = _read(arithmetic, element, writer.element(address, stored_type(writer, element), start)).ref
            if size == 1:
                ref = writer.op(f"insertelement <1 x {type_}> poison, {type_} {ref}, i64 0")
            parts.append((ref, size))
            start += size
        return joined(writer, type_, parts)


def _read(arithmetic: LLVMArithmetic, element: Element, address: str) -> Value:
    """Elements converted to what is multiplied."""
    return arithmetic.round_to(arithmetic.load(address, element.stored), element.dtype)


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


def _direct_grid(product: Product, tiling: _Tiling, pack: bool, keeps_tile: bool) -> Grid:
    """Tasks of about SINGLE_TASK operations: whole batch items first, then rows or columns of tiles.

    A task that packs B packs all the columns it uses, so few rows are not divided further. One that keeps its tile for
    the epilogue keeps no more than fits into the cache.
    """
    if product.task_rows:
        return Grid(product, 1, product.task_rows, product.n)
    items = math.prod(product.batch)
    wanted = max(1, min(64, items * product.operations // SINGLE_TASK))
    if keeps_tile:
        wanted = max(wanted, items * -(-product.m * product.n // _TILE_ELEMENTS))
    if items >= wanted:
        return Grid(product, -(-items // wanted), product.m, product.n)
    parts = -(-wanted // items)
    row_tiles, column_tiles = -(-product.m // tiling.rows), -(-product.n // tiling.columns)
    repeats_packing = pack and product.m < 64 * parts and column_tiles > 1
    if row_tiles >= column_tiles and not repeats_packing:
        return Grid(product, 1, tiling.rows * -(-row_tiles // min(parts, row_tiles)), product.n)
    return Grid(product, 1, product.m, tiling.columns * -(-column_tiles // min(parts, column_tiles)))
