"""Optimizers against PyTorch's trajectories, their state, and their errors."""

import math

import numpy as np
import pytest
import torch

import pullback as pb
from pullback.errors import GradientError, StateDictError

STEPS = 50
KINDS = {
    "sgd": ("SGD", {"lr": 0.05}),
    "sgd_momentum": ("SGD", {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.01}),
    "sgd_dampening": ("SGD", {"lr": 0.02, "momentum": 0.9, "dampening": 0.3}),
    "sgd_nesterov": ("SGD", {"lr": 0.02, "momentum": 0.8, "nesterov": True}),
    "sgd_maximize": ("SGD", {"lr": 0.001, "maximize": True}),
    "adam": ("Adam", {"lr": 0.01}),
    "adam_decay": ("Adam", {"lr": 0.01, "weight_decay": 0.1, "betas": (0.8, 0.95), "eps": 1e-6}),
    "adam_amsgrad": ("Adam", {"lr": 0.05, "amsgrad": True}),
    "adam_zero_betas": ("Adam", {"lr": 0.01, "betas": (0.0, 0.0)}),
    "adamw": ("AdamW", {"lr": 0.01, "fused": True}),
    "adamw_maximize": ("AdamW", {"lr": 0.01, "weight_decay": 0.3, "maximize": True, "amsgrad": True}),
}
START = [np.random.default_rng(1).normal(size=s).astype(np.float32) for s in [(3, 2), (2,), (1,)]]
X = np.random.default_rng(2).normal(size=(8, 2)).astype(np.float32)


class Run:
    """A small fit in either library. The third parameter gets a gradient at every third step only."""

    def __init__(self, library, kind: str, dtype: str = "float32"):
        name, options = KINDS[kind]
        self.library = library
        self.x = library.tensor(X).to(getattr(library, dtype))
        self.parameters = [library.nn.Parameter(library.tensor(s).to(getattr(library, dtype))) for s in START]
        self.optimizer = getattr(library.optim, name)(self.parameters, **options)
        self.number = 0

    def step(self):
        self.optimizer.zero_grad()
        w, b, rare = self.parameters
        y = (self.x @ w.T).sin().sum(-1) * b[0] + b[1]
        loss = (y * y).mean() + (rare.exp().sum() if self.number % 3 == 2 else 0)
        loss.backward()
        self.optimizer.step()
        self.number += 1
        return loss

    def values(self) -> list[np.ndarray]:
        return [np.array(p.detach().to(self.library.float32).numpy()) for p in self.parameters]


