"""Batch normalization made part of the layer before it: the same outputs as of both."""

import numpy as np
import pytest

import pullback as pb

nn = pb.nn
PAIRS = {
    "convolution": (lambda: nn.Conv2d(4, 6, 3, bias=False), lambda: nn.BatchNorm2d(6), (2, 4, 5, 5)),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 3), lambda: nn.BatchNorm2d(6, affine=False), (2, 4, 5, 5)),
    "linear": (lambda: nn.Linear(4, 6), lambda: nn.BatchNorm1d(6), (3, 4)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_the_fused_layer_gives_what_both_give(name: str) -> None:
    pb.manual_seed(0)
    layer, norm, shape = PAIRS[name][0](), PAIRS[name][1](), PAIRS[name][2]
    both = nn.Sequential(layer, norm).double()
    both(pb.randn(*shape, dtype=pb.float64) * 3 + 1)
    utils = nn.utils
    with pytest.raises(ValueError, match="must be in evaluation"):
        utils.fuse_conv_bn_eval(layer, norm)
    both.eval()
    x = pb.randn(*shape, dtype=pb.float64)
    if name == "linear":
        fused = utils.fuse_linear_bn_eval(layer, norm)
    else:
        fused = utils.fuse_conv_bn_eval(layer, norm, transpose=name == "transposed")
    np.testing.assert_allclose(fused(x).detach().numpy(), both(x).detach().numpy(), rtol=1e-10, atol=1e-12)
    assert fused.weight is not layer.weight
    assert fused.weight.requires_grad


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="linear has 3 outputs, the normalization 4"):
        nn.utils.fuse_linear_bn_eval(nn.Linear(2, 3).eval(), nn.BatchNorm1d(4).eval())
    with pytest.raises(ValueError, match="keeps no running statistics"):
        nn.utils.fuse_conv_bn_eval(nn.Conv1d(2, 3, 1).eval(), nn.BatchNorm1d(3, track_running_stats=False).eval())
