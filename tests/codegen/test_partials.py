"""Reductions in the epilogue of a matrix product: what is summed over its tiles equals the sum over the whole."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import pullback as pb
from product_oracle import FOREIGN, assembly_of
from pullback import debug
from pullback.codegen.partials import Reduced
from pullback.compiler.groups import COLUMN, PRODUCT, TOTAL
from pullback.graph.types import DType
from pullback.ops.primitive import parameter
from pullback.ops.reduction import reduce_max, reduce_sum


@pytest.fixture(autouse=True)
def _native() -> object:
    with debug.override(backend="native"):
        yield


def _levels(step: object) -> list[str]:
    """How the members of a compiled function's products that are reductions stand to them."""
    groups = {group for _, group in step.program.kernels() if group.kind == PRODUCT}  # type: ignore[attr-defined]
    return sorted(level for group in groups for level in group.members.values() if level in (TOTAL, COLUMN))


def _reduced(x: pb.Tensor, w: pb.Tensor) -> tuple[pb.Tensor, ...]:
    y = x @ w
    wide = y.to(y.dtype.compute)
    rows = wide.reshape(-1, y.shape[-1])
    return y, (wide * wide).sum(), rows.sum(0), wide.abs().amax(), (rows * 2.0 - 1.0).amin(0)


SHAPES = [
    ((20, 30), (30, 33)),
    ((1, 40), (40, 7)),  # one row: its columns are what they are
    ((40, 30), (30, 1)),  # computed as its transpose
    ((3, 40, 30), (30, 5)),  # the batch is folded into rows
    ((2, 3, 9, 7), (2, 3, 7, 5)),  # several items a task
    ((500, 3, 7), (500, 7, 20)),  # items of few rows
    ((200, 300), (300, 170)),  # packed
    ((3, 130, 140), (3, 140, 150)),
    ((300, 200), (200, 352)),  # whole vectors, but not whole chunks of columns
    ((161, 520), (520, 150)),  # two blocks of k
    ((64, 3000), (3000, 64)),  # slices of k
    ((2048, 40), (40, 384)),
    ((7, 900), (900, 300)),  # thin
    ((1, 1), (1, 1)),
]


@pytest.mark.parametrize("shapes", SHAPES, ids=lambda shapes: "x".join(map(str, (*shapes[0], shapes[1][-1]))))
@pytest.mark.parametrize("dtype", [pb.float32, pb.float64, pb.bfloat16, pb.float16], ids=repr)
def test_what_is_reduced_on_the_way_is_right(shapes: tuple[tuple[int, ...], ...], dtype: DType) -> None:
    x, w = (pb.randn(*shape).to(dtype) for shape in shapes)
    step = pb.compile(_reduced)
    y, *found = (t.to(pb.float64).numpy() for t in step(x, w))
    rows = y.reshape(-1, y.shape[-1])
    expected = [(y * y).sum(), rows.sum(0), np.abs(y).max(), (2 * rows - 1).min(0)]
    sizes = [(y * y).sum(), np.abs(rows).sum(0), np.abs(y).max(), np.abs(2 * rows - 1).max(0)]
    epsilon = 2.0**-50 if dtype is pb.float64 else 2.0**-21
    for one, wanted, size in zip(found, expected, sizes, strict=True):
        assert (np.abs(one - wanted) <= epsilon * size).all()


