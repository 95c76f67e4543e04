"""Alerts: each kind is raised where its fault is put in, with a reason and a remedy, and not in a sound network."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest

import pullback as pb
from pullback.monitoring import ParameterRecord, Record, Statistics
from pullback.monitoring.rules import Limits, Watch, slope

nn = pb.nn


def alerts_of(
    model: nn.Module, forward: Callable[..., Any] | None = None, parameters: Any = None, compiled: bool = True,
    rate: float = 1e-3, steps: int = 1, scale: float = 1.0,
) -> dict[str, pb.Alert]:  # fmt: skip
    """The alerts of some steps of training, by kind and place."""
    optimizer = pb.optim.Adam(list(model.parameters()) if parameters is None else parameters, lr=rate)
    monitor = pb.Monitor(model, optimizer)
    x, y = pb.randn(64, 8) * scale, pb.randn(64, 8)

    def step() -> None:
        optimizer.zero_grad()
        result = model(x) if forward is None else forward(x)
        (result - y).square().mean().backward()
        optimizer.step()

    run = pb.compile(step) if compiled else step
    for _ in range(steps):
        run()
    for alert in monitor.alerts:
        assert alert.kind in str(alert)
        assert alert.reason
        assert alert.remedy
        assert alert.step >= 1
    return {f"{alert.kind} {alert.where}": alert for alert in monitor.alerts}


def deep(layer: Callable[[], list[nn.Module]], depth: int = 8) -> nn.Module:
    pb.manual_seed(0)
    return nn.Sequential(*[part for _ in range(depth) for part in layer()])


def test_a_sound_network_raises_none() -> None:
    def layer() -> list[nn.Module]:
        linear = nn.Linear(8, 8)
        nn.init.kaiming_normal_(linear.weight)
        return [linear, nn.GELU(), nn.LayerNorm(8)]

    assert not alerts_of(deep(layer), steps=3)


def test_vanishing_tells_the_rate() -> None:
    found = alerts_of(deep(lambda: [nn.Linear(8, 8), nn.Sigmoid()]))
    alert = found["vanishing 0"]
    assert alert.value is not None
    assert alert.value < 1e-3
    assert "a layer on the way back" in alert.reason
    assert "LayerNorm" in alert.remedy


class Wave(nn.Module):
    """Bounded, and steep everywhere."""

    def forward(self, x: pb.Tensor) -> pb.Tensor:
        return (8 * x).sin()


def test_what_was_told_once_stays_told_when_its_record_is_kept_no_longer() -> None:
    model = deep(lambda: [nn.Linear(8, 8), nn.Sigmoid()])
    optimizer = pb.optim.SGD(model.parameters(), lr=1e-6)
    monitor = pb.Monitor(model, optimizer, keep=2)
    for _ in range(5):
        optimizer.zero_grad()
        model(pb.ones(4, 8)).square().mean().backward()
        optimizer.step()
    assert len(monitor.records) == 2 and not any(record.alerts for record in monitor.records)
    assert "vanishing" in {alert.kind for alert in monitor.alerts}


def test_exploding_along_the_depth_and_in_time() -> None:
    def layer() -> list[nn.Module]:
        linear = nn.Linear(8, 8)
        nn.init.xavier_normal_(linear.weight)
        return [linear, Wave()]

    alert = alerts_of(deep(layer))["exploding 0"]
    assert alert.value is not None
    assert alert.value > 1e3
    assert "clip_grad_norm_" in alert.remedy
    watch, record = Watch(Limits()), Record(1)
    watch.norms = [1.0] * 20
    record.parameters["w"] = ParameterRecord(Statistics(4, 500.0, 0.0, 1.0, 0.0, 400.0))
    (alert,) = watch.alerts(record)
    assert (alert.kind, alert.where, alert.value) == ("exploding", "all gradients", 500.0)


def test_dead_relus_saturated_sigmoids_and_large_updates() -> None:
    pb.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.Sigmoid(), nn.Linear(16, 8))
    with pb.no_grad():
        model[0].bias.fill_(-100.0)
        model[2].bias.fill_(50.0)
    found = alerts_of(model, rate=1.0)
    assert found["dead_relu 1"].value == 1.0
    assert found["saturated 3"].value == 1.0
    assert any(name.startswith("update_ratio") for name in found)
    assert "zero_gradient 0.weight" in found


class Odd(nn.Module):
    """One parameter of each structural fault."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.cut, self.quiet, self.unused, self.forgotten, self.fixed = (nn.Linear(8, 8) for _ in range(6))
        for parameter in self.fixed.parameters():
            parameter.requires_grad_(False)

    def forward(self, x: pb.Tensor) -> pb.Tensor:
        x = self.used(x) + self.cut(x).detach() + self.fixed(x)
        with pb.no_grad():
            beside = self.quiet(x).relu()
        return self.forgotten(x + beside)


