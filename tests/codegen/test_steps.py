"""Loops whose steps keep rows apart: all steps in one launch, whose tasks take a few rows each through all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pullback as pb
from pullback import debug

scan = pb.func.scan


@pytest.fixture(autouse=True)
def _native() -> object:
    with debug.override(backend="native", verify=True):
        yield


def joined(step: Any) -> int:
    """How many loops of a compiled function are one launch."""
    return sum(launch.code.name.startswith("steps") for launch, _ in step.program.kernels())


def compared(
    function: Callable[..., Any], operands: list[pb.Tensor], tolerance: float = 1e-5, layer: Any = None
) -> Any:
    """The compiled function of the operands, its results and gradients, those by the layer's parameters too, held
    against the reference's.
    """
    weights = [] if layer is None else list(layer.parameters())

    def results(*operands: pb.Tensor) -> tuple[pb.Tensor, ...]:
        values = function(*operands)
        loss = sum((value * value).sum() for value in values)
        return *values, *pb.autograd.grad(loss, [*operands, *weights])

    step = pb.compile(results)
    found = [value.detach().numpy() for value in step(*operands)]
    with debug.override(backend="reference"):
        expected = [value.detach().numpy() for value in results(*operands)]
    for mine, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, other, rtol=tolerance, atol=tolerance * max(1.0, np.abs(other).max()))
    return step


def drawn(*shape: int, scale: float = 1.0) -> pb.Tensor:
    values = np.random.default_rng(sum(shape)).normal(size=shape) * scale
    return pb.tensor(values, dtype=pb.float32).requires_grad_()


CELLS = {"LSTM": pb.nn.LSTM, "GRU": pb.nn.GRU, "RNN": pb.nn.RNN}


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
@pytest.mark.parametrize(
    ("rows", "width", "length"), [(16, 16, 5), (18, 40, 4), (33, 24, 3), (70, 33, 2), (140, 20, 3)]
)
def test_recurrent_layers_are_one_launch(cell: Any, rows: int, width: int, length: int) -> None:
    pb.manual_seed(0)
    layer = cell(width, width)
    step = compared(lambda x: [layer(x)[0]], [drawn(length, rows, width)], layer=layer)
    # backwards, a GRU's step sums the gradient of its bias over the rows
    assert joined(step) == (1 if cell is pb.nn.GRU else 2)


def test_a_reverse_direction_and_its_last_state() -> None:
    pb.manual_seed(0)
    layer = pb.nn.LSTM(20, 24, bidirectional=True)
    x = drawn(5, 20, 20)

    def run(x: pb.Tensor) -> list[pb.Tensor]:
        output, (h, c) = layer(x)
        return [output, h, c]

    assert joined(compared(run, [x], layer=layer)) == 4


def test_few_rows_are_shared_otherwise() -> None:
    layer = pb.nn.LSTM(20, 24)
    step = pb.compile(lambda x: layer(x)[0])
    step(pb.randn(3, 15, 20))
    assert joined(step) == 0


@pytest.mark.parametrize("length", [1, 2, 7])
def test_carries_in_a_ring_end_where_they_should(length: int) -> None:
    w, x, start = drawn(24, 24, scale=0.2), drawn(length, 20, 24), drawn(20, 24)
    run = pb.compile(lambda w, x, start: scan(lambda h, row: ((h @ w + row).tanh(), None), start, x)[0])
    found = run(w.detach(), x.detach(), start.detach()).numpy()
    h = start.detach().numpy()
    for step in range(length):
        h = np.tanh(h @ w.detach().numpy() + x.detach().numpy()[step])
    np.testing.assert_allclose(found, h, rtol=1e-5, atol=1e-5)
    assert joined(run) == 1


def over_rows(h: Any) -> dict[str, Any]:
    """Steps that mix rows, by what they do."""
    return {
        "a mean of all rows": h - h.mean(0),
        "rows in another order": h.flip(0) * 0.5,
        "the row before": pb.cat([h[1:], h[:1]], 0) * 0.5,
        "a product of rows": (h @ h.T) @ h * 0.001,
        "a transposed square": h[:, :20].T.contiguous() @ h * 0.01,
        "a sum of everything": h / (1 + (h * h).sum()),
        "one row for all": h * 0.5 + h[:1],
        "rows taken by number": h[pb.tensor(np.arange(20)[::-1].copy())] * 0.5,
        "rows cut otherwise": h.reshape(40, 12).flip(0).reshape(20, 24) * 0.5,
    }


@pytest.mark.parametrize("what", over_rows(pb.ones(20, 24)))
def test_steps_that_mix_rows_go_one_by_one(what: str) -> None:
    w, x = drawn(24, 24, scale=0.2), drawn(3, 20, 24)

    def run(w: pb.Tensor, x: pb.Tensor) -> list[pb.Tensor]:
        return [scan(lambda h, row: (over_rows((h @ w + row).tanh())[what], None), pb.zeros(20, 24), x)[0]]

    assert joined(compared(run, [w, x], 1e-4)) == 0


def along_rows(h: Any) -> dict[str, Any]:
    """Steps that do not, by what they do."""
    return {
        "softmax": h.softmax(-1),
        "heads": (h.reshape(20, 2, 16) * h.reshape(20, 2, 16).mean(-1, keepdim=True)).reshape(20, 32),
        "columns in another order": h.flip(1) * 0.5,
        "layer_norm": pb.nn.functional.layer_norm(h, (32,)),
        "where": pb.where(h > 0, h, 0.1 * h),
    }


@pytest.mark.parametrize("what", along_rows(pb.ones(20, 32)))
def test_steps_that_keep_rows_apart_are_one_launch(what: str) -> None:
    w, x = drawn(32, 32, scale=0.2), drawn(3, 20, 32)

    def run(w: pb.Tensor, x: pb.Tensor) -> list[pb.Tensor]:
        return [scan(lambda h, row: (along_rows((h @ w + row).tanh())[what], None), pb.zeros(20, 32), x)[0]]

    assert joined(compared(run, [w, x], 1e-4)) >= 1


def test_a_loop_within_a_loop_moves_with_it() -> None:
    w, x = drawn(24, 24, scale=0.2), drawn(3, 4, 20, 24)

    def run(w: pb.Tensor, x: pb.Tensor) -> list[pb.Tensor]:
        def inner(h: Any, row: Any) -> tuple[Any, Any]:
            h = (h @ w + row).tanh()
            return h, h * h

        def outer(h: Any, rows: Any) -> tuple[Any, Any]:
            h, squares = scan(inner, h, rows)
            return h * 0.9, squares

        h, squares = scan(outer, pb.zeros(20, 24), x)
        return [h, squares]

    assert joined(compared(run, [w, x])) >= 1


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_any_number_of_threads_gives_the_same_bits(cell: Any) -> None:
    pb.manual_seed(0)
    layer, x = cell(64, 96, 2), drawn(20, 50, 64)

    def gradients(x: pb.Tensor) -> tuple[pb.Tensor, ...]:
        output = layer(x)[0]
        return output, *pb.autograd.grad((output**2).sum(), list(layer.parameters()))

    before, results = pb.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            pb.set_num_threads(threads)
            results.append([value.numpy().tobytes() for value in pb.compile(gradients)(x)])
    finally:
        pb.set_num_threads(before)
    assert results[0] == results[1] == results[2]


def test_products_in_bfloat16_keep_their_own_kernels() -> None:
    pb.manual_seed(0)
    layer, x = pb.nn.LSTM(24, 24), pb.randn(3, 20, 24)

    def run(x: pb.Tensor) -> pb.Tensor:
        with pb.autocast("cpu", dtype=pb.bfloat16):
            return layer(x)[0].float()

    step = pb.compile(run)
    found = step(x).numpy()
    assert joined(step) == 0
    np.testing.assert_allclose(found, layer(x)[0].detach().numpy(), atol=0.02)
