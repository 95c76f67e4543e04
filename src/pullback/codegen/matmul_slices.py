"""A sum over k in slices: each is a product of its own, and a launch adds them, always in the same order.

So one long sum is the work of many tasks, and less is rounded off: a number is added to the sum of its own slice, and
slices, which are of one size, to each other.
"""

from __future__ import annotations

import math
from dataclasses import replace

from ..graph.types import int64
from .arithmetic import LLVMArithmetic
from .matmul_pack import Geometry
from .matmul_tasks import Epilogue, Grid, Product, Stage, kernel, operand
from .matmul_tile import Matrix
from .registers import Value
from .text import code

#: Elements that one task of the sum over the slices covers, about.
_SUM_ELEMENTS = 4096


def sliced_product(product: Product, slices: int, length: int) -> Product:
    """The products of `slices` slices of `length` each, the last of which may reach over the end: [slices, *batch].

    C is contiguous in the workspace that they share.
    """
    rows = [product.n]
    for size in reversed((*product.batch, product.m)):
        rows.insert(0, rows[0] * size)
    return replace(
        product,
        batch=(slices, *product.batch),
        k=length,
        a_strides=(length * product.a_strides[-1], *product.a_strides),
        b_strides=(length * product.b_strides[-2], *product.b_strides),
        c_strides=tuple(rows),
        repeated=False,
    )


def with_sum(
    stages: list[Stage], product: Product, geometry: Geometry, slices: int, epilogue: Epilogue | None
) -> tuple[list[Stage], int]:
    """The stages of a sliced product, made to write to the workspace, and the one that adds; the workspace's bytes."""
    renamed = {"c": "workspace"}
    stages = [replace(s, operands=tuple(renamed.get(name, name) for name in s.operands)) for s in stages]
    stages.append(_sum_stage(product, geometry, slices, epilogue))
    return stages, slices * math.prod(product.batch) * product.m * product.n * product.dtype.itemsize


def _sum_stage(product: Product, geometry: Geometry, slices: int, epilogue: Epilogue | None) -> Stage:
    """The launch that adds the slices of a sum over k, always in the same order."""
    rows = max(1, _SUM_ELEMENTS // product.n)
    grid = Grid(product, 1, min(rows, product.m), product.n)
    lanes, type_, dtype = geometry.lanes, geometry.unit_type, product.dtype
    width = -(-product.n // geometry.columns) * geometry.columns
    writer = kernel()
    a = LLVMArithmetic(writer, lanes)
    strides = [product.m * product.n]
    for size in reversed(product.batch[1:]):
        strides.insert(0, strides[0] * size)
    whole = math.prod(product.batch) * product.m * product.n
    with grid.region(writer) as region:
        part = operand(writer, type_, 0, region.batch, (*strides[: len(product.batch)], product.n, 1))
        if epilogue is None:
            c = operand(writer, type_, 1, region.batch, (*product.c_strides, 1))
            to = Matrix(c.at(writer, type_, region.m0, 0), c.row, 1)
        else:
            to = Matrix("%scratch", width, 1)
        with writer.loop(region.m0, region.m1, as_written=True) as row:
            target_row = writer.subtract(row, region.m0)
            with writer.loop(0, product.n, lanes, as_written=True) as column:
                left = writer.subtract(product.n, column)
                mask = a.lt(a.iota(int64), a.broadcast(Value(left, int64)))
                place = part.at(writer, type_, row, column)
                zero = a.constant(0, dtype)
                total = writer.variable(a.llvm_type(dtype), a.masked_load(place, dtype, mask, zero).ref)
                with writer.loop(1, slices, as_written=True) as number:
                    further = writer.element(place, type_, writer.multiply(number, whole))
                    value = a.masked_load(further, dtype, mask, zero)
                    total.set(a.add(Value(total.get(), dtype), value).ref)
                a.masked_store(Value(total.get(), dtype), to.at(writer, type_, target_row, column), dtype, mask)
        if epilogue is not None:
            epilogue.emit(writer, 1, region, to)
    scratch = grid.rows * width * dtype.itemsize if epilogue else 0
    return Stage(code("product_sum", writer), grid.tasks, ("workspace", "epilogue" if epilogue else "c"), scratch)
