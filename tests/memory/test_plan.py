"""The plan of a step: the peak to the byte, what it consists of, and that making it allocates and computes nothing."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pullback as pb
from benchmarks import flops, workloads
from pullback import debug
from pullback.errors import MemoryBudgetError
from pullback.memory import ROLES, Plan, address_space, available_bytes, format_bytes, parse_bytes
from pullback.memory.table import format_seconds, place, text
from pullback.runtime.buffers import allocate, live_bytes
from pullback.tracing import step as steps
from pullback.train.gpt import GPT, GPTConfiguration

nn = pb.nn
F = nn.functional
WORKLOADS: dict[str, dict[str, int]] = {
    **{name: {} for name in workloads.SMALL},
    "lstm": {},
    "gpt-char": {},
    "resnet20": {"blocks": 1, "batch": 2, "size": 16},
}


def planned(name: str, **budget: Any) -> tuple[workloads.Workload, Plan]:
    workload = workloads.build(pb, name, **WORKLOADS[name])
    return workload, pb.plan(workload.step, **budget)


def check(plan: Plan) -> None:
    """Assert that a plan agrees with itself, each buffer looked at by itself."""
    assert tuple(plan.breakdown) == ROLES and min(plan.breakdown.values()) >= 0
    assert sum(plan.breakdown.values()) == plan.peak_bytes
    held = [sum(b.nbytes for b in plan.buffers if b.first <= step <= b.last) for step in range(plan.steps)]
    assert max(held) == held[plan.peak_step] == plan.peak_bytes - plan.gap_bytes
    placed = [b for b in plan.buffers if b.offset is not None]
    arena = plan.peak_bytes - sum(b.nbytes for b in plan.buffers if b.offset is None)
    assert all(0 <= b.first <= b.last < plan.steps for b in plan.buffers)
    assert all(b.offset % 64 == 0 and b.offset + b.nbytes <= arena for b in placed)
    for step in range(plan.steps):
        alive = sorted((b.offset, b.offset + b.nbytes, b.what) for b in placed if b.first <= step <= b.last)
        for (_, end, one), (start, _, other) in itertools.pairwise(alive):
            assert end <= start, f"{one} and {other} share bytes at step {step}"


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


@pytest.mark.skipif(debug.get("backend") == "reference", reason="the reference has no arena")
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


def test_a_loop_backwards_reads_activations() -> None:
    """What is in the body of a loop stands in no graph; whether the backward pass runs it is told all the same."""
    _, plan = planned("lstm")
    assert plan.timeline["activations"].max() > 2 * 51 * 32 * 128 * 4


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


def test_operations_done_again_are_told() -> None:
    _, plan = planned("gpt-char")
    _, less = planned("gpt-char", memory=int(0.7 * plan.peak_bytes))
    check(less)
    assert less.peak_bytes <= 0.7 * plan.peak_bytes
    assert less.unbudgeted_bytes == plan.unbudgeted_bytes == plan.peak_bytes
    assert 0 < less.recomputed_flops < less.flops / 2
    # an expression that several kernels compute for themselves is another node in each, once there are copies
    assert plan.flops <= less.flops - less.recomputed_flops < 1.02 * plan.flops
    assert "of them again to save memory" in str(less)
    assert any(" again " in b.what for b in less.buffers)


def test_a_policy_is_followed() -> None:
    _, plan = planned("gpt-char")
    _, less = planned(
        "gpt-char", policy=lambda c: None if c.source.is_backward or c.source.operation == "add" else "recompute"
    )
    assert less.recomputed_flops > 0
    assert less.timeline["activations"].max() < plan.timeline["activations"].max()


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


# ---- how it is shown


def test_the_table_fits_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    _, plan = planned("gpt-char")
    plan.changes["bfloat16"] = "many words " * 20
    for columns in ("40", "80", "100", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        assert 50 < max(map(len, str(plan).splitlines())) <= min(max(int(columns), 60), 120)
        assert str(plan).count("many words") > 15
    lines = text(plan, 100).splitlines()
    assert f"({plan.peak_bytes:,} bytes)" in lines[0]
    for role in ROLES:
        assert any(line.startswith(f"  {role} ") for line in lines)
    assert sum("workloads.py:" in line for line in lines) >= 8
    assert repr(plan) == f"<plan of step: {plan.peak_bytes:,} bytes>"


def test_seconds_have_units() -> None:
    assert [format_seconds(s) for s in (9.9e-7, 2e-3, 1.5, 75)] == ["0.99 µs", "2 ms", "1.5 s", "75 s"]
    assert place(None) == ""


def test_a_plan_is_saved_as_numbers(tmp_path: Path) -> None:
    _, plan = planned("mlp")
    plan.save(tmp_path / "plan.json")
    read = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))
    assert read == plan.to_dict()
    assert read["peak_bytes"] == plan.peak_bytes and sum(read["breakdown"].values()) == plan.peak_bytes
    assert np.sum([*read["timeline"].values()], axis=0).max() == plan.peak_bytes - plan.gap_bytes
    assert all(b["source"] is None or ":" in b["source"] for b in read["buffers"])


def test_a_name_says_what_is_written(tmp_path: Path) -> None:
    _, plan = planned("mlp")
    with pytest.raises(ValueError, match=r"ends in \.html or \.json, got 'plan\.txt'"):
        plan.save(tmp_path / "plan.txt")


def test_the_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, plan = planned("mlp")
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    with pytest.raises(ImportError, match=r"pip install 'pullback\[plots\]'"):
        plan.save(tmp_path / "plan.html")
    assert not (tmp_path / "plan.html").exists()


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(TypeError, match="plan takes a function, got 3"):
        pb.plan(3)  # type: ignore[arg-type]


# ---- what cannot be kept


@pytest.mark.skipif(available_bytes() is None, reason="the system does not tell what is free")
@pytest.mark.parametrize("fraction", [None, 1.5])
def test_what_the_machine_has_no_room_for_is_refused_before_it_is_allocated(fraction: float | None) -> None:
    """Parameters, an optimizer's state, arguments and activations, each more than there is."""
    free, width = available_bytes() or 0, 100_000
    before = live_bytes()
    memory = None if fraction is None else f"{int(fraction * free) >> 30}GiB"
    wide = nn.Linear(free // (4 * width) + width, width, bias=False)
    optimizer = pb.optim.AdamW(wide.parameters())

    def widened(x: pb.Tensor) -> pb.Tensor:
        optimizer.zero_grad()
        loss = wide(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    deep = nn.Sequential(*(layer for _ in range(3) for layer in (nn.LayerNorm(256), nn.Tanh())))

    def deepened(x: pb.Tensor) -> pb.Tensor:
        deep.zero_grad()
        loss = deep(x).square().mean()
        loss.backward()
        return loss

    rows = free // (256 * 4 * 2)
    for step, shape, words in (
        (widened, (1, wide.weight.shape[1]), "what would bring it down"),
        (deepened, (rows, 256), "what would bring it down"),
        (deepened, (rows * 4, 256), "parameters, state and inputs alone are"),
    ):
        with pytest.raises(MemoryBudgetError, match=words):
            pb.compile(step, memory=memory)(pb.zeros(*shape))
        assert live_bytes() - before < 1 << 20


def test_what_a_container_and_a_limit_of_addresses_leave(tmp_path: Path) -> None:
    """As far as it can be read; lines that are none of such a file are passed over."""

    def left(**files: str) -> tuple[int | None, int | None]:
        for name, words in files.items():
            path = tmp_path / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(words)
        return available_bytes(tmp_path), address_space(tmp_path)

    assert left() == (None, None)
    assert left(proc__meminfo="MemTotal: 9 kB\nMemAvailable:   8 kB\n", proc__self__cgroup="garbage\n") == (8192, None)
    assert left(proc__self__cgroup="7:cpu:/a\n0::/a:b\n") == (8192, None)
    group = {"sys__fs__cgroup__a:b__memory_dot_max": "7000\n", "sys__fs__cgroup__a:b__memory_dot_high": "10\n"}
    assert left(**group)[0] == 7000
    assert left(**{"sys__fs__cgroup__a:b__memory_dot_current": "1000\n"})[0] == 6000
    assert left(**{"sys__fs__cgroup__a:b__memory_dot_stat": "anon 5\ninactive_file 300\n"})[0] == 6300
    assert left(**{"sys__fs__cgroup__memory_dot_max": "max\n"})[0] == 6300
    assert left(proc__self__limits="Max address space      unlimited   unlimited   bytes\n") == (6300, None)
    words = "Max data size  3 3 bytes\nMax address space      10240   unlimited   bytes\n"
    assert left(proc__self__limits=words, proc__self__status="VmSize:\t    6 kB\n") == (6300, 4096)


def test_what_goes_beyond_a_limit_of_addresses_is_refused_and_an_allocation_says_what_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layer, x = nn.Linear(256, 256), pb.zeros(8192, 256)
    step, free = pb.compile(lambda x: layer(x).square().sum()), [8 << 20]
    monkeypatch.setattr(steps, "address_space", lambda: free[0])
    with pytest.raises(MemoryBudgetError, match=r"more of its address space, .* and 8 MiB are free"):
        step(x)
    free[0] = step.plan(x).peak_bytes + (4 << 20)
    assert step(x).item() >= 0
    with pytest.raises(MemoryError, match=f"no {1 << 56} bytes more .*; tensors hold .*ulimit -v"):
        allocate(1 << 56)


Loss = Callable[..., pb.Tensor]


def mlp_loss() -> tuple[nn.Module, Loss, tuple[pb.Tensor, ...], int]:
    model = nn.Sequential(*[layer for _ in range(4) for layer in (nn.Linear(32, 32), nn.Tanh())])
    return model, lambda x: model(x).square().mean(), (pb.zeros(1024, 32),), 500_000


def gpt_loss() -> tuple[nn.Module, Loss, tuple[pb.Tensor, ...], int]:
    model = GPT(GPTConfiguration(31, 8, 1, 32, 2, dropout=0.1))
    tokens = pb.zeros(32, 8, dtype=pb.int64)
    return model, lambda x, y: F.cross_entropy(model(x).flatten(0, 1), y.flatten()), (tokens, tokens + 1), 510_000


@pytest.mark.skipif(debug.get("backend") == "reference", reason="the reference has no arena")
@pytest.mark.parametrize("make", [mlp_loss, gpt_loss])
def test_who_follows_the_advice_gets_what_it_says(make: Callable[[], tuple[Any, ...]]) -> None:
    """Of micro-batches the peak to the byte, of other optimizers the state."""
    model, loss_fn, batch, budget = make()

    def step_with(kind: Callable[..., Any], parts: int | None = None) -> Callable[..., pb.Tensor]:
        optimizer = kind(model.parameters(), lr=0.01)

        def step(*batch: pb.Tensor) -> pb.Tensor:
            optimizer.zero_grad()
            if parts is None:
                loss = loss_fn(*batch)
                loss.backward()
            else:
                loss = pb.accumulate(lambda part: loss_fn(*part), batch, parts=parts)
            optimizer.step()
            return loss

        return step

    before = [p.grad for p in model.parameters()], pb.get_rng_state().tolist()
    with pytest.raises(MemoryBudgetError) as caught:
        pb.compile(step_with(pb.optim.AdamW), memory=budget)(*batch)
    assert ([p.grad for p in model.parameters()], pb.get_rng_state().tolist()) == before
    words, plan = str(caught.value), pb.plan(step_with(pb.optim.AdamW), *batch)
    assert f"({caught.value.least} bytes)" in words and caught.value.peak == plan.peak_bytes
    assert "activations" in words and ("train/gpt.py:" if make is gpt_loss else "test_plan.py:") in words
    advice = re.search(r"parts=(\d+)\): (\d+) bytes", words)
    assert advice is not None
    parts, peak = map(int, advice.groups())
    assert f"{peak} bytes ({format_bytes(peak)}), in the budget" in words and peak <= budget
    followed = pb.compile(step_with(pb.optim.AdamW, parts), memory=budget)
    assert followed.plan(*batch).peak_bytes == peak
    if make is mlp_loss:
        followed(*batch)
        assert followed.memory.peak_bytes == peak
        # a batch that is no argument
        whole = step_with(pb.optim.AdamW)
        with pytest.raises(MemoryBudgetError, match=re.escape(advice[0])):
            pb.compile(lambda: whole(*batch), memory=budget)()

    def state(kind: Callable[..., Any]) -> int:
        return sum(b.nbytes for b in pb.plan(step_with(kind), *batch).buffers if b.role == "optimizer")

    held = format_bytes(state(pb.optim.AdamW))
    assert f"(Adafactor): a state of {format_bytes(state(pb.optim.Adafactor))}, where it is {held}" in words
    if make is gpt_loss:
        coded = format_bytes(state(pb.optim.AdamW8bit))
        assert f"SGD8bit): a state of {coded}, where it is {held}" in words
        low = nn.utils.quantize_model(make()[0])
        layers = [layer for layer in low.modules() if isinstance(layer, nn.Linear4bit)]
        kept = [tensor for layer in layers for name, tensor in layer.named_buffers() if name != "quant_map"]
        assert f"and would be {format_bytes(sum(tensor.nbytes for tensor in kept))}" in words


@pytest.mark.skipif(debug.get("backend") == "reference", reason="the reference has no arena")
def test_of_micro_batches_nothing_is_said_where_it_cannot_be_known() -> None:
    """What a step returns of the whole batch, a second backward pass, a batch that is not there."""
    layer = nn.Linear(32, 32)
    x = pb.zeros(256, 32)

    def returns_more(x: pb.Tensor) -> tuple[pb.Tensor, pb.Tensor]:
        y = layer(x)
        loss = y.square().mean()
        loss.backward()
        return loss, y

    def goes_back_twice(x: pb.Tensor) -> None:
        layer(x).square().mean().backward()
        layer(x).mean().backward()

    def compares_examples(x: pb.Tensor) -> None:
        F.normalize(layer(x), dim=0).mean().backward()

    def refuses_small_batches(x: pb.Tensor) -> None:
        assert len(x) == 256
        layer(x).square().mean().backward()

    for step in (returns_more, goes_back_twice, compares_examples, refuses_small_batches):
        with pytest.raises(MemoryBudgetError) as caught:
            pb.compile(step, memory=60_000)(x)
        assert "micro-batches:" not in str(caught.value), step
        assert "what micro-batches would bring cannot be told: " in str(caught.value), step
    with pytest.raises(MemoryBudgetError):  # and it can be raised again
        pb.compile(returns_more, memory=60_000)(x)


@pytest.mark.parametrize("training", [True, False])
def test_micro_batches_are_not_advised_where_they_are_refused(training: bool) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train(training)
    with pytest.raises(MemoryBudgetError) as caught:
        pb.compile(lambda x: model(x).square().mean().backward(), memory=20_000)(pb.zeros(4, 3, 16, 16))
    assert ("micro-batches:" in str(caught.value)) is not training


def test_numbers_of_numpy_are_numbers_of_bytes() -> None:
    assert parse_bytes(np.int64(10**8)) == parse_bytes(np.float32(1e8)) == 10**8


def test_a_plan_says_whether_it_keeps_to_its_budget(tmp_path: Path) -> None:
    _, free = planned("ppo")
    assert free.budget is None and free.over_budget_bytes == 0 and "budget" not in str(free)
    peak = free.peak_bytes
    for asked, words in [
        (peak + 2048, f"keeps to the budget of {format_bytes(peak + 2048)}, 2 KiB of it left"),
        (peak // 8, f"MISSES the budget of {format_bytes(peak // 8)} by "),
        ("least", "the least for at most about one more forward pass; with everything kept"),
    ]:
        _, plan = planned("ppo", memory=asked)
        assert str(plan).splitlines()[1].startswith(f"  {words}")
        missed = max(plan.peak_bytes - asked, 0) if isinstance(asked, int) else 0
        assert plan.over_budget_bytes == missed == plan.to_dict()["over_budget_bytes"]
        assert plan.to_dict()["budget"] == plan.budget == asked


@pytest.mark.skipif(debug.get("backend") == "reference", reason="the reference computes nothing again")
def test_what_everything_kept_would_take_is_the_same_whatever_is_given_up() -> None:
    layers = nn.Sequential(*[nn.Sequential(nn.Linear(32, 32), nn.Tanh()) for _ in range(6)])

    def step(x: pb.Tensor, segments: int = 1) -> pb.Tensor:
        layers.zero_grad()

        def loss_fn(x: pb.Tensor) -> pb.Tensor:
            return pb.utils.checkpoint.checkpoint_sequential(layers, segments, x).square().mean()

        return pb.accumulate(loss_fn, x)

    x = pb.zeros(2, 512, 32)
    kept = pb.plan(step, x)
    assert kept.recomputed_flops == 0 and kept.unbudgeted_bytes == kept.peak_bytes
    for plan in (
        pb.plan(step, x, 3),
        pb.plan(step, x, memory=kept.peak_bytes // 2),
        pb.plan(step, x, memory="least", allow=["early-update"]),
        pb.plan(step, x, policy=lambda candidate: "recompute"),
    ):
        assert plan.peak_bytes <= kept.peak_bytes == plan.unbudgeted_bytes
    with pytest.raises(MemoryBudgetError) as caught:
        pb.compile(step, memory=1000)(x, 3)
    assert caught.value.peak == kept.peak_bytes


@pytest.mark.skipif(debug.get("backend") == "reference", reason="the reference computes nothing again")
def test_no_product_is_computed_again_unasked() -> None:
    """What a large step gives up by itself is made again for next to nothing; narrow layers are cheap a byte too."""
    layers = nn.Sequential(*[nn.Sequential(nn.Linear(32, 32), nn.GELU()) for _ in range(6)])

    def step(x: pb.Tensor) -> pb.Tensor:
        layers.zero_grad()
        loss = layers(x).square().mean()
        loss.backward()
        return loss

    plan = pb.plan(step, pb.zeros(1 << 18, 32))
    assert not any(node.op.name == "matmul" for node in plan._program.copies())


@pytest.mark.skipif(debug.get("backend") == "reference", reason="the reference computes nothing again")
def test_the_least_is_below_segments_set_by_hand() -> None:
    layers = nn.Sequential(*[nn.Sequential(nn.Linear(16, 16), nn.Tanh()) for _ in range(36)])
    x = pb.zeros(2048, 16)

    def peak(segments: int, memory: str | None = None) -> int:
        def step(x: pb.Tensor) -> None:
            y = pb.utils.checkpoint.checkpoint_sequential(layers, segments, x) if segments else layers(x)
            y.square().mean().backward()

        return pb.plan(step, x, memory=memory).peak_bytes

    assert peak(0, "least") < peak(6) < peak(0) / 2


def test_checkpoints_of_a_second_update_hold_as_little_as_those_of_the_first() -> None:
    layers = nn.Sequential(*[nn.Sequential(nn.Linear(64, 64), nn.Tanh()) for _ in range(16)])
    optimizer, x = pb.optim.SGD(layers.parameters(), lr=0.1), pb.zeros(1024, 64)

    def peak(updates: int) -> int:
        def step(x: pb.Tensor) -> None:
            for _ in range(updates):
                optimizer.zero_grad()
                pb.utils.checkpoint.checkpoint_sequential(layers, 4, x).square().mean().backward()
                optimizer.step()

        return pb.plan(step, x).peak_bytes

    weights = sum(p.nbytes for p in layers.parameters())
    # the weights after the first update are values of the step, held beside those before it until the step has ended
    assert peak(2) <= peak(1) + weights + 4096


def test_a_value_that_is_made_too_early_is_made_later_and_not_twice() -> None:
    """What is made in one pass because it reads the same, and is read apart: an ensemble with a mask of random bits."""
    pb.manual_seed(0)
    models = [nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 1)) for _ in range(4)]
    parameters, _ = pb.func.stack_module_state(models)
    optimizer, x, y = pb.optim.Adam(list(parameters.values())), pb.randn(512, 16), pb.randn(512)

    def call(parameters: dict[str, pb.Tensor], x: pb.Tensor) -> pb.Tensor:
        return pb.func.functional_call(models[0], parameters, (x,))

    def step(x: pb.Tensor, y: pb.Tensor) -> pb.Tensor:
        optimizer.zero_grad()
        found = pb.func.vmap(call, in_dims=(0, None), randomness="different")(parameters, x)
        loss = (found[..., 0] - y).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    whole = pb.plan(step, x, y)
    for memory in (int(0.9 * whole.peak_bytes), "least"):
        plan = pb.plan(step, x, y, memory=memory)
        assert plan.peak_bytes < 0.75 * whole.peak_bytes
        assert plan.recomputed_flops < 0.1 * whole.flops  # the random bits alone are nearly half of all
