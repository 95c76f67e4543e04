"""The backward pass of attention: a block of keys at a time, for each chunk of queries that sees some of them.

Dao, "FlashAttention-2" (2023), algorithm 2. A task goes through a range of one head's keys: the gradients of keys and
values are complete with their block; those of queries are summed over the blocks in their order, and where a head has
several tasks, over the tasks in theirs by a second launch. So every sum has one order for any number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ..compiler.groups import Group
from ..graph.node import Node
from ..graph.types import float32
from ..ops.attention import KEY_GRADIENT, QUERY_GRADIENT, VALUE_GRADIENT
from .attention import AttentionKernel
from .attention_tile import narrow_code, pack_code, unpack_code
from .launch import Launch, Workspace
from .registers import Value
from .target import Target

#: tasks to be had, where there are fewer heads, by giving several tasks to a head
_TASKS = 8

#: the place of each operand
_QUERY, _KEY, _VALUE, _LOG_SUM, _DELTA, _COTANGENT = range(6)


def emit_backward(group: Group, in_memory: Callable[[Node], bool], target: Target) -> list[Launch]:
    """The launches that compute the gradients among the group's members."""
    sums = Workspace(0)
    kernel = _Backward(group, in_memory, target, sums)
    launches = [kernel.run()]
    if kernel.shared_sums:
        sums.nbytes = kernel.heads * kernel.parts * kernel.sums_bytes
        launches.append(_QuerySums(group, in_memory, target, sums, kernel).run())
    return launches


