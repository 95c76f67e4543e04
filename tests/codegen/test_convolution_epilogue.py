"""What follows a convolution in its kernel: bias, activation, residual, and reductions of what the tasks have made."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import pullback as pb
from pullback import debug
from pullback.compiler.groups import COLUMN, CONVOLUTION, TOTAL, Group
from pullback.graph.types import DType
from pullback.runtime import engine

F = pb.nn.functional
RNG = np.random.default_rng(0)

#: shapes of input and weight, and options: rows left over, strides whose gradients have phases, groups, lanes over
#: groups, one image of many channels (tasks share them), other ranks, one column, and taps that meet nothing
SHAPES: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((3, 5, 19, 7), (6, 5, 3, 3), dict(padding=1)),
    ((2, 8, 9, 11), (24, 4, 3, 3), dict(padding=1, stride=2, groups=2)),
    ((2, 20, 9, 8), (20, 1, 3, 3), dict(padding=1, groups=20)),
    ((1, 16, 4, 4), (152, 16, 1, 1), {}),
    ((1, 4, 3, 3), (1208, 4, 1, 1), {}),
    ((2, 3, 37), (4, 3, 5), dict(padding=2, stride=3)),
    ((2, 2, 5, 4, 6), (3, 2, 2, 2, 2), dict(dilation=2)),
    ((2, 3, 6, 6), (1, 3, 3, 3), {}),
    ((1, 2, 9, 9), (33, 2, 1, 1), dict(stride=3)),
]


@pytest.fixture(autouse=True)
def _native() -> Iterator[None]:
    with debug.override(backend="native", verify=True):
        yield


def convolved(x: pb.Tensor, weight: pb.Tensor, options: dict[str, Any]) -> pb.Tensor:
    return {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[x.ndim](x, weight, **options)


def followed(y: pb.Tensor, bias: pb.Tensor) -> list[pb.Tensor]:
    """Elementwise values, sums and extremes of channels and of everything, and the squared distances from the mean."""
    axes = (0, *range(2, y.ndim))
    y = y.to(y.dtype.compute)
    shifted = y + bias.reshape(-1, *(1 for _ in range(y.ndim - 2)))
    mean = y.sum(axes, keepdim=True) * (y.shape[1] / y.numel())
    spread = ((y - mean) ** 2).sum(axes) if y.ndim == 5 else ((y - mean) * (y - mean)).sum(axes)
    return [F.relu(shifted), mean.flatten(), spread, shifted.amax(axes), shifted.sum(axes), (y * y).sum(), y.amin()]


def groups_of(step: Any) -> list[Group]:
    return list(dict.fromkeys(group for _, group in step.program.kernels() if group.kind == CONVOLUTION))


@pytest.mark.parametrize("dtype", [pb.float32, pb.float64, pb.bfloat16], ids=repr)
def test_what_follows_is_right(dtype: DType) -> None:
    given = [[RNG.normal(size=s) for s in (x, weight, weight[:1])] for x, weight, _ in SHAPES]

    def run(operands: list[list[pb.Tensor]]) -> list[list[pb.Tensor]]:
        found = []
        for (x, weight, bias), (_, _, options) in zip(operands, SHAPES, strict=True):
            bias = bias.to(bias.dtype.compute)
            y = convolved(x, weight, options)
            found.append([y, *followed(y, bias)])
        return found

    rounded = [[pb.tensor(a).to(dtype) for a in arrays] for arrays in given]
    step = pb.compile(run)
    results = step(rounded)
    for group, (_, (outputs, *_), _) in zip(groups_of(step), SHAPES, strict=True):
        levels = list(group.members.values())
        # of one channel a sum is that of everything
        assert (levels.count(COLUMN), levels.count(TOTAL)) == ((4, 2) if outputs > 1 else (0, 5))
        assert sum(n.op.name == "spread" for n in group.members) == (outputs > 1)
    slack = {pb.float64: 1e-13, pb.float32: 4e-6, pb.bfloat16: 1e-2}[dtype]
    for found, (x, weight, bias), (_, _, options) in zip(results, rounded, SHAPES, strict=True):
        y, *rest = (t.to(pb.float64) for t in found)
        with debug.override(backend="reference"):
            exact = convolved(x.to(pb.float64), weight.to(pb.float64), options)
            expected = [t.numpy() for t in followed(y, bias.to(pb.float64))]
        np.testing.assert_allclose(y.numpy(), exact.numpy(), rtol=slack, atol=slack * np.abs(exact.numpy()).max())
        for got, wanted in zip(rest, expected, strict=True):
            scale = max(np.abs(wanted).max(), math.sqrt(y.numel()))
            np.testing.assert_allclose(got.numpy(), wanted, rtol=min(slack, 1e-5), atol=min(slack, 1e-5) * scale)


def test_the_result_need_not_be_in_memory_and_a_residual_is_read_along() -> None:
    x, weight, bias, other = (
        pb.tensor(RNG.normal(size=shape).astype(np.float32))
        for shape in ((2, 5, 7, 9), (6, 5, 3, 3), (6,), (6, 6, 1, 1))
    )
    first = pb.compile(lambda: F.conv2d(F.relu(F.conv2d(x, weight, bias, padding=1)), other))
    found = first()
    (inner, outer) = groups_of(first)
    assert [n.op.name for n in inner.stored] == ["where"]
    assert [n.op.name for n in outer.stored] == ["convolution"]

    def block() -> pb.Tensor:
        before = F.relu(F.conv2d(x, weight, padding=1))
        return (F.conv2d(before, other) + bias.reshape(-1, 1, 1) + before).square().sum()

    second = pb.compile(block)
    total = second().item()
    assert [n.op.name for group in groups_of(second) for n in group.stored] == ["where", "sum"]
    with debug.override(backend="reference"):
        np.testing.assert_allclose(found.numpy(), F.conv2d(F.conv2d(x, weight, bias, padding=1).relu(), other).numpy(),
                                   rtol=1e-4, atol=1e-5)  # fmt: skip
        np.testing.assert_allclose(total, block().item(), rtol=1e-5)


def test_a_mean_far_from_zero_costs_no_precision_behind_a_convolution() -> None:
    """Of channels whose means are 1,000 and 100,000 times their deviations, in the kernel and written out."""
    x = pb.tensor(RNG.normal(size=(8, 2, 20, 20)).astype(np.float32))
    weight, bias = pb.tensor(np.eye(2, dtype=np.float32).reshape(2, 2, 1, 1)), pb.tensor([1e3, 1e5])
    step = pb.compile(lambda: F.batch_norm(F.conv2d(x, weight, bias), None, None, training=True))
    found = step().numpy()
    assert any(n.op.name == "spread" for group in groups_of(step) for n in group.members)
    exact = (x.numpy() + bias.numpy().reshape(-1, 1, 1)).astype(np.float64)
    centre = exact - exact.mean((0, 2, 3), keepdims=True)
    expected = centre / np.sqrt((centre**2).mean((0, 2, 3), keepdims=True) + 1e-5)
    np.testing.assert_allclose(found[:, 0], expected[:, 0], atol=2e-4)
    np.testing.assert_allclose(found[:, 1], expected[:, 1], atol=2e-2)


def test_infinities_and_nan_reach_the_sums() -> None:
    for value in (np.inf, np.nan):
        x = RNG.normal(size=(2, 3, 5, 4)).astype(np.float32)
        x[1, 2, 4, 3] = value
        y = pb.compile(lambda x: followed(F.conv2d(x, pb.ones(20, 3, 1, 1)), pb.zeros(20)))(pb.tensor(x))
        for found in (y[1], y[3], y[4], y[5]):
            np.testing.assert_equal(found.numpy(), np.full(found.shape, value, np.float32))
        assert np.isnan(y[2].numpy()).all()


def test_any_number_of_threads_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pullback.runtime.native._SMALL_WORK", -math.inf)
    monkeypatch.setattr("pullback.runtime.bundles._HAND_OVER", -math.inf)
    x, weight = (RNG.normal(size=s).astype(np.float32) for s in ((9, 8, 17, 18), (24, 8, 3, 3)))

    def run() -> list[pb.Tensor]:
        w = pb.tensor(weight).requires_grad_()
        y = F.batch_norm(F.conv2d(pb.tensor(x), w, padding=1, stride=2), None, None, training=True).relu()
        (gradient,) = pb.autograd.grad((y * y).sum(), [w])
        return [y, gradient, (gradient * gradient).sum()]

    results = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(engine, "_programs", OrderedDict())
        with debug.override(num_threads=threads):
            results.append([t.detach().numpy().tobytes() for t in pb.compile(run)()])
    assert results[0] == results[1] == results[2]


def test_one_element_alone() -> None:
    y = pb.compile(lambda x: F.conv2d(x, x).square().sum() + F.relu(F.conv2d(x, x, x.flatten())).sum())
    assert y(pb.full((1, 1, 1, 1), 2.0)).item() == 16.0 + 6.0
