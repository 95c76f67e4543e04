"""grad, vjp and jvp against torch.func."""

import numpy as np
import pytest
import torch

import pullback as pb
from pullback.errors import GradientError, ShapeError

func = pb.func
A = np.random.default_rng(0).normal(size=(3, 4))
B = np.random.default_rng(1).normal(size=(4,))


def same(ours, theirs) -> None:
    if isinstance(theirs, (tuple, list)):
        assert isinstance(ours, type(theirs))
        for mine, other in zip(ours, theirs, strict=True):
            same(mine, other)
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key in theirs:
            same(ours[key], theirs[key])
    else:
        assert not ours.requires_grad
        np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), rtol=1e-10)


def both(expression) -> None:
    same(*(expression(library, library.func, library.tensor(A), library.tensor(B)) for library in (pb, torch)))


def energy(x, y):
    return ((x * y).sin() * x).sum()


@pytest.mark.parametrize("argnums", [0, 1, -1, (0, 1), (1,)])
def test_grad(argnums) -> None:
    both(lambda library, f, a, b: f.grad(energy, argnums=argnums)(a, b))


def test_grad_of_grad() -> None:
    both(lambda library, f, a, b: f.grad(lambda y: f.grad(lambda x: (x**3 * y).sum())(a).sin().sum())(b))


def test_grad_of_nested_arguments() -> None:
    both(lambda library, f, a, b: f.grad(lambda p: energy(p["a"], p["rest"][0]))({"a": a, "rest": (b,)}))


def test_value_and_aux() -> None:
    both(lambda library, f, a, b: f.grad_and_value(energy)(a, b))
    both(lambda library, f, a, b: f.grad(lambda x: (energy(x, b), x * 2), has_aux=True)(a))
    value, gradient = func.value_and_grad(energy)(pb.tensor(A), pb.tensor(B))
    same((gradient, value), torch.func.grad_and_value(energy)(torch.tensor(A), torch.tensor(B)))


def test_vjp() -> None:
    def run(library, f, a, b):
        outputs, pull = f.vjp(lambda x, y: {"p": x @ y, "q": (x * y).exp()}, a, b)
        return outputs, pull({"p": outputs["p"] * 2, "q": outputs["q"]})

    both(run)


def test_jvp() -> None:
    both(lambda library, f, a, b: f.jvp(lambda x, y: (x @ y, (x * y).exp()), (a, b), (a * 2, b.sin())))
    both(lambda library, f, a, b: f.jvp(lambda x: library.softmax(x, -1), (a,), (a.cos(),)))


def test_forward_over_reverse_and_the_other_way() -> None:
    both(lambda library, f, a, b: f.jvp(f.grad(lambda x: energy(x, b)), (a,), (a.cos(),)))
    both(lambda library, f, a, b: f.grad(lambda x: f.jvp(lambda z: energy(z, b), (x,), (x.cos(),))[1])(a))


def test_unused_arguments_get_zeros() -> None:
    both(lambda library, f, a, b: f.grad(lambda x, y: x.sum(), argnums=(0, 1))(a, b))
    both(lambda library, f, a, b: f.jvp(lambda x: library.ones(2, dtype=library.float64), (a,), (a,)))


def test_histories_outside_stay_differentiable() -> None:
    x = pb.tensor(2.0, requires_grad=True)
    gradient = func.grad(lambda y: y * y * y)(x)
    assert gradient.requires_grad
    gradient.backward()
    assert x.grad.item() == 12.0
    w = pb.tensor(3.0, requires_grad=True)
    func.grad(lambda y: y * y * w)(pb.tensor(2.0)).backward()
    assert w.grad.item() == 4.0
    with pb.no_grad():
        assert not func.grad(lambda y: y * y)(x).requires_grad


def test_errors() -> None:
    x = pb.ones(3)
    with pytest.raises(ShapeError, match=r"shape \[\], got shape \[3\]"):
        func.grad(lambda x: x * 2)(x)
    with pytest.raises(GradientError, match="got int64"):
        func.grad(lambda x: x.sum())(pb.arange(3))
    with pytest.raises(IndexError, match="argnums 1 is outside the 1 arguments"):
        func.grad(lambda x: x.sum(), argnums=1)(x)
    with pytest.raises(ShapeError, match=r"tangents must be \['float32\[3\]'\], nested alike, got \['float32\[2\]'\]"):
        func.jvp(lambda x: x, (x,), (pb.ones(2),))
    with pytest.raises(TypeError, match="differentiates by tensors, got float"):
        func.vjp(lambda x: x, 1.0)
