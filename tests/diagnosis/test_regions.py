"""What `detect_anomaly` looks at: all that is recorded inside of it, wherever it is computed, and gradients of scaled
losses as PyTorch has it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

import pullback as pb
from pullback import debug
from pullback.errors import IndexOutOfRange, NonFiniteError

anomaly = pb.autograd.detect_anomaly


@pytest.fixture(autouse=True)
def _on_the_reference() -> Iterable[None]:
    with debug.override(backend="reference"):
        yield


def test_what_is_recorded_inside_is_looked_at_by_the_end() -> None:
    x = pb.zeros(3)
    with pytest.raises(NonFiniteError, match="logarithm of zero") as caught, anomaly():
        y = x.log()
    line = inspect.getsourcelines(test_what_is_recorded_inside_is_looked_at_by_the_end)[1] + 3
    assert (caught.value.filename, caught.value.lineno, caught.value.op) == (__file__, line, "log")
    assert y.tolist() == [-float("inf")] * 3  # nothing is looked at outside


def test_of_a_function_that_it_decorates_the_result_is_looked_at() -> None:
    @anomaly()
    def scores(x: pb.Tensor) -> pb.Tensor:
        return 1 / x

    assert scores(pb.ones(2)).tolist() == [1.0, 1.0]
    with pytest.raises(NonFiniteError, match="division by zero"):
        scores(pb.zeros(2))


def test_switched_off_again_it_looks_at_what_was_recorded_meanwhile() -> None:
    before = pb.zeros(3).log()
    switch = pb.autograd.set_detect_anomaly
    switch(True)
    inside = pb.zeros(3).log()
    with pytest.raises(NonFiniteError, match="logarithm of zero"):
        switch(False)
    assert before.sum().item() == inside.sum().item() == -float("inf")


def test_an_exception_on_its_way_is_the_one_that_is_told() -> None:
    with pytest.raises(KeyError), anomaly():
        y = pb.zeros(3).log()
        raise KeyError
    assert y.shape == (3,)


def test_what_was_told_is_not_told_again() -> None:
    with anomaly():
        y = pb.zeros(3).log()
        with pytest.raises(NonFiniteError):
            y.sum().item()
        x = pb.zeros(3, requires_grad=True)
        loss = x.log().sum()
        with pytest.raises(NonFiniteError):
            loss.backward()
        total = loss.detach() + y.sum()
    assert total.item() == -float("inf")


@pytest.mark.parametrize("read", ["nothing", "result", "backward", "step"])
def test_a_buffer_is_looked_at_whatever_else_is_read(read: str) -> None:
    norm = pb.nn.BatchNorm1d(4, momentum=1e3)  # its own result is finite
    optimizer = pb.optim.Adam(norm.parameters())
    with pytest.raises(NonFiniteError, match="a value is not finite: overflow") as caught, anomaly():
        loss = norm(pb.randn(3, 4) * 5e18).sum()
        if read == "result":
            loss.item()
        if read in ("backward", "step"):
            loss.backward()
        if read == "step":
            optimizer.step()
    assert (caught.value.op, caught.value.module) == ("batch_norm", "BatchNorm1d")


@pytest.mark.parametrize("how", ["result", "buffer", "check"])
def test_a_compiled_function_without_a_backward_pass_is_looked_at_too(how: str) -> None:
    held = pb.zeros(2)

    @pb.compile
    def logarithms(x: Any) -> pb.Tensor:
        if how == "check":
            pb.check_numerics(x, "what is given")
        y = x.log()
        if how == "buffer":
            held.copy_(y)
        return x if how == "buffer" else y + 1

    line = inspect.getsourcelines(test_a_compiled_function_without_a_backward_pass_is_looked_at_too)[1] + 8
    for _ in range(2):
        with anomaly():
            assert logarithms(np.ones(2, np.float32)).sum().item() == 2.0
        with pytest.raises(NonFiniteError, match="logarithm of zero") as caught, anomaly():
            result = logarithms(np.zeros(2, np.float32))
        assert result.shape in ((), (2,)) and (caught.value.op, caught.value.lineno) == ("log", line)
    assert logarithms(pb.zeros(2)).shape == (2,)  # nothing is looked at outside


def test_what_was_recorded_before_is_not_computed_along() -> None:
    x = pb.zeros(3) + 1
    before = (x - 1).log()
    with anomaly():
        assert (x - 1).exp().sum().item() == 3.0 and x.sum().item() == 3.0
    assert before.tolist() == [-float("inf")] * 3


def test_what_cannot_be_computed_is_left_to_who_asks_for_it() -> None:
    with anomaly():
        wrong = pb.nn.functional.embedding(pb.tensor([7]), pb.ones(2, 3))
        mask = pb.full((3,), -float("inf"))  # on purpose
    assert mask.shape == (3,)
    with pytest.raises(IndexOutOfRange):
        wrong.tolist()


@pytest.mark.parametrize("outer", [False, True])
def test_regions_in_one_another(outer: bool) -> None:
    """What is recorded where nothing is looked at is nobody's fault, and what is looked at outside still is."""
    with anomaly(outer):
        with anomaly(not outer):
            sound = pb.ones(3).log()
        with pytest.raises(NonFiniteError), anomaly(), anomaly():
            y = sound.log()
    assert y.shape == (3,)


