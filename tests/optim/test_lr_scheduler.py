"""Schedules of the learning rate against PyTorch's."""

import inspect
import warnings

import numpy as np
import pytest
import torch

import pullback as pb

STEPS = 60
SCHEDULES = pb.optim.lr_scheduler.__all__


def sequence(s, o):
    parts = [s.ConstantLR(o, 0.1, 5), s.ExponentialLR(o, 0.9), s.CosineAnnealingLR(o, 20), s.LinearLR(o, 0.5)]
    return s.SequentialLR(o, parts, [5, 20, 41])


KINDS = {
    "lambda": lambda s, o: s.LambdaLR(o, lambda epoch: 0.9**epoch),
    "lambdas": lambda s, o: s.LambdaLR(o, [lambda epoch: 1 / (1 + epoch), lambda epoch: 1.0]),
    "multiplicative": lambda s, o: s.MultiplicativeLR(o, lambda epoch: 0.9 + 0.01 * (epoch % 3)),
    "step": lambda s, o: s.StepLR(o, 3, gamma=0.5),
    "multistep": lambda s, o: s.MultiStepLR(o, [4, 4, 9, 30], gamma=0.3),
    "constant": lambda s, o: s.ConstantLR(o, 0.25, 7),
    "linear": lambda s, o: s.LinearLR(o, 0.25, 0.75, total_iters=5),
    "exponential": lambda s, o: s.ExponentialLR(o, 0.95),
    "polynomial": lambda s, o: s.PolynomialLR(o, 40, 1.7),
    "cosine": lambda s, o: s.CosineAnnealingLR(o, T_max=8, eta_min=0.01),
    "restarts": lambda s, o: s.CosineAnnealingWarmRestarts(o, 5, 2, 0.001),
    "triangular": lambda s, o: s.CyclicLR(o, 0.01, 0.1, 5, 8),
    "triangular2": lambda s, o: s.CyclicLR(o, [0.01, 0.02], [0.1, 0.2], 4, mode="triangular2"),
    "exp_range": lambda s, o: s.CyclicLR(o, 0.01, 0.1, 4, mode="exp_range", gamma=0.99, cycle_momentum=False),
    "scaled": lambda s, o: s.CyclicLR(o, 0.01, 0.1, 4, scale_fn=lambda x: 0.5 / x, base_momentum=0.5),
    "one_cycle": lambda s, o: s.OneCycleLR(o, 0.5, total_steps=61),
    "one_cycle_phases": lambda s, o: s.OneCycleLR(
        o, [0.5, 0.25], epochs=8, steps_per_epoch=8, three_phase=True, anneal_strategy="linear", pct_start=0.4
    ),
    "chained": lambda s, o: s.ChainedScheduler([s.ConstantLR(o, 0.1, 9), s.ExponentialLR(o, 0.9)]),
    "sequence": sequence,
}


def make(library, kind: str, name: str = "SGD", rate=None):
    a, b = (library.nn.Parameter(library.ones(1)) for _ in range(2))
    momentum = {"momentum": 0.9} if name == "SGD" else {}
    second = {} if rate is not None else {"lr": 0.7}
    groups = [{"params": [a]}, {"params": [b], **second}]
    optimizer = getattr(library.optim, name)(groups, lr=0.2 if rate is None else rate, **momentum)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return optimizer, KINDS[kind](library.optim.lr_scheduler, optimizer)


def rates(optimizer, scheduler, count: int) -> np.ndarray:
    """The rates, and what is cycled of the momenta, before each step."""
    found = []
    for _ in range(count):
        momenta = [group["momentum"] if "momentum" in group else group["betas"][0] for group in optimizer.param_groups]
        found.append([float(group["lr"]) for group in optimizer.param_groups] + momenta)
        assert [float(value) for value in scheduler.get_last_lr()] == found[-1][:2]
        optimizer.step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch warns about its own steps in sequences
            scheduler.step()
    return np.array(found)


@pytest.mark.parametrize("kind", KINDS)
def test_rates_and_momenta_over_60_steps(kind: str) -> None:
    for name in ("SGD", "Adam") if kind in ("triangular", "one_cycle") else ("SGD",):
        ours, theirs = rates(*make(pb, kind, name), STEPS), rates(*make(torch, kind, name), STEPS)
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("kind", ["step", "cosine", "linear", "chained", "triangular2"])
def test_a_tensor_as_rate_is_filled_and_computed_in_its_dtype(kind: str) -> None:
    rate = pb.tensor(0.125)
    ours = rates(*make(pb, kind, rate=rate), 20)
    theirs = rates(*make(torch, kind, rate=torch.tensor(0.125)), 20)
    np.testing.assert_allclose(ours, theirs, rtol=3e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_going_on_from_a_state_of_either_library(kind: str) -> None:
    whole = rates(*make(pb, kind), 40)
    for library in (pb, torch):
        optimizer, scheduler = make(library, kind)
        rates(optimizer, scheduler, 17)
        later, its = make(pb, kind)
        its.load_state_dict(scheduler.state_dict())
        later.load_state_dict(optimizer.state_dict())
        np.testing.assert_allclose(rates(later, its, 23), whole[17:], rtol=1e-12)


@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("chained", "sequence", "multiplicative", "one_cycle")])
def test_going_to_an_epoch_takes_the_closed_form(kind: str) -> None:
    found = []
    for library in (pb, torch):
        optimizer, scheduler = make(library, kind)
        optimizer.step()
        found.append([])
        for epoch in (3, 9, 5, 31, 0):
            scheduler.step(epoch)
            found[-1].append(scheduler.get_last_lr())
    np.testing.assert_allclose(*found, rtol=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {"patience": 2},
        {"mode": "max", "patience": 1, "factor": 0.5, "cooldown": 3},
        {"threshold_mode": "abs", "threshold": 0.3, "patience": 0, "min_lr": [0.01, 0.05]},
        {"mode": "max", "threshold_mode": "abs", "patience": 3, "eps": 0.02},
    ],
)
def test_a_plateau(options: dict) -> None:
    values = 1 / (1 + np.arange(STEPS) % 17) + np.random.default_rng(3).normal(size=STEPS) * 0.1
    found = []
    for library in (pb, torch):
        optimizer, _ = make(library, "lambda")
        scheduler = library.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **options)
        rows = []
        for value in values:
            scheduler.step(library.tensor(float(value)))
            rows.append([group["lr"] for group in optimizer.param_groups])
        found.append(rows)
        again = library.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **options)
        again.load_state_dict(scheduler.state_dict())
        assert again.best == scheduler.best
    np.testing.assert_allclose(*found, rtol=1e-12)


