"""Whoever holds a value across steps of a compiled function keeps it, however he came by it; views follow their base.

A step that has run a few times writes its state in place, and looks for others who hold it only where something has
happened that could have made them (`graph.calm`). So each way of coming to hold a value is tried as the only thing that
happens between two steps, and both with that shortcut and without.
"""

from __future__ import annotations

import copy
import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

import pullback as pb
from oracle import numbers
from pullback.runtime.native import Native
from pullback.tracing.settled import Settled


class Training(NamedTuple):
    """A step that has run a few times, what it trains, and with which optimizer."""

    step: Callable[[], pb.Tensor]
    model: Any
    weight: pb.Tensor
    optimizer: Any

    @property
    def momentum(self) -> pb.Tensor:
        return self.optimizer.state[self.weight]["momentum_buffer"]


def training(clip: bool = False, steps: int = 5) -> Training:
    pb.manual_seed(0)
    model = pb.nn.Sequential(pb.nn.Linear(3, 4), pb.nn.Tanh(), pb.nn.Linear(4, 2))
    optimizer = pb.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x, y = pb.randn(5, 3), pb.randn(5, 2)

    @pb.compile
    def step() -> pb.Tensor:
        optimizer.zero_grad()
        loss = ((model(x) - y) ** 2).mean() * 10
        loss.backward()
        if clip:
            pb.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        return loss

    for _ in range(steps):
        step().item()
    return Training(step, model, model[0].weight, optimizer)


@pytest.fixture(params=["shortcut", "counted"])
def counted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether references are counted at every step, or only where something has happened."""
    if request.param == "counted":
        monkeypatch.setattr(Settled, "is_calm", lambda self: False)
    return request.param == "counted"


def is_settled(step: Any) -> bool:
    return step._last.settled is not None


def is_calm(step: Any) -> bool:
    return is_settled(step) and step._last.settled.is_calm()


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


def read(held: Any) -> np.ndarray:
    return numbers(held) if isinstance(held, pb.Tensor) else np.array(held)


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
