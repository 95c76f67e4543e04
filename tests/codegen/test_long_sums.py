"""Sums keep their digits whatever their length factors into, and read what they are filled up with from nowhere."""

from __future__ import annotations

import numpy as np
import pytest

import pullback as pb

#: lengths without a divisor of a good size: primes, twice one, and one that is a prime times a small number
LENGTHS = [8209, 65_537, 199_999, 2 * 499_979, 9 * 111_109]
EPSILON = float(np.finfo(np.float32).eps)


@pytest.mark.parametrize("length", LENGTHS)
def test_a_total_is_exact_to_a_few_units(length: int) -> None:
    x = np.random.default_rng(length).uniform(0, 1, length).astype(np.float32)
    step = pb.compile(lambda x: (x * x).sum())
    t = pb.tensor(x)
    expected = np.square(x, dtype=np.float64).sum()
    assert abs(step(t).item() / expected - 1) < 2 * EPSILON
    assert step.plan(t).breakdown["temporaries"] < length, "what is summed is written to memory"


@pytest.mark.native("how exact native sums are")
@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((3, 99_991), 1), ((99_991, 3), 0), ((40, 70_001), 1), ((20_011, 1100), 0), ((2, 50_021, 3), 1),
        ((101, 103, 7), (0, 1)),
    ],
)  # fmt: skip
def test_rows_and_columns_are_exact_to_a_few_units(shape: tuple[int, ...], axis: int | tuple[int, ...]) -> None:
    x = np.random.default_rng(0).uniform(0, 1, shape).astype(np.float32)
    found = pb.compile(lambda x: x.sum(dim=axis))(pb.tensor(x)).numpy()
    expected = x.sum(axis=axis, dtype=np.float64)
    assert abs(found / expected - 1).max() < 4 * EPSILON


def test_extremes_and_whole_numbers_of_awkward_lengths_are_right() -> None:
    x = -np.random.default_rng(0).uniform(1, 2, 65_537).astype(np.float32)
    whole = np.random.default_rng(1).integers(-9, 9, 65_537)
    found = pb.compile(lambda x, n: (x.max(), x.min(), n.sum(), (n > 0).sum()))(pb.tensor(x), pb.tensor(whole))
    assert [f.item() for f in found] == [x.max(), x.min(), whole.sum(), (whole > 0).sum()]


@pytest.mark.native("how exact native sums are")
@pytest.mark.parametrize("k", [512, 1000, 1024, 3072, 5003])
@pytest.mark.parametrize(("m", "n"), [(17, 17), (3, 65), (1, 64)])
def test_small_products_of_a_long_k_are_exact_to_a_few_units(m: int, n: int, k: int) -> None:
    random = np.random.default_rng(k)
    a, b = random.uniform(0, 1, (m, k)).astype(np.float32), random.uniform(0, 1, (k, n)).astype(np.float32)
    expected = a.astype(np.float64) @ b.astype(np.float64)
    for right in (pb.tensor(b), pb.tensor(np.ascontiguousarray(b.T)).T):
        for run in (lambda a, b: a @ b, lambda a, b: (a @ b).relu()):
            found = pb.compile(run)(pb.tensor(a), right).numpy()
            assert abs(found / expected - 1).max() < 6 * EPSILON
