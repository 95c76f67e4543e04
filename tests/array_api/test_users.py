"""Libraries that work through the Array API give on tensors what they give on NumPy's arrays."""

import subprocess
import sys

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


@pytest.mark.parametrize("first", ["einops", "pullback"])
def test_einops_itself_takes_tensors_whichever_is_imported_first(first):
    program = f"""
import sys, {first}
assert {first!r} == "einops" or "einops" not in sys.modules
import pullback as pb, numpy as np
from einops import einsum, pack, rearrange, reduce, repeat
assert not any(type(finder).__module__.startswith("pullback") for finder in sys.meta_path)
a = np.arange(24.0).reshape(2, 3, 4); x = pb.tensor(a, requires_grad=True)
for f, given in (
    (rearrange, ("a (b c) d -> d b (a c)",)), (reduce, ("a b c -> b", "max")), (repeat, ("a b c -> a k b c",)),
    (reduce, ("a b c -> b", "mean")), (reduce, ("a b c -> b", "prod")), (reduce, ("a b c -> b 1", "sum")),
):
    options = dict(b=3) if f is rearrange else dict(k=2) if f is repeat else dict()
    ours = f(x, *given, **options)
    np.testing.assert_allclose(ours.numpy(force=True), f(a, *given, **options))
    ours.sum().backward()
np.testing.assert_allclose(einsum(x, x, "a b c, a b d -> a c d").numpy(force=True), np.einsum("abc,abd->acd", a, a))
assert pack([x, x], "* b c")[0].shape == (4, 3, 4) and repeat(x, "a b c -> (a k) b c", k=2).shape == (4, 3, 4)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
