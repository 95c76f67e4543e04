"""What is given up for less memory: how much less is held for how much more work, and what is not given up unasked."""

from __future__ import annotations

import pytest

import pullback as pb
from plan_checker import check, planned
from pullback.errors import MemoryBudgetError

nn = pb.nn


@pytest.mark.native("the reference computes nothing again")
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


@pytest.mark.native("the reference computes nothing again")
def test_a_policy_is_followed() -> None:
    _, plan = planned("gpt-char")
    _, less = planned(
        "gpt-char", policy=lambda c: None if c.source.is_backward or c.source.operation == "add" else "recompute"
    )
    assert less.recomputed_flops > 0
    assert less.timeline["activations"].max() < plan.timeline["activations"].max()


@pytest.mark.native("the reference computes nothing again")
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


@pytest.mark.native("the reference computes nothing again")
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


@pytest.mark.native("the reference computes nothing again")
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


@pytest.mark.native("the reference computes nothing again")
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
