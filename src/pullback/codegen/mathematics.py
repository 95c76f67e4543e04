"""Elementary functions of float32, and tanh of float64, as straight-line code on the abstract arithmetic.

Each function is written once against an arithmetic's basic methods, so that it vectorizes wherever the arithmetic does,
gives the same bits for any number of lanes, and can be tested without a compiler. All are right at zeros, infinities,
NaN and subnormal numbers. The errors named below, in units in the last place, bound those measured natively over
70 million float32 evenly spaced in their bit patterns (for `pow`, two million random pairs).

How the polynomials were made: Remez's algorithm in 50-digit arithmetic, minimizing the greatest error relative to the
function's value, one coefficient at a time rounded to float32 and the later ones fitted anew (in `pow`, float64 without
that). Each comment gives what is approximated, the interval, and that error's bound; rounding of the evaluation comes
on top.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from math import inf, nan
from typing import Protocol

from ..graph.types import DType, float32, float64, int32, int64
from ..ops.arithmetic import Arithmetic, Value


class BranchingArithmetic(Arithmetic, Protocol):
    """An arithmetic that can leave out work that no element needs, which `sin` and `cos` ask for."""

    def where_any(
        self, condition: Value, compute: Callable[[], tuple[Value, ...]], otherwise: tuple[Value, ...]
    ) -> tuple[Value, ...]:
        """`compute()` where the bool `condition` holds, else `otherwise`; not computed where it holds nowhere."""


# 1.5 * 2^23: adding it to a float32 of magnitude below 2^22 leaves the nearest integer in the low bits of the sum.
_ROUNDER = 12582912.0
# 1.5 * 2^52: the same for float64.
_ROUNDER_64 = 6755399441055744.0

_LOG2_E = 1.4426950408889634
# ln 2 as the sum of two float32
_LN2_HIGH, _LN2_LOW = 0.6931471824645996, -1.9046542121259336e-09

# (exp(r) - 1 - r) / r^2 on |r| <= ln(2)/2; error 2^-28.2 of exp(r)
_EXP = (0.49999994, 0.16666517, 0.041668106, 0.008369131, 0.001383643)
# (log(1 + f) - f + f^2/2) / f^3 on |f| <= 1/3; error 2^-26.1 of log(1 + f)
_LOG = (0.33333215, -0.24999784, 0.20010477, -0.16681208, 0.14004435, -0.121720865, 0.13996367, -0.12944102)
# (tanh(x)/x - 1) / x^2 in x^2, on |x| <= 0.625; error 2^-27.7 of tanh(x)
_TANH = (-0.3333328, 0.13331406, -0.053736515, 0.020628167, -0.005692296)
# the same of float64, interpolated at Chebyshev's points in 60-digit arithmetic; error 2^-56.8
_TANH_64 = (
    -0.3333333333333333, 0.13333333333333042, -0.05396825396789699, 0.021869488519008305, -0.008863235103240878,
    0.0035921217511549622, -0.0014557754120478055, 0.0005896606577757043, -0.0002375906496055562,
    9.257116129556769e-05, -3.12011014257974e-05, 6.485163482793113e-06,
)  # fmt: skip
# erf(x)/x - 1 in x^2, on |x| <= 1; error 2^-29.4 of erf(x)
_ERF = (0.12837917, -0.37612626, 0.11283579, -0.026853347, 0.005187162, -0.0007997853, 7.806904e-05)
# -log(1 - erf(x)) on 1 <= x <= 3.95; the error it makes in erf(x) is 2^-29.8
_ERF_TAIL = (0.00034155947, 1.127089, 0.63814515, 0.10310644, -0.02183789, 0.0029476082, -0.00018637329)
# (sin(x)/x - 1) / x^2 in x^2, on |x| <= pi/4; error 2^-27.9 of sin(x)
_SIN = (-0.16666655, 0.008332187, -0.00019517896)
# (cos(x) - 1 + x^2/2) / x^4 in x^2, on |x| <= pi/4; error 2^-33.0 of cos(x)
_COS = (0.041666646, -0.001388731, 2.4432327e-05)
# log2((1 + s)/(1 - s)) / s in s^2, on |s| <= 0.2, in float64; absolute error 2^-40.8
_LOG2 = (
    2.885390081777417, 0.9617966948361053, 0.5770777532404302,
    0.41222635338657054, 0.31927946185147527, 0.2908913624496758,
)  # fmt: skip
# (2^r - 1) / r on |r| <= 1/2, in float64; error 2^-32.0 of 2^r
_EXP2 = (
    0.6931471838205598, 0.24022650921047675, 0.055504003674856285, 0.00961805686080706,
    0.0013341953890646328, 0.00015461391249050702, 1.3359955607352052e-05,
)  # fmt: skip

# (2^r - 1) / r on |r| <= 1/2; error 2^-28.3 of 2^r
_EXP2_SHORT = (0.6931472, 0.24022648, 0.0555036, 0.009618506, 0.0013390806, 0.00015326463)

# pi/2 as the sum of three float32
_HALF_PI = (1.5707963705062866, -4.371138828673793e-08, -1.7151245100058819e-15)
_TWO_OVER_PI = 0.6366197723675814
# beyond this the multiple of pi/2 that is taken off no longer leaves enough digits in `_reduce`
_REDUCE_LIMIT = 1e5
# floor(2/pi * 2^256)
_TWO_OVER_PI_BITS = 0xA2F9836E4E441529FC2757D1F534DDC0DB6295993C439041FE5163ABDEBBC561


def exp(a: Arithmetic, x: Value) -> Value:
    """e to the x; error below 1.1 ulp, subnormal results included."""
    # clamped a little beyond where float32 overflows and underflows, so that the scale below stays within int32
    power, mantissa = _exp_parts(a, _clamp(a, x, -104.0, 89.0))
    # 2^power in two factors, as it may lie outside of float32 where the result does not; the first product is exact
    half = a.shift_right(power, 1)
    return a.mul(a.mul(mantissa, _power_of_two(a, half)), _power_of_two(a, a.sub(power, half)))


def exp2_below(a: Arithmetic, x: Value) -> Value:
    """2 to the x for x <= 100, as softmax needs it of x <= 0; error below 1 ulp, and 0 from 2^-126 down."""
    rounder = a.constant(_ROUNDER, float32)
    shifted = a.add(x, rounder)
    r = a.sub(x, a.sub(shifted, rounder))
    # the rounder's own bits are shifted out at the top
    scale = a.add(a.shift_left(a.bitcast(shifted, int32), 23), a.bitcast(a.constant(1.0, float32), int32))
    mantissa = a.fma(r, _polynomial(a, r, _EXP2_SHORT, float32), a.constant(1.0, float32))
    result = a.mul(mantissa, a.bitcast(scale, float32))
    return a.select(a.lt(x, a.constant(-126.0, float32)), a.constant(0.0, float32), result)


def log(a: Arithmetic, x: Value) -> Value:
    """The natural logarithm; error below 1 ulp. -inf at zeros, NaN below them."""
    exponent, mantissa = _split(a, x)
    f = a.sub(mantissa, a.constant(1.0, float32))
    square = a.mul(f, f)
    tail = a.fma(f, _polynomial(a, f, _LOG, float32), a.constant(-0.5, float32))
    tail = a.fma(square, tail, a.mul(exponent, a.constant(_LN2_LOW, float32)))
    result = a.fma(exponent, a.constant(_LN2_HIGH, float32), a.add(f, tail))
    result = a.select(a.lt(x, a.constant(inf, float32)), result, x)  # infinity and NaN are their own logarithms
    zero = a.constant(0.0, float32)
    result = a.select(a.eq(x, zero), a.constant(-inf, float32), result)
    return a.select(a.lt(x, zero), a.constant(nan, float32), result)


def tanh(a: Arithmetic, x: Value) -> Value:
    """The hyperbolic tangent, of float64 too; error below 1.5 ulp.

    1 - 2 / (exp(2|x|) + 1), near zero an odd polynomial.
    """
    dtype = a.dtype(x)
    magnitude, one = a.abs(x), a.constant(1.0, dtype)
    square = a.mul(x, x)
    coefficients = _TANH if dtype is float32 else _TANH_64
    near = a.fma(a.mul(magnitude, square), _polynomial(a, square, coefficients, dtype), magnitude)
    far = a.sub(one, a.div(a.constant(2.0, dtype), _one_and_exp(a, a.add(magnitude, magnitude))))
    return a.copysign(a.select(a.lt(magnitude, a.constant(0.625, dtype)), near, far), x)


def _one_and_exp(a: Arithmetic, x: Value) -> Value:
    """1 + exp(x) for x >= 0, no more than 1 + exp(20) of float32, where tanh is 1 long before."""
    if a.dtype(x) is float64:
        return a.add(a.exp(x), a.constant(1.0, float64))
    power, mantissa = _exp_parts(a, _at_most(a, x, 20.0))
    return a.fma(mantissa, _power_of_two(a, power), a.constant(1.0, float32))


def erf(a: Arithmetic, x: Value) -> Value:
    """The error function; error below 1.1 ulp. 1 - exp(-polynomial), near zero an odd polynomial."""
    magnitude, one = a.abs(x), a.constant(1.0, float32)
    near = a.fma(magnitude, _polynomial(a, a.mul(x, x), _ERF, float32), magnitude)
    # from 3.92 on the result is 1
    tail = _polynomial(a, _at_most(a, magnitude, 4.0), _ERF_TAIL, float32)
    power, mantissa = _exp_parts(a, a.neg(tail))
    far = a.fma(a.neg(mantissa), _power_of_two(a, power), one)
    return a.copysign(a.select(a.lt(magnitude, one), near, far), x)


def sin(a: BranchingArithmetic, x: Value) -> Value:
    """The sine of x radians; error below 1 ulp for every float32."""
    quadrant, high, low = _reduce(a, a.abs(x))
    result = _sine_from_quadrant(a, quadrant, high, low)
    sign = a.bit_and(a.bitcast(x, int32), a.constant(-(2**31), int32))
    return a.bitcast(a.bit_xor(a.bitcast(result, int32), sign), float32)


def cos(a: BranchingArithmetic, x: Value) -> Value:
    """The cosine of x radians; error below 1 ulp for every float32."""
    quadrant, high, low = _reduce(a, a.abs(x))
    return _sine_from_quadrant(a, a.add(quadrant, a.constant(1, int32)), high, low)


def pow(a: Arithmetic, x: Value, y: Value) -> Value:
    """x to the y; error below 0.6 ulp, and IEEE 754's values at zeros, ones and infinities.

    2^(y log2|x|) in float64, whose digits beyond float32's the product with y uses up; the sign and the values for
    negative x are put in afterwards.
    """
    zero, one = a.constant(0.0, float32), a.constant(1.0, float32)
    magnitude = a.abs(x)
    logarithm = a.convert(y, float64)
    logarithm = a.mul(logarithm, _log2_as_float64(a, magnitude))
    power = a.convert(_exp2_of_float64(a, _clamp(a, logarithm, -200.0, 200.0)), float32)
    power = a.select(a.eq(magnitude, one), one, power)  # where y is infinite, 0 * infinity came before
    whole = a.eq(a.trunc(y), y)
    half = a.mul(y, a.constant(0.5, float32))
    odd = a.bit_and(whole, a.ne(a.trunc(half), half))
    power = a.select(odd, a.copysign(power, x), power)
    finite_below_zero = a.bit_and(a.lt(x, zero), a.lt(a.constant(-inf, float32), x))
    power = a.select(a.bit_and(finite_below_zero, a.bit_not(whole)), a.constant(nan, float32), power)
    return a.select(a.bit_or(a.eq(x, one), a.eq(y, zero)), one, power)


def _polynomial(a: Arithmetic, x: Value, coefficients: Sequence[float], dtype: DType) -> Value:
    """The sum of coefficients[i] * x^i, by Horner's rule."""
    result = a.constant(coefficients[-1], dtype)
    for coefficient in reversed(coefficients[:-1]):
        result = a.fma(result, x, a.constant(coefficient, dtype))
    return result


