"""Steps made of the transforms of `func`: what they give is a loss and gradients, which have to be finite."""

from collections.abc import Callable
from typing import Any

import pytest

import pullback as pb
from pullback.errors import NonFiniteError

func = pb.func
Step = Callable[[pb.Tensor, pb.Tensor], Any]


def too_large(w: pb.Tensor, x: pb.Tensor) -> pb.Tensor:
    """Infinite in float32, with a finite slope."""
    return ((x * w - 1e19) ** 2).sum()  # fault


def update(w: pb.Tensor, gradient: pb.Tensor) -> None:
    w.sub_(1e-21 * gradient)


def with_grad(w: pb.Tensor, x: pb.Tensor) -> None:
    update(w, func.grad(too_large)(w, x))


def with_value(w: pb.Tensor, x: pb.Tensor) -> pb.Tensor:
    gradient, loss = func.grad_and_value(too_large)(w, x)
    update(w, gradient)
    return loss


def with_vjp(w: pb.Tensor, x: pb.Tensor) -> pb.Tensor:
    loss, pull = func.vjp(lambda w: too_large(w, x), w)
    update(w, pull(pb.ones(()))[0])
    return loss


def of_each_example(w: pb.Tensor, x: pb.Tensor) -> None:
    update(w, func.vmap(func.grad(too_large), in_dims=(None, 0))(w, x).mean(0))


@pytest.mark.parametrize("own", [with_grad, with_value, with_vjp, of_each_example, None])
def test_a_loss_that_is_infinite_changes_nothing_though_its_gradient_is_finite(own: Step | None) -> None:
    w, x = pb.ones(4, requires_grad=own is None), pb.full((8, 4), 3.0)
    optimizer = pb.optim.SGD([w if own is None else pb.ones(4, requires_grad=True)], lr=1e-21)

    def step() -> None:
        if own is None:
            w.grad = func.grad(too_large)(w, x)
            optimizer.step()
        else:
            own(w, x)

    with pytest.raises(NonFiniteError) as caught:
        pb.compile(step)()
    assert (caught.value.phase, caught.value.op) == ("forward", "sum")
    line = too_large.__code__.co_firstlineno + 2
    assert (caught.value.filename, caught.value.lineno) == (__file__, line)
    assert w.tolist() == [1.0] * 4
    skipping = pb.compile(step, on_nonfinite="skip")
    with pytest.warns(UserWarning, match="a step was skipped"):
        skipping()
    assert skipping.skipped == 1 and w.tolist() == [1.0] * 4


def test_a_gradient_that_is_not_finite_is_one_and_no_update() -> None:
    w = pb.zeros(3)

    @pb.compile
    def step() -> None:
        w.sub_(0.1 * func.grad(lambda w: w.sqrt().sum())(w))

    with pytest.raises(NonFiniteError, match="a gradient is not finite") as caught:
        step()
    assert caught.value.phase == "backward" and w.tolist() == [0.0] * 3


def test_what_a_loss_is_made_of_need_not_be_finite() -> None:
    """The value of the inner function is infinite; only its slope goes into the loss."""
    w = pb.ones(4)

    def outer(w: pb.Tensor) -> pb.Tensor:
        return (func.grad(too_large)(w, pb.full((4,), 3.0)) * 1e-20).square().sum()

    @pb.compile
    def step() -> pb.Tensor:
        gradient, loss = func.grad_and_value(outer)(w)
        w.sub_(1e18 * gradient)
        return loss

    assert pb.isfinite(step()) and w.tolist() != [1.0] * 4


def test_gradients_that_nobody_uses_need_not_be_finite() -> None:
    w, other = pb.ones(3), pb.zeros(3)

    @pb.compile
    def step() -> None:
        first, _ = func.grad(lambda w, v: (w * w).sum() + v.sqrt().sum(), argnums=(0, 1))(w, other)
        w.sub_(0.1 * first)

    step()
    assert w.tolist() == pytest.approx([0.8] * 3)


def test_a_scaler_meets_the_overflow_of_a_gradient_of_a_transform() -> None:
    w = pb.ones(4, requires_grad=True)
    optimizer, scaler = pb.optim.SGD([w], lr=0.1), pb.amp.GradScaler("cpu", init_scale=2.0**127)

    @pb.compile
    def step() -> None:
        w.grad = func.grad(lambda w: scaler.scale((w * w * 4).sum()))(w)
        scaler.step(optimizer)
        scaler.update()

    step()
    assert w.tolist() == [1.0] * 4 and scaler.get_scale() == 2.0**126
