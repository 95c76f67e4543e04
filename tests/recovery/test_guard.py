"""A run into which spikes and NaNs are put ends where the undisturbed one does; what was done is noted."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pullback as pb
from oracle import numbers
from pullback.errors import GuardError, NonFiniteError
from pullback.recovery.spikes import Window

nn, data = pb.nn, pb.utils.data


def _examples() -> Any:
    inputs = pb.randn(400, 8, generator=pb.Generator(1))
    return inputs, (inputs[:, :1] * 2 + (inputs[:, 1:2] * 3).sin())


class _Run:
    """A small regression with dropout, Adam and a schedule; batches whose numbers are in `bad` are spoilt."""

    def __init__(self, bad: dict[int, float], **options: Any) -> None:
        pb.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Dropout(0.05), nn.Linear(32, 1))
        self.optimizer = pb.optim.Adam(self.model.parameters(), lr=0.01)
        self.scheduler = pb.optim.lr_scheduler.StepLR(self.optimizer, 60, 0.8)
        inputs, targets = _examples()
        for number, value in bad.items():
            inputs[10 * number] = value
        dataset = data.TensorDataset(inputs, targets)
        self.loader = data.DataLoader(dataset, 10, shuffle=options.pop("shuffle", True), generator=pb.Generator(2))
        self.guard = pb.Guard(
            self.model, self.optimizer, scheduler=self.scheduler, **{"every": 10, "keep": 3, **options}
        )

        @pb.compile(on_nonfinite="rollback")
        def step(x: Any, y: Any) -> Any:
            self.optimizer.zero_grad()
            loss = nn.functional.mse_loss(self.model(x), y)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), 1e6)
            self.optimizer.step()
            return loss, norm

        self.step = step

    def train(self, epochs: int) -> float:
        """The loss over all sound examples after so many epochs in all."""
        for x, y in self.guard.batches(self.loader, epochs):
            if self.guard.observe(*self.step(x, y)):
                self.scheduler.step()
        return self.loss()

    def loss(self) -> float:
        self.model.eval()
        inputs, targets = _examples()
        with pb.no_grad():
            loss = nn.functional.mse_loss(self.model(inputs), targets).item()
        self.model.train()
        return loss


def _weights(run: _Run) -> bytes:
    return b"".join(numbers(p.detach()).tobytes() for p in run.model.parameters())


def test_spikes_and_nans_are_survived_and_the_run_ends_where_the_clean_one_does() -> None:
    clean = _Run({}).train(8)
    run = _Run({3: math.nan, 17: 3e3, 31: math.inf}, tries=6)
    loss = run.train(8)
    assert loss < 1.05 * clean, (loss, clean)
    kinds = {event.kind for event in run.guard.events}
    assert kinds == {"nonfinite", "spike"} and run.step.skipped > 0
    # the shuffle puts the spoilt examples into other batches of each epoch
    assert all(event.restored is not None and "left out" in event.changes[0] for event in run.guard.events)
    named = next(event for event in run.guard.events if event.fault)
    assert named.fault["op"] == "linear" and named.fault["phase"] == "forward"
    assert json.loads(json.dumps([event.to_dict() for event in run.guard.events]))
    assert f"{len(run.guard.events)} alerts" in str(run.guard)
    assert len(run.step._variants) == 1 and sum(map(len, run.step._variants.values())) == 1


def test_a_guard_that_has_nothing_to_do_changes_no_bit() -> None:
    guarded = _Run({}, every=7)
    guarded.train(2)
    run = _Run({})
    for _ in range(2):
        for x, y in run.loader:
            run.step(x, y)
            run.scheduler.step()
    assert _weights(guarded) == _weights(run) and not guarded.guard.events


def test_after_a_return_the_same_batches_come_again() -> None:
    run = _Run({}, policy=lambda guard, event: None, shuffle=True)
    seen: list[list[float]] = []
    told = False
    for x, y in run.guard.batches(run.loader, 1):
        seen.append(numbers(x[0]).tolist())
        if len(seen) == 24 and not told:
            told = True
            run.step(x, y)
            run.guard.alert("somebody wants to go back")
            continue
        run.guard.observe(*run.step(x, y))
    assert seen[24:28] == seen[20:24] and len(seen) == 44 and run.guard.epoch == 1
    (event,) = run.guard.events
    assert (event.kind, event.step, event.restored, event.batch) == ("alert", 24, 20, 23)
    undisturbed = _Run({})
    undisturbed.train(1)
    assert [numbers(p.detach()).tolist() for p in run.model.parameters()] == [
        numbers(p.detach()).tolist() for p in undisturbed.model.parameters()
    ]


def test_snapshots_are_copies_that_are_accounted_for() -> None:
    run = _Run({}, keep=2)
    run.train(1)
    parameters = 8 * 32 + 32 + 32 + 1
    assert run.guard.snapshots == [30, 40]
    held = 2 * 3 * 4 * parameters  # the parameters and two moments, in float32
    assert held <= run.guard.nbytes < held + 2 * 2000
    before = run.guard._ring.snapshots[-1].arrays["parts.model.0.weight"].array.copy()
    run.train(2)
    assert not np.array_equal(before, numbers(run.model[0].weight.detach()))


def _one_step(run: _Run) -> None:
    x, y = next(iter(run.loader))
    run.step(x, y)


def test_the_policy_is_tried_in_turn_until_the_guard_gives_up() -> None:
    run = _Run({}, policy=["lower_lr", ("tighten_clip", "skip")], clip=1.0, every=5)
    run.guard.snapshot()
    for step in range(1, 4):
        _one_step(run)
        run.guard.observe(1.0)
        if step == 3:
            break
    rates = []
    for _ in range(3):
        run.guard.alert("worse")
        rates.append(run.optimizer.param_groups[0]["lr"])
    assert rates == [0.005, 0.005, 0.005] and run.guard.clip == 0.25 and run.scheduler.base_lrs == [0.005]
    assert "learning rate times 0.5" in run.guard.events[0].changes[0] and len(run.guard.events[1].changes) == 2
    with pytest.raises(GuardError, match="3 returns in a row did not help") as caught:
        run.guard.alert("worse")
    assert len(caught.value.events) == 4 and "worse" in str(caught.value)


@pytest.mark.parametrize("kind", ["list", "generator"])
def test_a_return_that_helped_is_not_counted_against_the_next(kind: str) -> None:
    model = nn.Linear(1, 1)
    optimizer = pb.optim.SGD(model.parameters(), lr=0.1)
    guard = pb.Guard(model, optimizer, policy=["skip", "lower_lr"])
    numbers = [math.nan if number % 40 == 39 else 1.0 for number in range(400)]
    for loss in guard.batches(numbers if kind == "list" else iter(numbers)):
        guard.observe(loss)
    changes = [change for event in guard.events for change in event.changes]
    assert len(changes) == 10
    if kind == "list":
        assert all("left out" in change for change in changes)
    # a run that comes no further gives up all the same, where what is left out would let it creep on too
    guard = pb.Guard(model, optimizer, policy=["skip", "lower_lr"])
    with pytest.raises(GuardError, match="3 returns in a row did not help: none was followed by 3 good steps of new"):
        for _ in guard.batches([0.0] * 100):
            guard.observe(math.nan if guard.batch > 20 and guard.batch % 3 else 1.0)
    assert optimizer.param_groups[0]["lr"] < 0.1


def test_an_alert_beyond_the_last_place_is_a_new_trouble() -> None:
    model = nn.Linear(1, 1)
    optimizer = pb.optim.SGD(model.parameters(), lr=0.1)
    guard = pb.Guard(model, optimizer, every=10, policy=["skip", "lower_lr"], tries=2)
    for loss in guard.batches([math.nan if number in (28, 30) else 1.0 for number in range(60)]):
        guard.observe(loss)
    assert [event.changes for event in guard.events] == [
        ["batches 27 to 29 of epoch 0 left out"],
        ["batches 29 to 31 of epoch 0 left out"],
    ]
    # not for ever: what goes on and on is a trouble of the run
    guard = pb.Guard(model, optimizer, every=10, policy=["skip", "lower_lr"], tries=2)
    with pytest.raises(GuardError, match="2 returns in a row did not help") as caught:
        for loss in guard.batches([math.nan if number > 20 else 1.0 for number in range(60)]):
            guard.observe(loss)
    changes = [event.changes[0].split()[0] for event in guard.events[:-1]]
    assert changes == ["batches", "batches", "learning"]
    assert str(caught.value).splitlines()[-1].endswith("the loss is NaN; not gone back")


def test_undecorated_loops_and_any_iterable() -> None:
    model = nn.Linear(2, 1)
    optimizer = pb.optim.SGD(model.parameters(), lr=0.1)
    guard = pb.Guard(model, optimizer, every=2, policy="lower_lr")

    def batches() -> Iterator[Any]:
        for number in range(12):
            yield pb.full((4, 2), math.nan if number == 6 else 1.0)

    given = 0
    for x in guard.batches(batches()):
        given += 1
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        guard.observe(loss)
    assert given == 12 and math.isfinite(model(pb.ones(4, 2)).sum().item())
    assert [event.reason for event in guard.events] == ["the loss is NaN"]
    assert guard.events[0].restored == 6 and optimizer.param_groups[0]["lr"] == 0.05


def test_alerts_of_a_monitor_are_asked_for() -> None:
    class Monitor:
        waiting: list[str] = []  # noqa: RUF012

        def alert(self) -> list[str]:
            told, self.waiting = self.waiting, []
            return told

    monitor = Monitor()
    run = _Run({}, alerts=[monitor])
    run.guard.snapshot()
    assert run.guard.observe(1.0)
    monitor.waiting = ["vanishing gradients in 0.weight"]
    assert not run.guard.observe(1.0) and run.guard.observe(1.0)
    assert run.guard.events[0].reason == "vanishing gradients in 0.weight"


def test_a_monitor_can_call_the_guard() -> None:
    pb.manual_seed(2)
    model = nn.Linear(3, 1)
    optimizer = pb.optim.SGD(model.parameters(), lr=0.01)
    monitor = pb.Monitor(model, optimizer)
    guard = pb.Guard(model, optimizer, every=4, spike=None, explosion=None, alerts=[monitor])

    @pb.compile
    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = (model(x) - 1).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    batches = [pb.randn(16, 3) for _ in range(80)]
    batches[60] = 1e3 * batches[60]
    losses = []
    for x in guard.batches(batches):
        loss = step(x)
        if guard.observe(loss):
            losses.append(loss.item())
    (event,) = guard.events
    assert event.kind in ("loss_spike", "exploding") and event.batch == 60, str(event)
    assert losses[-1] < 1.5


def test_an_exploding_norm_is_an_alert() -> None:
    run = _Run({})
    run.guard.snapshot()
    assert all(run.guard.observe(1.0, 0.5 + 0.01 * step) for step in range(20))
    assert run.guard.observe(1.0, 1.0)
    assert not run.guard.observe(1.0, 50.0)
    assert "the gradient norm is 50, 8" in run.guard.events[0].reason and run.guard.events[0].kind == "explosion"


def test_a_guard_goes_on_from_disk(tmp_path: Path) -> None:
    with pb.Checkpointer(tmp_path, keep=2) as snapshots:
        run = _Run({3: math.nan}, checkpointer=snapshots)
        run.train(1)
        events, step = list(run.guard.events), run.guard.snapshots[-1]
        run.guard.checkpointer = None
        expected = run.train(2), _weights(run)
    with pb.Checkpointer(tmp_path, keep=2) as snapshots:
        later = _Run({3: math.nan}, checkpointer=snapshots)
        assert later.guard.resume(later.loader) == step
        assert [str(event) for event in later.guard.events] == [str(event) for event in events]
        assert (later.train(2), _weights(later)) == expected


def test_a_window_is_not_moved_by_what_stands_out() -> None:
    window = Window(16)
    for value in [1.0, 1.1, 0.9, 1.05, 0.95, 50.0, 1.0, 1.02, 0.98, 1.01]:
        window.add(value)
    assert window.deviation(1.2)[0] < 10 < window.deviation(2.0)[0]
    assert Window(16).deviation(1e9)[0] == 0.0
    few = Window(16)
    for value in [2.3, 2.2, 2.25]:
        few.add(value)
    assert few.deviation(3.2)[0] < 10 < few.deviation(5.0)[0]


def test_wrong_arguments_are_refused() -> None:
    model = nn.Linear(1, 1)
    optimizer = pb.optim.SGD(model.parameters(), lr=0.1)
    for options, said in (
        ({"policy": "pray"}, "must be of 'skip', 'lower_lr', 'tighten_clip'"),
        ({"policy": "tighten_clip"}, "needs clip="),
        ({"policy": []}, "no change in it"),
        ({"every": 0}, "every must be a whole number of at least 1"),
        ({"lr_factor": 2.0}, "between 0 and 1"),
        ({"parts": {"loader": pb.Generator(0)}}, "cannot be called 'loader'"),
        ({"spike": -1.0}, "spike must be a number above 0"),
        ({"clip": "1"}, "clip must be a number above 0"),
    ):
        with pytest.raises(ValueError, match=said):
            pb.Guard(model, optimizer, **options)
    for options, said in (
        ({"parts": {"rate": 0.5}}, "rate is a float"),
        ({"optimizer": model}, "optimizer is a Linear, which has no param_groups"),
        ({"alerts": [3]}, "alerts are functions"),
        ({"checkpointer": "run"}, "checkpointer must be a Checkpointer, got str"),
    ):
        with pytest.raises(TypeError, match=said):
            pb.Guard(model, **{"optimizer": optimizer, **options})
    guard = pb.Guard(model, optimizer)
    with pytest.raises(ValueError, match="epochs must be a whole number"):
        next(guard.batches([1], epochs=True))
    before = guard.state_dict()
    with pytest.raises(pb.errors.StateDictError, match="not the state of a Guard"):
        guard.load_state_dict({**before, "skipped": 3})
    assert guard.state_dict() == before
    with pytest.raises(GuardError, match="no snapshot"):
        pb.Guard(model, optimizer).alert()


def test_only_what_has_a_position_is_resumed(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    with pb.Checkpointer(tmp_path) as kept:
        guard = pb.Guard(model, pb.optim.SGD(model.parameters(), lr=0.1), checkpointer=kept)
        with pytest.raises(TypeError, match="a generator cannot go on from a position"):
            guard.resume(x for x in [pb.ones(1)])


def test_a_step_that_raises_says_how_a_guard_would_take_it() -> None:
    w = pb.ones(2, requires_grad=True)
    guard = pb.Guard([], [], parts={"draws": pb.Generator(0)})

    @pb.compile
    def step(x: Any) -> None:
        (w * x).sum().backward()

    with pytest.raises(NonFiniteError) as caught:
        for x in guard.batches([pb.full((2,), math.nan)]):
            step(x)
    assert 'on_nonfinite="rollback"' in caught.value.__notes__[0]


@pytest.mark.parametrize("as_list", [False, True], ids=["loader", "list"])
def test_what_a_return_writes_to_disk_goes_on_where_the_run_goes_on(as_list: bool, tmp_path: Path) -> None:
    inputs = pb.randn(40, 8, generator=pb.Generator(3))
    inputs[17] = math.nan

    def run(directory: Path, stop: int | None) -> tuple[list[int], bytes]:
        pb.manual_seed(4)
        model = nn.Linear(8, 1)
        optimizer = pb.optim.SGD(model.parameters(), lr=0.01)
        numbered = data.TensorDataset(inputs, pb.arange(40))
        loader: Any = data.DataLoader(numbered, 1)
        if as_list:
            loader = [(inputs[i : i + 1], pb.arange(i, i + 1)) for i in range(40)]

        @pb.compile(on_nonfinite="rollback")
        def step(x: Any) -> Any:
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            optimizer.step()
            return loss

        seen = []
        with pb.Checkpointer(directory, every=5) as kept:
            guard = pb.Guard(model, optimizer, every=5, policy="skip", checkpointer=kept)
            guard.resume(loader)
            for x, number in guard.batches(loader):
                guard.observe(step(x))
                seen.append(number.item())
                if len(seen) == stop:
                    break
        return seen, numbers(model.weight.detach()).tobytes()

    whole, weights = run(tmp_path / "whole", None)
    assert whole[15:22] == [15, 16, 17, 15, 19, 20, 21]
    first, _ = run(tmp_path / "cut", 19)  # just behind the return
    rest, again = run(tmp_path / "cut", None)
    assert first == whole[:19] and rest == whole[18:] and again == weights


def test_an_alert_of_a_step_that_was_thrown_away_is_not_told_again() -> None:
    run = _Run({19: math.nan}, shuffle=False)
    monitor = pb.Monitor(run.model, run.optimizer, every=10)
    run.guard.alerts.append(monitor)
    run.train(1)
    assert len(run.guard.events) == 1, run.guard


@pytest.mark.parametrize("compiled", [False, True])
def test_overflows_that_a_scaler_leaves_out_are_no_alerts(compiled: bool) -> None:
    """Restored with the scale that was too large, the run would overflow again and again, and the guard give up."""
    pb.manual_seed(0)
    model = nn.Linear(4, 4)
    optimizer, scaler = pb.optim.SGD(model.parameters(), lr=0.01), pb.amp.GradScaler("cpu", init_scale=2.0**24)
    guard = pb.Guard(model, optimizer, every=4, parts={"scaler": scaler}, alerts=pb.Monitor(model, optimizer))

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = model(x).half().float().square().mean()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        return loss, norm

    run = pb.compile(step, on_nonfinite="rollback") if compiled else step
    for x in guard.batches([pb.randn(8, 4) for _ in range(12)]):
        assert guard.observe(*run(x))
    assert not guard.events and guard.step == 12 and 1.0 < scaler.get_scale() < 2.0**23


def test_who_observes_without_giving_batches_can_go_back_to_the_first_good_step() -> None:
    model = pb.nn.Linear(2, 1)
    optimizer = pb.optim.SGD(model.parameters(), lr=0.1)
    guard = pb.Guard(model, optimizer, policy="lower_lr")
    assert guard.observe(1.0)
    weight = model.weight.tolist()
    with pb.no_grad():
        model.weight.fill_(7.0)
    assert not guard.observe(math.nan)
    assert guard.events[-1].restored == 1
    assert model.weight.tolist() == weight
