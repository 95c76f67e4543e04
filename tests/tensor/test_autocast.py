"""Autocast: the dtype that every operation gives in a region is PyTorch's; values, gradients and state follow."""

from __future__ import annotations

import gc
import threading
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import pullback as pb
from operation_table import IN_SCOPE
from operator_database import database, ours, samples_of, tensors_in, translated
from oracle import numbers
from pullback.graph.node import ancestors
from pullback.ops.primitive import MODE
from pullback.tensor import autocast_mode
from tensor.autocast_table import ALL, FUNCTIONS, LABELS, METHODS, OTHER, WIDER, WITHOUT_ORACLE, Case


def _tensor(library: Any, dtype: str) -> Callable[..., Any]:
    return lambda *shape: library.ones(*shape).to(getattr(library, dtype))


def _dtype(library: Any, case: Case, operands: str, region: str) -> str:
    with library.autocast("cpu", getattr(library, region)):
        result = case(library, _tensor(library, operands))
    first = result[0] if isinstance(result, (tuple, list)) else result
    return str(first.dtype).rpartition(".")[2]


REGIONS = [("bfloat16", "float32"), ("bfloat16", "bfloat16"), ("float16", "float32"), ("float16", "float16")]


@pytest.mark.parametrize("name", ALL)
def test_every_operation_gives_pytorchs_dtype(name: str) -> None:
    mixed = name.endswith("float32") or name == "masked attention"
    for region, operands in [*REGIONS, *([] if mixed else [("bfloat16", "float64")])]:
        try:
            expected = _dtype(torch, ALL[name], operands, region)
        except NotImplementedError:
            continue  # PyTorch has no kernel for these operands
        assert _dtype(pb, ALL[name], operands, region) == expected, f"{operands} operands, autocast to {region}"


#: operators of PyTorch's database that no row stands for: their first sample does
ROWS = {k.rpartition(".")[2] for k in ALL}
SAMPLED = [n for n in IN_SCOPE if n.rpartition(".")[2] not in ROWS and n not in WIDER]


@pytest.mark.parametrize("name", SAMPLED)
def test_samples_of_other_operators_give_pytorchs_dtype(name: str) -> None:
    record = database()[name][0]
    sample = next(iter(samples_of(record, torch.float32)), None) if torch.float32 in record.dtypes else None
    if sample is None:
        return  # no operation on floats
    for region, operands in REGIONS:
        given = _cast((sample.input, tuple(sample.args), dict(sample.kwargs)), getattr(torch, operands))
        try:
            with torch.autocast("cpu", getattr(torch, region)):
                expected = _first_dtype(record.op(given[0], *given[1], **given[2]))
        except (NotImplementedError, RuntimeError):
            continue  # PyTorch has no kernel for these operands
        first, args, options = translated(given)
        with pb.autocast("cpu", getattr(pb, region)):
            found = _first_dtype(ours(name, record.variant_test_name)(first, *args, **options))
        assert found == expected, f"{operands} operands, autocast to {region}"


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().to(dtype) if value.is_floating_point() else value
    if isinstance(value, dict):
        return {k: _cast(v, dtype) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)([_cast(v, dtype) for v in value])
    return value


def _first_dtype(result: Any) -> str:
    found = tensors_in(result)
    return str(found[0].dtype).rpartition(".")[2] if found else ""


def test_every_function_and_method_is_in_the_table_or_in_the_database() -> None:
    sampled = {n.rpartition(".")[2] for n in [*SAMPLED, *WIDER]}
    missing = set(pb.nn.functional.__all__) - set(FUNCTIONS) - sampled
    assert {n for n in missing if n.removesuffix("_") not in FUNCTIONS.keys() | sampled} <= WITHOUT_ORACLE
    public = {n for cls in pb.Tensor.__mro__[:-1] for n, value in vars(cls).items() if _is_operation(n, value)}
    known = {*METHODS, *sampled, *FUNCTIONS}
    bodies = {getattr(pb.Tensor, n) for n in known if callable(getattr(pb.Tensor, n, None))}
    uncovered = {n for n in public - OTHER - known if n.removesuffix("_") not in known}
    assert {n for n in uncovered if getattr(pb.Tensor, n) not in bodies} <= WITHOUT_ORACLE


def _is_operation(name: str, value: Any) -> bool:
    """Whether an attribute of a class of tensors is public, and a method or property that could compute."""
    machinery = name in ("__init__", "__repr__", "__class__", "__hash__", "__new__")
    private = name.startswith("_") and not name.startswith("__")
    return (callable(value) or isinstance(value, property)) and not machinery and not private


