"""Activations with randomness, kinds of dropout, and the arguments that are refused."""

import math

import pytest

import pullback as pb
from pullback.errors import ShapeError

F = pb.nn.functional


def test_whole_channels_are_dropped_and_the_rest_scaled() -> None:
    pb.manual_seed(0)
    for function, shape in ((F.dropout1d, (8, 16, 5)), (F.dropout2d, (8, 16, 3, 3)), (F.dropout3d, (8, 16, 2, 2, 2))):
        channels = function(pb.ones(*shape), p=0.25).flatten(2)
        assert (channels.amax(2) == channels.amin(2)).all().item()
        values = sorted(set(channels[:, :, 0].flatten().tolist()))
        assert values == [0.0, pytest.approx(4 / 3)]
        assert 0.6 < (channels[:, :, 0] > 0).float().mean().item() < 0.9
        assert function(pb.ones(*shape), training=False).tolist() == pb.ones(*shape).tolist()


def test_alpha_dropout_keeps_mean_and_variance() -> None:
    pb.manual_seed(0)
    for function, shape in ((F.alpha_dropout, (100_000,)), (F.feature_alpha_dropout, (100, 1000, 1))):
        dropped = function(pb.randn(*shape), p=0.3, training=True)
        assert abs(dropped.mean().item()) < 0.02
        assert abs(dropped.var().item() - 1) < 0.03
    assert F.alpha_dropout(pb.ones(3), training=True, p=1.0).tolist() == [0.0, 0.0, 0.0]


def test_random_slopes_lie_between_their_bounds_and_are_the_gradient() -> None:
    pb.manual_seed(0)
    x = (-pb.ones(1000)).requires_grad_()
    result = F.rrelu(x, 0.1, 0.3, training=True)
    result.sum().backward()
    assert x.grad is not None
    assert (x.grad == -result).all().item()
    assert 0.1 <= x.grad.min().item() < 0.12
    assert 0.28 < x.grad.max().item() <= 0.3


def test_gumbel_samples_follow_the_probabilities_and_hard_ones_have_the_soft_gradient() -> None:
    pb.manual_seed(0)
    logits = pb.tensor([0.2, 0.3, 0.5]).log().expand(4000, 3)
    hard = F.gumbel_softmax(logits, hard=True)
    assert (hard.sum(1) - 1).abs().max().item() < 1e-6
    for share, p in zip(hard.mean(0).tolist(), (0.2, 0.3, 0.5), strict=True):
        assert abs(share - p) < 4 * math.sqrt(p * (1 - p) / 4000)
    x = pb.randn(2, 3).requires_grad_()
    (F.gumbel_softmax(x, hard=True)[:, 0]).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum().item() > 0


def test_in_place_activations_write_their_input() -> None:
    for function in (F.elu_, F.selu_, F.celu_, F.hardtanh_, F.leaky_relu_, F.relu_, F.rrelu_):
        x = pb.tensor([-2.0, 0.5, 3.0])
        expected = function.func(x.clone()).tolist()
        assert function(x) is x
        assert x.tolist() == expected


@pytest.mark.parametrize(
    "call",
    [
        lambda x: F.hardtanh(x, 1.0, -1.0),
        lambda x: F.softshrink(x, -1.0),
        lambda x: F.rrelu(x, 0.5, 0.1),
        lambda x: F.dropout2d(x, 1.5),
        lambda x: F.gumbel_softmax(x, eps=1e-3),
        lambda x: pb.nn.Hardtanh(1.0, 1.0),
    ],
)
def test_options_that_make_no_sense_are_refused(call) -> None:
    with pytest.raises(ValueError):
        call(pb.ones(2, 4))


def test_shapes_that_do_not_fit_are_refused() -> None:
    for call in (
        lambda: F.glu(pb.ones(3)),
        lambda: F.prelu(pb.ones(2, 3), pb.ones(2)),
        lambda: F.dropout2d(pb.ones(3)),
    ):
        with pytest.raises(ShapeError):
            call()


def test_an_axis_that_is_not_named_is_chosen_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="dim is chosen"):
        assert F.softmax(pb.zeros(2, 4)).tolist() == [[0.25] * 4] * 2
