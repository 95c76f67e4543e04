"""Attention: values, gradients, masks, dropout, odd shapes and memory, against PyTorch and the reference."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pullback as pb
from oracle import Value, compare, numbers
from pullback import debug
from pullback.autograd import gradcheck, gradgradcheck
from pullback.codegen.target import is_x86
from pullback.errors import DTypeError, ShapeError
from pullback.graph.node import reachable
from pullback.runtime.jit import host_target

RNG = np.random.default_rng(0)
F = pb.nn.functional
#: queries, keys, features, values' width: around whole vectors and blocks, one of each, and none
SIZES = [(33, 70, 17, 40), (300, 290, 8, 9), (5, 1, 1, 1)]
EMPTY = [(0, 4, 3, 2), (4, 0, 3, 2), (4, 5, 0, 2), (4, 5, 3, 0)]


@pytest.fixture(autouse=True)
def in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """However small the operands are."""
    monkeypatch.setattr("pullback.nn.functional.attention._is_small", lambda *_: False)


def attend(library: Any, *operands: Any, **options: Any) -> Any:
    nn = library.nn if library is pb else torch.nn
    if library is pb:
        return nn.functional.scaled_dot_product_attention(*operands, **options)
    # PyTorch's own kernels have no second derivatives and round in their own ways
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return nn.functional.scaled_dot_product_attention(*operands, **options)


def operands(lead: tuple[int, ...], sizes: tuple[int, int, int, int], dtype: str = "float32") -> list[Value]:
    queries, keys, features, width = sizes
    shapes = (queries, features), (keys, features), (keys, width)
    return [Value(RNG.standard_normal((*lead, *shape)), dtype) for shape in shapes]


def masks(kind: str, lead: tuple[int, ...], queries: int, keys: int) -> dict[str, Any]:
    if kind == "bool":
        allowed = RNG.uniform(size=(*lead, queries, keys)) < 0.6
        allowed[..., 0] = True
        return {"attn_mask": allowed}
    if kind == "float":
        return {"attn_mask": RNG.standard_normal((*lead, queries, keys)).astype(np.float32)}
    return {"is_causal": True} if kind == "causal" else {}


def with_mask(how: dict[str, Any]) -> Any:
    def expression(library: Any, *tensors: Any) -> Any:
        given = {name: library.tensor(v) if isinstance(v, np.ndarray) else v for name, v in how.items()}
        return attend(library, *tensors, **given)

    return expression


@pytest.mark.parametrize("kind", ["none", "causal", "bool", "float"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_values_and_gradients_are_pytorchs(kind: str, sizes: tuple[int, int, int, int]) -> None:
    compare(with_mask(masks(kind, (), *sizes[:2])), *operands((2,), sizes), slack=4)


@pytest.mark.parametrize("kind", ["none", "bool"])
@pytest.mark.parametrize("sizes", EMPTY, ids=str)
def test_nothing_to_attend_with_or_to(kind: str, sizes: tuple[int, int, int, int]) -> None:
    how = {**masks(kind, (), *sizes[:2]), "scale": 0.5} if sizes[1] else {"scale": 0.5}
    compare(with_mask(how), *operands((2,), sizes))


@pytest.mark.parametrize(
    "leads",
    [((), (2, 1), (3,)), ((2, 3), (2, 1), (1, 3)), ((1,), (4,), (2, 1)), ((0,), (1,), (1,))],
    ids=str,
)
def test_batch_axes_broadcast(leads: tuple[tuple[int, ...], ...]) -> None:
    shapes = (6, 4), (7, 4), (7, 3)
    given = [Value(RNG.standard_normal((*lead, *s)), "float64") for lead, s in zip(leads, shapes, strict=True)]
    compare(lambda library, q, k, v: attend(library, q, k, v), *given)


@pytest.mark.parametrize("shape", [(1, 6), (5, 1), (2, 1, 1, 6), (2, 3, 5, 6)], ids=str)
@pytest.mark.parametrize("kind", ["bool", "float"])
def test_masks_broadcast(shape: tuple[int, ...], kind: str) -> None:
    mask = RNG.standard_normal(shape)
    given = mask.astype(np.float64) if kind == "float" else mask < 0.8
    compare(with_mask({"attn_mask": given}), *operands((2, 3), (5, 6, 4, 4), "float64"))


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
@pytest.mark.parametrize(
    ("kind", "sizes"), [("causal", (33, 70, 16, 24)), ("bool", (40, 37, 15, 9)), ("none", (130, 131, 2, 2))]
)
def test_other_dtypes(dtype: str, kind: str, sizes: tuple[int, int, int, int]) -> None:
    """The 16-bit floats against float64 on the same numbers: PyTorch rounds between its steps."""
    how, given = masks(kind, (), *sizes[:2]), operands((2,), sizes, dtype)
    result, gradients = _with_gradients(how, given, pb)
    exact, slopes = _with_gradients(how, [Value(numbers(v.theirs()), "float64") for v in given], torch)
    tolerance = {"float64": 1e-13, "float16": 2e-3, "bfloat16": 1.2e-2}[dtype]
    for found, wanted in zip([result, *gradients], [exact, *slopes], strict=True):
        assert found.dtype is getattr(pb, dtype)
        right = numbers(wanted)
        np.testing.assert_allclose(numbers(found), right, rtol=tolerance, atol=tolerance * np.abs(right).max())


def _with_gradients(how: dict[str, Any], given: list[Value], library: Any) -> tuple[Any, Any]:
    tensors = [v.ours(True) if library is pb else v.theirs(True) for v in given]
    result = with_mask(how)(library, *tensors)
    return result, library.autograd.grad(result.sum(), tensors)


def test_dtype_of_the_mask_may_differ() -> None:
    given = operands((), (5, 6, 4, 4))
    mask = RNG.standard_normal((5, 6))
    wide = with_mask({"attn_mask": mask})(pb, *(v.ours() for v in given))
    narrow = with_mask({"attn_mask": mask.astype(np.float32)})(pb, *(v.ours() for v in given))
    assert numbers(wide).tobytes() == numbers(narrow).tobytes()


@pytest.mark.parametrize("scale", [0.0, -0.7, 3.0])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_any_scale(scale: float, dtype: str) -> None:
    compare(lambda library, *t: attend(library, *t, scale=scale), *operands((2,), (9, 8, 4, 4), dtype), slack=4)


@pytest.mark.parametrize("kind", ["bool", "float"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_queries_that_may_look_at_nothing_get_zeros(kind: str, dtype: str) -> None:
    allowed = RNG.uniform(size=(40, 150)) < 0.5
    allowed[[0, 3, 39]] = False
    allowed[7, :140] = False  # the first block of keys shows nothing
    mask = allowed if kind == "bool" else np.where(allowed, 0.0, -np.inf).astype(np.float32)
    given = operands((), (40, 150, 4, 4), dtype)
    compare(with_mask({"attn_mask": mask}) if dtype != "float64" or kind == "bool" else _wide(mask), *given, slack=4)
    assert not numbers(with_mask({"attn_mask": mask})(pb, *(v.ours() for v in given)))[[0, 3, 39]].any()


def _wide(mask: np.ndarray) -> Any:
    return with_mask({"attn_mask": mask.astype(np.float64)})


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_stay_in_their_rows(place: int, value: float) -> None:
    given = operands((), (20, 36, 4, 4))
    given[place].numbers[3, 2] = value
    result = numbers(attend(pb, *(v.ours() for v in given)))
    expected = numbers(attend(torch, *(v.theirs() for v in given)))
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5, equal_nan=True)


def test_large_scores_do_not_overflow() -> None:
    given = operands((), (20, 300, 4, 4))
    given[0].numbers[...] *= 1e3
    compare(lambda library, *t: attend(library, *t), *given, gradients=False, slack=10)


# ---- gradients of gradients


@pytest.mark.parametrize("kind", ["none", "causal", "bool", "float"])
def test_second_derivatives_are_pytorchs(kind: str) -> None:
    compare(with_mask(masks(kind, (), 5, 6)), *operands((2,), (5, 6, 3, 4), "float64")[:3], second=True)


@pytest.mark.parametrize("kind", ["none", "causal", "bool"])
def test_derivatives_are_those_of_finite_differences(kind: str) -> None:
    given = [v.ours(True) for v in operands((2,), (5, 4, 3, 2), "float64")]
    expression = with_mask(masks(kind, (), 5, 4))
    assert gradcheck(lambda *t: expression(pb, *t), given, fast_mode=True)
    assert gradgradcheck(lambda *t: expression(pb, *t), given, fast_mode=True)


def test_a_mask_that_is_learned_gets_its_gradient() -> None:
    mask = Value(RNG.standard_normal((1, 5, 6)), "float64")
    compare(lambda library, *t: attend(library, *t), *operands((2,), (5, 6, 3, 4), "float64"), mask, second=True)


# ---- dropout


def test_dropout_drops_weights() -> None:
    q, v = pb.zeros(1, 8, 4), pb.eye(8).reshape(1, 8, 8)
    weights = numbers(F.scaled_dot_product_attention(q, q, v, dropout_p=0.5))
    np.testing.assert_allclose(np.unique(weights), [0, 0.25])
    assert not numbers(F.scaled_dot_product_attention(q, q, v, dropout_p=1.0)).any()


@pytest.mark.parametrize("causal", [False, True])
def test_the_backward_pass_drops_the_same_weights(causal: bool) -> None:
    """Composed of the same draws, dropout gives the same values and gradients."""
    given = operands((2,), (40, 37, 4, 5), "float64")
    results = []
    for compose in (False, True):
        pb.manual_seed(3)
        tensors = [v.ours(True) for v in given]
        result = _composed(*tensors, causal) if compose else attend(pb, *tensors, dropout_p=0.3, is_causal=causal)
        results.append([result, *pb.autograd.grad((result * result).sum(), tensors)])
    for found, wanted in zip(*results, strict=True):
        np.testing.assert_allclose(numbers(found), numbers(wanted), rtol=1e-10, atol=1e-12)


def _composed(q: pb.Tensor, k: pb.Tensor, v: pb.Tensor, causal: bool) -> pb.Tensor:
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    if causal:
        scores = scores.masked_fill(~pb.ones(40, 37, dtype=pb.bool).tril(), -np.inf)
    return F.dropout(F.softmax(scores, -1), 0.3) @ v


# ---- layouts, threads, processors


def _compiled(case: dict[str, Any], shape: tuple[int, ...], dtype: Any, **switches: Any) -> list[bytes]:
    """The bytes of a self-attention's result and gradient, query, key and value being slices of one tensor."""
    with debug.override(**switches):
        batch, length, heads, features = shape

        def attended(x: pb.Tensor) -> tuple[pb.Tensor, pb.Tensor]:
            x = x.detach().requires_grad_()
            pieces = (t.view(batch, length, heads, features).transpose(1, 2) for t in x.split(heads * features, 2))
            y = F.scaled_dot_product_attention(*pieces, **case).transpose(1, 2).reshape(batch, length, -1)
            return y, pb.autograd.grad((y * y).sum(), x)[0]

        x = pb.tensor(np.random.default_rng(1).standard_normal((batch, length, 3 * heads * features))).to(dtype)
        return [numbers(t).tobytes() for t in pb.compile(attended)(x)]


