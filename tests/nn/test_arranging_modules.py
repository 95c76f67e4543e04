"""Modules of the database of PyTorch that it leaves out: against PyTorch's, value, gradient, printed form, state."""

from typing import Any

import numpy as np
import pytest
import torch

import pullback as pb

PIXELS = np.random.default_rng(0).standard_normal((2, 8, 4, 6))
MODULES: list[tuple[str, tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = [
    ("PixelShuffle", (2,), {}, (2, 8, 4, 6)),
    ("PixelUnshuffle", (2,), {}, (8, 4, 6)),
    ("ChannelShuffle", (4,), {}, (2, 8, 4, 6)),
    ("Unfold", ((2, 3),), {"stride": 2, "padding": (1, 0)}, (2, 8, 4, 6)),
    ("Fold", ((4, 6), 2), {"dilation": (1, 2)}, (2, 8, 12)),
    ("Unflatten", (1, (2, -1)), {}, (2, 8, 4)),
    ("Unflatten", (-1, [3, 2]), {}, (8, 4, 6)),
]
PAIRS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("CosineSimilarity", (), {}),
    ("CosineSimilarity", (-1,), {"eps": 0.5}),
    ("PairwiseDistance", (), {}),
    ("PairwiseDistance", (1.0,), {"keepdim": True}),
]


def compare(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: list[np.ndarray]) -> None:
    """Assert PyTorch's value, printed form and gradients."""
    ours, theirs = getattr(pb.nn, name)(*args, **kwargs), getattr(torch.nn, name)(*args, **kwargs)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    mine = [pb.tensor(x, requires_grad=True) for x in inputs]
    given = [torch.tensor(x, requires_grad=True) for x in inputs]
    found, wanted = ours(*mine), theirs(*given)
    np.testing.assert_allclose(found.detach().numpy(), wanted.detach().numpy(), rtol=1e-12)
    (found * found).sum().backward()
    (wanted * wanted).sum().backward()
    for a, b in zip(mine, given, strict=True):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("name", "args", "kwargs", "shape"), MODULES)
def test_moving_elements(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], shape: tuple[int, ...]) -> None:
    compare(name, args, kwargs, [PIXELS.reshape(-1)[: int(np.prod(shape))].reshape(shape)])


@pytest.mark.parametrize(("name", "args", "kwargs"), PAIRS)
def test_likeness_and_distance(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    compare(name, args, kwargs, [PIXELS[0, 0], PIXELS[1, 3]])


def test_bad_sizes_are_refused_where_the_module_is_made() -> None:
    with pytest.raises(TypeError, match="must be a tuple or list of ints, got 3"):
        pb.nn.Unflatten(1, 3)
    with pytest.raises(TypeError, match="must be a tuple or list of ints"):
        pb.nn.Unflatten(1, (2, 1.5))
    with pytest.raises(ValueError, match="in1_features must be positive, got 0"):
        pb.nn.Bilinear(0, 2, 3)
