"""Optimizers with 8 bits of state: what they compute, what they hold, and what they write on their way."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import pullback as pb
from pullback import debug, quant
from pullback.memory.sizes import format_bytes

CASES: dict[str, tuple[Callable[..., Any], Callable[..., Any], dict[str, Any]]] = {
    "Adam": (pb.optim.Adam8bit, pb.optim.Adam, {"lr": 1e-2, "weight_decay": 1e-2}),
    "AdamW": (pb.optim.AdamW8bit, pb.optim.AdamW, {"lr": 1e-2}),
    "Lion": (pb.optim.Lion8bit, pb.optim.Lion, {"lr": 1e-3}),
    "SGD": (pb.optim.SGD8bit, pb.optim.SGD, {"lr": 1e-2, "momentum": 0.9}),
}
#: of whole blocks, with a part of one, and too small to be coded
SHAPES = [(64, 128), (70, 67), (4095,)]


def held(state: dict[str, pb.Tensor], name: str) -> np.ndarray:
    """What a slot of the state stands for."""
    scales = state.get(name + "_scales")
    if scales is None:
        return state[name].numpy()
    return quant.dequantize_blockwise(state[name], scales, signed=name != "exp_avg_sq").numpy()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("compiled", [True, False])
def test_a_step_is_that_of_the_full_optimizer_from_the_decoded_state(name: str, compiled: bool) -> None:
    make, plain, options = CASES[name]
    random = np.random.default_rng(0)
    values = [random.standard_normal(shape).astype(np.float32) for shape in SHAPES]
    own = [pb.tensor(v, requires_grad=True) for v in values]
    optimizer = make(own, **options)
    gradients = [pb.zeros(shape) for shape in SHAPES]

    def step() -> None:
        for p, g in zip(own, gradients, strict=True):
            p.grad = g * 1
        optimizer.step()

    run = pb.compile(step) if compiled else step
    for _ in range(4):
        others = [pb.tensor(p.detach().numpy().copy(), requires_grad=True) for p in own]
        expected = plain(others, **options)
        state = [dict(optimizer.state[p]) for p in own]
        if state[0]:
            loaded = {
                place: {k: (v.numpy().copy() if not k.endswith("_scales") and v.shape == () else held(s, k))
                        for k, v in s.items() if not k.endswith("_scales")}
                for place, s in enumerate(state)
            }  # fmt: skip
            expected.load_state_dict({"state": loaded, "param_groups": expected.state_dict()["param_groups"]})
        for g in gradients:
            g.copy_(pb.tensor(random.standard_normal(g.shape).astype(np.float32)))
        for p, g in zip(others, gradients, strict=True):
            p.grad = pb.tensor(g.numpy().copy())
        expected.step()
        run()
        for p, other in zip(own, others, strict=True):
            np.testing.assert_allclose(p.detach().numpy(), other.detach().numpy(), rtol=2e-5, atol=2e-6)
            slots = [k for k in optimizer.state[p] if not k.endswith("_scales") and optimizer.state[p][k].shape]
            for slot in slots:
                full, kept = expected.state[other][slot].numpy(), held(optimizer.state[p], slot)
                assert abs(kept - full).max() <= 0.0072 * abs(full).max()


@pytest.mark.parametrize("name", CASES)
def test_state_takes_a_byte_an_element_and_a_number_a_block(name: str) -> None:
    make, plain, options = CASES[name]
    w = pb.zeros(512, 512, requires_grad=True)
    sizes = []
    for optimizer in (make([w], **options), plain([w], **options)):
        w.grad = pb.ones(512, 512)
        optimizer.step()
        sizes.append(sum(t.numel() * t.dtype.itemsize for t in optimizer.state[w].values() if t.shape))
    assert sizes[0] / w.numel() <= 2.1 * sizes[1] / (8 * w.numel())


@pytest.mark.parametrize("monitored", [False, True])
@pytest.mark.parametrize("sizes", [(1024, 1024), (999, 1001)])  # of whole blocks, and with a part of one
def test_no_moment_is_ever_written_in_full(sizes: tuple[int, int], monitored: bool) -> None:
    model = pb.nn.Linear(*sizes)
    optimizer = pb.optim.AdamW8bit(model.parameters())
    x = pb.ones(4, sizes[0])
    monitor = pb.Monitor(model, optimizer) if monitored else None

    @pb.compile
    def step() -> pb.Tensor:
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    with debug.override(verify=True):
        plan = step.plan()
    weight = 4 * sizes[0] * sizes[1]
    assert plan.breakdown["optimizer"] < 0.52 * weight, f"\n{plan}"
    assert plan.breakdown["temporaries"] + plan.breakdown["gradients"] < 1.05 * weight, (
        f"more than the gradient is written:\n{plan}"
    )
    if monitor is not None:
        step()
        assert monitor.last.parameters["weight"].update_norm


def test_state_dicts_go_both_ways_with_the_same_bits() -> None:
    def trained(steps: int, state: Any = None, values: Any = None) -> tuple[np.ndarray, Any]:
        w = pb.tensor(np.linspace(-1, 1, 5000, dtype=np.float32) if values is None else values, requires_grad=True)
        optimizer = pb.optim.Adam8bit([w], lr=1e-2)
        if state is not None:
            optimizer.load_state_dict(state)
        for _ in range(steps):
            optimizer.zero_grad()
            ((w - 0.3) ** 2).sum().backward()
            optimizer.step()
        return w.detach().numpy().copy(), optimizer.state_dict()

    whole, _ = trained(6)
    half, state = trained(3)
    again, last = trained(3, state, half)
    np.testing.assert_array_equal(again, whole)
    assert last["state"][0]["exp_avg"].dtype is pb.uint8


def test_a_state_in_full_is_not_taken_for_codes() -> None:
    w = pb.zeros(5000, requires_grad=True)
    w.grad = pb.ones(5000)
    full = pb.optim.Adam([w])
    full.step()
    with pytest.raises(pb.errors.StateDictError, match="exp_avg_scales"):
        pb.optim.Adam8bit([w]).load_state_dict(full.state_dict())


@pytest.mark.parametrize(
    ("make", "name", "change"),
    [
        (pb.optim.AdamW8bit, "exp_avg", lambda codes: codes.float() * 1.5),
        (pb.optim.AdamW8bit, "exp_avg", lambda codes: (codes.to(pb.int32) + 1000).numpy()),
        (pb.optim.AdamW8bit, "exp_avg", lambda codes: torch.tensor(codes.numpy()).to(torch.int8)),
        (pb.optim.AdamW8bit, "exp_avg_sq_scales", lambda scales: scales.to(pb.uint8)),
        (pb.optim.Adam4bit, "moments", lambda codes: codes.tolist()),
    ],
)  # fmt: skip
def test_codes_of_another_dtype_are_refused_and_change_nothing(make: Any, name: str, change: Any) -> None:
    w = pb.ones(5000, requires_grad=True)
    optimizer = make([w])
    w.grad = pb.ones(5000)
    optimizer.step()
    saved = copy.deepcopy(optimizer.state_dict())
    before = {key: value.tolist() for key, value in optimizer.state[w].items()}
    given = {key: torch.tensor(value.numpy()) for key, value in saved["state"][0].items()}
    optimizer.load_state_dict({**saved, "state": {0: given}})
    saved["state"][0][name] = change(saved["state"][0][name])
    saved["param_groups"][0]["lr"] = 3.0
    with pytest.raises(pb.errors.StateDictError, match=f"wrong dtype: parameter 0, {name}: .* expected"):
        optimizer.load_state_dict(saved)
    assert {key: value.tolist() for key, value in optimizer.state[w].items()} == before
    assert optimizer.param_groups[0]["lr"] == 1e-3


@pytest.mark.parametrize(
    ("make", "options", "dtype"),
    [(pb.optim.AdamW8bit, {"amsgrad": True}, pb.float32), (pb.optim.Adam8bit, {"weight_decay": 0.1}, pb.float64),
     (pb.optim.SGD8bit, {"momentum": 0.9}, pb.float32), (pb.optim.AdamW4bit, {}, pb.bfloat16),
     (pb.optim.Adafactor, {}, pb.float32)],
)  # fmt: skip
def test_gradients_whose_squares_overflow_leave_a_finite_state(
    make: Callable[..., Any], options: dict[str, Any], dtype: pb.dtype
) -> None:
    own = [pb.zeros(shape, dtype=dtype, requires_grad=True) for shape in ((70, 67), (5000,))]
    optimizer = make(own, lr=1e-2, **options)
    signs = [np.sign(np.random.default_rng(0).standard_normal(p.shape)) for p in own]
    for size in (1e25, 1e25, 1e12, 1.0):
        for p, sign in zip(own, signs, strict=True):
            p.grad = pb.tensor(size * sign).to(dtype)
        optimizer.step()
        for p, sign in zip(own, signs, strict=True):
            assert all(value.isfinite().all() for value in optimizer.state[p].values())
            moved = -p.detach().double().numpy() * sign
            assert (moved > 0).all() and (make is pb.optim.SGD8bit or (moved < 0.05).all()), (size, moved)
    w = pb.zeros(64, 128, requires_grad=True)
    optimizer, w.grad = make([w], lr=1e-2, **options), pb.full((64, 128), float("nan"))
    optimizer.step()
    assert w.isnan().all()


def test_the_size_from_which_state_is_coded_is_asked_for() -> None:
    small, great = pb.ones(300, requires_grad=True), pb.ones(5000, requires_grad=True)
    for least, coded in ((0, (True, True)), (300, (True, True)), (301, (False, True)), (5001, (False, False))):
        optimizer = pb.optim.AdamW8bit([small, great], 1e-3, min_8bit_size=least)
        small.grad, great.grad = pb.ones(300), pb.ones(5000)
        optimizer.step()
        assert tuple("exp_avg_scales" in optimizer.state[p] for p in (small, great)) == coded
    assert list(inspect.signature(pb.optim.SGD8bit).parameters)[-1] == "min_8bit_size"
    for wrong in (-1, 2.5, True):
        with pytest.raises(ValueError, match="min_8bit_size must be a whole number"):
            pb.optim.Lion8bit([small], min_8bit_size=wrong)
        with pytest.raises(ValueError, match="min_8bit_size must be a whole number"):
            pb.optim.AdamW8bit([{"params": [small], "min_8bit_size": wrong}])
    for name in ("AdamW8bit", "SGD8bit", "Adam4bit"):
        for make in (getattr(pb.optim, name), type("Own" + name, (getattr(pb.optim, name),), {})):
            with pytest.raises(
                TypeError, match=rf"{make.__name__}: .*'min_8bits_size'.*options are \['lr', .*maximize"
            ):
                make([small], min_8bits_size=1)
    with pytest.raises(ValueError, match=r"AdamW8bit has no hyperparameter 'min_8bit_sizes'.*'min_8bit_size'"):
        pb.optim.AdamW8bit([{"params": [small], "min_8bit_sizes": 1}])


def test_each_group_has_a_size_from_which_its_state_is_coded() -> None:
    def made(*sizes: int) -> tuple[Any, list[pb.Tensor]]:
        own = [pb.ones(5000, requires_grad=True) for _ in sizes]
        groups = [{"params": [p], "min_8bit_size": least} for p, least in zip(own, sizes, strict=True)]
        optimizer = pb.optim.AdamW8bit(groups, 1e-3)
        for p in own:
            p.grad = pb.ones(5000)
        return optimizer, own

    def coded(optimizer: Any, own: list[pb.Tensor]) -> list[bool]:
        return ["exp_avg_scales" in optimizer.state[p] for p in own]

    first, own = made(1, 6000)
    first.step()
    assert coded(first, own) == [True, False]
    saved = first.state_dict()
    assert [group["min_8bit_size"] for group in saved["param_groups"]] == [1, 6000]
    # a hyperparameter, which a state brings along as it does the others
    second, others = made(6000, 1)
    second.step()
    second.load_state_dict(saved)
    second.step(), first.step()
    assert coded(second, others) == [True, False]
    for name, value in first.state[own[0]].items():
        assert value.tolist() == second.state[others[0]][name].tolist()
    # one of an optimizer that does not name it
    for group in saved["param_groups"]:
        del group["min_8bit_size"]
    third, _ = made(6000, 1)
    with pytest.raises(pb.errors.StateDictError) as refused:
        third.load_state_dict(saved)
    lines = str(refused.value).splitlines()
    assert "kept in 8 bits, with min_8bit_size=6000 and 5,000 elements it is in full" in lines[1]
    assert "kept in full, as AdamW keeps it" in lines[2] and "min_8bit_size=5001 or more takes it" in lines[2]
    for wrong in ("many", None, float("nan")):
        first.param_groups[0]["min_8bit_size"] = wrong
        with pytest.raises(ValueError, match="min_8bit_size must be a whole number from 0 on, got"):
            first.step()
        damaged = second.state_dict()
        damaged["param_groups"][0]["min_8bit_size"] = wrong
        with pytest.raises(ValueError, match="min_8bit_size must be a whole number from 0 on, got"):
            second.load_state_dict(damaged)
    first.param_groups[0]["min_8bit_size"] = 6000
    before = own[0].tolist()
    with pytest.raises(ValueError, match=r"min_8bit_size was changed to 6000 .*5,000 elements is kept in 8 bits"):
        first.step()
    assert own[0].tolist() == before


@pytest.mark.parametrize("name", ["Adam8bit", "AdamW8bit", "Lion8bit", "SGD8bit", "Adam4bit", "AdamW4bit", "Lion"])
def test_a_gradient_that_is_nan_is_seen_in_all_weights_that_it_stops(name: str) -> None:
    w = pb.zeros(8192, requires_grad=True)
    optimizer = getattr(pb.optim, name)([w], lr=1e-2, **({"momentum": 0.9} if "SGD" in name else {}))
    gradient = np.ones(8192, np.float32)
    gradient[300] = np.nan
    for given in (gradient, np.ones_like(gradient), np.ones_like(gradient)):
        w.grad = pb.tensor(given)
        optimizer.step()
    found = w.detach().numpy()
    spoiled = {"Lion": slice(300, 301), "Adam4bit": slice(256, 384), "AdamW4bit": slice(256, 384)}
    block = spoiled.get(name, slice(256, 512))
    assert np.isnan(found[block]).all()
    assert (np.delete(found, np.r_[block]) < -0.02).all()


def test_gradients_that_are_not_finite_change_no_code() -> None:
    w = pb.ones(64, 64, requires_grad=True)
    optimizer = pb.optim.AdamW8bit([w])
    x = pb.ones(64, 64)

    @pb.compile(on_nonfinite="skip")
    def step() -> pb.Tensor:
        loss = (w * x).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    step()
    before = {k: v.numpy().copy() for k, v in optimizer.state[w].items()}
    x[0, 0] = float("nan")
    with pytest.warns(UserWarning, match="skipped"):
        step()
    for key, value in optimizer.state[w].items():
        np.testing.assert_array_equal(value.numpy(), before[key])


def test_a_budget_that_cannot_be_kept_says_what_8_bits_would_save() -> None:
    model = pb.nn.Linear(1000, 300)

    def planned(optimizer: Any) -> Any:
        def step(x: pb.Tensor) -> None:
            model(x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()

        return pb.compile(step, memory="1MB")

    x = pb.ones(4, 1000)
    full, coded = (planned(make(model.parameters())) for make in (pb.optim.AdamW, pb.optim.AdamW8bit))
    state, less = (format_bytes(step.plan(x).breakdown["optimizer"]) for step in (full, coded))
    with pytest.raises(pb.errors.MemoryBudgetError, match=f"8 bits .*: a state of {less}, where it is {state}"):
        full(x)
    with pytest.raises(pb.errors.MemoryBudgetError) as error:
        coded(x)
    assert "8 bits" not in str(error.value)


@pytest.mark.parametrize("kind", ["Adafactor", "AdamW8bit", "AdamW4bit", "SGD8bit", "Lion8bit", "AdamW", "RMSprop"])
@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0,)])
def test_a_parameter_without_elements_is_passed_over(kind: str, shape: tuple[int, ...]) -> None:
    for compiled in (False, True):
        empty, other = (pb.nn.Parameter(pb.ones(*size)) for size in (shape, (3, 3)))
        optimizer = getattr(pb.optim, kind)([empty, other], lr=0.1)

        def step(empty: Any = empty, other: Any = other, optimizer: Any = optimizer) -> None:
            optimizer.zero_grad()
            ((empty * 2).sum() + other.square().sum()).backward()
            optimizer.step()

        run = pb.compile(step) if compiled else step
        for _ in range(2):
            run()
        assert (other.detach().numpy() < 1).all()
        kept = [value for value in optimizer.state[empty].values() if isinstance(value, pb.Tensor)]
        assert all(bool(value.float().isfinite().all()) for value in kept)
