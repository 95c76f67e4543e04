"""topk, kthvalue and the medians select without sorting: what they give is what the stable order has."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pullback as pb

DTYPES = ["float64", "float32", "float16", "int64", "int32", "uint8"]


def sample(name: str, equal: bool, nan: bool = False) -> np.ndarray:
    """[3, 101, 2], with many equal elements, with infinities and both zeros, and if asked some NaNs."""
    random = np.random.default_rng(0)
    kind = np.dtype(name).kind
    low = 0 if kind == "u" else -8 if equal else -20000
    x = random.integers(low, 9 if equal else 200 if kind == "u" else 20000, (3, 101, 2)).astype(name)
    if kind == "f":
        x[0, :4, 0] = [np.inf, -np.inf, 0.0, -0.0]
        if nan:
            x[1, 5:9, 0] = x[2, ::2, 1] = np.nan
            x[2, :, 0] = np.nan
    return x


def places(x: pb.Tensor, axis: int, descending: bool = False) -> np.ndarray:
    return x.argsort(axis, descending=descending, stable=True).numpy()


@pytest.mark.parametrize("equal", [True, False])
@pytest.mark.parametrize("name", DTYPES)
def test_topk_gives_the_beginning_of_the_stable_order(name: str, equal: bool) -> None:
    x = pb.tensor(sample(name, equal, nan=True))
    for largest in (True, False):
        for k in (1, 5, 12, 13, 101):
            values, indices = x.topk(k, 1, largest=largest)
            expected = places(x, 1, largest)[:, :k]
            np.testing.assert_array_equal(indices.numpy(), expected)
            np.testing.assert_array_equal(values.numpy(), np.take_along_axis(x.numpy(), expected, 1))


@pytest.mark.parametrize("equal", [True, False])
@pytest.mark.parametrize("name", DTYPES)
def test_kthvalue_gives_the_kth_of_the_stable_order(name: str, equal: bool) -> None:
    x = pb.tensor(sample(name, equal, nan=True))
    for k in (1, 40, 101):
        np.testing.assert_array_equal(x.kthvalue(k, 1)[1].numpy(), places(x, 1)[:, k - 1])


@pytest.mark.parametrize("function", ["median", "nanmedian"])
@pytest.mark.parametrize("name", DTYPES)
def test_medians_are_pytorchs_and_stand_first_among_nans(name: str, function: str) -> None:
    for nan in (False, True):
        x = sample(name, True, nan)
        values, indices = getattr(pb.tensor(x), function)(1, keepdim=True)
        expected = getattr(torch.from_numpy(x), function)(1, keepdim=True)[0].numpy()
        np.testing.assert_array_equal(values.numpy(), expected)
        np.testing.assert_array_equal(np.take_along_axis(x, indices.numpy(), 1), expected)
        whole = getattr(torch.from_numpy(x), function)().numpy()
        np.testing.assert_array_equal(getattr(pb.tensor(x), function)().numpy(), whole)


def test_selections_of_no_rows_are_empty() -> None:
    x = pb.empty(0, 20)
    assert x.topk(2)[0].numpy().shape == (0, 2)
    assert x.kthvalue(3)[1].numpy().shape == x.median(1)[0].numpy().shape == (0,)


def test_selections_work_in_compiled_steps_and_under_vmap() -> None:
    x = pb.tensor(sample("float32", False))
    for function in (lambda v: v.topk(3, 0)[0], lambda v: v.kthvalue(7, 0)[0], lambda v: v.median(0)[0]):
        expected = function(x.movedim(1, 0)).numpy()
        np.testing.assert_array_equal(pb.compile(lambda v, f=function: f(v.movedim(1, 0)))(x).numpy(), expected)
        one_each = pb.vmap(function)(x).numpy()
        np.testing.assert_array_equal(np.moveaxis(one_each, 0, one_each.ndim - 2), expected)
