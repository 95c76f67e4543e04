"""Matrix products of 16-bit floats, and of float32 rounded to them on the way: values, tolerance, memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pullback as pb
from product_oracle import FOREIGN, all_codes, assembly_of, assert_close, operand, product_of, run
from pullback.codegen.matmul import Element, product_stages
from pullback.codegen.matmul_pack import Geometry
from pullback.codegen.matmul_packed import block_code
from pullback.codegen.target import Target
from pullback.errors import DTypeError
from pullback.graph.node import Graph, Node
from pullback.graph.types import DType, bfloat16, float16, float32, round_to, to_carrier, to_storage
from pullback.ops.contraction import matmul
from pullback.ops.elementwise import add, convert, mul
from pullback.ops.movement import swap_last
from pullback.ops.primitive import input_node
from pullback.runtime.backends import made_program
from pullback.runtime.buffers import Buffer
from pullback.runtime.jit import host_target
from pullback.runtime.program import Program

#: how an operand may be stored and read
ELEMENTS = {
    "bfloat16": Element(bfloat16),
    "float16": Element(float16),
    "rounded to bfloat16": Element(float32, bfloat16),
    "rounded to float16": Element(float32, float16),
    "float32": Element(float32),
}
TARGETS = {
    "host": {},
    "without products of bfloat16": {"has_bf16": False},
    "half as wide": {"vector_bytes": 32, "registers": 16, "has_bf16": False},
}
LAYOUTS = [(a, b) for a in ("rows", "columns") for b in ("rows", "columns")]


def target_of(name: str) -> Target:
    return replace(host_target(), **TARGETS[name])


def stored(values: np.ndarray, dtype: DType) -> np.ndarray:
    """`values` as they are stored, laid out as they are."""
    if dtype is float32:
        return values
    order = np.argsort([-stride for stride in values.strides], kind="stable")
    return to_storage(np.ascontiguousarray(values.transpose(order)), dtype).transpose(np.argsort(order))


def check(
    batch: tuple[int, ...],
    m: int,
    n: int,
    k: int,
    elements: tuple[Element, Element],
    layouts: tuple[str, str],
    target: Target,
) -> None:
    rng = np.random.default_rng(5)
    a, b = (
        operand(rng, batch, *shape, float32, layout) for shape, layout in zip(((m, k), (k, n)), layouts, strict=True)
    )
    # What is not rounded has few digits, so that products are exact either way.
    a, b = (x if e.rounded else round_to(x, bfloat16 if e.dtype is float32 else e.dtype)
            for x, e in zip((a, b), elements, strict=True))  # fmt: skip
    spacious = np.full((*batch, m, n + 3), np.nan, np.float32)
    c = spacious[..., :n]
    left, right = (stored(x, e.stored) for x, e in zip((a, b), elements, strict=True))
    product = product_of(left, right, c, float32, *elements)
    stages, workspace = product_stages(product, target)
    run(stages, workspace, left, right, c)
    wide_a, wide_b = (round_to(x, e.dtype) for x, e in zip((a, b), elements, strict=True))
    assert_close(c, wide_a, wide_b)
    assert np.isnan(spacious[..., n:]).all()


SHAPES = [
    ((), 1, 70, 65),
    ((), 70, 1, 65),
    ((), 30, 20, 1),
    ((2,), 13, 17, 19),
    ((), 7, 130, 64),
    ((), 70, 69, 601),
    ((3,), 100, 97, 151),
    ((), 64, 60, 3001),  # the sum over k in slices
]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("layouts", LAYOUTS, ids="-".join)
@pytest.mark.parametrize("names", [("bfloat16", "bfloat16"), ("bfloat16", "rounded to bfloat16"),
                                   ("rounded to bfloat16", "bfloat16"), ("float16", "rounded to float16")],
                         ids=" by ".join)  # fmt: skip
def test_every_path_gives_the_exact_product_within_rounding(names, layouts, target):
    for batch, m, n, k in SHAPES:
        check(batch, m, n, k, (ELEMENTS[names[0]], ELEMENTS[names[1]]), layouts, target_of(target))


@pytest.mark.parametrize("m,n", [(1, 1), (1, 9), (3, 33), (8, 5), (6, 1), (1, 130)])
@pytest.mark.parametrize("target", TARGETS)
def test_few_rows_by_columns_that_lie_along_k(m: int, n: int, target: str) -> None:
    """Dot products: of pairs of bfloat16 where the processor has them, and k is not always even."""
    pair = ELEMENTS["bfloat16"], ELEMENTS["bfloat16"]
    for k in (1, 2, 16, 17, 31, 32, 33, 63, 100, 769):
        check((), m, n, k, pair, ("rows", "columns"), target_of(target))


def test_few_rows_multiply_pairs_of_bfloat16_where_the_processor_does() -> None:
    weight = np.empty((96, 200), bfloat16.storage).T
    for rows in (1, 8):
        a, c = np.empty((rows, 200), bfloat16.storage), np.empty((rows, 96), np.float32)
        product = product_of(a, weight, c, float32, ELEMENTS["bfloat16"], ELEMENTS["bfloat16"])
        for name, has in (("avx512 bf16", True), ("avx512", False), ("avx2", False)):
            (stage,), _ = product_stages(product, FOREIGN[name])
            assert ("vdpbf16ps" in assembly_of(stage.code, FOREIGN[name])) is has


@settings(max_examples=60)
@given(
    st.integers(1, 150),
    st.integers(1, 150),
    st.one_of(st.integers(1, 40), st.integers(41, 300)),
    st.sampled_from([(), (2,)]),
    st.tuples(*[st.sampled_from(list(ELEMENTS))] * 2),
    st.tuples(*[st.sampled_from(["rows", "columns", "sliced"])] * 2),
    st.sampled_from(list(TARGETS)),
)
def test_random_shapes_and_elements(m, n, k, batch, names, layouts, target):
    check(batch, m, n, k, (ELEMENTS[names[0]], ELEMENTS[names[1]]), layouts, target_of(target))


def value_of(program: Program, *inputs: tuple[np.ndarray, DType]) -> np.ndarray:
    """What the program's only output is for float32 values of its inputs, given as they are stored."""
    node = program.outputs[0]
    buffers = [Buffer.of(to_storage(values, dtype).reshape(-1), copy=True) for values, dtype in inputs]
    result = Buffer.empty(int(np.prod(node.shape)), node.dtype)
    program.run(buffers, [result])
    return to_carrier(result.array, node.dtype).reshape(node.shape).copy()


