"""Clipped gradients are left uncomputed by a compiled step, and are right for whoever looks, whenever he looks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pullback as pb
from oracle import numbers

Look = Callable[[list[pb.Tensor], list[Any]], None]


def _step(compiled: bool, region: bool = False, width: int = 9) -> tuple[Any, list[pb.Tensor]]:
    """A training step that clips its gradients by far, and its parameters."""
    pb.manual_seed(0)
    model = pb.nn.Sequential(pb.nn.Linear(5, width), pb.nn.ReLU(), pb.nn.Linear(width, 3))
    parameters = list(model.parameters())
    optimizer = pb.optim.AdamW(parameters, lr=0.05)
    x, y = pb.randn(8, 5), pb.tensor([0, 1, 2, 0, 1, 2, 0, 1])

    def step() -> pb.Tensor:
        optimizer.zero_grad()
        with pb.autocast("cpu", enabled=region):
            loss = pb.nn.functional.cross_entropy(model(x), y) * 30
        loss.backward()
        pb.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return loss

    return (pb.compile(step) if compiled else step), parameters


def _gradient(parameter: pb.Tensor) -> pb.Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _read(parameters: list[pb.Tensor], kept: list[Any]) -> None:
    kept.extend(_gradient(p).numpy().copy() for p in parameters)


def _hold(parameters: list[pb.Tensor], kept: list[Any]) -> None:
    kept.extend(_gradient(p) for p in parameters)


def _hold_arrays(parameters: list[pb.Tensor], kept: list[Any]) -> None:
    kept.extend(_gradient(p).numpy() for p in parameters)


def _use_later(parameters: list[pb.Tensor], kept: list[Any]) -> None:
    kept.extend(_gradient(p) * 2.0 for p in parameters)


def _change(parameters: list[pb.Tensor], kept: list[Any]) -> None:
    _use_later(parameters, kept)
    for parameter in parameters:
        _gradient(parameter).mul_(3.0)


def _change_and_read(parameters: list[pb.Tensor], kept: list[Any]) -> None:
    for parameter in parameters:
        _gradient(parameter).mul_(3.0)
    _read(parameters, kept)


def _use_and_forget(parameters: list[pb.Tensor], kept: list[Any]) -> None:
    kept.append(pb.stack([_gradient(p).norm() for p in parameters]).numpy().copy())
    for parameter in parameters:
        parameter.grad = None


def _one_now_and_then(parameters: list[pb.Tensor], kept: list[Any]) -> None:
    if len(kept) % 3 == 0:
        kept.append(_gradient(parameters[0]).detach())
    kept.append(_gradient(parameters[1]).sum().item())


@pytest.mark.parametrize(
    "look",
    [_read, _hold, _hold_arrays, _use_later, _change, _change_and_read, _use_and_forget, _one_now_and_then],
)
def test_whoever_looks_sees_the_clipped_gradient_of_that_step(look: Look) -> None:
    results = []
    for compiled in (True, False):
        step, parameters = _step(compiled)
        kept: list[Any] = []
        for _ in range(5):
            kept.append(step().item())
            look(parameters, kept)
        results.append([numbers(k) if isinstance(k, pb.Tensor) else k for k in [*kept, *parameters]])
    for found, expected in zip(*results, strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-6)


def test_the_gradient_has_the_bits_that_the_optimizer_saw() -> None:
    w = pb.randn(7, 5).requires_grad_()

    @pb.compile
    def step(scale: pb.Tensor) -> tuple[pb.Tensor, pb.Tensor]:
        w.grad = None
        ((w * w).sum() * scale).backward()
        norm = pb.nn.utils.clip_grad_norm_([w], 1.0)
        return norm, _gradient(w) + 0.0

    for scale in (1.0, 100.0, 1e-3):
        norm, seen = step(pb.tensor(scale))
        np.testing.assert_array_equal(numbers(_gradient(w)), numbers(seen))
        expected = min(1.0, 1.0 / (norm.item() + 1e-6)) * norm.item()
        np.testing.assert_allclose(np.linalg.norm(numbers(_gradient(w))), expected, rtol=1e-5)


def test_clipping_needs_no_memory_for_the_gradients_it_scales() -> None:
    step, parameters = _step(compiled=True, width=4096)
    step()
    gradients = sum(p.numel() for p in parameters) * 4
    variant = step._last
    assert sorted(variant.outcome.deferred) == sorted(place for _, place in variant.outcome.made_grads)
    written = (
        {node for launch in variant.program.layout.launches() for node in launch.writes} if _is_native() else set()
    )
    elements = sum(np.prod(node.shape, dtype=int) for node in written if node.op.name == "mul")
    assert elements * 4 < gradients
    memory = step.program.memory
    # parameters, two moments and the gradients, and next to nothing else, are written
    assert memory.outputs < 4 * gradients + 200


def _is_native() -> bool:
    return bool(pb.debug.get("backend") == "native")


def test_gradients_nobody_looks_at_stay_in_their_memory() -> None:
    step, parameters = _step(compiled=True)
    for _ in range(3):
        step()
    bases = [node.buffer.address for node in step._last.gradients.bases.values()]
    nodes = [_gradient(p).node for p in parameters]
    del nodes
    for _ in range(3):
        step()
    assert [node.buffer.address for node in step._last.gradients.bases.values()] == bases
    assert all(_gradient(p)._node.buffer is None for p in parameters)


def test_nan_reaches_whoever_looks() -> None:
    w = pb.tensor([1.0, float("nan")], requires_grad=True)

    @pb.compile(on_nonfinite="ignore")
    def step() -> None:
        w.grad = None
        (w * w).sum().backward()
        pb.nn.utils.clip_grad_norm_([w], 1.0)

    step()
    assert np.isnan(numbers(_gradient(w))).all()


def test_under_autocast_the_gradient_waits_in_bfloat16() -> None:
    step, parameters = _step(compiled=True, region=True)
    plain, others = _step(compiled=False, region=True)
    for _ in range(3):
        np.testing.assert_allclose(step().item(), plain().item(), rtol=1e-2)
    assert step._last.gradients.bases[min(step._last.gradients.bases)].dtype is pb.bfloat16
    for ours, theirs in zip(parameters, others, strict=True):
        assert _gradient(ours).dtype is pb.float32
        np.testing.assert_allclose(numbers(_gradient(ours)), numbers(_gradient(theirs)), atol=2e-2)


def test_a_step_that_adds_to_its_gradients_computes_them() -> None:
    w = pb.ones(3, requires_grad=True)

    @pb.compile
    def step() -> None:
        (w * 2.0).sum().backward()
        pb.nn.utils.clip_grad_norm_([w], 1.0)

    for _ in range(3):
        step()
    assert not step._last.outcome.deferred
    np.testing.assert_allclose(numbers(_gradient(w)), 1 / np.sqrt(3), rtol=1e-5)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (1, 1), (3, 0, 2)])
def test_gradients_of_awkward_shapes(shape: tuple[int, ...]) -> None:
    w, v = pb.ones(shape).requires_grad_(), pb.ones(2, 2).requires_grad_()

    @pb.compile
    def step() -> None:
        w.grad = v.grad = None
        ((w * 3.0).sum() + (v * v).sum()).backward()
        pb.nn.utils.clip_grad_norm_([w, v], 1.0)

    for _ in range(3):
        step()
    norm = np.sqrt(9.0 * w.numel() + 16.0)
    np.testing.assert_allclose(numbers(_gradient(w)), np.full(shape, 3.0) / norm, rtol=1e-5)
    np.testing.assert_allclose(numbers(_gradient(v)), np.full((2, 2), 2.0) / norm, rtol=1e-5)


def test_two_parameters_with_one_gradient() -> None:
    w, v = pb.ones(3).requires_grad_(), pb.ones(3).requires_grad_()

    @pb.compile
    def step() -> pb.Tensor:
        w.grad = v.grad = None
        loss = ((w + v) * pb.tensor([1.0, 2.0, 3.0])).exp().sum()
        loss.backward()
        pb.nn.utils.clip_grad_norm_([w, v], 1.0)
        return _gradient(w)

    for _ in range(3):
        returned = step()
        np.testing.assert_array_equal(numbers(_gradient(w)), numbers(_gradient(v)))
        np.testing.assert_array_equal(numbers(_gradient(w)), numbers(returned))
    np.testing.assert_allclose(2 * np.sum(numbers(_gradient(w)) ** 2), 1.0, rtol=1e-4)