def _at_most(a: Arithmetic, x: Value, bound: float) -> Value:
    """min(x, bound); NaN stays. One instruction on x86, where `minimum` takes three."""
    limit = a.constant(bound, a.dtype(x))
    return a.select(a.lt(limit, x), limit, x)


def _clamp(a: Arithmetic, x: Value, low: float, high: float) -> Value:
    limit = a.constant(low, a.dtype(x))
    return _at_most(a, a.select(a.lt(x, limit), limit, x), high)


def _exp_parts(a: Arithmetic, x: Value) -> tuple[Value, Value]:
    """An int32 and a float32 about 1 with exp(x) = mantissa * 2^power, for |x| <= 104. NaN gives a NaN mantissa."""
    rounder = a.constant(_ROUNDER, float32)
    shifted = a.fma(x, a.constant(_LOG2_E, float32), rounder)
    power = a.sub(a.bitcast(shifted, int32), a.bitcast(rounder, int32))
    multiple = a.sub(shifted, rounder)
    r = a.fma(multiple, a.constant(-_LN2_HIGH, float32), x)
    r = a.fma(multiple, a.constant(-_LN2_LOW, float32), r)
    tail = a.fma(a.mul(r, r), _polynomial(a, r, _EXP, float32), r)
    return power, a.add(tail, a.constant(1.0, float32))


