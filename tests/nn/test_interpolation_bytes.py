"""Images of uint8 at another size: PyTorch's bytes, which differ from rounded floats."""

from typing import Any

import numpy as np
import pytest
import torch

import pullback as pb

IMAGE = np.random.default_rng(0).integers(0, 256, (2, 3, 13, 9), dtype=np.uint8)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    "options",
    [
        {"size": (7, 20), "align_corners": False},
        {"size": (30, 4), "align_corners": True},
        {"size": (13, 5), "antialias": True},
        {"scale_factor": (0.4, 1.7), "antialias": True},
        {"scale_factor": 1.3},
        {"size": (2, 1)},
    ],
)
def test_bytes_are_pytorchs(mode: str, options: dict[str, Any]) -> None:
    wanted = torch.nn.functional.interpolate(torch.tensor(IMAGE), mode=mode, **options).numpy()
    found = pb.nn.functional.interpolate(pb.tensor(IMAGE), mode=mode, **options)
    assert found.dtype is pb.uint8
    assert found.shape == wanted.shape
    # where a weighted sum is halfway, PyTorch's kernels for different processors themselves differ by one
    difference = np.abs(found.numpy().astype(int) - wanted)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.005
