"""Checkpointed calls: the same bits as without, in less memory; and what is not supported says so."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

import pullback as pb
from pullback import debug
from pullback.errors import GradientError
from pullback.utils.checkpoint import checkpoint, checkpoint_sequential

nn, F = pb.nn, pb.nn.functional
native_only = pytest.mark.native("the reference computes nothing again")


class Attend(nn.Module):
    """A block of a small GPT."""

    def __init__(self, width: int = 32, heads: int = 2, dropout: float = 0.0):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: pb.Tensor) -> pb.Tensor:
        batch, length, width = x.shape
        split = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4).unbind(0)
        made = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(batch, length, width)
        x = x + F.dropout(self.out(made), self.dropout, self.training)
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(32, 32, batch_first=True)

    def forward(self, x: pb.Tensor) -> pb.Tensor:
        return self.rnn(x)[0]


def dense() -> Any:
    return nn.Sequential(nn.Linear(32, 128), nn.GELU(), nn.Linear(128, 32), nn.Tanh())


def convolved() -> Any:
    layers = ([nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()] for _ in range(2))
    return nn.Sequential(*(layer for pair in layers for layer in pair))


NETWORKS: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "mlp": (dense, (64, 32)),
    "convolution": (convolved, (8, 4, 16, 16)),
    "gpt": (Attend, (4, 16, 32)),
    "dropout": (lambda: Attend(dropout=0.3), (4, 16, 32)),
    "lstm": (Recurrent, (8, 12, 32)),
}


class Stack(nn.Module):
    def __init__(self, name: str, depth: int = 6):
        super().__init__()
        self.blocks = nn.ModuleList([NETWORKS[name][0]() for _ in range(depth)])

    def forward(self, x: pb.Tensor) -> pb.Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def train(name: str, compiled: bool, way: str, context: Any = contextlib.nullcontext) -> tuple[list[bytes], Any]:
    """The bits of loss, gradients, parameters and buffers after two steps, and the step."""
    pb.manual_seed(3)
    model = Stack(name)
    optimizer = pb.optim.SGD(model.parameters(), lr=0.1)
    x = pb.randn(*NETWORKS[name][1])
    if way == "enabled":
        model.gradient_checkpointing_enable()

    def called(block: Any, x: pb.Tensor) -> Any:
        return checkpoint(block, x, use_reentrant=False) if way == "call" else block(x)

    def step(x: pb.Tensor) -> pb.Tensor:
        optimizer.zero_grad()
        with context():
            y = x
            if way == "sequential":
                y = checkpoint_sequential(list(model.blocks), 3, y)
            elif way == "nested":
                for half in (model.blocks[:3], model.blocks[3:]):
                    y = checkpoint(lambda y, half=half: [y := checkpoint(block, y) for block in half][-1], y)
            else:
                for block in model.blocks:
                    y = called(block, y)
            loss = (y.float() ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    run = pb.compile(step) if compiled else step
    losses = [run(x).detach().numpy().tobytes() for _ in range(2)]
    state = [value.detach().numpy().tobytes() for _, value in sorted(model.state_dict().items())]
    grads = [p.grad.numpy().tobytes() for p in model.parameters()]
    return [*losses, *state, *grads], run


@cache
def plain(name: str, compiled: bool) -> tuple[list[bytes], int]:
    """The bits with nothing computed again, and the bytes of the arena."""
    found, step = train(name, compiled, "plain")
    return found, step.program.memory.arena if compiled else 0


@pytest.mark.parametrize("way", ["call", "enabled", "sequential", "nested"])
@pytest.mark.parametrize("name", NETWORKS)
def test_compiled_steps_are_the_same_bits_in_less_memory(name: str, way: str) -> None:
    with debug.override(verify=True):
        kept, most = plain(name, True)
        found, less = train(name, True, way)
    assert found == kept
    if debug.get("backend") != "reference":
        assert less.program.fitted.copies
        assert less.program.memory.arena < most


@pytest.mark.parametrize("way", ["call", "nested"])
@pytest.mark.parametrize("name", NETWORKS)
def test_undecorated_steps_are_the_same_bits(name: str, way: str) -> None:
    assert train(name, False, way)[0] == plain(name, False)[0]


def test_autocast() -> None:
    def context() -> Any:
        return pb.autocast("cpu", dtype=pb.bfloat16)

    assert train("gpt", True, "call", context)[0] == train("gpt", True, "plain", context)[0]


def arena(function: Callable[..., Any], *args: Any) -> tuple[list[np.ndarray], int]:
    """The results of a compiled function, and the bytes of its arena."""
    compiled = pb.compile(function)
    found = compiled(*args)
    found = found if isinstance(found, (tuple, list)) else [found]
    return [t.detach().numpy().copy() for t in found], compiled.program.memory.arena


def same(left: list[np.ndarray], right: list[np.ndarray]) -> bool:
    return [a.tobytes() for a in left] == [b.tobytes() for b in right]


def chain(x: pb.Tensor, w: pb.Tensor, call: Callable[..., Any], depth: int = 8) -> pb.Tensor:
    def block(x: pb.Tensor) -> pb.Tensor:
        for _ in range(3):
            x = (x @ w).sin()
        return x

    for _ in range(depth):
        x = call(block, x)
    return x


def plainly(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


@native_only
def test_outside_of_a_compiled_step_memory_falls_too() -> None:
    """loss.backward() without a decorator is one program like any other."""
    from pullback.runtime import engine

    def memory(call: Callable[..., Any]) -> tuple[bytes, int]:
        w = pb.randn(64, 64, generator=pb.Generator().manual_seed(1)).requires_grad_()
        x = pb.ones(256, 64)
        loss = chain(x, w, call).sum()
        loss.backward()
        bits = w.grad.numpy().tobytes()
        return bits, next(reversed(engine._programs.values())).memory.arena

    (plain, all_kept), (found, less) = memory(plainly), memory(checkpoint)
    assert found == plain
    assert less < 0.7 * all_kept


def test_nothing_is_kept_twice_in_nested_calls() -> None:
    x, w = pb.randn(64, 32), pb.randn(32, 32).requires_grad_()

    def step(call: Callable[..., Any], outer: Callable[..., Any]) -> Callable[..., Any]:
        def halves(x: pb.Tensor) -> pb.Tensor:
            return chain(x, w, call, 4)

        def run(x: pb.Tensor) -> pb.Tensor:
            for _ in range(4):
                x = outer(halves, x)
            return pb.autograd.grad(x.sum(), w)[0]

        return run

    results = {
        (inner, outer): arena(step(*(checkpoint if c else plainly for c in (inner, outer))), x)
        for inner in (False, True)
        for outer in (False, True)
    }
    plain, all_kept = results[False, False]
    assert all(same(found, plain) for found, _ in results.values())
    if debug.get("backend") != "reference":
        assert results[True, True][1] < min(results[True, False][1], results[False, True][1]) < all_kept


def test_scan_vmap_and_second_derivatives() -> None:
    w = pb.randn(16, 16) / 4
    x = pb.randn(12, 16)

    def looped(call: Callable[..., Any]) -> Callable[..., Any]:
        def body(carry: pb.Tensor, x: pb.Tensor) -> Any:
            new = call(lambda c, x: ((c @ w).tanh() @ w).sin() + x, carry, x)
            return new, new

        return lambda w_: call(lambda: pb.func.scan(body, w_[0], x)[1]).sum() + (w_ * w_).sum()

    def batched(call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda w_: call(pb.vmap(lambda row: call(lambda r: ((r @ w_).tanh() @ w_).tanh(), row)), x).sum()

    def twice(call: Callable[..., Any]) -> Callable[..., Any]:
        def loss(w_: pb.Tensor) -> pb.Tensor:
            y = call(lambda: ((x @ w_).tanh() @ w_).sin()).sum()
            (g,) = pb.autograd.grad(y, w_, create_graph=True)
            return (g * g).sum()

        return loss

    for make in (looped, batched, twice):
        for compiled in (True, False):

            def gradient(call: Callable[..., Any]) -> bytes:
                def run(w_: pb.Tensor) -> pb.Tensor:
                    (found,) = pb.autograd.grad(make(call)(w_), w_)  # noqa: B023
                    return found

                step = pb.compile(run) if compiled else run  # noqa: B023
                return step(w.clone().requires_grad_()).numpy().tobytes()

            assert gradient(checkpoint) == gradient(plainly), (make.__name__, compiled)


def test_in_the_body_of_a_loop_only_what_a_call_reads_is_kept() -> None:
    """Of layers in a scan what crosses from one to the next; of a recurrence also what weights' gradients are made of,
    which is put together again in the backward pass.
    """
    x = pb.randn(64, 16)
    stacks = [(pb.randn(8, 16, 32) / 4).requires_grad_(), (pb.randn(8, 32, 16) / 6).requires_grad_()]
    w, series = (pb.randn(16, 16) / 4).requires_grad_(), pb.randn(8, 64, 16)

    def layers(call: Callable[..., Any]) -> list[pb.Tensor]:
        def block(c: pb.Tensor, a: pb.Tensor, b: pb.Tensor) -> pb.Tensor:
            return c + F.dropout((c @ a).sin().exp() @ b, 0.2)

        y, _ = pb.func.scan(lambda c, ws: (call(block, c, *ws), None), x, tuple(stacks))
        return list(pb.autograd.grad(y.square().mean(), stacks))

    def steps(call: Callable[..., Any], order: int = 1) -> list[pb.Tensor]:
        def body(c: pb.Tensor, x: pb.Tensor) -> tuple[pb.Tensor, pb.Tensor]:
            new = call(lambda c, x: ((c @ w).tanh().exp() @ w).sin() + x, c, x)
            return new, new.square().sum()

        (found,) = pb.autograd.grad(pb.func.scan(body, pb.zeros(64, 16), series)[1].sum(), w, create_graph=order > 1)
        return [found] if order == 1 else list(pb.autograd.grad(found.square().sum(), w))

    def drawn(function: Callable[..., Any], call: Callable[..., Any]) -> tuple[list[np.ndarray], int]:
        pb.manual_seed(4)
        return arena(lambda: function(call))

    def nested(function: Callable[..., Any], *args: Any) -> Any:
        return checkpoint(lambda *args: checkpoint(function, *args), *args)

    with debug.override(verify=True):
        for function in (layers, steps, lambda call: steps(call, 2)):
            plain, all_kept = drawn(function, plainly)
            for call in (checkpoint, nested):
                found, less = drawn(function, call)
                assert same(found, plain)
                # a gradient that is differentiated again keeps all
                assert less < all_kept or function not in (layers, steps) or debug.get("backend") == "reference"


def test_arguments_and_results_may_be_anything() -> None:
    x = pb.randn(3, requires_grad=True)

    def function(x: pb.Tensor, scale: float, *, shift: pb.Tensor) -> dict[str, Any]:
        return {"y": (x * scale).exp() + shift, "name": "exp", "of": [x.sin(), 3]}

    found = checkpoint(function, x, 2.0, use_reentrant=False, shift=pb.ones(3))
    assert found["name"] == "exp" and found["of"][1] == 3
    (found["y"].sum() + found["of"][0].sum()).backward()
    expected = 2 * np.exp(2 * x.detach().numpy()) + np.cos(x.detach().numpy())
    np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-5)
    with pb.no_grad():
        assert not checkpoint(function, x, 2.0, shift=pb.ones(3))["y"].requires_grad


def test_a_second_backward_pass_is_refused_as_ever() -> None:
    x = pb.randn(3, requires_grad=True)
    y = checkpoint(lambda x: x.exp().sin(), x).sum()
    y.backward()
    with pytest.raises(GradientError, match="second backward"):
        y.backward()


def test_no_number_of_segments_takes_more_than_none() -> None:
    x = pb.zeros(256, 64)
    for depth in (2, 4):
        model = nn.Sequential(*(layer for _ in range(depth) for layer in (nn.Linear(64, 64), nn.Tanh())))

        def peak(segments: int) -> int:
            def step(x: pb.Tensor) -> None:
                y = checkpoint_sequential(model, segments, x) if segments else model(x)  # noqa: B023
                y.square().mean().backward()

            return pb.plan(step, x).peak_bytes

        plain = peak(0)
        assert all(peak(segments) <= plain for segments in range(1, depth + 1))


@native_only
def test_a_budget_goes_below_what_nested_calls_ask_for() -> None:
    """The least of a step is not more for its checkpointed calls, and the bits are the same."""
    x = pb.randn(256, 32)

    def trained(nested: bool, memory: str | None) -> tuple[int, list[bytes]]:
        pb.manual_seed(0)
        blocks = nn.ModuleList([dense() for _ in range(4)])
        call = checkpoint if nested else lambda function, z: function(z)

        def step(x: pb.Tensor) -> pb.Tensor:
            blocks.zero_grad()
            found = call(lambda z: sum((call(block, z) for block in blocks), z), x)
            loss = found.square().mean()
            loss.backward()
            return loss

        compiled = pb.compile(step, memory=memory)
        compiled(x)
        return compiled.memory.peak_bytes, [p.grad.numpy().tobytes() for p in blocks.parameters()]

    nested, same = trained(True, None)
    least, bits = trained(True, "least")
    assert least < nested and least <= trained(False, "least")[0] and bits == same


@native_only
def test_what_a_policy_leaves_open_is_computed_again_and_what_it_keeps_is_kept() -> None:
    model, x = nn.Sequential(*[layer for _ in range(8) for layer in (nn.Linear(16, 16), nn.Tanh())]), pb.randn(1024, 16)

    def planned(segments: int, policy: Any = None) -> tuple[int, int]:
        def step(x: pb.Tensor) -> None:
            checkpoint_sequential(model, segments, x).square().mean().backward()

        plan = pb.plan(step, x, policy=policy)
        return plan.peak_bytes, plan.recomputed_flops

    assert planned(4, lambda candidate: None) == planned(4) < planned(1)
    first: list[tuple[int, ...]] = []

    def keep_the_first_call(candidate: Any) -> str | None:
        if candidate.checkpoint and not first:
            first.append(candidate.checkpoint)
        return "keep" if candidate.checkpoint in first else None

    kept = planned(4, keep_the_first_call)
    assert 0 < kept[1] < planned(4)[1]
    assert planned(4, lambda candidate: "keep" if candidate.checkpoint else None) == planned(1)


def test_what_is_not_supported_says_so() -> None:
    x = pb.ones(2)
    for arguments, error, message in [
        ({"context_fn": lambda: None}, NotImplementedError, "policy"),
        ({"debug": True}, NotImplementedError, "no two runs"),
        ({"early_stop": False}, NotImplementedError, "early_stop"),
        ({"determinism_check": "never"}, ValueError, "determinism_check"),
        ({"use_reentrant": "no"}, TypeError, "use_reentrant"),
    ]:
        with pytest.raises(error, match=message):
            checkpoint(pb.sin, x, **arguments)
    with pytest.raises(TypeError, match="function first"):
        checkpoint(3, x)
    with pytest.raises(ValueError, match="segments"):
        checkpoint_sequential([pb.sin], 2, x)
    with pytest.raises(ValueError, match="functions are none"):
        checkpoint_sequential([], 1, x)
    with pytest.raises(TypeError, match="context_fn"):
        nn.Sequential(dense()).gradient_checkpointing_enable({"context_fn": None})


def test_blocks() -> None:
    with pytest.raises(ValueError, match="no blocks"):
        dense().gradient_checkpointing_enable()
    stages = nn.Sequential(nn.Linear(3, 3), nn.Sequential(dense(), dense()), nn.ModuleDict({"a": dense()}))
    stages.gradient_checkpointing_enable({"use_reentrant": False})
    on = [name for name, module in stages.named_modules() if module._checkpointing]
    assert on == ["1.0", "1.1", "2"]
    assert stages.is_gradient_checkpointing and not stages[0].is_gradient_checkpointing
    assert not stages.gradient_checkpointing_disable().is_gradient_checkpointing


@native_only
def test_a_compiled_step_follows_the_switch() -> None:
    model = Stack("mlp")

    @pb.compile
    def step(x: pb.Tensor) -> pb.Tensor:
        model.zero_grad()
        loss = model(x).sum()
        loss.backward()
        return loss

    x = pb.randn(64, 32)
    step(x)
    before = step.program.memory.arena
    model.gradient_checkpointing_enable()
    step(x)
    assert step.program.memory.arena < before
    model.gradient_checkpointing_disable()
    step(x)
    assert step.program.memory.arena == before


def test_a_layer_that_comes_twice_is_called_twice_by_segments() -> None:
    layer, x = nn.Linear(3, 3), pb.ones(2, 3)
    model = nn.Sequential(layer, nn.Tanh(), layer, nn.Tanh(), layer)
    for segments in (1, 2, 5):
        np.testing.assert_array_equal(
            checkpoint_sequential(model, segments, x).detach().numpy(), model(x).detach().numpy()
        )
    with pytest.raises(TypeError, match=r"takes an nn\.Sequential or a list, got a Linear"):
        checkpoint_sequential(layer, 1, x)  # type: ignore[arg-type]
