"""The norm of all gradients comes out of the launches that make them: totals of what columns and indices add up."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import pullback as pb
from norm_reading import clipped_program, read_for_a_norm
from pullback import debug
from pullback.compiler.groups import ACROSS, COLUMNS, CONVOLUTION, LOOP, PRODUCT, SCATTER
from pullback.graph.types import DType

nn = pb.nn


@pytest.fixture(autouse=True)
def _native() -> object:
    with debug.override(backend="native"):
        yield


SMALL_GPT = {"context": 16, "width": 64, "layers": 2, "batch": 4}
STEPS = {
    "mlp": {},
    "sigmoid20": {},
    "ppo": {},
    "lstm": {"batch": 8, "steps": 5},
    "gpt-char": SMALL_GPT,
    "resnet20": {"blocks": 1, "batch": 8, "size": 16},
}


@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "autocast"])
@pytest.mark.parametrize("name", STEPS)
def test_no_launch_reads_a_gradient_for_its_norm_alone(name: str, bf16: bool) -> None:
    assert read_for_a_norm(clipped_program(name, bf16, **STEPS[name])) == []


def _totals(x: pb.Tensor) -> tuple[pb.Tensor, ...]:
    wide = x.to(x.dtype.compute)
    return (wide * wide).sum(), wide.sum(), wide.abs().amax(), (wide == 0).to(wide.dtype).sum()


def _expected(x: np.ndarray) -> list[float]:
    return [(x * x).sum(), x.sum(), np.abs(x).max(initial=0), (x == 0).sum()]


def _check(step: Callable[..., tuple[pb.Tensor, ...]], *given: pb.Tensor, kind: str, dtype: DType = pb.float32) -> None:
    """The totals are of the result that comes with them, and are taken by the kernel that finishes it."""
    result, *totals = (t.to(pb.float64).numpy() for t in step(*given))
    epsilon = 2.0**-50 if dtype is pb.float64 else 2.0**-21
    for found, wanted in zip(totals, _expected(result), strict=True):
        assert abs(found - wanted) <= epsilon * max(np.abs(result).sum(), (result**2).sum())
    groups = {group for _, group in step.program.kernels() if ACROSS in group.members.values()}  # type: ignore[attr-defined]
    assert [group.kind for group in groups] == [kind]


SHAPES = [(9, 5, 2), (20, 30, 33), (500, 20, 700), (200, 300, 170), (64, 3000, 64)]


@pytest.mark.parametrize(
    ("m", "k", "n", "dtype"),
    [*((*shape, pb.float32) for shape in SHAPES), (20, 30, 33, pb.float64), (500, 20, 700, pb.bfloat16)],
    ids=str,
)
def test_totals_of_the_columns_of_a_product(m: int, k: int, n: int, dtype: DType) -> None:
    pb.manual_seed(0)
    x, w = pb.randn(m, k).to(dtype), pb.randn(k, n).to(dtype)

    @pb.compile
    def step(x: pb.Tensor, w: pb.Tensor) -> tuple[pb.Tensor, ...]:
        y = (x @ w).to(dtype.compute)
        columns = y.relu().sum(0)
        return columns, *_totals(columns)

    _check(step, x, w, kind=PRODUCT, dtype=dtype)


@pytest.mark.parametrize("shape", [(2, 3, 9, 7), (1, 3, 3, 5), (8, 16, 16, 16)])
@pytest.mark.parametrize("channels", [3, 40])
def test_totals_of_the_channels_of_a_convolution(shape: tuple[int, ...], channels: int) -> None:
    pb.manual_seed(0)
    x, w = pb.randn(*shape), pb.randn(channels, shape[1], 3, 3)

    @pb.compile
    def step(x: pb.Tensor, w: pb.Tensor) -> tuple[pb.Tensor, ...]:
        sums = nn.functional.conv2d(x, w, padding=1).sum((0, 2, 3))
        return sums, *_totals(sums)

    _check(step, x, w, kind=CONVOLUTION)


@pytest.mark.parametrize("shape", [(5, 3), (40, 300), (700, 96), (400, 2100), (3, 40, 130), (4, 9, 2, 70)])
def test_totals_of_columns(shape: tuple[int, ...]) -> None:
    pb.manual_seed(0)
    x = pb.randn(*shape)

    @pb.compile
    def step(x: pb.Tensor) -> tuple[pb.Tensor, ...]:
        columns = x.sum(1 if len(shape) > 2 else 0)
        return columns, *_totals(columns)

    _check(step, x, kind=COLUMNS)


@pytest.mark.parametrize("shape", [(5, 3), (3, 40), (300, 20), (70, 3000), (9, 2, 130)])
def test_totals_of_rows(shape: tuple[int, ...]) -> None:
    pb.manual_seed(0)
    x = pb.randn(*shape)

    @pb.compile
    def step(x: pb.Tensor) -> tuple[pb.Tensor, ...]:
        rows = x.tanh().sum(-1)
        return rows, *_totals(rows)

    _check(step, x, kind=LOOP)


def test_a_total_of_columns_that_are_scaled_reads_numbers_and_other_columns() -> None:
    pb.manual_seed(0)
    x, other, number = pb.randn(40, 30), pb.randn(30), pb.tensor(0.5)

    @pb.compile
    def step(x: pb.Tensor, other: pb.Tensor, number: pb.Tensor) -> tuple[pb.Tensor, ...]:
        scale = 1 / number
        columns = x.sum(0)
        return columns, (columns * scale - other).square().sum()

    columns, total = step(x, other, number)
    np.testing.assert_allclose(total.item(), ((columns.numpy() * 2.0 - other.numpy()) ** 2).sum(), rtol=1e-5)
    assert any(ACROSS in group.members.values() for _, group in step.program.kernels())


@pytest.mark.parametrize(("rows", "width"), [(1, 5), (40, 64), (3000, 130)])
@pytest.mark.parametrize("onto", [False, True])
def test_totals_of_what_is_added_up_by_index(rows: int, width: int, onto: bool) -> None:
    pb.manual_seed(0)
    index, x, table = pb.randint(0, rows, (60,)), pb.randn(60, width), nn.Parameter(pb.randn(rows, width))

    @pb.compile
    def step(index: pb.Tensor, x: pb.Tensor) -> tuple[pb.Tensor, ...]:
        table.grad = None
        loss = (nn.functional.embedding(index, table) * x).sum()
        (loss + table.exp().sum() if onto else loss).backward()
        return table.grad, *_totals(table.grad)

    _check(step, index, x, kind=SCATTER)


def test_a_value_that_is_not_finite_in_one_row_alone() -> None:
    index, x = pb.tensor([2, 0, 2]), pb.tensor([[1.0, np.inf], [3.0, 4.0], [5.0, -np.inf]])
    table = nn.Parameter(pb.ones(5, 2))

    @pb.compile(on_nonfinite="ignore")
    def step(index: pb.Tensor, x: pb.Tensor) -> tuple[pb.Tensor, ...]:
        table.grad = None
        (nn.functional.embedding(index, table) * x).sum().backward()
        return (table.grad * table.grad).sum(), table.grad.abs().amax()

    assert all(np.isnan(total.item()) for total in step(index, x))
    assert all(total.isinf() for total in step(index[:2], x[:2]))


def test_the_norm_of_an_outer_product_neither_overflows_nor_vanishes_before_it_does() -> None:
    column, row = pb.tensor([[1e25], [0.0], [2e25]]), pb.tensor([[1e-25, 0.0, 3e-25, 1e-30]])

    @pb.compile
    def step(column: pb.Tensor, row: pb.Tensor) -> pb.Tensor:
        product = column @ row
        return (product * product).sum()

    assert step(column, row).item() == pytest.approx(50.0, rel=1e-6)
    assert step(column, pb.zeros(1, 4)).item() == 0.0
    assert step(column * 1e14, row * 1e14 - 1e14 * row).isnan()  # infinity times 0
    assert step(column, row + 1).isinf()
    infinity = pb.tensor([[float("inf")], [0.0], [1.0]])
    assert step(infinity, row + 1).isinf()
    assert step(infinity, row).isnan()  # where both have other elements too, and either way round
    assert step(column, pb.tensor([[float("inf"), 1.0, 1.0, 1.0]])).isnan()


def test_the_bits_of_a_norm_do_not_depend_on_the_number_of_threads() -> None:
    def run(threads: int) -> list[float]:
        pb.set_num_threads(threads)
        pb.manual_seed(0)
        model = nn.Sequential(
            nn.Embedding(400, 96), nn.LayerNorm(96), nn.Linear(96, 700), nn.GELU(), nn.Linear(700, 96)
        )
        index, norms = pb.randint(0, 400, (8, 64)), []
        optimizer = pb.optim.SGD(model.parameters(), 0.1)

        @pb.compile
        def step(index: pb.Tensor) -> pb.Tensor:
            optimizer.zero_grad()
            model(index).square().mean().backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            return norm

        for _ in range(3):
            norms.append(step(index).item())
        return norms

    before = pb.get_num_threads()
    try:
        assert run(1) == run(2)
    finally:
        pb.set_num_threads(before)
