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
