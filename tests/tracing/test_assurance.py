"""Updates that are not finite reach no state; that they are finite is known beforehand, without looking at them."""

import math
from typing import Any

import numpy as np
import pytest

import pullback as pb
from oracle import numbers
from pullback.errors import NonFiniteError
from pullback.ops.bounds import Interval, measured
from pullback.tracing.assurance import LARGEST, Assurance

nn, optim = pb.nn, pb.optim

MAKERS: dict[str, Any] = {
    "SGD": lambda p: optim.SGD(p, lr=0.1),
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "momentum and decay": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-4),
    "Adam": lambda p: optim.Adam(p, lr=0.01),
    "Adam and decay": lambda p: optim.Adam(p, lr=0.01, weight_decay=1e-4),
    "amsgrad": lambda p: optim.Adam(p, lr=0.01, amsgrad=True),
    "AdamW": lambda p: optim.AdamW(p, lr=0.01),
    "Adagrad": lambda p: optim.Adagrad(p, lr=0.01),
    "RMSprop": lambda p: optim.RMSprop(p, lr=0.01, momentum=0.9),
    "Adamax": lambda p: optim.Adamax(p, lr=0.01),
    "NAdam": lambda p: optim.NAdam(p, lr=0.01),
    "RAdam": lambda p: optim.RAdam(p, lr=0.01),
    "Adafactor": lambda p: optim.Adafactor(p, lr=0.01),
    "Muon": lambda p: optim.Muon(p, lr=0.01),
}
#: of these nothing need be looked at before it is written
ASSURED = ["SGD", "momentum", "momentum and decay", "Adam", "amsgrad", "AdamW", "Adagrad", "RMSprop", "Adamax"]


class _Run:
    """The gradient is what is given."""

    def __init__(self, name: str, clip: bool = False, **options: Any) -> None:
        self.w = pb.linspace(-1, 1, 12).reshape(3, 4).clone().requires_grad_()
        self.optimizer = MAKERS[name]([self.w])

        @pb.compile(**options)
        def step(x: Any) -> Any:
            self.optimizer.zero_grad()
            loss = ((self.w - self.w.detach()) * x).sum() * 1e-3
            loss.backward()
            if clip:
                nn.utils.clip_grad_norm_([self.w], 1.0)
            self.optimizer.step()  # update
            return loss

        self.step = step

    def bits(self) -> list[bytes]:
        held = [self.w, *self.optimizer.state[self.w].values()]
        return [numbers(tensor.detach()).tobytes() for tensor in held if isinstance(tensor, pb.Tensor)]