def _power_of_two(a: Arithmetic, power: Value) -> Value:
    """2^power as float32, for int32 powers from -126 to 127."""
    one = a.bitcast(a.constant(1.0, float32), int32)
    return a.bitcast(a.add(a.shift_left(power, 23), one), float32)


def _split(a: Arithmetic, x: Value) -> tuple[Value, Value]:
    """Float32 exponent and mantissa in [2/3, 4/3) with x = mantissa * 2^exponent, for positive finite x."""
    tiny = a.lt(x, a.constant(2.0**-126, float32))  # subnormal: its exponent is only in place after scaling
    normal = a.select(tiny, a.mul(x, a.constant(2.0**23, float32)), x)
    bits = a.bitcast(normal, int32)
    exponent = a.shift_right(a.sub(bits, a.bitcast(a.constant(2.0 / 3.0, float32), int32)), 23)
    mantissa = a.bitcast(a.sub(bits, a.shift_left(exponent, 23)), float32)
    offset = a.select(tiny, a.constant(-23.0, float32), a.constant(0.0, float32))
    return a.add(a.convert(exponent, float32), offset), mantissa


def _sine_from_quadrant(a: Arithmetic, quadrant: Value, high: Value, low: Value) -> Value:
    """sin(quadrant * pi/2 + high + low) where the sum is at most pi/4 and `low` is what `high` leaves over."""
    square = a.mul(high, high)
    sine = a.fma(a.mul(high, square), _polynomial(a, square, _SIN, float32), low)
    sine = a.add(high, sine)
    # 1 - square / 2 is rounded: what it loses is added with the small terms
    half, unit = a.mul(square, a.constant(0.5, float32)), a.constant(1.0, float32)
    cosine = a.sub(unit, half)
    lost = a.fma(a.neg(high), low, a.sub(a.sub(unit, cosine), half))
    cosine = a.add(cosine, a.fma(a.mul(square, square), _polynomial(a, square, _COS, float32), lost))
    one = a.constant(1, int32)
    odd = a.eq(a.bit_and(quadrant, one), one)
    sign = a.shift_left(a.shift_right(quadrant, 1), 31)  # of quadrants 2 and 3
    return a.bitcast(a.bit_xor(a.bitcast(a.select(odd, cosine, sine), int32), sign), float32)


