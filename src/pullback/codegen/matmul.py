"""Matrix products: which kernels compute C[batch, m, n] = sum over k of A[batch, m, k] * B[batch, k, n].

Two kinds of kernel. A *direct* one is specialized to its shape, reads its operands where they lie and is meant for
products that fit into the cache, or that are too thin to repay packing. A *packed* one copies blocks of both operands
into the order in which the register tile reads them, and calls code shared by all packed products. Either takes any
strides, so a transposed or sliced operand is never copied as a whole.

Work is cut into tasks by the shapes and the processor's caches alone, never by the number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .matmul_blocks import packed_stages
from .matmul_direct import direct_stage
from .matmul_packed import Geometry
from .matmul_tasks import Epilogue, Product, Stage
from .target import Target
from .text import Writer

__all__ = ["Epilogue", "Product", "Stage", "folded", "product_stages"]

#: Floating-point operations of one batch item up to which a direct kernel is at least as fast as a packed one.
DIRECT = 3_000_000


@dataclass(frozen=True)
class _Mirrored:
    """The epilogue of a product that is computed as its transpose."""

    inner: Epilogue
    slots: int

    def emit(self, writer: Writer, slot_base: int, batch: list[str], m0: str, m1: str, n0: str, n1: str) -> None:
        self.inner.emit(writer, slot_base, batch, n0, n1, m0, m1)


def product_stages(product: Product, target: Target, epilogue: Epilogue | None = None) -> tuple[list[Stage], int]:
    """The launches, in order, that compute `product`, and the bytes of workspace they share."""
    if 0 in (*product.batch, product.m, product.n):
        return [], 0
    geometry = Geometry(product.dtype, target.vector_bytes // product.dtype.itemsize, target.registers)
    if product.n == 1 and product.m > 1 and product.c_strides[-1] == 1:
        mirrored = None if epilogue is None else _Mirrored(epilogue, epilogue.slots)
        stages, workspace = product_stages(_mirrored(product), target, mirrored)
        names = {"a": "b", "b": "a"}
        return [
            replace(stage, operands=tuple(names.get(name, name) for name in stage.operands)) for stage in stages
        ], workspace
    if epilogue is None:
        product = folded(product)
    # A vector's stride is meaningless where there is one element; call it contiguous.
    if product.n == 1:
        product = replace(product, b_strides=(*product.b_strides[:-1], 1))
    if product.k == 1:
        product = replace(product, a_strides=(*product.a_strides[:-1], 1))
    thin = product.m <= geometry.rows or product.n <= geometry.lanes
    if product.operations <= DIRECT or thin or product.k < 8:
        return [direct_stage(product, geometry, epilogue)], 0
    return packed_stages(product, geometry, target, epilogue)


def _mirrored(product: Product) -> Product:
    """C^T = B^T A^T, for a product with one column: C is then one row."""
    *batch_a, row_a, column_a = product.a_strides
    *batch_b, row_b, column_b = product.b_strides
    return replace(
        product,
        m=product.n,
        n=product.m,
        a_strides=(*batch_b, column_b, row_b),
        b_strides=(*batch_a, column_a, row_a),
        c_strides=(*product.c_strides[:-1], 1),
    )


def folded(product: Product) -> Product:
    """`product` with the batch axes along which B does not change made part of m, where A and C allow it.

    Callers with an epilogue must do this themselves, before they build it, because it renames the indexes.
    """
    while product.batch and product.b_strides[-3] == 0:
        *outer_a, batch_a, row_a, column_a = product.a_strides
        *outer_c, batch_c, row_c = product.c_strides
        if batch_a != row_a * product.m or batch_c != row_c * product.m:
            return product
        product = replace(
            product,
            batch=product.batch[:-1],
            m=product.batch[-1] * product.m,
            a_strides=(*outer_a, row_a, column_a),
            b_strides=(*product.b_strides[:-3], *product.b_strides[-2:]),
            c_strides=(*outer_c, row_c),
        )
    return product
