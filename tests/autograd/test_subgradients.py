"""The answers that are given where there is no derivative are PyTorch's."""

import numpy as np
import pytest
import torch

import pullback as pb
from subgradients import POINTS


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.written)
def test_gradients_at_kinks_are_pytorchs(point):
    np.testing.assert_array_equal(point.gradient(pb), point.gradient(torch))
