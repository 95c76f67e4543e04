"""Sums over many rows are added up in lines: they round off little, also where every addition rounds the same way."""

from __future__ import annotations

import numpy as np
import pytest

import pullback as pb

nn = pb.nn


@pytest.mark.native("how exact native sums are")
@pytest.mark.parametrize("norm", [True, False], ids=["in a pass of their own", "in the convolution's kernel"])
def test_gradients_by_channel_behind_a_convolution_keep_their_digits(norm: bool) -> None:
    pb.manual_seed(0)
    layers = [nn.Conv2d(1, 8, 1), *([nn.BatchNorm2d(8).eval()] if norm else []), nn.ReLU()]
    model = nn.Sequential(*layers)
    x = pb.randn(2, 1, 128, 128)

    @pb.compile
    def step(x):
        model.zero_grad()
        y = model(x)
        (y.sum() * 0.1).backward()
        return y

    y = step(x).numpy()
    exact = (y > 0).sum((0, 2, 3)) * np.float64(np.float32(0.1))
    np.testing.assert_allclose(model[len(layers) - 2].bias.grad.numpy(), exact, rtol=1e-6)


@pytest.mark.parametrize(("m", "n", "k"), [(140_000, 8, 16), (5, 200_000, 3)])
def test_products_of_very_many_rows_or_columns(m: int, n: int, k: int) -> None:
    random = np.random.default_rng(0)
    a, b = random.standard_normal((m, k)).astype(np.float32), random.standard_normal((k, n)).astype(np.float32)
    found = pb.compile(lambda x, y: (x @ y).relu())(pb.tensor(a), pb.tensor(b)).numpy()
    np.testing.assert_allclose(found, np.maximum(a @ b, 0), atol=1e-4)


@pytest.mark.parametrize("rows", [1, 2])
def test_a_row_is_added_to_another_gradient_of_a_table(rows: int) -> None:
    table = nn.Parameter(pb.tensor([[0.1, 0.2, 0.3]] * rows))

    @pb.compile
    def step(index):
        table.grad = None
        loss = table[index].tanh().sum() + (table * 2).sum()
        loss.backward()
        return loss

    step(pb.tensor([0]))
    expected = np.full((rows, 3), 2.0)
    expected[0] += 1 - np.tanh([0.1, 0.2, 0.3]) ** 2
    np.testing.assert_allclose(table.grad.numpy(), expected, rtol=1e-6)
