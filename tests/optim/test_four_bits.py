"""Adam with both moments in one byte: what it computes, holds and writes, against the paper's update in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pullback as pb
from pullback import debug
from pullback.memory.sizes import format_bytes

#: of whole blocks, with a part of one, a vector of either, of more axes, and with one axis that is longer than 1
SHAPES = [(64, 128), (70, 67), (8192,), (5000,), (5, 17, 3, 40), (1, 4999)]
#: Li, Chen & Zhu (2023) as thu-ml/low-bit-optimizers builds them: create_dynamic_map(True, 3, 4), and a line without 0
FIRST = np.sort([0, 1, *(s * u * m for s in (1, -1) for u, ms in ((0.01, [0.55]), (0.1, [0.325, 0.775]),
                 (1, [0.2125, 0.4375, 0.6625, 0.8875])) for m in ms)])  # fmt: skip
SECOND = np.linspace(0, 1, 17)[1:]


def nearest(shares: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """The codes of the nearest numbers, halfway the lower one."""
    return np.searchsorted((numbers[1:] + numbers[:-1]) / 2, shares)


def in_blocks(values: np.ndarray) -> np.ndarray:
    """The greatest magnitude of each block of 128, an element's for each of them."""
    flat = np.pad(abs(values).reshape(-1), (0, -values.size % 128)).reshape(-1, 128)
    return np.repeat(flat.max(axis=1), 128)[: values.size].reshape(values.shape)


def by_axis(values: np.ndarray) -> np.ndarray:
    """Rank-1 normalization: the least of the greatest numbers by axis."""
    if max(values.shape) == values.size:
        return in_blocks(values)
    axes = range(values.ndim)
    found = [values.max(axis=tuple(a for a in axes if a != axis), keepdims=True) for axis in axes]
    return np.minimum.reduce(np.broadcast_arrays(*found))


class Published:
    """The update of one parameter in float64, its moments through their codes after each step."""

    def __init__(self, value: np.ndarray, decoupled: bool, decay: float):
        self.value, self.decoupled, self.decay = value.astype(np.float64), decoupled, decay
        self.first, self.second, self.count = np.zeros(value.shape), np.zeros(value.shape), 0
        self.codes = np.zeros(value.shape, np.uint8)

    def step(self, gradient: np.ndarray, lr: float) -> None:
        g, self.count = gradient.astype(np.float64), self.count + 1
        if self.decoupled:
            self.value *= 1 - lr * self.decay
        else:
            g = g + self.decay * self.value
        first, second = 0.9 * self.first + 0.1 * g, 0.999 * self.second + 0.001 * g * g
        deviation = np.sqrt(second / (1 - 0.999**self.count)) + 1e-8
        self.value -= lr / (1 - 0.9**self.count) * first / deviation
        of_first, of_second = in_blocks(first), by_axis(second)
        low, high = nearest(first / of_first, FIRST), nearest(second / of_second, SECOND)
        self.first, self.second = FIRST[low] * of_first, SECOND[high] * of_second
        self.codes = (low | high << 4).astype(np.uint8)


@pytest.mark.parametrize(("make", "decay"), [(pb.optim.AdamW4bit, 1e-2), (pb.optim.Adam4bit, 1e-3)])
@pytest.mark.parametrize("compiled", [True, False])
def test_steps_are_the_papers(make: Any, decay: float, compiled: bool) -> None:
    random = np.random.default_rng(0)
    values = [random.standard_normal(shape).astype(np.float32) for shape in SHAPES]
    own = [pb.tensor(value.copy(), requires_grad=True) for value in values]
    expected = [Published(value, make is pb.optim.AdamW4bit, decay) for value in values]
    optimizer = make(own, lr=1e-2, weight_decay=decay)
    gradients = [pb.zeros(shape) for shape in SHAPES]

    def step() -> None:
        for p, g in zip(own, gradients, strict=True):
            p.grad = g * 1
        optimizer.step()

    run = pb.compile(step) if compiled else step
    for _ in range(4):
        for g in gradients:
            g.copy_(pb.tensor(random.standard_normal(g.shape).astype(np.float32)))
        run()
        for p, right, g in zip(own, expected, gradients, strict=True):
            right.step(g.numpy(), 1e-2)
            np.testing.assert_allclose(p.detach().numpy(), right.value, rtol=2e-5, atol=2e-6)
            codes = optimizer.state[p]["moments"].numpy()
            # a share at a border between two codes may round to either, which the next step then goes on from
            assert (codes != right.codes).mean() < 1e-3


