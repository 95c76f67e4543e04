"""Programs of a thread take turns in one arena: the same values as in arenas of their own, in the memory of one."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import numpy as np
import pytest

import pullback as pb
from pullback.errors import TraceError
from pullback.runtime.arena import SHARED_FROM, Arena, Arenas
from pullback.runtime.buffers import Buffer, live_bytes
from stories import Story


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small arenas are shared too."""
    monkeypatch.setattr("pullback.runtime.native.SHARED_FROM", 0)


def _step(width: int = 256) -> tuple[Any, list[pb.Tensor]]:
    model = pb.nn.Sequential(*[pb.nn.Sequential(pb.nn.Linear(width, width), pb.nn.Tanh()) for _ in range(4)])
    optimizer = pb.optim.SGD(model.parameters(), lr=0.1)

    @pb.compile
    def step(x: pb.Tensor, rows: pb.Tensor) -> pb.Tensor:
        optimizer.zero_grad()
        loss = model(x)[rows].square().mean()  # an index that is looked at
        loss.backward()
        optimizer.step()
        return loss

    return step, list(model.parameters())


@pytest.fixture
def arenas(monkeypatch: pytest.MonkeyPatch) -> weakref.WeakSet[Arena]:
    """The arenas in which something was run: new ones, which have no place for what other tests have left."""
    monkeypatch.setattr("pullback.tracing.replay._ARENAS", Arenas())
    monkeypatch.setattr("pullback.runtime.engine._ARENAS", Arenas())
    found: weakref.WeakSet[Arena] = weakref.WeakSet()
    take = Arena.take
    monkeypatch.setattr(Arena, "take", lambda self, *args: (found.add(self), take(self, *args))[1])
    return found


@pytest.mark.native("the reference has no arena")
def test_the_shapes_of_an_epoch_take_the_memory_of_the_largest(arenas: weakref.WeakSet[Arena]) -> None:
    """Where no gradient is held there is nothing to move either."""
    step, parameters = _step()
    before = live_bytes()
    peaks = []
    mappings: weakref.WeakSet[Any] = weakref.WeakSet()
    for rows in (900, 1000, 700, 1000, 800):
        step(pb.ones(rows, 256), pb.arange(rows)).item()
        peaks.append(step.memory.peak_bytes)
        mappings.update(arena.memory.base for arena in arenas if arena.memory.nbytes >= SHARED_FROM)
    state = sum(parameter.nbytes for parameter in parameters)
    assert sum(arena.memory.nbytes for arena in arenas) <= max(peaks) - state
    gc.collect()
    assert len(mappings) == 1, "somebody keeps an arena that was too small"
    # the parameters came to be, and the gradients of the last lie in the arena; of others there are none
    assert live_bytes() - before <= 2 * state + 64


def test_a_step_that_is_gone_gives_its_arena_back(arenas: weakref.WeakSet[Arena]) -> None:
    """What somebody holds of it stays."""
    step, parameters = _step()
    step(pb.ones(700, 256), pb.arange(700)).item()
    gradients = [np.array(parameter.grad.numpy(force=True)) for parameter in parameters]  # type: ignore[union-attr]
    held = [parameter.grad for parameter in parameters]
    del step
    gc.collect()
    assert not any(arena.memory.nbytes for arena in arenas)
    other, _ = _step()
    other(pb.ones(700, 256), pb.arange(700)).item()
    for gradient, tensor in zip(gradients, held, strict=True):
        np.testing.assert_array_equal(gradient, tensor.numpy())  # type: ignore[union-attr]


@pytest.mark.native("the reference has no arena")
def test_what_is_left_is_not_moved_for_less(arenas: weakref.WeakSet[Arena]) -> None:
    """A step that looks takes less memory than the gradients that the one that trains has left."""
    step, parameters = _step(512)
    step(pb.ones(64, 512), pb.arange(64)).item()
    look = pb.compile(lambda x: (x @ pb.ones(512, 512)).exp().sum())
    look(pb.ones(700, 512)).item()
    assert sum(arena.memory.nbytes >= SHARED_FROM for arena in arenas) == 2
    buffer = parameters[0].grad._node.buffer  # type: ignore[union-attr]
    assert isinstance(buffer, Buffer) and buffer.lent


@pytest.mark.usefixtures("shared")
def test_a_step_called_by_another_ones_host_call_has_memory_of_its_own() -> None:
    inner = pb.compile(lambda x: (x.exp() @ x.T).tanh().sum(0))

    @pb.compile
    def outer(x: pb.Tensor) -> pb.Tensor:
        first = (x @ x).tanh()
        called = pb.utils.host_call(lambda value: inner(pb.tensor(value)).numpy(), (4,), pb.float32, first)
        return called + (first @ x).sum(0)

    x = pb.tensor(np.linspace(-1, 1, 16, dtype="f").reshape(4, 4))
    first = (x @ x).tanh()
    wanted = (first.exp() @ first.T).tanh().sum(0) + (first @ x).sum(0)
    for _ in range(3):
        np.testing.assert_allclose(outer(x).numpy(), wanted.numpy(), rtol=1e-5)


