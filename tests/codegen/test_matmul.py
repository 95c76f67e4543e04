"""Matrix products: every path, orientation and edge against NumPy in float64, on this machine and for others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from product_oracle import FOREIGN, all_codes, assembly_of, assert_close, operand, product_of, run
from pullback.codegen.matmul import Epilogue, Product, Region, folded, product_stages
from pullback.codegen.matmul_tile import Matrix, multiply_add, scalar_type
from pullback.codegen.target import Target, is_x86
from pullback.codegen.text import Writer
from pullback.graph.types import DType, float32, float64
from pullback.runtime.jit import host_target

DTYPES = [float32, float64]


class Scaled:
    """An epilogue for the tests: result[..., i, j] = 2 * C[..., i, j] + bias[j]."""

    slots = 2
    rounds_to = None
    only_rounds = False

    def __init__(self, product: Product):
        self.product = product

    def emit(self, writer: Writer, slot_base: int, region: Region, tile: Matrix, rounded: bool = False) -> None:
        assert not rounded
        type_ = scalar_type(self.product.dtype)
        pointer, bias = writer.argument(slot_base), writer.argument(slot_base + 1)
        for index, stride in zip(region.batch, self.product.c_strides, strict=False):
            pointer = writer.element(pointer, type_, writer.multiply(index, stride))
        with writer.loop(region.m0, region.m1) as i, writer.loop(region.n0, region.n1) as j:
            place = tile.at(writer, type_, writer.subtract(i, region.m0), writer.subtract(j, region.n0))
            old = writer.op(f"load <1 x {type_}>, ptr {place}, align 4")
            addend = writer.op(f"load <1 x {type_}>, ptr {writer.element(bias, type_, j)}, align 4")
            new = multiply_add(writer, type_, 1, old, f"<{type_} 2.0>", addend)
            address = writer.element(pointer, type_, writer.add(writer.multiply(i, self.product.c_strides[-1]), j))
            writer.line(f"store <1 x {type_}> {new}, ptr {address}, align 4")


def check(
    batch: tuple[int, ...],
    m: int,
    n: int,
    k: int,
    dtype: DType,
    layouts: tuple[str, str],
    broadcast: str = "",
    target: Target | None = None,
    repeated: bool = False,
) -> None:
    rng = np.random.default_rng(7)
    a = operand(rng, (1,) * len(batch) if broadcast == "a" else batch, m, k, dtype, layouts[0])
    b = operand(rng, (1,) * len(batch) if broadcast == "b" else batch, k, n, dtype, layouts[1])
    a, b = np.broadcast_to(a, (*batch, m, k)), np.broadcast_to(b, (*batch, k, n))
    # Rows of C lie further apart than they are long, and what lies between must stay untouched.
    spacious = np.full((*batch, m, n + 3), np.nan, dtype.storage)
    c = spacious[..., :n]
    product = replace(product_of(a, b, c, dtype), repeated=repeated)
    stages, workspace = product_stages(product, target or host_target())
    run(stages, workspace, a, b, c)
    assert_close(c, a, b)
    assert np.isnan(spacious[..., n:]).all()


SHAPES = [
    ((), 1, 64, 64),  # a vector times a matrix
    ((), 64, 1, 64),  # a matrix times a vector
    ((), 64, 64, 1),  # an outer product
    ((), 32, 10, 64),
    ((), 13, 17, 19),
    ((3,), 5, 7, 9),
    ((), 70, 69, 600),
    ((2, 3), 33, 35, 37),
    ((), 161, 150, 520),  # packed, two blocks of k
    ((3,), 130, 140, 150),  # packed, a task an item
    ((2,), 7, 300, 900),  # thin
    ((), 9, 0, 4),
    ((0,), 3, 4, 5),
    ((), 3, 4, 0),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=repr)
@pytest.mark.parametrize("layouts", [(a, b) for a in ("rows", "columns") for b in ("rows", "columns")], ids="-".join)
@pytest.mark.parametrize("batch,m,n,k", SHAPES)
def test_shapes(batch, m, n, k, layouts, dtype):
    check(batch, m, n, k, dtype, layouts)


@pytest.mark.parametrize("dtype", DTYPES, ids=repr)
@pytest.mark.parametrize("layouts", [("rows", "columns"), ("columns", "rows")], ids="-".join)
@pytest.mark.parametrize("batch,m,n,k", [((), 1, 70, 64), ((), 32, 515, 128), ((), 3, 1, 5), ((3,), 5, 37, 9)])
def test_products_whose_b_is_packed_beforehand(batch, m, n, k, layouts, dtype):
    check(batch, m, n, k, dtype, layouts, "b" if batch else "", repeated=True)


def test_a_repeated_product_packs_b_in_a_launch_of_its_own():
    a, b, c = np.zeros((32, 128), np.float32), np.zeros((128, 512), np.float32), np.zeros((32, 512), np.float32)
    product = replace(product_of(a, b, c, float32), repeated=True)
    (first, second), workspace = product_stages(product, host_target())
    assert first.operands == ("b", "workspace") and "b" not in second.operands
    assert workspace >= b.nbytes


@pytest.mark.parametrize("dtype", DTYPES, ids=repr)
@pytest.mark.parametrize("m,n,k", [(20, 30, 40), (200, 190, 180)])
def test_sliced_operands_and_broadcast_batches(m, n, k, dtype):
    check((2,), m, n, k, dtype, ("sliced", "sliced"))
    for broadcast in ("a", "b"):
        check((2, 2), m, n, k, dtype, ("rows", "columns"), broadcast)


@pytest.mark.parametrize("dtype", DTYPES, ids=repr)
@pytest.mark.parametrize("vector_bytes,registers", [(16, 16), (32, 16), (32, 32), (64, 32)])
def test_register_tiles_of_other_processors(vector_bytes, registers, dtype):
    """Kernels for other vector units, computed with those of this machine: LLVM splits vectors that are too wide."""
    target = replace(host_target(), vector_bytes=vector_bytes, registers=registers)
    for batch, m, n, k in [((), 1, 37, 70), ((), 21, 35, 67), ((2,), 150, 163, 140)]:
        for layouts in (("rows", "columns"), ("columns", "rows")):
            check(batch, m, n, k, dtype, layouts, target=target)


@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.one_of(st.integers(0, 40), st.integers(41, 600)),
    st.sampled_from([(), (2,), (2, 3)]),
    st.sampled_from(DTYPES),
    st.tuples(*[st.sampled_from(["rows", "columns", "sliced"])] * 2),
    st.sampled_from(["", "a", "b"]),
)
def test_random_shapes(m, n, k, batch, dtype, layouts, broadcast):
    check(batch, m, n, k, dtype, layouts, broadcast)


@settings(max_examples=20)
@given(st.integers(100, 270), st.integers(60, 270), st.integers(300, 600), st.sampled_from(DTYPES))
def test_random_packed_shapes(m, n, k, dtype):
    check((), m, n, k, dtype, ("rows", "columns"))


@pytest.mark.parametrize(
    "batch,m,n,k", [((), 40, 30, 20), ((2,), 40, 1, 20), ((), 200, 170, 450), ((2, 2), 150, 160, 140)]
)
def test_epilogue_sees_every_element_once_and_complete(batch, m, n, k):
    rng = np.random.default_rng(3)
    a, b = operand(rng, batch, m, k, float32, "rows"), operand(rng, batch, k, n, float32, "columns")
    bias, c = rng.standard_normal(n).astype(np.float32), np.empty((*batch, m, n), np.float32)
    product = product_of(a, b, c, float32)
    epilogue: Epilogue = Scaled(product)
    stages, workspace = product_stages(product, host_target(), epilogue)
    run(stages, workspace, a, b, c, c, bias)
    plain, plain_workspace = product_stages(product, host_target())
    expected = np.empty_like(c)
    run(plain, plain_workspace, a, b, expected)
    np.testing.assert_allclose(c, 2 * expected + bias, rtol=1e-5, atol=1e-5)


def test_shared_weights_fold_the_batch_into_rows():
    a, b, c = np.empty((4, 8, 16), np.float32), np.empty((16, 32), np.float32), np.empty((4, 8, 32), np.float32)
    product = product_of(a, np.broadcast_to(b, (4, 16, 32)), c, float32)
    assert folded(product) == product_of(a.reshape(32, 16), b, c.reshape(32, 32), float32)
    permuted = product_of(np.empty((8, 4, 16), np.float32).swapaxes(0, 1), np.broadcast_to(b, (4, 16, 32)), c, float32)
    assert folded(permuted) == permuted


def test_equal_products_are_equal_codes_and_tiny_ones_are_one_task():
    a, b, c = np.empty((32, 64), np.float32), np.empty((64, 10), np.float32), np.empty((32, 10), np.float32)
    first, workspace = product_stages(product_of(a, b, c, float32), host_target())
    again, _ = product_stages(product_of(a, b, c, float32), host_target())
    assert first == again and workspace == 0
    assert [stage.tasks for stage in first] == [1]


@pytest.mark.parametrize("target", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("dtype", DTYPES, ids=repr)
def test_other_processors(target, dtype):
    """The text of each kind of kernel can be turned into assembly for processors that this one may not be."""
    shapes = [((), 20, 21, 22), ((), 1, 33, 70), ((), 300, 300, 300), ((3,), 256, 64, 256)]
    codes = []
    for batch, m, n, k in shapes:
        for transpose in (False, True):
            a, c = np.empty((*batch, m, k), dtype.storage), np.empty((*batch, m, n), dtype.storage)
            b = np.empty((*batch, n, k) if transpose else (*batch, k, n), dtype.storage)
            stages, _ = product_stages(product_of(a, b.swapaxes(-1, -2) if transpose else b, c, dtype), target)
            codes += [stage.code for stage in stages]
    wide = {16: "xmm", 32: "ymm", 64: "zmm"}[target.vector_bytes] if is_x86(target.triple) else "fmla"
    for code in all_codes(codes).values():
        assembly = assembly_of(code, target)
        assert f"{code.name}:" in assembly
        if code.name.startswith("product_block"):
            assert wide in assembly
            assert "fmaf" not in assembly, "a fused multiply-add became a call of the C library"
