"""The monitor: what it records is so, and nothing is computed otherwise because of it."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pullback as pb
from benchmarks import workloads

nn = pb.nn


class Network(nn.Module):
    """Layers called as modules and as functions, one of them twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.last = nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 3)
        self.norm, self.relu = nn.LayerNorm(16), nn.ReLU()

    def forward(self, x: pb.Tensor) -> pb.Tensor:
        x = self.relu(self.norm(self.first(x)))
        x = self.again(self.again(x).tanh())
        return self.last(x.sigmoid())


def training(make: Callable[[], nn.Module] = Network, compiled: bool = True, clip: bool = True, **options: Any) -> Any:
    """A step of training, the monitor, the model, and its data."""
    pb.manual_seed(0)
    model = make()
    optimizer = pb.optim.AdamW(model.parameters(), lr=1e-2)
    monitor = pb.Monitor(model, optimizer, **options) if options else None
    x, y = pb.randn(32, 6), pb.randint(0, 3, (32,))

    def step(x: pb.Tensor, y: pb.Tensor) -> pb.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        optimizer.step()
        return loss

    return pb.compile(step) if compiled else step, monitor, model, (x, y)


@pytest.mark.parametrize("compiled", [True, False])
def test_numbers_are_those_of_the_step(compiled: bool) -> None:
    seen: dict[str, list[np.ndarray]] = {}
    step, _, model, data = training(compiled=False, clip=False)
    for name, module in model.named_modules():
        module.register_forward_hook(lambda _, __, y, n=name: seen.setdefault(n, []).append(y.detach().numpy().copy()))
    before = {name: p.detach().numpy().copy() for name, p in model.named_parameters()}
    loss = step(*data).item()
    after = {name: p.detach().numpy() for name, p in model.named_parameters()}
    gradients = {name: p.grad.numpy() for name, p in model.named_parameters()}

    own, monitor, _, data = training(compiled=compiled, every=1)  # clips: gradients are recorded before that
    own(*data)
    record = monitor.last
    assert record.step == 1
    assert record.loss == pytest.approx(loss, rel=1e-6)
    assert record.learning_rates == [0.01]
    assert record.gradient_norm == pytest.approx(np.sqrt(sum((g**2).sum() for g in gradients.values())), rel=1e-5)
    for name, gradient in gradients.items():
        found = record.parameters[name].gradient
        assert found.norm == pytest.approx(np.linalg.norm(gradient), rel=1e-5)
        assert (found.mean, found.std) == pytest.approx((gradient.mean(), gradient.std()), rel=1e-3, abs=1e-7)
        assert (found.largest, found.zeros) == pytest.approx((abs(gradient).max(), (gradient == 0).mean()))
        assert record.parameters[name].weight_norm == pytest.approx(np.linalg.norm(before[name]), rel=1e-3, abs=1e-6)
        change = np.linalg.norm(after[name] - before[name])
        assert record.parameters[name].update_norm == pytest.approx(change, rel=0.05)  # of gradients that are clipped
    names = ["first", "norm", "relu", "again", "tanh", "sigmoid", "last"]
    assert sorted(record.layers) == sorted(names)
    for name in ("first", "norm", "relu", "again", "last"):
        values = np.concatenate([part.ravel() for part in seen[name]])
        found = record.layers[name].activation
        assert found.count == values.size
        expected = np.linalg.norm(values), values.mean(), values.std(), (values == 0).mean(), abs(values).max()
        assert (found.norm, found.mean, found.std, found.zeros, found.largest) == pytest.approx(
            expected, rel=1e-4, abs=1e-6
        )
    relu, tanh = record.layers["relu"], np.tanh(seen["again"][0])
    assert relu.dead == (seen["relu"][0] == 0).all(0).mean()
    assert relu.saturated == relu.activation.zeros
    assert record.layers["tanh"].saturated == pytest.approx((abs(tanh) > 0.99).mean())
    weights = gradients["again.weight"]
    assert record.depth["again"] == pytest.approx(np.sqrt((weights**2).mean()), rel=1e-5)


