"""Matrix products with what follows them, element by element or summed, done on each tile while it is in the cache."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..compiler.copies import product_view
from ..compiler.groups import COLUMN, TOTAL, Group, sources
from ..compiler.index import Affine, Index, View, variable
from ..compiler.made import made_view, made_with
from ..graph.node import Node
from ..graph.types import DType, int64
from .emitter import LANE, VECTOR, Emitter, Slots, lane_variable
from .launch import Argument, Launch, Workspace, owner_of
from .loops import lanes_for
from .made import MadeOperand
from .matmul import Element, Product, Region, folded, product_stages
from .matmul_tile import Matrix
from .partials import Across, Partials, across_of, reduced_of
from .registers import Value
from .target import Target, abilities_of
from .text import Writer


class _Tile:
    """The epilogue of a product: the group's stored members computed on a tile of it.

    Of its reductions each tile gives a partial result: of a column over the rows of the tile, or of the whole tile.
    """

    def __init__(self, product: Product, matmul: Node, group: Group, in_memory: Callable[[Node], bool], target: Target):
        self.product, self.matmul = product, matmul
        reductions = [node for node in group.stored if group.members[node] in (TOTAL, COLUMN)]
        self.reduced = [reduced_of(node, group.members[node], product.n) for node in reductions]
        found = across_of(group, in_memory)
        #: totals of what is reduced by columns, in the order of that
        self.across = {node: found[node] for node in reductions if node in found}
        finished = [*reductions, *(total.node for across in self.across.values() for total in across.totals)]
        self.stored = [node for node in group.stored if node not in finished]
        self.nodes: list[Node] = []
        #: the conversion that alone reads the product, if one does
        self.rounding = None if matmul in group.stored else _only_conversion(matmul, group)
        #: into how many regions the product is cut, by rows of all batch items and by columns
        self.blocks = 1, 1
        self.in_memory, self.target = in_memory, target
        totals = any(one.level == TOTAL for one in self.reduced)
        self.lanes = lanes_for(target, product.n, group.inner, totals or bool(self.across))
        self.domain = self._domain()
        self.emitter: Emitter | None = None
        trial = Writer("trial", ["ptr %args", "ptr %scratch", "i64 %task"])
        self._emit(trial, Slots(), Region(["0"] * len(product.batch), "0", "1", "0", "1"), Matrix("%scratch", 0, 1))
        assert self.emitter is not None
        self.nodes = list(self.emitter.slots.nodes)
        self.loaded: dict[Node, set[Any]] = self.emitter.loaded

    @property
    def slots(self) -> int:
        """See `Epilogue`."""
        return len(self.nodes) + len(self.reduced) + sum(len(across.totals) for across in self.across.values())

    @property
    def rounds_to(self) -> DType | None:
        """See `Epilogue`."""
        return None if self.rounding is None else self.rounding.dtype

    @property
    def only_rounds(self) -> bool:
        """See `Epilogue`."""
        return not self.reduced and self.nodes == self.stored == [self.rounding]

    def arguments(self) -> tuple[list[Argument], list[Launch]]:
        """What the slots hold, and the launches that finish the reductions, once the product has been emitted."""
        found: list[Argument] = list(self.nodes)
        launches: list[Launch] = []
        for reduced in self.reduced:
            parts = self.blocks[0] * (1 if reduced.level == COLUMN else self.blocks[1])
            place, finish = reduced.finish(parts, self.target, self.across.get(reduced.node))
            found.append(place)
            launches += finish
        for across in self.across.values():
            if self._finishes:
                places, finish = across.finish(self.blocks[1], self.target)
            else:
                places, finish = [0] * len(across.totals), []  # taken by who puts the columns together
            found += places
            launches += finish
        return found, launches

    @property
    def _finishes(self) -> bool:
        """Whether a region's columns are final, since no other has the same."""
        return self.blocks[0] == 1

    def emit(self, writer: Writer, slot_base: int, region: Region, tile: Matrix, rounded: bool = False) -> None:
        """See `Epilogue.emit`."""
        slots = Slots(slot_base)
        for node in self.nodes:
            slots.of(node)
        self.blocks = math.prod(self.product.batch) * region.row_blocks, region.column_blocks
        self._emit(writer, slots, region, tile, rounded)

    def _domain(self) -> Affine:
        """The number of the element of the product at the row m and the lane's column."""
        rows, stride = variable("m", self.product.m), self.product.m
        for place in reversed(range(len(self.product.batch))):
            rows = rows + variable(f"b{place}", self.product.batch[place]) * stride
            stride *= self.product.batch[place]
        return rows * self.product.n + lane_variable(self.product.n)

    def _emit(self, writer: Writer, slots: Slots, region: Region, tile: Matrix, rounded: bool = False) -> None:
        own = set(self.stored)
        held = self.rounding if rounded else self.matmul
        assert held is not None

        def loadable(node: Node) -> bool:
            return node not in own and node is not self.matmul and self.in_memory(node)

        emitter = Emitter(writer, self.lanes, slots, loadable, abilities_of(self.target))
        self.emitter = emitter
        partials = self._begin_reductions(emitter, slots.base + len(self.nodes), region)
        type_ = emitter.scalar.storage_type(held.dtype)
        with writer.loop(region.m0, region.m1) as m:
            row = writer.multiply(writer.subtract(m, region.m0), tile.row)
            start = writer.element(tile.pointer, type_, writer.subtract(row, region.n0))
            emitter.tiles = {held: start}
            emitter.begin_row({"m": m, **{f"b{i}": name for i, name in enumerate(region.batch)}})
            partials.begin_row()

            def body(n: str, mask: Value | None) -> None:
                with emitter.body({LANE: n, "first": n}, mask):
                    values = [emitter.value(n_, Index.at(self.domain, n_.shape)) for n_ in self.stored]
                    partials.take(self.domain, n)
                    for node, value in zip(self.stored, values, strict=True):
                        emitter.store(value, node, self.domain, VECTOR)

            self._columns(emitter, region, body)
            partials.end_row()
        partials.end()
        if self._finishes:
            slot = slots.base + len(self.nodes) + len(self.reduced)
            for reduced, place in partials.columns:
                if reduced.node in self.across:
                    self._take_across(emitter, self.across[reduced.node], place, slot, region)
                    slot += len(self.across[reduced.node].totals)

    def _take_across(self, emitter: Emitter, across: Across, columns: str, slot: int, region: Region) -> None:
        """The totals of the `columns` that the region has finished, from the cache."""
        emitter.begin_row({})
        a, writer, dtype = emitter.vector, emitter.writer, across.base.dtype
        sums = across.begin(emitter, slot, region.column_block)

        def take(n: str, mask: Value | None) -> None:
            place = writer.element(columns, emitter.scalar.storage_type(dtype), n)
            value = a.load(place, dtype) if mask is None else a.masked_load(place, dtype, mask, a.constant(0, dtype))
            across.take(sums, value, lane_variable(self.product.n), n, mask)

        self._columns(emitter, region, take)
        across.end(sums)

    def _begin_reductions(self, emitter: Emitter, slot: int, region: Region) -> Partials:
        """The region's partial results: a number or a row of numbers for each reduction."""
        writer = emitter.writer
        places = []
        for number, reduced in enumerate(self.reduced):
            part = writer.add(writer.multiply(region.item, region.row_blocks), region.row_block)
            if reduced.level == TOTAL:
                part = writer.add(writer.multiply(part, region.column_blocks), region.column_block)
            first = writer.multiply(part, reduced.width)
            type_ = emitter.scalar.storage_type(reduced.node.dtype)
            places.append(writer.element(writer.argument(slot + number), type_, first))
        partials = Partials(emitter, self.reduced, places)
        if partials.columns:
            self._columns(emitter, region, partials.clear)
        return partials

    def _columns(self, emitter: Emitter, region: Region, body: Callable[[str, Value | None], None]) -> None:
        """`body` for the columns of the region: whole vectors, and a masked one for the rest."""
        writer, a = emitter.writer, emitter.vector
        length = writer.op(f"sub i64 {region.n1}, {region.n0}")
        whole = writer.op(f"add i64 {region.n0}, {writer.op(f'and i64 {length}, {-a.lanes}')}")
        emitter.loop(region.n0, whole, a.lanes, lambda n: body(n, None))
        if self.product.n % a.lanes or (region.column_step % a.lanes and region.column_blocks > 1):
            outer, writer.lines = writer.lines, []
            left = writer.op(f"sub i64 {region.n1}, {whole}")
            body(whole, a.lt(a.iota(int64), a.broadcast(Value(left, int64))))
            inner, writer.lines = writer.lines, outer
            with writer.when(writer.op(f"icmp slt i64 {whole}, {region.n1}")):
                writer.lines.extend(inner)