class _Backward(AttentionKernel):
    def __init__(self, group: Group, in_memory: Callable[[Node], bool], target: Target, sums: Workspace):
        super().__init__(group, in_memory, target, [sums])
        tile, take, size = self.tile, self.scratch.take, self.tile.size
        self.row = tile.chunk * size
        self.blocks = -(-self.keys // tile.keys)
        self.parts = min(self.blocks, -(-_TASKS // self.heads))
        self.each = -(-self.blocks // self.parts)
        self.parts = -(-self.blocks // self.each)
        self.by_query, self.by_key = QUERY_GRADIENT in self.wanted, KEY_GRADIENT in self.wanted
        self.by_value = VALUE_GRADIENT in self.wanted
        self.by_score = self.by_query or self.by_key
        self.shared_sums = self.by_query and self.parts > 1
        if not self.shared_sums:
            self.arguments.remove(sums)
            self.emitter.slots.base -= 1
        # rows of the queries and cotangents as they are read by the gradients of keys and values
        self.feature_columns, self.width_columns = (
            -(-n // tile.lanes) * tile.lanes for n in (self.features, self.width)
        )
        self.query_bytes = -(-self.features // tile.unit) * self.row
        self.cotangent_bytes = -(-self.width // tile.unit) * self.row
        self.sum_bytes = tile.whole_rows(self.features) * self.row
        self.sums_bytes = self.chunks * self.sum_bytes
        self.query_at, self.cotangent_at = (
            take(self.chunks * self.query_bytes),
            take(self.chunks * self.cotangent_bytes),
        )
        self.query_rows = self._rows(_QUERY, self.feature_columns, self.by_key)
        self.cotangent_rows = self._rows(_COTANGENT, self.width_columns, self.by_value)
        self.log_sum_at, self.delta_at = take(self.chunks * self.row), take(self.chunks * self.row)
        self.ones_at = take(self.row)
        self.scores_at, self.slopes_at = take(tile.keys * self.row), take(tile.keys * self.row)
        if tile.pairs:  # weights and slopes rounded, key by key for sums over queries, in pairs for sums over keys
            self.weight_rows_at, self.slope_rows_at = take(tile.keys * self.row // 2), take(tile.keys * self.row // 2)
            self.slope_pairs_at = take(tile.keys * self.row // 2)
        self.key_sums_at = take(tile.whole_rows(tile.keys) * self.feature_columns * size)
        self.value_sums_at = take(tile.whole_rows(tile.keys) * self.width_columns * size)
        self.in_place = self.dtype is self.compute
        self.key_at = "" if self.in_place else take(tile.keys // tile.unit * self.features * size)
        self.value_at = "" if self.in_place or tile.pairs else take(tile.keys * self.width * size)
        self.sums_at = "" if self.shared_sums else take(self.sums_bytes)

    def _rows(self, place: int, columns: int, wanted: bool) -> str:
        """Memory for an operand's rows in the order in which products read them; none where they are read in place."""
        plain = self.dtype is self.compute and self.stride(place, -1) == self.tile.size
        if not wanted or (plain and self._fits(columns, place)):
            return ""
        return self.scratch.take(self.chunks * self.tile.chunk // self.tile.unit * columns * self.tile.size)

    def _fits(self, columns: int, place: int) -> bool:
        """Whether whole vectors and chunks of the operand are all there."""
        return self.operands[place].shape[-1] == columns and self.queries % self.tile.chunk == 0

    # ---- the kernel

    def run(self) -> Launch:
        """The whole kernel."""
        writer, tile = self.writer, self.tile
        head, part = writer.divide("%task", self.parts)
        self.index = self.batch_index(head)
        self.key, self.value = self.operand(_KEY, self.index), self.operand(_VALUE, self.index)
        self.query, self.cotangent = self.operand(_QUERY, self.index), self.operand(_COTANGENT, self.index)
        if self.shared_sums:
            self.sums_at = self.offset(writer.argument(len(self.views)), self.sums_bytes, "%task")
        self.fill(self.ones_at, tile.chunk, 1.0)
        with writer.loop(0, self.chunks) as chunk:
            self._begin(chunk)
        if self.by_query:
            self.fill(self.sums_at, self.sums_bytes // tile.size, 0.0)
        first = writer.multiply(part, self.each * tile.keys)
        stop = writer.minimum(writer.add(first, self.each * tile.keys), self.keys)
        with writer.loop(first, stop, tile.keys) as start:
            length = writer.minimum(writer.subtract(stop, start), tile.keys)
            self._block(start, length)
        if self.by_query and not self.shared_sums:
            node = self.wanted[QUERY_GRADIENT]
            pointer, stride = self.result(node, self.index)
            self.fill(self.ones_at, tile.chunk, self.node["scale"])
            with writer.loop(0, self.chunks) as chunk:
                self.write_queries(pointer, stride, self.sums_at, chunk)
        return self.launch("attention_gradient", self.heads * self.parts)

    def write_queries(self, pointer: str, stride: int, sums: str, chunk: str) -> None:
        """A chunk's gradients of queries, from their sums and the scale in `ones_at`, as rows."""
        writer, tile = self.writer, self.tile
        query = writer.multiply(chunk, tile.chunk)
        self.call(
            unpack_code(tile, self.dtype),
            f"ptr {self.offset(pointer, stride, query)}",
            f"i64 {stride}",
            f"ptr {self.offset(sums, self.sum_bytes, chunk)}",
            f"i64 {writer.minimum(writer.subtract(self.queries, query), tile.chunk)}",
            f"i64 {self.features}",
            f"ptr {self.ones_at}",
        )

    def _begin(self, chunk: str) -> None:
        """Bring a chunk's queries and cotangents into order, its log_sums and deltas into whole vectors."""
        writer, tile = self.writer, self.tile
        query = writer.multiply(chunk, tile.chunk)
        rows = writer.minimum(writer.subtract(self.queries, query), tile.chunk)
        dtype = float32 if tile.pairs else self.dtype
        units = self.node["scale"] * self.units
        for place, pointer, to, nbytes, columns, factor in (
            (_QUERY, self.query, self.query_at, self.query_bytes, self.features, units),
            (_COTANGENT, self.cotangent, self.cotangent_at, self.cotangent_bytes, self.width, 1.0),
        ):
            self.call(
                pack_code(tile, dtype),
                f"ptr {self.offset(to, nbytes, chunk)}",
                f"ptr {self.offset(pointer, self.stride(place, -2), query)}",
                f"i64 {self.stride(place, -2)}",
                f"i64 {4 if tile.pairs else self.stride(place, -1)}",
                f"i64 {rows}",
                f"i64 {-(-columns // tile.unit)}",
                f"{tile.type} {self.emitter.scalar.constant(factor, self.compute).ref}",
            )
        for place, pointer, to, columns, width in (
            (_QUERY, self.query, self.query_rows, self.features, self.feature_columns),
            (_COTANGENT, self.cotangent, self.cotangent_rows, self.width, self.width_columns),
        ):
            if to:
                nbytes = tile.chunk // tile.unit * width * tile.size
                target = self.offset(to, nbytes, chunk)
                self.arrange(target, width, place, pointer, query, str(tile.chunk), rows, columns)
        self._row_numbers(_LOG_SUM, self.log_sum_at, chunk, query, rows, math.inf, self.units)
        self._row_numbers(_DELTA, self.delta_at, chunk, query, rows, 0.0, 1.0)

    def _row_numbers(
        self, place: int, to: str, chunk: str, query: str, rows: str, missing: float, factor: float
    ) -> None:
        """A number a query, times `factor`; `missing` where there is no query."""
        writer, one = self.writer, self.emitter.scalar
        target = self.offset(to, self.row, chunk)
        self.fill(target, self.tile.chunk, missing)
        source = self.operand(place, self.index)
        with writer.loop(0, rows) as lane:
            position = self.offset(source, self.stride(place, -1), writer.add(query, lane))
            value = one.mul(one.load(position, self.compute), one.constant(factor, self.compute))
            one.store(value, writer.element(target, self.tile.type, lane), self.compute)

    def _block(self, start: str, length: str) -> None:
        """A block of keys: everything that its gradients are summed from, and the gradients written."""
        writer, tile = self.writer, self.tile
        size = tile.size
        key_sums, value_sums = tile.keys * self.feature_columns, tile.keys * self.width_columns
        if self.by_key:
            self.fill(self.key_sums_at, key_sums, 0.0)
        if self.by_value:
            self.fill(self.value_sums_at, value_sums, 0.0)
        key = self.offset(self.key, self.stride(_KEY, -2), start)
        value = self.offset(self.value, self.stride(_VALUE, -2), start)
        if self.in_place or tile.pairs:
            by_feature = 4 if tile.pairs else self.stride(_KEY, -1)
            by_width = 4 if tile.pairs else self.stride(_VALUE, -1)
            self.keys_block = key, self.stride(_KEY, -2), by_feature
            self.values_block = value, self.stride(_VALUE, -2), by_width
            self.features_block = key, self.stride(_KEY, -1), self.stride(_KEY, -2)
        if not self.in_place and (self.by_query or not tile.pairs):
            self.arrange(self.key_at, self.features, _KEY, self.key, start, length, length, self.features)
            self.features_block = self.key_at, size, self.features * size
        if not self.in_place and not tile.pairs:
            self.arrange(self.value_at, self.width, _VALUE, self.value, start, length, length, self.width)
            self.keys_block = self.key_at, self.features * size, size
            self.values_block = self.value_at, self.width * size, size
        first = writer.divide(start, tile.chunk)[0] if self.node["causal"] else "0"
        with writer.loop(first, self.chunks) as chunk:
            query = writer.multiply(chunk, tile.chunk)
            seen = length
            if self.node["causal"]:
                seen = writer.minimum(writer.subtract(writer.add(query, tile.chunk), start), length)
            self._chunk(chunk, query, start, seen)
        scale = self.emitter.scalar.constant(self.node["scale"], self.compute).ref
        one = self.emitter.scalar.constant(1.0, self.compute).ref
        for op, sums, columns, width, factor in (
            (KEY_GRADIENT, self.key_sums_at, self.features, self.feature_columns, scale),
            (VALUE_GRADIENT, self.value_sums_at, self.width, self.width_columns, one),
        ):
            if op in self.wanted:
                pointer, stride = self.result(self.wanted[op], self.index)
                self.call(
                    narrow_code(tile, self.dtype),
                    f"ptr {self.offset(pointer, stride, start)}",
                    f"i64 {stride}",
                    f"ptr {sums}",
                    f"i64 {width}",
                    f"i64 {length}",
                    f"i64 {columns}",
                    f"{tile.type} {factor}",
                )

    def _chunk(self, chunk: str, query: str, start: str, length: str) -> None:
        """One block of keys and one chunk of queries: the five products, and the slopes between them."""
        writer, tile = self.writer, self.tile
        row, unit, size = tile.chunk, tile.unit, tile.size
        packed = self.offset(self.query_at, self.query_bytes, chunk)
        self.product(*self.keys_block, length, packed, row, self.scores_at, row, -(-self.features // unit))
        if self.by_score:
            packed = self.offset(self.cotangent_at, self.cotangent_bytes, chunk)
            self.product(*self.values_block, length, packed, row, self.slopes_at, row, -(-self.width // unit))
        self._slopes(chunk, query, start, length)
        steps = tile.chunk // unit
        weights_at, slopes_at = self.scores_at, self.slopes_at
        if tile.pairs:
            weights_at, slopes_at = self.weight_rows_at, self.slope_rows_at
        across = self.row // unit, size  # bytes from key to key, and from query to query or pair to pair
        if self.by_value:
            right = self._across(_COTANGENT, self.cotangent_rows, self.cotangent, self.width_columns, chunk)
            columns, sums = self.width_columns, self.value_sums_at
            self.product(weights_at, *across, length, *right, sums, columns, steps, self.ones_at, columns)
        if self.by_key:
            right = self._across(_QUERY, self.query_rows, self.query, self.feature_columns, chunk)
            columns, sums = self.feature_columns, self.key_sums_at
            self.product(slopes_at, *across, length, *right, sums, columns, steps, self.ones_at, columns)
        if self.by_query:
            sums = self.offset(self.sums_at, self.sum_bytes, chunk)
            slopes_at = self.slope_pairs_at if tile.pairs else self.slopes_at
            steps_here = writer.op(f"lshr i64 {writer.add(length, 1)}, 1") if tile.pairs else length
            self.product(*self.features_block, self.features, slopes_at, row, sums, row, steps_here, self.ones_at)

    def _across(self, place: int, rows: str, pointer: str, columns: int, chunk: str) -> tuple[str, int]:
        """A chunk's rows of an operand, and the elements from one to the next: as arranged, or where they lie."""
        tile = self.tile
        if rows:
            return self.offset(rows, tile.chunk // tile.unit * columns * tile.size, chunk), columns
        stride = self.stride(place, -2)
        return self.offset(pointer, stride * tile.chunk, chunk), stride // tile.size

    def _slopes(self, chunk: str, query: str, start: str, length: str) -> None:
        """Scores to weights, and the slopes of weights to those of scores: P ∘ (R(G Vᵀ) - D)."""
        writer, a, tile = self.writer, self.a, self.tile
        log_sums = [a.load(p, self.compute) for p in self.vectors(self.offset(self.log_sum_at, self.row, chunk))]
        deltas = [a.load(p, self.compute) for p in self.vectors(self.offset(self.delta_at, self.row, chunk))]

        def one(row: str, diagonal: bool) -> tuple[list[Value], list[Value]]:
            """Weights after dropout and slopes of a key, for both vectors of queries."""
            weights, slopes = [], []
            scores = self.vectors(self.offset(self.scores_at, self.row, row))
            by_weight = self.vectors(self.offset(self.slopes_at, self.row, row))
            key = writer.add(start, row)
            for half in range(2):
                lane = writer.add(query, half * tile.lanes)
                score = a.load(scores[half], self.compute)
                if tile.pairs:
                    score = a.mul(score, self.number(self.node["scale"] * self.units))
                with self.place(self.index, key, lane):
                    weight = self.power(a.sub(self.masked(score, key, lane, diagonal), log_sums[half]))
                    weights.append(self.dropped(weight))
                    if self.by_score:
                        slope = self.dropped(a.load(by_weight[half], self.compute))
                        slopes.append(a.mul(weight, a.sub(slope, deltas[half])))
            return weights, slopes

        def rows(first: str, stop: str, diagonal: bool) -> None:
            if not tile.pairs:
                with writer.loop(first, stop, as_written=True) as row:
                    self._store(row, *one(row, diagonal))
                return
            whole = writer.add(first, writer.op(f"and i64 {writer.subtract(stop, first)}, -2"))
            with writer.loop(first, whole, 2, as_written=True) as row:
                after = writer.add(row, 1)
                self._store_pairs(row, one(row, diagonal), one(after, diagonal), after)
            with writer.when(writer.op(f"icmp slt i64 {whole}, {stop}")):
                nothing = [self.number(0.0)] * 2
                self._store_pairs(whole, one(whole, diagonal), (nothing, nothing), None)

        if self.node["causal"]:
            full = self.maximum(writer.add(writer.subtract(query, start), 1), 0)
            # pairs of keys begin at even ones
            full = writer.op(f"and i64 {writer.minimum(full, length)}, {-tile.unit}")
            rows("0", full, False)
            rows(full, length, True)
        else:
            rows("0", length, False)

    def _store(self, row: str, weights: list[Value], slopes: list[Value]) -> None:
        for base, values in ((self.scores_at, weights), (self.slopes_at, slopes)):
            for place, value in zip(self.vectors(self.offset(base, self.row, row)), values, strict=False):
                self.a.store(value, place, self.compute)

    def _store_pairs(
        self, row: str, low: tuple[list[Value], list[Value]], high: tuple[list[Value], list[Value]], after: str | None
    ) -> None:
        """Weights and slopes of two keys rounded, key by key, and the slopes in pairs too."""
        writer, lanes = self.writer, self.tile.lanes
        for base, first, second in ((self.weight_rows_at, low[0], high[0]), (self.slope_rows_at, low[1], high[1])):
            for number, values in ((row, first), (after, second)):
                if number is None:
                    continue
                pointer = self.offset(base, self.row // 2, number)
                for half, value in enumerate(values):
                    place = writer.element(pointer, "i16", half * lanes)
                    writer.line(f"store <{lanes} x i16> {self.rounded(value)}, ptr {place}, align 2")
        places = self.vectors(self.offset(self.slope_pairs_at, self.row // 2, row))
        for place, *both in zip(places, low[1], high[1], strict=False):
            writer.line(f"store <{lanes} x i32> {self.paired(*both)}, ptr {place}, align 4")


class _QuerySums(AttentionKernel):
    """The second launch: a chunk's gradients of queries, summed over the tasks of its head in their order."""

    def __init__(
        self, group: Group, in_memory: Callable[[Node], bool], target: Target, sums: Workspace, first: _Backward
    ):
        super().__init__(group, in_memory, target, [sums])
        self.first = first
        self.row = first.row
        self.sum_bytes, self.sums_bytes = first.sum_bytes, first.sums_bytes
        self.ones_at, self.total_at = self.scratch.take(self.row), self.scratch.take(self.sum_bytes)

    def run(self) -> Launch:
        """The whole kernel."""
        writer, a, tile = self.writer, self.a, self.tile
        head, chunk = writer.divide("%task", self.chunks)
        self.fill(self.ones_at, tile.chunk, self.node["scale"])
        workspace = self.offset(writer.argument(len(self.views)), self.first.parts * self.sums_bytes, head)
        workspace = self.offset(workspace, self.sum_bytes, chunk)
        with writer.loop(0, self.sum_bytes // tile.size, tile.lanes) as i:
            total = None
            for part in range(self.first.parts):
                place = writer.element(self.offset(workspace, self.sums_bytes, part), tile.type, i)
                value = a.load(place, self.compute)
                total = value if total is None else a.add(total, value)
            assert total is not None
            a.store(total, writer.element(self.total_at, tile.type, i), self.compute)
        pointer, stride = self.result(self.wanted[QUERY_GRADIENT], self.batch_index(head))
        query = writer.multiply(chunk, tile.chunk)
        self.call(
            unpack_code(tile, self.dtype),
            f"ptr {self.offset(pointer, stride, query)}",
            f"i64 {stride}",
            f"ptr {self.total_at}",
            f"i64 {writer.minimum(writer.subtract(self.queries, query), tile.chunk)}",
            f"i64 {self.features}",
            f"ptr {self.ones_at}",
        )
        return self.launch("attention_sums", self.heads * self.chunks)