# One matrix product after the other with clipping, convolutions and normalization, a loop, outer products.
CASES: dict[str, dict[str, Any]] = {
    "ppo": {}, "lstm": {}, "sigmoid20": {}, "gpt-char": {"layers": 1, "batch": 2},
    "resnet20": {"blocks": 1, "batch": 4, "size": 8},
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_same_bits_with_and_without(name: str) -> None:
    def trained(every: int | None, compiled: bool = True) -> tuple[list[float], list[np.ndarray]]:
        pb.manual_seed(0)
        workload = workloads.build(pb, name, **CASES[name])
        if every is not None:
            pb.Monitor(workload.model, workload.optimizer, every=every, histograms=every if name == "ppo" else None)
        step = pb.compile(workload.step) if compiled else workload.step
        losses = [step().item() for _ in range(3)]
        return losses, [value.numpy().copy() for value in workload.model.state_dict().values()]

    expected = trained(None)
    others = [trained(2)] + ([trained(1, compiled=False)] if name == "ppo" else [])
    for losses, weights in others:
        assert losses == expected[0]
        assert all(map(np.array_equal, weights, expected[1]))


def test_steps_that_are_not_recorded_are_what_they_are_without() -> None:
    plain, _, _, data = training()
    plain(*data)
    step, monitor, _, data = training(every=3)
    for _ in range(4):
        step(*data)
    assert [record.step for record in monitor.records] == [1, 3]
    assert len(step.program.outputs) == len(plain.program.outputs)
    assert step.memory == plain.memory
    for _ in range(2):
        step(*data)
    assert [record.step for record in monitor.records] == [1, 3, 6]
    assert "2 recordings" in repr(step)


def test_no_pass_over_memory_is_added_for_matrix_products() -> None:
    """All that is large is looked at where it is made: further launches read numbers and vectors alone."""

    def read(every: int | None) -> int:
        pb.manual_seed(0)
        workload = workloads.build(pb, "gpt-char", layers=1, batch=4)
        if every:
            pb.Monitor(workload.model, workload.optimizer)
        step = pb.compile(workload.step)
        step()
        nodes = (node for launch in step.program.layout.launches() for node in launch.reads)
        return sum(int(np.prod(node.shape)) * node.dtype.itemsize for node in nodes)

    assert read(1) < 1.03 * read(None)


def test_a_step_that_is_refused_is_not_counted() -> None:
    step, monitor, _, (x, y) = training(every=1)
    step(x, y)
    with pytest.raises(pb.errors.NonFiniteError):
        step(x * float("nan"), y)
    step(x, y)
    assert [record.step for record in monitor.records] == [1, 2]


@pytest.mark.parametrize("compiled", [True, False])
def test_gradients_of_activations(compiled: bool) -> None:
    step, _, model, data = training(compiled=False)
    kept: dict[str, list[pb.Tensor]] = {}

    def keep(name: str, y: pb.Tensor) -> None:
        y.retain_grad()
        kept.setdefault(name, []).append(y)

    for name, module in model.named_modules():
        module.register_forward_hook(lambda _, __, y, n=name: keep(n, y))
    step(*data)
    gradients = {
        name: np.concatenate([y.grad.numpy().ravel() for y in of if y.grad is not None]) for name, of in kept.items()
    }
    expected = [value.numpy().copy() for value in model.state_dict().values()]
    step, monitor, model, data = training(compiled=compiled, activation_gradients=True)
    step(*data)
    layers = monitor.last.layers
    for name in ("first", "norm", "relu", "again", "last"):
        found, own = layers[name].activation_gradient, gradients[name]
        assert (found.count, found.zeros) == (own.size, pytest.approx((own == 0).mean()))
        assert (found.norm, found.largest) == pytest.approx((np.linalg.norm(own), abs(own).max()), rel=1e-5)
    assert layers["tanh"].activation_gradient.norm > 0
    assert monitor.last.scalars()["activation_gradient/again/norm"] == layers["again"].activation_gradient.norm
    assert all(map(np.array_equal, expected, [value.numpy() for value in model.state_dict().values()]))
    step, monitor, _, data = training(compiled=compiled, every=1)
    step(*data)
    assert all(layer.activation_gradient is None for layer in monitor.last.layers.values())


def test_a_step_that_is_skipped_is_told_and_not_counted() -> None:
    pb.manual_seed(0)
    model, (x, y) = Network(), (pb.randn(32, 6), pb.randint(0, 3, (32,)))
    optimizer = pb.optim.Adam(model.parameters(), lr=1e-2)
    monitor = pb.Monitor(model, optimizer)

    @pb.compile(on_nonfinite="skip")
    def step(x: pb.Tensor) -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    step(x)
    with pytest.warns(UserWarning, match="skipped"):
        step(x * float("nan"))
    record = monitor.last
    assert (record.step, record.skipped, monitor.steps) == (2, True, 1)
    assert all(p.update_norm is None for p in record.parameters.values())
    (alert,) = record.alerts
    assert alert.kind == "nonfinite"
    assert 'on_nonfinite="raise"' in alert.remedy
    step(x)
    assert (monitor.last.step, monitor.last.skipped, monitor.steps) == (2, False, 2)
    assert len(monitor.watch.losses) == 2


@pytest.mark.parametrize("compiled", ["not", "together", "apart"])
def test_several_optimizers_that_step_in_turn(compiled: str) -> None:
    """The gradient of each parameter is the one that its own optimizer has stepped with."""
    pb.manual_seed(0)
    made, judged, x = nn.Linear(4, 6), nn.Linear(6, 1), pb.randn(8, 6)
    optimizers = [pb.optim.SGD(judged.parameters(), lr=0.1), pb.optim.SGD(made.parameters(), lr=0.2)]
    monitor = pb.Monitor(nn.ModuleDict({"made": made, "judged": judged}), optimizers)
    norms: list[Any] = []

    def judging(z: pb.Tensor) -> Any:
        optimizers[0].zero_grad()
        (judged(made(z).detach()).mean() - judged(x).mean()).backward()
        norm = judged.weight.grad.square().sum().sqrt()
        optimizers[0].step()
        return norm

    def making(z: pb.Tensor) -> Any:
        optimizers[1].zero_grad()
        judged(made(z)).square().mean().backward()
        norm = made.weight.grad.square().sum().sqrt()
        optimizers[1].step()
        return norm

    if compiled == "apart":
        judging, making = pb.compile(judging), pb.compile(making)
    both = (
        (lambda z: (judging(z), making(z))) if compiled != "together" else pb.compile(lambda z: (judging(z), making(z)))
    )
    for _ in range(2):
        norms = [norm.item() for norm in both(pb.randn(8, 4))]
    record = monitor.last
    assert (record.step, record.learning_rates) == (2, [0.1, 0.2])
    found = [record.parameters[f"{name}.weight"].gradient.norm for name in ("judged", "made")]
    assert found == pytest.approx(norms, rel=1e-5)
    assert all(p.update_norm is not None for p in record.parameters.values())
    assert not [a for a in monitor.alerts if a.kind in ("detached", "unreached", "not_in_optimizer")]


@pytest.mark.parametrize("state", [{}, {"steps": 3}, {"steps": 3, "watch": {"losses": None}, "told": []}, 7])
def test_what_is_no_state_is_refused_and_changes_nothing(state: Any) -> None:
    step, monitor, _, data = training(every=1)
    step(*data)
    before = monitor.state_dict()
    with pytest.raises(pb.errors.StateDictError, match="not the state of a Monitor"):
        monitor.load_state_dict(state)
    assert monitor.state_dict() == before


def test_evaluation_is_not_recorded() -> None:
    step, monitor, model, (x, y) = training(every=1)
    evaluate = pb.compile(lambda x: nn.functional.cross_entropy(model(x), y))
    evaluate(x)
    model(x).sum().item()
    step(x, y)
    assert monitor.steps == 1
    assert monitor.last.layers["first"].activation.count == 32 * 16


def test_gradients_of_several_batches_are_one_step() -> None:
    pb.manual_seed(0)
    model, x, y = Network(), pb.randn(32, 6), pb.randint(0, 3, (32,))
    optimizer = pb.optim.SGD(model.parameters(), lr=0.1)
    monitor = pb.Monitor(model, optimizer)
    for part in range(2):
        rows = slice(16 * part, 16 * part + 16)
        (nn.functional.cross_entropy(model(x[rows]), y[rows]) / 2).backward()
    gradient = model.first.weight.grad.numpy().copy()
    optimizer.step()
    assert monitor.last.parameters["first.weight"].gradient.norm == pytest.approx(np.linalg.norm(gradient), rel=1e-5)
    assert monitor.last.layers["first"].activation.count == 32 * 16


@pytest.mark.parametrize("compiled", [True, False])
def test_what_was_cleared_before_the_step_does_not_count(compiled: bool) -> None:
    """As in the closures of a line search."""
    pb.manual_seed(0)
    model, x, y = Network(), pb.randn(32, 6), pb.randint(0, 3, (32,))
    optimizer = pb.optim.SGD(model.parameters(), lr=0.1)
    monitor = pb.Monitor(model, optimizer)

    def step() -> pb.Tensor:
        for _ in range(3):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
        optimizer.step()
        return loss

    loss = (pb.compile(step) if compiled else step)()
    assert monitor.last.loss == loss.item()
    assert monitor.last.layers["first"].activation.count == 32 * 16


def test_a_forward_pass_and_an_update_compiled_apart() -> None:
    pb.manual_seed(0)
    model, x, y = Network(), pb.randn(32, 6), pb.randint(0, 3, (32,))
    optimizer = pb.optim.SGD(model.parameters(), lr=0.1)
    monitor = pb.Monitor(model, optimizer, every=2)

    @pb.compile
    def gradients() -> pb.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        return loss

    update = pb.compile(lambda: optimizer.step())
    for _ in range(3):
        loss = gradients().item()
        update()
        if monitor.last.step == monitor.steps:
            assert monitor.last.loss == loss
            assert monitor.last.parameters["first.weight"].gradient.norm > 0
            assert monitor.last.parameters["first.weight"].update_ratio > 0
    assert [record.step for record in monitor.records] == [1, 2]


def test_histograms_count_all_elements() -> None:
    step, monitor, model, data = training(every=1, histograms=2)
    for _ in range(2):
        step(*data)
    weights = model.again.weight.detach().numpy()
    found = monitor.last.histograms["again.weight"]["weight"]
    counts, _ = np.histogram(weights, np.asarray(found.edges))
    assert found.largest == pytest.approx(abs(weights).max())
    assert (found.minimum, found.maximum) == pytest.approx((weights.min(), weights.max()))
    assert sum(found.counts) == weights.size
    assert abs(np.asarray(found.counts) - counts).sum() <= 2  # the outermost lie on an edge
    assert set(monitor.last.histograms["again.weight"]) == {"gradient", "weight"}
    assert sum(monitor.last.histograms["relu"]["activation"].counts) == 32 * 16
    step(*data)
    assert not monitor.last.histograms


def test_sinks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records: list[Any] = []
    path = tmp_path / "run.jsonl"
    step, monitor, _, data = training(every=1, sinks=[records.append, path, "terminal"])
    for _ in range(2):
        step(*data)
    monitor.close()
    step(*data)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines] == [1, 2] == [record.step for record in records]
    assert lines[1]["gradient/again.weight/norm"] == records[1].parameters["again.weight"].gradient.norm
    assert "activation/relu/dead" in lines[0]
    printed = capsys.readouterr().out
    assert "step 2: loss" in printed
    assert "tanh" in printed