@pytest.mark.parametrize("turned", [(False, False), (False, True), (True, False), (True, True)])
@pytest.mark.parametrize("sizes", [(33, 21, 17), (150, 130, 170)])
def test_all_orders_of_the_operands(turned: tuple[bool, bool], sizes: tuple[int, int, int]) -> None:
    m, k, n = sizes
    x = pb.randn(k, m).T if turned[0] else pb.randn(m, k)
    w = pb.randn(n, k).T if turned[1] else pb.randn(k, n)
    step = pb.compile(_reduced)
    y, total, columns, *_ = (t.numpy() for t in step(x, w))
    np.testing.assert_allclose(y, x.numpy() @ w.numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(total, (y.astype(np.float64) ** 2).sum(), rtol=1e-6)
    np.testing.assert_allclose(columns, y.astype(np.float64).sum(0), rtol=1e-5, atol=1e-4)
    assert _levels(step) == [COLUMN, COLUMN, TOTAL, TOTAL]


def test_infinities_and_nan_reach_the_sums() -> None:
    for value in (np.inf, np.nan):
        x = pb.randn(70, 40)
        x[69, 3] = value
        _, total, columns, greatest, _ = (t.numpy() for t in pb.compile(_reduced)(x, pb.ones(40, 21)))
        for found in (total, columns, greatest):
            np.testing.assert_equal(found, np.full_like(found, value))


@pytest.mark.parametrize("shapes", [((0, 4), (4, 3)), ((5, 0), (0, 3)), ((5, 4), (4, 0))])
def test_products_of_nothing(shapes: tuple[tuple[int, int], tuple[int, int]]) -> None:
    x, w = (pb.ones(*shape) for shape in shapes)
    total, columns = pb.compile(lambda x, w: ((y := x @ w).sum(), y.sum(0)))(x, w)
    assert total.item() == 0.0
    assert columns.tolist() == [0.0] * shapes[1][1]


def test_the_result_need_not_be_in_memory() -> None:
    x, w = pb.randn(300, 100), pb.randn(100, 200)
    step = pb.compile(lambda x, w: ((x @ w) ** 2).mean())
    found = step(x, w).item()
    np.testing.assert_allclose(found, ((x.numpy().astype(np.float64) @ w.numpy()) ** 2).mean(), rtol=1e-5)
    assert {tuple(node.shape) for _, group in step.program.kernels() for node in group.stored} == {()}


def _trained(threads: int, run: Callable[[], list[pb.Tensor]]) -> list[bytes]:
    before = pb.get_num_threads()
    pb.set_num_threads(threads)
    try:
        return [tensor.numpy().tobytes() for tensor in run()]
    finally:
        pb.set_num_threads(before)


def test_any_number_of_threads_gives_the_same_bits() -> None:
    x, w = pb.randn(700, 300), pb.randn(300, 250)
    one, two, three = (_trained(threads, lambda: list(pb.compile(_reduced)(x, w))) for threads in (1, 2, 3))
    assert one == two == three


def test_sums_are_as_exact_as_those_of_whole_rows() -> None:
    """Sums of squares, of which none cancel: 1.5 million numbers are off by a few units in the last place at most."""
    x, w = pb.randn(1536, 20), pb.randn(20, 1024)
    y, total, *_ = (t.numpy() for t in pb.compile(_reduced)(x, w))
    exact = (y.astype(np.float64) ** 2).sum()
    assert abs(total - exact) <= 8 * np.finfo(np.float32).eps * exact


def test_the_norm_of_accumulated_gradients_is_that_of_the_finished_ones() -> None:
    layer, inputs = pb.nn.Linear(40, 70), [pb.randn(90, 40), pb.randn(80, 40)]

    @pb.compile
    def step() -> pb.Tensor:
        layer.zero_grad()
        for x in inputs:
            (layer(x) ** 2).sum().backward()
        return pb.nn.utils.clip_grad_norm_(layer.parameters(), 1e9)

    found = step().item()
    gradients = [p.grad.numpy().astype(np.float64) for p in layer.parameters()]  # type: ignore[union-attr]
    np.testing.assert_allclose(found, np.sqrt(sum((g * g).sum() for g in gradients)), rtol=1e-6)


@pytest.mark.parametrize("target", FOREIGN.values(), ids=FOREIGN)
def test_partial_results_are_put_together_on_other_processors(target: object) -> None:
    for dtype in (pb.float32, pb.float64, pb.int64):
        rows = parameter(0, (40, 30), dtype)
        for node, level in ((reduce_sum(rows, (0,)), COLUMN), (reduce_max(rows, (0, 1)), TOTAL)):
            _, (launch,) = Reduced(node, level, 30 if level == COLUMN else 1).finish(7, target)
            assert f"{launch.code.name}:" in assembly_of(launch.code, target)
