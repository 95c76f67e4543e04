"""Sums over very long k: no less precise than docs/decisions/matrix-products.md promises, in parts of a fixed order."""

from __future__ import annotations

import numpy as np
import pytest

import pullback as pb
from product_oracle import FOREIGN, all_codes, assembly_of, operand, product_of, run
from pullback.codegen.matmul import product_stages
from pullback.codegen.matmul_direct import SLICE
from pullback.debug import override
from pullback.graph.types import float32, float64
from pullback.runtime.jit import host_target


def error(c: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """The largest error, in shares of the promise."""
    wide = np.float64 if c.dtype == np.float32 else np.longdouble
    a, b = a.astype(wide), b.astype(wide)
    unit = np.finfo(c.dtype).eps / 2
    return (np.abs(c - a @ b) / ((4 + np.sqrt(a.shape[-1])) * unit * (np.abs(a) @ np.abs(b)))).max()


@pytest.mark.parametrize("k", [10**6, 2 * 10**7])
def test_a_dot_product_of_positive_numbers_keeps_the_promise(k):
    rng = np.random.default_rng(0)
    a, b = rng.random(k, dtype=np.float32), rng.random(k, dtype=np.float32)
    c = (pb.from_numpy(a) @ pb.from_numpy(b)).numpy()
    assert error(c, a, b) <= 1


@pytest.mark.native("how exact native sums are")
def test_ones_are_counted_past_what_float32_counts_one_by_one():
    ones = pb.ones(20_000_000)
    assert (ones @ ones).item() == 20_000_000
    assert (ones.reshape(1, -1) @ ones.reshape(-1, 1)).item() == 20_000_000
    halves = pb.ones(17_000_000, dtype=pb.bfloat16)
    assert (halves @ halves).item() == pb.tensor(17_000_000.0).bfloat16().item()


@pytest.mark.parametrize("dtype", [float32, float64], ids=repr)
@pytest.mark.parametrize("layouts", [(a, b) for a in ("rows", "columns") for b in ("rows", "columns")], ids="-".join)
@pytest.mark.parametrize("batch,m,n", [((), 1, 1), ((), 3, 5), ((), 1, 20), ((2,), 20, 3)])
def test_thin_products_of_any_order_keep_the_promise(batch, m, n, layouts, dtype):
    rng, k = np.random.default_rng(1), 5 * SLICE + 321
    a, b = (np.abs(operand(rng, batch, *shape, dtype, o)) for shape, o in zip(((m, k), (k, n)), layouts, strict=True))
    spacious = np.full((*batch, m, n + 3), np.nan, dtype.storage)
    c = spacious[..., :n]
    stages, workspace = product_stages(product_of(a, b, c, dtype), host_target())
    run(stages, workspace, a, b, c)
    assert error(c, a, b) <= 1
    assert np.isnan(spacious[..., n:]).all()


@pytest.mark.parametrize("dtype", [pb.float16, pb.bfloat16], ids=str)
@pytest.mark.parametrize("transposed", [False, True])
def test_products_of_sixteen_bits_keep_the_promise(dtype, transposed):
    rng, k = np.random.default_rng(2), 3 * SLICE + 77
    a, b = (pb.from_numpy(rng.random((2, k), dtype=np.float32)).to(dtype) for _ in range(2))
    right = b.T if transposed else b.T.contiguous()
    got = a.mm(right).float().numpy()
    exact = a.double().numpy() @ b.double().numpy().T
    np.testing.assert_allclose(got, exact, rtol=2.0**-8 if dtype is pb.bfloat16 else 2.0**-10)


@pytest.mark.parametrize("k", [SLICE, 2 * SLICE, 6 * SLICE + 1])
def test_bits_are_those_of_one_thread_plain_and_compiled_with_what_follows_the_product(k):
    rng = np.random.default_rng(3)
    a, b = (pb.from_numpy(rng.standard_normal(shape).astype(np.float32)) for shape in ((3, k), (k, 4)))
    bias = pb.ones(4)

    def function():
        return pb.tanh(a @ b * 0.01 + bias)

    results = []
    for threads in (1, 2, 3):
        with override(num_threads=threads):
            results += [function().numpy(), pb.compile(function)().numpy()]
    assert all((result == results[0]).all() for result in results)
    expected = np.tanh(a.double().numpy() @ b.double().numpy() * 0.01 + 1)
    np.testing.assert_allclose(results[0], expected, rtol=1e-5, atol=1e-5)


def test_only_long_sums_are_cut():
    def launches(k: int) -> int:
        a, b, c = np.empty((1, k), np.float32), np.empty((k, 1), np.float32), np.empty((1, 1), np.float32)
        return len(product_stages(product_of(a, b, c, float32), host_target())[0])

    assert [launches(k) for k in (4096, 2 * SLICE - 1, 2 * SLICE)] == [1, 1, 2]


@pytest.mark.parametrize("target", FOREIGN.values(), ids=FOREIGN)
def test_slices_are_made_for_other_processors(target):
    a, c = np.empty((2, 40_001), np.float32), np.empty((2, 2), np.float32)
    stages, _ = product_stages(product_of(a, np.empty((2, 40_001), np.float32).T, c, float32), target)
    for code in all_codes([stage.code for stage in stages]).values():
        assert f"{code.name}:" in assembly_of(code, target)
