"""Whoever holds a value across steps of a compiled function keeps it, however he came by it; views follow their base.

A step that has run a few times writes its state in place, and looks for others who hold it only where something has
happened that could have made them (`graph.calm`). So each way of coming to hold a value is tried as the only thing that
happens between two steps, and both with that shortcut and without.
"""

from __future__ import annotations

import copy
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pullback as pb
from oracle import numbers
from pullback.runtime.native import Native
from settled_training import Training, is_calm, read, training

# each gives what is held: something that `numbers` reads
Hold = Callable[[Training], Any]


def _in_a_thread(t: Training) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(t.weight * 1))
    thread.start()
    thread.join()
    return found[0]


def _of_copied_model(t: Training) -> Any:
    return copy.deepcopy(t.model)[0].weight


def _in_a_cycle(t: Training) -> Any:
    held: dict[str, Any] = {"weight": t.weight + 0}
    held["itself"] = held
    return held["weight"]


def _loss_with_history(t: Training) -> Any:
    return (t.weight * t.weight).sum(0)


def _gradient_of_a_pending_loss(t: Training) -> Any:
    return pb.autograd.grad((t.weight**2).sum() / 2, t.weight)[0]


def _by_copy_(t: Training) -> Any:
    target = pb.zeros(4, 3)
    target.copy_(t.weight.detach())
    return target


KEPT_WEIGHT: dict[str, Hold] = {
    "clone": lambda t: t.weight.clone(),
    "detached clone": lambda t: t.weight.detach().clone(),
    "clone of data": lambda t: t.weight.data.clone(),
    "expression": lambda t: t.weight * 1,
    "expression of a view": lambda t: t.weight[:2] + 0,
    "loss": _loss_with_history,
    "gradient": _gradient_of_a_pending_loss,
    "array": lambda t: t.weight.detach().numpy(),
    "asarray": lambda t: np.asarray(t.weight.detach()),
    "array of data": lambda t: t.weight.data.numpy(),
    "memoryview": lambda t: memoryview(t.weight.detach().numpy()),
    "dlpack": lambda t: np.from_dlpack(t.weight.detach()),
    "from_dlpack": lambda t: pb.from_dlpack(t.weight.detach()),
    "as_tensor of its array": lambda t: pb.as_tensor(t.weight.detach().numpy()),
    "tensor of it": lambda t: pb.tensor(t.weight),
    "copy": lambda t: copy.copy(t.weight),
    "deepcopy": lambda t: copy.deepcopy(t.weight),
    "deepcopy of the model": _of_copied_model,
    "state_dict, cloned": lambda t: {k: v.clone() for k, v in t.model.state_dict().items()}["0.weight"],
    "state_dict, deep copy": lambda t: copy.deepcopy(t.model.state_dict())["0.weight"],
    "Parameter": lambda t: pb.nn.Parameter(t.weight.detach().clone()),
    "copy_": _by_copy_,
    "thread": _in_a_thread,
    "cycle": _in_a_cycle,
    "stack": lambda t: pb.stack([t.weight, t.weight])[0],
    "to": lambda t: t.weight.to(pb.float32, copy=True),
}
KEPT_GRADIENT: dict[str, Hold] = {
    "tensor": lambda t: t.weight.grad,
    "detached": lambda t: t.weight.grad.detach(),
    "part of it detached": lambda t: t.weight.grad.view(-1).detach()[1:],
    "changed in place": lambda t: t.weight.grad.mul_(2),
    "in a list": lambda t: dict(enumerate(p.grad for p in t.model.parameters()))[0],
    "getattr": lambda t: getattr(t.weight, "grad"),  # noqa: B009
    "array": lambda t: t.weight.grad.numpy(),
    "dlpack": lambda t: np.from_dlpack(t.weight.grad),
    "expression": lambda t: t.weight.grad * 1,
    "view": lambda t: t.weight.grad[:2],
    "data": lambda t: t.weight.grad.data,
    "copy": lambda t: copy.copy(t.weight.grad),
    "of a copy": lambda t: copy.copy(t.weight).grad,
}
KEPT_MOMENTUM: dict[str, Hold] = {
    "clone": lambda t: t.momentum.clone(),
    "array": lambda t: t.momentum.numpy(),
    "deepcopy of the state": lambda t: copy.deepcopy(t.optimizer.state_dict())["state"][0]["momentum_buffer"],
    "expression": lambda t: t.momentum + 0,
}
FOLLOWING: dict[str, Hold] = {
    "itself": lambda t: t.weight,
    "data": lambda t: t.weight.data,
    "detach": lambda t: t.weight.detach(),
    "view": lambda t: t.weight.view(-1),
    "part": lambda t: t.weight[1:],
    "view of data": lambda t: t.weight.data[1:],
    "view of a view": lambda t: t.weight.detach().t()[1],
    "state_dict": lambda t: t.model.state_dict()["0.weight"],
}


def cases(named: dict[str, Hold]) -> Any:
    return pytest.mark.parametrize("hold", [pytest.param(hold, id=name) for name, hold in named.items()])


