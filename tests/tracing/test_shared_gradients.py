"""A gradient that the function also has by another way: compiled steps give what steps that are not compiled give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pullback as pb


class Training:
    """Two parameters whose gradients each scenario shares with something else, and steps that change them in place."""

    def __init__(self, compiled: bool):
        self.one, self.two = (pb.nn.Parameter(pb.tensor([1.0, 2.0, 3.0]) * k) for k in (1, 2))
        self.model = pb.nn.Module()
        self.model.register_buffer("kept", pb.ones(3))
        self.optimizer = pb.optim.SGD([self.one, self.two], lr=0.1, momentum=0.9)
        self.first = pb.ones(3)
        self.view = self.first
        self.scaled = [self.one]
        made = pb.compile if compiled else lambda step: step
        self.step, self.with_argument = made(self._step), made(self._with_argument)
        self.update = made(self._update)
        self.assign = made(self._assign)

    def gradients(self) -> list[pb.Tensor]:
        return [tensor.grad for tensor in (self.one, self.two)]  # type: ignore[misc]

    def give_gradients(self) -> None:
        for k, tensor in enumerate((self.one, self.two)):
            tensor.grad = pb.tensor([0.5, -1.0, 2.0]) * (k + 1)

    def _scale(self) -> list[pb.Tensor]:
        for tensor in self.scaled:
            tensor.grad.mul_(0.5)  # type: ignore[union-attr]
        return [gradient * 1.5 for gradient in self.gradients()]

    def _step(self, x: pb.Tensor) -> list[pb.Tensor]:
        found = self._scale()
        (x * self.one * self.two).sum().backward()
        return [*found, self.model.kept + 1, self.first + 1, self.view * 2, *self.gradients()]

    def _with_argument(self, x: pb.Tensor) -> list[pb.Tensor]:
        found = [x + 1, *self._scale(), x + 2]
        x.add_(1)
        return [*found, *self._scale(), x * 3]

    def _update(self, x: pb.Tensor) -> list[pb.Tensor]:
        found = self._scale()
        self.optimizer.step()
        return [*found, x + self.one, *self.gradients()]

    def _assign(self, x: pb.Tensor) -> list[pb.Tensor]:
        found = [self.first + x, self.one.grad + x]  # type: ignore[operator]
        self.one.grad = None
        self.one.grad = self.first
        return found


def nothing(t: Training) -> pb.Tensor:
    return pb.ones(3)


def each_other(t: Training) -> pb.Tensor:
    t.two.grad = t.one.grad
    return pb.ones(3)


def a_buffer(t: Training) -> pb.Tensor:
    t.model.kept = t.one.grad
    return pb.ones(3)


def a_name(t: Training) -> pb.Tensor:
    t.first = t.one.grad  # type: ignore[assignment]
    return pb.ones(3)


def a_view(t: Training) -> pb.Tensor:
    t.view = t.one.grad.view(-1)[:2]  # type: ignore[union-attr]
    return pb.ones(2).sum()


def an_argument(t: Training) -> pb.Tensor:
    assert t.one.grad is not None
    return t.one.grad


def an_optimizers_state(t: Training) -> pb.Tensor:
    if "momentum_buffer" in t.optimizer.state[t.one]:
        t.optimizer.state[t.one]["momentum_buffer"] = t.one.grad
    return pb.ones(3)


SHARED: list[Callable[[Training], pb.Tensor]] = [
    nothing, each_other, a_buffer, a_name, a_view, an_argument, an_optimizers_state,
]  # fmt: skip


@pytest.mark.parametrize("step", ["step", "with_argument", "update", "assign"])
@pytest.mark.parametrize("first", [True, False], ids=["at first", "later"])
@pytest.mark.parametrize("share", SHARED)
def test_a_gradient_with_a_second_way_to_it(share: Any, first: bool, step: str) -> None:
    trainings = Training(compiled=True), Training(compiled=False)
    for turn in range(6):
        shared = share if (turn in (0, 1, 4)) == first else nothing
        results = []
        for training in trainings:
            if turn == 5:
                training.scaled[0] = training.two
            training.give_gradients()
            found = getattr(training, step)(shared(training))
            state = [training.one, training.two, *training.gradients(), training.model.kept, training.first]
            state += [training.view, *training.optimizer.state[training.one].values()]
            results.append([np.array(t.detach().numpy()) for t in [*found, *state] if isinstance(t, pb.Tensor)])
        assert len(results[0]) == len(results[1])
        for number, (one, other) in enumerate(zip(*results, strict=True)):
            np.testing.assert_allclose(one, other, rtol=1e-6, err_msg=f"value {number} in turn {turn}")


def test_a_step_that_only_reads_a_gradient_which_it_is_also_given_is_recorded_once() -> None:
    training = Training(compiled=False)
    calls = []

    @pb.compile
    def step(x: pb.Tensor) -> pb.Tensor:
        calls.append(1)
        return training.one.grad * x  # type: ignore[operator]

    for _ in range(4):
        training.give_gradients()
        np.testing.assert_array_equal(step(training.one.grad).numpy(), [0.25, 1, 4])
    assert len(calls) == 1