@pytest.mark.parametrize("kind", KINDS)
def test_trajectories(kind: str) -> None:
    ours, theirs = Run(pb, kind), Run(torch, kind)
    for _ in range(STEPS):
        ours.step(), theirs.step()
    for p, q in zip(ours.values(), theirs.values(), strict=True):
        np.testing.assert_allclose(p, q, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("kind", ["sgd_momentum", "sgd_dampening", "adamw"])
def test_trajectories_in_float64(kind: str) -> None:
    ours, theirs = Run(pb, kind, "float64"), Run(torch, kind, "float64")
    for _ in range(STEPS):
        ours.step(), theirs.step()
    for p, q in zip(ours.parameters, theirs.parameters, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=1e-9)


def as_arrays(state: dict) -> dict:
    return {n: {k: v if v is None else v.numpy() for k, v in held.items()} for n, held in state.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_states_have_pytorchs_layout_and_load(kind: str) -> None:
    ours, theirs = Run(pb, kind), Run(torch, kind)
    for _ in range(4):
        ours.step(), theirs.step()
    mine, other = ours.optimizer.state_dict(), theirs.optimizer.state_dict()
    for number, held in as_arrays(other["state"]).items():
        for name, value in held.items():
            if value is not None:
                np.testing.assert_allclose(mine["state"][number][name].numpy(), value, rtol=1e-4, atol=1e-6)
    again = Run(pb, kind)
    for p, q in zip(again.parameters, theirs.parameters, strict=True):
        with pb.no_grad():
            p.copy_(q.detach().numpy())
    again.number = theirs.number
    again.optimizer.load_state_dict({"state": as_arrays(other["state"]), "param_groups": other["param_groups"]})
    for _ in range(5):
        again.step(), theirs.step()
    for p, q in zip(again.values(), theirs.values(), strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-4, atol=1e-5)


def test_a_run_goes_on_from_its_state_bit_for_bit() -> None:
    first = Run(pb, "adamw")
    for _ in range(3):
        first.step()
    second = Run(pb, "adamw")
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.number = first.number
    for p, q in zip(second.parameters, first.parameters, strict=True):
        with pb.no_grad():
            p.copy_(q)
    for run in (first, second):
        for _ in range(3):
            run.step()
    for p, q in zip(first.values(), second.values(), strict=True):
        np.testing.assert_array_equal(p, q)


def test_groups_and_changing_rates() -> None:
    def run(library):
        a, b = (library.nn.Parameter(library.ones(2)) for _ in range(2))
        optimizer = library.optim.SGD([{"params": [a], "lr": 0.5}, {"params": b}], lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            (a.sum() + b.sum()).backward()
            optimizer.step()
            optimizer.param_groups[1]["lr"] = 1.0
        return a.tolist() + b.tolist()

    assert run(pb) == pytest.approx(run(torch))


def test_a_tensor_as_rate() -> None:
    w = pb.nn.Parameter(pb.ones(1))
    rate = pb.tensor(0.5)
    optimizer = pb.optim.SGD([w], lr=rate)
    for expected in (0.5, 0.25):
        optimizer.zero_grad()
        w.sum().backward()
        optimizer.step()
        assert w.item() == expected
        rate.fill_(0.25)


def test_a_closure_computes_the_loss() -> None:
    w = pb.nn.Parameter(pb.ones(1))
    optimizer = pb.optim.SGD([w], lr=1.0)

    def closure():
        optimizer.zero_grad()
        loss = (w * 2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 2.0
    assert w.item() == -1.0
    optimizer.zero_grad(set_to_none=False)
    assert w.grad.tolist() == [0.0]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_parameters_of_16_bits(dtype: str) -> None:
    w = pb.nn.Parameter(pb.ones(3, dtype=getattr(pb, dtype)))
    optimizer = pb.optim.AdamW([w], lr=0.1)
    (w * w).sum().backward()
    optimizer.step()
    assert optimizer.state[w]["exp_avg"].dtype is w.dtype
    np.testing.assert_allclose(w.detach().float().numpy(), 0.899, rtol=4e-3)


def test_errors() -> None:
    w = pb.nn.Parameter(pb.ones(2))
    sgd, adam = pb.optim.SGD, pb.optim.Adam
    with pytest.raises(ValueError, match="got no parameters"):
        sgd([], lr=0.1)
    with pytest.raises(TypeError, match="but got one Parameter"):
        sgd(w, lr=0.1)
    with pytest.raises(ValueError, match="with/without names"):
        sgd([*pb.nn.Linear(1, 1).named_parameters(), w], lr=0.1)
    with pytest.raises(GradientError, match=r"parameter 0, float32\[2\], is not a leaf"):
        sgd([w * 2], lr=0.1)
    with pytest.raises(ValueError, match="given twice"):
        sgd([w, w], lr=0.1)
    with pytest.raises(ValueError, match="given twice"):
        sgd([{"params": [w]}, {"params": [w]}], lr=0.1)
    for rate in (-1.0, math.nan, math.inf, "fast"):
        with pytest.raises(ValueError, match=r"Invalid learning rate.*must be at least"):
            sgd([w], lr=rate)
    with pytest.raises(ValueError, match="no hyperparameter 'momentun'"):
        sgd([{"params": [w], "momentun": 0.9}], lr=0.1)
    with pytest.raises(ValueError, match="nesterov needs a momentum"):
        sgd([w], lr=0.1, nesterov=True)
    with pytest.raises(ValueError, match=r"index 1: 1.0; it must be at least 0.0 and below 1.0"):
        adam([w], betas=(0.9, 1.0))
    with pytest.raises(ValueError, match="differentiable=True is not supported"):
        adam([w], differentiable=True)
    with pytest.raises(RuntimeError, match="cannot be `True` together"):
        adam([w], fused=True, foreach=True)


@pytest.mark.parametrize("name", ["Adam", "AdamW8bit", "SGD8bit", "AdamW4bit", "Adagrad", "Adamax"])
def test_a_state_that_would_spoil_the_weights_is_refused(name: str) -> None:
    def made() -> tuple[pb.nn.Parameter, pb.optim.Optimizer]:
        w = pb.nn.Parameter(pb.ones(128, 64))
        optimizer = getattr(pb.optim, name)([w], lr=1e-3, **({"momentum": 0.9} if name.startswith("SGD") else {}))
        w.square().sum().backward()
        optimizer.step()
        return w, optimizer

    _, optimizer = made()
    names = optimizer.state_dict()["state"][0]
    for held, value in names.items():
        if not value.is_floating_point():
            continue
        bad = [(math.nan, "not finite"), (math.inf, "not finite")]
        if held not in ("exp_avg", "momentum_buffer"):
            bad.append((-1.0, "below 0"))
        for number, told in bad:
            state = optimizer.state_dict()
            state["state"][0][held] = value.clone().fill_(number)
            with pytest.raises(StateDictError, match=f"{told}: parameter 0, {held}"):
                made()[1].load_state_dict(state)
        if not value.ndim:
            state = optimizer.state_dict()
            state["state"][0][held] = "many"
            with pytest.raises(StateDictError, match=f"no number .'many'.: parameter 0, {held}"):
                made()[1].load_state_dict(state)
    made()[1].load_state_dict(optimizer.state_dict())


def test_a_state_that_does_not_fit() -> None:
    w = pb.nn.Parameter(pb.ones(2))
    adam = pb.optim.Adam([w])
    w.sum().backward()
    adam.step()
    other = pb.optim.Adam([pb.nn.Parameter(pb.ones(3))])
    with pytest.raises(StateDictError, match=r"wrong shape: parameter 0, exp_avg: \[2\] in the dictionary, \[3\]"):
        other.load_state_dict(adam.state_dict())
    with pytest.raises(StateDictError, match=r"parameter 0: state .*exp_avg"):
        pb.optim.SGD([w], momentum=0.9).load_state_dict(adam.state_dict())
    with pytest.raises(StateDictError, match=r"groups: parameters \[1\] in the dictionary, \[2\]"):
        pb.optim.Adam([w, pb.nn.Parameter(pb.ones(1))]).load_state_dict(adam.state_dict())


# ---- inside compiled steps


@pytest.mark.parametrize("kind", KINDS)
def test_compiled_steps_follow_the_others(kind: str) -> None:
    compiled, plain = Run(pb, kind), Run(pb, kind)
    compiled.number = plain.number = 2  # every parameter has a gradient
    for run in (compiled, plain):
        run.step()
        run.number = 0
    step = pb.compile(compiled.step)
    for _ in range(6):
        step()
        plain.number = 0
        plain.step()
    for p, q in zip(compiled.values(), plain.values(), strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-5, atol=1e-6)


def test_a_compiled_first_step_makes_its_state() -> None:
    w = pb.nn.Parameter(pb.ones(2))
    optimizer = pb.optim.Adam([w], lr=0.1)

    @pb.compile
    def step():
        optimizer.zero_grad()
        loss = (w * w).sum()
        loss.backward()
        optimizer.step()
        return loss

    for number in range(1, 5):
        step()
        assert optimizer.state[w]["step"].item() == number
    before = w.tolist()
    optimizer.param_groups[0]["lr"] = 0.0
    step()
    assert w.tolist() == before
    optimizer.param_groups[0]["lr"] = 0.1
    optimizer.param_groups[0]["betas"] = (0.5, 0.5)
    step()
    assert w.tolist() != before
    assert optimizer.state_dict()["state"][0]["step"].item() == 6


def test_groups_keep_what_users_write_in_them() -> None:
    w = pb.nn.Parameter(pb.ones(2))
    group = {"params": [w], "name": "head", "lr_scale": 2, "layers": [1, 2]}
    optimizer = pb.optim.SGD([dict(group)], lr=0.5)
    w.grad = pb.ones(2)
    optimizer.step()
    assert w.tolist() == [0.5, 0.5]
    saved = optimizer.state_dict()
    kept = saved["param_groups"][0]
    assert (kept["name"], kept["lr_scale"]) == ("head", 2)
    other = pb.optim.SGD([{"params": [w]}], lr=0.1)
    other.load_state_dict(saved)
    assert (other.param_groups[0]["name"], other.param_groups[0]["lr"]) == ("head", 0.5)
