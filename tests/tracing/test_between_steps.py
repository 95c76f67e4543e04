"""What is changed between two steps of a compiled function, by the user or by another step, is taken as it is.

Where nothing happens between them, what is done in Python does not grow with the parameters.
"""

from __future__ import annotations

import copy
import gc
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pullback as pb
from settled_training import Training, is_calm, is_settled, read, training


def _set_data(t: Training) -> None:
    t.weight.data = pb.ones(4, 3)


def _copy(t: Training) -> None:
    with pb.no_grad():
        t.weight.copy_(pb.ones(4, 3))


def _fill_data(t: Training) -> None:
    t.weight.data.fill_(1.0)


def _fill_detached(t: Training) -> None:
    t.weight.detach().fill_(1.0)


def _fill_part(t: Training) -> None:
    with pb.no_grad():
        t.weight[:] = 1.0


def _load(t: Training) -> None:
    t.model.load_state_dict({**t.model.state_dict(), "0.weight": pb.ones(4, 3)})


@pytest.mark.parametrize("change", [_set_data, _copy, _fill_data, _fill_detached, _fill_part, _load])
def test_a_changed_parameter_is_taken_as_it_is(change: Callable[[Training], None], counted: bool) -> None:
    found = []
    for compiled in (True, False):
        ours = training()
        step = ours.step if compiled else ours.step.function  # type: ignore[attr-defined]
        before = ours.weight.clone()
        change(ours)
        step()
        found.append((read(ours.weight), read(ours.momentum), read(before)))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_a_gradient_that_the_user_sets_is_not_written_over(counted: bool) -> None:
    ours = training()
    ours.weight.grad = own = pb.ones(4, 3)
    ours.model[2].bias.grad = shared = pb.full((2,), 7.0)
    for _ in range(3):
        ours.step().item()
    assert own.tolist() == [[1.0] * 3] * 4 and shared.tolist() == [7.0, 7.0]
    np.testing.assert_array_equal(read(ours.weight), read(training(steps=8).weight))


def test_state_that_is_loaded_is_taken(counted: bool) -> None:
    ours, later = training(), training(steps=9)
    saved = copy.deepcopy((later.model.state_dict(), later.optimizer.state_dict()))
    ours.model.load_state_dict(saved[0])
    ours.optimizer.load_state_dict(saved[1])
    for both in (ours, later):
        for _ in range(3):
            both.step().item()
    np.testing.assert_array_equal(read(ours.weight), read(later.weight))
    np.testing.assert_array_equal(read(ours.momentum), read(later.momentum))


# ---- several steps


def _evaluation(t: Training) -> Any:
    x = pb.ones(2, 3)

    @pb.compile
    def evaluate() -> pb.Tensor:
        with pb.no_grad():
            return t.model(x)

    return evaluate


def test_steps_that_share_parameters_stay_settled_in_turns(counted: bool) -> None:
    ours, alike = training(), training()
    evaluate = _evaluation(ours)
    values = []
    for turn in range(6):
        values.append(evaluate())
        ours.step().item()
        if turn > 2:
            assert is_settled(ours.step) and is_settled(evaluate)
            assert counted or (is_calm(ours.step) and is_calm(evaluate))
    for value in values:
        np.testing.assert_allclose(read(value), read(alike.model(pb.ones(2, 3))), rtol=1e-5)
        alike.step().item()


def test_two_steps_that_train_the_same_parameters(counted: bool) -> None:
    def losses(compiled: bool) -> list[Any]:
        ours = training(steps=0)
        step = ours.step if compiled else ours.step.function  # type: ignore[attr-defined]

        def shrink() -> pb.Tensor:
            with pb.no_grad():
                ours.weight.mul_(0.9)
            return ours.weight.sum()

        other = pb.compile(shrink) if compiled else shrink
        return [(step().item(), other().item()) for _ in range(8)]

    np.testing.assert_allclose(losses(True), losses(False), rtol=2e-5)


def test_clearing_gradients_in_a_step_of_its_own_is_seen_by_the_other(counted: bool) -> None:
    w = pb.ones(2, requires_grad=True)

    @pb.compile
    def accumulate() -> None:
        (w * 2).sum().backward()

    @pb.compile
    def clear() -> None:
        w.grad = None

    for _ in range(5):
        accumulate()
        assert w.grad is not None and w.grad.tolist() == [2.0, 2.0]
        accumulate()
        clear()
        assert w.grad is None


# ---- the work


def _calls(run: Callable[[], Any]) -> int:
    """How many functions, of Python and C, are called."""
    count = 0

    def see(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    gc.disable()
    sys.setprofile(see)
    try:
        run()
    finally:
        sys.setprofile(None)
        gc.enable()
    return count


def _deep(layers: int) -> Callable[..., pb.Tensor]:
    model = pb.nn.Sequential(*[pb.nn.Sequential(pb.nn.Linear(4, 4), pb.nn.Tanh()) for _ in range(layers)])
    optimizer = pb.optim.Adam(model.parameters(), lr=1e-3)

    def step(x: pb.Tensor, y: pb.Tensor) -> pb.Tensor:
        optimizer.zero_grad()
        loss = ((model(x) - y) ** 2).mean()
        loss.backward()
        pb.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    return pb.compile(step)


@pytest.mark.native("how many calls a step takes")
@pytest.mark.parametrize("make", [pb.tensor, np.array])
def test_the_work_of_a_step_in_python_does_not_grow_with_the_parameters(make: Callable[..., Any]) -> None:
    found = []
    for layers in (1, 8):
        step = _deep(layers)
        batches = [(make(np.full((2, 4), i, "f")), make(np.full((2, 4), -i, "f"))) for i in range(8)]
        for x, y in batches[:6]:
            step(x, y).item()
        # now and then a new page is cut into lines for losses
        found.append(min(_calls(lambda: step(*batches[i]).item()) for i in (5, 6, 7)))  # noqa: B023
    assert found[0] == found[1] < 150, found