@pytest.mark.parametrize("dtype", [pb.float32, pb.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(2, 70, 3, 16), (1, 600, 1, 8)], ids=str)
def test_the_bits_are_the_same_for_any_number_of_threads(shape: Any, dtype: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("pullback.runtime.native._SMALL_WORK", -math.inf)
    monkeypatch.setattr("pullback.runtime.bundles._HAND_OVER", -math.inf)
    one, two, three = (_compiled({"is_causal": True}, shape, dtype, num_threads=count) for count in (1, 2, 3))
    assert one == two == three


@pytest.mark.skipif(not is_x86(host_target().triple), reason="levels of x86 processors")
@pytest.mark.parametrize("cpu", ["x86-64", "x86-64-v3", "x86-64-v4"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_code_for_other_processors_computes_the_same(cpu: str, dtype: str) -> None:
    try:
        with debug.override(cpu=cpu):
            host_target()
    except ValueError as missing:
        pytest.skip(str(missing))
    tolerance = {"float64": 1e-13, "float32": 1e-5}.get(dtype, 3e-2)
    case, shape = {"is_causal": True}, (1, 140, 2, 17)
    reference = _compiled(case, shape, getattr(pb, dtype), backend="reference")
    found = _compiled(case, shape, getattr(pb, dtype), cpu=cpu)
    kind = np.float64 if dtype == "float64" else np.float32
    for right, value in zip(reference, found, strict=True):
        wanted = np.frombuffer(right, kind)
        limit = tolerance * np.abs(wanted).max()
        np.testing.assert_allclose(np.frombuffer(value, kind), wanted, rtol=tolerance, atol=limit)


@settings(max_examples=6, deadline=None)
@given(
    st.lists(st.sampled_from([1, 2, 3, 5, 8, 15, 16, 17, 33, 65]), min_size=4, max_size=4),
    st.sampled_from(["none", "causal", "bool", "float"]),
    st.permutations(range(3)),
)
def test_operands_of_any_layout_are_read_where_they_lie(sizes: list[int], kind: str, order: list[int]) -> None:
    how = masks(kind, (), *sizes[:2])
    tensors = []
    for value in operands((3,), (sizes[0], sizes[1], sizes[2], sizes[3]), "float64"):
        moved = np.ascontiguousarray(np.transpose(value.numbers, order))
        tensors.append((Value(moved, "float64"), np.argsort(order)))

    def expression(library: Any, *given: Any) -> Any:
        permuted = [g.permute(*(int(i) for i in back)) for g, (_, back) in zip(given, tensors, strict=True)]
        mask = how.get("attn_mask")
        wide = {"attn_mask": mask.astype(np.float64)} if kind == "float" else how
        return with_mask(wide)(library, *permuted)

    compare(expression, *(value for value, _ in tensors), slack=10)


def _launches(function: Any, *arguments: Any) -> list[str]:
    step = pb.compile(function)
    step(*arguments)
    return [launch.code.name.rpartition("_")[0] for launch in step.program.layout.launches()]


def test_heads_are_read_and_written_where_they_lie() -> None:
    """From one product of query, key and value to the projection's operand: no copies but the gradients' joining."""

    def forward(x: pb.Tensor, w: pb.Tensor) -> pb.Tensor:
        pieces = (piece.view(2, 32, 4, 8).transpose(1, 2) for piece in (x @ w).split(32, 2))
        return F.scaled_dot_product_attention(*pieces, is_causal=True).transpose(1, 2).reshape(2, 32, 32) @ w[:, :32]

    with debug.override(backend="native"):
        names = _launches(forward, pb.ones(2, 32, 32), pb.ones(32, 96))
    assert [name for name in names if name in ("loops", "join")] == []
    assert names.count("attention") == 1


# ---- memory


def test_memory_is_linear_in_the_length() -> None:
    """Forward and backward, with a mask and a choice of dropout that are never stored."""

    def arena(length: int) -> int:
        x = pb.zeros(1, 1, length, 4)
        steps = pb.arange(length)

        def step(x: pb.Tensor) -> pb.Tensor:
            x = x.detach().requires_grad_()
            near = (steps - steps.unsqueeze(1)).abs() < 100
            y = F.scaled_dot_product_attention(x, x, x, attn_mask=near, dropout_p=0.1)
            return pb.autograd.grad(y.sum(), x)[0]

        compiled = pb.compile(step)
        with debug.override(backend="native"):
            program = _program_of(compiled, x)
        return program.memory.total

    sizes = {length: arena(length) for length in (2048, 4096)}
    assert sizes[4096] <= 2.1 * sizes[2048]
    assert sizes[4096] < 4096 * 4096 // 8


def _program_of(step: Any, *arguments: Any) -> Any:
    step(*arguments)
    return step.program


def test_sixteen_thousand_tokens() -> None:
    length = 16_384
    x = pb.tensor(np.random.default_rng(0).standard_normal((1, 1, length, 8)).astype(np.float32))

    def step(x: pb.Tensor) -> tuple[pb.Tensor, pb.Tensor]:
        x = x.detach().requires_grad_()
        y = F.scaled_dot_product_attention(x, x, x, is_causal=True)
        return y, pb.autograd.grad(y.sum(), x)[0]

    compiled = pb.compile(step)
    with debug.override(backend="native"):
        y, _ = compiled(x)
        assert compiled.program.memory.total < length * length // 16
    rows = [0, 1, 5_000, length - 1]
    numbers_of_x = numbers(x)[0, 0].astype(np.float64)
    for row in rows:
        scores = numbers_of_x[: row + 1] @ numbers_of_x[row] / np.sqrt(8)
        weights = np.exp(scores - scores.max())
        expected = weights @ numbers_of_x[: row + 1] / weights.sum()
        np.testing.assert_allclose(numbers(y)[0, 0, row], expected, rtol=2e-5, atol=2e-6)


# ---- which way is taken, and errors


@pytest.mark.parametrize("kind", ["none", "causal", "bool", "float"])
def test_both_ways_agree(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    how = masks(kind, (), 20, 24)
    for small in (False, True):
        monkeypatch.setattr("pullback.nn.functional.attention._is_small", lambda *_, small=small: small)
        compare(with_mask(how), *operands((2,), (20, 24, 4, 5)), slack=4)


def test_small_matrices_of_weights_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def names(queries: int, keys: int, learned: bool, dtype: Any = pb.float32, **options: Any) -> set[str]:
        q = pb.zeros(1, queries, 4, dtype=dtype, requires_grad=learned)
        k = pb.zeros(1, keys, 4, dtype=dtype)
        result = F.scaled_dot_product_attention(q, k, k, **options)
        return {node.op.name for node in reachable([result.node])} & {"attention", "matmul"}

    monkeypatch.undo()
    assert names(16, 500, False) == names(64, 64, True) == {"matmul"}
    assert names(24, 24, True, pb.bfloat16) == {"matmul"}
    assert names(17, 500, False) == names(64, 65, True) == {"attention"}
    assert names(64, 64, True, is_causal=True) == names(64, 64, True, pb.bfloat16) == {"attention"}


def test_what_does_not_fit_is_named() -> None:
    q = pb.zeros(8, 3)
    with pytest.raises(ValueError, match="attn_mask or is_causal"):
        F.scaled_dot_product_attention(q, q, q, attn_mask=pb.ones(8, 8), is_causal=True)
    with pytest.raises(ValueError, match=r"dropout_p must lie between 0 and 1, got 1\.5"):
        F.scaled_dot_product_attention(q, q, q, dropout_p=1.5)
    with pytest.raises(DTypeError, match="attn_mask must be bool or floating point, got int64"):
        F.scaled_dot_product_attention(q, q, q, attn_mask=pb.ones(8, 8, dtype=pb.int64))
    with pytest.raises(ShapeError, match=r"query \[8, 3\], key \[8, 4\] and value \[8, 3\] do not fit"):
        F.scaled_dot_product_attention(q, pb.zeros(8, 4), q)
    with pytest.raises(ShapeError, match=r"attn_mask \[7, 8\] does not broadcast to \[\.\.\., 8, 8\]"):
        F.scaled_dot_product_attention(q, q, q, attn_mask=pb.ones(7, 8))
    with pytest.raises(DTypeError, match="one floating point dtype, got float32, float64 and float32"):
        F.scaled_dot_product_attention(q, pb.zeros(8, 3, dtype=pb.float64), q)


def grouped(library: Any, arrays: list[np.ndarray], case: dict[str, Any]) -> list[np.ndarray]:
    """Result and gradients of attention whose heads of key and value are shared by groups of query heads."""
    operands = [library.tensor(a, requires_grad=True) for a in arrays]
    options = {n: library.tensor(o) if isinstance(o, np.ndarray) else o for n, o in case.items()}
    result = attend(library, *operands, enable_gqa=True, **options)
    (result * result).sum().backward()
    return [numbers(t) if library is pb else t.detach().numpy() for t in (result, *(o.grad for o in operands))]


@pytest.mark.parametrize("case", ["plain", "causal", "bool mask", "float mask", "dropped", "scaled"])
@pytest.mark.parametrize("heads", [(6, 2, 2), (6, 1, 3), (3, 3, 3)])
@pytest.mark.parametrize("small", [False, True])
def test_groups_of_query_heads_share_heads_of_key_and_value_as_in_torch(
    small: bool, heads: tuple[int, int, int], case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pullback.nn.functional.attention._is_small", lambda *_: small)
    rng = np.random.default_rng(1)
    shapes = [(2, heads[0], 5, 4), (2, heads[1], 7, 4), (2, heads[2], 7, 3)]
    arrays = [rng.standard_normal(shape) for shape in shapes]
    options: dict[str, Any] = {
        "plain": {},
        "causal": {"is_causal": True},
        "bool mask": {"attn_mask": rng.random((heads[0], 5, 7)) < 0.7},
        "float mask": {"attn_mask": rng.standard_normal((5, 7))},
        "dropped": {"dropout_p": 1.0},
        "scaled": {"scale": 0.3},
    }[case]
    for ours, theirs in zip(grouped(pb, arrays, options), grouped(torch, arrays, options), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


def test_heads_that_do_not_divide_the_querys_are_refused() -> None:
    q, k = pb.zeros(1, 6, 3, 4), pb.zeros(1, 4, 3, 4)
    with pytest.raises(ShapeError, match=r"heads of key \(4\) and of value \(4\) must divide the query's \(6\)"):
        F.scaled_dot_product_attention(q, k, k, enable_gqa=True)
    with pytest.raises(ShapeError, match="needs heads on axis -3"):
        F.scaled_dot_product_attention(q[0, 0], q[0, 0], q[0, 0], enable_gqa=True)
    with pytest.raises(ShapeError):
        F.scaled_dot_product_attention(q, pb.zeros(1, 2, 3, 4), pb.zeros(1, 2, 3, 4))


@pytest.mark.parametrize("lengths", [(1, 200), (8, 200), (16, 33), (20, 20)])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_kept_weights_of_16_bits_cost_no_more_than_a_unit(
    dtype: str, lengths: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Result and gradients within one unit of the greatest element: scores rounded to 16 bits cost up to six."""
    monkeypatch.setattr("pullback.nn.functional.attention._is_small", lambda *_: True)
    given = operands((2,), (*lengths, 64, 64), dtype)
    exact_given = [Value(numbers(v.theirs()), "float64") for v in given]
    towards = RNG.standard_normal((2, lengths[0], 64))

    def with_gradients(library: Any, values: list[Value]) -> list[np.ndarray]:
        tensors = [v.ours(True) if library is pb else v.theirs(True) for v in values]
        result = library.nn.functional.scaled_dot_product_attention(*tensors, scale=0.4)
        loss = (result * library.tensor(towards).to(result.dtype)).sum()
        return [numbers(t) for t in (result, *library.autograd.grad(loss, tensors))]

    unit = torch.finfo(getattr(torch, dtype)).eps
    for found, right in zip(with_gradients(pb, given), with_gradients(torch, exact_given), strict=True):
        assert np.abs(found - right).max() <= unit * np.abs(right).max()


@pytest.mark.parametrize("kind", ["bool", "float"])
@pytest.mark.parametrize("queries", [1, 17])
def test_nothing_to_look_at_gives_zeros_also_beside_a_mask(
    queries: int, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    q = pb.ones(1, queries, 4, requires_grad=True)
    mask = pb.zeros(queries, 0) if kind == "float" else pb.zeros(queries, 0) > 0
    result = F.scaled_dot_product_attention(q, pb.ones(1, 0, 4), pb.ones(1, 0, 3), attn_mask=mask)
    assert result.shape == (1, queries, 3) and not numbers(result).any()
    assert not numbers(pb.autograd.grad(result.sum(), q)[0]).any()


def test_masks_and_heads_that_do_not_fit_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for length in (3, 20):
        q, k = pb.zeros(1, 6, length, 4), pb.zeros(1, 2, length, 4)
        with pytest.raises(ShapeError, match=r"scaled_dot_product_attention.*6 and 2.*enable_gqa=True"):
            F.scaled_dot_product_attention(q, k, k)
        with pytest.raises(ShapeError, match=r"scaled_dot_product_attention: of the axes before.*\[5\]"):
            F.scaled_dot_product_attention(q, q, q, attn_mask=pb.zeros(5, 1, 1))


def test_the_way_can_be_asked_for() -> None:
    """`sdpa_kernel` restricts the ways, in a compiled step too; what is not there raises as PyTorch's does."""
    from pullback.nn.attention import SDPBackend as Backend
    from pullback.nn.attention import sdpa_kernel

    x = pb.tensor(np.random.default_rng(0).standard_normal((1, 20, 4)).astype(np.float32))

    def attended() -> pb.Tensor:
        return F.scaled_dot_product_attention(x, x, x)

    def way(*asked: Any, **options: Any) -> str:
        with sdpa_kernel(*asked, **options):
            (name,) = {node.op.name for node in reachable([attended().node])} & {"attention", "matmul"}
        return name

    both = [Backend.MATH, Backend.FLASH_ATTENTION]
    assert way(Backend.MATH) == way([Backend.MATH, Backend.CUDNN_ATTENTION]) == way(both, set_priority=True) == "matmul"
    assert way(Backend.FLASH_ATTENTION) == way(both) == way(both[::-1], set_priority=True) == "attention"
    with sdpa_kernel(Backend.MATH), sdpa_kernel(Backend.FLASH_ATTENTION):
        pass
    assert way(both) == "attention"  # the ways are what they were
    for asked in (Backend.EFFICIENT_ATTENTION, Backend.CUDNN_ATTENTION, []):
        with sdpa_kernel(asked), pytest.raises(RuntimeError, match="No viable backend"):
            attended()
    for wrong in ("MATH", (Backend.MATH,), ["MATH"]):
        with pytest.raises(AssertionError, match="Backend must be an instance of SDPBackend"), sdpa_kernel(wrong):
            pass
    assert {b.name: int(b) for b in Backend} == {
        name: int(value) for name, value in torch.nn.attention.SDPBackend.__members__.items()
    }


def test_a_compiled_step_goes_the_way_that_was_asked_for() -> None:
    from pullback.nn.attention import SDPBackend as Backend
    from pullback.nn.attention import sdpa_kernel

    recorded: list[str] = []

    def step(x: pb.Tensor) -> pb.Tensor:
        result = F.scaled_dot_product_attention(x, x, x)
        with sdpa_kernel(Backend.MATH):
            inner = F.scaled_dot_product_attention(x, x, x)
        for made in (result, inner):
            recorded.extend({node.op.name for node in reachable([made.node])} & {"attention", "matmul"})
        return result + inner

    compiled, x = pb.compile(step), pb.ones(1, 20, 4)
    compiled(x), compiled(x)
    assert recorded == ["attention", "matmul"]
    with sdpa_kernel(Backend.MATH):
        compiled(x), compiled(x)
    assert recorded == ["attention", "matmul", "matmul", "matmul"]
    compiled(x)
    assert len(recorded) == 4
