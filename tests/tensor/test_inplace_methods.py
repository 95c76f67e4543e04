"""Every in-place method gives what PyTorch's of that name gives, keeps the dtype, and passes gradients through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import pullback as pb

X = np.array([[0.25, 1.5, 3.0], [0.5, 2.0, 0.125]], np.float32)
Y = np.array([[2.0, -1.0, 0.5], [4.0, 1.0, -3.0]], np.float32)
CALLS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "add_": lambda f, x, y: x.add_(y, alpha=2),
    "sub_": lambda f, x, y: x.sub_(y, alpha=0.5),
    "mul_": lambda f, x, y: x.mul_(y),
    "div_": lambda f, x, y: x.div_(y),
    "pow_": lambda f, x, y: x.pow_(2.5),
    "neg_": lambda f, x, y: x.neg_(),
    "sqrt_": lambda f, x, y: x.sqrt_(),
    "exp_": lambda f, x, y: x.exp_(),
    "relu_": lambda f, x, y: (x - 1.0).relu_(),
    "clamp_": lambda f, x, y: x.clamp_(0.3, 1.7),
    "masked_fill_": lambda f, x, y: x.masked_fill_(y > 0, -7.0),
    "lerp_": lambda f, x, y: x.lerp_(y, 0.3),
    "addcmul_": lambda f, x, y: x.addcmul_(y, y, value=0.1),
    "addcdiv_": lambda f, x, y: x.addcdiv_(y + 5, y, value=2.0),
    "copy_": lambda f, x, y: x.copy_(y[0]),
    "fill_": lambda f, x, y: x.fill_(3.0),
    "zero_": lambda f, x, y: x.zero_(),
    "cumsum_": lambda f, x, y: x.cumsum_(1),
    "cumprod_": lambda f, x, y: x.cumprod_(0),
    "renorm_": lambda f, x, y: x.renorm_(2.0, 0, 1.5),
    "conj_physical_": lambda f, x, y: x.conj_physical_(),
    "+=": lambda f, x, y: x.__iadd__(y),
    "-=": lambda f, x, y: x.__isub__(y),
    "*=": lambda f, x, y: x.__imul__(3),
    "/=": lambda f, x, y: x.__itruediv__(y),
    "**=": lambda f, x, y: x.__ipow__(2),
}


def run(library: Any, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    leaf = library.tensor(X).requires_grad_()
    other = library.tensor(Y).requires_grad_()
    x = leaf * 1.0
    result = CALLS[name](library, x, other)
    (result * result).sum().backward()
    gradients = [np.zeros_like(X) if t.grad is None else np.array(t.grad.detach().numpy()) for t in (leaf, other)]
    return np.array(result.detach().numpy()), *gradients


@pytest.mark.parametrize("name", CALLS)
def test_in_place_methods_are_pytorchs(name: str) -> None:
    for ours, theirs in zip(run(pb, name), run(torch, name), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("name", CALLS)
def test_in_place_methods_return_and_change_the_tensor_itself(name: str) -> None:
    x = pb.tensor(X)
    result = CALLS[name](pb, x, pb.tensor(Y))
    if name != "relu_":
        assert result is x
    assert result.shape == (2, 3) and result.dtype is pb.float32


def test_random_in_place_methods() -> None:
    pb.manual_seed(0)
    uniform, normal, coin = (
        pb.empty(20000).uniform_(2, 4),
        pb.empty(20000).normal_(1, 2),
        pb.empty(20000).bernoulli_(0.3),
    )
    assert uniform.min().item() >= 2 and uniform.max().item() < 4 and abs(uniform.mean().item() - 3) < 0.02
    assert abs(normal.mean().item() - 1) < 0.05 and abs(normal.std().item() - 2) < 0.05
    assert set(coin.tolist()) == {0.0, 1.0}
    assert abs(coin.mean().item() - 0.3) < 0.02


def test_an_integer_tensor_refuses_a_float_result() -> None:
    with pytest.raises(pb.errors.DTypeError, match="cannot turn int64 into float32"):
        pb.arange(3).add_(0.5)


def _overwritten(f):
    writes = [
        lambda y: y.__setitem__(slice(None), 2.0),
        lambda y: y.__setitem__(..., f.ones(3)),
        lambda y: y.view(-1).__setitem__(slice(None), 2),
        lambda y: y.T.__setitem__((slice(None), slice(None)), 3),
        lambda y: y.__setitem__(f.ones(3, 3) > 0, 2),
        lambda y: y.index_put_((f.arange(3),), f.ones(3, 3)),
        lambda y: y.eq_(2),
        lambda y: y.copy_(f.ones(3)),
    ]
    for write in writes:
        a = f.ones(3, 3, requires_grad=True)
        y = a * 1
        write(y)
        y.sum().backward()
        yield a.grad.tolist()


def test_what_is_overwritten_as_a_whole_keeps_a_history_with_a_gradient_of_zero():
    assert list(_overwritten(pb)) == list(_overwritten(torch))


@pytest.mark.parametrize("compiled", [False, True])
def test_what_is_taken_over_without_gradients_has_no_history(compiled: bool) -> None:
    """State that is carried from step to step: a history would be gone through again by the next one."""
    weight, state, whole, part = pb.ones(3, requires_grad=True), pb.zeros(3), pb.zeros(3), pb.zeros(2, 3)

    def step() -> None:
        made = weight * (2 + state)
        made.sum().backward()
        with pb.no_grad():
            state.copy_(made)
            whole[:] = made
            part[1] = made

    run = pb.compile(step) if compiled else step
    for _ in range(3):
        run()
    assert not any(tensor.requires_grad for tensor in (state, whole, part))
    assert state.tolist() == whole.tolist() == part[1].tolist() == [6.0] * 3
