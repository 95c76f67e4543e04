"""Packed kernels: large products cut into blocks, copied into the order in which the register tile reads them.

One such kernel is small: it packs and calls code that all products of a dtype share (see `matmul_packed`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ..graph.types import bfloat16
from .matmul_made import MadePacker, strip_bytes
from .matmul_pack import Geometry, pack_code
from .matmul_packed import block_code
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
    operand,
    stored_type,
)  # fmt: skip
from .matmul_tile import Element, Matrix, Size
from .target import Target
from .text import Writer, code

#: Panels of B that are multiplied, and then seen by the epilogue, at a time.
_CHUNK = 4
#: The most parts that a sum over k is cut into, and the fewest units of k in one.
_MOST_SLICES, _SHORTEST_SLICE = 64, 96
#: L2 caches that hold about as much as the cache behind them, and bytes that memory gives or takes in a cycle, about.
_CACHED, _MEMORY = 16, 8
#: Cycles to compute an element that is made on its way, about.
_MAKING = 1.0


@dataclass(frozen=True)
class Plan:
    """How a product is cut: `grid` says into which blocks of C, `depth` is the k of one packed block.

    With `shared`, B is packed by a launch of its own for all tasks; otherwise each task packs what it uses. The sum
    over k is cut into `slices` of `length` each, which are computed side by side and added in order.
    """

    grid: Grid
    depth: int
    shared: bool
    slices: int
    length: int


def packed_stages(
    product: Product, geometry: Geometry, target: Target, epilogue: Epilogue | None
) -> tuple[list[Stage], int]:
    """A product by blocks, and the bytes of workspace that its launches share."""
    plan = _plan(product, geometry, target, epilogue is not None)
    if plan.slices == 1:
        return _Blocks(product, geometry, plan, epilogue, product.k).stages()
    sliced = sliced_product(product, plan.slices, plan.length)
    grid = Grid(sliced, 1, plan.grid.rows, plan.grid.columns)
    stages, _ = _Blocks(sliced, geometry, replace(plan, grid=grid), None, product.k).stages()
    return with_sum(stages, product, geometry, plan.slices, epilogue)


class _Blocks:
    """The launches of one product. `total` is the k of the whole product, of which `product` may be a slice."""

    def __init__(self, product: Product, geometry: Geometry, plan: Plan, epilogue: Epilogue | None, total: int):
        self.product, self.geometry, self.plan = product, geometry, plan
        self.epilogue, self.total = epilogue, total
        self.grid, self.depth, self.shared = plan.grid, plan.depth, plan.shared
        self.blocks = -(-product.k // plan.depth)
        self.pack_a = pack_code(geometry, geometry.rows, product.a.in_memory)
        self.pack_b = pack_code(geometry, geometry.columns, product.b.in_memory)
        #: the register tiles round what they have summed
        self.rounds = epilogue is not None and geometry.pairs and epilogue.rounds_to is bfloat16 and self.blocks == 1
        #: what looks at a tile before it is done with
        self.seen = None if epilogue is not None and self.rounds and epilogue.only_rounds else epilogue
        self.block = block_code(geometry, self.rounds)
        #: columns of B in whole panels
        self.columns = _up(product.n, geometry.columns)
        whole = self.seen is None and plan.shared
        self.chunk = self.grid.columns if whole else min(self.grid.columns, _CHUNK * geometry.columns)
        self.tile_row = self.chunk if self.blocks == 1 else _up(self.grid.columns, geometry.columns)

    def stages(self) -> tuple[list[Stage], int]:
        stages, workspace = [], 0
        if self.shared:
            stage, workspace = self._pack_stage()
            stages.append(stage)
        bytes_a, bytes_b, bytes_c, bytes_strips = self._scratch()
        writer = kernel()
        writer.declare(f"declare void @{self.block.name}({', '.join(['ptr'] * 3 + ['i64'] * 5)})")
        tile = writer.element("%scratch", "i8", bytes_a + bytes_b)
        self.own_b = writer.element("%scratch", "i8", bytes_a)
        self.strips = writer.element("%scratch", "i8", bytes_a + bytes_b + bytes_c)
        with self.grid.region(writer) as region:
            self._multiply(writer, region, tile)
        operands = ["a", "b"] + ([] if self.epilogue else ["c"]) + (["workspace"] if self.shared else [])
        operands += ["epilogue"] if self.epilogue else []
        operands += [f"made {name}" for name, element in self._elements if element.made is not None]
        needs = tuple(
            need for need, used in ((self.pack_a, True), (self.pack_b, not self.shared), (self.block, True)) if used
        )
        made = code("product", writer, needs=tuple(dict.fromkeys(needs)))
        stages.append(Stage(made, self.grid.tasks, tuple(operands), bytes_a + bytes_b + bytes_c + bytes_strips))
        return stages, workspace

    @property
    def _elements(self) -> list[tuple[str, Element]]:
        return [("a", self.product.a), ("b", self.product.b)]

    def _scratch(self) -> tuple[int, int, int, int]:
        """Bytes for the packed blocks of A and of B, for the tile of C that the epilogue reads, and for strips."""
        geometry, depth = self.geometry, self.geometry.units(self.depth)
        rows = _up(self.grid.rows, geometry.rows)
        bytes_a = aligned(rows * depth * geometry.unit_bytes)
        bytes_b = 0 if self.shared else aligned(_up(self.chunk, geometry.columns) * depth * geometry.unit_bytes)
        item = bfloat16.itemsize if self.rounds else geometry.dtype.itemsize
        bytes_c = aligned(rows * self.tile_row * item) if self.seen else 0
        strips = max(strip_bytes(self.product.a, geometry.rows), strip_bytes(self.product.b, geometry.columns))
        return bytes_a, bytes_b, bytes_c, strips

    def _multiply(self, writer: Writer, region: Region, tile: str) -> None:
        """The whole of a task: block of k after block of k, and the epilogue in the last one."""
        end: Size = self.product.k
        if self.total != self.product.k * (self.plan.slices):
            # The last slice may be shorter.
            begun = writer.multiply(region.batch[0], self.product.k)
            end = writer.minimum(writer.subtract(self.total, begun), self.product.k)
        last = (self.blocks - 1) * self.depth
        if self.seen is None:
            with writer.loop(0, end, self.depth, as_written=True) as start:
                self._block_of_k(writer, region, start, end, tile, last=False)
            return
        if self.blocks > 1:
            with writer.loop(0, last, self.depth, as_written=True) as start:
                self._block_of_k(writer, region, start, end, tile, last=False)
        self._block_of_k(writer, region, str(last), end, tile, last=True)

    def _block_of_k(self, writer: Writer, region: Region, start: str, end: Size, tile: str, last: bool) -> None:
        product, geometry = self.product, self.geometry
        type_ = "i16" if self.rounds else geometry.unit_type
        rows = writer.subtract(region.m1, region.m0)
        length = writer.minimum(writer.subtract(end, start), self.depth)
        self._left(writer, region, start, rows, length)
        units = _units(writer, geometry, length)
        adds = writer.op(f"zext i1 {writer.op(f'icmp sgt i64 {start}, 0')} to i64")
        with writer.loop(region.n0, region.n1, self.chunk, as_written=True) as first:
            stop = writer.minimum(writer.add(first, self.chunk), region.n1)
            width = writer.subtract(stop, first)
            right = self._right(writer, region, start, length, first, width)
            if self.seen is None:
                slot = self._epilogue_slot if self.rounds else 2
                c = operand(writer, type_, slot, region.batch, (*product.c_strides, 1))
                self._call(writer, right, c.at(writer, type_, region.m0, first), c.row, (rows, width), units, adds)
                seen = None
            else:
                place = tile
                if self.blocks > 1:
                    place = writer.element(tile, type_, writer.subtract(first, region.n0))
                sizes = tuple(
                    _round_up(writer, size, step)
                    for size, step in ((rows, geometry.row_step), (width, geometry.column_step))
                )
                self._call(writer, right, place, self.tile_row, sizes, units, adds)
                seen = Matrix(place, self.tile_row, 1)
            if last and self.seen is not None and seen is not None:
                part = self._chunk_of(writer, region, first, stop)
                self.seen.emit(writer, self._epilogue_slot, part, seen, self.rounds)

    @property
    def _epilogue_slot(self) -> int:
        return 3 if self.shared else 2

    def _chunk_of(self, writer: Writer, region: Region, first: str, stop: str) -> Region:
        """The columns `first` to `stop` of a task's region."""
        each = -(-self.grid.columns // self.chunk)
        rest = self.product.n - (self.grid.column_tasks - 1) * self.grid.columns
        blocks = (self.grid.column_tasks - 1) * each + -(-rest // self.chunk)
        number = writer.divide(writer.subtract(first, region.n0), self.chunk)[0]
        block = writer.add(writer.multiply(region.column_block, each), number)
        step = math.gcd(self.chunk, self.grid.columns)
        return replace(region, n0=first, n1=stop, column_block=block, column_blocks=blocks, column_step=step)

    def _call(
        self, writer: Writer, right: str, c: str, row: Size, sizes: tuple[str, ...], units: str, adds: str
    ) -> None:
        numbers = ", ".join(f"i64 {value}" for value in (row, *sizes, units, adds))
        writer.line(f"call void @{self.block.name}(ptr %scratch, ptr {right}, ptr {c}, {numbers})")

    def _left(self, writer: Writer, region: Region, start: str, rows: str, length: str) -> None:
        """Pack the block of A."""
        element, strides = self.product.a, self.product.a_strides
        if element.made is not None:
            place = _place(writer, (*region.batch, region.m0, start), strides)
            self._packer(writer, "a", strides[-2:]).emit("%scratch", place, rows, length)
            return
        stored = stored_type(writer, element)
        a = operand(writer, stored, 0, region.batch, strides)
        emit_pack(
            writer, self.pack_a, "%scratch", a.at(writer, stored, region.m0, start), a.row, a.column, rows, length
        )

    def _packer(self, writer: Writer, name: str, strides: tuple[int, ...]) -> MadePacker:
        """What packs the operand of this name, which is computed; `strides` are those across and along k."""
        slot, geometry = self._epilogue_slot + (1 if self.epilogue is None else self.epilogue.slots), self.geometry
        left = self.product.a.made
        if name == "b" and left is not None:
            slot += left.slots
        width, element = {
            "a": (geometry.rows, self.product.a), "b": (geometry.columns, self.product.b)
        }[name]  # fmt: skip
        return MadePacker(writer, element, slot, self.strips, geometry, width, (strides[0], strides[1]))

    def _right(self, writer: Writer, region: Region, start: str, length: str, first: str, width: str) -> str:
        """The address of the packed panels of B from the column `first` on, packed here unless they are shared."""
        product, geometry = self.product, self.geometry
        if product.b.made is not None:
            place = _place(writer, (*region.batch, start, first), product.b_strides)
            self._packer(writer, "b", product.b_strides[:-3:-1]).emit(self.own_b, place, width, length)
            return self.own_b
        if not self.shared:
            stored = stored_type(writer, product.b)
            b = operand(writer, stored, 1, region.batch, product.b_strides)
            source = b.at(writer, stored, start, first)
            emit_pack(writer, self.pack_b, self.own_b, source, b.column, b.row, width, length)
            return self.own_b
        slot = 2 if self.epilogue else 3
        item = _packed_item(writer, product, geometry, writer.argument(slot), region.batch, self.columns)
        begun = writer.multiply(_units(writer, geometry, start), self.columns)
        offset = writer.add(begun, writer.multiply(first, _units(writer, geometry, length)))
        return writer.element(item, geometry.unit_type, offset)

    def _pack_stage(self) -> tuple[Stage, int]:
        """The launch that packs all of B into the workspace, and the workspace's size in bytes.

        It is laid out as [item of B][block of k][panel][unit of k in the block][column in the panel].
        """
        product, geometry = self.product, self.geometry
        stored = stored_type(Writer("type", []), product.b)
        strides = product.b_strides
        batch = tuple(1 if stride == 0 else size for size, stride in zip(product.batch, strides, strict=False))
        # Tasks of some 16,000 units, a few microseconds.
        panels = max(1, 16_384 // (geometry.units(self.depth) * geometry.columns))
        source = replace(product, batch=batch, m=product.k)
        grid = Grid(source, 1, self.depth, panels * geometry.columns)
        writer = kernel()
        with grid.region(writer) as region:
            b = operand(writer, stored, 0, region.batch, strides)
            start = _packed_item(writer, source, geometry, writer.argument(1), region.batch, self.columns)
            length = writer.subtract(region.m1, region.m0)
            begun = writer.multiply(_units(writer, geometry, region.m0), self.columns)
            offset = writer.add(begun, writer.multiply(region.n0, _units(writer, geometry, length)))
            to = writer.element(start, geometry.unit_type, offset)
            columns = writer.subtract(region.n1, region.n0)
            emit_pack(
                writer, self.pack_b, to, b.at(writer, stored, region.m0, region.n0), b.column, b.row, columns, length
            )
        workspace = math.prod(batch) * self.columns * geometry.units(product.k) * geometry.unit_bytes
        return Stage(code("pack_product", writer, needs=(self.pack_b,)), grid.tasks, ("b", "workspace"), 0), workspace


def _place(writer: Writer, index: tuple[str, ...], strides: tuple[int, ...]) -> str:
    """The number of an element, in the order of what is not in memory."""
    place = "0"
    for position, stride in zip(index, strides, strict=True):
        place = writer.add(place, writer.multiply(position, stride))
    return place


def _packed_item(
    writer: Writer, product: Product, geometry: Geometry, workspace: str, index: list[str], columns: int
) -> str:
    """The address in the workspace of the packed B of the batch item `index`; `product.k` is the whole k."""
    stride = columns * geometry.units(product.k)
    for position, size, b_stride in reversed(list(zip(index, product.batch, product.b_strides, strict=False))):
        if b_stride != 0:
            workspace = writer.element(workspace, geometry.unit_type, writer.multiply(position, stride))
            stride *= size
    return workspace


def _up(number: int, step: int) -> int:
    return -(-number // step) * step


def _round_up(writer: Writer, number: str, step: int) -> str:
    """`number` rounded up to a multiple of `step`."""
    return writer.multiply(writer.divide(writer.add(number, step - 1), step)[0], step)


def _units(writer: Writer, geometry: Geometry, k: Size) -> str:
    """The units that `k` steps take."""
    return writer.op(f"lshr i64 {writer.add(k, 1)}, 1") if geometry.pairs else str(k)


def _depth(k: int, geometry: Geometry, target: Target) -> int:
    """The k of a packed block.

    The sums are written, and read again, once a block, so blocks should be long. A panel of B may be larger than the L1
    cache, since it is read in order, but must leave the L2 cache to the block of A.
    """
    most = max(64, min(2 * target.l1, target.l2 // 16) // (geometry.columns * geometry.unit_bytes))
    units = geometry.units(k)
    depth = _up(-(-units // -(-units // most)), geometry.lanes)
    return depth * (2 if geometry.pairs else 1)


def _plan(product: Product, geometry: Geometry, target: Target, has_epilogue: bool) -> Plan:
    """The cut that costs least, on average over machines of 2 to 8 threads."""
    best: tuple[float, Plan] | None = None
    for slices, length in _slicings(product, geometry, target):
        depth = _depth(length, geometry, target)
        for grid in _grids(product, geometry, target, depth, has_epilogue and slices == 1, -(-length // depth)):
            for shared in (False, True) if slices == 1 and product.b.made is None else (False,):
                plan = Plan(grid, depth, shared, slices, length)
                cost = _cost(product, geometry, target, plan)
                if best is None or cost < best[0]:
                    best = cost, plan
    assert best is not None
    return best[1]


def _slicings(product: Product, geometry: Geometry, target: Target) -> list[tuple[int, int]]:
    """(slices, k of one) that the sum over k may be cut into: more than one only where C is small.

    What the slices make together takes no more memory than a few L2 caches, and less than the operands. An operand that
    is made lies in no memory, and what shall take less than it is not worth having.
    """
    found = [(1, product.k)]
    if product.a.made is not None or product.b.made is not None:
        return found
    step = geometry.lanes * (2 if geometry.pairs else 1)
    items = math.prod(product.batch) * product.m * product.n
    most = min(product.k * (product.m + product.n), 4 * target.l2 // product.dtype.itemsize) // max(items, 1)
    slices = 2
    while slices <= min(_MOST_SLICES, most):
        length = _up(-(-product.k // slices), step)
        if geometry.units(length) < _SHORTEST_SLICE:
            break
        found.append((-(-product.k // length), length))
        slices *= 2
    return list(dict.fromkeys(found))


def _grids(
    product: Product, geometry: Geometry, target: Target, depth: int, keeps_tile: bool, blocks: int
) -> list[Grid]:
    """Blocks of C whose share of A, and of C where it is kept until the epilogue, fits into the L2 cache."""
    row_panels, column_panels = -(-product.m // geometry.rows), -(-product.n // geometry.columns)
    a_row = geometry.units(depth) * geometry.unit_bytes
    found = []
    if product.task_rows:
        return [Grid(product, 1, product.task_rows, column_panels * geometry.columns)]
    for height in _shares(row_panels, 256):
        rows = height * geometry.rows
        if height > 1 and rows * a_row > target.l2 // 2:
            break
        for width in _shares(column_panels, 64):
            columns = width * geometry.columns
            held = rows * columns * product.dtype.itemsize
            if width > 1 and (
                held > 4 * target.l2 or (keeps_tile and blocks > 1 and rows * a_row + held > target.l2 * 3 // 4)
            ):
                break
            found.append(Grid(product, 1, rows, columns))
    return found


def _shares(panels: int, most: int) -> list[int]:
    """Into how many panels a block may be cut, the fewest first: equal shares of up to `most` blocks, and powers of two
    below these.
    """
    equal = {-(-panels // parts) for parts in range(1, min(panels, most) + 1)}
    return sorted(equal | {1 << power for power in range(min(equal).bit_length() - 1)})


def _cost(product: Product, geometry: Geometry, target: Target, plan: Plan) -> float:
    """Cycles times threads: the tiles, packing, fetching B from the outer caches, and threads idle at the end. A packed
    B that no cache holds is written to memory and read from it, which all threads wait for.
    """
    lanes = geometry.lanes
    rows = min(plan.grid.rows, _up(product.m, geometry.row_step))
    columns = min(plan.grid.columns, _up(product.n, geometry.column_step))
    units = geometry.units(plan.length)
    blocks = -(-plan.length // plan.depth)
    tiles = -(-rows // geometry.rows) * -(-columns // geometry.columns)
    cycles = rows * columns / lanes * (units + 2 * blocks) + 40 * tiles * blocks + 0.7 * rows * units + 600
    cycles += (0.15 if plan.shared else 0.5) * columns * units
    made = (rows if product.a.made is not None else 0) + (columns if product.b.made is not None else 0)
    cycles += _MAKING * made * plan.length
    items = math.prod(product.batch)
    waits = 3000.0 * (plan.shared + (plan.slices > 1))
    once = 0.0
    if plan.shared:
        once += 0.5 * product.n * units * items
        workspace = product.n * units * geometry.unit_bytes * items
        if workspace > _CACHED * target.l2:
            waits += 2 * workspace / _MEMORY
    if plan.slices > 1:
        once += 1.5 * plan.slices * product.m * product.n * items / lanes
    tasks = plan.grid.tasks * plan.slices
    return sum(-(-tasks // threads) * threads * cycles + once + threads * waits for threads in (2, 3, 4, 6, 8))
