"""Clipping of gradients and parameters as one vector, against PyTorch."""

import math

import numpy as np
import pytest
import torch

import pullback as pb
from pullback.errors import GradientError, ShapeError

GRADIENTS = [np.array([[3.0, -4.0]], np.float32), np.array([0.5, 12.0, -1.0], np.float32)]


def parameters(library, gradients=GRADIENTS):
    made = []
    for g in gradients:
        p = library.nn.Parameter(library.zeros(g.shape))
        p.grad = library.tensor(g)
        made.append(p)
    return [*made, library.nn.Parameter(library.zeros(2))]


@pytest.mark.parametrize("norm_type", [2.0, 1.0, 3.0, math.inf, -math.inf, 0.0, -1.0])
@pytest.mark.parametrize("limit", [1.0, 100.0])
def test_clipping_by_the_norm(norm_type: float, limit: float) -> None:
    ours, theirs = parameters(pb), parameters(torch)
    total = pb.nn.utils.clip_grad_norm_(ours, limit, norm_type)
    assert total.item() == pytest.approx(torch.nn.utils.clip_grad_norm_(theirs, limit, norm_type).item(), rel=1e-6)
    for p, q in zip(ours[:2], theirs[:2], strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-6)
    assert ours[2].grad is None


def test_clipping_a_norm_that_is_not_finite() -> None:
    bad = [np.array([math.nan, 1.0], np.float32)]
    with pytest.raises(GradientError, match="norm of the gradients is nan"):
        pb.nn.utils.clip_grad_norm_(parameters(pb, bad), 1.0, error_if_nonfinite=True)
    ours = parameters(pb, bad)
    assert math.isnan(pb.nn.utils.clip_grad_norm_(ours, 1.0).item())
    assert all(map(math.isnan, ours[0].grad.tolist()))


def test_a_compiled_step_asks_for_a_finite_norm() -> None:
    w = pb.ones(2, requires_grad=True)

    @pb.compile
    def step(x: pb.Tensor) -> pb.Tensor:
        w.grad = None
        (w * x).sqrt().sum().backward()
        return pb.nn.utils.clip_grad_norm_([w], 1.0, error_if_nonfinite=True)

    assert step(pb.ones(2)).item() == pytest.approx(0.5**0.5)
    with pytest.raises(pb.errors.NonFiniteError, match="the norm of the gradients is not finite") as caught:
        step(pb.zeros(2))
    assert (caught.value.op, caught.value.phase) == ("sqrt", "backward")


@pytest.mark.parametrize("norm_type", [2.0, 1, math.inf, 0])
@pytest.mark.parametrize("foreach", [None, True, False])
def test_a_norm_found_before_clips_as_in_one_call(norm_type: float, foreach: bool | None) -> None:
    ours, theirs = parameters(pb), parameters(torch)
    norms = []
    for library, listed in ((pb, ours), (torch, theirs)):
        gradients = [p.grad for p in listed if p.grad is not None]
        norms.append(library.nn.utils.get_total_norm(gradients, norm_type, foreach=foreach))
        library.nn.utils.clip_grads_with_norm_(listed, 1.5, norms[-1], foreach=foreach)
    assert norms[0].item() == pytest.approx(norms[1].item(), rel=1e-6)
    for p, q in zip(ours[:2], theirs[:2], strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-6)
    with pytest.raises(TypeError, match="foreach must be None or a bool"):
        pb.nn.utils.clip_grad_value_(ours, 1.0, foreach="yes")


def test_the_norm_of_no_tensors_is_zero_and_of_empty_ones_too() -> None:
    assert pb.nn.utils.get_total_norm([]).item() == 0.0
    for norm_type in (1.0, 2.0):
        assert pb.nn.utils.get_total_norm(pb.zeros(0), norm_type).item() == 0.0
    for norm_type in (math.inf, -math.inf, -1.0):
        with pytest.raises(ShapeError, match="of a tensor without elements is not defined"):
            pb.nn.utils.get_total_norm([pb.ones(3), pb.zeros(0)], norm_type)


def test_clipping_nothing() -> None:
    assert pb.nn.utils.clip_grad_norm_([pb.nn.Parameter(pb.zeros(2))], 1.0).item() == 0.0


def test_clipping_by_value() -> None:
    ours = parameters(pb)
    pb.nn.utils.clip_grad_value_(ours, 1.0)
    assert ours[1].grad.tolist() == [0.5, 1.0, -1.0]


def test_vectors() -> None:
    ours = parameters(pb)
    vector = pb.arange(7).float()
    pb.nn.utils.vector_to_parameters(vector, ours)
    assert ours[1].tolist() == [2.0, 3.0, 4.0]
    assert pb.nn.utils.parameters_to_vector(ours).tolist() == vector.tolist()
    with pytest.raises(ShapeError, match=r"have 7 elements, the vector's shape is \[6\]"):
        pb.nn.utils.vector_to_parameters(vector[:6], ours)
