"""What there is no room for is refused before it is allocated, and the error's advice holds to the byte."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pullback as pb
from pullback.errors import MemoryBudgetError
from pullback.memory import address_space, available_bytes, format_bytes
from pullback.runtime.buffers import allocate, live_bytes
from pullback.tracing import step as steps
from pullback.train.gpt import GPT, GPTConfiguration

nn = pb.nn
F = nn.functional


@pytest.mark.native("the reference has no memory to plan")
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


# ---- advice


Loss = Callable[..., pb.Tensor]


def mlp_loss() -> tuple[nn.Module, Loss, tuple[pb.Tensor, ...], int]:
    model = nn.Sequential(*[layer for _ in range(4) for layer in (nn.Linear(32, 32), nn.Tanh())])
    return model, lambda x: model(x).square().mean(), (pb.zeros(1024, 32),), 500_000


def gpt_loss() -> tuple[nn.Module, Loss, tuple[pb.Tensor, ...], int]:
    model = GPT(GPTConfiguration(31, 8, 1, 32, 2, dropout=0.1))
    tokens = pb.zeros(32, 8, dtype=pb.int64)
    return model, lambda x, y: F.cross_entropy(model(x).flatten(0, 1), y.flatten()), (tokens, tokens + 1), 510_000


@pytest.mark.native("the reference has no arena")
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
    assert "activations" in words and ("train/gpt.py:" if make is gpt_loss else "test_refusals.py:") in words
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
        low = pb.lora.apply(low, 16, 16, "all-linear")
        trained = sum(p.nbytes for p in low.parameters() if p.requires_grad)
        # with a gradient and two moments each
        assert f"and would be {format_bytes(sum(tensor.nbytes for tensor in kept) + 4 * trained)}" in words


@pytest.mark.native("the reference has no arena")
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


@pytest.mark.native("the reference has no memory to plan")
@pytest.mark.parametrize("training", [True, False])
def test_micro_batches_are_not_advised_where_they_are_refused(training: bool) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train(training)
    with pytest.raises(MemoryBudgetError) as caught:
        pb.compile(lambda x: model(x).square().mean().backward(), memory=20_000)(pb.zeros(4, 3, 16, 16))
    assert ("micro-batches:" in str(caught.value)) is not training
