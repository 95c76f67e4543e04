"""Register tiles: the innermost pieces of a matrix product, which keep a small block of C in vector registers.

`outer_tile` adds one outer product (a column of A times a row of B) to the tile for each k; it wants the rows of B
contiguous. `dot_tile` runs along k with vectors; it wants both operands contiguous in k, and needs no transposing.
Sizes may be Python ints (the kernel is then specialized) or the SSA names of i64 values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..graph.types import DType, float32
from .text import Writer

Size = str | int


class Made(Protocol):
    """An operand that is computed. Strides and places of it are those that it would have in memory.

    `slots` arguments are reserved for it from `slot_base` on. `emit` computes `rows` rows of `length` elements that
    follow each other, the first at the place `first` and each `step` from the last, and writes them to `to`, `pitch`
    elements apart. It may write `margin` elements before and behind each row.
    """

    @property
    def slots(self) -> int: ...

    @property
    def margin(self) -> int: ...

    def emit(
        self, writer: Writer, slot_base: int, first: str, rows: Size, step: Size, length: Size, to: str, pitch: int
    ) -> None: ...


@dataclass(frozen=True)
class Element:
    """How an operand's elements lie in memory, and the 16-bit type that they are rounded to when they are read.

    Those of an operand that is `made` lie in no memory but a task's own.
    """

    stored: DType
    rounded: DType | None = None
    made: Made | None = None

    @property
    def dtype(self) -> DType:
        """The type whose values take part in the product."""
        return self.rounded or self.stored

    @property
    def in_memory(self) -> Element:
        """The same where it lies in memory."""
        return self if self.made is None else Element(self.stored, self.rounded)

    @property
    def converts(self) -> bool:
        """Whether reading an element is more than loading it."""
        return self.dtype is not self.stored or self.stored.compute is not self.stored


def scalar_type(dtype: DType) -> str:
    """The LLVM type of one element."""
    return "float" if dtype is float32 else "double"


@dataclass(frozen=True)
class Matrix:
    """A matrix in memory: its address, and the distance in elements from one row, and one column, to the next."""

    pointer: str
    row: Size
    column: Size

    def at(self, writer: Writer, type_: str, row: Size, column: Size) -> str:
        """The address of the element [row, column]."""
        offset = writer.add(writer.multiply(row, self.row), writer.multiply(column, self.column))
        return writer.element(self.pointer, type_, offset)


def multiply_add(writer: Writer, type_: str, width: int, left: str, right: str, accumulator: str) -> str:
    """left * right + accumulator on `<width x type_>`, fused where the processor can."""
    vector, suffix = f"<{width} x {type_}>", f"v{width}f{32 if type_ == 'float' else 64}"
    writer.declare(f"declare {vector} @llvm.fmuladd.{suffix}({vector}, {vector}, {vector})")
    return writer.op(f"call {vector} @llvm.fmuladd.{suffix}({vector} {left}, {vector} {right}, {vector} {accumulator})")


def splat(writer: Writer, type_: str, width: int, value: str) -> str:
    """The vector whose `width` elements all are the scalar `value`."""
    vector = f"<{width} x {type_}>"
    one = writer.op(f"insertelement {vector} poison, {type_} {value}, i64 0")
    return writer.op(f"shufflevector {vector} {one}, {vector} poison, <{width} x i32> zeroinitializer")


def shuffle(writer: Writer, type_: str, width: int, left: str, right: str, mask: Sequence[int]) -> str:
    """The elements `mask` of `left` followed by `right`, both of `width` elements."""
    vector, indexes = f"<{width} x {type_}>", ", ".join(f"i32 {i}" for i in mask)
    return writer.op(f"shufflevector {vector} {left}, {vector} {right}, <{len(mask)} x i32> <{indexes}>")


def prefetch(writer: Writer, address: str, level: int = 1, write: bool = False) -> None:
    """Fetch the cache line at `address` into the cache of `level`; the address need not be valid."""
    writer.declare("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
    writer.line(f"call void @llvm.prefetch.p0(ptr {address}, i32 {int(write)}, i32 {4 - level}, i32 1)")


def multiply_pairs(writer: Writer, lanes: int, left: str, right: str, accumulator: str) -> str:
    """accumulator + the sum of the two products in each lane, of `lanes` pairs of bfloat16 held as vectors of float.

    x86's own instruction: both products and their sum are exact to float32, denormal numbers are taken as zero.
    """
    floats, pairs, name = f"<{lanes} x float>", f"<{2 * lanes} x bfloat>", f"llvm.x86.avx512bf16.dpbf16ps.{32 * lanes}"
    writer.declare(f"declare {floats} @{name}({floats}, {pairs}, {pairs})")
    left, right = (writer.op(f"bitcast {floats} {x} to {pairs}") for x in (left, right))
    return writer.op(f"call {floats} @{name}({floats} {accumulator}, {pairs} {left}, {pairs} {right})")


def round_to_bfloat16(writer: Writer, lanes: int, value: str) -> str:
    """A vector of float32 as one of i16 that holds bfloat16, by x86's instruction: denormal numbers become zeros."""
    name = f"llvm.x86.avx512bf16.cvtneps2bf16.{32 * lanes}"
    writer.declare(f"declare <{lanes} x bfloat> @{name}(<{lanes} x float>)")
    rounded = writer.op(f"call <{lanes} x bfloat> @{name}(<{lanes} x float> {value})")
    return writer.op(f"bitcast <{lanes} x bfloat> {rounded} to <{lanes} x i16>")


