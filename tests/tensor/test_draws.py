"""Draws from distributions: their moments, what they refuse, and that compiled steps and gradients have them."""

import math

import numpy as np
import pytest

import pullback as pb
from pullback.errors import DomainError

COUNT = 20_000


def drawn(values):
    return np.array(values.tolist(), np.float64)


@pytest.mark.parametrize(
    ("draw", "mean", "deviation"),
    [
        (lambda g: pb.normal(1.0, 2.0, (COUNT,), generator=g), 1.0, 2.0),
        (lambda g: pb.normal(pb.full((COUNT,), 3.0), 0.5, generator=g), 3.0, 0.5),
        (lambda g: pb.normal(-1.0, pb.full((COUNT,), 3.0), generator=g), -1.0, 3.0),
        (lambda g: pb.bernoulli(pb.full((COUNT,), 0.25), generator=g), 0.25, math.sqrt(0.1875)),
        (lambda g: pb.zeros(COUNT, dtype=pb.int64).bernoulli(0.25, generator=g), 0.25, math.sqrt(0.1875)),
        (lambda g: pb.zeros(COUNT).bernoulli_(pb.tensor(0.25), generator=g), 0.25, math.sqrt(0.1875)),
        (lambda g: pb.poisson(pb.full((COUNT,), 3.5), g), 3.5, math.sqrt(3.5)),
        (lambda g: pb.poisson(pb.full((COUNT,), 400.0, dtype=pb.float64), g), 400.0, 20.0),
        (lambda g: pb.binomial(pb.full((COUNT,), 10.0), pb.tensor(0.3), g), 3.0, math.sqrt(2.1)),
        (lambda g: pb.zeros(COUNT).exponential_(2.0, generator=g), 0.5, 0.5),
        (lambda g: pb.zeros(COUNT).log_normal_(0.0, 0.5, generator=g), math.exp(0.125), 0.6039),
        (lambda g: pb.zeros(COUNT).geometric_(0.25, generator=g), 4.0, math.sqrt(12)),
        (lambda g: pb.zeros(COUNT, dtype=pb.int32).geometric_(0.25, generator=g), 4.0, math.sqrt(12)),
        (lambda g: pb.zeros(COUNT).random_(7, generator=g), 3.0, 2.0),
        (lambda g: pb.zeros(COUNT, dtype=pb.int8).random_(-3, 4, generator=g), 0.0, 2.0),
        (lambda g: pb.zeros(COUNT).cauchy_(1.0, 2.0, generator=g).sub(1).div(2).atan(), 0.0, math.pi / math.sqrt(12)),
        (lambda g: pb.zeros(COUNT).uniform_(2.0, to=4.0, generator=g), 3.0, 1 / math.sqrt(3)),
    ],
)
def test_moments(draw, mean, deviation):
    values, again = (drawn(draw(pb.Generator(3))) for _ in range(2))
    assert values.shape == (COUNT,) and (values == again).all()
    error = 5 * deviation / math.sqrt(COUNT)
    assert values.mean() == pytest.approx(mean, abs=error)
    assert values.std() == pytest.approx(deviation, rel=0.06)


def test_places_are_drawn_in_proportion_to_their_weights():
    weights = pb.tensor([0.0, 1.0, 3.0, 0.0, 4.0, 0.0])
    counts = drawn(pb.multinomial(weights, COUNT, replacement=True, generator=pb.Generator(1)).bincount(minlength=6))
    assert counts[[0, 3, 5]].tolist() == [0, 0, 0]
    assert counts[[1, 2, 4]] / COUNT == pytest.approx([0.125, 0.375, 0.5], abs=0.02)
    rows = weights.expand(COUNT, 6).multinomial(2, generator=pb.Generator(2))
    firsts = np.bincount(rows.numpy()[:, 0], minlength=6)
    assert firsts[[1, 2, 4]] / COUNT == pytest.approx([0.125, 0.375, 0.5], abs=0.02)
    assert (rows[:, 0] != rows[:, 1]).all() and not (rows == 0).any()


