"""A compiled step as an object: copies of it and of what holds it."""

import copy
import pickle  # noqa: TID251  # only to see that it is refused
import threading
import time
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

import pullback as pb


def _double(x):
    return x * 2


def test_copies_of_a_step_are_steps_of_the_same_function_without_recordings():
    step = pb.compile(_double)
    step(pb.ones(2))
    held = SimpleNamespace(step=step, name="doubling")
    for other in (copy.copy(step), copy.deepcopy(step), copy.deepcopy(held).step):
        assert other is not step and other.function is _double and other.__name__ == "_double"
        with pytest.raises(pb.errors.TraceError, match="not been called"):
            _ = other.program
        assert other(pb.ones(2)).tolist() == [2.0, 2.0] and other.program is not step.program


def test_a_deep_copy_of_an_object_computes_with_the_copy():
    class Trainer:
        def __init__(self):
            self.weight = pb.ones(2)
            self.step = pb.compile(self.compute)
            self.again = self.step

        def compute(self, x):
            self.weight.add_(x)
            return self.weight.sum()

    trainer = Trainer()
    assert trainer.step(pb.ones(2)).item() == 4.0
    other = copy.deepcopy(trainer)
    assert other.again is other.step
    assert other.step(pb.ones(2)).item() == 6.0
    assert trainer.weight.tolist() == [2.0, 2.0] and other.weight.tolist() == [3.0, 3.0]


def test_a_deep_copy_of_a_module_that_holds_a_step_trains_by_itself():
    net = pb.nn.Linear(2, 1)
    net.fast = pb.compile(net.forward)
    other = copy.deepcopy(net)
    with pb.no_grad():
        other.weight.zero_()
    assert other.fast(pb.ones(1, 2)).item() == other.bias.item()
    assert net.fast(pb.ones(1, 2)).item() == net(pb.ones(1, 2)).item()


def test_pickling_a_step_is_refused():
    with pytest.raises(TypeError, match=r"\(_double\) cannot be pickled.*state_dict"):
        pickle.dumps(SimpleNamespace(step=pb.compile(_double)))


def test_a_call_unlike_the_one_before_is_told_apart():
    calls = []

    @pb.compile
    def step(*tensors, scale=1.0):
        calls.append(len(tensors))
        return sum((t * scale).sum() for t in tensors) + (1 if pb.is_grad_enabled() else 0)

    a, b = pb.ones(2), pb.full((2,), 3.0)
    wide, long, whole = np.ones(2), np.ones(3, "f"), pb.ones(2, dtype=pb.int64)
    needed = pb.ones(2, requires_grad=True)
    for _ in range(3):
        for _ in range(2):
            assert step(a, b).item() == 9.0
        assert step(a, a).item() == 5.0
        assert step(b, b.numpy()).item() == 13.0
        assert step(np.ones(2, "f"), np.zeros(2, "f")).item() == 3.0
        assert step(np.ones((2, 2), "f").T[0], b).item() == 9.0
        assert step(a, b[:1]).item() == 6.0
        assert step(wide, b).dtype is pb.float64
        assert step(long, b).item() == 10.0
        assert step(a, whole).item() == 5.0
        assert step(a, needed).item() == 5.0
        assert step(a, b, scale=2.0).item() == 17.0
        assert step(a).item() == 3.0
        with pb.no_grad():
            assert step(a, b).item() == 8.0
        assert step(a, b).item() == 9.0
    assert len(calls) == 10


def test_what_does_not_run_to_its_end_is_refused_when_it_is_compiled():
    def generator(x):
        yield x

    async def asynchronous(x):
        return x

    async def both(x):
        yield x

    class Callable:
        def __call__(self, x):
            yield x

    class Module(pb.nn.Module):
        def forward(self, x):
            yield x

    for function in (generator, asynchronous, both, partial(generator, 1), Callable(), Module()):
        with pytest.raises(
            TypeError, match=r"runs to its end.* is (a generator|asynchronous|an asynchronous gen).*step"
        ):
            pb.compile(function)
    with pytest.raises(TypeError, match=r"the class Callable\. Compile an object"):
        pb.compile(Callable)


def test_an_argument_that_compile_does_not_have_is_named_with_those_it_has():
    with pytest.raises(TypeError, match=r"no argument unknown; its arguments are: function"):
        pb.compile(unknown=1)


def test_a_step_shows_its_function_and_how_many_recordings_it_has():
    step = pb.compile(_double)
    assert repr(step) == "<compiled step _double with 0 recordings>"
    step(pb.ones(2))
    assert repr(step) == "<compiled step _double with 1 recording>"


def test_a_compiled_module_has_what_the_module_has():
    net = pb.nn.Sequential(pb.nn.Linear(2, 2), pb.nn.Dropout(0.5))
    step = pb.compile(net)
    assert all(a is b for a, b in zip(step.parameters(), net.parameters(), strict=True))
    assert step.state_dict().keys() == net.state_dict().keys()
    step.eval()
    assert not net.training and not step.training
    x = pb.ones(3, 2)
    assert step(x).tolist() == net(x).tolist()
    step.note = "kept"
    assert net.note == "kept" and copy.copy(step)(x).tolist() == net(x).tolist()
    with pytest.raises(AttributeError, match="'nothing'"):
        _ = step.nothing
    with pytest.raises(AttributeError, match="has no attribute 'parameters'"):
        _ = pb.compile(_double).parameters


def test_what_a_step_returns_is_a_value_and_not_the_state() -> None:
    buffer, given = pb.zeros(2), pb.zeros(2)

    @pb.compile
    def step(x: pb.Tensor) -> tuple[pb.Tensor, pb.Tensor]:
        return buffer.add_(1), x.add_(2)

    for count in range(1, 4):
        first, second = step(given)
        assert first is not buffer and second is not given and buffer.tolist() == [count] * 2
    step(given)
    assert (first.tolist(), second.tolist(), buffer.tolist(), given.tolist()) == (
        [3.0] * 2,
        [6.0] * 2,
        [4.0] * 2,
        [8.0] * 2,
    )


def test_a_thread_that_reads_while_another_records_waits_and_has_the_values() -> None:
    weight = pb.ones(2, requires_grad=True)
    begun, found = threading.Event(), []

    @pb.compile
    def step(x: pb.Tensor) -> None:
        (weight * x).sum().backward()
        with pb.no_grad():
            weight.add_(1)
        begun.set()
        time.sleep(0.05)

    def read() -> None:
        begun.wait(10)
        try:
            found.append([weight.grad.tolist(), weight.tolist()])
        except pb.errors.TraceError as error:
            found.append(error)

    (weight * 3).sum().backward()
    for size in ((), (1,)):
        begun.clear()
        reader = threading.Thread(target=read)
        reader.start()
        step(pb.ones(size))
        reader.join()
    for before, values in enumerate(found):
        assert isinstance(values, list), values
        (gradient, _), (value, _) = values
        assert gradient - 3 in (before, before + 1) and value - 1 in (before, before + 1)
