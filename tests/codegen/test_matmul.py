"""Matrix products: every path, orientation and edge against NumPy in float64, on this machine and for others."""

from __future__ import annotations

import ctypes
from dataclasses import replace

import llvmlite.binding as llvm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pullback.codegen.matmul import Epilogue, Product, Stage, folded, product_stages
from pullback.codegen.matmul_tile import multiply_add, scalar_type
from pullback.codegen.target import Target
from pullback.codegen.text import Code, Writer
from pullback.graph.types import DType, float32, float64
from pullback.runtime.jit import host_target, load

DTYPES = [float32, float64]
FOREIGN = {
    "sse": Target("x86-64", "", 16, 16, 32 << 10, 256 << 10, 8 << 20, "x86_64-unknown-linux-gnu"),
    "avx2": Target("x86-64-v3", "", 32, 16, 32 << 10, 512 << 10, 32 << 20, "x86_64-unknown-linux-gnu"),
    "avx512": Target("x86-64-v4", "-prefer-256-bit", 64, 32, 48 << 10, 2 << 20, 32 << 20, "x86_64-unknown-linux-gnu"),
}


class Scaled:
    """An epilogue for the tests: C[..., i, j] = 2 * C[..., i, j] + bias[j]."""

    slots = 1

    def __init__(self, product: Product):
        self.product = product

    def emit(self, writer: Writer, slot_base: int, batch: list[str], m0: str, m1: str, n0: str, n1: str) -> None:
        type_ = scalar_type(self.product.dtype)
        pointer, bias = writer.argument(2), writer.argument(slot_base)
        for index, stride in zip(batch, self.product.c_strides, strict=False):
            pointer = writer.element(pointer, type_, writer.multiply(index, stride))
        with writer.loop(m0, m1) as i, writer.loop(n0, n1) as j:
            address = writer.element(pointer, type_, writer.add(writer.multiply(i, self.product.c_strides[-1]), j))
            old = writer.op(f"load <1 x {type_}>, ptr {address}, align 4")
            addend = writer.op(f"load <1 x {type_}>, ptr {writer.element(bias, type_, j)}, align 4")
            new = multiply_add(writer, type_, 1, old, f"<{type_} 2.0>", addend)
            writer.line(f"store <1 x {type_}> {new}, ptr {address}, align 4")


