"""Codes of 4 bits, and of 8 by rows: tables, the nearest code, errors within their bounds, numbers that are none."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

import pullback as pb
from pullback import quant
from pullback.errors import DTypeError, ShapeError

TABLES = {"nf4": quant.NF4, "fp4": quant.FP4}
#: half the greatest distance between neighbours of a table
BOUNDS = {"nf4": 0.1519036, "fp4": 1 / 6}


def normal_float() -> np.ndarray:
    """Dettmers et al. (2023), appendix E: quantiles of the normal distribution, 8 above zero, 7 below, scaled."""
    quantile, offset = NormalDist().inv_cdf, 0.9677083
    above = [quantile(p) for p in np.linspace(offset, 0.5, 9)[:-1]]
    below = [-quantile(p) for p in np.linspace(offset, 0.5, 8)[:-1]]
    return np.sort([*above, 0.0, *below]) / max(above)


def quantized(x: np.ndarray, table: tuple[float, ...], block: int) -> tuple[np.ndarray, np.ndarray]:
    """(bytes, scales) by distances to all numbers of the table."""
    blocks = -(-x.size // block)
    whole = np.zeros(blocks * block)
    whole[: x.size] = x.reshape(-1)
    whole = whole.reshape(blocks, block)
    scales = abs(whole).max(axis=1)
    shares = whole / np.where(scales > 0, scales, 1)[:, None]
    codes = abs(shares[..., None] - np.array(table)).argmin(axis=-1).reshape(-1, 2)
    return (16 * codes[:, 0] + codes[:, 1])[: (x.size + 1) // 2], scales


def test_the_tables_are_the_published_ones() -> None:
    np.testing.assert_allclose(quant.NF4, normal_float(), rtol=0, atol=2e-7)
    assert sorted(quant.FP4) == sorted([*quant.FP4[8:], *(-np.array(quant.FP4[8:]))])


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("shape", [(1,), (3, 21), (64,), (5, 13, 2), (96, 80), (7, 513)])
def test_codes_are_the_nearest_and_errors_within_their_bound(shape: tuple[int, ...], kind: str) -> None:
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    codes, state = quant.quantize_4bit(pb.tensor(x), quant_type=kind)
    wanted, scales = quantized(x, TABLES[kind], 64)
    assert codes.shape == (len(wanted), 1) and codes.dtype is pb.uint8 and state.shape == shape
    np.testing.assert_array_equal(codes.numpy().reshape(-1), wanted)
    np.testing.assert_array_equal(state.absmax.numpy(), scales.astype(np.float32))
    back = quant.dequantize_4bit(codes, state).numpy()
    limits = np.repeat(scales, 64)[: x.size].reshape(shape)
    assert (abs(back - x) <= BOUNDS[kind] * limits * 1.000001).all()


@pytest.mark.parametrize("kind", TABLES)
def test_a_number_halfway_goes_to_the_lower_of_two(kind: str) -> None:
    """Halfway between the numbers in float32, rounded to float32, where bitsandbytes has its borders too."""
    table = np.unique(np.float32(TABLES[kind]))
    borders = (table[:-1] + table[1:]) / np.float32(2)
    for place, border in enumerate(borders):
        above = np.nextafter(border, np.float32(2))
        codes, state = quant.quantize_4bit(pb.tensor([1.0, float(border), float(above)]), quant_type=kind)
        decoded = quant.dequantize_4bit(codes, state).numpy()
        assert decoded[1:].tolist() == table[place : place + 2].tolist(), (place, border)


def test_what_is_left_behind_whole_blocks_is_divided_by_its_scale() -> None:
    """bitsandbytes does so on processors, and multiplies whole blocks by the inverse, which decides ties otherwise."""
    short = [3.0, -2.5, 2.5, 0.5] * 10
    for values, wanted in ((short, -2.0), ([*short, *short[:24]], -3.0)):
        codes, state = quant.quantize_4bit(pb.tensor(values), quant_type="fp4")
        assert quant.dequantize_4bit(codes, state)[:3].tolist() == [3.0, wanted, 2.0], len(values)


@pytest.mark.parametrize("blocksize", [64, 256])
def test_scales_become_codes_of_their_own(blocksize: int) -> None:
    x = np.random.default_rng(2).standard_normal((130, 300)).astype(np.float32)
    plain, single = quant.quantize_4bit(pb.tensor(x), blocksize)
    codes, state = quant.quantize_4bit(pb.tensor(x), blocksize, compress_statistics=True)
    np.testing.assert_array_equal(codes.numpy(), plain.numpy())
    scales = single.absmax.numpy()
    assert state.nested and state.absmax.dtype is pb.uint8 and state.state2 is not None
    np.testing.assert_allclose(state.state2.offset.item(), scales.mean(), rtol=1e-6)
    numbers = quant.dynamic_map().numpy()
    greatest = np.repeat(state.state2.absmax.numpy(), 256)[: len(scales)]
    decoded = numbers[state.absmax.numpy()] * greatest + state.state2.offset.numpy()
    assert (abs(decoded - scales) <= 0.0071 * greatest + 1e-6).all()
    table = np.array(quant.NF4)[np.stack([codes.numpy() >> 4, codes.numpy() & 15], -1).reshape(-1)]
    wanted = table * np.repeat(decoded, blocksize)[: x.size]
    np.testing.assert_allclose(quant.dequantize_4bit(codes, state).numpy().reshape(-1), wanted, rtol=2e-6, atol=1e-7)


def test_numbers_that_are_none_zeros_and_nothing() -> None:
    x = np.ones((4, 64), np.float32)
    x[0, 3], x[1, 5], x[2] = np.nan, -np.inf, 0
    back = quant.dequantize_4bit(*quant.quantize_4bit(pb.tensor(x))).numpy()
    assert np.isnan(back[0]).all() and not np.isfinite(back[1]).any()
    assert (back[2] == 0).all() and (back[3] == 1).all()
    assert np.isnan(quant.dequantize_4bit(*quant.quantize_4bit(pb.tensor(x), compress_statistics=True)).numpy()).all()
    tiny = quant.dequantize_4bit(*quant.quantize_4bit(pb.full((70,), 1e-40))).numpy()
    assert (abs(tiny - 1e-40) <= 1e-40).all()
    codes, state = quant.quantize_4bit(pb.zeros(0, 5), compress_statistics=True)
    assert quant.dequantize_4bit(codes, state).shape == (0, 5)
    rows, stats = quant.int8_vectorwise_quant(pb.tensor(x))
    back = quant.int8_vectorwise_dequant(rows, stats).numpy()
    assert np.isnan(back[0]).all() and np.isnan(back[1]).all() and (back[2] == 0).all() and (back[3] == 1).all()


def test_rows_of_8_bits() -> None:
    x = np.random.default_rng(3).standard_normal((33, 77)).astype(np.float32)
    codes, stats = quant.int8_vectorwise_quant(pb.tensor(x))
    np.testing.assert_array_equal(stats.numpy(), abs(x).max(axis=1))
    wanted = np.rint(x.astype(np.float64) * 127 / abs(x).max(axis=1, keepdims=True))
    assert codes.dtype is pb.int8 and abs(codes.numpy() - wanted).max() <= 1 and (codes.numpy() == wanted).mean() > 0.99
    assert (abs(quant.int8_vectorwise_dequant(codes, stats).numpy() - x) <= stats.numpy()[:, None] / 253).all()


def test_what_is_refused() -> None:
    codes, state = quant.quantize_4bit(pb.ones(3, 5))
    with pytest.raises(DTypeError, match="floats"):
        quant.quantize_4bit(pb.ones(3, dtype=pb.int64))
    with pytest.raises(ValueError, match="quant_type"):
        quant.quantize_4bit(pb.ones(3), quant_type="nf3")
    with pytest.raises(ValueError, match="blocksize"):
        quant.quantize_4bit(pb.ones(3), 100)
    with pytest.raises(ShapeError, match="15 elements have 8 bytes"):
        quant.dequantize_4bit(codes[:4], state)
    with pytest.raises(DTypeError, match="uint8"):
        quant.dequantize_4bit(codes.float(), state)
    for wrong in (np.ones(3, np.float32), [1.0], 3.0):
        with pytest.raises(TypeError, match=f"A must be a tensor, got {type(wrong).__name__}"):
            quant.quantize_4bit(wrong)
        with pytest.raises(TypeError, match=f"x must be a tensor, got {type(wrong).__name__}"):
            quant.quantize_blockwise(wrong)
        with pytest.raises(TypeError, match=f"A must be a tensor, got {type(wrong).__name__}"):
            quant.int8_vectorwise_quant(wrong)
    with pytest.raises(TypeError, match="quant_state must be the QuantState"):
        quant.dequantize_4bit(codes, None)
    with pytest.raises(ValueError, match="compute_dtype must be a floating point dtype, got 'bfloat16'"):
        pb.nn.Linear4bit(8, 8, compute_dtype="bfloat16")
    with pytest.raises(ValueError, match=r"skip takes a list of names, got '0'"):
        pb.nn.utils.quantize_model(pb.nn.Sequential(pb.nn.Linear(8, 8)), skip="0")
    with pytest.raises(ShapeError, match="matrix"):
        quant.int8_vectorwise_quant(pb.ones(3))
