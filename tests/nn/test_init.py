"""How parameters start: PyTorch's distributions."""

import math

import numpy as np
import pytest
import torch

import pullback as pb
from pullback.errors import ShapeError

init = pb.nn.init
SHAPE = (200, 150)


def moments(values: np.ndarray) -> list[float]:
    return [values.mean(), values.std(), np.abs(values).max()]


FILLS = {
    "uniform_": lambda i, t: i.uniform_(t, -2.0, 1.0),
    "normal_": lambda i, t: i.normal_(t, 1.0, 0.5),
    "trunc_normal_": lambda i, t: i.trunc_normal_(t, 0.1, 1.0, -0.5, 1.5),
    "xavier_uniform_": lambda i, t: i.xavier_uniform_(t, 2.0),
    "xavier_normal_": lambda i, t: i.xavier_normal_(t),
    "kaiming_uniform_": lambda i, t: i.kaiming_uniform_(t, a=math.sqrt(5)),
    "kaiming_normal_": lambda i, t: i.kaiming_normal_(t, mode="fan_out", nonlinearity="relu"),
}


@pytest.mark.parametrize("name", FILLS)
def test_distributions(name: str) -> None:
    pb.manual_seed(0)
    torch.manual_seed(0)
    ours = FILLS[name](init, pb.zeros(*SHAPE)).numpy()
    theirs = FILLS[name](torch.nn.init, torch.zeros(*SHAPE)).numpy()
    quantiles = np.linspace(0.02, 0.98, 25)
    spread = theirs.std()
    np.testing.assert_allclose(np.quantile(ours, quantiles), np.quantile(theirs, quantiles), atol=0.05 * spread)
    assert len(np.unique(ours)) > 0.95 * ours.size or name == "uniform_"


@pytest.mark.parametrize("name", ["linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"])
def test_gains(name: str) -> None:
    assert init.calculate_gain(name) == torch.nn.init.calculate_gain(name)
    assert init.calculate_gain("leaky_relu", 0.3) == torch.nn.init.calculate_gain("leaky_relu", 0.3)


def test_constants() -> None:
    w = pb.nn.Parameter(pb.zeros(2, 3))
    assert init.ones_(w) is w
    assert w.tolist() == [[1.0] * 3] * 2
    assert init.eye_(w).tolist() == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    assert init.constant_(w, 2.5).tolist() == [[2.5] * 3] * 2
    assert w.requires_grad


@pytest.mark.parametrize("shape", [(4, 3, 5), (4, 2, 3, 4), (6, 3, 2, 3, 1)])
@pytest.mark.parametrize("groups", [1, 2])
def test_dirac_is_pytorchs(shape: tuple[int, ...], groups: int) -> None:
    ours, theirs = pb.nn.Parameter(pb.ones(shape)), torch.ones(shape)
    assert init.dirac_(ours, groups) is ours
    np.testing.assert_array_equal(ours.detach().numpy(), torch.nn.init.dirac_(theirs, groups).numpy())


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 2, 3), (1, 1)])
def test_orthogonal_rows_or_columns(shape: tuple[int, ...]) -> None:
    pb.manual_seed(1)
    matrix = init.orthogonal_(pb.zeros(shape, dtype=pb.float64), gain=2.0).numpy().reshape(shape[0], -1)
    product = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(product, 4 * np.eye(min(matrix.shape)), atol=1e-12)
    assert init.orthogonal_(pb.zeros(0, 3)).shape == (0, 3)


def test_orthogonal_matrices_are_drawn_evenly() -> None:
    """Householder's QR by itself gives a fixed sign of the diagonal of R: the mean would not be 0."""
    pb.manual_seed(2)
    draws = np.stack([init.orthogonal_(pb.empty(3, 3)).numpy() for _ in range(300)])
    assert np.abs(draws.mean(0)).max() < 0.15


def test_sparse_columns_have_as_many_zeros_as_asked() -> None:
    pb.manual_seed(3)
    matrix = init.sparse_(pb.empty(50, 7), 0.33, std=0.5).numpy()
    assert ((matrix == 0).sum(0) == math.ceil(0.33 * 50)).all()
    assert len({tuple(np.flatnonzero(column == 0)) for column in matrix.T}) == 7
    assert matrix[matrix != 0].std() == pytest.approx(0.5, rel=0.15)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"3, 4 or 5 axes, got shape \[2, 2\]"):
        init.dirac_(pb.ones(2, 2))
    with pytest.raises(ValueError, match="4 outputs are no multiple of groups 3"):
        init.dirac_(pb.ones(4, 2, 2), 3)
    with pytest.raises(ShapeError, match="at least 2 axes"):
        init.orthogonal_(pb.ones(3))
    with pytest.raises(ShapeError, match="takes a matrix"):
        init.sparse_(pb.ones(3), 0.5)
    with pytest.raises(ValueError, match="negative_slope True"):
        init.calculate_gain("leaky_relu", True)


def test_fans_need_two_axes() -> None:
    with pytest.raises(ShapeError, match=r"shape \[3\]"):
        init.kaiming_uniform_(pb.zeros(3))


def test_layers_start_as_pytorch() -> None:
    pb.manual_seed(3)
    for ours, theirs in [
        (pb.nn.Linear(300, 100), torch.nn.Linear(300, 100)),
        (pb.nn.Embedding(200, 50), torch.nn.Embedding(200, 50)),
        (pb.nn.LayerNorm(10), torch.nn.LayerNorm(10)),
    ]:
        expected = theirs.state_dict()
        for name, value in ours.state_dict().items():
            got, want = moments(value.numpy()), moments(expected[name].numpy())
            np.testing.assert_allclose(got[:2], want[:2], atol=0.15 * want[1] + 1e-3, err_msg=name)
    assert pb.nn.Embedding(4, 2, padding_idx=1).weight[1].tolist() == [0.0, 0.0]