def keeps(hold: Hold, clip: bool = False, looked: bool = False) -> None:
    """What is held after some steps reads, some steps later, as what is read at once by somebody who trained alike."""
    expected = read(hold(training(clip)))
    ours = training(clip)
    held = hold(ours)
    if looked:
        read(held)
    for _ in range(4):
        ours.step().item()
    np.testing.assert_array_equal(read(held), expected)
    # and a later one is another value
    assert not np.array_equal(read(hold(ours)), expected)


@cases(KEPT_WEIGHT)
def test_an_old_weight_is_kept(hold: Hold, counted: bool) -> None:
    keeps(hold)


@cases(KEPT_GRADIENT)
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("looked", [False, True])
def test_an_old_gradient_is_kept(hold: Hold, clip: bool, looked: bool, counted: bool) -> None:
    keeps(hold, clip, looked)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("dropped", [False, True])
def test_gradients_that_are_changed_and_never_read_are_in_nobodys_way(clip: bool, dropped: bool, counted: bool) -> None:
    for steps in (1, 2):
        expected, ours = training(clip, steps=3 + steps), training(clip, steps=3)
        for parameter in ours.model.parameters():
            parameter.grad.div_(2)
            if dropped:
                parameter.grad = None
        for _ in range(steps):
            ours.step().item()
        for mine, other in zip(ours.model.parameters(), expected.model.parameters(), strict=True):
            np.testing.assert_array_equal(read(mine), read(other))
            np.testing.assert_array_equal(read(mine.grad), read(other.grad))


@cases(KEPT_MOMENTUM)
def test_an_old_state_of_the_optimizer_is_kept(hold: Hold, counted: bool) -> None:
    keeps(hold)


@cases(FOLLOWING)
@pytest.mark.parametrize("looked", [False, True])
def test_a_view_follows_whether_or_not_it_was_looked_at_before(hold: Hold, looked: bool, counted: bool) -> None:
    ours = training()
    held = hold(ours)
    for _ in range(4):
        if looked:
            read(held)
        ours.step().item()
        np.testing.assert_array_equal(read(held), read(hold(ours)))


def test_the_shortcut_is_taken_where_nothing_happens() -> None:
    ours = training()
    assert is_calm(ours.step)
    x = pb.tensor([1.0])
    assert float(x.numpy()[0]) == 1.0 and is_calm(ours.step)
    losses = [ours.step() for _ in range(3)]
    assert is_calm(ours.step)
    read_losses = [loss.item() for loss in losses]
    assert is_calm(ours.step) and len(set(read_losses)) == 3


@cases({**KEPT_WEIGHT, **{f"grad {name}": hold for name, hold in KEPT_GRADIENT.items()}})
def test_coming_to_hold_a_value_ends_the_shortcut(hold: Hold) -> None:
    ours = training()
    assert is_calm(ours.step)
    held = hold(ours)
    assert not is_calm(ours.step)
    del held
    gc.collect()
    for _ in range(4):
        ours.step().item()
    assert is_calm(ours.step)


def test_a_gradient_known_by_a_weak_reference(counted: bool) -> None:
    expected = read(training(steps=8).weight.grad)
    ours = training()
    known = weakref.ref(ours.weight.grad)
    for _ in range(3):
        ours.step().item()
    held = known()  # nothing tells of this
    assert held is not None
    for _ in range(2):
        ours.step().item()
    np.testing.assert_array_equal(read(held), expected)


def test_gradients_shown_to_numpy_stay_and_cost_no_new_program(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[int] = []
    link = Native._link
    monkeypatch.setattr(Native, "_link", lambda self, *args: (loads.append(1), link(self, *args))[1])
    model = pb.nn.Sequential(pb.nn.Linear(3, 4), pb.nn.Tanh(), pb.nn.Linear(4, 2))
    optimizer = pb.optim.SGD(model.parameters(), lr=0.1)

    @pb.compile
    def step(x: pb.Tensor) -> pb.Tensor:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    step(pb.ones(2, 3))
    del loads[:]
    kept, copies = [], []
    for number in range(4):
        step(pb.full((2, 3), 1.0 + number))
        shown = [parameter.grad.numpy() for parameter in model.parameters()]
        kept.append(shown)
        copies.append([array.copy() for array in shown])
    for shown, before in zip(kept, copies, strict=True):
        for array, same in zip(shown, before, strict=True):
            np.testing.assert_array_equal(array, same)
    assert not np.array_equal(kept[0][0], kept[1][0])
    assert not loads, "a gradient that NumPy looks at has the program loaded anew"


@pytest.mark.parametrize("gone", [False, True])
def test_buffers_are_written_in_place_while_a_state_dictionary_is_held(gone: bool) -> None:
    """The dictionary follows them, and is right when the module is gone."""
    norm = pb.nn.BatchNorm1d(3)
    x = pb.tensor(np.arange(12.0, dtype=np.float32).reshape(4, 3))
    step = pb.compile(lambda: norm(x))
    for _ in range(3):
        step()
    held = norm.state_dict()
    step()

    def place() -> int:
        assert norm.running_mean is not None
        return int(norm.running_mean._node.buffer.array.ctypes.data)  # type: ignore[union-attr]

    before = place()
    step()
    assert place() == before
    mean, count = numbers(norm.running_mean).copy(), norm.num_batches_tracked.item()
    if gone:
        del norm, step
        gc.collect()
    np.testing.assert_array_equal(numbers(held["running_mean"]), mean)
    assert held["num_batches_tracked"].item() == count == 5