def test_numbers_of_full_range():
    wide = pb.zeros(2000, dtype=pb.int64).random_(generator=pb.Generator(4)).numpy()
    assert wide.min() >= 0 and wide.max() > 2**62
    both = pb.randint(-(2**62), 2**62, (2000,), generator=pb.Generator(4)).numpy()
    assert both.min() < -(2**61) and both.max() > 2**61
    assert set(pb.zeros(500, dtype=pb.bool).random_(generator=pb.Generator(4)).tolist()) == {False, True}
    floats = pb.zeros(500).random_(generator=pb.Generator(4))
    assert floats.max().item() <= 2**24 and (floats == floats.round()).all()


@pytest.mark.parametrize(
    "draw",
    [
        lambda: pb.bernoulli(pb.tensor([0.5, 1.5])),
        lambda: pb.bernoulli(pb.tensor([math.nan])),
        lambda: pb.poisson(pb.tensor([-1.0])),
        lambda: pb.normal(pb.zeros(2), pb.tensor([1.0, -1.0])),
        lambda: pb.binomial(pb.tensor([-1.0]), pb.tensor(0.5)),
        lambda: pb.multinomial(pb.tensor([0.0, 0.0]), 1, True),
        lambda: pb.multinomial(pb.tensor([0.0, 1.0]), 2),
        lambda: pb.multinomial(pb.tensor([math.inf, 1.0]), 1),
        lambda: pb.multinomial(pb.tensor([-1.0, 1.0]), 1),
        lambda: pb.normal(0.0, -1.0, (2,)),
        lambda: pb.zeros(2).exponential_(0.0),
        lambda: pb.zeros(2).geometric_(1.0),
        lambda: pb.zeros(2).normal_(0, -1),
        lambda: pb.zeros(2).cauchy_(0, 0),
        lambda: pb.zeros(2).bernoulli_(2.0),
    ],
)
def test_parameters_outside_of_what_there_is_are_refused(draw):
    with pytest.raises(DomainError):
        draw().numpy()


@pytest.mark.parametrize(
    ("draw", "error"),
    [
        (lambda: pb.poisson(pb.tensor([1])), TypeError),
        (lambda: pb.normal(pb.zeros(2), 1.0, (2,)), TypeError),
        (lambda: pb.normal(0.0, 1.0), TypeError),
        (lambda: pb.multinomial(pb.ones(2, 2, 2), 1), RuntimeError),
        (lambda: pb.multinomial(pb.ones(3), 4), ValueError),
        (lambda: pb.zeros(2).random_(3, 3), ValueError),
        (lambda: pb.zeros(2).uniform_(1.0, 0.0), ValueError),
        (lambda: pb.zeros(2, dtype=pb.int64).exponential_(), TypeError),
        (lambda: pb.randperm(-1), ValueError),
    ],
)
def test_what_is_no_draw_at_all(draw, error):
    with pytest.raises(error):
        draw()


def test_compiled_steps_draw_anew_and_repeat_from_a_seed():
    @pb.compile
    def step(rate):
        return [
            *(pb.randperm(20), pb.multinomial(rate, 3), pb.poisson(rate * 50), pb.normal(rate, rate)),
            *(pb.empty(8).exponential_(), pb.bernoulli(pb.full((32,), 0.5))),
        ]

    rate = pb.tensor([1.0, 2.0, 3.0, 4.0])
    runs = []
    for _ in range(2):
        pb.manual_seed(5)
        runs.append([[value.tolist() for value in step(rate)] for _ in range(2)])
    assert runs[0] == runs[1]
    assert runs[0][0] != runs[0][1]


def test_gradients_of_draws_are_zero_as_in_pytorch():
    rate = pb.tensor([1.0, 2.0], requires_grad=True)
    loss = pb.poisson(rate).sum() + pb.normal(rate, rate).sum() + pb.bernoulli(rate / 4).sum()
    (loss + (rate * 1).exponential_().sum()).backward()
    assert rate.grad.tolist() == [0.0, 0.0]