def _reduce(a: BranchingArithmetic, x: Value) -> tuple[Value, Value, Value]:
    """x >= 0 as quadrant * pi/2 + high + low: an int32 of which the last two bits count, and two float32.

    Cody and Waite's method with pi/2 in three parts: the first product, up to 40 digits, is exact within the fused
    multiply-add, and so is its difference with x. Infinity and NaN give NaN.
    """
    first, second, third = (a.constant(-part, float32) for part in _HALF_PI)
    rounder = a.constant(_ROUNDER, float32)
    shifted = a.fma(x, a.constant(_TWO_OVER_PI, float32), rounder)
    multiple = a.sub(shifted, rounder)
    near = a.fma(multiple, first, x)
    product = a.mul(multiple, second)
    high = a.add(near, product)
    # what the sum (Knuth's exact addition, as either term may be the greater) and the product left over
    taken = a.sub(high, near)
    low = a.add(a.sub(near, a.sub(high, taken)), a.sub(product, taken))
    low = a.add(low, a.fma(multiple, second, a.neg(product)))
    low = a.fma(multiple, third, low)
    reduced = (a.bitcast(shifted, int32), high, low)
    return a.where_any(a.lt(a.constant(_REDUCE_LIMIT, float32), x), lambda: _reduce_large(a, x), reduced)


