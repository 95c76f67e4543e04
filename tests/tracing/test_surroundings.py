"""What a compiled step reads under a name may be bound to something else between two calls."""

import sys
from collections import OrderedDict, defaultdict, deque
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import pullback as pb
from pullback.errors import TraceError

scale = 2.0
table = {"weight": pb.ones(2)}


def _helper(x):
    return (x * scale).sum()


class Net(pb.nn.Module):
    def __init__(self):
        super().__init__()
        self.alpha, self.plain, self.held = 2.0, pb.ones(2), {"k": pb.ones(2)}
        self.register_buffer("state", pb.zeros(2))

    def forward(self, x):
        return self.more(x) + self.held["k"].sum()

    def more(self, x):
        return (x * self.alpha * self.plain).sum()


def _results(function, *changes):
    """The result at first and after each change: of the function undecorated, and compiled."""
    x, step = pb.ones(2), pb.compile(function)
    found = [(function(x).item(), step(x).item())]
    for change in changes:
        change()
        found.append((function(x).item(), step(x).item()))
    return [list(values) for values in zip(*found, strict=True)]


def test_numbers_and_tensors_of_globals_are_followed(monkeypatch):
    plain, compiled = _results(
        lambda x: _helper(x) + table["weight"].sum(),
        lambda: monkeypatch.setitem(globals(), "scale", 3.0),
        lambda: monkeypatch.setitem(table, "weight", pb.zeros(2)),
        lambda: monkeypatch.setitem(globals(), "table", {"weight": pb.ones(2) * 5}),
    )
    assert compiled == plain == [6.0, 8.0, 6.0, 16.0]


def test_closure_variables_lists_dictionaries_and_attributes_are_followed():
    factor, pair, named, thing = (
        1.0,
        [pb.ones(2), pb.ones(2) * 5],
        {"n": 1.0},
        SimpleNamespace(w=pb.ones(2), deep=[1.0]),
    )

    def function(x):
        return (x * factor * pair[0] * named["n"] * thing.w * thing.deep[0]).sum()

    def rebind():
        nonlocal factor
        factor = 2.0

    plain, compiled = _results(
        function,
        rebind,
        pair.reverse,
        lambda: named.update(n=0.5),
        lambda: setattr(thing, "w", thing.w * 3),
        lambda: thing.deep.__setitem__(0, 7.0),
        lambda: pair.__setitem__(0, pb.ones(2)),
    )
    assert compiled == plain == [2.0, 4.0, 20.0, 10.0, 30.0, 210.0, 42.0]


def test_plain_attributes_of_modules_are_followed():
    net = Net()
    plain, compiled = _results(
        lambda x: net(x),
        lambda: setattr(net, "alpha", 3.0),
        lambda: setattr(net, "plain", pb.ones(2) * 7),
        lambda: net.held.update(k=pb.zeros(2)),
    )
    assert compiled == plain == [6.0, 8.0, 44.0, 42.0]


def test_hyperparameters_of_layers_are_followed():
    x = pb.tensor([[1.0, 2.0], [3.0, 5.0]])
    drop, norm = pb.nn.Dropout(0.0), pb.nn.BatchNorm1d(2)
    dropped = pb.compile(lambda: (drop(pb.ones(100, 100)) == 0).float().mean())
    assert dropped().item() == 0.0
    drop.p = 0.9
    assert 0.85 < dropped().item() < 0.95
    normed = pb.compile(lambda: norm(x))
    normed()
    norm.running_mean.zero_()
    norm.momentum = 1.0
    normed()
    assert norm.running_mean.tolist() == [2.0, 3.5]
    before = normed().abs().max().item()
    norm.eps = 100.0
    assert normed().abs().max().item() < 0.3 * before