def program_of(build, *inputs: tuple[tuple[int, ...], DType]) -> Program:
    nodes = [input_node(place, shape, dtype) for place, (shape, dtype) in enumerate(inputs)]
    output: Node = build(*nodes)
    return made_program(Graph.of([output]), nodes)


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("dtype", [bfloat16, float16], ids=repr)
def test_operands_are_not_copied_in_float32(dtype: DType) -> None:
    """The result of 16 bits is all that a product of 16-bit operands writes, but for a packed B."""
    program = program_of(matmul, ((300, 200), dtype), ((200, 100), dtype))
    assert program.memory.arena <= 4 * 200 * 128
    a, b = round_to(numbers(300, 200), dtype), round_to(numbers(200, 100, seed=1), dtype)
    expected = a.astype(np.float64) @ b.astype(np.float64)
    unit = 2.0**-8 if dtype is bfloat16 else 2.0**-11
    got = value_of(program, (a, dtype), (b, dtype))
    assert (np.abs(got - expected) <= unit * np.abs(expected) + 1e-4).all()


@pytest.mark.parametrize("layout", ["NN", "NT", "TN"])
@pytest.mark.parametrize(
    "batch,m,n,k", [((), 97, 75, 200), ((), 203, 65, 130), ((3,), 70, 81, 129), ((), 120, 200, 2500)]
)
def test_the_result_is_the_sums_rounded_once(batch, m, n, k, layout) -> None:
    """Whoever rounds, the register tile or an epilogue, and however many blocks of k there are."""
    a_shape = (*batch, m, k) if layout[0] == "N" else (*batch, k, m)
    b_shape = (*batch, k, n) if layout[1] == "N" else (*batch, n, k)
    a, b = round_to(numbers(*a_shape), bfloat16), round_to(numbers(*b_shape, seed=1), bfloat16)
    a.flat[3], b.flat[5] = np.inf, np.nan

    def product(x: Node, y: Node, dtype: DType) -> Node:
        return matmul(*(z if way == "N" else swap_last(z) for z, way in zip((x, y), layout, strict=True)), dtype)

    got, sums = (
        value_of(
            program_of(lambda x, y, dtype=dtype: product(x, y, dtype), (a_shape, bfloat16), (b_shape, bfloat16)),
            (a, bfloat16),
            (b, bfloat16),
        )
        for dtype in (bfloat16, float32)
    )
    np.testing.assert_array_equal(got, round_to(sums, bfloat16))