# Adafactor takes the lesser of its rate and 1 / sqrt(step)
@pytest.mark.parametrize("name", [name for name in MAKERS if name != "Adafactor"])
def test_an_update_that_overflows_changes_no_bit_and_is_named(name: str) -> None:
    run, undisturbed = _Run(name), _Run(name)
    x = pb.linspace(1, 2, 12).reshape(3, 4)
    run.step(x), run.step(x)
    before = run.bits()
    rate = run.optimizer.param_groups[0]["lr"]
    run.optimizer.param_groups[0]["lr"] = 1e39
    with pytest.raises(NonFiniteError) as caught:
        run.step(x)
    error = caught.value
    assert run.bits() == before
    assert (error.op, error.phase, error.step) == ("optimizer.step", "update", 3), error
    assert error.filename == __file__ and "the new value" not in error.how and "a new value" in str(error)
    run.optimizer.param_groups[0]["lr"] = rate
    run.step(x)
    for _ in range(3):
        undisturbed.step(x)
    assert run.bits() == undisturbed.bits()


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("name", ASSURED)
def test_bounds_hold_what_a_run_comes_to(name: str, clip: bool) -> None:
    run = _Run(name, clip)
    for number in range(6):
        # as large as the guard lets through, of either sign
        run.step(pb.full((3, 4), (-1) ** (number // 3) * LARGEST * 100))
        replay = run.step._last
        assert replay.assured is not None and not replay.guard.looked_at and not replay.is_exact
        known = {role.key[0]: bounds for role, bounds in replay.assured.ledger.known.items()}
        state = {"parameter": run.w, **run.optimizer.state[run.w]}
        for slot, tensor in state.items():
            if slot in known:
                assert known[slot].holds(measured(numbers(tensor.detach()))), (slot, known[slot])
        assert run.step.program is replay.program and math.isfinite(run.w.sum().item())


def test_state_that_somebody_has_spoilt_is_seen() -> None:
    run = _Run("Adam")
    x = pb.ones(3, 4)
    run.step(x), run.step(x)
    with pb.no_grad():
        run.optimizer.state[run.w]["exp_avg_sq"].fill_(-1.0)
    before = run.bits()
    with pytest.raises(NonFiniteError, match="square root of a negative") as caught:
        run.step(x)
    assert caught.value.phase == "update" and run.bits() == before


def test_state_that_another_step_has_spoilt_is_seen() -> None:
    run = _Run("Adam")
    x = pb.ones(3, 4)
    run.step(x), run.step(x)

    @pb.compile(on_nonfinite="ignore")
    def spoil() -> None:
        with pb.no_grad():
            run.optimizer.state[run.w]["exp_avg_sq"].mul_(-1e6)

    spoil()
    before = run.bits()
    with pytest.raises(NonFiniteError, match="square root of a negative"):
        run.step(x)
    assert run.bits() == before


def test_steps_for_several_sizes_measure_the_state_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int] = []
    find = Assurance.find
    monkeypatch.setattr(Assurance, "find", lambda *given: found.append(1) or find(*given))
    layer = nn.Linear(3, 2)
    optimizer = optim.AdamW(layer.parameters(), lr=0.01)

    @pb.compile
    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = layer(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    for size in (4, 5):
        step(pb.ones(size, 3))
    found.clear()
    for number in range(12):
        optimizer.param_groups[0]["lr"] = 0.01 * (1 + number / 10)
        step(pb.ones(4 + number % 2, 3))
    assert found == []


def test_larger_gradients_are_applied_nevertheless() -> None:
    run = _Run("SGD")
    run.optimizer.param_groups[0]["lr"] = 1e-20
    before = numbers(run.w.detach()).copy()
    for _ in range(2):
        run.step(pb.full((3, 4), 1e22))
    assert np.allclose(numbers(run.w.detach()), before - 2 * 0.1, rtol=1e-5)
    assert run.step._last.is_exact


def test_running_averages_are_state_too() -> None:
    norm, head = nn.BatchNorm1d(2), nn.Linear(2, 1)

    @pb.compile
    def step(x: Any) -> None:
        head.zero_grad()
        head(norm(x)).square().mean().backward()

    step(pb.randn(4, 2))
    before = norm.running_var.tolist()
    with pytest.raises(NonFiniteError) as caught:
        step(pb.tensor([[1e25, 0.0], [-1e25, 1.0], [1e25, 2.0], [0.0, 3.0]]))
    assert norm.running_var.tolist() == before and caught.value.phase == "forward"


def test_an_update_of_ones_own_is_named() -> None:
    w = pb.ones(3, requires_grad=True)

    @pb.compile
    def step(x: Any, rate: Any) -> None:
        w.grad = None
        (w * x).sum().backward()
        with pb.no_grad():
            w.sub_(w.grad / rate)

    step(pb.ones(3), pb.tensor(4.0))
    with pytest.raises(NonFiniteError) as caught:
        step(pb.ones(3), pb.tensor(0.0))
    assert (caught.value.phase, caught.value.op, caught.value.how) == ("update", "div", "division by zero")
    assert w.tolist() == [0.75] * 3


def test_under_detect_anomaly_an_optimizer_changes_nothing_either() -> None:
    w = pb.ones(3, requires_grad=True)
    optimizer = optim.Adam([w], lr=1e39)
    w.square().sum().backward()
    with pytest.raises(NonFiniteError) as caught, pb.autograd.detect_anomaly():
        optimizer.step()
    assert caught.value.phase == "update" and w.tolist() == [1.0] * 3


def test_intervals() -> None:
    x = Interval(-2.0, 3.0)
    assert x.hull(Interval(4.0, 5.0)) == (-2.0, 5.0) and x.holds(Interval(0.0, 3.0)) and not x.holds(Interval(0.0, 4.0))
    assert measured(np.array([1.0, math.nan])) is None and measured(np.zeros((0,))) == (0.0, 0.0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "name", ["Adam", "RMSprop", "Adagrad", "NAdam", "Adadelta", "Adafactor", "SGD", "AdamW", "RAdam"]
)
def test_bounds_beyond_the_range_of_floats_are_no_bounds(name: str, dtype: str) -> None:
    w = pb.nn.Parameter(pb.ones(2, dtype=getattr(pb, dtype)))
    optimizer = getattr(pb.optim, name)([w], lr=0.01, weight_decay=0.1)

    @pb.compile
    def step() -> Any:
        optimizer.zero_grad()
        loss = (w * w).sum()
        loss.backward()
        optimizer.step()
        return loss

    losses = [step().item() for _ in range(3)]
    assert losses[0] > losses[2] > 0


def test_an_infinity_that_is_put_into_a_buffer_is_no_fault() -> None:
    w, best = pb.nn.Parameter(pb.ones(2)), pb.full((2,), math.inf)
    optimizer = pb.optim.SGD([w], lr=0.1)

    @pb.compile
    def step() -> Any:
        optimizer.zero_grad()
        loss = (w * w).sum()
        loss.backward()
        optimizer.step()
        best.copy_(pb.cat([best[1:], loss.detach()[None]]))
        return loss

    assert step().item() == 2.0 and best.tolist() == [math.inf, 2.0]
    step()
    assert best[1].item() < 2.0


def test_clipped_gradients_of_large_layers_under_autocast_are_bounded_by_their_norm() -> None:
    """A plan needs no memory: with 16 million elements, bounds of single elements would leave the range of float32."""
    model = pb.nn.Sequential(*[pb.nn.Linear(2048, 2048) for _ in range(4)])
    optimizer = pb.optim.AdamW(model.parameters())
    x = pb.ones(8, 2048)

    @pb.compile
    def step() -> pb.Tensor:
        with pb.autocast("cpu"):
            loss = model(x).square().mean()
        loss.backward()
        pb.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss

    plan = step.plan()
    gradients = 4 * 2048 * 2048 * 2
    assert plan.breakdown["temporaries"] < 1.1 * gradients, f"updates were written aside, not in place:\n{plan}"


@pytest.mark.parametrize("names", [("Adam", "RMSprop"), ("SGD", "Adam"), ("RMSprop", "Adam"), ("Adam", "SGD")])
def test_two_networks_with_optimizers_of_two_kinds_are_trained_in_one_step(names: tuple[str, str]) -> None:
    """As in a GAN: the second network's update is made of parameters that the first one has just been given."""

    def losses(compiled: bool) -> list[float]:
        pb.manual_seed(0)
        a, b = pb.nn.Linear(4, 4), pb.nn.Linear(4, 4)
        first, second = (getattr(pb.optim, n)(m.parameters(), lr=0.01) for n, m in zip(names, (a, b), strict=True))

        def step(x: pb.Tensor) -> pb.Tensor:
            second.zero_grad()
            one = b(a(x).detach()).square().mean()
            one.backward()
            second.step()
            first.zero_grad()
            two = b(a(x)).square().mean()
            two.backward()
            first.step()
            return one + two

        run = pb.compile(step) if compiled else step
        x = pb.randn(8, 4)
        return [run(x).item() for _ in range(4)]

    np.testing.assert_allclose(losses(True), losses(False), rtol=1e-5)
