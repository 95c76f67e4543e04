"""Corners in which an obvious implementation goes wrong, held to PyTorch's answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import pullback as pb

LIBRARIES = (pb, torch)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_numbers_meet_numbers_in_small_floats(dtype: str) -> None:
    found = []
    for f in LIBRARIES:
        y = f.ones(2, dtype=getattr(f, dtype)).requires_grad_()
        (0.3 * (0.5 * y.sum())).backward()
        x = f.tensor([0.01, 0.1, 0.5]).to(getattr(f, dtype)).requires_grad_()
        x.pow(2.5).sum().backward()
        found.append([*y.grad.float().tolist(), *x.grad.float().tolist()])
    np.testing.assert_allclose(*found, rtol=2e-2)


def test_integer_powers_are_exact_and_wrap_around() -> None:
    cases = [([7], 20), ([3], 39), ([3], 41), ([2], 64), ([-3], 3), ([0], 0), ([5], 0)]
    for base, exponent in cases:
        ours, theirs = ((f.tensor(base) ** f.tensor([exponent])).tolist() for f in LIBRARIES)
        assert ours == theirs, f"{base} ** {exponent}"
        assert (pb.tensor(base) ** exponent).tolist() == theirs
    for name in ("int8", "uint8", "int32"):
        ours, theirs = ((f.tensor([3, 7, 2], dtype=getattr(f, name)) ** 5).tolist() for f in LIBRARIES)
        assert ours == theirs, name
    negative = [(f.tensor([1, -1, 2, -1]) ** f.tensor([-3, -3, -1, -2])).tolist() for f in LIBRARIES]
    assert negative[0] == negative[1]


def test_an_array_written_to_after_its_use_does_not_change_what_was_computed_from_it() -> None:
    batch, sums = np.zeros(2, np.float32), []
    for i in range(3):
        batch[:] = i
        sums.append(pb.from_numpy(batch).sum())
        sums.append((pb.as_tensor(batch) * 1).sum())
    assert [s.item() for s in sums] == [0, 0, 2, 2, 4, 4]
    foreign = torch.zeros(2)
    taken = pb.from_dlpack(foreign)
    doubled = taken * 2
    foreign.fill_(3.0)
    assert doubled.tolist() == [0.0, 0.0] and (taken * 2).tolist() == [6.0, 6.0]


def test_weights_exchanged_through_data() -> None:
    for f in LIBRARIES:
        p, q = f.zeros(2), f.ones(2)
        p.data, q.data = q.data, p.data
        assert (p.tolist(), q.tolist()) == ([1.0, 1.0], [0.0, 0.0])
        kept = p.data
        p.data = f.full((2,), 7.0)
        assert kept.tolist() == [1.0, 1.0]
        p.data.add_(1.0)
        assert p.tolist() == [8.0, 8.0]


def test_means_of_many_small_floats() -> None:
    for name in ("float16", "bfloat16"):
        values = [f.full((100000,), 0.8).to(getattr(f, name)) for f in LIBRARIES]
        for method in ("mean", "var", "std"):
            ours, theirs = (getattr(v, method)().float().item() for v in values)
            assert abs(ours - theirs) < 2e-3, (name, method)


def test_clamping_nan() -> None:
    for low, high in ((math.nan, 5.0), (-1.0, math.nan), (-1.0, 2.0), (None, 2.0), (0.5, None)):
        found = []
        for f in LIBRARIES:
            x = f.tensor([-3.0, 0.0, 1.0, 4.0, math.nan]).requires_grad_()
            y = x.clamp(low, high)
            y.sum().backward()
            found.append((y.tolist(), x.grad.tolist()))
        for ours, theirs in zip(*found, strict=True):
            if low == low and high == high:
                np.testing.assert_array_equal(ours, theirs, err_msg=f"clamp({low}, {high})")
        np.testing.assert_array_equal(found[0][0], found[1][0], err_msg=f"clamp({low}, {high})")


def test_gradients_of_extremes_and_norms_at_their_corners() -> None:
    found = []
    for f in LIBRARIES:
        x = f.tensor([1.0, math.nan, 3.0]).requires_grad_()
        x.amax().backward()
        z = f.tensor([[0.0, 0.0], [3.0, 4.0]]).requires_grad_()
        z.norm(3, dim=1).sum().backward()
        found.append((x.grad.tolist(), z.grad.flatten().tolist()))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_an_extreme_along_an_axis_of_one_of_joined_tensors() -> None:
    a = pb.arange(15).float().reshape(5, 3)
    found = pb.cat([a * 2, a * 3], 0)[:, None].max(1)[0]
    np.testing.assert_array_equal(found.numpy(), np.concatenate([a.numpy() * 2, a.numpy() * 3]))


def test_norms_of_negative_order_do_not_change_with_the_elements_beside_a_zero() -> None:
    values = [[0.5, 0.0, 2.0], [0.0, 0.0, 0.0], [0.5, 1.0, -2.0]]
    for order in (-1, -2.5):
        found = []
        for f in LIBRARIES:
            x = f.tensor(values, dtype=f.float64, requires_grad=True)
            f.linalg.vector_norm(x, order, dim=1).sum().backward()
            found.append(x.grad.tolist())
        np.testing.assert_allclose(*found, rtol=1e-12)


def test_norms_of_an_order_below_one_have_gradients_where_an_element_is_zero() -> None:
    functional = [f.nn.functional for f in LIBRARIES]
    for order in (0.5, -1.5):
        found = []
        for f, nn in zip(LIBRARIES, functional, strict=True):
            x = f.tensor([[1.0, 0.0, 2.0], [0.5, 3.0, -1.0]], dtype=f.float64, requires_grad=True)
            y = x.norm(order, 1) + x.norm(order) + nn.normalize(x, order).sum(1)
            y = y + (nn.pairwise_distance(x, x.detach() * 2 + 1, order) if order > 0 else 0)
            y.sum().backward()
            found.append([*y.tolist(), *x.grad.flatten().tolist()])
        np.testing.assert_allclose(*found, rtol=1e-12)


def test_covariance_of_small_floats_is_weighed_in_the_weights_type() -> None:
    x, weights = np.random.default_rng(0).normal(size=(3, 4)) * 5, np.array([0.3, 0.7, 0.2, 0.9], np.float32)
    found = [f.tensor(x).to(f.bfloat16).cov(aweights=f.tensor(weights)).numpy() for f in LIBRARIES]
    np.testing.assert_allclose(*found, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_neighbours_of_all_16_bit_floats(dtype):
    bits = np.arange(2**16, dtype=np.uint16).view(np.int16)
    ours, theirs = (lib.tensor(bits).view(getattr(lib, dtype)) for lib in (pb, torch))
    for end in (math.inf, -math.inf, 0.0, 1.0, math.nan):
        found, wanted = (lib.nextafter(x, lib.full_like(x, end)) for lib, x in ((pb, ours), (torch, theirs)))
        is_nan = wanted.isnan().numpy()
        assert np.array_equal(found.isnan().numpy(), is_nan)
        assert np.array_equal(found.view(pb.int16).numpy()[~is_nan], wanted.view(torch.int16).numpy()[~is_nan])
    x = pb.ones(2, 1, dtype=getattr(pb, dtype), requires_grad=True)
    pb.nextafter(x, pb.zeros(3, dtype=x.dtype)).sum().backward()
    assert x.grad.tolist() == [[3.0], [3.0]]


@pytest.mark.parametrize("values", [[1e20, -1e20], [1e-30, 2e-30, -1e-30], [1e20, 1e20]], ids=str)
def test_deviations_of_floats_of_any_size(values):
    def told(lib):
        x = lib.tensor(values, requires_grad=True)
        x.std(correction=0).backward()
        return [x.std().item(), x.std(unbiased=False).item(), lib.std_mean(x)[0].item(), *x.grad.tolist()]

    np.testing.assert_allclose(told(pb), told(torch), rtol=1e-6)


def test_the_median_along_an_axis_of_an_expanded_tensor_is_the_median():
    x = pb.tensor([3.0, 1.0, 2.0]).expand(2, 3)
    assert x.median(1).values.tolist() == [2, 2] and x.median(0).values.tolist() == [3, 1, 2]


@pytest.mark.parametrize(
    "way",
    [
        lambda x: x.detach().detach()[0:1],
        lambda x: x.data[1:],
        lambda x: x.data.view(2, 2)[0],
        lambda x: x.detach()[1:].detach(),
        lambda x: x.detach().view(2, 2).t()[0].data,
        lambda x: x.data.detach().view(-1).data,
        lambda x: x.data.data.detach().unsqueeze(0)[:, ::2],
    ],
)
@pytest.mark.parametrize("leaf", [True, False])
def test_writes_through_views_of_what_was_cut_off_reach_the_source(way, leaf):
    def told(lib):
        x = lib.ones(4, requires_grad=leaf)
        source = x if leaf else lib.ones(4, requires_grad=True) * x
        way(source).fill_(7)
        y = source.detach()
        y.mul_(2)
        return source.tolist(), way(source).tolist(), source.requires_grad

    assert told(pb) == told(torch)
