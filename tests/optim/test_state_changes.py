"""What is done to an optimizer's state between steps is seen by the next step, recorded or not, as PyTorch's is."""

import copy

import numpy as np
import pytest
import torch

import pullback as pb

KINDS = {
    "adam": ("Adam", {"lr": 0.1}),
    "sgd": ("SGD", {"lr": 0.1, "momentum": 0.9}),
    "dampened": ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}),
}
MOMENT = {"adam": "exp_avg", "sgd": "momentum_buffer", "dampened": "momentum_buffer"}
START = [np.array([[0.5, -1.0, 2.0]], np.float32), np.array([0.25], np.float32)]
X = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)


class Run:
    """A linear fit: `step` undecorated or compiled, in either library."""

    def __init__(self, library, kind: str, compiled: bool = False):
        name, options = KINDS[kind]
        self.library, self.moment = library, MOMENT[kind]
        self.x = library.tensor(X)
        self.weight, self.bias = (library.nn.Parameter(library.tensor(s)) for s in START)
        self.optimizer = getattr(library.optim, name)([self.weight, self.bias], **options)
        self.step = pb.compile(self._step) if compiled else self._step

    def _step(self):
        self.optimizer.zero_grad()
        loss = ((self.x @ self.weight.T + self.bias - 1) ** 2).mean()
        loss.backward()
        self.optimizer.step()
        return loss

    def losses(self, count: int) -> list[float]:
        return [self.step().item() for _ in range(count)]


def _load(run):
    saved = copy.deepcopy(run.optimizer.state_dict())
    yield
    run.optimizer.load_state_dict(saved)


def _load_twice(run):
    saved = copy.deepcopy(run.optimizer.state_dict())
    yield
    run.optimizer.load_state_dict(copy.deepcopy(saved))  # PyTorch goes on in the very tensors that it was given
    run.losses(2)
    run.optimizer.load_state_dict(saved)


def _load_with_a_rate(run):
    saved = copy.deepcopy(run.optimizer.state_dict())
    yield
    saved["param_groups"][0]["lr"] = 0.02
    run.optimizer.load_state_dict(saved)


def _clear(run):
    yield
    run.optimizer.state.clear()


def _assign_a_state(run):
    held = dict(run.optimizer.state[run.weight])
    yield
    held[run.moment] = run.library.ones(1, 3)
    run.optimizer.state[run.weight] = held


def _assign_a_moment(run):
    yield
    run.optimizer.state[run.weight][run.moment] = run.library.ones(1, 3)


def _update_a_state(run):
    yield
    run.optimizer.state[run.weight].update({run.moment: run.library.ones(1, 3)})


def _write_a_moment(run):
    yield
    run.optimizer.state[run.weight][run.moment].zero_()


def _freeze_for_a_while(run):
    yield
    run.weight.requires_grad_(False)
    run.losses(3)
    run.weight.requires_grad_(True)
    run.losses(1)
    run.weight.requires_grad_(False)
    run.losses(1)
    run.weight.requires_grad_(True)


CHANGES = [
    _load, _load_twice, _load_with_a_rate, _clear, _assign_a_state, _assign_a_moment, _update_a_state,
    _write_a_moment, _freeze_for_a_while,
]  # fmt: skip


@pytest.mark.parametrize("compiled", [False, True], ids=["undecorated", "compiled"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__.strip("_"))
@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_state_is_what_the_next_step_starts_from(kind: str, change, compiled: bool) -> None:
    if kind == "dampened" and change is _clear:
        pytest.skip("PyTorch tells the first step by a missing buffer, we by a counter")
    seen = []
    for run in (Run(pb, kind, compiled), Run(torch, kind)):
        run.losses(1)
        steps = change(run)
        next(steps)
        run.losses(3)
        assert next(steps, None) is None
        losses = run.losses(3)
        moments = run.optimizer.state[run.weight][run.moment].tolist()
        counters = [float(s["step"]) for s in run.optimizer.state.values() if "step" in s and kind == "adam"]
        seen.append((losses, np.ravel(moments).tolist(), counters))
    for ours, theirs in zip(*seen, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("compiled", [False, True], ids=["undecorated", "compiled"])
def test_loading_makes_no_new_recording(compiled: bool) -> None:
    run = Run(pb, "adam", compiled)
    run.losses(2)
    saved = copy.deepcopy(run.optimizer.state_dict())
    program = _program(run, compiled)
    for _ in range(3):
        run.losses(2)
        run.optimizer.load_state_dict(saved)
    run.losses(1)
    assert _program(run, compiled) is program
    assert run.optimizer.state[run.weight]["step"].item() == 3


def _program(run: Run, compiled: bool):
    return run.step.program if compiled else run.optimizer._alone[False].program


def test_counters_that_the_dictionary_tells_apart_are_told_apart() -> None:
    run = Run(pb, "adam")
    run.losses(3)
    saved = copy.deepcopy(run.optimizer.state_dict())
    saved["state"][1]["step"] = pb.tensor(7.0)
    run.optimizer.load_state_dict(saved)
    run.losses(2)
    assert [state["step"].item() for state in run.optimizer.state.values()] == [5.0, 9.0]


def test_a_state_dictionary_may_be_replaced_whole() -> None:
    run = Run(pb, "sgd")
    run.losses(2)
    run.optimizer.state = {run.weight: {"momentum_buffer": pb.zeros(1, 3)}}
    before = [p.detach().clone() for p in (run.weight, run.bias)]
    run.losses(1)
    rate = run.optimizer.param_groups[0]["lr"]
    for parameter, start in zip((run.weight, run.bias), before, strict=True):
        np.testing.assert_allclose(parameter.tolist(), (start - rate * parameter.grad).tolist(), rtol=1e-6)


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_a_compiled_step_sees_which_parameters_the_optimizer_has(name: str) -> None:
    def train(compiled: bool) -> list[list[float]]:
        w, v, u = (pb.ones(2, requires_grad=True) for _ in range(3))
        optimizer = getattr(pb.optim, name)([w], lr=0.1)

        def step() -> None:
            w.grad = v.grad = u.grad = None
            (w * v * u).sum().backward()
            optimizer.step()

        run = pb.compile(step) if compiled else step
        run()
        optimizer.add_param_group({"params": [v]})
        run()
        optimizer.param_groups[0]["params"][0] = u
        run()
        optimizer.param_groups[1]["params"].pop()
        run()
        return [tensor.tolist() for tensor in (w, v, u)]

    assert train(True) == train(False)
