"""Batch normalization against PyTorch: values, gradients, second derivatives, and what it keeps of the batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import pullback as pb
from oracle import Value, compare
from pullback import debug
from pullback.autograd import gradcheck, gradgradcheck
from pullback.errors import ShapeError

F = pb.nn.functional
RNG = np.random.default_rng(0)


def normal(*shape: int, dtype: str = "float64", scale: float = 1.0) -> Value:
    return Value(RNG.normal(size=shape) * scale, dtype)


@pytest.mark.parametrize("backend", ["reference", "native"])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(7, 3), (4, 3, 5), (4, 3, 5, 2), (2, 1, 3, 3), (1, 4, 2, 2), (2, 3, 2, 2, 3)])
def test_training_is_pytorchs(shape: tuple[int, ...], affine: bool, backend: str) -> None:
    operands = [normal(*shape), *([normal(shape[1]), normal(shape[1])] if affine else [])]
    with debug.override(backend=backend):
        compare(
            lambda library, x, *rest: library.nn.functional.batch_norm(x, None, None, *rest, training=True, eps=1e-3),
            *operands,
            second=True,
            slack=8.0,
        )


@pytest.mark.parametrize("shape", [(7, 3), (4, 3, 5, 2)])
def test_evaluation_is_pytorchs(shape: tuple[int, ...]) -> None:
    mean, variance = RNG.normal(size=3), RNG.uniform(0.5, 2.0, size=3)

    def expression(library: Any, x: Any, *rest: Any) -> Any:
        return library.nn.functional.batch_norm(x, library.tensor(mean), library.tensor(variance), *rest)

    compare(expression, normal(*shape), normal(3), normal(3), second=True, slack=8.0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_other_dtypes(dtype: str) -> None:
    compare(
        lambda library, x, w, b: library.nn.functional.batch_norm(x, None, None, w, b, training=True),
        normal(4, 3, 5, 4, dtype=dtype), normal(3, dtype=dtype), normal(3, dtype=dtype), slack=4.0,
    )  # fmt: skip


def test_a_mean_far_from_zero_costs_no_precision() -> None:
    x = (RNG.normal(size=(8, 3, 9, 7)) + 1000.0).astype(np.float32)
    exact = x.astype(np.float64)
    centre = exact - exact.mean((0, 2, 3), keepdims=True)
    expected = centre / np.sqrt((centre**2).mean((0, 2, 3), keepdims=True) + 1e-5)
    found = F.batch_norm(pb.tensor(x), None, None, training=True).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_derivatives_are_those_of_finite_differences() -> None:
    inputs = [pb.tensor(RNG.normal(size=shape)).requires_grad_() for shape in ((3, 2, 2, 2), (2,), (2,))]
    assert gradcheck(lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True), inputs, fast_mode=True)
    assert gradgradcheck(lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True), inputs, fast_mode=True)


OPTIONS = [{}, dict(momentum=None), dict(momentum=0.3, affine=False), dict(track_running_stats=False), dict(eps=0.1)]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(
    ("name", "shape"), [("BatchNorm1d", (5, 3)), ("BatchNorm2d", (3, 3, 4, 2)), ("BatchNorm3d", (2, 3, 2, 2, 2))]
)
def test_modules_keep_what_pytorchs_keep(
    name: str, shape: tuple[int, ...], options: dict[str, Any], compiled: bool
) -> None:
    theirs, ours = getattr(torch.nn, name)(3, **options), getattr(pb.nn, name)(3, **options)
    assert list(theirs.state_dict()) == list(ours.state_dict())
    step = pb.compile(lambda x: ours(x)) if compiled else ours
    for _ in range(3):
        x = RNG.normal(size=shape).astype(np.float32) * 2 + 1
        np.testing.assert_allclose(
            step(pb.tensor(x)).detach().numpy(), theirs(torch.tensor(x)).detach().numpy(), rtol=1e-4, atol=1e-5
        )
    for key, value in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[key].numpy(), value.numpy(), rtol=1e-5, err_msg=key)
    theirs.eval(), ours.eval()
    x = RNG.normal(size=shape).astype(np.float32)
    np.testing.assert_allclose(
        step(pb.tensor(x)).detach().numpy(), theirs(torch.tensor(x)).detach().numpy(), rtol=1e-4, atol=1e-5
    )
    for key, value in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[key].numpy(), value.numpy(), rtol=1e-5, err_msg=key)
    assert repr(ours) == repr(theirs)


def test_counting_batches_leaves_no_chain_of_pending_sums() -> None:
    layer = pb.nn.BatchNorm1d(2)
    for _ in range(50):
        layer(pb.randn(4, 2)).sum().item()
    assert layer.num_batches_tracked._node.buffer is not None
    assert layer.num_batches_tracked.item() == 50
    layer.reset_running_stats()
    assert layer.num_batches_tracked.item() == 0
    assert layer.running_var.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: F.batch_norm(pb.ones(1, 3), None, None, training=True), ValueError, "more than one value"),
        (lambda: F.batch_norm(pb.ones(2, 3), None, None), ValueError, "running_mean and running_var are needed"),
        (lambda: F.batch_norm(pb.ones(2, 3), pb.ones(2), pb.ones(3)), ShapeError, r"running_mean must be \[3\]"),
        (lambda: F.batch_norm(pb.ones(2, 3), None, None, training=True, eps=0.0), ValueError, "eps must be positive"),
        (lambda: F.batch_norm(pb.ones(2, 3), pb.ones(3), pb.ones(3), eps=-1e-3), ValueError, "eps must be 0 or more"),
        (lambda: F.batch_norm(pb.ones(2, 3), None, None, training=True, eps=1j), TypeError, "'eps' must be float"),
        (lambda: pb.nn.BatchNorm1d(3, eps=0)(pb.ones(2, 3)), ValueError, "eps must be positive"),
        (lambda: pb.nn.BatchNorm3d(3, eps=-1)(pb.ones(2, 3, 2, 2, 2)), ValueError, "eps must be positive"),
        (lambda: F.batch_norm(pb.ones(3), None, None, training=True), ShapeError, "input must be"),
        (lambda: pb.nn.BatchNorm2d(3)(pb.ones(2, 3)), ShapeError, "must have 4 axes and 3 channels"),
        (lambda: pb.nn.BatchNorm1d(3)(pb.ones(2, 4)), ShapeError, "must have 2 or 3 axes and 3 channels"),
    ],
)
def test_what_does_not_fit_is_said(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("compiled", [False, True])
def test_the_plain_average_is_as_precise_as_the_statistics(compiled: bool) -> None:
    theirs, ours = torch.nn.BatchNorm1d(3, momentum=None).double(), pb.nn.BatchNorm1d(3, momentum=None).double()
    step = pb.compile(lambda x: ours(x)) if compiled else ours
    x = np.random.default_rng(0).standard_normal((3, 8, 3)) + 3
    for batch in x:
        step(pb.tensor(batch))
        theirs(torch.tensor(batch))
    for name in ("running_mean", "running_var"):
        np.testing.assert_allclose(getattr(ours, name).numpy(), getattr(theirs, name).numpy(), rtol=1e-14)
