"""Random numbers: repeatable from a seed, in range, and of the right moments."""

import numpy as np
import pytest

import pullback as pb


def test_one_seed_gives_one_sequence():
    draws = []
    for _ in range(2):
        pb.manual_seed(7)
        draws.append(
            [pb.rand(3).tolist(), pb.randn(3).tolist(), pb.randint(0, 9, (3,)).tolist(), pb.randperm(5).tolist()]
        )
    assert draws[0] == draws[1]
    assert draws[0][0] != pb.rand(3).tolist()
    assert pb.initial_seed() == 7


def test_a_generator_goes_on_from_a_saved_state():
    generator = pb.Generator(3)
    pb.rand(4, generator=generator)
    state = generator.get_state()
    first = pb.rand(4, generator=generator).tolist()
    assert pb.rand(4, generator=generator).tolist() != first
    generator.set_state(state)
    assert pb.rand(4, generator=generator).tolist() == first


def test_generators_do_not_disturb_each_other():
    pb.manual_seed(1)
    wanted = pb.rand(3).tolist()
    pb.manual_seed(1)
    pb.rand(5, generator=pb.Generator(2))
    assert pb.rand(3).tolist() == wanted


@pytest.mark.parametrize("dtype", [pb.float16, pb.bfloat16, pb.float32, pb.float64], ids=lambda d: d.name)
def test_uniform_numbers_are_in_range_with_their_moments(dtype):
    values = np.array(pb.rand(20_000, dtype=dtype, generator=pb.Generator(5)).tolist())
    assert values.min() >= 0.0 and values.max() < 1.0
    assert values.mean() == pytest.approx(0.5, abs=0.02) and values.var() == pytest.approx(1 / 12, abs=0.003)


@pytest.mark.parametrize("dtype", [pb.float32, pb.float64], ids=lambda d: d.name)
def test_normal_numbers_have_their_moments(dtype):
    values = np.array(pb.randn(40_000, dtype=dtype, generator=pb.Generator(6)).tolist())
    moments = [float(np.mean(values**k)) for k in (1, 2, 3, 4)]
    assert moments == pytest.approx([0.0, 1.0, 0.0, 3.0], abs=0.12)
    assert np.isfinite(values).all()


def test_whole_numbers_are_equally_likely():
    values = np.array(pb.randint(-3, 4, (14_000,), generator=pb.Generator(7)).tolist())
    counts = np.bincount(values + 3, minlength=7)
    assert len(counts) == 7 and np.abs(counts - 2000).max() < 200


def test_a_permutation_holds_each_number_once():
    assert sorted(pb.randperm(100, generator=pb.Generator(8)).tolist()) == list(range(100))


def test_draws_like_a_tensor_have_its_shape_and_dtype_and_take_a_generator():
    like = pb.zeros(3, 2, dtype=pb.float64)
    for draw in (pb.rand_like, pb.randn_like, lambda x, **named: pb.randint_like(x, 2, 5, **named)):
        first, again = (draw(like, generator=pb.Generator(4)) for _ in range(2))
        assert (first.shape, first.dtype) == ((3, 2), pb.float64) and first.tolist() == again.tolist()
        assert draw(like, dtype=pb.float32).dtype is pb.float32
    assert set(pb.randint_like(pb.zeros(50), 2).tolist()) == {0.0, 1.0}
