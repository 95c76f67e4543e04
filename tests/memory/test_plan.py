"""The plan of a step: the peak to the byte, what it consists of, and that making it allocates and computes nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pullback as pb
from benchmarks import flops, workloads
from plan_checker import WORKLOADS, check, planned
from pullback import debug
from pullback.errors import MemoryBudgetError
from pullback.memory import parse_bytes
from pullback.runtime.buffers import live_bytes

nn = pb.nn


@pytest.mark.parametrize("budget", [None, "least"])
@pytest.mark.parametrize("name", WORKLOADS)
def test_the_peak_is_what_is_held(name: str, budget: str | None) -> None:
    workload = workloads.build(pb, name, **WORKLOADS[name])
    step = pb.compile(workload.step, memory=budget)
    plan = step.plan()
    for _ in range(3):
        step()
        assert step.memory.peak_bytes == plan.peak_bytes == step.program.memory.peak
    check(plan)


@pytest.mark.native("the reference has no memory to plan")
def test_the_checker_finds_buffers_that_share_bytes() -> None:
    _, plan = planned("mlp")
    at_the_end = [b for b in plan.buffers if b.offset is not None and b.last == plan.steps - 1]
    first, second = sorted(at_the_end, key=lambda held: -held.nbytes)[:2]
    plan.buffers.remove(second)
    plan.buffers.append(second._replace(offset=first.offset))
    with pytest.raises(AssertionError, match="share bytes"):
        check(plan)


def test_a_plan_leaves_no_trace() -> None:
    """A step that was planned first gives the same bits, in the same memory, as one that was not."""
    losses, peaks = [], []
    for plans in (False, True):
        pb.manual_seed(3)
        workload = workloads.build(pb, "mlp")
        step = pb.compile(workload.step)
        if plans:
            step.plan()
        losses.append([step().item() for _ in range(3)])
        peaks.append(step.memory.peak_bytes)
    assert losses[0] == losses[1] and peaks[0] == peaks[1]


def trained() -> tuple[Any, Callable[[pb.Tensor], pb.Tensor], pb.Tensor]:
    layers, x = nn.Sequential(nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 32)), pb.randn(64, 32)
    optimizer = pb.optim.RMSprop(layers.parameters(), lr=0.01)

    def train(x: pb.Tensor) -> pb.Tensor:
        optimizer.zero_grad()
        loss = layers(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    return optimizer, train, x


def test_a_plan_is_exact_after_training_too() -> None:
    """Of a step that has run, and of the same compiled anew."""
    _, train, x = trained()
    peak = pb.plan(train, x).peak_bytes
    step = pb.compile(train)
    for _ in range(2):
        step(x)
        assert step.memory.peak_bytes == step.plan(x).peak_bytes == peak == pb.plan(train, x).peak_bytes


@pytest.mark.native("the reference has no arena")
def test_a_step_keeps_to_its_budget_where_its_updates_leave_their_bounds() -> None:
    """Another program runs then, which computes every update before it writes one."""
    peaks: list[int] = []
    for policy in (None, lambda _: "keep"):
        optimizer, train, x = trained()
        step = pb.compile(train, memory=pb.plan(train, x).peak_bytes, policy=policy)
        step(x)
        peaks.append(step.memory.peak_bytes)
        optimizer.param_groups[0]["lr"] = 1e26
        with contextlib.nullcontext() if policy is None else pytest.raises(MemoryBudgetError):
            step(x)
        peaks.append(step.plan(x).peak_bytes)
        if policy is None:
            assert step.memory.peak_bytes == peaks[-1]
    assert peaks[1] <= peaks[0] == peaks[2] < peaks[3]


def test_a_plain_function_is_planned_as_if_compiled() -> None:
    workload, plan = planned("ppo")
    assert plan.to_dict() == pb.compile(workload.step).plan().to_dict()
    assert plan.name == "step"


def test_a_plan_is_of_what_is_done_about_values_that_are_not_finite() -> None:
    _, train, x = trained()
    plans = [pb.plan(train, x, on_nonfinite=what).peak_bytes for what in ("raise", "ignore")]
    assert plans == [pb.compile(train, on_nonfinite=what).plan(x).peak_bytes for what in ("raise", "ignore")]
    assert pb.plan(pb.compile(train, on_nonfinite="ignore"), x, memory=10**9).peak_bytes == plans[1] < plans[0]


def test_nothing_is_allocated() -> None:
    """A layer of 40 GB, its gradient, and 80 GB of an optimizer's state."""
    before = live_bytes()
    model = nn.Linear(100_000, 100_000, bias=False)
    optimizer = pb.optim.AdamW(model.parameters())

    def step(x: pb.Tensor) -> pb.Tensor:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    plan = pb.plan(step, pb.zeros(4, 100_000))
    assert live_bytes() - before < 10_000
    matrix = 4 * 100_000**2
    assert plan.breakdown["parameters"] == plan.breakdown["gradients"] == matrix
    assert plan.breakdown["optimizer"] - 2 * matrix in range(100)
    assert model.weight._node.buffer is None