@pytest.mark.parametrize("compiled", [True, False])
def test_structural_reasons(compiled: bool) -> None:
    pb.manual_seed(0)
    model = Odd()
    known = [p for name, p in model.named_parameters() if not name.startswith("forgotten")]
    found = alerts_of(model, parameters=known, compiled=compiled, steps=2)
    expected = {"cut": "detached", "quiet": "detached", "unused": "unreached", "forgotten": "not_in_optimizer"}
    expected["fixed"] = "frozen"
    named = {f"{kind} {name}.{what}" for name, kind in expected.items() for what in ("weight", "bias")}
    assert {name for name in found if name.split()[0] in expected.values()} == named
    assert "by detach()" in found["detached cut.weight"].reason
    assert f"{__file__}:" in found["detached cut.weight"].reason
    assert "no_grad()" in found["detached quiet.weight"].reason


class Cut(nn.Module):
    """A detach() behind layers that cut off something of their own."""

    def __init__(self, between: nn.Module):
        super().__init__()
        self.before, self.between, self.behind = nn.Linear(8, 8), between, nn.Linear(8, 8)

    def forward(self, x: pb.Tensor) -> pb.Tensor:
        hidden = self.between(self.before(x))
        hidden = hidden.detach()  # the cut
        return self.behind(hidden)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("name", ["LayerNorm", "BatchNorm1d", "GroupNorm", "RMSNorm", "ReLU", "Softmax", "Dropout"])
def test_a_cut_is_told_where_it_is_and_not_by_what_a_layer_cuts_off_itself(name: str, compiled: bool) -> None:
    between = nn.GroupNorm(2, 8) if name == "GroupNorm" else nn.ReLU() if name == "ReLU" else None
    between = between or (nn.Softmax(-1) if name == "Softmax" else nn.Dropout(0.1) if name == "Dropout" else None)
    found = alerts_of(Cut(between or getattr(nn, name)(8)), compiled=compiled)
    lines, start = inspect.getsourcelines(Cut)
    line = next(start + number for number, text in enumerate(lines) if "# the cut" in text)
    cut = [alert for alert in found.values() if alert.kind == "detached"]
    assert {"before.weight", "before.bias"} <= {alert.where for alert in cut}
    for alert in cut:
        assert f"{__file__}:{line}, by detach()" in alert.reason


def test_a_loss_spike_is_told_from_noise() -> None:
    watch = Watch(Limits())
    for step in range(1, 40):
        assert not watch.alerts(Record(step, loss=1.0 + 0.05 * (step % 5) - 0.01 * step))
    (alert,) = watch.alerts(Record(40, loss=4.0))
    assert (alert.kind, alert.where, alert.step) == ("loss_spike", "loss", 40)
    assert not watch.alerts(Record(41, loss=4.0))  # it goes on
    (alert,) = watch.alerts(Record(42, loss=float("nan")))
    assert alert.kind == "nonfinite"
    assert not watch.alerts(Record(43, loss=1.0))  # and is over
    assert [alert.kind for alert in watch.alerts(Record(44, loss=4.0))] == ["loss_spike"]