def test_state_takes_a_byte_a_parameter_and_small_ones_keep_theirs() -> None:
    w, small = pb.zeros(512, 512, requires_grad=True), pb.zeros(4096, requires_grad=True)
    optimizer = pb.optim.AdamW4bit([w, small])
    for p in (w, small):
        p.grad = pb.ones(p.shape)
    optimizer.step()
    held = {name: t for name, t in optimizer.state[w].items() if t.shape}
    assert sorted(held) == ["exp_avg_scales", "exp_avg_sq_scales_0", "exp_avg_sq_scales_1", "moments"]
    assert sum(t.numel() * t.dtype.itemsize for t in held.values()) <= 1.1 * w.numel()
    assert optimizer.state[small]["exp_avg"].dtype is pb.float32 and "exp_avg_sq" in optimizer.state[small]


@pytest.mark.parametrize("sizes", [(1024, 1024), (999, 1001)])  # of whole blocks, and with a part of one
def test_no_moment_is_ever_written_in_full(sizes: tuple[int, int]) -> None:
    model = pb.nn.Linear(*sizes)
    optimizer = pb.optim.AdamW4bit(model.parameters())
    x = pb.ones(4, sizes[0])

    @pb.compile
    def step() -> pb.Tensor:
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    with debug.override(verify=True):
        plan, weight = step.plan(), 4 * sizes[0] * sizes[1]
    assert plan.breakdown["optimizer"] < 0.27 * weight, f"\n{plan}"
    assert plan.breakdown["temporaries"] + plan.breakdown["gradients"] < 1.05 * weight, (
        f"more than the gradient is written:\n{plan}"
    )


def test_state_dicts_go_both_ways_with_the_same_bits() -> None:
    def trained(steps: int, state: Any = None, values: Any = None) -> tuple[np.ndarray, Any]:
        start = np.linspace(-1, 1, 71 * 80, dtype=np.float32).reshape(71, 80) if values is None else values
        w = pb.tensor(start, requires_grad=True)
        optimizer = pb.optim.Adam4bit([w], lr=1e-2)
        if state is not None:
            optimizer.load_state_dict(state)
        for _ in range(steps):
            optimizer.zero_grad()
            ((w - 0.3) ** 2).sum().backward()
            optimizer.step()
        return w.detach().numpy().copy(), optimizer.state_dict()

    whole, _ = trained(6)
    half, state = trained(3)
    again, _ = trained(3, state, half)
    np.testing.assert_array_equal(again, whole)
    with pytest.raises(pb.errors.StateDictError, match="exp_avg_sq_scales_0"):
        w = pb.zeros(71, 80, requires_grad=True)
        pb.optim.AdamW8bit([w]).load_state_dict(state)


def test_zeros_stay_zero_and_bad_numbers_spoil_no_other_row_or_column() -> None:
    w = pb.ones(64, 128, requires_grad=True)
    optimizer = pb.optim.AdamW4bit([w], lr=1e-2, weight_decay=0.0)
    gradient = np.ones((64, 128), np.float32)
    gradient[5], gradient[9, 3], gradient[11, 7] = 0.0, np.nan, np.inf
    for _ in range(3):
        w.grad = pb.tensor(gradient)
        optimizer.step()
    found = w.detach().numpy()
    np.testing.assert_array_equal(found[5, :3], 1.0)
    others = np.delete(np.delete(found, [9, 11], axis=0), [3, 7], axis=1)
    assert np.isfinite(others).all() and np.isnan(found[9, 3])


def test_amsgrad_is_refused() -> None:
    with pytest.raises(ValueError, match="AdamW4bit has no amsgrad"):
        pb.optim.AdamW4bit([pb.zeros(3, requires_grad=True)], amsgrad=True)


def test_a_budget_that_cannot_be_kept_says_what_4_bits_would_save() -> None:
    model = pb.nn.Linear(1000, 300)
    x = pb.ones(4, 1000)

    def planned(optimizer: Any) -> Any:
        def step(x: pb.Tensor) -> None:
            model(x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()

        return pb.compile(step, memory="1MB")

    full, coded = (planned(make(model.parameters())) for make in (pb.optim.AdamW, pb.optim.AdamW4bit))
    state, less = (format_bytes(step.plan(x).breakdown["optimizer"]) for step in (full, coded))
    with pytest.raises(pb.errors.MemoryBudgetError, match=f"Adam4bit.: a state of {less}, where it is {state}"):
        full(x)
