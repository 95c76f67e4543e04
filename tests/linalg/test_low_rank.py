"""Random projections find matrices of low rank; what PyTorch's database does not ask of them."""

import numpy as np
import pytest

import pullback as pb
from pullback.errors import DomainError


def test_few_components_are_found_in_a_large_matrix() -> None:
    random = np.random.default_rng(0)
    A = pb.tensor(random.standard_normal((60, 3)) @ random.standard_normal((3, 90)))
    U, S, V = pb.svd_lowrank(A, q=5)
    assert U.shape == (60, 5) and S.shape == (5,) and V.shape == (90, 5)
    np.testing.assert_allclose((U * S @ V.mT).numpy(), A.numpy(), atol=1e-10)
    U, S, V = pb.pca_lowrank(A, q=3)
    np.testing.assert_allclose((U * S @ V.mT).numpy(), (A - A.mean(0)).numpy(), atol=1e-10)


def test_what_is_subtracted_is_broadcast() -> None:
    A, M = pb.randn(6, 4, dtype=pb.float64), pb.randn(1, 4, dtype=pb.float64)
    U, S, V = pb.svd_lowrank(A, q=4, M=M)
    np.testing.assert_allclose((U * S @ V.mT).numpy(), (A - M).numpy(), atol=1e-10)


@pytest.mark.parametrize("options", [{"q": 5}, {"q": -1}, {"q": 2, "niter": -1}])
def test_more_components_than_there_are_and_fewer_than_none_are_refused(options) -> None:
    with pytest.raises(ValueError):
        pb.svd_lowrank(pb.randn(4, 6), **options)
    with pytest.raises(ValueError):
        pb.pca_lowrank(pb.randn(4, 6), **options)


@pytest.mark.parametrize("weights", [{"fweights": pb.tensor([1, -1])}, {"aweights": pb.tensor([1.0, -1.0])}])
def test_a_covariance_of_negative_weights_is_refused(weights) -> None:
    with pytest.raises(DomainError, match="cannot be negative"):
        pb.randn(2, 2).cov(**weights).numpy()