def elements(array: np.ndarray) -> tuple[int, ...]:
    """The strides of `array` in elements."""
    return tuple(stride // array.itemsize for stride in array.strides)


def product_of(a: np.ndarray, b: np.ndarray, c: np.ndarray, dtype: DType) -> Product:
    m, k = a.shape[-2:]
    return Product(c.shape[:-2], m, b.shape[-1], k, elements(a), elements(b), elements(c)[:-1], dtype)


def aligned(nbytes: int) -> np.ndarray:
    """Zeroed bytes that begin at a multiple of 64."""
    memory = np.zeros(nbytes + 64, np.uint8)
    return memory[-memory.ctypes.data % 64 :][:nbytes]


def run(stages: list[Stage], workspace: int, a: np.ndarray, b: np.ndarray, c: np.ndarray, *extra: np.ndarray) -> None:
    """Run the stages on one thread; tasks go from last to first, since their order must not matter."""
    addresses = load([stage.code for stage in stages])
    shared = aligned(workspace)
    slots = {"a": [a], "b": [b], "c": [c], "workspace": [shared], "epilogue": list(extra)}
    for stage in stages:
        arrays = [array for name in stage.operands for array in slots[name]]
        arguments = (ctypes.c_int64 * len(arrays))(*(array.ctypes.data for array in arrays))
        guard = 64
        scratch = aligned(stage.scratch_bytes + guard)
        scratch[-guard:] = 171
        kernel = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(addresses[stage.code.name])
        for task in reversed(range(stage.tasks)):
            kernel(ctypes.addressof(arguments), scratch.ctypes.data, task)
        assert (scratch[-guard:] == 171).all(), "a kernel wrote past its scratch memory"


def assert_close(c: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """Each element is within a few roundings times sqrt(k) of the exact one, relative to the sum of magnitudes."""
    wide = np.float64 if c.dtype == np.float32 else np.longdouble
    wide_a, wide_b = a.astype(wide), b.astype(wide)
    magnitude = np.abs(wide_a) @ np.abs(wide_b)
    bound = (4 + np.sqrt(a.shape[-1])) * np.finfo(c.dtype).eps * magnitude
    assert (np.abs(c - wide_a @ wide_b) <= bound).all()


def operand(
    rng: np.random.Generator, batch: tuple[int, ...], rows: int, columns: int, dtype: DType, layout: str
) -> np.ndarray:
    """Random values [*batch, rows, columns] laid out by "rows" or "columns", or "sliced": contiguous in neither."""
    if layout == "rows":
        return rng.standard_normal((*batch, rows, columns)).astype(dtype.storage)
    if layout == "columns":
        return rng.standard_normal((*batch, columns, rows)).astype(dtype.storage).swapaxes(-1, -2)
    return rng.standard_normal((*batch, rows, 3, columns, 2)).astype(dtype.storage)[..., 1, :, 1]


def check(
    batch: tuple[int, ...],
    m: int,
    n: int,
    k: int,
    dtype: DType,
    layouts: tuple[str, str],
    broadcast: str = "",
    target: Target | None = None,
) -> None:
    rng = np.random.default_rng(7)
    a = operand(rng, (1,) * len(batch) if broadcast == "a" else batch, m, k, dtype, layouts[0])
    b = operand(rng, (1,) * len(batch) if broadcast == "b" else batch, k, n, dtype, layouts[1])
    a, b = np.broadcast_to(a, (*batch, m, k)), np.broadcast_to(b, (*batch, k, n))
    # Rows of C lie further apart than they are long, and what lies between must stay untouched.
    spacious = np.full((*batch, m, n + 3), np.nan, dtype.storage)
    c = spacious[..., :n]
    stages, workspace = product_stages(product_of(a, b, c, dtype), target or host_target())
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
    run(stages, workspace, a, b, c, bias)
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


def all_codes(codes: list[Code]) -> dict[str, Code]:
    found: dict[str, Code] = {}
    for code in codes:
        found |= {code.name: code} | all_codes(list(code.needs))
    return found


@pytest.mark.parametrize("target", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("dtype", DTYPES, ids=repr)
def test_other_processors(target, dtype):
    """The text of each kind of kernel can be turned into assembly for processors that this one may not be."""
    host_target()  # LLVM's code generators are initialized
    if not target.triple.startswith(host_target().triple.split("-")[0]):
        pytest.skip("this LLVM was not asked to generate code for another architecture")
    machine = llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=2
    )
    shapes = [((), 20, 21, 22), ((), 1, 33, 70), ((), 300, 300, 300), ((3,), 256, 64, 256)]
    codes = []
    for batch, m, n, k in shapes:
        for transpose in (False, True):
            a, c = np.empty((*batch, m, k), dtype.storage), np.empty((*batch, m, n), dtype.storage)
            b = np.empty((*batch, n, k) if transpose else (*batch, k, n), dtype.storage)
            stages, _ = product_stages(product_of(a, b.swapaxes(-1, -2) if transpose else b, c, dtype), target)
            codes += [stage.code for stage in stages]
    wide = {16: "xmm", 32: "ymm", 64: "zmm"}[target.vector_bytes]
    for code in all_codes(codes).values():
        module = llvm.parse_assembly(code.text, llvm.create_context())
        module.verify()
        assembly = machine.emit_assembly(module)
        assert f"{code.name}:" in assembly
        if code.name.startswith("product_block"):
            assert wide in assembly
            assert "fmaf" not in assembly, "a fused multiply-add became a call of the C library"
