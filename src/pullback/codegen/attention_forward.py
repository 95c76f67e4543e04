"""The forward pass of attention: for each chunk of queries, the keys a block at a time.

Dao, "FlashAttention-2: Faster Attention with Better Parallelism and Work Partitioning" (2023), algorithm 1. A task is a
group of chunks of one head; the blocks of keys are gone through once, and each is used for every chunk while it is in
the cache. Blocks of keys that a causal mask hides are not computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ..compiler.groups import Group
from ..graph.node import Node
from ..graph.types import int64
from ..ops.attention import ATTEND, LOG_SUM
from .attention import AttentionKernel
from .attention_tile import pack_code, unpack_code
from .launch import Launch
from .registers import Value
from .target import Target

#: chunks of one task at most, where blocks of keys are read in place, and where they are packed first
_CHUNKS, _CHUNKS_PACKED = 4, 8
#: tasks to be had before they are made longer
_TASKS = 64


def emit_forward(group: Group, in_memory: Callable[[Node], bool], target: Target) -> list[Launch]:
    """The launch that computes `attention` and `attention_log_sum`, or either."""
    return [_Forward(group, in_memory, target).run()]


class _Forward(AttentionKernel):
    def __init__(self, group: Group, in_memory: Callable[[Node], bool], target: Target):
        super().__init__(group, in_memory, target, [])
        tile, take, size = self.tile, self.scratch.take, self.tile.size
        self.in_place = self.dtype is self.compute
        most = _CHUNKS if self.in_place else _CHUNKS_PACKED
        self.together = max(1, min(most, self.chunks, -(-self.chunks * self.heads // _TASKS)))
        row = tile.chunk * size
        #: bytes of a chunk's queries and of its results
        self.query_bytes = -(-self.features // tile.unit) * row
        self.result_bytes = tile.whole_rows(self.width) * row
        self.query_at = take(self.together * self.query_bytes)
        self.result_at = take(self.together * self.result_bytes)
        self.scores_at = take(tile.keys * row)
        self.greatest_at, self.total_at = take(self.together * row), take(self.together * row)
        self.factor_at = take(row)
        self.weights_at = take(tile.keys // tile.unit * row) if tile.pairs else self.scores_at
        self.row = row
        self.key_at = "" if self.in_place or tile.pairs else take(tile.keys * self.features * size)
        self.value_at = "" if self.in_place else take(tile.keys // tile.unit * self.width * size)

    def run(self) -> Launch:
        """The whole kernel."""
        writer, tile = self.writer, self.tile
        groups = -(-self.chunks // self.together)
        # the groups that see the most keys come first
        number, head = writer.divide("%task", self.heads)
        self.index = self.batch_index(head)
        self.head = head
        first = writer.multiply(writer.subtract(groups - 1, number), self.together)
        count = writer.minimum(writer.subtract(self.chunks, first), self.together)
        self.key, self.value = self.operand(1, self.index), self.operand(2, self.index)
        with writer.loop(0, count) as chunk:
            self._begin(chunk, writer.multiply(writer.add(first, chunk), tile.chunk))
        end = str(self.keys)
        if self.node["causal"]:
            end = writer.minimum(writer.multiply(writer.add(first, count), tile.chunk), self.keys)
        with writer.loop(0, end, tile.keys) as start:
            length = writer.minimum(writer.subtract(end, start), tile.keys)
            keys, values = self._block(start, length)
            with writer.loop(0, count) as chunk:
                query = writer.multiply(writer.add(first, chunk), tile.chunk)
                if self.node["causal"]:
                    seen = writer.subtract(writer.add(query, tile.chunk), start)
                    seen = writer.minimum(seen, length)
                    with writer.when(writer.op(f"icmp sgt i64 {seen}, 0")):
                        self._attend(chunk, query, start, seen, keys, values)
                else:
                    self._attend(chunk, query, start, length, keys, values)
        with writer.loop(0, count) as chunk:
            self._finish(chunk, writer.multiply(writer.add(first, chunk), tile.chunk))
        return self.launch("attention", self.heads * groups)

    def _begin(self, chunk: str, query: str) -> None:
        """Pack the chunk's queries, scaled, and set the maxima and sums to those of no keys."""
        writer, tile = self.writer, self.tile
        source = self.offset(self.operand(0, self.index), self.stride(0, -2), query)
        dtype = tile.compute if tile.pairs else self.dtype
        scalar = self.emitter.scalar.constant(self.node["scale"] * self.units, self.compute).ref
        self.call(
            pack_code(tile, dtype),
            f"ptr {self.offset(self.query_at, self.query_bytes, chunk)}",
            f"ptr {source}",
            f"i64 {self.stride(0, -2)}",
            f"i64 {4 if tile.pairs else self.stride(0, -1)}",
            f"i64 {writer.minimum(writer.subtract(self.queries, query), tile.chunk)}",
            f"i64 {-(-self.features // tile.unit)}",
            f"{tile.type} {scalar}",
        )
        self.fill(self.offset(self.greatest_at, self.row, chunk), tile.chunk, -math.inf)
        self.fill(self.offset(self.total_at, self.row, chunk), tile.chunk, 0.0)

    def _block(self, start: str, length: str) -> tuple[tuple[str, int, int], tuple[str, int, int]]:
        """The block of keys from `start` on, and that of values: address, bytes from row to row, from place to place.

        For keys a row is a key and a place a feature, for values the other way round.
        """
        tile = self.tile
        key = self.offset(self.key, self.stride(1, -2), start)
        value = self.offset(self.value, self.stride(2, -2), start)
        if self.in_place:
            return (key, self.stride(1, -2), self.stride(1, -1)), (value, self.stride(2, -1), self.stride(2, -2))
        size = tile.size
        if ATTEND in self.wanted:
            self.arrange(self.value_at, self.width, 2, self.value, start, length, length, self.width)
        values = self.value_at, size, self.width * size
        if tile.pairs:
            return (key, self.stride(1, -2), size), values
        self.arrange(self.key_at, self.features, 1, self.key, start, length, length, self.features)
        return (self.key_at, self.features * size, size), values

    def _attend(
        self, chunk: str, query: str, start: str, length: str, keys: tuple[str, int, int], values: tuple[str, int, int]
    ) -> None:
        """One block of `length` keys for one chunk: scores, their new maxima, weights, and what they add up to."""
        writer, tile = self.writer, self.tile
        packed = self.offset(self.query_at, self.query_bytes, chunk)
        steps = -(-self.features // tile.unit)
        self.product(*keys, length, packed, tile.chunk, self.scores_at, tile.chunk, steps)
        self._maxima(chunk, query, start, length)
        self._weights(chunk, query, start, length)
        if ATTEND in self.wanted:
            result = self.offset(self.result_at, self.result_bytes, chunk)
            steps_here = writer.op(f"lshr i64 {writer.add(length, 1)}, 1") if tile.pairs else length
            fresh = writer.op(f"icmp eq i64 {start}, 0")
            factor = writer.op(f"select i1 {fresh}, ptr null, ptr {self.factor_at}")
            self.product(*values[:3], self.width, self.weights_at, tile.chunk, result, tile.chunk, steps_here, factor)

    def _maxima(self, chunk: str, query: str, start: str, length: str) -> None:
        """The maxima with this block's scores, which are masked where they lie; the factor for what came before."""
        writer, a, tile = self.writer, self.a, self.tile
        places = self.vectors(self.offset(self.greatest_at, self.row, chunk))
        kind = a.llvm_type(self.compute)
        before = [a.load(place, self.compute) for place in places]
        greatest = [writer.variable(kind, value.ref) for value in before]

        def rows(first: str, stop: str, diagonal: bool) -> None:
            with writer.loop(first, stop, as_written=True) as row:
                key = writer.add(start, row)
                for half, place in enumerate(self.vectors(self.offset(self.scores_at, self.row, row))):
                    lane = writer.add(query, half * tile.lanes)
                    score = a.load(place, self.compute)
                    if tile.pairs:
                        score = a.mul(score, self.number(self.node["scale"] * self.units))
                    with self.place(self.index, key, lane):
                        seen = self.masked(score, key, lane, diagonal)
                    if tile.pairs or diagonal or self.mask is not None:
                        a.store(seen, place, self.compute)
                    old = Value(greatest[half].get(), self.compute)
                    greatest[half].set(a.select(a.lt(old, seen), seen, old).ref)

        if self.node["causal"]:
            full = writer.minimum(self.maximum(writer.add(writer.subtract(query, start), 1), 0), length)
            rows("0", full, False)
            rows(full, length, True)
        else:
            rows("0", length, False)
        for half, place in enumerate(places):
            new = Value(greatest[half].get(), self.compute)
            a.store(new, place, self.compute)
            factor = self.power(a.sub(before[half], self._shift(new)))
            a.store(factor, self.vectors(self.factor_at)[half], self.compute)

    def _shift(self, greatest: Value) -> Value:
        """What is taken off the scores: the maximum, or 0 where there is nothing but -inf."""
        nothing = self.a.eq(greatest, self.number(-math.inf))
        return self.a.select(nothing, self.number(0.0), greatest)

    def _weights(self, chunk: str, query: str, start: str, length: str) -> None:
        """The weights of this block, and their sums."""
        writer, a, tile = self.writer, self.a, self.tile
        kind = a.llvm_type(self.compute)
        shifts = [
            self._shift(a.load(place, self.compute))
            for place in self.vectors(self.offset(self.greatest_at, self.row, chunk))
        ]
        places = self.vectors(self.offset(self.total_at, self.row, chunk))
        totals = []
        for half, place in enumerate(places):
            factor = a.load(self.vectors(self.factor_at)[half], self.compute)
            totals.append(writer.variable(kind, a.mul(a.load(place, self.compute), factor).ref))

        def weights(row: str) -> list[Value]:
            found = []
            for half, place in enumerate(self.vectors(self.offset(self.scores_at, self.row, row))):
                weight = self.power(a.sub(a.load(place, self.compute), shifts[half]))
                totals[half].set(a.add(Value(totals[half].get(), self.compute), weight).ref)
                with self.place(self.index, writer.add(start, row), writer.add(query, half * tile.lanes)):
                    found.append(self.dropped(weight))
            return found

        if not tile.pairs:
            with writer.loop(0, length, as_written=True) as row:
                found = weights(row)
                for place, value in zip(self.vectors(self.offset(self.weights_at, self.row, row)), found, strict=True):
                    a.store(value, place, self.compute)
        else:
            whole = writer.op(f"and i64 {length}, -2")
            with writer.loop(0, whole, 2, as_written=True) as row:
                self._store_pairs(row, weights(row), weights(writer.add(row, 1)))
            with writer.when(writer.op(f"icmp slt i64 {whole}, {length}")):
                self._store_pairs(whole, weights(whole), [self.number(0.0)] * 2)
        for place, total in zip(places, totals, strict=True):
            a.store(Value(total.get(), self.compute), place, self.compute)

    def _store_pairs(self, row: str, low: list[Value], high: list[Value]) -> None:
        """The weights of two neighbouring keys as pairs."""
        pointer = self.offset(self.weights_at, self.row // 2, row)
        for place, *both in zip(self.vectors(pointer), low, high, strict=True):
            pairs = self.paired(*both)
            self.writer.line(f"store <{self.tile.lanes} x i32> {pairs}, ptr {place}, align 4")

    def _finish(self, chunk: str, query: str) -> None:
        """Divide the chunk's results by the sums, and write them and the log_sums."""
        writer, a, tile = self.writer, self.a, self.tile
        total_at = self.vectors(self.offset(self.total_at, self.row, chunk))
        greatest_at = self.vectors(self.offset(self.greatest_at, self.row, chunk))
        rows = writer.minimum(writer.subtract(self.queries, query), tile.chunk)
        for half in range(2):
            total = a.load(total_at[half], self.compute)
            empty = a.eq(total, self.number(0.0))
            factor = a.select(empty, total, a.div(self.number(1.0), total))
            a.store(factor, self.vectors(self.factor_at)[half], self.compute)
            if LOG_SUM in self.wanted:
                greatest = a.mul(a.load(greatest_at[half], self.compute), self.number(1 / self.units))
                log_sum = a.select(empty, self.number(math.inf), a.add(greatest, a.log(total)))
                self._write_log_sum(log_sum, query, rows, half * tile.lanes)
        if ATTEND in self.wanted:
            node = self.wanted[ATTEND]
            pointer, stride = self.result(node, self.index)
            self.call(
                unpack_code(tile, node.dtype),
                f"ptr {self.offset(pointer, stride, query)}",
                f"i64 {stride}",
                f"ptr {self.offset(self.result_at, self.result_bytes, chunk)}",
                f"i64 {rows}",
                f"i64 {self.width}",
                f"ptr {self.factor_at}",
            )

    def _write_log_sum(self, value: Value, query: str, rows: str, lane: int) -> None:
        writer, a = self.writer, self.a
        pointer, stride = self.result(self.wanted[LOG_SUM], self.index)
        place = self.offset(pointer, stride, writer.add(query, lane))
        left = writer.subtract(rows, lane)
        mask = a.lt(a.iota(int64), a.broadcast(Value(left, int64)))
        a.masked_store(value, place, self.compute, mask)