def _reduce_large(a: Arithmetic, x: Value) -> tuple[Value, Value, Value]:
    """As `_reduce`, for x >= 2^8, after Payne and Hanek (1983).

    Only those digits of 2/pi are multiplied with x that can be seen modulo 4. They start at a place that depends on
    the exponent of x, taken in five classes of 24 binary orders; three parts of 29, 29 and 53 digits make the first
    two products with the 24 digits of x exact in float64. No float32 lies so near to a multiple of pi/2 that their
    difference, about 2^-30 at least, would not have 30 digits left.
    """
    top = 128
    parts = [a.constant(part, float64) for part in _two_over_pi_parts(top)]
    while top > 32:
        top -= 24
        smaller = a.lt(x, a.constant(2.0**top, float32))
        finer = [a.constant(part, float64) for part in _two_over_pi_parts(top)]
        parts = [a.select(smaller, new, old) for new, old in zip(finer, parts, strict=True)]
    wide, rounder = a.convert(x, float64), a.constant(_ROUNDER_64, float64)
    head, middle, last = (a.mul(wide, part) for part in parts)
    head = a.fma(a.rint(a.mul(head, a.constant(0.25, float64))), a.constant(-4.0, float64), head)
    shifted = a.add(a.add(a.add(head, middle), last), rounder)
    fraction = a.add(a.add(a.sub(head, a.sub(shifted, rounder)), middle), last)
    angle = a.mul(fraction, a.constant(1.5707963267948966, float64))
    high = a.convert(angle, float32)
    low = a.convert(a.sub(angle, a.convert(high, float64)), float32)
    return a.convert(a.bitcast(shifted, int64), int32), high, low


def _two_over_pi_parts(top: int) -> list[float]:
    """Three parts of 2/pi modulo 4 / ulp(x), for x in [2^(top - 24), 2^top).

    The lowest digit of such an x is worth at least 2^(top - 47), so that digits of 2/pi of 2^-(top - 49) and above
    only add multiples of 4.
    """
    ends = [top - 49, top - 20, top + 9, top + 62]
    return [_two_over_pi_digits(start, end) for start, end in pairwise(ends)]


def _two_over_pi_digits(start: int, end: int) -> float:
    """The number that the binary digits start + 1, ..., end of 2/pi after the point stand for."""
    digits = (_TWO_OVER_PI_BITS >> (256 - end)) & ((1 << (end - start)) - 1)
    return float(digits * Fraction(2) ** -end)


def _log2_as_float64(a: Arithmetic, x: Value) -> Value:
    """log2 of a float32 x >= 0, in float64 to 40 binary digits: m is (1 + s)/(1 - s) for s = (m - 1)/(m + 1)."""
    exponent, mantissa = _split(a, x)
    wide, one = a.convert(mantissa, float64), a.constant(1.0, float64)
    s = a.div(a.sub(wide, one), a.add(wide, one))
    result = a.fma(s, _polynomial(a, a.mul(s, s), _LOG2, float64), a.convert(exponent, float64))
    result = a.select(a.lt(x, a.constant(inf, float32)), result, a.convert(x, float64))
    return a.select(a.eq(x, a.constant(0.0, float32)), a.constant(-inf, float64), result)


def _exp2_of_float64(a: Arithmetic, x: Value) -> Value:
    """2^x in float64 to 32 binary digits, for |x| <= 1000; NaN stays."""
    rounder, one = a.constant(_ROUNDER_64, float64), a.constant(1.0, float64)
    shifted = a.add(x, rounder)
    r = a.sub(x, a.sub(shifted, rounder))
    # the rounder's own bits are shifted out at the top
    scale = a.bitcast(a.add(a.shift_left(a.bitcast(shifted, int64), 52), a.bitcast(one, int64)), float64)
    return a.mul(a.fma(r, _polynomial(a, r, _EXP2, float64), one), scale)