# ---- values and gradients


def _network(library: Any, operands: list[np.ndarray], region: str, inside: bool) -> list[Any]:
    """Loss and gradients of a small network in a region; backward() is called inside it or after it."""
    x, first, bias, second = (library.tensor(array).requires_grad_() for array in operands)
    with library.autocast("cpu", getattr(library, region)):
        hidden = library.nn.functional.gelu(library.nn.functional.linear(x, first, bias))
        # the second weight is read twice: its one cast collects both gradients
        scores = hidden @ second + (hidden * 0.5) @ second
        loss = library.nn.functional.cross_entropy(scores, library.tensor(LABELS))
        if inside:
            loss.backward()
    if not inside:
        loss.backward()
    return [loss, *(t.grad for t in (x, first, bias, second))]


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("region", ["bfloat16", "float16"])
def test_values_and_gradients_are_pytorchs(region: str, inside: bool) -> None:
    random = np.random.default_rng(0)
    operands = [random.standard_normal(s).astype(np.float32) for s in [(4, 7), (9, 7), (9,), (9, 5)]]
    ours, theirs = (_network(library, operands, region, inside) for library in (pb, torch))
    tolerance = {"bfloat16": 2e-2, "float16": 3e-3}[region]
    for position, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert a.dtype is pb.float32
        scale = np.abs(numbers(b)).max()
        np.testing.assert_allclose(numbers(a), numbers(b), atol=tolerance * scale, err_msg=f"value {position}")


def test_sums_of_products_take_operands_of_several_dtypes_in_a_region() -> None:
    shapes = {
        "bi,ij->bj": ((5, 16), (16, 4)), "i,j->ij": ((5,), (4,)), "bi,bi->bi": ((5, 6), (5, 6)), "i,i->": ((5,), (5,)),
        "bij,bjk,kl->bil": ((2, 3, 4), (2, 4, 5), (5, 6)),
    }  # fmt: skip
    for equation, sizes in shapes.items():
        for low in range(len(sizes)):
            found = []
            for library in (torch, pb):
                operands = [library.ones(*size) * 1.3 for size in sizes]
                operands[low] = operands[low].to(library.bfloat16)
                with library.autocast("cpu", dtype=library.bfloat16):
                    found.append(library.einsum(equation, *operands))
            assert str(found[1].dtype).split(".")[-1] == str(found[0].dtype).split(".")[-1], (equation, low)
            np.testing.assert_allclose(numbers(found[1].float()), numbers(found[0].float()), rtol=1e-2)
    a, b = pb.ones(2, 3), pb.ones(3, 4, dtype=pb.bfloat16)
    with pb.autocast("cpu", dtype=pb.bfloat16):
        assert pb.tensordot(a, b, 1).dtype is pb.bfloat16
    for product in (lambda: pb.tensordot(a, b, 1), lambda: pb.einsum("ij,jk->ik", a, b)):
        with pytest.raises(pb.errors.DTypeError, match=r"float32.* bfloat16"):
            product()
    wide = pb.ones(3, 4, dtype=pb.float64)
    for enabled in (True, False):
        with pb.autocast("cpu", dtype=pb.bfloat16, enabled=enabled):
            for product in (lambda: pb.tensordot(a, wide, 1), lambda: pb.einsum("ij,jk->ik", a, wide)):
                with pytest.raises(pb.errors.DTypeError, match="float64"):  # no region rounds float64
                    product()
            assert pb.einsum("i,j->ij", a[0], wide[0]).dtype is pb.float64  # no sum, no product of matrices


