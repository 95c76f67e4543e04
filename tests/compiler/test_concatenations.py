"""Concatenations are written by the kernel that computes their parts, wherever that is possible."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import pullback as pb
from pullback import debug


def launches_of(function: Callable[[pb.Tensor], pb.Tensor], x: pb.Tensor) -> int:
    step = pb.compile(function)
    with debug.override(backend="reference"):
        expected = function(x).numpy()
    with debug.override(backend="native"):
        np.testing.assert_allclose(step(x).numpy(), expected, rtol=1e-4, atol=1e-5)
        return len(step.program.layout.launches())


def parts(x: pb.Tensor) -> list[pb.Tensor]:
    """Three values that one kernel computes, because they have something computed in common."""
    y = x.tanh()
    return [y * 2, y.exp(), y - 1]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("shape", [(3, 5, 40), (4, 2, 16), (1, 1, 33)])
def test_parts_computed_together_are_written_in_one_launch(axis: int, shape: tuple[int, ...]) -> None:
    x = pb.randn(*shape)
    assert launches_of(lambda x: pb.cat(parts(x), axis), x) == 1


def test_the_gradient_of_a_split_is_written_in_one_launch() -> None:
    x = pb.randn(6, 96)

    def gradient(x: pb.Tensor) -> pb.Tensor:
        y = x.detach().requires_grad_()
        a, b, c = y.split(32, 1)
        return pb.autograd.grad((a.sigmoid() * b.tanh() * c).sum(), y)[0]

    assert launches_of(gradient, x) == 1


def test_a_concatenation_that_is_read_again_beside_its_parts() -> None:
    x = pb.randn(4, 32)

    def both(x: pb.Tensor) -> pb.Tensor:
        first = pb.cat(parts(x), 1)
        second = pb.cat([first.tanh(), first * first], 0)
        return pb.cat([second, second.flip(0)], 1).T @ second

    assert launches_of(both, x) >= 1


@pytest.mark.parametrize("shape", [(5, 3), (5, 1), (0, 16), (7, 20)])
def test_short_rows_unequal_and_moved_parts_are_right_too(shape: tuple[int, ...]) -> None:
    x = pb.randn(*shape)
    assert launches_of(lambda x: pb.cat(parts(x), 1), x) >= 0
    assert launches_of(lambda x: pb.cat([x * 2, x.exp()[:, :1]], 1), x) >= 0
    assert launches_of(lambda x: pb.cat([(x * 2).flip(0), x.exp()], 1), x) >= 0


@pytest.mark.parametrize(("shape", "row"), [((66, 24), 36), ((64, 24), 32), ((64, 48), 32), ((64, 24), 48)])
def test_rows_that_the_parts_do_not_fill_are_reduced_elsewhere(shape: tuple[int, int], row: int) -> None:
    # one kernel went over the rows of both, with wrong sums
    def joined(x: pb.Tensor) -> pb.Tensor:
        y = x.tanh()
        whole = pb.cat([y, y.exp()], 1)
        return pb.cat([whole.reshape(-1), y.reshape(-1, row).sum(1)])

    assert launches_of(joined, pb.randn(*shape)) >= 1
