"""Convolution kernels: the bits of any number of threads, sums in shares, and how places are taken apart."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

import pullback as pb
from pullback import debug
from pullback.codegen.convolution_places import phases_of
from pullback.codegen.convolution_tile import choose_tiling, pieces
from pullback.compiler.groups import CONVOLUTION
from pullback.ops.convolution import convolution, multiplications
from pullback.ops.primitive import input_node
from pullback.runtime import engine
from pullback.runtime.jit import host_target

F = pb.nn.functional
RNG = np.random.default_rng(0)


def step(x: np.ndarray, weight: np.ndarray, options: dict[str, Any]) -> list[np.ndarray]:
    """A convolution and its two gradients."""
    operands = [pb.tensor(x).requires_grad_(), pb.tensor(weight).requires_grad_()]
    y = F.conv2d(*operands, **options)
    return [t.detach().numpy() for t in (y, *pb.autograd.grad((y * y).sum(), operands))]


SHAPES = [
    ((20, 16, 17, 18), (32, 16, 3, 3), dict(padding=1)),
    ((20, 16, 17, 18), (24, 8, 3, 3), dict(padding=1, stride=2, groups=2)),
    ((9, 40, 12, 12), (40, 1, 5, 5), dict(padding=2, groups=40)),
]


@pytest.mark.parametrize(("x", "weight", "options"), SHAPES, ids=str)
def test_the_bits_are_the_same_for_any_number_of_threads(
    x: tuple[int, ...], weight: tuple[int, ...], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pullback.runtime.native._SMALL_WORK", -math.inf)
    monkeypatch.setattr("pullback.runtime.bundles._HAND_OVER", -math.inf)
    operands = [RNG.normal(size=shape).astype(np.float32) for shape in (x, weight)]
    results = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(engine, "_programs", OrderedDict())
        with debug.override(num_threads=threads):
            results.append(step(*operands, options))
    for other in results[1:]:
        for first, second in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(("x", "weight", "options"), SHAPES, ids=str)
def test_sums_over_many_images_are_those_of_the_reference(
    x: tuple[int, ...], weight: tuple[int, ...], options: dict[str, Any]
) -> None:
    """More images than one task sums, and a number that the shares do not divide."""
    operands = [RNG.normal(size=shape).astype(np.float32) for shape in (x, weight)]
    found = step(*operands, options)
    with debug.override(backend="reference"):
        expected = step(*(operand.astype(np.float64) for operand in operands), options)
    for got, exact in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, exact, rtol=1e-4, atol=1e-6 * np.abs(exact).max())


@pytest.mark.native("how exact native sums are")
def test_products_of_bfloat16_are_exact_and_summed_in_float32() -> None:
    """Of pairs where the processor multiplies these: of channels, and in the gradient by the weight of images, of which
    the last one may be alone.
    """
    shapes = [((5, 6, 9, 7), (12, 6, 3, 3), dict(padding=1)), ((6, 16, 9, 8), (40, 8, 3, 3), dict(stride=2, groups=2))]
    operands = [[pb.tensor(RNG.normal(size=s)).bfloat16() for s in (x, weight)] for x, weight, _ in shapes]

    def run(given: list[list[pb.Tensor]]) -> list[list[pb.Tensor]]:
        found = []
        for (x, weight), (*_, options) in zip(given, shapes, strict=True):
            x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
            y = F.conv2d(x, weight, **options)
            found.append([y, *pb.autograd.grad(y.sum() * 3, [x, weight])])
        return found

    compiled = pb.compile(run)
    results = compiled(operands)
    codes = [launch.code.text for launch, group in compiled.program.kernels() if group.kind == CONVOLUTION]
    target = host_target()
    if target.has_bf16 and target.vector_bytes == 64:
        assert sum("dpbf16ps" in text for text in codes) >= 5
    with debug.override(backend="reference"):
        exact = run([[t.double() for t in pair] for pair in operands])
        sizes = run([[t.double().abs() for t in pair] for pair in operands])
    for found, expected, terms in zip(results, exact, sizes, strict=True):
        for got, wanted, size in zip(found, expected, terms, strict=True):
            error = np.abs(got.double().numpy() - wanted.detach().numpy())
            bound = 2.0**-8 * np.abs(wanted.detach().numpy()) + 30 * 2.0**-24 * size.detach().numpy()
            assert (error <= bound).all()


def test_a_batch_in_blocks_of_rows_with_a_remainder() -> None:
    """1031 places are no multiple of any block."""
    x, weight = (RNG.normal(size=shape).astype(np.float32) for shape in ((2, 48, 1031), (20, 48, 7)))
    found = F.conv1d(pb.tensor(x), pb.tensor(weight), padding=3).numpy()
    padded = np.pad(x, ((0, 0), (0, 0), (3, 3)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, 7, axis=2)
    np.testing.assert_allclose(found, np.einsum("ncpk,ock->nop", windows, weight), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("apart", [1, 2, 3, 4])
@pytest.mark.parametrize("spread", [1, 2, 3])
def test_phases_are_all_places_and_only_taps_that_meet_elements(stride: int, apart: int, spread: int) -> None:
    x, window = (input_node(i, s, pb.float32) for i, s in enumerate(((1, 9, 1, 1), (5, 1, 1, 1))))
    node = convolution(x, window, (stride,), ((2, 3),), (apart,), (spread,))
    met = []
    for part in phases_of(node, 0):
        for place in range(part.count):
            for tap in range(part.taps):
                met.append(
                    (
                        part.first + part.step * place,
                        part.first_tap + part.tap_step * tap,
                        place * part.stride + tap * part.dilation - part.low,
                    )
                )
    places = {part.first + part.step * p for part in phases_of(node, 0) for p in range(part.count)}
    assert places == set(range(node.shape[1]))
    expected = [
        (p, t, (p * stride + t * spread - 2) // apart)
        for p in range(node.shape[1])
        for t in range(5)
        if (p * stride + t * spread - 2) % apart == 0
    ]
    assert sorted(met) == expected
    assert multiplications(node) == len(expected)


@pytest.mark.parametrize("registers", [16, 32])
@pytest.mark.parametrize("by_lane", [False, True])
def test_tiles_fit_the_registers_and_the_places(registers: int, by_lane: bool) -> None:
    for high, wide, columns in ((1, 1, 1), (4, 8, 64), (7, 7, 40), (32, 32, 16), (1, 1000, 3)):
        tiling = choose_tiling(high, wide, columns, 144, 16, registers, by_lane)
        rows = tiling.high * tiling.wide
        assert rows * tiling.vectors + tiling.vectors + 1 <= registers
        assert tiling.high <= high
        assert tiling.wide <= wide
        assert tiling.high == 1 or tiling.wide == wide
        assert sum(count * size for _, count, size in pieces(wide, tiling.wide)) == wide
