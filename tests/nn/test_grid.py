"""Images read at positions: what PyTorch's kernels make of NaN, second derivatives, and input that does not fit."""

import math

import numpy as np
import pytest
import torch

import pullback as pb
from pullback import debug, errors
from pullback.autograd import gradcheck, gradgradcheck
from pullback.nn import functional as F

VOLUME = pb.ones(1, 1, 2, 2, 2)
AWKWARD = [[math.nan, 0.1], [math.inf, 0.2], [-math.inf, 0.1], [0.1, math.nan], [1e30, 0.3], [-1.0, 0.0]]


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("axes", [2, 3])
def test_positions_that_are_no_numbers_give_what_pytorch_gives_and_no_error(axes: int, mode: str, padding: str) -> None:
    if axes == 3 and mode == "bicubic":
        return  # PyTorch has none
    image = np.arange(1.0, 1 + 4 * 3 ** (axes - 1)).reshape(1, 1, *(3,) * (axes - 1), 4)
    rows = [[*row, *(0.2,) * (axes - 2)] for row in AWKWARD]
    if axes == 3 and padding == "reflection":
        del rows[4]  # which of many reflections 1e30 falls into is a matter of rounding
    grid = np.array(rows).reshape(1, 1, *(1,) * (axes - 2), len(rows), axes)
    theirs = torch.nn.functional.grid_sample(torch.tensor(image), torch.tensor(grid), mode, padding, True)
    x, positions = pb.tensor(image, requires_grad=True), pb.tensor(grid, requires_grad=True)
    ours = F.grid_sample(x, positions, mode, padding, True)
    np.testing.assert_allclose(ours.detach().numpy(), theirs.numpy(), rtol=1e-12)
    ours.sum().backward()  # PyTorch's own backward pass can crash here
    assert x.grad is not None and x.grad.shape == x.shape


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_derivatives_of_either_order_are_those_of_finite_differences(mode: str) -> None:
    draw = np.random.default_rng(3)
    x = pb.tensor(draw.normal(size=(1, 1, 3, 4)), requires_grad=True)
    grid = pb.tensor(draw.uniform(-1.3, 1.3, size=(1, 2, 1, 2)), requires_grad=True)
    with debug.override(backend="reference"):
        assert gradcheck(lambda x, grid: F.grid_sample(x, grid, mode, "border", False), [x, grid], fast_mode=True)
        assert gradgradcheck(lambda x, grid: F.grid_sample(x, grid, mode, "border", False), [x, grid], fast_mode=True)


@pytest.mark.parametrize(
    ("error", "call"),
    [
        (errors.ShapeError, lambda: F.grid_sample(pb.ones(1, 1, 3), pb.ones(1, 3, 2), align_corners=True)),
        (errors.ShapeError, lambda: F.grid_sample(pb.ones(1, 1, 3, 3), pb.ones(2, 3, 3, 2), align_corners=True)),
        (errors.ShapeError, lambda: F.grid_sample(pb.ones(1, 1, 3, 3), pb.ones(1, 3, 3, 3), align_corners=True)),
        (errors.ShapeError, lambda: F.grid_sample(pb.ones(1, 1, 0, 3), pb.ones(1, 3, 3, 2), align_corners=True)),
        (errors.ShapeError, lambda: F.grid_sample(VOLUME, pb.ones(1, 1, 1, 1, 3), "bicubic", "zeros", True)),
        (errors.DTypeError, lambda: F.grid_sample(pb.ones(1, 1, 3, 3).double(), pb.ones(1, 3, 3, 2), "nearest")),
        (ValueError, lambda: F.grid_sample(pb.ones(1, 1, 3, 3), pb.ones(1, 3, 3, 2), "cubic", align_corners=True)),
        (ValueError, lambda: F.grid_sample(pb.ones(1, 1, 3, 3), pb.ones(1, 3, 3, 2), padding_mode="zero")),
        (ValueError, lambda: pb.grid_sampler(pb.ones(1, 1, 3, 3), pb.ones(1, 3, 3, 2), 3, 0, False)),
        (errors.ShapeError, lambda: pb.grid_sampler_3d(pb.ones(1, 1, 3, 3), pb.ones(1, 3, 3, 2), 0, 0, False)),
        (errors.ShapeError, lambda: F.affine_grid(pb.ones(1, 2, 3), (1, 1, 3), True)),
        (errors.ShapeError, lambda: F.affine_grid(pb.ones(1, 2, 3), (1, 1, 0, 3), True)),
        (errors.ShapeError, lambda: F.affine_grid(pb.ones(2, 2, 3), (1, 1, 2, 3), True)),
        (errors.DTypeError, lambda: F.affine_grid(pb.ones(1, 2, 3).long(), (1, 1, 2, 3), True)),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(error: type[Exception], call) -> None:
    with pytest.raises(error):
        call()


def test_the_choice_of_corners_is_asked_for() -> None:
    with pytest.warns(UserWarning, match="align_corners"):
        F.grid_sample(pb.ones(1, 1, 3, 3), pb.ones(1, 3, 3, 2))