#: steps of k whose products one accumulator adds up, about
SPAN = 256


def outer_tile(
    writer: Writer,
    dtype: DType,
    widths: Sequence[int],
    rows: int,
    k: Size,
    a: Matrix,
    b: Matrix,
    c: Matrix,
    accumulate: str | None = None,
    unroll: int = 1,
    coming: str | None = None,
    pairs: bool = False,
    right: Callable[[Size, int, int], str] | None = None,
    rounds: bool = False,
) -> None:
    """C[:rows, :sum(widths)] = A[:rows, :k] @ B[:k, :sum(widths)], `widths` being the vectors that make up a row of C.

    The rows of B and C must be contiguous. Where the i1 `accumulate` is true the product is added to what C holds (k
    must then be an SSA name). Up to 8 known steps of k are written out; longer ones loop, `unroll` steps at a time,
    each time fetching 64 bytes more of what lies at `coming` into the L2 cache. With `pairs` an element of A and of B
    is a pair of bfloat16, neighbours in k. `right(k, start, width)`, where it is given, loads the elements of B. With
    `rounds` C is bfloat16, which the processor must be able to round to.

    A known k that is long is gone through in spans whose sums C collects: one accumulator over all of it would round
    off a digit more.
    """
    if isinstance(k, int) and k >= 2 * SPAN:
        assert accumulate is None and not rounds
        _by_spans(writer, dtype, widths, rows, k, a, b, c, unroll, pairs, right)
        return
    type_, size = scalar_type(dtype), dtype.itemsize
    starts = [sum(widths[:i]) for i in range(len(widths))]
    a_rows = [a.at(writer, type_, i, 0) for i in range(rows)]
    c_type = "i16" if rounds else type_
    c_rows = [writer.element(c.pointer, c_type, writer.multiply(i, c.row)) for i in range(rows)]

    def step(position: Size, sums: list[list[str]]) -> list[list[str]]:
        """The sums after one more k, at `position`."""
        b_row = "" if right else writer.element(b.pointer, type_, writer.multiply(position, b.row))
        vectors_b = [
            right(position, start, width)
            if right
            else writer.op(f"load <{width} x {type_}>, ptr {writer.element(b_row, type_, start)}, align {size}")
            for start, width in zip(starts, widths, strict=True)
        ]
        offset = writer.multiply(position, a.column)
        result = []
        for a_row, row in zip(a_rows, sums, strict=True):
            left = writer.op(f"load {type_}, ptr {writer.element(a_row, type_, offset)}, align {size}")
            new = []
            for width, vector, old in zip(widths, vectors_b, row, strict=True):
                repeated = splat(writer, type_, width, left)
                if pairs:
                    new.append(multiply_pairs(writer, width, repeated, vector, old))
                else:
                    new.append(multiply_add(writer, type_, width, repeated, vector, old))
            result.append(new)
        return result

    if isinstance(k, int) and k <= 8:
        sums = [["zeroinitializer"] * len(widths) for _ in range(rows)]
        for number in range(k):
            sums = step(number, sums)
    else:
        variables = [
            [writer.variable(f"<{width} x {type_}>", "zeroinitializer") for width in widths] for _ in range(rows)
        ]

        if accumulate is not None:
            # What C holds is wanted only at the end: fetch it meanwhile.
            for c_row in c_rows:
                for column in (0, sum(widths) - 1):
                    prefetch(writer, writer.element(c_row, type_, column), write=True)

        def advance(position: str, steps: int) -> None:
            sums = [[variable.get() for variable in row] for row in variables]
            for ahead in range(steps):
                sums = step(writer.add(position, ahead), sums)
            for slots, values in zip(variables, sums, strict=True):
                for variable, value in zip(slots, values, strict=True):
                    variable.set(value)

        main: Size = 0
        if unroll > 1:
            main = k - k % unroll if isinstance(k, int) else writer.subtract(k, writer.divide(k, unroll)[1])
            with writer.loop(0, main, unroll, as_written=True) as position:
                if coming is not None:
                    address = writer.element(coming, "i8", writer.multiply(position, 64 // unroll))
                    prefetch(writer, address, level=2)
                advance(position, unroll)
        with writer.loop(main, k, as_written=True) as position:
            advance(position, 1)
        if accumulate is not None:
            with writer.when(accumulate):
                for c_row, held_row in zip(c_rows, variables, strict=True):
                    for start, variable in zip(starts, held_row, strict=True):
                        address = writer.element(c_row, type_, start)
                        held = writer.op(f"load {variable.type}, ptr {address}, align {size}")
                        variable.set(writer.op(f"fadd {variable.type} {held}, {variable.get()}"))
        sums = [[variable.get() for variable in row] for row in variables]

    for c_row, row in zip(c_rows, sums, strict=True):
        for start, width, value in zip(starts, widths, row, strict=True):
            target = writer.element(c_row, c_type, start)
            if rounds:
                value = round_to_bfloat16(writer, width, value)
            writer.line(f"store <{width} x {c_type}> {value}, ptr {target}, align {2 if rounds else size}")


def _by_spans(
    writer: Writer, dtype: DType, widths: Sequence[int], rows: int, k: int, a: Matrix, b: Matrix, c: Matrix,
    unroll: int, pairs: bool, right: Callable[[Size, int, int], str] | None,
) -> None:  # fmt: skip
    """`outer_tile` of a long k, in equal spans of about SPAN."""
    type_, length = scalar_type(dtype), -(-k // (k // SPAN))
    with writer.loop(0, k, length, as_written=True) as start:
        left = Matrix(a.at(writer, type_, 0, start), a.row, a.column)
        below = b if right else Matrix(b.at(writer, type_, start, 0), b.row, b.column)
        load = None if right is None else (lambda at, column, width: right(writer.add(start, at), column, width))
        is_later = writer.op(f"icmp ne i64 {start}, 0")
        count = writer.minimum(length, writer.subtract(k, start))
        outer_tile(
            writer, dtype, widths, rows, count, left, below, c, is_later, unroll, pairs=pairs, right=load
        )  # fmt: skip


def joined(writer: Writer, type_: str, parts: list[tuple[str, int]]) -> str:
    """One vector of `parts`, each a vector and its length."""
    total, length = parts[0]
    for part, size in parts[1:]:
        width = max(length, size)
        sides = []
        for value, own in ((total, length), (part, size)):
            mask = ", ".join(f"i32 {i if i < own else own}" for i in range(width))
            vector = f"<{own} x {type_}>"
            sides.append(writer.op(f"shufflevector {vector} {value}, {vector} poison, <{width} x i32> <{mask}>"))
        total = shuffle(writer, type_, width, sides[0], sides[1], [*range(length), *range(width, width + size)])
        length += size
    return total


def dot_tile(
    writer: Writer,
    dtype: DType,
    lanes: int,
    rows: int,
    columns: int,
    k: int,
    a: Matrix,
    b: Matrix,
    c: Matrix,
    right: Callable[[str, Size, int], str] | None = None,
    right_type: str | None = None,
    pairs: bool = False,
) -> None:
    """C[:rows, :columns] = A[:rows, :k] @ B[:k, :columns], where both A and B are contiguous in k and C in columns.

    `right(column, k, width)`, where it is given, loads elements of B, stored as `right_type`, from a column's address.
    With `pairs` both are bfloat16, and two neighbours in k are multiplied in each lane. A tile of less than four
    elements takes several steps of k side by side, since each addition to an accumulator waits for the one before.
    """
    type_, size = scalar_type(dtype), dtype.itemsize
    held, span = (type_, lanes) if not pairs else ("i16", 2 * lanes)
    a_rows = [a.at(writer, held, i, 0) for i in range(rows)]
    b_columns = [b.at(writer, right_type or held, 0, j) for j in range(columns)]
    whole = k - k % span

    def step(position: Size, width: int, sums: list[str]) -> list[str]:
        """The sums after `width` more k, starting at `position`."""

        def load(pointer: str, convert: Callable[[str, Size, int], str] | None = None) -> str:
            if convert is None:
                address = writer.element(pointer, held, position)
                part = writer.op(f"load <{width} x {held}>, ptr {address}, align {2 if pairs else size}")
            else:
                part = convert(pointer, position, width)
            if width < span:
                mask = [i if i < width else width for i in range(span)]
                part = shuffle(writer, held, width, part, "zeroinitializer", mask)
            return writer.op(f"bitcast <{span} x i16> {part} to {vector}") if pairs else part

        vectors_b = [load(pointer, right) for pointer in b_columns]
        left = [load(pointer) for pointer in a_rows]
        operands = [(x, y) for x in left for y in vectors_b]
        if pairs:
            return [multiply_pairs(writer, lanes, x, y, old) for (x, y), old in zip(operands, sums, strict=True)]
        return [multiply_add(writer, type_, lanes, x, y, old) for (x, y), old in zip(operands, sums, strict=True)]

    vector = f"<{lanes} x {type_}>"
    count = rows * columns
    ways = max(1, min(4 // count, whole // span))
    variables = [writer.variable(vector, "zeroinitializer") for _ in range(ways * count)]
    several = whole - whole % (ways * span)
    for start, stop, steps in ((0, several, ways), (several, whole, 1)):
        if start < stop:
            with writer.loop(start, stop, steps * span, as_written=True) as position:
                for way in range(steps):
                    sums_of_way = variables[way * count : (way + 1) * count]
                    at = writer.add(position, way * span)
                    values = step(at, span, [variable.get() for variable in sums_of_way])
                    for variable, value in zip(sums_of_way, values, strict=True):
                        variable.set(value)
    sums = [variable.get() for variable in variables]
    while len(sums) > count:  # 4, 2 or 3 ways
        half = len(sums) // count // 2 * count
        pairs_of_sums = zip(sums[:half], sums[-half:], strict=True)
        sums = [writer.op(f"fadd {vector} {x}, {y}") for x, y in pairs_of_sums] + sums[half:-half]
    if whole < k:
        sums = step(whole, k - whole, sums)
    group = 16 // size
    for i in range(rows):
        for start in range(0, columns, group):
            part = sums[i * columns + start : i * columns + min(columns, start + group)]
            width = len(part)
            totals = horizontal_sums(writer, type_, lanes, part + ["poison"] * (group - width))
            if width < group:
                totals = shuffle(writer, type_, group, totals, "poison", range(width))
            target = c.at(writer, type_, i, start)
            writer.line(f"store <{width} x {type_}> {totals}, ptr {target}, align {size}")


def horizontal_sums(writer: Writer, type_: str, lanes: int, vectors: list[str]) -> str:
    """One vector of the sums over the lanes of each of `vectors`, which must fill 16 bytes: 4 floats or 2 doubles.

    Pairs are added within their 16-byte parts first, where a shuffle costs one instruction, then the parts.
    """
    vector, group = f"<{lanes} x {type_}>", len(vectors)
    while len(vectors) > 1:
        masks = []
        for odd in (0, 1):
            one = [[part + 2 * i + odd for i in range(group // 2)] for part in range(0, lanes, group)]
            masks.append([i for part in one for i in (*part, *(lanes + p for p in part))])
        vectors = [
            writer.op(
                f"fadd {vector} {shuffle(writer, type_, lanes, x, y, masks[0])}, "
                f"{shuffle(writer, type_, lanes, x, y, masks[1])}"
            )
            for x, y in zip(vectors[::2], vectors[1::2], strict=True)
        ]
    total = vectors[0]
    while lanes > group:
        half = lanes // 2
        low = shuffle(writer, type_, lanes, total, "poison", range(half))
        high = shuffle(writer, type_, lanes, total, "poison", range(half, lanes))
        total, lanes = writer.op(f"fadd <{half} x {type_}> {low}, {high}"), half
    return total


def transposed(writer: Writer, type_: str, vectors: list[str]) -> list[str]:
    """The transpose of a square of `len(vectors)` vectors of as many elements each.

    Elements are exchanged within 16 bytes first, then ever larger halves: log2(n) stages of n shuffles. Each mask is
    one that processors have a single instruction for.
    """
    n = len(vectors)

    def exchange(span: int, pairs: list[str]) -> list[str]:
        """Swap the off-diagonal squares of side `span` in each diagonal square of side 2*span."""
        low = [i if i & span == 0 else n + i - span for i in range(n)]
        high = [i + span if i & span == 0 else n + i for i in range(n)]
        result = list(pairs)
        for i in range(n):
            if i & span == 0:
                result[i] = shuffle(writer, type_, n, pairs[i], pairs[i + span], low)
                result[i + span] = shuffle(writer, type_, n, pairs[i], pairs[i + span], high)
        return result

    span = 1
    if type_ == "float":
        blocks = range(0, n, 4)
        interleave = [[i for p in blocks for i in (p + s, n + p + s, p + s + 1, n + p + s + 1)] for s in (0, 2)]
        halves = [[i for p in blocks for i in (p + s, p + s + 1, n + p + s, n + p + s + 1)] for s in (0, 2)]
        result = []
        for p in blocks:
            ab = [shuffle(writer, type_, n, vectors[p], vectors[p + 1], mask) for mask in interleave]
            cd = [shuffle(writer, type_, n, vectors[p + 2], vectors[p + 3], mask) for mask in interleave]
            result += [shuffle(writer, type_, n, ab[s], cd[s], mask) for s in (0, 1) for mask in halves]
        vectors, span = result, 4
    while span < n:
        vectors, span = exchange(span, vectors), 2 * span
    return vectors