@pytest.mark.parametrize("before", [[1.0], [1.0, 0.9], [2.3, 2.2, 2.25], [1.0, 0.4, 0.7, 0.5, 0.6, 0.3, 0.2]])
def test_a_spike_among_the_first_losses_is_told(before: list[float]) -> None:
    for worse, is_spike in ((1.4 * max(before), False), (20.0 * max(before), True)):
        watch = Watch(Limits())
        assert not [alert for step, loss in enumerate(before) for alert in watch.alerts(Record(step, loss=loss))]
        assert [alert.kind for alert in watch.alerts(Record(9, loss=worse))] == ["loss_spike"] * is_spike


def test_a_window_is_a_number_of_records() -> None:
    with pytest.raises(ValueError, match="window must be a whole number"):
        Limits(window=True)


def test_a_loss_that_stays_where_it_has_jumped_to_is_told_once() -> None:
    watch = Watch(Limits())
    losses = [1.0 + 0.01 * (step % 3) for step in range(60)] + [5.0 + 0.01 * (step % 3) for step in range(120)]
    told = [alert.step for step, loss in enumerate(losses, 1) for alert in watch.alerts(Record(step, loss=loss))]
    assert told == [61]


def test_what_goes_on_is_told_once() -> None:
    model = deep(lambda: [nn.Linear(8, 8), nn.Sigmoid()])
    told: list[pb.Alert] = []
    optimizer = pb.optim.SGD(model.parameters(), lr=0.1)
    pb.Monitor(model, optimizer, on_alert=told.append)
    for _ in range(3):
        model(pb.ones(4, 8)).sum().backward()
        optimizer.step()
    assert [alert.kind for alert in told].count("vanishing") == 1


def test_the_slope_is_robust() -> None:
    assert slope([0.0, -1.0, -2.0, 30.0, -4.0, -5.0]) == pytest.approx(-1.0)


def update_alerts(weights: list[float], updates: list[float], gradient: float = 1.0) -> list[str]:
    """The steps of alerts of updates, of the norms of a weight and of its updates."""
    watch, found = Watch(Limits()), []
    for step, (weight, update) in enumerate(zip(weights, updates, strict=True), 1):
        record = Record(step, learning_rates=[0.1])
        record.parameters["w"] = ParameterRecord(Statistics(16, gradient, 0.0, 1.0, 0.0, 1.0), weight, update, 2)
        found += [f"{alert.kind} {alert.step}" for alert in watch.alerts(record)]
    return found


def test_updates_are_told_from_beginnings_and_ends() -> None:
    grown = [0.0, 1.0, 2.0, 3.0, 8.0, 8.0]
    assert not update_alerts(grown[:5], [1.0] * 5)  # began at 0
    assert update_alerts(grown, [1.0] * 5 + [4.0]) == ["update_ratio 6"]  # and is as others are
    assert update_alerts([1.0] * 3, [1e-9] * 3) == ["update_ratio 1"]
    assert not update_alerts([1.0] * 3, [1e-3, 1e-5, 1e-9])  # has come to rest
    assert not update_alerts([1.0] * 3, [1e-9] * 3, gradient=1e-7)  # and had before
    unsteady = [0.1, 0.3, 0.1, 0.3, *[0.1] * 49, 0.3, *[0.1] * 51, 0.3]
    assert update_alerts([1.0] * len(unsteady), unsteady) == ["update_ratio 2", "update_ratio 106"]


def test_zeros_to_begin_with_are_no_alert() -> None:
    pb.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
    with pb.no_grad():
        model[2].weight.zero_()
    assert not alerts_of(model, rate=1e-3, steps=4)  # nor that of the gradient behind them, which is 0 at first
    assert [name for name in alerts_of(model, rate=1e-11) if name.startswith("update_ratio")]