def test_updates_of_ones_own_are_looked_at() -> None:
    class Descent(pb.optim.Optimizer):
        def step(self, closure: Any = None) -> None:
            for group in self.param_groups:
                for p in group["params"]:
                    with pb.no_grad():
                        p.sub_(group["lr"] * p.grad)

    w, average = pb.ones(3, requires_grad=True), pb.zeros(3)
    optimizer = Descent([w], {"lr": 1e38})
    with pytest.raises(NonFiniteError, match="overflow of float32") as caught, anomaly():
        (w * 1e3).sum().backward()
        optimizer.step()
    assert caught.value.filename == __file__ and caught.value.op == "mul"
    with pytest.raises(NonFiniteError, match="overflow of float32") as caught, anomaly():
        average.add_(pb.full((3,), 3e38)).mul_(2)
    assert caught.value.op == "mul_"


def scaled(overflow: float, scale: float = 2.0**16, rule: Any = None) -> tuple[pb.Tensor, Any]:
    """A step with a scaled loss, of which the gradient overflows float16 where `overflow` is large."""
    w = pb.ones(3, requires_grad=True)
    optimizer, scaler = pb.optim.SGD([w], lr=0.1, momentum=0.9), pb.amp.GradScaler("cpu", init_scale=scale)
    loss = (w.half() * pb.full((3,), overflow).half()).float().mean() * 1e-3
    if rule is not None:
        loss = loss + rule(w)
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    pb.nn.utils.clip_grad_norm_([w], 1.0)
    scaler.step(optimizer)
    scaler.update()
    return w, scaler


def test_an_overflow_of_scaled_gradients_is_excused() -> None:
    with anomaly():
        w, scaler = scaled(6e4)
    assert w.tolist() == [1.0] * 3 and scaler.get_scale() == 2.0**15 and not w.grad.isfinite().any()
    with anomaly():
        w, scaler = scaled(1.0)
    assert w.tolist() != [1.0] * 3 and scaler.get_scale() == 2.0**16
    with pytest.raises(NonFiniteError):
        pb.check_numerics(scaled(6e4)[0].grad)


def test_other_faults_of_a_scaled_step_are_none_of_the_scale() -> None:
    with pytest.raises(NonFiniteError, match="division by zero") as caught, anomaly():
        scaled(1.0, rule=lambda w: (w - 1).square().sum().sqrt())
    assert caught.value.phase == "backward"
    with pytest.raises(NonFiniteError, match="loss is not finite: logarithm of zero"), anomaly():
        scaled(6e4, rule=lambda w: (w - 1).log().sum())
    # at a scale of 1 it is the gradient itself that overflows
    with pytest.raises(NonFiniteError, match="overflow of float16"), anomaly():
        scaled(6e4, 1.0, rule=lambda w: 1e3 * (w.half() * 6e4).mean().float())


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("of_leaf", [False, True])
def test_a_fault_of_a_hook_is_one_of_the_backward_pass(of_leaf: bool, compiled: bool) -> None:
    w = pb.ones(3, requires_grad=True)

    def hook(gradient: pb.Tensor) -> pb.Tensor:
        return gradient / (gradient - gradient)

    def step() -> None:
        w.grad = None
        y = w * 2
        if not of_leaf:
            y.register_hook(hook)
        y.sum().backward()

    if of_leaf:
        w.register_hook(hook)
    line = inspect.getsourcelines(hook)[1] + 1
    with pytest.raises(NonFiniteError, match="division by zero") as caught, anomaly():
        (pb.compile(step) if compiled else step)()
    error = caught.value
    assert (error.phase, error.op, error.lineno, error.filename) == ("backward", "div", line, __file__)
