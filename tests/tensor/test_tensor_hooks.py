"""Hooks on tensors, against PyTorch's."""

import gc
import weakref

import pytest
import torch

import pullback as pb
from pullback.errors import GradientError, ShapeError


def told(lib):
    """What hooks of leaves and results see, in order, and the gradients that they leave."""
    seen = []
    x = lib.tensor([1.0, 2.0], requires_grad=True)
    y = x * 3
    y.retain_grad()
    z = y * y
    y.register_hook(lambda g: seen.append(("first", g.tolist())))
    y.register_hook(lambda g: g * 2)
    y.register_hook(lambda g: seen.append(("third", g.tolist())))
    x.register_hook(lambda g: seen.append(("leaf", g.tolist())))
    removed = x.register_hook(lambda g: g * 1000)
    removed.remove()
    x.register_post_accumulate_grad_hook(lambda t: seen.append(("added", t is x, t.grad.tolist())))
    (z + x).sum().backward(retain_graph=True)
    kept = y.grad.tolist()  # later PyTorch's autograd.grad adds to it
    (found,) = lib.autograd.grad((z + y).sum(), x, retain_graph=True)
    with lib.no_grad():
        x.mul_(2)  # the hooks of a leaf stay
    (x * x).sum().backward()
    return seen, x.grad.tolist(), kept, found.tolist(), (x.retains_grad, y.retains_grad, z.retains_grad)


def test_hooks_see_and_replace_what_pytorchs_do():
    assert told(pb) == told(torch)


def test_a_hook_may_be_differentiated():
    x = pb.tensor(2.0, requires_grad=True)
    y = x * x
    y.register_hook(lambda g: g * x)
    (first,) = pb.autograd.grad(y, x, create_graph=True)
    assert (first.item(), pb.autograd.grad(first, x)[0].item()) == (8.0, 8.0)


def test_hooks_that_do_not_fit_are_refused():
    x = pb.tensor([1.0, 2.0], requires_grad=True)
    for register in (pb.ones(2).register_hook, (x * 2).register_post_accumulate_grad_hook):
        with pytest.raises(GradientError):
            register(print)
    with pytest.raises(TypeError, match="function"):
        x.register_hook(3)
    handle = x.register_hook(lambda g: g.sum())
    with pytest.raises(ShapeError, match="hook"):
        x.sum().backward()
    handle.remove()
    with x.register_hook(lambda g: 3.0), pytest.raises(TypeError, match=r"3\.0"):
        x.sum().backward()
    x.sum().backward()
    assert x.grad.tolist() == [1.0, 1.0]


def test_a_hook_that_knows_its_tensor_is_collected_with_it():
    def make():
        x = pb.ones(2, requires_grad=True)
        y = x * 2
        x.register_hook(lambda g: g * x)
        y.register_hook(lambda g: g * y)
        y.sum().backward()
        return weakref.ref(x), weakref.ref(y)

    found = make()
    gc.collect()
    assert [r() for r in found] == [None, None]


def test_compiled_steps_have_hooks_and_follow_their_changes():
    weight = pb.ones(2, requires_grad=True)

    @pb.compile
    def step(x):
        weight.grad = None
        hidden = weight * x
        hidden.register_hook(lambda g: g * 10)
        hidden.sum().backward()
        return weight.grad

    x = pb.tensor([1.0, 2.0])
    assert step(x).tolist() == [10.0, 20.0]
    handle = weight.register_hook(lambda g: g + 1)
    assert step(x).tolist() == [11.0, 21.0]
    handle.remove()
    assert step(x).tolist() == [10.0, 20.0]


def test_hooks_of_arguments_of_compiled_steps():
    @pb.compile
    def step(x):
        (x * 3).sum().backward()

    plain, hooked = pb.ones(2, requires_grad=True), pb.ones(2, requires_grad=True)
    step(plain)
    hooked.register_hook(lambda g: g * 2)
    hooked.register_post_accumulate_grad_hook(lambda t: setattr(t, "grad", t.grad + 1))
    step(hooked)
    step(plain)
    assert (plain.grad.tolist(), hooked.grad.tolist()) == ([6.0, 6.0], [7.0, 7.0])


def test_an_optimizer_that_steps_within_backward():
    """The pattern of torchtune's fused optimizers: each parameter is updated when its gradient is there."""

    def trained(lib, compiled=lambda f: f):
        parameters = [lib.tensor([1.0, -2.0], requires_grad=True), lib.tensor([0.5, 3.0], requires_grad=True)]
        optimizers = {id(p): lib.optim.Adam([p], lr=0.1) for p in parameters}

        def update(p):
            optimizers[id(p)].step()
            optimizers[id(p)].zero_grad()

        for p in parameters:
            p.register_post_accumulate_grad_hook(update)

        def step():
            (parameters[0] * parameters[1]).square().sum().backward()

        run = compiled(step)
        for _ in range(4):
            run()
        return [p.tolist() for p in parameters]

    expected = trained(torch)
    for found in (trained(pb), trained(pb, pb.compile)):
        for a, b in zip(found, expected, strict=True):
            assert a == pytest.approx(b, abs=1e-6)
