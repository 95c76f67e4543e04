"""Matrix products with what follows them element by element, done on each tile while it is in the cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..compiler.fuse import Group
from ..compiler.index import Index, View, strided_view, variable
from ..graph.node import Node
from ..graph.types import int64
from .arithmetic import Value, has_half_conversions
from .emitter import LANE, VECTOR, Emitter, Slots, lane_variable
from .launch import Launch, Workspace
from .loops import lanes_for, operation_cost
from .matmul import Product, folded, product_stages
from .target import Target
from .text import Writer


class _Tile:
    """The epilogue of a product: the group's stored members computed on a tile of it."""

    def __init__(
        self, product: Product, matmul: Node, result: Node, stored: list[Node], in_memory: Callable[[Node], bool],
        target: Target, cost: int,
    ):  # fmt: skip
        self.product, self.matmul, self.result, self.stored = product, matmul, result, stored
        self.in_memory, self.target = in_memory, target
        self.lanes = lanes_for(target, product.n, cost)
        self.emitter: Emitter | None = None
        trial = Writer("trial", ["ptr %args", "ptr %scratch", "i64 %task"])
        self._emit(trial, Slots(), ["0"] * len(product.batch), "0", "1", "0", "1")
        assert self.emitter is not None
        self.nodes: list[Node] = list(self.emitter.slots.nodes)
        self.loaded: dict[Node, set[Any]] = self.emitter.loaded
        self.slots = len(self.nodes)

    def emit(self, writer: Writer, slot_base: int, batch: list[str], m0: str, m1: str, n0: str, n1: str) -> None:
        """See `Epilogue.emit`."""
        slots = Slots(slot_base)
        for node in self.nodes:
            slots.of(node)
        self._emit(writer, slots, batch, m0, m1, n0, n1)

    def _emit(self, writer: Writer, slots: Slots, batch: list[str], m0: str, m1: str, n0: str, n1: str) -> None:
        product = self.product
        own = set(self.stored)

        def loadable(node: Node) -> bool:
            return node is self.matmul or (node not in own and self.in_memory(node))

        emitter = Emitter(writer, self.lanes, slots, loadable, has_half_conversions(self.target))
        # the product lies in the memory of `result` until that is written
        emitter.lies_in = {self.matmul: self.result}
        self.emitter = emitter
        rows = variable("m", product.m)
        stride = product.m
        for place in reversed(range(len(product.batch))):
            rows = rows + variable(f"b{place}", product.batch[place]) * stride
            stride *= product.batch[place]
        self.domain = rows * product.n + lane_variable(product.n)
        a = emitter.vector
        with writer.loop(m0, m1) as m:
            emitter.begin_row({"m": m, **{f"b{i}": name for i, name in enumerate(batch)}})

            def body(n: str, mask: Value | None) -> None:
                with emitter.body({LANE: n, "first": n}, mask):
                    values = [emitter.value(n_, Index.at(self.domain, n_.shape)) for n_ in self.stored]
                    for node, value in zip(self.stored, values, strict=True):
                        emitter.store(value, node, self.domain, VECTOR)

            length = writer.op(f"sub i64 {n1}, {n0}")
            whole = writer.op(f"add i64 {n0}, {writer.op(f'and i64 {length}, {-a.lanes}')}")
            emitter.loop(n0, whole, a.lanes, lambda n: body(n, None))
            if a.lanes > 1:
                outer, writer.lines = writer.lines, []
                left = writer.op(f"sub i64 {n1}, {whole}")
                body(whole, a.lt(a.iota(int64), a.broadcast(Value(left, int64))))
                inner, writer.lines = writer.lines, outer
                with writer.when(writer.op(f"icmp slt i64 {whole}, {n1}")):
                    writer.lines.extend(inner)


def _strided(operand: Node, in_memory: Callable[[Node], bool]) -> View:
    """How a product reads `operand`, which the compiler has made readable by strides."""
    view = strided_view(operand, in_memory)
    assert view is not None, f"{operand!r} cannot be read by strides"
    return view


def emit_product(
    group: Group, in_memory: Callable[[Node], bool], target: Target, aliased: Callable[[Node], bool]
) -> list[Launch]:
    """The launches of a matrix product and the members of its group.

    `aliased(node)` tells that a stored node may lie in the memory of an input, which must not be overwritten before it
    is read.
    """
    matmul = next(iter(group.members))
    left, right = (_strided(operand, in_memory) for operand in matmul.inputs)
    *batch, m, n = matmul.shape
    k = matmul.inputs[0].shape[-1]
    rows = m * n
    strides: list[int] = []
    for size in reversed(batch):
        strides.insert(0, rows)
        rows *= size
    product = Product(tuple(batch), m, n, k, left.strides, right.strides, (*strides, n), matmul.dtype)
    others = [node for node in group.stored if node is not matmul]
    result: Node | Workspace
    if matmul in group.stored:
        result = matmul
    else:
        result = next((x for x in others if x.dtype is matmul.dtype and not aliased(x)), matmul)
    tile = None
    if others:
        product = folded(product)
        cost = operation_cost(group.members)
        if result is matmul and matmul not in group.stored:
            group.stored.append(matmul)
        tile = _Tile(product, matmul, result, others, in_memory, target, cost)
    stages, nbytes = product_stages(product, target, tile)
    workspace = Workspace(nbytes)
    written = set(group.stored)
    launches = []
    for stage in stages:
        arguments: list[Any] = []
        for name in stage.operands:
            if name == "epilogue":
                arguments.extend(tile.nodes)  # type: ignore[union-attr]
            else:
                arguments.append({"a": left, "b": right, "c": result, "workspace": workspace}[name])
        reads = {view.base for view in (left, right)}
        exact: set[Node] = set()
        if tile is not None:
            reads |= {node for node in tile.nodes if node not in written}
            exact = {node for node, places in tile.loaded.items() if places == {tile.domain}}
        exact -= {left.base, right.base}
        launches.append(
            Launch(
                stage.code,
                stage.tasks,
                arguments,
                stage.scratch_bytes,
                reads,
                written if stage is stages[-1] else set(),
                exact,
            )
        )
    return launches