@pytest.mark.parametrize("m,n,k", [(97, 75, 200), (203, 65, 130), (120, 200, 2500)])
def test_what_follows_a_product_finds_it_rounded(m, n, k) -> None:
    """Also where the rounded product itself is kept beside what follows."""
    a, b = round_to(numbers(m, k), bfloat16), round_to(numbers(k, n, seed=1), bfloat16)
    nodes = [input_node(0, (m, k), bfloat16), input_node(1, (k, n), bfloat16)]
    rounded = matmul(*nodes)
    wide = convert(rounded, float32)
    program = made_program(Graph.of([mul(wide, wide), rounded, convert(add(rounded, rounded), float32)]), nodes)
    results = [Buffer.empty(m * n, node.dtype) for node in program.outputs]
    program.run([Buffer.of(to_storage(x, bfloat16).reshape(-1), copy=True) for x in (a, b)], results)
    got = [to_carrier(r.array, node.dtype).reshape(m, n) for r, node in zip(results, program.outputs, strict=True)]
    sums = value_of(
        program_of(lambda x, y: matmul(x, y, float32), ((m, k), bfloat16), ((k, n), bfloat16)),
        (a, bfloat16), (b, bfloat16),
    )  # fmt: skip
    expected = round_to(sums, bfloat16)
    for found, wanted in zip(got, (expected * expected, expected, expected + expected), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_the_register_tile_rounds_where_the_processor_does() -> None:
    target = FOREIGN["avx512 bf16"]
    code = block_code(Geometry(float32, 16, 32, pairs=True), rounds=True)
    assembly = assembly_of(code, target)
    assert "vcvtneps2bf16" in assembly and "vdpbf16ps" in assembly


def test_a_weight_is_rounded_as_it_is_packed() -> None:
    """Nothing of the weight's size lies in memory beside the weight, and the values are those of a rounded copy."""

    def product(x: Node, weight: Node) -> Node:
        return matmul(x, swap_last(convert(weight, bfloat16)))

    program = program_of(product, ((3, 4000), bfloat16), ((500, 4000), float32))
    assert program.memory.arena < 500 * 4000 * 2
    x, weight = round_to(numbers(3, 4000), bfloat16), numbers(500, 4000, seed=1)
    got = value_of(program, (x, bfloat16), (weight, float32))
    exact = x.astype(np.float64) @ round_to(weight, bfloat16).T.astype(np.float64)
    np.testing.assert_allclose(got, round_to(exact.astype(np.float32), bfloat16), rtol=2**-7, atol=1e-4)


def test_values_that_are_not_finite_pass_through() -> None:
    a, b = np.ones((40, 33), np.float32), np.ones((33, 50), np.float32)
    a[3, 32], a[5, 0], b[32, 7] = np.inf, np.nan, -np.inf
    for dtype in (bfloat16, float16):
        program = program_of(matmul, ((40, 33), dtype), ((33, 50), dtype))
        got = value_of(program, (a, dtype), (b, dtype))
        with np.errstate(invalid="ignore"):
            np.testing.assert_array_equal(got, a @ b)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("shape", [(3, 5, 7), (120, 65, 130), (1, 64, 200), (0, 4, 3), (4, 0, 3)])
def test_values_and_gradients_are_pytorchs(shape: tuple[int, int, int], dtype: str) -> None:
    m, k, n = shape
    values = numbers(m, k), numbers(k, n, seed=1)
    ours = [pb.tensor(v).to(getattr(pb, dtype)).requires_grad_() for v in values]
    theirs = [torch.tensor(v).to(getattr(torch, dtype)).requires_grad_() for v in values]
    result, expected = ours[0] @ ours[1], theirs[0] @ theirs[1]
    (result * result).sum().backward()
    (expected * expected).sum().backward()
    bound = 2.0**-6 if dtype == "bfloat16" else 2.0**-9
    for got, wanted in [(result, expected), *((a.grad, b.grad) for a, b in zip(ours, theirs, strict=True))]:
        assert str(got.dtype).split(".")[-1] == dtype
        got, wanted = got.detach().float().numpy(), wanted.detach().float().numpy()
        np.testing.assert_allclose(got, wanted, rtol=bound, atol=bound * max(1.0, np.abs(wanted).max(initial=0)))


def test_the_result_is_the_same_for_any_number_of_threads() -> None:
    a, b = round_to(numbers(260, 700), bfloat16), numbers(700, 150, seed=1)
    before = pb.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            pb.set_num_threads(threads)
            program = program_of(
                lambda x, w: matmul(x, convert(w, bfloat16)), ((260, 700), bfloat16), ((700, 150), float32)
            )
            results.append(value_of(program, (a, bfloat16), (b, float32)))
    finally:
        pb.set_num_threads(before)
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)


def test_sums_over_a_long_k_are_cut_by_shape_alone() -> None:
    """A narrow weight's gradient has more tasks than tiles of the result, and a launch that adds their parts."""
    a, b, c = np.empty((20_000, 64), np.float32), np.empty((20_000, 48), np.float32), np.empty((64, 48), np.float32)
    stages, workspace = product_stages(product_of(a.T, b, c, float32), host_target())
    assert stages[0].tasks >= 8 and stages[-1].code.name.startswith("product_sum")
    assert workspace == 4 * 64 * 48 * stages[0].tasks