@pytest.mark.parametrize("shape", [(0, 3, 2), (1, 1, 1), (3, 0, 2), (17, 5, 3)])
def test_products_of_awkward_sizes_are_of_rounded_operands(shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    random = np.random.default_rng(1)
    left, right = random.standard_normal((k, m)).astype(np.float32), random.standard_normal((k, n)).astype(np.float32)
    with pb.autocast("cpu"):
        found = pb.tensor(left).T @ pb.tensor(right)
    rounded = [numbers(pb.tensor(array).bfloat16()) for array in (left, right)]
    expected = pb.tensor((rounded[0].T.astype(np.float64) @ rounded[1]).astype(np.float32)).bfloat16()
    np.testing.assert_allclose(numbers(found), numbers(expected), rtol=2**-7, atol=1e-6)


def test_nan_and_infinity_pass_through_the_cast() -> None:
    x = pb.tensor([[float("inf"), 1.0], [float("nan"), 1.0], [1e39, 1.0]])
    with pb.autocast("cpu"):
        found = numbers(x @ pb.eye(2))
    assert np.isnan(found[0, 1])  # inf * 0
    assert np.isnan(found[1]).all()
    with pb.autocast("cpu", pb.float16):
        assert numbers(pb.tensor([[70000.0]]) @ pb.ones(1, 1)) == np.inf


def test_second_derivatives_are_pytorchs() -> None:
    def second(library: Any) -> Any:
        x, w = (library.tensor(a).requires_grad_() for a in (np.float32([[1.0, 0.5]]), np.float32([[0.25], [2.0]])))
        with library.autocast("cpu"):
            y = ((x @ w) ** 3).sum()
            (first,) = library.autograd.grad(y, w, create_graph=True)
            (found,) = library.autograd.grad((first * first).sum(), w)
        return found

    assert second(pb).dtype is pb.float32
    np.testing.assert_allclose(numbers(second(pb)), numbers(second(torch)), rtol=2e-2)


# ---- the state of a region


def test_regions_nest_and_can_be_switched_off() -> None:
    x = pb.ones(2, 2)
    assert not pb.is_autocast_enabled()
    with pb.autocast("cpu") as entered:
        assert isinstance(entered, pb.autocast)
        assert pb.is_autocast_enabled("cpu")
        assert (x @ x).dtype is pb.bfloat16
        with pb.autocast("cpu", pb.float16):
            assert pb.get_autocast_dtype("cpu") is pb.float16
            assert (x @ x).dtype is pb.float16
            with pb.autocast("cpu"):
                assert (x @ x).dtype is pb.float16
            with pb.amp.autocast("cpu", enabled=False):
                assert not pb.is_autocast_enabled()
                assert (x @ x).dtype is pb.float32
        assert (x @ x).dtype is pb.bfloat16
    assert not pb.is_autocast_enabled()
    assert (x @ x).dtype is pb.float32
    assert pb.get_autocast_dtype("cpu") is pb.bfloat16
    assert pb.get_autocast_dtype("cuda") is pb.float16


def test_regions_are_switched_as_pytorchs() -> None:
    def seen(library: Any) -> list[str]:
        x, found = library.ones(2, 2), []
        for enabled in (True, False):
            library.set_autocast_enabled("cpu", enabled)
            found.append(str((x @ x).dtype))
        with library.autocast("cpu", library.float16, cache_enabled=False):
            found.append(str(library.is_autocast_cache_enabled()))
            for enabled in (False, True):
                library.set_autocast_enabled("cpu", enabled)
                found.append(str((x @ x).dtype))
            with library.autocast("cpu", library.bfloat16, enabled=False):
                found.append(str(library.get_autocast_dtype("cpu")))
            library.set_autocast_cache_enabled(True)
            found.append(str(library.is_autocast_cache_enabled()))
        library.set_autocast_dtype("cpu", library.float16)
        found.append(str(library.get_autocast_dtype("cuda")))
        with library.autocast("cpu"):
            found.append(str((x @ x).dtype))
            library.set_autocast_dtype("cpu", library.bfloat16)
            found.append(str((x @ x).dtype))
        library.set_autocast_dtype("cpu", library.bfloat16)
        found += [str((x @ x).dtype), str(library.is_autocast_enabled("cpu")), str(library.is_autocast_cache_enabled())]
        return [text.replace("pullback", "torch") for text in found]

    assert seen(pb) == seen(torch)
    x, w = pb.ones(2, 2), pb.ones(2, 2, requires_grad=True)
    with pb.autocast("cpu"):
        first = x @ w
        pb.clear_autocast_cache()
        second = x @ w
    assert _casts(first, second) == 2


def test_an_error_inside_leaves_the_region() -> None:
    with pytest.raises(pb.errors.ShapeError), pb.autocast("cpu"):
        pb.ones(2, 3) @ pb.ones(2, 3)
    assert not pb.is_autocast_enabled()


def test_one_region_can_be_entered_again_and_decorate() -> None:
    region = pb.autocast("cpu")

    @region
    def product(depth: int) -> pb.Tensor:
        return product(depth - 1) if depth else pb.ones(2, 2) @ pb.ones(2, 2)

    with region:
        assert product(2).dtype is pb.bfloat16
    assert product(0).dtype is pb.bfloat16
    assert not pb.is_autocast_enabled()


def test_a_region_belongs_to_its_thread() -> None:
    seen: list[bool] = []
    with pb.autocast("cpu"):
        thread = threading.Thread(target=lambda: seen.append(pb.is_autocast_enabled()))
        thread.start()
        thread.join()
    assert seen == [False]


def _casts(*tensors: pb.Tensor) -> int:
    """How many conversions of a parameter the values need."""
    nodes = ancestors([t.node for t in tensors], stop_at_buffers=False)
    return sum(n.op.name == "convert" and n.inputs[0].requires_grad for n in nodes)


@pytest.mark.parametrize(("cache", "casts"), [(None, 1), (True, 1), (False, 2)])
def test_a_parameter_is_cast_once_in_a_region(cache: bool | None, casts: int) -> None:
    x, w = pb.ones(2, 2), pb.ones(2, 2, requires_grad=True)
    with pb.autocast("cpu", cache_enabled=cache):
        first = x @ w
        with pb.autocast("cpu"):
            second = x @ w
    assert _casts(first, second) == casts


def test_a_parameter_changed_inside_a_region_is_cast_anew() -> None:
    w = pb.ones(1, 1, requires_grad=True)
    with pb.autocast("cpu"):
        before = pb.ones(1, 1) @ w
        with pb.no_grad():
            w.add_(1.0)
        after = pb.ones(1, 1) @ w
    assert (before.item(), after.item()) == (1.0, 2.0)


def test_a_cast_made_under_no_grad_does_not_hide_the_parameter() -> None:
    w = pb.ones(1, 1, requires_grad=True)
    with pb.autocast("cpu"):
        with pb.no_grad():
            unseen = pb.ones(1, 1) @ w
        seen = pb.ones(1, 1) @ w
    assert not unseen.requires_grad
    seen.backward()
    assert w.grad is not None
    assert (w.grad.dtype, w.grad.item()) == (pb.float32, 1.0)


def test_a_region_keeps_no_memory() -> None:
    with pb.autocast("cpu"):
        w = pb.ones(2, 2, requires_grad=True)
        node = weakref.ref((pb.ones(2, 2) @ w).node)
        del w
        gc.collect()
        assert node() is None
        assert not MODE.autocast.casts


def test_a_users_function_runs_in_its_region_both_ways() -> None:
    dtypes: list[Any] = []

    class Product(pb.autograd.Function):
        @staticmethod
        def forward(context: Any, x: pb.Tensor, w: pb.Tensor) -> pb.Tensor:
            context.save_for_backward(x, w)
            return x @ w

        @staticmethod
        def backward(context: Any, cotangent: pb.Tensor) -> tuple[pb.Tensor, pb.Tensor]:
            x, w = context.saved_tensors
            dtypes.append((cotangent @ w.T).dtype)
            return cotangent @ w.T, x.T @ cotangent

    x, w = pb.ones(2, 2, requires_grad=True), pb.ones(2, 2, requires_grad=True)
    with pb.autocast("cpu"):
        y = Product.apply(x, w)
    y.sum().backward()
    assert dtypes == [pb.bfloat16]
    assert w.grad is not None
    assert w.grad.dtype is pb.float32
    np.testing.assert_array_equal(numbers(w.grad), 2.0)


@pytest.mark.parametrize("cast", [False, True])
@pytest.mark.parametrize("region", [False, True])
def test_decorated_functions_run_in_the_modes_of_pytorchs(cast: bool, region: bool) -> None:
    def told(lib: Any) -> list[Any]:
        seen: list[Any] = []

        class Product(lib.autograd.Function):  # type: ignore[name-defined, misc]
            @staticmethod
            @lib.amp.custom_fwd(device_type="cpu", cast_inputs=lib.float16 if cast else None)
            def forward(context: Any, x: Any, w: Any) -> Any:
                seen.append((str(x.dtype), str(w.dtype), lib.is_autocast_enabled("cpu")))
                context.save_for_backward(x, w)
                return x @ w

            @staticmethod
            @lib.amp.custom_bwd(device_type="cpu")
            def backward(context: Any, cotangent: Any) -> Any:
                x, w = context.saved_tensors
                seen.append((str(x.dtype), lib.is_autocast_enabled("cpu"), str(lib.get_autocast_dtype("cpu"))))
                return cotangent.to(x.dtype) @ w.T, x.T @ cotangent.to(x.dtype)

        x, w = lib.ones(2, 2, requires_grad=True), lib.ones(2, 2, dtype=lib.float64)
        with lib.autocast("cpu", dtype=lib.bfloat16, enabled=region):
            y = Product.apply(x, w.to(lib.float32))
        seen.append(str(y.dtype))
        y.sum().backward()
        return [str(part).replace("pullback", "torch") for part in seen]

    assert told(pb) == told(torch)
    for lib in (pb, torch):
        with pytest.raises(ValueError):
            lib.amp.custom_fwd(device_type=1)(lambda ctx: None)


# ---- compiled steps


def test_a_compiled_step_is_recorded_once_a_state() -> None:
    recorded = []

    @pb.compile
    def product(x: pb.Tensor) -> pb.Tensor:
        recorded.append(pb.is_autocast_enabled())
        return x @ x

    x = pb.ones(2, 2)
    for _ in range(2):
        assert product(x).dtype is pb.float32
        with pb.autocast("cpu"):
            assert product(x).dtype is pb.bfloat16
            with pb.autocast("cpu", pb.float16):
                assert product(x).dtype is pb.float16
            with pb.autocast("cpu", enabled=False):
                assert product(x).dtype is pb.float32
    assert recorded == [False, True, True]


def test_a_region_inside_a_compiled_step_trains_as_outside_of_it() -> None:
    def train(compiled: bool, around: bool) -> list[float]:
        pb.manual_seed(0)
        model = pb.nn.Sequential(pb.nn.Linear(5, 9), pb.nn.ReLU(), pb.nn.Linear(9, 3))
        optimizer = pb.optim.AdamW(model.parameters(), lr=0.05)
        x, y = pb.randn(8, 5), pb.tensor([0, 1, 2, 0, 1, 2, 0, 1])

        def step() -> pb.Tensor:
            optimizer.zero_grad()
            with pb.autocast("cpu"):
                loss = pb.nn.functional.cross_entropy(model(x), y)
            loss.backward()
            pb.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            return loss

        run = pb.compile(step) if compiled else step
        losses = []
        for _ in range(4):
            with pb.autocast("cpu", enabled=around):
                losses.append(run().item())
        assert all(
            p.dtype is pb.float32 and p.grad is not None and p.grad.dtype is pb.float32 for p in model.parameters()
        )
        return losses

    plain = train(compiled=False, around=False)
    assert plain[-1] < plain[0]
    assert train(compiled=True, around=False) == train(compiled=True, around=True)
    np.testing.assert_allclose(train(compiled=True, around=False), plain, rtol=1e-2)


# ---- errors and warnings


def test_cuda_warns_once_and_runs_on_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autocast_mode._State, "warned", set())
    with pytest.warns(UserWarning, match="no such device") as caught:
        for _ in range(3):
            with pb.autocast("cuda"):
                assert (pb.ones(2, 2) @ pb.ones(2, 2)).dtype is pb.float16
    assert len(caught) == 1
    with pb.autocast(device_type="cuda", dtype=pb.bfloat16):
        assert (pb.ones(2, 2) @ pb.ones(2, 2)).dtype is pb.bfloat16


