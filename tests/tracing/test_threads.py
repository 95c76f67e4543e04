"""Threads that train, and threads that look at what is trained meanwhile."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import pullback as pb
from settled_training import Training, read, training


@pytest.fixture
def hasty() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty")
def test_threads_that_hold_values_while_another_trains() -> None:
    w = pb.zeros(5000, requires_grad=True)

    @pb.compile
    def step() -> pb.Tensor:
        w.grad = None
        w.sum().backward()
        with pb.no_grad():
            w.add_(w.grad)
        return w.sum()

    for _ in range(4):
        step()
    over, changed = threading.Event(), []

    def look() -> None:
        while not over.is_set():
            with pb.no_grad():
                held = w * 1
            values = held.numpy()
            before, begun = values.copy(), done[0]
            while done[0] < begun + 3 and not over.is_set():
                pass
            if not np.array_equal(values, before):
                changed.append(values)

    done = [0]
    thread = threading.Thread(target=look)
    thread.start()
    for _ in range(300):
        step()
        done[0] += 1
    over.set()
    thread.join()
    assert not changed and w.min().item() == w.max().item() == 304.0


@pytest.mark.usefixtures("hasty")
def test_independent_steps_in_two_threads() -> None:
    def train(found: list[Any], setup: Training) -> None:
        for _ in range(50):
            setup.step().item()
        found.append(read(setup.weight))

    setups = [training(), training()]
    found: list[Any] = []
    threads = [threading.Thread(target=train, args=(found, setup)) for setup in setups]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(*found)
    np.testing.assert_array_equal(found[0], read(training(steps=55).weight))


def test_what_another_thread_makes_of_a_parameter_waits_until_the_step_is_recorded() -> None:
    w, begun, found = pb.nn.Parameter(pb.ones(3)), threading.Event(), []

    def look() -> None:
        begun.wait(10)
        try:
            found.append((w.detach() * 2).sum().item())
        except pb.errors.TraceError as error:
            found.append(error)

    @pb.compile
    def step() -> None:
        with pb.no_grad():
            w.mul_(3.0)
        begun.set()
        looking.join(0.2)  # it has to wait for this recording

    looking = threading.Thread(target=look)
    looking.start()
    step()
    looking.join(10)
    assert found[0] in (6.0, 18.0), found


@pytest.mark.usefixtures("hasty")
def test_threads_ask_a_model_at_once_that_has_not_been_drawn() -> None:
    for trial in range(25):
        pb.manual_seed(trial)
        model = pb.nn.Sequential(*[pb.nn.Sequential(pb.nn.Linear(16, 16), pb.nn.Tanh()) for _ in range(6)])
        x, begin, found = pb.randn(4, 16), threading.Barrier(4), []

        def ask(model: Any = model, x: Any = x, begin: Any = begin, found: Any = found) -> None:
            begin.wait(10)
            try:
                found.append(model(x).detach().numpy())
            except Exception as error:
                found.append(error)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 4 and not any(isinstance(one, Exception) for one in found), found
        for one in found:
            np.testing.assert_allclose(one, model(x).detach().numpy(), atol=1e-5)
