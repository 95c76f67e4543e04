"""The bits of 16-bit floats: rounded from float32 and widened to it where no instruction does, in whole numbers."""

from __future__ import annotations

from ..graph.types import float32, uint32
from .elementwise import ElementwiseArithmetic
from .registers import Value


def bfloat16_bits(a: ElementwiseArithmetic, value: Value) -> Value:
    """uint32 whose low half is the nearest bfloat16, ties to even; NaN becomes the quiet NaN 0x7FC0.

    Adding just under half of the last kept place, and the last kept bit itself, carries exactly where rounding is
    upward; a NaN's bits could carry into an infinity and are therefore replaced.
    """
    rounded = _round_off(a, a.bitcast(value, uint32), 16)
    return a.select(a.ne(value, value), a.constant(0x7FC0, uint32), rounded)


def _round_off(a: ElementwiseArithmetic, bits: Value, count: int) -> Value:
    """uint32 shifted right by `count` and rounded to nearest, ties to even."""
    last_kept = a.bit_and(a.shift_right(bits, count), a.constant(1, uint32))
    below_half = a.constant((1 << (count - 1)) - 1, uint32)
    return a.shift_right(a.add(a.add(bits, below_half), last_kept), count)


def half_bits(a: ElementwiseArithmetic, value: Value) -> Value:
    """uint32 whose low half is the nearest float16, ties to even.

    Below 2^-14 the last place of float16 is worth 2^-24, which is what the last place of a float32 in [1/2, 1) is
    worth: there adding 1/2 does the rounding. Above, 13 digits are rounded off and the exponent's bias is changed.
    """
    bits = a.bitcast(value, uint32)
    sign = a.bit_and(a.shift_right(bits, 16), a.constant(0x8000, uint32))
    magnitude, half = a.abs(value), a.constant(0.5, float32)
    rebiased = a.sub(a.bitcast(magnitude, uint32), a.constant((127 - 15) << 23, uint32))
    result = _round_off(a, rebiased, 13)
    subnormal = a.sub(a.bitcast(a.add(magnitude, half), uint32), a.bitcast(half, uint32))
    result = a.select(a.lt(magnitude, a.constant(2.0**-14, float32)), subnormal, result)
    # from the midpoint between the greatest float16, 65504, and what would follow it
    overflows = a.le(a.constant(65520.0, float32), magnitude)
    result = a.select(overflows, a.constant(0x7C00, uint32), result)
    return a.bit_or(sign, a.select(a.ne(value, value), a.constant(0x7E00, uint32), result))


def float_of_half(a: ElementwiseArithmetic, bits: Value) -> Value:
    """float32 of the float16 in the low half of each uint32, exactly.

    Its digits and exponent are shifted in place; multiplying with 2^112 corrects the exponent's bias and, as it is
    exact, also makes normal numbers of subnormal ones. Infinity and NaN keep their greatest exponent.
    """
    sign = a.shift_left(a.bit_and(bits, a.constant(0x8000, uint32)), 16)
    placed = a.shift_left(a.bit_and(bits, a.constant(0x7FFF, uint32)), 13)
    scaled = a.mul(a.bitcast(placed, float32), a.constant(2.0**112, float32))
    not_finite = a.le(a.constant(0x1F << 23, uint32), placed)
    greatest = a.bit_or(placed, a.constant(0xFF << 23, uint32))
    magnitude = a.select(not_finite, greatest, a.bitcast(scaled, uint32))
    return a.bitcast(a.bit_or(sign, magnitude), float32)


__all__ = ["bfloat16_bits", "float_of_half", "half_bits"]
