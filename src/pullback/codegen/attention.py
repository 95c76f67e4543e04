"""Attention in tiles: from a group of its nodes to launches, and what the forward and the backward kernels share.

The kernels stand in `attention_forward` and `attention_backward`, the blocks that they work on in `attention_tile`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..compiler.costs import operations
from ..compiler.groups import Group
from ..compiler.index import Index, View, strided_view, variable
from ..graph.node import Node
from ..graph.types import DType, bool_, float32, float64, int64
from ..ops.attention import ATTEND, LOG_SUM, row_operands, weight_operands
from . import mathematics
from .attention_tile import Tile, multiplies_pairs, pair_code, product_code, widen_code
from .emitter import LANE, Emitter, Slots, lane_variable
from .launch import Launch, Workspace
from .registers import Value
from .target import Target
from .text import Code, Writer, code


def emit_attention(group: Group, in_memory: Callable[[Node], bool], target: Target) -> list[Launch]:
    """The launches of the stored members of a group of kind ATTEND."""
    from .attention_backward import emit_backward
    from .attention_forward import emit_forward

    first = next(iter(group.members))
    emit = emit_forward if first.op in (ATTEND, LOG_SUM) else emit_backward
    return emit(group, in_memory, target)


def attention_work(group: Group) -> int:
    """Operations of a group, counted as those of matrix products are."""
    query, key = next(iter(group.members)).inputs[:2]
    elementwise = 20 * math.prod(query.shape[:-1]) * key.shape[-2]
    return elementwise + sum(operations(node) for node in group.members) // 8


class Scratch:
    """The task's own memory, handed out in pieces that begin on cache lines."""

    def __init__(self, writer: Writer):
        self.writer, self.nbytes = writer, 0

    def take(self, nbytes: int) -> str:
        """The address of `nbytes` bytes of their own."""
        pointer = self.writer.element("%scratch", "i8", self.nbytes)
        self.nbytes += -(-nbytes // 64) * 64
        return pointer


class AttentionKernel:
    """One kernel over the operands of a family of attention nodes, and the parts that all such kernels are made of.

    `slots` are its arguments: the operands in memory, the workspaces, the results, then what mask and dropout read.
    """

    def __init__(self, group: Group, in_memory: Callable[[Node], bool], target: Target, further: list[Workspace]):
        node = next(iter(group.members))
        self.node, self.target = node, target
        self.wanted = {member.op: member for member in group.stored}
        *self.batch, self.queries, self.features = node.inputs[0].shape
        self.keys, self.width = node.inputs[2].shape[-2:]
        self.heads = math.prod(self.batch)
        self.dtype = node.inputs[0].dtype
        self.mask, self.choice = weight_operands(node)
        self.operands = (*node.inputs[:3], *row_operands(node))
        self.views = [_strided(operand, in_memory) for operand in self.operands]
        matrices = [
            view for view, operand in zip(self.views, self.operands, strict=True) if operand.dtype is self.dtype
        ]
        even = self.features % 2 == 0 and self.width % 2 == 0
        in_rows = all(view.strides[-1] == 1 for view in matrices if view.strides)
        self.tile = Tile.of(target, self.dtype, even and in_rows and multiplies_pairs(target, self.dtype))
        self.compute = self.tile.compute
        #: scores are kept in units in which a power of 2, or of e, gives the weight
        self.units = math.log2(math.e) if self.compute is float32 else 1.0
        self.writer = Writer("kernel", ["ptr %args", "ptr %scratch", "i64 %task"])
        self.scratch = Scratch(self.writer)
        self.needs: dict[str, Code] = {}
        self.arguments: list[View | Workspace | Node] = [*self.views, *further, *self.wanted.values()]
        slots = Slots(len(self.arguments))
        written = set(self.wanted.values())
        self.emitter = Emitter(
            self.writer,
            self.tile.lanes,
            slots,
            lambda n: n not in written and in_memory(n),
            self.tile.abilities,
        )
        self.a = self.emitter.vector

    @property
    def chunks(self) -> int:
        """Chunks of queries."""
        return -(-self.queries // self.tile.chunk)

    def launch(self, name: str, tasks: int) -> Launch:
        """The launch of what has been written."""
        nodes = list(self.emitter.slots.nodes)
        written = set(self.wanted.values())
        return Launch(
            code(name, self.writer, needs=tuple(self.needs.values())),
            tasks,
            [*self.arguments, *nodes],
            self.scratch.nbytes,
            {view.base for view in self.views} | set(nodes),
            written,
            set(),
        )

    # ---- addresses

    def batch_index(self, head: str) -> list[str]:
        """The index along each batch axis of head number `head`."""
        index: list[str] = []
        for size in reversed(self.batch):
            head, digit = self.writer.divide(head, size)
            index.insert(0, digit)
        return index

    def operand(self, place: int, index: list[str]) -> str:
        """The address of the part of operand number `place` that belongs to the head."""
        view, operand = self.views[place], self.operands[place]
        pointer = self.writer.argument(place)
        for position, stride in zip(index, view.strides, strict=False):
            pointer = self.writer.element(pointer, _stored(operand.dtype), self.writer.multiply(position, stride))
        return pointer

    def stride(self, place: int, axis: int) -> int:
        """Bytes from one element of operand number `place` to the next along `axis`."""
        return self.views[place].strides[axis] * self.operands[place].dtype.itemsize

    def result(self, node: Node, index: list[str]) -> tuple[str, int]:
        """The address of the head's part of a result, and the bytes from one of its rows to the next."""
        place = len(self.arguments) - len(self.wanted) + list(self.wanted.values()).index(node)
        rank = len(node.shape)
        axes = node["axes"] or tuple(range(rank)) if "axes" in node.attributes else tuple(range(rank))
        strides, total = [0] * rank, node.dtype.itemsize
        for position in reversed(range(rank)):
            strides[axes[position]] = total
            total *= node.shape[position]
        pointer = self.writer.argument(place)
        for number, stride in zip(index, strides, strict=False):
            pointer = self.writer.element(pointer, "i8", self.writer.multiply(number, stride))
        return pointer, strides[len(self.batch)]

    def offset(self, pointer: str, nbytes: int, times: str | int) -> str:
        """The address `times` times `nbytes` bytes behind `pointer`."""
        return self.writer.element(pointer, "i8", self.writer.multiply(times, nbytes))

    # ---- calls of shared code

    def call(self, function: Code, *arguments: str) -> None:
        """Call shared code; each argument is written with its type."""
        types = ", ".join(argument.split()[0] for argument in arguments)
        self.writer.declare(f"declare void @{function.name}({types})")
        self.writer.line(f"call void @{function.name}({', '.join(arguments)})")
        self.needs[function.name] = function

    def product(
        self,
        a: str,
        a_row: int,
        a_k: int,
        rows: str | int,
        b: str,
        b_k: int,
        c: str,
        c_row: int,
        k: str | int,
        factor: str = "null",
        columns: int = 0,
    ) -> None:
        """C = A @ B, and C times `factor`: see `product_code`. C has `columns` columns, a chunk if not given."""
        columns = columns or self.tile.chunk
        for start in range(0, columns, self.tile.chunk):
            vectors = min(2, -(-(columns - start) // self.tile.lanes))
            self.call(
                product_code(self.tile, vectors),
                f"ptr {a}",
                f"i64 {a_row}",
                f"i64 {a_k}",
                f"i64 {rows}",
                f"ptr {self.writer.element(b, self.tile.type, start)}",
                f"i64 {b_k}",
                f"ptr {self.writer.element(c, self.tile.type, start)}",
                f"i64 {c_row}",
                f"i64 {k}",
                f"ptr {factor}",
            )

    def number(self, value: float) -> Value:
        """A number in every lane."""
        return self.a.constant(value, self.compute)

    def fill(self, pointer: str, count: str | int, value: float) -> None:
        """`count` numbers, a multiple of the lanes, set to `value`."""
        with self.writer.loop(0, count, self.tile.lanes) as i:
            self.a.store(self.number(value), self.writer.element(pointer, self.tile.type, i), self.compute)

    def maximum(self, a: str | int, b: str | int) -> str:
        """The greater of two i64."""
        self.writer.declare("declare i64 @llvm.smax.i64(i64, i64)")
        return self.writer.op(f"call i64 @llvm.smax.i64(i64 {a}, i64 {b})")

    def arrange(
        self, to: str, to_row: int, place: int, pointer: str, first: str, rows: str, given: str, columns: int
    ) -> None:
        """Copy `rows` rows of an operand from `first` on, in the compute type or two rows joined to one of pairs."""
        source = self.offset(pointer, self.stride(place, -2), first)
        head = f"ptr {to}", f"i64 {to_row}", f"ptr {source}", f"i64 {self.stride(place, -2)}"
        if self.tile.pairs:
            pairs = self.writer.op(f"lshr i64 {self.writer.add(rows, 1)}, 1")
            self.call(pair_code(self.tile), *head, f"i64 {pairs}", f"i64 {given}", f"i64 {columns}")
        else:
            more = f"i64 {self.stride(place, -1)}", f"i64 {rows}", f"i64 {given}", f"i64 {columns}"
            self.call(widen_code(self.tile, self.dtype), *head, *more)

    def vectors(self, pointer: str) -> list[str]:
        """The addresses of the two vectors of a chunk's row at `pointer`."""
        return [self.writer.element(pointer, self.tile.type, half) for half in (0, self.tile.lanes)]

    # ---- scores and weights, a vector of queries at a time

    def power(self, x: Value) -> Value:
        """The weight of a score less its row's maximum or log_sum, in `units`."""
        return mathematics.exp2_below(self.a, x) if self.compute is float32 else self.a.exp(x)

    def at(self, operand: Node) -> Value:
        """The element of mask or choice at the present key and queries."""
        axes = [variable(f"b{place}", size) for place, size in enumerate(self.batch)]
        index = Index(operand.shape, (*axes, lane_variable(self.queries), variable("key", self.keys)))
        return self.emitter.value(operand, index)

    @contextmanager
    def place(self, index: list[str], key: str, query: str) -> Iterator[None]:
        """Inside, `at` means this key and the vector of queries from `query` on."""
        names = {f"b{place}": name for place, name in enumerate(index)}
        self.emitter.begin_row({**names, "key": key})
        mask = None
        if self.queries % self.tile.chunk:
            left = self.writer.subtract(self.queries, query)
            mask = self.a.lt(self.a.iota(int64), self.a.broadcast(Value(left, int64)))
        with self.emitter.body({LANE: query, "first": query}, mask):
            yield

    def masked(self, score: Value, key: str, query: str, diagonal: bool) -> Value:
        """The score where it may be looked at, with what is added to it; -inf elsewhere. To be used in `place`."""
        a, nothing = self.a, self.number(-math.inf)
        if self.mask is not None and self.mask.dtype is bool_:
            score = a.select(self.at(self.mask), score, nothing)
        elif self.mask is not None:
            score = a.fma(a.convert(self.at(self.mask), self.compute), self.number(self.units), score)
        if diagonal:
            behind = a.broadcast(Value(self.writer.subtract(key, query), int64))
            score = a.select(a.le(behind, a.iota(int64)), score, nothing)
        return score

    def dropped(self, weight: Value) -> Value:
        """`weight` after dropout. To be used in `place`."""
        if self.choice is None:
            return weight
        kept = self.a.mul(weight, self.number(self.node["kept"]))
        return self.a.select(self.at(self.choice), kept, self.number(0.0))

    def paired(self, low: Value, high: Value) -> str:
        """Two vectors of float32 rounded to bfloat16 and joined lane by lane, as a vector of i32."""
        halves = []
        for value in (low, high):
            narrow = self.rounded(value)
            halves.append(self.writer.op(f"zext <{self.tile.lanes} x i16> {narrow} to <{self.tile.lanes} x i32>"))
        kind = f"<{self.tile.lanes} x i32>"
        shifted = self.writer.op(f"shl {kind} {halves[1]}, splat (i32 16)")
        return self.writer.op(f"or disjoint {kind} {halves[0]}, {shifted}")

    def rounded(self, value: Value) -> str:
        """A vector of float32 rounded to bfloat16, as i16: one instruction where pairs are multiplied."""
        lanes = self.tile.lanes
        narrow = self.writer.op(f"fptrunc <{lanes} x float> {value.ref} to <{lanes} x bfloat>")
        return self.writer.op(f"bitcast <{lanes} x bfloat> {narrow} to <{lanes} x i16>")


def _strided(operand: Node, in_memory: Callable[[Node], bool]) -> View:
    """How a kernel reads `operand`, which the compiler has made readable by strides."""
    view = strided_view(operand, in_memory)
    assert view is not None, f"{operand!r} cannot be read by strides"
    return view


def _stored(dtype: DType) -> str:
    """The LLVM type of an element in memory; all that counts is its size."""
    return {float64: "double", float32: "float"}.get(dtype, "i16")