def test_tensorboard_reads_what_is_written(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    step, monitor, _, data = training(every=1, histograms=1, sinks=pb.monitoring.TensorBoard(tmp_path))
    step(*data)
    monitor.close()
    events = accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    (scalar,) = events.Scalars("gradient/again.weight/norm")
    assert scalar.step == 1
    assert scalar.value == pytest.approx(monitor.last.parameters["again.weight"].gradient.norm)
    (histogram,) = events.Histograms("weights/again.weight")
    assert histogram.histogram_value.num == 256
    assert histogram.histogram_value.min == monitor.last.histograms["again.weight"]["weight"].minimum


def test_the_state_goes_on(tmp_path: Path) -> None:
    step, monitor, _, data = training(every=2)
    for _ in range(3):
        step(*data)
    pb.save({"monitor": monitor.state_dict()}, tmp_path / "state.safetensors")
    step, other, _, data = training(every=2)
    with pytest.raises(LookupError):
        other.last  # noqa: B018
    other.load_state_dict(pb.load(tmp_path / "state.safetensors")["monitor"])
    assert other.last == monitor.last and other.last.step == 2 and not other.records
    assert other.state_dict() == monitor.state_dict()
    step(*data)
    assert [record.step for record in other.records] == [4]
    assert other.watch.losses == [*monitor.watch.losses, other.last.loss]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"every": 0}, "every"), ({"every": 2, "histograms": 3}, "multiple of every"), ({"sinks": "out.txt"}, ".jsonl")],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        training(**options)


