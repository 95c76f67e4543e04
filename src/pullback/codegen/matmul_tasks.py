"""What all matrix product kernels share: the description of a product, its launches, and how work is cut into tasks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from ..graph.types import DType
from .arithmetic import LLVMArithmetic
from .matmul_tile import Element, Matrix, Size
from .text import Code, Writer


@dataclass(frozen=True)
class Product:
    """One batched matrix product. Strides are in elements, zero where an operand is broadcast along a batch axis.

    `a_strides` are those of the batch axes, m and k; `b_strides` of the batch axes, k and n; `c_strides` of the batch
    axes and m: the rows of C are contiguous.

    `dtype` is that of C, and of the sums. The operands are of that type too, unless `left` or `right` says otherwise.
    `repeated` tells that the product is computed many times with the same B, so that packing it costs nothing. A task
    takes `task_rows` rows, and all their columns, where that is not 0.
    """

    batch: tuple[int, ...]
    m: int
    n: int
    k: int
    a_strides: tuple[int, ...]
    b_strides: tuple[int, ...]
    c_strides: tuple[int, ...]
    dtype: DType
    left: Element | None = None
    right: Element | None = None
    repeated: bool = False
    task_rows: int = 0

    @property
    def a(self) -> Element:
        """How A is stored and read."""
        return self.left or Element(self.dtype)

    @property
    def b(self) -> Element:
        """How B is stored and read."""
        return self.right or Element(self.dtype)

    @property
    def operations(self) -> int:
        """Floating-point operations of one batch item."""
        return 2 * self.m * self.n * self.k


@dataclass(frozen=True)
class Stage:
    """One launch: `tasks` independent calls of `code`.

    `operands` names what the argument slots hold: "a", "b", "c", "workspace", and "epilogue" for all slots that the
    epilogue asked for. A stage with an epilogue has no "c".
    """

    code: Code
    tasks: int
    operands: tuple[str, ...]
    scratch_bytes: int


@dataclass(frozen=True)
class Region:
    """The part C[batch, m0:m1, n0:n1] of a product, all given as SSA names (or decimal literals) of i64 values.

    It is the region [item, row_block, column_block] of [batch items, row_blocks, column_blocks]; each is one call of
    the epilogue, whoever computes it. n1 - n0 is a multiple of `column_step`, save for the last columns of C.
    """

    batch: list[str]
    m0: str
    m1: str
    n0: str
    n1: str
    item: str = "0"
    row_block: str = "0"
    column_block: str = "0"
    row_blocks: int = 1
    column_blocks: int = 1
    column_step: int = 1


class Epilogue(Protocol):
    """What is done to each tile of C after its last addition, while it is in the cache: bias, activation, residual.

    `slots` argument slots are reserved for it from `slot_base` on. `emit` writes loops over `region`, whose elements
    begin at `tile`; each of its rows may be read to a multiple of two vectors. What becomes of the product
    is the epilogue's affair alone: it is not written to C.

    `rounds_to` names the type that the product is rounded to before anything else is done, if it is; then `rounded` may
    say that the tile is of that type already. With `only_rounds` that is all, and the one slot is a C of that type.
    """

    @property
    def slots(self) -> int: ...

    @property
    def rounds_to(self) -> DType | None: ...

    @property
    def only_rounds(self) -> bool: ...

    def emit(self, writer: Writer, slot_base: int, region: Region, tile: Matrix, rounded: bool = False) -> None: ...


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
    def region(self, writer: Writer) -> Iterator[Region]:
        """What %task is to compute."""
        rest = "%task"
        rest, column, n0, n1 = _share(writer, rest, self.column_tasks, self.columns, self.product.n)
        rest, row, m0, m1 = _share(writer, rest, self.row_tasks, self.rows, self.product.m)
        total = math.prod(self.product.batch)

        def part(item: str) -> Region:
            batch = _batch_index(writer, self.product.batch, item)
            return Region(batch, m0, m1, n0, n1, item, row, column, self.row_tasks, self.column_tasks, self.columns)

        if self.items == 1:
            yield part(rest)
        else:
            start = writer.multiply(rest, self.items)
            with writer.loop(start, writer.minimum(writer.add(start, self.items), total)) as item:
                yield part(item)


def _share(writer: Writer, task: str, parts: int, length: int, total: int) -> tuple[str, str, str, str]:
    """What remains of the task number after its lowest digit, of base `parts`; the digit, and its share of `total`."""
    if parts == 1:
        return task, "0", "0", str(total)
    rest, digit = writer.divide(task, parts)
    start = writer.multiply(digit, length)
    return rest, digit, start, writer.minimum(writer.add(start, length), total)


def _batch_index(writer: Writer, batch: tuple[int, ...], item: str) -> list[str]:
    """The index along each batch axis of the batch item number `item`."""
    index: list[str] = []
    for size in reversed(batch):
        item, digit = writer.divide(item, size)
        index.insert(0, digit)
    return index


def operand(writer: Writer, type_: str, slot: int, index: list[str], strides: tuple[int, ...]) -> Matrix:
    """The matrix of one batch item of the operand in argument slot `slot`."""
    pointer = writer.argument(slot)
    for position, stride in zip(index, strides, strict=False):
        pointer = writer.element(pointer, type_, writer.multiply(position, stride))
    return Matrix(pointer, *strides[len(index) :])


def offset_matrix(writer: Writer, type_: str, matrix: Matrix, row: Size, column: Size) -> Matrix:
    """`matrix` without its first `row` rows and `column` columns."""
    return replace(matrix, pointer=matrix.at(writer, type_, row, column))


def kernel() -> Writer:
    """An empty kernel, in the calling convention of all kernels."""
    return Writer("kernel", ["ptr %args", "ptr %scratch", "i64 %task"])


def emit_pack(
    writer: Writer, pack: Code, to: str, source: str, across: Size, along: Size, count: Size, k: Size
) -> None:
    """Call the shared packing function `pack` (see `pack_code` for the arguments)."""
    writer.declare(f"declare void @{pack.name}(ptr, ptr, i64, i64, i64, i64)")
    arguments = f"ptr {to}, ptr {source}, i64 {across}, i64 {along}, i64 {count}, i64 {k}"
    writer.line(f"call void @{pack.name}({arguments})")


def stored_type(writer: Writer, element: Element) -> str:
    """The LLVM type of one element of an operand in memory."""
    return LLVMArithmetic(writer, 1).storage_type(element.stored)


def aligned(nbytes: int) -> int:
    """`nbytes` rounded up to whole cache lines."""
    return -(-nbytes // 64) * 64