@pytest.mark.parametrize("target", FOREIGN.values(), ids=FOREIGN)
def test_other_processors(target: Target) -> None:
    """Each kernel can be turned into assembly; products of bfloat16 are the processor's own where it has them."""
    codes = []
    for m, n, k in [(20, 21, 22), (200, 200, 200)]:
        for elements in [("bfloat16", "rounded to bfloat16"), ("float16", "float16")]:
            left, right = (ELEMENTS[name] for name in elements)
            a, b = np.empty((m, k), left.stored.storage), np.empty((n, k), right.stored.storage).T
            product = product_of(a, b, np.empty((m, n), np.float32), float32, left, right)
            codes += [stage.code for stage in product_stages(product, target)[0]]
    assemblies = {code.name: assembly_of(code, target) for code in all_codes(codes).values()}
    assert all(f"{name}:" in assembly for name, assembly in assemblies.items())
    blocks = [assembly for name, assembly in assemblies.items() if name.startswith("product_block")]
    assert any("vdpbf16ps" in assembly for assembly in blocks) == target.has_bf16


def test_a_product_may_give_its_sums_in_float32() -> None:
    """The gradients are then those of the same product of float32 operands, rounded to the operands' type."""
    a, b, g = (input_node(i, shape, d) for i, (shape, d) in enumerate(
        [((5, 7), bfloat16), ((7, 6), bfloat16), ((5, 6), float32)]
    ))  # fmt: skip
    product = matmul(a, b, float32)
    assert product.dtype is float32
    values = [round_to(numbers(5, 7), bfloat16), round_to(numbers(7, 6, seed=1), bfloat16), numbers(5, 6, seed=2)]
    expected = [values[2] @ values[1].T, values[0].T @ values[2]]
    for cotangent, wanted, operand_ in zip(product.op.pull(product, g, [0, 1]), expected, (a, b), strict=True):
        assert cotangent is not None and (cotangent.shape, cotangent.dtype) == (operand_.shape, bfloat16)
        program = made_program(Graph.of([cotangent]), [a, b, g])
        got = value_of(program, *zip(values, (bfloat16, bfloat16, float32), strict=True))
        np.testing.assert_allclose(got, wanted, rtol=2**-8, atol=1e-5)
    with pytest.raises(DTypeError, match=r"matmul of float32 sums in float32 and can give that .* not bfloat16"):
        matmul(input_node(0, (2, 2), float32), input_node(1, (2, 2), float32), bfloat16)


#: ways from float32 in memory to what is multiplied; `read` asks for a value on the way, which is then in memory
CHAINS = {
    "through whole numbers": lambda x, read: x.int().bfloat16(),
    "through truth values": lambda x, read: x.bool().half(),
    "through float16": lambda x, read: x.half().bfloat16(),
    "through bfloat16": lambda x, read: x.bfloat16().half(),
    "through float64": lambda x, read: x.double().bfloat16(),
    "from float64": lambda x, read: read(x.double()).bfloat16(),
    "from float64, through float32": lambda x, read: read(x.double()).float().half(),
    "moved on the way": lambda x, read: x.int().T.bfloat16(),
}


@pytest.mark.parametrize("rows", [3, 64])
@pytest.mark.parametrize("name", CHAINS)
def test_each_conversion_on_the_way_to_a_product_is_done(name: str, rows: int) -> None:
    numbers = np.random.default_rng(0)
    x, w = (pb.tensor(3 * numbers.standard_normal((64, 64)), dtype=pb.float32) for _ in range(2))

    def read(value: pb.Tensor) -> pb.Tensor:
        value.sum().item()
        return value

    def product(of: Any, to: pb.dtype) -> np.ndarray:
        return (of[:rows] @ w.to(to)).float().numpy()

    converted = CHAINS[name](x, read)
    found = product(converted, converted.dtype)
    read(converted)  # a product finds it in memory then
    np.testing.assert_array_equal(found, product(converted, converted.dtype))
    theirs, there = (torch.from_numpy(value.numpy().copy()) for value in (x, w))
    right = CHAINS[name](theirs, lambda value: value)
    np.testing.assert_array_equal(converted.float().numpy(), right.float().numpy())
    np.testing.assert_allclose(
        found, (right[:rows].double() @ there.to(right.dtype).double()).numpy(), rtol=1e-2, atol=1e-2
    )


def test_what_is_also_wanted_as_float64_is_rounded_where_a_product_reads_it() -> None:
    x = pb.ones(2, 64)
    x.sum().item()
    layer = pb.nn.Sequential(pb.nn.Linear4bit(64, 64))
    pb.lora.apply(layer, 4, 8, "all-linear")
    with pb.autocast("cpu", dtype=pb.bfloat16):
        wide, narrow = layer(x.double()), layer(x)
    np.testing.assert_allclose(wide.detach().numpy(), narrow.detach().double().numpy(), rtol=2e-2, atol=2e-2)