def test_what_is_no_optimizer_is_refused() -> None:
    model = Network()
    optimizer = pb.optim.SGD(model.parameters(), lr=0.1)
    for given in (model, [], [optimizer, model], None):
        with pytest.raises(TypeError, match="takes the model's optimizer, or a list of them"):
            pb.Monitor(model, given)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="twice"):
        pb.Monitor(model, [optimizer, optimizer])
    with pytest.raises(TypeError, match="sinks are functions, paths or objects"):
        pb.Monitor(model, optimizer, sinks=3)
    with pytest.raises(TypeError, match="limits"):
        pb.Monitor(model, optimizer, limits=3)  # type: ignore[arg-type]


def test_steps_of_other_models_are_no_part_of_a_record() -> None:
    pb.manual_seed(0)
    one, other = pb.nn.Linear(4, 1), pb.nn.Linear(4, 1)
    x, y = pb.randn(8, 4), pb.randn(8, 1)

    def stepped(model: Any) -> Any:
        optimizer = pb.optim.SGD(model.parameters(), lr=0.1)

        @pb.compile
        def step() -> Any:
            optimizer.zero_grad()
            loss = pb.nn.functional.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        return optimizer, step

    (own, step), (_, another) = stepped(one), stepped(other)
    monitor = pb.Monitor(one, own)
    for _ in range(3):
        loss = step()
        another()
        assert monitor.last.loss == loss.item()
    assert monitor.steps == 3 and not [a for a in monitor.alerts if a.kind in ("unreached", "detached")]


