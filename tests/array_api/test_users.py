"""Libraries that work through the Array API give on tensors what they give on NumPy's arrays."""

import numpy as np
import pytest

import pullback as pb

X = np.random.default_rng(0).normal(size=(6, 4))


def test_einops_rearranges_and_reduces():
    einops = pytest.importorskip("einops.array_api")
    moved = einops.rearrange(pb.tensor(X), "a (b c) -> b a c", b=2)
    np.testing.assert_array_equal(moved.numpy(), X.reshape(6, 2, 2).transpose(1, 0, 2))
    means = einops.reduce(pb.tensor(X), "(a k) b -> a b", "mean", k=2)
    np.testing.assert_allclose(means.numpy(), X.reshape(3, 2, 4).mean(1), rtol=1e-12)


def test_array_api_extra_computes_covariances_and_pads():
    extra = pytest.importorskip("array_api_extra")
    np.testing.assert_allclose(extra.cov(pb.tensor(X.T.copy())).numpy(), np.cov(X.T), rtol=1e-10)
    np.testing.assert_array_equal(extra.pad(pb.tensor(X), 1).numpy(), np.pad(X, 1))
