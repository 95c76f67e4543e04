"""Rows of a vector that is filled up with zeros: one kernel goes over them, and the zeros lie nowhere."""

from __future__ import annotations

import numpy as np
import pytest

import pullback as pb
from pullback import debug
from pullback.nn.functional import pad

REDUCTIONS = {"sum": pb.Tensor.sum, "amax": pb.Tensor.amax, "amin": pb.Tensor.amin}


def compiled_alike(function: object, *operands: pb.Tensor) -> list[object]:
    """The groups of a compiled function, whose values are the reference's."""
    step = pb.compile(function)
    with debug.override(backend="native", verify=True):
        found = step(*operands)
    with debug.override(backend="reference"):
        expected = pb.compile(function)(*operands)
    for own, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(own.numpy(), other.numpy(), rtol=2e-5, atol=2e-5)
    return [group for _, group in step.program.kernels()]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(
    ("shape", "row"), [((1001, 7), 256), ((17, 9), 256), ((5, 50), 48), ((41,), 7), ((12, 12), 128), ((33, 31), 1000)]
)
def test_rows_are_reduced_and_used_again_in_one_kernel(shape: tuple[int, ...], row: int, reduction: str) -> None:
    size = int(np.prod(shape))
    x = pb.tensor(np.random.default_rng(size).uniform(-2, -1, shape).astype(np.float32))  # 0 is greater than all

    def apart(x: pb.Tensor) -> tuple[pb.Tensor, pb.Tensor]:
        y = x * 3 + 1
        rows = pad(y.reshape(-1), (0, -size % row)).reshape(-1, row)
        found = REDUCTIONS[reduction](rows, 1)
        return y - found[:, None].expand(rows.shape).reshape(-1)[:size].reshape(shape), found

    (group,) = compiled_alike(apart, x)
    assert group.is_ragged and (group.size, group.row) == (size, row)


def test_operands_in_another_order_and_totals_beside_the_rows() -> None:
    x = pb.tensor(np.random.default_rng(0).standard_normal((37, 61)).astype(np.float32))

    def several(x: pb.Tensor) -> tuple[pb.Tensor, ...]:
        y = x.T * 2
        greatest = pad(y.abs().reshape(-1), (0, -y.numel() % 64)).reshape(-1, 64).amax(1)
        shares = y / greatest[:, None].expand(-1, 64).reshape(-1)[: y.numel()].reshape(y.shape)
        return shares, shares.square().sum(), shares.abs().amax(), shares.amax()

    compiled_alike(several, x)


@pytest.mark.parametrize("shape", [(37, 61), (3, 5, 17), (9, 3, 70)])
def test_values_of_an_axis_beside_the_rows(shape: tuple[int, ...]) -> None:
    """Lanes then read along an axis up to its end, and on from its beginning; or two numbers, of neighbouring rows."""
    random = np.random.default_rng(0)
    x, *factors = (
        pb.tensor(random.uniform(1, 2, size).astype(np.float32))
        for size in (shape, *([n if a == axis else 1 for a, n in enumerate(shape)] for axis in range(len(shape))))
    )

    def scaled(x: pb.Tensor, *factors: pb.Tensor) -> tuple[pb.Tensor, pb.Tensor]:
        for factor in factors:
            x = x * factor
        return x, pad(x.reshape(-1), (0, -x.numel() % 64)).reshape(-1, 64).sum(1)

    (group,) = compiled_alike(scaled, x, *factors)
    assert group.is_ragged