def _only_conversion(matmul: Node, group: Group) -> Node | None:
    """The member that converts the product, where no other member reads it."""
    readers = [node for node in group.members if any(matmul in sources(operand) for operand in node.inputs)]
    if len(readers) != 1 or readers[0].op.name != "convert":
        return None
    (operand,) = readers[0].inputs
    while operand.op.name == "reshape":
        (operand,) = operand.inputs
    return readers[0] if operand is matmul else None


def _operand(operand: Node, in_memory: Callable[[Node], bool], target: Target) -> tuple[View, Element]:
    """How a product reads `operand`, which the compiler has made readable by strides, or makes it on its way."""
    view, rounded = product_view(operand, in_memory)
    if view is None and made_with(operand):
        view, rounded = made_view(operand)
        assert view is not None
        return view, Element(view.base.dtype, rounded, MadeOperand(view, in_memory, target))
    assert view is not None, f"{operand!r} cannot be read by strides"
    return view, Element(view.base.dtype, rounded)


def emit_product(group: Group, in_memory: Callable[[Node], bool], target: Target) -> list[Launch]:
    """The launches of a matrix product and the members of its group."""
    matmul = next(iter(group.members))
    (left, a), (right, b) = (_operand(operand, in_memory, target) for operand in matmul.inputs)
    *batch, m, n = matmul.shape
    k = matmul.inputs[0].shape[-1]
    rows = m * n
    strides: list[int] = []
    for size in reversed(batch):
        strides.insert(0, rows)
        rows *= size
    repeated = right.base in group.constants
    each = 0 if group.share is None else group.share.each
    product = Product(
        tuple(batch), m, n, k, left.strides, right.strides, (*strides, n), matmul.dtype, a, b, repeated, each
    )
    tile = None
    if group.stored != [matmul]:
        product = folded(product)
        tile = _Tile(product, matmul, group, in_memory, target)
    stages, nbytes = product_stages(product, target, tile)
    workspace = Workspace(nbytes)
    made = {name: e.made.nodes for name, e in (("a", a), ("b", b)) if isinstance(e.made, MadeOperand)}
    reads = {view.base for name, view in (("a", left), ("b", right)) if name not in made}
    reads |= {node for nodes in made.values() for node in nodes}
    exact: set[Node] = set()
    seen: list[Argument] = []
    finish: list[Launch] = []
    if tile is not None:
        exact = {node for node, places in tile.loaded.items() if places == {tile.domain}} - reads
        reads |= {node for node in tile.nodes if node not in group.stored}
        seen, finish = tile.arguments()
    finished = {node for launch in finish for node in launch.writes}
    named: dict[str, list[Argument]] = {"a": [left], "b": [right], "c": [matmul], "workspace": [workspace]}
    named |= {"epilogue": seen}
    for name, nodes in made.items():
        named |= {name: [0], f"made {name}": [*nodes]}
    launches = []
    for stage in stages:
        arguments = [argument for name in stage.operands for argument in named[name]]
        written = set(group.stored) - finished if stage is stages[-1] else set()
        # packing, and adding up what slices of the sums have given; what multiplies has the rest of the group's work
        work = 0 if "a" in stage.operands else max(nbytes // product.dtype.itemsize, 1)
        own = reads.intersection(map(owner_of, arguments))
        launches.append(
            Launch(stage.code, stage.tasks, arguments, stage.scratch_bytes, own, written, exact & own, work)
        )
    return launches + finish
