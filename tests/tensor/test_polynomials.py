"""Orthogonal polynomials: SciPy's values between -1 and 1, PyTorch's at the ends, beyond them and for odd degrees."""

import numpy as np
import pytest
import scipy.special
import torch

import pullback as pb

SCIPY = {
    "chebyshev_polynomial_t": scipy.special.eval_chebyt,
    "chebyshev_polynomial_u": scipy.special.eval_chebyu,
    "shifted_chebyshev_polynomial_t": scipy.special.eval_sh_chebyt,
    "shifted_chebyshev_polynomial_u": scipy.special.eval_sh_chebyu,
    "hermite_polynomial_h": scipy.special.eval_hermite,
    "hermite_polynomial_he": scipy.special.eval_hermitenorm,
    "laguerre_polynomial_l": scipy.special.eval_laguerre,
    "legendre_polynomial_p": scipy.special.eval_legendre,
}
NAMES = [
    *SCIPY,
    *("chebyshev_polynomial_v", "chebyshev_polynomial_w"),
    *("shifted_chebyshev_polynomial_v", "shifted_chebyshev_polynomial_w"),
]
INSIDE = np.random.default_rng(0).uniform(0.05, 0.95, 50)
ENDS = [0.0, 1.0, -1.0, 0.5, 1.5, -1.5, 12.0]


@pytest.mark.parametrize("name", SCIPY)
def test_values_are_scipys(name: str) -> None:
    degrees = np.arange(31).reshape(-1, 1)
    wanted = SCIPY[name](degrees, INSIDE)
    found = getattr(pb.special, name)(pb.tensor(INSIDE), pb.tensor(degrees)).numpy()
    scale = np.abs(wanted).max(1, keepdims=True)
    assert np.all(np.abs(found - wanted) <= 1e-12 * scale)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NAMES)
def test_ends_and_odd_degrees_are_pytorchs(name: str, dtype: str) -> None:
    theirs = torch.tensor(ENDS, dtype=getattr(torch, dtype))
    for degree in (-1, 0, 1, 2, 2.7, 9, 30, 600, float("nan")):
        wanted = getattr(torch.special, name)(theirs, degree).numpy()
        found = getattr(pb.special, name)(pb.tensor(ENDS, dtype=getattr(pb, dtype)), degree)
        assert found.dtype.name == dtype
        np.testing.assert_allclose(found.numpy(), wanted, rtol=2e-4 if dtype == "float32" else 1e-10, err_msg=degree)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_comes_of_nothing_and_nan_of_nan(name: str) -> None:
    function = getattr(pb.special, name)
    assert function(pb.zeros(0, 3), 4).shape == (0, 3)
    assert function(pb.tensor(float("nan")), pb.tensor([3, 12])).isnan().tolist() == [True, True]


def test_they_have_no_derivative() -> None:
    x = pb.ones(2, requires_grad=True)
    with pytest.raises(pb.errors.GradientError, match="no derivative"):
        pb.special.legendre_polynomial_p(x, 3).sum().backward()