def test_an_optimizer_or_a_model_exchanged_is_seen():
    w = pb.ones(2, requires_grad=True)
    held = {"optimizer": pb.optim.SGD([w], lr=0.0)}

    @pb.compile
    def step():
        held["optimizer"].zero_grad()
        w.sum().backward()
        held["optimizer"].step()

    step()
    held["optimizer"] = pb.optim.SGD([w], lr=0.5)
    step()
    assert w.tolist() == [0.5, 0.5]


def test_methods_follow_their_object():
    class Trainer:
        def __init__(self):
            self.gain, self.count = 2.0, 0

        def compute(self, x):
            return (x * self.gain).sum()

    trainer = Trainer()
    step = pb.compile(trainer.compute)
    assert step(pb.ones(2)).item() == 4.0
    program = step.program
    trainer.count += 1  # the step does not name it
    assert step(pb.ones(2)).item() == 4.0 and step.program is program
    trainer.gain = 3.0
    assert step(pb.ones(2)).item() == 6.0


def test_what_is_bound_anew_as_it_was_makes_no_new_recording():
    count, values = 1000.0, [pb.ones(2)]

    def function(x):
        return (x * count * values[0]).sum()

    step = pb.compile(function)
    step(pb.ones(2))
    program = step.program
    count, values[0] = float("1000"), values[0]
    step(pb.ones(2))
    assert step.program is program


