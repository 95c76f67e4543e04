"""Reductions of columns that go through the same values share a kernel, and values are written over what made them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import pullback as pb
from pullback import debug


def _launches(step: object, kind: str) -> int:
    """How many launches of a kind a compiled step has."""
    names = [launch.code.name for launch in step.program.layout.launches()]  # type: ignore[attr-defined]
    return sum(name.startswith(kind) for name in names)


@pytest.fixture(autouse=True)
def _native() -> object:
    with debug.override(backend="native"):
        yield


@pytest.mark.parametrize("shape", [(40, 24), (3, 7, 65), (1, 5), (300, 129), (16, 1)])
@pytest.mark.parametrize("dtype", [pb.float32, pb.float64])
def test_several_reductions_of_one_value(shape: tuple[int, ...], dtype: pb.DType) -> None:
    x = pb.randn(*shape).to(dtype)

    @pb.compile
    def step(x: pb.Tensor) -> tuple[pb.Tensor, ...]:
        y, z = x * 2.0, x - 1.0
        return x.sum(0), (x * y).sum(0), y.amax(0), x.amin(0), z.sum(0)

    values = x.numpy()
    expected = [
        values.sum(0), (2 * values * values).sum(0), 2 * values.max(0), values.min(0), (values - 1).sum(0),
    ]  # fmt: skip
    for found, wanted in zip(step(x), expected, strict=True):
        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-4, atol=1e-4)
    if shape == (40, 24):
        assert _launches(step, "columns") == 2


def test_gains_and_biases_gradients_come_out_of_the_product() -> None:
    """The product that makes the cotangent sums its columns; no kernel goes through the cotangent again for them."""
    norm = pb.nn.LayerNorm(24)
    x, up = pb.randn(40, 24), pb.randn(24, 24)

    @pb.compile
    def step() -> None:
        norm.zero_grad()
        ((norm(x) @ up) ** 2).sum().backward()

    step()
    assert _launches(step, "columns") == 0
    values = x.numpy()
    hat = (values - values.mean(1, keepdims=True)) / np.sqrt(values.var(1, keepdims=True) + 1e-5)
    cotangent = 2 * (hat @ up.numpy()) @ up.numpy().T
    assert norm.weight.grad is not None
    assert norm.bias.grad is not None
    np.testing.assert_allclose(norm.weight.grad.numpy(), (cotangent * hat).sum(0), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(norm.bias.grad.numpy(), cotangent.sum(0), rtol=1e-3, atol=1e-3)


def test_a_reduction_that_needs_another_one_waits_for_it() -> None:
    x = pb.randn(40, 24)

    @pb.compile
    def step(x: pb.Tensor) -> tuple[pb.Tensor, pb.Tensor]:
        first = x.sum(0)
        return first, (x * first).sum(0)

    first, second = step(x)
    total = x.numpy().sum(0)
    np.testing.assert_allclose(first.numpy(), total, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(second.numpy(), total * total, rtol=1e-3, atol=1e-3)


def _doubled_and_summed(x: pb.Tensor, w: pb.Tensor) -> pb.Tensor:
    y = x @ w
    return ((y * 2.0) @ w.T) * y.sum(-1, keepdim=True)


def _centred(x: pb.Tensor, w: pb.Tensor) -> pb.Tensor:
    y = x @ w
    centred = y - y.mean(-1, keepdim=True)
    return (centred @ w.T) * (y * y).sum(-1, keepdim=True) + (centred * centred).sum(-1, keepdim=True)


@pytest.mark.parametrize("function", [_doubled_and_summed, _centred])
@pytest.mark.parametrize("width", [1, 16, 33, 5000])
def test_what_is_summed_may_be_written_over(function: Callable[..., pb.Tensor], width: int) -> None:
    x, w = pb.randn(9, 6), pb.randn(6, width)
    found = pb.compile(function)(x, w).numpy()
    with debug.override(backend="reference"):
        expected = pb.compile(function)(x, w).numpy()
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max())


def test_a_normalization_keeps_two_numbers_a_row() -> None:
    """What it normalized is computed again from its input, the mean and the deviation."""
    norm = pb.nn.LayerNorm(64)
    x, up, down = pb.randn(256, 64), pb.randn(64, 64).requires_grad_(), pb.randn(64, 64)

    @pb.compile
    def step() -> pb.Tensor:
        norm.zero_grad()
        up.grad = None
        loss = ((norm(x @ up) @ down) ** 2).sum()
        loss.backward()
        return loss

    step()
    launch = next(
        la for la in step.program.layout.launches() if la.code.name.startswith("loops") and len(la.writes) > 1
    )
    written = sorted(int(np.prod(node.shape)) for node in launch.writes)
    assert written == [256, 256, 256 * 64]
    gradients = norm.weight.grad.numpy(), up.grad.numpy()  # type: ignore[union-attr]
    with debug.override(backend="reference"):
        pb.compile(step.function)()
    for found, expected in zip(gradients, (norm.weight.grad, up.grad), strict=True):
        wanted = expected.numpy()  # type: ignore[union-attr]
        np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())