@pytest.mark.native("the reference has no memory to plan")
def test_what_the_forward_pass_keeps_is_an_activation() -> None:
    layers = nn.Sequential(nn.Linear(64, 256), nn.Tanh(), nn.Linear(256, 64), nn.Tanh())

    def step(x: pb.Tensor) -> pb.Tensor:
        loss = layers(x).sum()
        loss.backward()
        return loss

    plan = pb.plan(step, pb.zeros(512, 64))
    kept = [b for b in plan.buffers if b.role == "activations"]
    # each tanh needs its value again; the gradient by the second one is made with it, and is on its way
    assert {b.nbytes for b in kept if b.nbytes > 4096} == {512 * 256 * 4}
    assert "tanh backward float32[512, 64]" in {b.what for b in plan.buffers if b.role == "temporaries"}
    assert all(b.source is not None and b.source.file == __file__ for b in kept)
    gradients = sorted(b.what for b in plan.buffers if b.role == "gradients")
    assert gradients[1] == "gradient of 0.weight float32[256, 64]" and len(gradients) == 4


@pytest.mark.native("the reference has no memory to plan")
def test_a_loop_backwards_reads_activations() -> None:
    """What is in the body of a loop stands in no graph; whether the backward pass runs it is told all the same."""
    _, plan = planned("lstm")
    assert plan.timeline["activations"].max() > 2 * 51 * 32 * 128 * 4


@pytest.mark.native("the reference has no memory to plan")
def test_names_are_those_of_the_modules() -> None:
    _, plan = planned("gpt-char")
    assert all(b.source is not None for b in plan.buffers if b.what.startswith("workspace"))
    words = {b.what for b in plan.buffers}
    # the gradient by the logits is made with the loss; the sums of attention are made for the backward pass to read
    roles = sorted(
        (b.what.split(" backward ")[0], b.role, b.last - b.first > 20)
        for b in plan.buffers
        if b.what.endswith(("_attention backward float32[12, 4, 64]", "_entropy backward float32[768, 65]"))
    )
    attention = "scaled_dot_product_attention"
    assert roles == [("cross_entropy", "temporaries", False), *[(attention, "activations", True)] * 4,
                     *[(attention, "temporaries", False)] * 4]  # fmt: skip
    assert "blocks.0.qkv.weight float32[384, 128]" in words
    assert "exp_avg_sq of blocks.3.down.bias float32[128]" in words
    assert "gradient of norm.weight float32[128]" in words


@pytest.mark.parametrize("name", ["gpt-char", "lstm"])
def test_operations_are_counted(name: str) -> None:
    _, plan = planned(name)
    assert 0.95 < plan.flops / flops.of_step(name) < 1.1
    assert plan.recomputed_flops == 0


@pytest.mark.native("the reference has no memory to plan")
def test_the_expected_time_is_of_the_right_order() -> None:
    _, plan = planned("gpt-char")
    assert 1e-3 < plan.expected_seconds < 1.0


def test_the_reference_is_planned() -> None:
    with debug.override(backend="reference"):
        workload, plan = planned("mlp")
        check(plan)
        assert plan.expected_seconds == 0 and plan.steps == 1 and "at the machine's limits" not in str(plan)
        step = pb.compile(workload.step)
        step()
        assert step.memory.peak_bytes == plan.peak_bytes


def test_shared_memory_is_held_once() -> None:
    array = np.ones(1000, np.float32)
    x, y = pb.from_numpy(array), pb.from_numpy(array)
    step = pb.compile(lambda a, b: (a * b).sum())
    step(x, y)
    assert step.memory.peak_bytes == step.plan(x, y).peak_bytes - 4000


def test_old_values_that_somebody_holds_are_held_too() -> None:
    workload = workloads.build(pb, "mlp")
    step = pb.compile(workload.step)
    step()
    held = next(iter(workload.model.parameters()))._buffer()
    step()
    assert step.memory.peak_bytes == step.plan().peak_bytes + held.nbytes
    del held
    step()
    assert step.memory.peak_bytes == step.plan().peak_bytes


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(TypeError, match="plan takes a function, got 3"):
        pb.plan(3)  # type: ignore[arg-type]


def test_numbers_of_numpy_are_numbers_of_bytes() -> None:
    assert parse_bytes(np.int64(10**8)) == parse_bytes(np.float32(1e8)) == 10**8
