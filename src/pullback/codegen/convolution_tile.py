"""The pieces that convolution kernels are made of: the register tile, and the padded copy of what a task reads.

A tile of C is a few rows (output places, or rows of a window's gradient) by a few vectors of neighbouring outputs. Its
sum runs over nested loops, each of which moves on in both operands by a fixed step; so the windows are read where the
input lies, and no matrix of windows is ever made. With `by_lane` both operands are vectors (depthwise convolution),
else the left one is a number repeated in all lanes.

Where the processor multiplies pairs of bfloat16, an element of both is a pair of neighbours in the sum, as large as a
float: the tile, its loops and what is copied for it are the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..compiler.index import Affine, Index, variable
from ..graph.node import Node
from ..graph.types import DType, bfloat16, float32, int64, uint32
from .emitter import LANE, VECTOR, Emitter, lane_variable
from .matmul_tile import Size, multiply_add, multiply_pairs, scalar_type, splat
from .registers import Value
from .target import Target, is_x86
from .text import Variable, Writer

#: steps of the innermost loop of a sum that are written out
_UNROLL = 4


@dataclass(frozen=True)
class Run:
    """A loop of a sum: how often, and by how many elements each operand moves on."""

    count: Size
    left: int
    right: int


@dataclass(frozen=True)
class Tiling:
    """A register tile: `high` x `wide` rows of C, and `vectors` vectors to a row."""

    high: int
    wide: int
    vectors: int


def pieces(total: int, size: int) -> list[tuple[int, int, int]]:
    """(start, count, size) of the whole pieces of `total`, and of the smaller one at the end; empty ones left out."""
    found = [(0, total // size, size), (total - total % size, 1, total % size)]
    return [piece for piece in found if piece[1] and piece[2]]


def choose_tiling(
    high: int, wide: int, columns: int, steps: int, lanes: int, registers: int, by_lane: bool = False
) -> Tiling:
    """The tile that needs the fewest cycles for `high` x `wide` rows, counting two vector operations to a cycle."""

    def cycles(rows: int, vectors: int) -> float:
        loads = rows * vectors + vectors if by_lane else rows + vectors
        return max(rows * vectors / 2, loads / 2, 4) * max(steps, 1) + 8 + rows * vectors

    best: tuple[float, Tiling] | None = None
    in_row = -(-columns // lanes)
    for vectors in range(1, min(in_row, 4) + 1):
        for rows in range(1, registers):
            if rows * vectors + vectors + 1 > registers:
                break
            shapes = [(1, rows)] if rows <= wide else []
            shapes += [(rows // wide, wide)] if rows % wide == 0 and 1 < rows // wide <= high else []
            for tall, broad in shapes:
                total = sum(
                    a * b * c * cycles(h * w, v)
                    for _, a, h in pieces(high, tall)
                    for _, b, w in pieces(wide, broad)
                    for _, c, v in pieces(in_row, vectors)
                )
                if best is None or total < best[0]:
                    best = total, Tiling(tall, broad, vectors)
    assert best is not None
    return best[1]


#: the narrowest vector of pairs that is multiplied
_LEAST_PAIRS = 4


def by_pairs(node: Node, in_memory: Callable[[Node], bool], target: Target) -> bool:
    """Whether the convolution is one of bfloat16 operands, widened as they are read, whose pairs the processor
    multiplies (x86's AVX512_BF16), in vectors that it has.
    """
    widened = all(
        operand.op.name == "convert" and operand.inputs[0].dtype is bfloat16 and not in_memory(operand)
        for operand in node.inputs
    )
    multiplied = target.has_bf16 and is_x86(target.triple) and target.vector_bytes == 64
    return widened and multiplied and node.dtype is float32 and node.shape[-1] % _LEAST_PAIRS == 0


def widths_of(columns: int, lanes: int, pairs: bool = False) -> list[int]:
    """The vectors that make up a row of `columns` elements; of pairs there are those of 4, 8 and 16 alone."""
    found, left = [lanes] * (columns // lanes), columns % lanes
    while pairs and left:
        lanes = lanes // 2
        found += [lanes] if left >= lanes else []
        left %= lanes
    return found + ([left] if left else [])


def accumulate(
    writer: Writer, dtype: DType, rows: Sequence[int], widths: Sequence[int], runs: Sequence[Run], a: str, b: str,
    by_lane: bool, pairs: bool = False,
) -> list[list[Variable]]:  # fmt: skip
    """The sums of a tile whose rows begin `rows` elements after `a`, one variable a vector."""
    type_, size = scalar_type(dtype), dtype.itemsize
    starts = [sum(widths[:i]) for i in range(len(widths))]
    sums = [[writer.variable(f"<{width} x {type_}>", "zeroinitializer") for width in widths] for _ in rows]

    def load(pointer: str, width: int) -> str:
        return writer.op(f"load <{width} x {type_}>, ptr {pointer}, align {size}")

    def step(left: str, right: str, ahead: int, run: Run, held: list[list[str]]) -> list[list[str]]:
        vectors = [
            load(writer.element(right, type_, ahead * run.right + start), width)
            for start, width in zip(starts, widths, strict=True)
        ]
        result = []
        for offset, row in zip(rows, held, strict=True):
            place = offset + ahead * run.left
            if by_lane:
                factors = [
                    load(writer.element(left, type_, place + start), width)
                    for start, width in zip(starts, widths, strict=True)
                ]
            else:
                one = writer.op(f"load {type_}, ptr {writer.element(left, type_, place)}, align {size}")
                factors = [splat(writer, type_, width, one) for width in widths]
            result.append(
                [
                    multiply_pairs(writer, width, factor, vector, old)
                    if pairs
                    else multiply_add(writer, type_, width, factor, vector, old)
                    for width, factor, vector, old in zip(widths, factors, vectors, row, strict=True)
                ]
            )
        return result

    def advance(left: str, right: str, steps: int, run: Run) -> None:
        held = [[variable.get() for variable in row] for row in sums]
        for ahead in range(steps):
            held = step(left, right, ahead, run, held)
        for row, values in zip(sums, held, strict=True):
            for sum_, value in zip(row, values, strict=True):
                sum_.set(value)

    def moved(left: str, right: str, position: str, run: Run) -> tuple[str, str]:
        return (
            writer.element(left, type_, writer.multiply(position, run.left)),
            writer.element(right, type_, writer.multiply(position, run.right)),
        )

    def nest(left: str, right: str, remaining: Sequence[Run]) -> None:
        run, *rest = remaining
        if rest:
            with writer.loop(0, run.count, as_written=True) as position:
                nest(*moved(left, right, position, run), rest)
        elif isinstance(run.count, int) and run.count <= 2 * _UNROLL:
            advance(left, right, run.count, run)
        else:
            main: Size = (
                run.count - run.count % _UNROLL
                if isinstance(run.count, int)
                else writer.subtract(run.count, writer.divide(run.count, _UNROLL)[1])
            )
            with writer.loop(0, main, _UNROLL, as_written=True) as position:
                advance(*moved(left, right, position, run), _UNROLL, run)
            if main != run.count:
                with writer.loop(main, run.count, as_written=True) as position:
                    advance(*moved(left, right, position, run), 1, run)

    if 0 not in [run.count for run in runs]:
        nest(a, b, runs or [Run(1, 0, 0)])
    return sums


def store_sums(
    writer: Writer, dtype: DType, sums: list[list[Variable]], c: str, rows: Sequence[int], adds: str | None = None
) -> None:
    """Write a tile whose rows begin `rows` elements after `c`; where the i1 `adds` is true, add it to what is there."""
    type_, size = scalar_type(dtype), dtype.itemsize
    places: list[tuple[Variable, str]] = []
    for offset, row in zip(rows, sums, strict=True):
        for sum_ in row:
            places.append((sum_, writer.element(c, type_, offset)))
            offset += int(sum_.type[1:].split()[0])
    if adds is not None:
        with writer.when(adds):
            for sum_, place in places:
                held = writer.op(f"load {sum_.type}, ptr {place}, align {size}")
                sum_.set(writer.op(f"fadd {sum_.type} {held}, {sum_.get()}"))
    for sum_, place in places:
        writer.line(f"store {sum_.type} {sum_.get()}, ptr {place}, align {size}")


# ---- what a task reads, copied to its scratch memory with padding


@dataclass(frozen=True)
class Axis:
    """An axis of a padded copy: place e holds the element i for which i * spread = e * skip - low, or else zero.

    `extent` places; the value has `size` elements along the axis. `low` may be an SSA name (with `extent`, where only a
    block of the axis is copied).
    """

    extent: Size
    size: int
    low: Size
    skip: int = 1
    spread: int = 1


def zero_fill(writer: Writer, dtype: DType, pointer: str, count: Size, lanes: int) -> None:
    """Set `count` elements from `pointer` on to zero."""
    type_ = stored_type(dtype)
    main: Size = count - count % lanes if isinstance(count, int) else writer.op(f"and i64 {count}, {-lanes}")
    if main != 0:
        with writer.loop(0, main, lanes, as_written=True) as position:
            place = writer.element(pointer, type_, position)
            writer.line(f"store <{lanes} x {type_}> zeroinitializer, ptr {place}, align {dtype.itemsize}")
    if main != count:
        with writer.loop(main, count, as_written=True) as position:
            place = writer.element(pointer, type_, position)
            writer.line(f"store {type_} zeroinitializer, ptr {place}, align {dtype.itemsize}")


def stored_type(dtype: DType) -> str:
    """The LLVM type of one element in a copy."""
    return "i16" if dtype is bfloat16 else scalar_type(dtype)


@dataclass(frozen=True)
class PaddedCopy:
    """A copy of `operand` in the order [axes…, unit], the last axis contiguous, of elements of type `dtype`.

    `index(places, unit)` gives the operand's index, from the indexes along `axes` and along the unit axis of `units`
    elements; `names` are the loop variables of the task that it refers to, with their SSA names. With `following` an
    element is a pair of bfloat16, as large as a float: one of `index`, and one of `following`.
    """

    emitter: Emitter
    operand: Node
    axes: Sequence[Axis]
    units: int
    index: Callable[[list[Affine], Affine], Index]
    names: dict[str, str]
    dtype: DType
    following: Callable[[list[Affine], Affine], Following] | None = None

    def emit(self, pointer: str) -> None:
        """Write the copy to `pointer`."""
        self._axis(0, pointer, dict(self.names))

    def _inner(self, number: int) -> int:
        """Elements of one place of axis `number`; only the first axis has an extent that is not known."""
        return math.prod(axis.extent for axis in self.axes[number + 1 :] if isinstance(axis.extent, int)) * self.units

    def _axis(self, number: int, pointer: str, names: dict[str, str]) -> None:
        writer, dtype = self.emitter.writer, self.dtype
        if number == len(self.axes):
            self._units(pointer, names)
            return
        axis, inner = self.axes[number], self._inner(number)
        type_, lanes = stored_type(dtype), self.emitter.vector.lanes

        def place(e: Size) -> str:
            return writer.element(pointer, type_, writer.multiply(e, inner))

        if isinstance(axis.low, int) and isinstance(axis.extent, int) and axis.spread == 1:
            first = min(max(-(-axis.low // axis.skip), 0), axis.extent)
            last = max(min((axis.size - 1 + axis.low) // axis.skip + 1, axis.extent), first)
            for start, stop in ((0, first), (last, axis.extent)):
                if start < stop:
                    zero_fill(writer, dtype, place(start), (stop - start) * inner, lanes)
            with writer.loop(first, last, as_written=True) as e:
                i = writer.subtract(writer.multiply(e, axis.skip), axis.low)
                self._axis(number + 1, place(e), {**names, f"i{number}": i})
            return
        with writer.loop(0, axis.extent, as_written=True) as e:
            moved = writer.subtract(writer.multiply(e, axis.skip), axis.low)
            whole, rest = writer.op(f"sdiv i64 {moved}, {axis.spread}"), writer.op(f"srem i64 {moved}, {axis.spread}")
            checks = [f"icmp sge i64 {moved}, 0", f"icmp slt i64 {whole}, {axis.size}", f"icmp eq i64 {rest}, 0"]
            inside = writer.op(checks[0])
            for check in checks[1:]:
                inside = writer.op(f"and i1 {inside}, {writer.op(check)}")
            here = place(e)
            with writer.when(inside):
                self._axis(number + 1, here, {**names, f"i{number}": whole})
            with writer.when(writer.op(f"xor i1 {inside}, true")):
                zero_fill(writer, dtype, here, inner, lanes)

    def _units(self, pointer: str, names: dict[str, str]) -> None:
        emitter = self.emitter
        places = [variable(f"i{number}", axis.size) for number, axis in enumerate(self.axes)]
        lane = lane_variable(self.units)
        following = None if self.following is None else self.following(places, lane)
        index = self.index(places, lane)
        copy_lanes(emitter, self.operand, index, self.units, pointer, names, self.dtype, following=following)


@dataclass(frozen=True)
class Following:
    """The second ones of pairs of bfloat16: the elements at `index`, or zeros where the i32 `mask` is 0 and not
    `UPPER_HALF`.
    """

    index: Index
    mask: str


#: the upper half of a float32, which is a bfloat16
UPPER_HALF = 0xFFFF0000


def copy_lanes(
    emitter: Emitter, operand: Node, index: Index, count: int, pointer: str, names: dict[str, str], dtype: DType,
    first: Size = 0, following: Following | None = None,
) -> None:  # fmt: skip
    """Write the elements `first` … `first` + count of `operand`, along the lanes of `index`, to `pointer` on, as
    `dtype`; or pairs of them and of those that follow, as `PaddedCopy` describes them.
    """
    writer, a, type_ = emitter.writer, emitter.vector, stored_type(dtype)
    emitter.begin_row(names)

    def body(start: str, mask: Value | None) -> None:
        at = start if first == 0 else writer.add(start, first)
        with emitter.body({LANE: at, "first": at}, mask):
            value, to = emitter.value(operand, index, VECTOR), dtype
            if following is not None:
                upper = a.broadcast(Value(following.mask, uint32))
                second = a.bit_and(a.bitcast(emitter.value(operand, following.index, VECTOR), uint32), upper)
                value, to = a.bit_or(second, a.shift_right(a.bitcast(value, uint32), 16)), uint32
            place = writer.element(pointer, type_, start)
            if mask is None:
                a.store(value, place, to)
            else:
                a.masked_store(value, place, to, mask)

    whole = count - count % a.lanes
    if whole:
        emitter.loop("0", str(whole), a.lanes, lambda start: body(start, None))
    if count % a.lanes:
        body(str(whole), a.lt(a.iota(int64), a.constant(count % a.lanes, int64)))


def scratch_elements(axes: Sequence[Axis], units: int) -> int:
    """Elements of a padded copy whose extents are all known."""
    return math.prod(axis.extent for axis in axes if isinstance(axis.extent, int)) * units


__all__ = [
    "UPPER_HALF", "Axis", "Following", "PaddedCopy", "Run", "Tiling", "accumulate", "by_pairs", "choose_tiling",
    "copy_lanes", "pieces", "scratch_elements", "store_sums", "widths_of", "zero_fill",
]  # fmt: skip
