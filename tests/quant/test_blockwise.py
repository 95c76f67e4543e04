"""Codes of 8 bits: the map, the nearest code, errors within their bounds, and numbers that are none."""

from __future__ import annotations

import numpy as np
import pytest

import pullback as pb
from pullback import debug, quant


def published_map(signed: bool) -> np.ndarray:
    """Dettmers et al. (2022) as bitsandbytes builds it: 0, 1 and in each decade the middles of equal parts, twice as
    many in each further one."""
    found = [0.0, 1.0]
    for decade in range(7):
        parts = 2 ** (decade if signed else decade + 1)
        edges = np.linspace(0.1, 1, parts + 1)
        middles = 10.0 ** (decade - 6) * (edges[:-1] + edges[1:]) / 2
        found += [*middles, *(-middles if signed else [])]
    return np.sort(found)


@pytest.mark.parametrize("signed", [True, False])
def test_the_map_is_the_published_one(signed: bool) -> None:
    found = quant.dynamic_map(signed).numpy()
    assert found.shape == (256,) and (np.diff(found) > 0).all()
    np.testing.assert_allclose(found, published_map(signed), rtol=1.2e-7, atol=0)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("signed", [True, False])
def test_every_value_gets_the_nearest_code(signed: bool, compiled: bool) -> None:
    numbers = quant.dynamic_map(signed).numpy().astype(np.float64)
    random = np.random.default_rng(0)
    shares = np.concatenate([random.uniform(-1, 1, 2000), random.uniform(-1, 1, 2000) ** 9, numbers, [1.0, -1.0, 0.0]])
    shares = (shares if signed else abs(shares)).astype(np.float32)
    x = np.resize(shares, (len(shares) // 255 + 1) * 255).reshape(-1, 255)
    x = np.concatenate([x, np.ones((len(x), 1), np.float32)], axis=1).astype(np.float32)  # each block has the scale 1

    def run(x: pb.Tensor) -> tuple[pb.Tensor, ...]:
        return quant.quantize_blockwise(x, signed)

    codes, scales = (pb.compile(run) if compiled else run)(pb.tensor(x))
    assert codes.dtype is pb.uint8 and (scales.numpy() == 1).all()
    wide = x.reshape(-1).astype(np.float64)
    distance = abs(numbers[codes.numpy().reshape(-1)] - wide)
    least = abs(numbers[:, None] - wide).min(axis=0)
    # at the border between two codes either is right to a rounding
    np.testing.assert_allclose(distance, least, rtol=0, atol=2e-7)


@pytest.mark.parametrize(("signed", "bound"), [(True, 0.0071), (False, 0.0036)])
@pytest.mark.parametrize("shape", [(1,), (255,), (256,), (257,), (33, 100), (3, 256), (0,), ()])
def test_errors_are_within_their_bound_for_any_size(shape: tuple[int, ...], signed: bool, bound: float) -> None:
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    x = x if signed else abs(x)
    codes, scales = quant.quantize_blockwise(pb.tensor(x), signed)
    back = quant.dequantize_blockwise(codes, scales, signed).numpy()
    assert codes.shape == back.shape == shape and scales.shape == (-(-x.size // 256),)
    of_element = np.repeat(scales.numpy(), 256)[: x.size].reshape(shape)
    assert (abs(back - x) <= bound * of_element).all()
    padded = np.resize(np.append(abs(x).reshape(-1), np.zeros(-x.size % 256)), (len(scales), 256))
    np.testing.assert_array_equal(scales.numpy(), padded.max(axis=1, initial=0))


def test_zero_blocks_are_zero_and_bad_numbers_spoil_their_own_block_alone() -> None:
    x = np.zeros(1024, np.float32)
    x[256:512] = 1e-38  # less than the least normal number
    x[600], x[800] = np.nan, np.inf
    codes, scales = quant.quantize_blockwise(pb.tensor(x))
    back = quant.dequantize_blockwise(codes, scales).numpy()
    assert (back[:256] == 0).all() and (abs(back[256:512] - 1e-38) < 2e-39).all()
    assert np.isnan(back[512:768]).all() and not np.isfinite(back[768:]).any()


def test_other_floats_are_taken_and_integers_refused() -> None:
    x = pb.linspace(-1, 1, 300)
    for dtype in (pb.float64, pb.float16, pb.bfloat16):
        codes, _ = quant.quantize_blockwise(x.to(dtype))
        assert codes.dtype is pb.uint8
    with pytest.raises(pb.errors.DTypeError, match="takes floats, got int64"):
        quant.quantize_blockwise(pb.arange(3))
    codes, scales = quant.quantize_blockwise(x)
    with pytest.raises(pb.errors.ShapeError, match="300 codes have 2 scales"):
        quant.dequantize_blockwise(codes, scales[:1])
    with pytest.raises(pb.errors.DTypeError, match="takes uint8 codes"):
        quant.dequantize_blockwise(codes.to(pb.int32), scales)


@pytest.mark.parametrize("signed", [True, False])
def test_native_code_a_batch_and_the_reference_give_the_same_codes(signed: bool) -> None:
    codes = np.random.default_rng(0).integers(0, 256, (5, 3, 512)).astype(np.uint8)
    codes[..., 0] = 255  # of 1, so that each block has the scale that it was given

    def run(codes: pb.Tensor, scales: pb.Tensor) -> tuple[pb.Tensor, ...]:
        values = quant.dequantize_blockwise(codes, scales, signed)
        return (values * 2 - values, *quant.quantize_blockwise(values, signed))

    scales = np.random.default_rng(1).uniform(0.5, 2, (5, 6)).astype(np.float32)
    scales[:, 1::2] = 0.75
    rows = [(pb.tensor(c), pb.tensor(s)) for c, s in zip(codes, scales, strict=True)]
    with debug.override(backend="reference"):
        expected = [[found.numpy() for found in run(*row)] for row in rows]
    for number, row in enumerate(rows):
        for found, wanted in zip(pb.compile(run)(*row), expected[number], strict=True):
            np.testing.assert_allclose(found.numpy(), wanted, rtol=3e-7, atol=0)
    batched = pb.vmap(run)(pb.tensor(codes), pb.tensor(scales))
    for place, found in enumerate(batched):
        np.testing.assert_allclose(found.numpy(), np.stack([e[place] for e in expected]), rtol=3e-7, atol=0)
