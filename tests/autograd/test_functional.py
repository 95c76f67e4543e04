"""autograd.functional against PyTorch's."""

import numpy as np
import pytest
import torch

import pullback as pb
from pullback.errors import GradientError

X, Y = np.array([[0.5, -1.0, 2.0]]), np.array([1.5, 0.25])
F = {
    "alone": lambda x: x.exp() * x.sum(),
    "pair": lambda x, y: (x.sin() * y.sum(), (y * y) * x.sum()),
    "element": lambda x, y: (x.exp().sum() * y.prod()) + (y**3).sum(),
}
CALLS = {
    "jacobian": lambda f, lib, t: f.jacobian(F["alone"], t(X)),
    "jacobian of a pair": lambda f, lib, t: f.jacobian(F["pair"], (t(X), t(Y))),
    "forward jacobian": lambda f, lib, t: f.jacobian(F["pair"], (t(X), t(Y)), vectorize=True, strategy="forward-mode"),
    "hessian": lambda f, lib, t: f.hessian(F["element"], (t(X), t(Y))),
    "hessian alone": lambda f, lib, t: f.hessian(lambda x: (x**3).sum(), t(X)),
    "vjp": lambda f, lib, t: f.vjp(F["pair"], (t(X), t(Y)), (t(X + 1), t(Y - 1))),
    "vjp alone": lambda f, lib, t: f.vjp(lambda x: x.prod(), t(X)),
    "jvp": lambda f, lib, t: f.jvp(F["pair"], (t(X), t(Y)), (t(X + 1), t(Y - 1))),
    "jvp alone": lambda f, lib, t: f.jvp(F["alone"], t(X), t(X + 1)),
    "hvp": lambda f, lib, t: f.hvp(F["element"], (t(X), t(Y)), (t(X + 1), t(Y - 1))),
    "vhp": lambda f, lib, t: f.vhp(F["element"], (t(X), t(Y)), (t(X + 1), t(Y - 1))),
    "vhp alone": lambda f, lib, t: f.vhp(lambda x: (x**3).sum(), t(X), t(X + 1)),
    "not dependent": lambda f, lib, t: f.jacobian(lambda x, y: x * 2, (t(X), t(Y))),
}


def flat(value):
    return [leaf for v in value for leaf in flat(v)] if isinstance(value, (tuple, list)) else [value]


def nesting(value):
    return tuple(map(nesting, value)) if isinstance(value, (tuple, list)) else tuple(value.shape)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_products_are_pytorchs(call):
    found = call(pb.autograd.functional, pb, pb.tensor)
    wanted = call(torch.autograd.functional, torch, torch.tensor)
    assert nesting(found) == nesting(wanted)
    for a, b in zip(flat(found), flat(wanted), strict=True):
        assert not a.requires_grad
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-10, atol=1e-12)


def test_results_can_be_differentiated():
    x = pb.tensor(X, requires_grad=True)
    pb.autograd.functional.jacobian(F["alone"], x, create_graph=True).sum().backward()
    t = torch.tensor(X, requires_grad=True)
    torch.autograd.functional.jacobian(F["alone"], t, create_graph=True).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), t.grad.numpy(), rtol=1e-10)


@pytest.mark.parametrize(
    "call",
    [
        lambda f, x: f.vjp(lambda x: x * 2, x),
        lambda f, x: f.jvp(lambda x: x * 2, x),
        lambda f, x: f.vjp(lambda x: x * 2, x, pb.ones(2)),
        lambda f, x: f.hessian(lambda x: x * 2, x),
        lambda f, x: f.jacobian(lambda x: pb.ones(2), x, strict=True),
        lambda f, x: f.jacobian(lambda x: x, x, strategy="sideways"),
        lambda f, x: f.jacobian(lambda x: x, 3.0),
    ],
)
def test_what_does_not_fit_is_refused(call):
    with pytest.raises((GradientError, ValueError, TypeError)):
        call(pb.autograd.functional, pb.tensor(X))