@pytest.mark.usefixtures("shared")
def test_threads_have_arenas_of_their_own() -> None:
    """Each trains a network of its own, in turns of two shapes, and all look at one network by one step."""

    def turn(story: Story, number: int) -> list[bytes]:
        story.do("train", 3 + number % 2)
        values = [value.tobytes() for value in story.values()]
        story.do("forget")
        return values

    common, apart, faults = Story(compiled=True), Story(compiled=True), list[str]()
    looks = [common._look(pb.ones(rows, 6)).numpy(force=True) for rows in (3, 4)]
    wanted = [turn(apart, number) for number in range(20)]

    def train(story: Story) -> None:
        for number in range(20):
            if turn(story, number) != wanted[number]:
                faults.append(f"turn {number}: training differs")
            seen = common.look(pb.ones(3 + number % 2, 6)).numpy(force=True)
            if not np.allclose(seen, looks[number % 2], rtol=1e-5):
                faults.append(f"turn {number}: {seen} for {looks[number % 2]}")

    threads = [threading.Thread(target=train, args=[story]) for story in [Story(compiled=True) for _ in range(3)]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults, faults


@pytest.mark.usefixtures("shared")
def test_a_step_that_fails_leaves_the_arena_to_the_next() -> None:
    table = pb.nn.Embedding(5, 4)
    optimizer = pb.optim.SGD(table.parameters(), lr=0.1)

    @pb.compile
    def step(index: pb.Tensor) -> pb.Tensor:
        optimizer.zero_grad()
        loss = table(index).square().sum()
        loss.backward()
        optimizer.step()
        return loss

    other = Story(compiled=True)
    for index in ([1, 2], [1, 2, 3]):
        step(pb.tensor(index))
        with pytest.raises(IndexError):
            step(pb.tensor([9] * len(index)))
        other.do("train", 4)
    before = table.weight.detach().numpy().copy()
    step(pb.tensor([0, 1]))
    moved = np.zeros_like(before)
    moved[:2] = before[:2] * 0.2
    np.testing.assert_allclose(table.weight.detach().numpy(), before - moved, rtol=1e-6)


def test_a_run_that_fails_holds_nothing() -> None:
    """What it was given would count as somebody who needs the old state, which the next run would then keep."""
    table = pb.nn.Embedding(5, 4)
    optimizer = pb.optim.Adam(table.parameters())

    @pb.compile
    def step(index: pb.Tensor) -> pb.Tensor:
        optimizer.zero_grad()
        loss = table(index).square().sum()
        loss.backward()
        optimizer.step()
        return loss

    good, bad = pb.tensor([1, 2]), pb.tensor([1, 9])
    for index in (good, good, bad, bad, good, bad, good):
        try:
            step(index)
        except IndexError:
            continue
        assert step.memory.peak_bytes == step.plan(good).peak_bytes


@pytest.mark.native("the reference has no arena")
def test_a_value_that_a_host_call_of_its_own_program_asks_for_is_refused() -> None:
    x = pb.ones(3)
    wanted: list[pb.Tensor] = []
    y = pb.utils.host_call(lambda value: value + wanted[0].numpy(), (3,), pb.float32, x * 2)
    wanted.append(y)
    with pytest.raises(TraceError, match="inside of a host call"):
        y.numpy()


@pytest.mark.native("the reference has no arena")
def test_a_gradient_that_is_being_made_anew_is_not_read() -> None:
    """Its memory is that of other values while the step runs."""
    model, found = pb.nn.Sequential(pb.nn.Linear(3, 4), pb.nn.Tanh(), pb.nn.Linear(4, 1)), np.zeros(3)
    other = pb.nn.Parameter(pb.ones(3))
    other.square().sum().backward()
    asked = model[2].weight

    def look(value: np.ndarray) -> np.ndarray:
        if asked.grad is not None:
            found[...] = asked.grad.tolist()
        return value

    @pb.compile
    def step(x: pb.Tensor) -> pb.Tensor:
        model.zero_grad()
        loss = pb.utils.host_call(look, (2, 1), pb.float32, model(x).detach()).sum() + model(x).square().sum()
        loss.backward()
        return loss

    x = pb.ones(2, 3)
    step(x)  # there is none before
    made = [parameter.grad.tolist() for parameter in model.parameters()]  # type: ignore[union-attr]
    for _ in range(2):
        with pytest.raises(TraceError, match="inside of a host call of a compiled step that makes it anew"):
            step(x)
    asked = other  # of another tensor it is there
    step(x)
    assert found.tolist() == [2, 2, 2]
    for parameter, gradient in zip(model.parameters(), made, strict=True):
        assert parameter.grad.tolist() == gradient  # type: ignore[union-attr]