@pytest.mark.parametrize("name", ["SGD", "AdamW", "RMSprop", "NAdam", "Muon"])
def test_compiled_steps_follow_cycled_rates_and_momenta_without_a_new_recording(name: str) -> None:
    def run(library, compiled: bool):
        w = library.nn.Parameter(library.tensor([[0.5, -1.0], [2.0, 1.5]], dtype=library.float64))
        momentum = {"momentum": 0.9} if name in ("SGD", "RMSprop") else {}
        optimizer = getattr(library.optim, name)([w], lr=0.01, **momentum)
        scheduler = library.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=12)

        def step():
            optimizer.zero_grad()
            ((w - 1) ** 4).sum().backward()
            optimizer.step()

        # SGD with these rates diverges, in PyTorch too
        step = pb.compile(step, on_nonfinite="ignore") if compiled else step
        for _ in range(11):
            step()
            scheduler.step()
        if compiled:
            assert sum(map(len, step._variants.values())) <= 2  # the first makes the state
        return w.detach().numpy()

    np.testing.assert_allclose(run(pb, True), run(torch, False), rtol=1e-10)


@pytest.mark.parametrize("name", SCHEDULES)
def test_signatures_are_pytorchs(name: str) -> None:
    def arguments(library):
        function = getattr(library.optim.lr_scheduler, name).__init__
        return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]

    assert arguments(pb) == arguments(torch)


def test_a_schedule_before_the_optimizer_warns() -> None:
    _, scheduler = make(pb, "step")
    with pytest.warns(UserWarning, match=r"Detected call of `lr_scheduler.step\(\)` before `optimizer.step\(\)`"):
        scheduler.step()


def test_errors() -> None:
    schedules = pb.optim.lr_scheduler
    with pytest.raises(TypeError, match="float is not an Optimizer"):
        schedules.StepLR(0.1, 3)
    optimizer, first = make(pb, "step")
    other = make(pb, "step")[1]
    plain = pb.optim.Adagrad([pb.nn.Parameter(pb.ones(1))])
    with pytest.raises(KeyError, match="initial_lr"):
        schedules.StepLR(pb.optim.SGD([pb.nn.Parameter(pb.ones(1))], lr=0.1), 3, last_epoch=4)
    for error, message, wrong in (
        (ValueError, "Expected 2 lr_lambdas, but got 3", lambda: schedules.LambdaLR(optimizer, [abs] * 3)),
        (TypeError, "should be a function", lambda: schedules.MultiplicativeLR(optimizer, 0.5)),
        (ValueError, "between 0 and 1", lambda: schedules.ConstantLR(optimizer, 2.0)),
        (ValueError, "greater than 0", lambda: schedules.LinearLR(optimizer, 0)),
        (ValueError, "base_lr must have the same length", lambda: schedules.CyclicLR(optimizer, [1.0], 2.0)),
        (ValueError, "mode is invalid", lambda: schedules.CyclicLR(optimizer, 0.1, 1.0, mode="up")),
        (ValueError, "must support momentum", lambda: schedules.CyclicLR(plain, 0.1, 1.0)),
        (ValueError, "either total_steps OR", lambda: schedules.OneCycleLR(optimizer, 1.0, epochs=3)),
        (ValueError, "positive integer total_steps", lambda: schedules.OneCycleLR(optimizer, 1.0, 0)),
        (ValueError, "positive integer T_0", lambda: schedules.CosineAnnealingWarmRestarts(optimizer, 0)),
        (ValueError, "same optimizer", lambda: schedules.ChainedScheduler([first, other])),
        (ValueError, "one more than", lambda: schedules.SequentialLR(optimizer, [first], [3])),
        (ValueError, "Factor should be", lambda: schedules.ReduceLROnPlateau(optimizer, factor=1.0)),
        (ValueError, "mode low is unknown", lambda: schedules.ReduceLROnPlateau(optimizer, "low")),
    ):
        with pytest.raises(error, match=message):
            wrong()


@pytest.mark.parametrize("state", [{}, {"state": 3}, 7])
def test_what_is_no_state_is_refused(state: object) -> None:
    rates = pb.optim.lr_scheduler
    optimizer = pb.optim.SGD([pb.nn.Parameter(pb.ones(1))], lr=0.1)
    schedules = [
        rates.StepLR(optimizer, 2), rates.LambdaLR(optimizer, lambda _: 1.0), rates.ReduceLROnPlateau(optimizer),
        rates.SequentialLR(optimizer, [rates.ConstantLR(optimizer), rates.StepLR(optimizer, 2)], [2]),
    ]  # fmt: skip
    for one in (optimizer, *schedules):
        with pytest.raises(pb.errors.StateDictError, match="is not the state of a"):
            one.load_state_dict(state)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 / 3)