def test_updates_that_an_anomaly_mode_looks_at_are_no_gradients() -> None:
    model, other = pb.nn.Linear(2, 1), pb.ones(2, requires_grad=True)
    monitor = pb.Monitor(model, pb.optim.SGD(model.parameters(), lr=0.1))
    optimizer = pb.optim.SGD([other], lr=0.1)
    with pb.autograd.detect_anomaly():
        other.sum().backward()
        optimizer.step()
    assert other.tolist() == pytest.approx([0.9, 0.9]) and monitor.steps == 0


@pytest.mark.parametrize("compiled", [False, True])
def test_of_scaled_losses_the_plain_ones_are_recorded(compiled: bool) -> None:
    pb.manual_seed(0)
    model = pb.nn.Linear(4, 1)
    optimizer, scaler = pb.optim.SGD(model.parameters(), lr=0.01), pb.amp.GradScaler("cpu", growth_interval=2)
    x = pb.randn(8, 4)

    def step() -> Any:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss

    norms = []
    with pb.Monitor(model, optimizer) as monitor:
        run = pb.compile(step) if compiled else step
        for _ in range(4):
            weight = model.weight.detach().clone()
            loss = run().item()
            assert monitor.last.loss == pytest.approx(loss, rel=1e-6)
            changed = monitor.last.parameters["weight"].update_norm
            assert changed == pytest.approx((model.weight.detach() - weight).norm().item(), rel=1e-4)
            norms.append(monitor.last.parameters["weight"].gradient.norm / (changed / 0.01))
    assert norms == pytest.approx([1.0] * 4, rel=1e-3) and scaler.get_scale() > 65536.0


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("compiled", [False, True])
def test_an_overflow_of_a_scaled_loss_is_a_step_that_was_skipped(compiled: bool, every: int) -> None:
    """It is told, raises no alert, and is not counted: the next step has its number."""
    pb.manual_seed(0)
    model, factor, x = nn.Linear(4, 4), pb.tensor(1.0), pb.randn(8, 4)
    optimizer, scaler = pb.optim.Adam(model.parameters(), lr=0.01), pb.amp.GradScaler("cpu")
    monitor = pb.Monitor(model, optimizer, every)

    def step() -> Any:
        optimizer.zero_grad()
        loss = (model(x).half() * factor.half()).float().square().mean()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss

    run = pb.compile(step) if compiled else step
    for number in range(14):
        factor.fill_(10.0 if number in (1, 12) else 0.01)
        assert np.isfinite(run().item())
    assert scaler.get_scale() == 2.0**14 and monitor.steps == 12 and not monitor.alerts
    expected = [(1, False), (2, True), (2, False), (4, False), (6, False), (8, False), (10, False), (12, True)]
    told = [(record.step, record.skipped) for record in monitor.records if every == 2 or record.skipped]
    assert told == ([*expected, (12, False)] if every == 2 else [(2, True), (12, True)])
    for record in monitor.records:
        weight = record.parameters["weight"]
        assert (weight.update_norm is None) is record.skipped is not weight.gradient.is_finite
        assert record.compiled is compiled
    assert len(monitor.watch.losses) == sum(not record.skipped for record in monitor.records)


