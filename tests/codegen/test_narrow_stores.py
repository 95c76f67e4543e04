"""Rows whose last vector has one element of less than four bytes: nothing is written beside it."""

from __future__ import annotations

import numpy as np
import pytest

import pullback as pb

KINDS = {"int8": np.int8, "uint8": np.uint8, "int16": np.int16, "int32": np.int32}


@pytest.mark.parametrize("kind", [*KINDS, "bfloat16", "float16", "bool"])
@pytest.mark.parametrize("width", [1, 17, 33, 65])
def test_the_last_element_of_a_row_is_written_alone(kind: str, width: int) -> None:
    """LLVM makes a truncating store of one lane, known at compile time, a store of the lane before it was truncated."""
    dtype = getattr(pb, kind)
    numbers = np.arange(9 * width).reshape(9, width) % 100
    wide = pb.tensor(numbers, dtype=pb.int64 if kind == "int32" else pb.float32)

    @pb.compile
    def joined(x: pb.Tensor) -> pb.Tensor:
        left = pb.full((9, 5), 7.0).to(dtype)
        return pb.cat([left, (x + 1).to(dtype)], 1)

    found = joined(wide).to(pb.float32).numpy()
    expected = (numbers + 1).astype(bool) if kind == "bool" else numbers + 1
    np.testing.assert_array_equal(found[:, :5], 1 if kind == "bool" else 7)
    np.testing.assert_array_equal(found[:, 5:], expected)


def test_rows_of_a_quantized_draw_are_the_same_for_any_number_of_threads() -> None:
    for seed in range(10):
        pb.manual_seed(seed)
        codes, _ = pb.quant.int8_vectorwise_quant(pb.randn(67, 65))
        found = codes.numpy()
        pb.manual_seed(seed)
        drawn = pb.randn(67, 65)
        drawn.numpy()
        np.testing.assert_array_equal(found, pb.quant.int8_vectorwise_quant(drawn)[0].numpy())
