"""The answers that are given where there is no derivative are PyTorch's."""

import math

import numpy as np
import pytest
import torch

import pullback as pb
from subgradients import POINTS


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.written)
def test_gradients_at_kinks_are_pytorchs(point):
    np.testing.assert_array_equal(point.gradient(pb), point.gradient(torch))


@pytest.mark.parametrize("name", ["hardswish", "elu", "selu", "celu", "softshrink", "hardsigmoid"])
def test_gradients_at_nan_are_those_of_pytorchs_vectors(name):
    gradients = []
    for library in (pb, torch):
        x = library.full((64,), math.nan, requires_grad=True)
        getattr(library.nn.functional, name)(x).sum().backward()
        gradients.append(x.grad.tolist())
    np.testing.assert_array_equal(gradients[0], gradients[1][:1] * 64)


def test_the_loss_of_a_distance_beyond_float16_has_a_gradient():
    gradients = []
    for library in (pb, torch):
        x = library.tensor([6e4, 1.0, -6e4], dtype=library.float16, requires_grad=True)
        far = x - library.tensor([-6e4, 0, 6e4], dtype=library.float16)
        library.nn.functional.huber_loss(far, x.detach() * 0).backward()
        gradients.append(x.grad.tolist())
    assert gradients[0] == gradients[1]