def test_a_place_that_the_step_binds_holds_each_runs_tensor():
    seen = {}
    thing = SimpleNamespace(pair=None)
    net = Net()

    @pb.compile
    def step(x):
        seen["last"] = x * 2
        thing.pair = (x + 1, "name")
        net.plain = x * 3
        return x.sum()

    for number in (1.0, 2.0, 3.0):
        step(pb.full((2,), number))
        assert seen["last"].tolist() == [2 * number] * 2
        assert thing.pair[0].tolist() == [number + 1] * 2 and thing.pair[1] == "name"
        assert net.plain.tolist() == [3 * number] * 2
    program = step.program
    kept = seen["last"]
    step(pb.zeros(2))
    assert step.program is program
    assert kept.tolist() == [6.0, 6.0] and seen["last"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("place", ["element", "entry", "attribute", "closure", "module", "buffer"])
def test_a_tensor_that_is_used_and_bound_to_another_is_refused_where_it_was_made(place):
    number, elements, thing, net = pb.ones(2), [pb.ones(2)], SimpleNamespace(w=pb.ones(2)), Net()
    entries = {"w": pb.ones(2)}

    def step(x):
        nonlocal number
        if place == "element":
            elements[0] = elements[0] * 2 + x
        elif place == "entry":
            entries["w"] = entries["w"] * 2 + x
        elif place == "attribute":
            thing.w = thing.w * 2 + x
        elif place == "closure":
            number = number * 2 + x
        elif place == "module":
            net.plain = net.plain * 2 + x
        else:
            net.state = net.state * 2 + x
        return x.sum()

    compiled = pb.compile(step)
    for _ in range(2):
        with pytest.raises(TraceError, match=r"test_surroundings.py:\d+(.|\n)*copy_"):
            compiled(pb.ones(2))
    held = [number, elements[0], thing.w, net.plain, entries["w"]]
    assert [t.tolist() for t in held] == [[1.0, 1.0]] * 5 and net.state.tolist() == [0.0, 0.0]


def test_python_values_are_as_the_recording_left_them():
    recordings = 0

    @pb.compile
    def step(x):
        nonlocal recordings
        recordings += 1
        return x.sum()

    for _ in range(3):
        step(pb.ones(2))
    assert recordings == 1


def test_a_scheduler_in_a_step_is_refused():
    w = pb.ones(2, requires_grad=True)
    optimizer = pb.optim.SGD([w], lr=1.0)
    scheduler = pb.optim.lr_scheduler.StepLR(optimizer, 1)

    @pb.compile
    def step():
        w.sum().backward()
        optimizer.step()
        scheduler.step()

    with pytest.raises(TraceError, match="after each call"):
        step()
    assert scheduler.last_epoch == 0


def test_recordings_of_what_is_gone_are_dropped():
    values = [pb.ones(2)]
    step = pb.compile(lambda x: (x * values[0]).sum())
    with pytest.warns(UserWarning, match="compiled (16|32) times"):
        for number in range(40):
            values[0] = pb.full((2,), float(number))
            assert step(pb.ones(2)).item() == 2.0 * number
    assert sum(map(len, step._variants.values())) <= 32


class Base:
    gain = 2.0

    def scaled(self, x):
        return x * self.gain


class Derived(Base):
    pass


class Slotted:
    __slots__ = ("gain",)

    def __init__(self):
        self.gain = 2.0


class Computed:
    def __init__(self):
        self._gain = 2.0

    @property
    def gain(self):
        return self._gain


def test_functions_and_classes_that_names_are_bound_to_are_followed(monkeypatch):
    inner = pb.tanh
    plain, compiled = _results(
        lambda x: _helper(inner(x) * Chosen.gain),
        lambda: monkeypatch.setitem(globals(), "_helper", lambda x: x.sum() * 10),
        lambda: monkeypatch.setitem(globals(), "Chosen", type("Other", (), {"gain": 5.0})),
    )
    assert compiled == plain and len(set(plain)) == 3

    def function(x):
        return inner(x).sum()

    def rebind():
        nonlocal inner
        inner = pb.exp

    plain, compiled = _results(function, rebind)
    assert compiled == plain and len(set(plain)) == 2


Chosen = Derived


def test_attributes_of_classes_slots_properties_and_python_modules_are_followed(monkeypatch):
    module = ModuleType("settings")
    module.gain = 2.0
    module.scaled = lambda x: x * scale
    derived, slotted, computed = Derived(), Slotted(), Computed()
    monkeypatch.setattr(Base, "gain", 2.0)
    monkeypatch.setattr(Base, "scaled", Base.scaled)
    plain, compiled = _results(
        lambda x: module.scaled(derived.scaled(x) * Derived.gain * slotted.gain * computed.gain * module.gain).sum(),
        lambda: setattr(Base, "gain", 3.0),
        lambda: setattr(derived, "gain", 5.0),  # hides the class's
        lambda: monkeypatch.setattr(Derived, "gain", 7.0, raising=False),
        lambda: setattr(slotted, "gain", 0.5),
        lambda: setattr(computed, "_gain", 0.25),
        lambda: setattr(module, "gain", 11.0),
        lambda: monkeypatch.setitem(globals(), "scale", 13.0),
        lambda: setattr(module, "scaled", lambda x: x),
        lambda: setattr(Base, "scaled", lambda self, x: x * 17),
    )
    assert compiled == plain and len(set(plain)) == 10


def test_subclasses_of_containers_and_deques_are_followed():
    ordered, defaults, queue = OrderedDict(k=2.0), defaultdict(float, k=2.0), deque([2.0, 3.0])
    plain, compiled = _results(
        lambda x: (x * ordered["k"] * defaults["k"] * queue[0]).sum(),
        lambda: ordered.update(k=3.0),
        lambda: defaults.update(k=5.0),
        lambda: queue.__setitem__(0, 7.0),
        lambda: queue.appendleft(11.0),
        lambda: defaults.pop("k"),
    )
    assert compiled == plain and len(set(plain)) == 6


def test_a_forward_of_the_module_itself_is_followed():
    net = pb.nn.Sequential(pb.nn.Identity())
    own = Net()
    plain, compiled = _results(
        lambda x: net(x).sum() + own(x),
        lambda: setattr(net[0], "forward", lambda x: x * 3),
        lambda: setattr(own, "forward", lambda x: x.sum() * scale),
        lambda: delattr(own, "forward"),
        lambda: setattr(own, "more", lambda x: x.sum() * 100),
    )
    assert compiled == plain and len(set(plain)) == 4


def test_containers_in_attributes_of_the_packages_modules_are_followed():
    net = pb.nn.Linear(2, 2)
    net.settings = {"gain": 1.0}
    plain, compiled = _results(lambda x: (x * net.settings["gain"]).sum(), lambda: net.settings.update(gain=4.0))
    assert compiled == plain == [2.0, 8.0]


def test_arrays_are_read_anew_and_those_that_the_step_writes_as_it_read_them():
    whole, wide, scratch = np.ones(2, np.float32), np.ones((2, 4)), np.zeros(2, np.float32)

    def function(x):
        total = x * pb.tensor(whole) + pb.tensor(wide[:, ::2], dtype=pb.float32).sum(1)
        for number in range(2):
            scratch[:] = number + 1
            total = total * pb.tensor(scratch)
        return (total + pb.tensor(np.full(2, 3.0, np.float32))).sum()

    plain, compiled = _results(function, lambda: whole.fill(5.0), lambda: wide.fill(-2.0))
    assert compiled == plain and len(set(plain)) == 3
    step = pb.compile(function)
    step(pb.ones(2))
    program = step.program
    whole.fill(9.0)
    assert step(pb.ones(2)).item() == function(pb.ones(2)).item() and step.program is program


def test_the_default_dtype_is_followed():
    step = pb.compile(lambda: pb.zeros(2) + 1)
    assert step().dtype is pb.float32
    pb.set_default_dtype(pb.float64)
    try:
        assert step().dtype is pb.float64
    finally:
        pb.set_default_dtype(pb.float32)
    assert step().dtype is pb.float32


def test_a_global_of_the_name_of_an_attribute_is_not_followed():
    names = {"pb": pb, "model": pb.nn.Linear(2, 1), "scale": 1.0, "step": 0}
    source = """
    optimizer = pb.optim.SGD(model.parameters(), lr=0.1)
    def train(x):
        loss = model(x).sum() * scale
        loss.backward()
        optimizer.step()
    """
    exec("\n".join(line[4:] for line in source.splitlines()), names)
    train, programs = pb.compile(names["train"]), []
    for change in ({}, {"step": 1}, {"step": 2}, {"scale": 2.0}):
        names.update(change)
        names["optimizer"].zero_grad()
        train(pb.ones(1, 2))
        programs.append(train.program)
    assert programs[0] is programs[1] is programs[2] is not programs[3]


_SEEN: list[float] = []
_GAIN = 2.0


def _noting(array):
    _SEEN.append(float(array.mean()) * _GAIN)
    return array


class _Noting:
    def __init__(self):
        self.seen, self.gain = [], 2.0

    def note(self, array):
        self.seen.append(float(array.mean()))
        return array

    def step(self, x):
        return pb.utils.host_call(self.note, (3,), pb.float32, x).sum() * self.gain


def test_what_host_calls_alone_name_is_read_at_each_run_and_makes_no_recording(monkeypatch):
    x, seen, factor, noting = pb.ones(3), [], [3.0], _Noting()

    def by_global(x):
        return pb.utils.host_call(_noting, (3,), pb.float32, x).sum() + 0.0

    def by_closure(x):
        return pb.utils.host_call(lambda array: (seen.append(1), array)[1], (3,), pb.float32, x).sum() * factor[0]

    steps = [pb.compile(function) for function in (by_global, by_closure, noting.step)]
    _SEEN.clear()
    for _ in range(5):
        found = [step(x).item() for step in steps]
    assert found == [3.0, 9.0, 6.0]
    assert (len(_SEEN), len(seen), len(noting.seen)) == (5, 5, 5)
    assert [sum(map(len, step._variants.values())) for step in steps] == [1, 1, 1]
    monkeypatch.setattr(sys.modules[__name__], "_GAIN", 5.0)
    steps[0](x)
    assert _SEEN[-1] == 5.0 and len(steps[0]._variants) == 1
    factor[0], noting.gain = 4.0, 7.0  # what the step itself reads is followed as before
    assert [step(x).item() for step in steps[1:]] == [12.0, 21.0]
    assert [sum(map(len, step._variants.values())) for step in steps] == [1, 2, 2]
