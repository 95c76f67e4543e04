"""The doctor: each fault of the checklist is found, at its line, and nothing of the user's changes."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import pullback as pb
from pullback.checkup.courses import course
from pullback.checkup.facts import Facts
from pullback.checkup.judging import judge
from pullback.cli import app

nn = pb.nn


def training(fault: str = "") -> tuple[Callable[..., Any], tuple[Any, ...], nn.Module, Any]:
    """A step of training with one fault, its arguments, the model and the optimizer."""
    pb.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))
    rate = {"high": 1e3, "low": 1e-6}.get(fault, 0.1)
    optimizer = pb.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    x, y = pb.randn(64, 6), pb.randint(0, 3, (64,))
    x = x * 100 + 500 if fault == "inputs" else x
    y = y + 1 if fault == "labels" else y
    if fault == "frozen":
        model[0].weight.requires_grad_(False)
    if fault == "eval":
        model.eval()

    def step(x: pb.Tensor, y: pb.Tensor) -> pb.Tensor:
        if fault != "cleared":
            optimizer.zero_grad()
        hidden = model[:2](x)
        if fault == "detached":
            hidden = hidden.detach()
        loss = nn.functional.cross_entropy(model[2:](hidden), y)
        if fault != "backward":
            loss.backward()
        if fault == "late":
            optimizer.zero_grad()
        if fault != "stepped":
            optimizer.step()
        return loss

    return step, (x, y), model, optimizer


FAULTS = {
    "": ("", ""),
    "cleared": ("gradients cleared", "loss.backward()"),
    "late": ("gradients cleared", "optimizer.step()"),
    "backward": ("backward called", "optimizer.step()"),
    "stepped": ("optimizer stepped", "loss.backward()"),
    "eval": ("train mode", "model[:2](x)"),
    "frozen": ("parameters require gradients", "model[:2](x)"),
    "detached": ("parameters get gradients", "loss.backward()"),
    "labels": ("labels in range", ""),
    "inputs": ("inputs normalized", "model[:2](x)"),
    "high": ("learning rate sane", "optimizer.step()"),
    "low": ("learning rate sane", "optimizer.step()"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found_at_its_line(fault: str) -> None:
    step, arguments, _, _ = training(fault)
    report = pb.doctor(step, *arguments, steps=8)
    check, code = FAULTS[fault]
    assert (check in [found.check for found in report.faults]) == bool(fault)
    assert report.ok == (not fault), str(report)
    if code:
        (found, *_) = [found for found in report.faults if found.check == check]
        file, _, line = found.line.rpartition(":")
        assert file == __file__
        assert code in inspect.getsource(inspect.getmodule(training)).splitlines()[int(line) - 1]  # type: ignore[arg-type]
        assert found.mend
    if fault == "detached":
        assert "by detach()" in str(report)


def test_the_losses_that_one_optimizer_follows_are_one() -> None:
    """A small one that falls does not hide a large one that rises; of two players one may."""
    still = Facts({"a": [1.0] * 8, "b": [5.0, 6.0] * 8}, steps=8, optimizers=1)
    moved = Facts({"a": [1.0 - 0.05 * i for i in range(8)], "b": [5.0 + 0.1 * i for i in range(16)]}, 8, optimizers=1)
    assert course(moved, still).rises and not course(moved, still).has_fallen
    assert course(replace(moved, optimizers=2), still).has_fallen


def test_a_rise_within_the_noise_of_the_steps_is_called_neither_good_nor_wrong() -> None:
    gains = [0.06, -0.13, -0.12, -0.08, -0.13, -0.01, 0.06, -0.19, 0.0, -0.39, 0.06, 0.06, -0.07, 0.0, -0.26, 0.06]
    still = Facts({"a": [1.66] * 16}, 16, backwards=16, optimizers=1, rates=[0.1])
    moved = replace(still, losses={"a": [1.66 - gain for gain in gains]})
    report = judge(lambda factor: moved if factor == 1 else still, "", same_batch=False)
    assert [finding.check for finding in report.findings if finding.open] == [
        "loss falls over the first steps",
        "learning rate sane",
    ]
    assert "open  loss falls over the first steps" in str(report) and report.ok
    assert str(report).endswith("nothing wrong was found, 2 left open")


def test_steps_are_a_number() -> None:
    with pytest.raises(ValueError, match="steps must be a whole number of at least 2"):
        pb.doctor(lambda: None, steps=True)


def test_nothing_of_the_users_changes() -> None:
    step, arguments, model, optimizer = training()
    pb.compile(step)(*arguments)
    before = [value.numpy().copy() for value in model.state_dict().values()], pb.get_rng_state()
    states = {key: dict(value) for key, value in optimizer.state_dict()["state"].items()}
    gradient = model[0].weight.grad.numpy().copy()
    pb.doctor(pb.compile(step), *arguments, steps=3)
    assert all(map(np.array_equal, before[0], [value.numpy() for value in model.state_dict().values()]))
    assert np.array_equal(before[1].numpy(), pb.get_rng_state().numpy())
    assert np.array_equal(gradient, model[0].weight.grad.numpy())
    after = optimizer.state_dict()["state"]
    assert all(np.array_equal(after[k][n].numpy(), v.numpy()) for k, held in states.items() for n, v in held.items())


SCRIPT = """
import sys
import pullback as pb

pb.manual_seed(0)
model = pb.nn.Linear(4, 2)
optimizer = pb.optim.SGD(model.parameters(), lr=0.1)
x, y = pb.randn(64, 4), pb.randint(0, 2, (64,))


def train():
    while True:
        {clear}
        loss = pb.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()


if __name__ == "__main__":
    assert sys.argv[1:] == ["--epochs", "3"]
    {train}()
"""


@pytest.mark.parametrize(
    ("filled", "status", "told"),
    [
        ({"clear": "optimizer.zero_grad()", "train": "train"}, 0, "nothing wrong was found"),
        ({"clear": "pass", "train": "train"}, 1, "WRONG gradients cleared"),
        ({"clear": "pass", "train": "print"}, 1, "WRONG backward called"),
    ],
)
def test_a_script_is_run_up_to_its_first_steps(tmp_path: Path, filled: dict[str, str], status: int, told: str) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.format(**filled), encoding="utf-8")
    result = CliRunner().invoke(app, ["doctor", "--steps", "5", str(script), "--epochs", "3"])
    assert result.exit_code == status, result.output
    assert told in result.output
    if "gradients" in told:
        assert f"({script}:15)" in result.output