@pytest.mark.parametrize("compiled", [False, True])
def test_of_two_optimizers_one_that_overflows_makes_the_step_a_skipped_one(compiled: bool) -> None:
    model, factor = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)]), pb.tensor(1.0)
    optimizers = [pb.optim.SGD(part.parameters(), lr=0.01) for part in model]
    scaler, monitor = pb.amp.GradScaler("cpu", growth_interval=100), pb.Monitor(model, optimizers)

    def step() -> None:
        for optimizer in optimizers:
            optimizer.zero_grad()
        x = pb.ones(3, 2)
        loss = model[1](x).square().mean() + (model[0](x).half() * factor.half()).float().square().mean()
        scaler.scale(loss).backward()
        for optimizer in optimizers:
            scaler.step(optimizer)
        scaler.update()

    run = pb.compile(step) if compiled else step
    for number in range(4):
        factor.fill_(50.0 if number == 1 else 0.01)
        run()
    assert [(record.step, record.skipped) for record in monitor.records] == [
        (1, False), (2, True), (2, False), (3, False),
    ]  # fmt: skip
    assert scaler.get_scale() == 2.0**15 and not monitor.alerts
    assert all(len(record.depth) == 2 for record in monitor.records)


def test_a_step_of_another_model_is_not_observed() -> None:
    watched = pb.nn.Linear(4, 4)
    monitor = pb.Monitor(watched, pb.optim.SGD(watched.parameters(), lr=0.1), activation_gradients=True)
    model = pb.nn.Sequential(pb.nn.Linear(4, 4), pb.nn.ReLU())
    optimizer = pb.optim.SGD(model.parameters(), lr=0.1)

    @pb.compile
    def step(x: pb.Tensor) -> None:
        optimizer.zero_grad()
        (watched(x) + pb.relu(model(x))).square().mean().backward(inputs=list(model.parameters()))
        optimizer.step()

    x = pb.randn(8, 4)
    step(x)
    assert not step._last.observed._shares, "a monitor has put its numbers into a step that trains another model"
    monitor._turn = 0  # as if it were not to record the next one
    step(x)
    assert step._recordings == 1, "the turn of a monitor has recorded another model's step anew"
    assert monitor.steps == 0
    monitor.close()


@pytest.mark.parametrize("compiled", [False, True])
def test_what_other_models_of_a_step_compute_is_no_part_of_a_record(compiled: bool) -> None:
    pb.manual_seed(0)
    maker = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
    judge = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1))
    with pb.no_grad():
        maker[0].bias.fill_(-100.0)
    of_maker, of_judge = (pb.optim.Adam(model.parameters(), lr=1e-3) for model in (maker, judge))
    monitor = pb.Monitor(judge, of_judge)

    def step(x: pb.Tensor, z: pb.Tensor) -> pb.Tensor:
        of_judge.zero_grad()
        loss = judge(x).square().mean() + (judge(maker(z).detach()) - 1).square().mean()
        loss.backward()
        of_judge.step()
        of_maker.zero_grad()
        judge(maker(z)).square().mean().backward()
        of_maker.step()
        return loss

    run = pb.compile(step) if compiled else step
    for _ in range(3):
        loss = run(pb.randn(8, 2), pb.randn(8, 4))
        assert monitor.last.loss == pytest.approx(loss.item())
        assert list(monitor.last.layers) == ["0", "1", "2"]
        assert monitor.last.layers["1"].activation.count == 2 * 8 * 16
    assert monitor.steps == 3 and not [alert for alert in monitor.alerts if alert.kind == "dead_relu"]
    monitor.close()


def test_a_copy_of_a_watched_model_is_not_watched(tmp_path: Path) -> None:
    """As for an average of weights, or the best model so far."""
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    optimizer = pb.optim.SGD(model.parameters(), lr=0.1)
    with pb.Monitor(model, optimizer, sinks=[tmp_path / "made" / "records.jsonl", "terminal"]) as monitor:
        x = pb.randn(8, 3)

        def step() -> None:
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()

        step()
        average, copied = pb.optim.swa_utils.AveragedModel(model), copy.deepcopy(model)
        own = pb.optim.SGD(copied.parameters(), lr=0.1)
        own_copy = copy.deepcopy(optimizer)
        copied(x).square().mean().backward()
        own.step()
        own_copy.step()
        assert monitor.steps == 1
        step()
        copy.deepcopy(copied)
        average.update_parameters(model)
        assert monitor.steps == 2 and len((tmp_path / "made" / "records.jsonl").read_text().splitlines()) == 2
