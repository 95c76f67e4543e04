"""linear_cross_entropy: the composition's values and derivatives in blocks of rows, without all logits in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import pullback as pb
from oracle import Value, compare, numbers
from pullback.autograd import gradcheck

ROWS, WIDTH, CLASSES = 11, 5, 7


def _values(rows: int = ROWS, dtype: str = "float64") -> list[Value]:
    """Input, weight and bias."""
    random = np.random.default_rng(rows)
    return [Value(random.standard_normal(shape), dtype) for shape in [(rows, WIDTH), (CLASSES, WIDTH), (CLASSES,)]]


def _labels(library: Any, rows: int = ROWS, ignored: int = -100) -> Any:
    labels = np.random.default_rng(1).integers(0, CLASSES, rows)
    labels[3:5] = ignored
    return library.tensor(labels)


def _loss(library: Any, x: Any, w: Any, b: Any = None, target: Any = None, chunk: int = 4, **options: Any) -> Any:
    """In blocks of `chunk` rows in Pullback; PyTorch has the whole at once."""
    chunks = {"chunk_size": chunk} if library is pb else {}
    labels = _labels(library, x.shape[0], options.get("ignore_index") or -100) if target is None else target
    return library.nn.functional.linear_cross_entropy(x, w, labels, linear_bias=b, **options, **chunks)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_values_and_derivatives_are_pytorchs(reduction: str, smoothing: float, weighed: bool, soft: bool) -> None:
    random = np.random.default_rng(2)
    classes, probabilities = random.uniform(0.5, 2.0, CLASSES), random.uniform(0.0, 1.0, (ROWS, CLASSES))

    def expression(library: Any, *operands: Any) -> Any:
        return _loss(
            library, *operands, target=library.tensor(probabilities) if soft else None, reduction=reduction,
            label_smoothing=smoothing, weight=library.tensor(classes) if weighed else None,
        )  # fmt: skip

    compare(expression, *_values(), second=True)


@pytest.mark.parametrize("chunk", [1, 3, ROWS - 1, ROWS, 100])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_any_size_of_blocks_gives_the_same(chunk: int, reduction: str) -> None:
    compare(lambda library, *o: _loss(library, *o, chunk=chunk, reduction=reduction), *_values())


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_other_dtypes_are_pytorchs(dtype: str) -> None:
    compare(lambda library, *o: _loss(library, *o, reduction="sum"), *_values(dtype=dtype), slack=5)


def test_derivatives_are_those_of_finite_differences() -> None:
    x, w, b = (value.ours(True) for value in _values(6))
    assert gradcheck(lambda *o: _loss(pb, *o, chunk=4), (x, w, b), fast_mode=True)


@pytest.mark.parametrize("rows", [0, 1])
def test_no_row_and_one_row(rows: int) -> None:
    target = np.zeros(rows, np.int64)
    compare(lambda p, *o: _loss(p, *o, target=p.tensor(target), chunk=1), *_values(rows))
    compare(lambda p, *o: _loss(p, *o, target=p.tensor(target), chunk=1, reduction="sum"), *_values(rows))


def test_a_single_example_has_no_axis_of_rows() -> None:
    x, w, b = _values()
    compare(lambda p, *o: _loss(p, *o, target=p.tensor(2), chunk=1), Value(np.asarray(x.numbers)[0]), w, b)


def test_without_a_bias_and_with_transposed_operands() -> None:
    x, w, _ = (np.asarray(value.numbers) for value in _values())
    compare(lambda p, x, w: _loss(p, x.T, w.T, reduction="none"), Value(x.T.copy()), Value(w.T.copy()), second=True)


@pytest.mark.parametrize("ignored", [None, 2, -1])
def test_ignored_rows_count_for_nothing(ignored: int | None) -> None:
    compare(lambda p, *o: _loss(p, *o, ignore_index=ignored), *_values())


def test_a_mean_of_ignored_rows_is_not_a_number_and_a_bad_row_is_not_hidden() -> None:
    def all_ignored(library: Any, *operands: Any) -> Any:
        return _loss(library, *operands, target=library.tensor(np.full(ROWS, -100)))

    compare(all_ignored, *_values())
    x, w, b = _values()
    bad = np.array(x.numbers)
    bad[0, 0], bad[7, 1] = np.nan, np.inf
    compare(lambda p, *o: _loss(p, *o, reduction="none"), Value(bad), w, b)


@pytest.mark.parametrize("wanted", [(True, False, False), (False, True, False), (False, False, True)])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_only_the_gradients_that_are_wanted_are_made(wanted: tuple[bool, ...], reduction: str) -> None:
    results = []
    for library, side in ((pb, "ours"), (torch, "theirs")):
        operands = [getattr(v, side)(use) for v, use in zip(_values(), wanted, strict=True)]
        _loss(library, *operands, reduction=reduction).sum().backward()
        results.append([o.grad for o in operands])
    for ours, theirs in zip(*results, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            np.testing.assert_allclose(numbers(ours), numbers(theirs), rtol=1e-10)


def test_reading_the_loss_before_the_backward_pass_changes_nothing() -> None:
    x, w, b = (value.ours(True) for value in _values())
    loss = _loss(pb, x, w, b)
    before = loss.item()
    (loss * 3.0).backward()
    tx, tw, tb = (value.theirs(True) for value in _values())
    theirs = _loss(torch, tx, tw, tb)
    (theirs * 3.0).backward()
    np.testing.assert_allclose(before, theirs.item(), rtol=1e-12)
    for ours, other in ((x, tx), (w, tw), (b, tb)):
        np.testing.assert_allclose(numbers(ours.grad), numbers(other.grad), rtol=1e-10)


def test_without_gradients_there_is_no_history() -> None:
    x, w, b = (value.ours(True) for value in _values())
    with pb.no_grad():
        assert not _loss(pb, x, w, b).requires_grad
    assert not _loss(pb, x.detach(), w.detach()).requires_grad


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_under_autocast_the_result_and_the_gradients_are_float32(reduction: str) -> None:
    results = []
    for library, side in ((pb, "ours"), (torch, "theirs")):
        operands = [getattr(v, side)(True) for v in _values(dtype="float32")]
        with library.autocast("cpu", library.bfloat16):
            loss = _loss(library, *operands, reduction=reduction)
        loss.sum().backward()
        results.append([loss, *(o.grad for o in operands)])
    for ours, theirs in zip(*results, strict=True):
        assert ours.dtype is pb.float32
        scale = np.abs(numbers(theirs)).max()
        np.testing.assert_allclose(numbers(ours), numbers(theirs), atol=2e-2 * scale)


def _memory(chunk: int | None, rows: int) -> tuple[int, float]:
    """Temporaries of a compiled step, and the loss."""
    random = np.random.default_rng(0)
    x = pb.tensor(random.standard_normal((rows, 8)).astype(np.float32)).requires_grad_()
    w = pb.tensor(random.standard_normal((512, 8)).astype(np.float32)).requires_grad_()
    target = pb.tensor(random.integers(0, 512, rows))

    @pb.compile
    def step() -> pb.Tensor:
        x.grad = w.grad = None
        loss = pb.nn.functional.linear_cross_entropy(x, w, target, chunk_size=chunk)
        loss.backward()
        return loss

    loss = step().item()
    return step.program.memory.arena, loss


def test_memory_does_not_grow_with_the_rows() -> None:
    logits = 512 * 4
    whole, expected = _memory(1024, 1024)
    assert whole >= 1024 * logits
    for rows in (1024, 2048):
        arena, loss = _memory(128, rows)
        assert arena < 2.5 * 128 * logits, rows
        if rows == 1024:
            np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_large_logits_are_cut_unasked() -> None:
    from pullback.nn.functional.linear_cross_entropy import _rows

    assert _rows(pb.empty(4096, 4), pb.empty(50304, 4)) == 1024
    assert _rows(pb.empty(1 << 20, 4), pb.empty(50304, 4)) == 1 << 15
    assert _rows(pb.empty(64, 4), pb.empty(1000, 4)) == 64


def test_wrong_arguments_raise() -> None:
    x, w, t = pb.zeros(4, 3), pb.zeros(5, 3), pb.zeros(4, dtype=pb.int64)
    function = pb.nn.functional.linear_cross_entropy
    with pytest.raises(pb.errors.ShapeError, match="flatten the rows"):
        function(pb.zeros(2, 4, 3), w, t)
    with pytest.raises(pb.errors.ShapeError, match="last axis"):
        function(pb.zeros(4, 2), w, t, chunk_size=2)
    with pytest.raises(pb.errors.ShapeError, match="target must be"):
        function(x, w, pb.zeros(3, dtype=pb.int64), chunk_size=2)
    with pytest.raises(ValueError, match="chunk_size"):
        function(x, w, t, chunk_size=0)
    with pytest.raises(ValueError, match="label_smoothing"):
        function(x, w, t, label_smoothing=2.0)
    with pytest.raises(ValueError, match="reduction"):
        function(x, w, t, reduction="all")
    with pytest.raises(pb.errors.IndexOutOfRange):
        function(x, w, t + 5, chunk_size=2).item()