def test_cuda_switched_off_does_not_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autocast_mode._State, "warned", set())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pb.autocast("cuda", enabled=False):
            assert (pb.ones(2, 2) @ pb.ones(2, 2)).dtype is pb.float32


@pytest.mark.parametrize("device", ["tpu", "mps", "CPU", ""])
def test_an_unknown_device_is_named(device: str) -> None:
    for call in (pb.autocast, pb.get_autocast_dtype, pb.is_autocast_enabled):
        with pytest.raises(RuntimeError, match="expected one of cpu, cuda"):
            call(device)
    assert not pb.amp.is_autocast_available(device)
    assert pb.amp.is_autocast_available("cpu")


def test_wrong_arguments_raise() -> None:
    with pytest.raises(ValueError, match="device_type must be a string"):
        pb.autocast(pb.bfloat16)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="dtype must be"):
        pb.autocast("cpu", "bfloat16")  # type: ignore[arg-type]


def test_a_dtype_that_is_not_low_switches_the_region_off_as_in_pytorch() -> None:
    with pytest.warns(UserWarning, match="float64 is not supported"), pb.autocast("cpu", pb.float64):
        assert not pb.is_autocast_enabled()
        assert (pb.ones(2, 2) @ pb.ones(2, 2)).dtype is pb.float32
