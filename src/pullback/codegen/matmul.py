"""Matrix products: which kernels compute C[batch, m, n] = sum over k of A[batch, m, k] * B[batch, k, n].

Two kinds of kernel. A *direct* one is specialized to its shape, reads its operands where they lie and is meant for
products that fit into the cache, or that are too thin to repay packing. A *packed* one copies blocks of both operands
into the order in which the register tile reads them, and calls code shared by all packed products. Either takes any
strides, so a transposed or sliced operand is never copied as a whole.

Work is cut into tasks by the shapes and the processor's caches alone, never by the number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..graph.types import bfloat16
from .matmul_blocks import packed_stages
from .matmul_direct import direct_stages
from .matmul_pack import Geometry
from .matmul_tasks import Epilogue, Product, Region, Stage
from .matmul_tile import Element, Matrix
from .target import Target, abilities_of, is_x86
from .text import Writer

__all__ = ["Element", "Epilogue", "Product", "Region", "Stage", "folded", "product_stages"]

#: Floating-point operations of one batch item up to which a direct kernel is at least as fast as a packed one.
DIRECT = 3_000_000
#: The same where the packed kernel multiplies pairs of bfloat16 at twice the rate, and the direct one does not.
DIRECT_PAIRS = 500_000
#: Rows of a product with a B that is packed beforehand up to which a tile made for their number is the better one.
REPEATED_ROWS = 128


@dataclass(frozen=True)
class _Mirrored:
    """The epilogue of a product that is computed as its transpose."""

    inner: Epilogue
    slots: int
    rounds_to: None = None
    only_rounds: bool = False

    def emit(self, writer: Writer, slot_base: int, region: Region, tile: Matrix, rounded: bool = False) -> None:
        assert not rounded
        turned = Region(
            region.batch, region.n0, region.n1, region.m0, region.m1, region.item,
            region.column_block, region.row_block, region.column_blocks, region.row_blocks,
        )  # fmt: skip
        self.inner.emit(writer, slot_base, turned, Matrix(tile.pointer, tile.column, tile.row))


def product_stages(product: Product, target: Target, epilogue: Epilogue | None = None) -> tuple[list[Stage], int]:
    """The launches, in order, that compute `product`, and the bytes of workspace they share."""
    if 0 in (*product.batch, product.m, product.n):
        return [], 0
    geometry = _geometry(product, target)
    if product.n == 1 and product.m > 1 and product.c_strides[-1] == 1:
        mirrored = None if epilogue is None else _Mirrored(epilogue, epilogue.slots)
        stages, workspace = product_stages(_mirrored(product), target, mirrored)
        names = {"a": "b", "b": "a", "made a": "made b", "made b": "made a"}
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
    if product.a.made is not None or product.b.made is not None:
        return packed_stages(product, geometry, target, epilogue)
    if product.task_rows:
        return direct_stages(product, geometry, epilogue)
    thin = product.m <= geometry.rows or product.n <= geometry.lanes
    limit = DIRECT_PAIRS if geometry.pairs else DIRECT
    if product.operations <= limit or thin or product.k < 8:
        return direct_stages(product, geometry, epilogue)
    if product.repeated and product.m <= REPEATED_ROWS and not geometry.pairs:
        return direct_stages(product, geometry, epilogue)
    return packed_stages(product, geometry, target, epilogue)


def _geometry(product: Product, target: Target) -> Geometry:
    """The register tile for the product: of pairs of bfloat16 where x86 multiplies these (AVX512_BF16)."""
    lanes = target.vector_bytes // product.dtype.itemsize
    bfloats = product.a.dtype is bfloat16 and product.b.dtype is bfloat16
    pairs = bfloats and target.has_bf16 and is_x86(target.triple) and target.vector_bytes == 64
    return Geometry(product.dtype, lanes, target.registers, pairs, abilities_of(target))


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
        left=product.right,
        right=product.left,
        repeated=False,
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
