"""Trigonometric, hyperbolic, exponential and logarithmic functions beyond those that the arithmetic itself has.

Each is a formula in exp, log, sin and cos, or a polynomial where these would lose digits, for float32 and float64
alike. The polynomials interpolate at Chebyshev's points in 60-digit arithmetic; the comments give the greatest error
relative to the function. Errors named are bounds of what the tests measure against float64 and 50-digit arithmetic.
"""

from __future__ import annotations

import math

from ..graph.node import Node
from ..graph.types import FLOAT
from .elementwise import (
    Builder,
    absolute,
    add,
    bit_or,
    builder,
    div,
    elementwise,
    eq,
    exp,
    float_function,
    maximum,
    mul,
    neg,
    scalar,
    sqrt,
    sub,
)
from .elementwise import where as choose
from .formula import Number, body, by_type, polynomial, where

# (atan(x)/x - 1)/x^2 in x^2, on |x| <= tan(pi/8); error 2^-28.2 and 2^-58.2
_ATAN = (-0.3333333, 0.1999955, -0.14264232, 0.10746299, -0.06459376)
_ATAN_64 = (
    -0.3333333333333333, 0.1999999999999981, -0.14285714285661172, 0.11111111105277102, -0.09090908759150944,
    0.07692296528186224, -0.06666427474809959, 0.05878957114602006, -0.05230650466327199, 0.04552443484766285,
    -0.0345913892781874, 0.01630779074543549,
)  # fmt: skip
# (asin(x)/x - 1)/x^2 in x^2, on |x| <= 1/2; error 2^-28.6 and 2^-58.6
_ASIN = (0.16666666, 0.07500099, 0.04459803, 0.031116156, 0.01707786, 0.033805747)
_ASIN_64 = (
    0.16666666666666666, 0.07500000000000125, 0.04464285714253574, 0.030381944476963723, 0.02237215737767329,
    0.01735281834070849, 0.013963748435199949, 0.011566830427132645, 0.009618864779963437, 0.009335970060991405,
    0.0029838811037374503, 0.01970071180526169, -0.01944563642504257, 0.0297378456439969,
)  # fmt: skip
# (sinh(x)/x - 1)/x^2 in x^2, on |x| <= 1; error 2^-27.9 and 2^-56.8
_SINH = (0.16666667, 0.008333339, 0.000198381, 2.8062905e-06)
_SINH_64 = (
    0.16666666666666666, 0.008333333333333333, 0.00019841269841269773, 2.7557319224040352e-06, 2.5052108364053986e-08,
    1.6059048396945078e-10, 7.646625318417251e-13, 2.8445276524447325e-15,
)  # fmt: skip
# (expm1(x)/x - 1)/x on |x| <= 1/2; error 2^-32.1 and 2^-57.8
_EXPM1 = (0.5, 0.16666667, 0.041666668, 0.008333182, 0.0013888673, 0.00019962186, 2.4939742e-05)
_EXPM1_64 = (
    0.5, 0.16666666666666666, 0.04166666666666706, 0.0083333333333334, 0.0013888888888704525, 0.00019841269841056842,
    2.4801587616171022e-05, 2.7557319516047245e-06, 2.7557076624936126e-07, 2.505191373806113e-08,
    2.0962957689070267e-09, 1.6121292492410324e-10,
)  # fmt: skip

# pi/2 and pi/4 as sums of two float32, of two float64
_HALF_PI = (1.5707963705062866, -4.371139000186241e-08), (1.5707963267948966, 6.123233995736766e-17)
_LN2 = math.log(2)


# ---- inverse trigonometric functions


def _arctangent(numerator: Number, denominator: Number) -> Number:
    """atan(numerator / denominator) for a quotient of 0 to infinity; the division is made once, where it is small.

    Beyond tan(pi/8) the argument is taken around 1, beyond tan(3 pi/8) its reciprocal.
    """
    ratio = numerator / denominator
    far, middle = ratio > 2.414213562373095, ratio > 0.4142135623730951
    below = where(far, numerator, where(middle, numerator + denominator, denominator))
    above = where(far, -denominator, where(middle, numerator - denominator, numerator))
    r = above / below
    square = r * r
    small = polynomial(square, by_type(r, _ATAN, _ATAN_64)) * (square * r)
    high, low = by_type(r, *_HALF_PI)
    base = where(far, r.like(high), where(middle, r.like(high / 2), 0.0))
    rest = where(far, r.like(low), where(middle, r.like(low / 2), 0.0))
    return base + (r + (small + rest))


def _atan(x: Number) -> Number:
    """Error below 2 ulp. An infinite numerator would give infinity / infinity."""
    magnitude = abs(x)
    infinite = magnitude.equals(math.inf)
    result = _arctangent(where(infinite, 1.0, magnitude), where(infinite, x.like(0.0), 1.0))
    return result.copysign(x)


def _atan2(y: Number, x: Number) -> Number:
    """The angle of the point (x, y), by octants; error below 3 ulp. Two infinities count as equal."""
    across, up = abs(x), abs(y)
    both = across.equals(up) & (across.equals(math.inf) | across.equals(0.0))
    across, up = where(both, 1.0, across), where(both, where(up.equals(0.0), up, 1.0), up)
    great = by_type(x, 2.0**126, 2.0**1022)  # of greater numbers the sum overflows
    scale = where((across > great) | (up > great), x.like(0.25), 1.0)
    across, up = across * scale, up * scale
    up_infinite, across_infinite = up.equals(math.inf), across.equals(math.inf)
    numerator = where(up_infinite, 1.0, where(across_infinite, up * 0.0, up))
    angle = _arctangent(numerator, where(up_infinite, across * 0.0, where(across_infinite, 1.0, across)))
    angle = where(x.differs(x), x, angle)
    high, low = by_type(x, *_HALF_PI)
    left = x.like(1.0).copysign(x) < 0.0
    return where(left, 2 * high - (angle - 2 * low), angle).copysign(y)


def _asin_near(x: Number) -> tuple[Number, Number]:
    """x and asin(x) - x for |x| <= 1/2."""
    square = x * x
    return x, x * square * polynomial(square, by_type(x, _ASIN, _ASIN_64))


def _asin(x: Number) -> Number:
    """Error below 3 ulp: beyond 1/2 it is pi/2 - 2 asin(sqrt((1 - |x|)/2))."""
    magnitude = abs(x)
    far = magnitude > 0.5
    argument, rest = _asin_near(where(far, ((1.0 - magnitude) * 0.5).sqrt(), magnitude))
    high, low = by_type(x, *_HALF_PI)
    beyond = high - (2.0 * argument + (2.0 * rest - low))
    return where(far, beyond, argument + rest).copysign(x)


def _acos(x: Number) -> Number:
    """Error below 3 ulp: 2 asin(sqrt((1 - x)/2)) above 1/2, and by its mirror image below -1/2."""
    magnitude = abs(x)
    far = magnitude > 0.5
    argument, rest = _asin_near(where(far, ((1.0 - magnitude) * 0.5).sqrt(), x))
    high, low = by_type(x, *_HALF_PI)
    near = high - (argument + (rest - low))
    right = 2.0 * (argument + rest)
    left = 2 * high - (right - 2 * low)
    return where(far, where(x < 0.0, left, right), near)


def _tan(x: Number) -> Number:
    """Error below 3 ulp, for every x as far as that of sin and cos is below one."""
    return x.sin() / x.cos()


# ---- exponentials and logarithms


def _expm1(x: Number) -> Number:
    """exp(x) - 1; error below 3 ulp. Up to 1 it is p (p + 2), p = expm1(x/2) by a polynomial."""
    half = x * 0.5
    p = half + half * half * polynomial(half, by_type(x, _EXPM1, _EXPM1_64))
    return where(abs(x) < 1.0, where(x.equals(0.0), x, p * (p + 2.0)), x.exp() - 1.0)


def log1p_of(x: Number) -> Number:
    """log(1 + x); error below 2 ulp: what the sum 1 + x loses is put in to first order."""
    total = 1.0 + x
    lost = where(abs(x) < 1.0, x - (total - 1.0), 1.0 - (total - x))
    result = total.log() + lost / total
    return where((total > 0.0) & (total < math.inf), where(x.equals(0.0), x, result), total.log())


def _binary_parts(x: Number) -> tuple[Number, Number]:
    """Exponent (an integer, as float) and mantissa in [2/3, 4/3) of x > 0, both exact."""
    digits, bias_one = by_type(x, 23, 52), by_type(x, 0x3F2AAAAB, 0x3FE5555555555555)
    tiny = x < by_type(x, 2.0**-126, 2.0**-1022)
    normal = where(tiny, x * 2.0**digits, x)
    exponent = (normal.bits() - bias_one).shift_right(digits)
    mantissa = (normal.bits() - exponent.shift_left(digits)).from_bits(x.dtype)
    return exponent.convert(x.dtype) + where(tiny, x.like(-float(digits)), 0.0), mantissa


def _logarithm_to(x: Number, of_two: tuple[float, float], of_e: tuple[float, float]) -> Number:
    """The logarithm to a base of which `of_two` and `of_e` are the logarithms of 2 and e, in two parts each.

    The first parts have so few digits that multiplying an exponent with them, or log's leading digits, is exact.
    """
    exponent, mantissa = _binary_parts(x)
    natural = mantissa.log()
    mask = by_type(x, -(1 << 12), -(1 << 27))
    high = (natural.bits() & mask).from_bits(x.dtype)
    low = exponent * of_two[1] + (natural * of_e[1] + (natural - high) * of_e[0])
    result = exponent * of_two[0] + (high * of_e[0] + low)
    return where((x > 0.0) & (x < math.inf), result, x.log())


def _log2(x: Number) -> Number:
    """Error below 2 ulp; exact at powers of 2."""
    return _logarithm_to(x, (1.0, 0.0), by_type(x, *_LOG2_E))


def _log10(x: Number) -> Number:
    """Error below 2 ulp; exact at powers of 10."""
    return _logarithm_to(x, by_type(x, *_LOG10_2), by_type(x, *_LOG10_E))


def _in_two_parts(value: float, rest: float, digits: int) -> tuple[float, float]:
    """value + rest as one number of `digits` binary digits and what is left."""
    scale = 2.0 ** (digits - math.frexp(value)[1])
    high = math.floor(value * scale) / scale
    return high, (value - high) + rest


# log2(e), log10(2) and log10(e), each as the nearest float64 and what that leaves
_LOG2_E = tuple(_in_two_parts(1.4426950408889634, 2.0355273740931033e-17, d) for d in (12, 26))
_LOG10_2 = tuple(_in_two_parts(0.3010299956639812, -2.8037281277851704e-18, d) for d in (14, 40))
_LOG10_E = tuple(_in_two_parts(0.4342944819032518, 1.098319650216765e-17, d) for d in (12, 26))


def _exp2(x: Number) -> Number:
    return x.like(2.0).pow(x)


# ---- hyperbolic functions


def _half_exponentials(magnitude: Number) -> tuple[Number, Number]:
    """exp(m)/2 and exp(-m)/2, the first as a product where exp(m) overflows before its half does."""
    large = magnitude > by_type(magnitude, 80.0, 700.0)
    power = where(large, magnitude * 0.5, magnitude).exp()
    half = power * 0.5
    return where(large, half * power, half), 0.5 / where(large, power * power, power)


def _sinh(x: Number) -> Number:
    """Error below 3 ulp."""
    magnitude, square = abs(x), x * x
    near = magnitude + magnitude * square * polynomial(square, by_type(x, _SINH, _SINH_64))
    growing, shrinking = _half_exponentials(magnitude)
    return where(magnitude < 1.0, near, growing - shrinking).copysign(x)


def _cosh(x: Number) -> Number:
    """Error below 3 ulp."""
    growing, shrinking = _half_exponentials(abs(x))
    return growing + shrinking


def _asinh(x: Number) -> Number:
    """log1p(m + m^2/(1 + sqrt(1 + m^2))); error below 3 ulp."""
    magnitude = abs(x)
    large = magnitude > by_type(x, 1e9, 1e150)
    m = where(large, 1.0, magnitude)
    square = m * m
    near = log1p_of(m + square / (1.0 + (1.0 + square).sqrt()))
    return where(large, magnitude.log() + _LN2, near).copysign(x)


def _acosh(x: Number) -> Number:
    """log1p(t + sqrt(2t + t^2)) for t = x - 1; error below 3 ulp."""
    large = x > by_type(x, 1e9, 1e150)
    t = where(large, 1.0, x) - 1.0
    near = log1p_of(t + (2.0 * t + t * t).sqrt())
    return where(x < 1.0, math.nan, where(large, x.log() + _LN2, near))


def _atanh(x: Number) -> Number:
    """log1p(2m/(1 - m)) / 2; error below 3 ulp."""
    magnitude = abs(x)
    return (0.5 * log1p_of((magnitude + magnitude) / (1.0 - magnitude))).copysign(x)


# ---- the records


def _one(x: Node) -> Node:
    return scalar(1.0, x)


def _square(x: Node) -> Node:
    return mul(x, x)


TAN = float_function("tan", body(_tan), lambda n, g: mul(g, add(_one(n), _square(n))), 40)
ATAN = float_function("atan", body(_atan), lambda n, g: div(g, add(_one(g), _square(n.inputs[0]))), 24)
ASIN = float_function("asin", body(_asin), lambda n, g: div(g, _unit_leg(n.inputs[0])), 20)
ACOS = float_function("acos", body(_acos), lambda n, g: neg(div(g, _unit_leg(n.inputs[0]))), 20)
SINH = float_function("sinh", body(_sinh), lambda n, g: mul(g, cosh(n.inputs[0])), 24)
COSH = float_function("cosh", body(_cosh), lambda n, g: mul(g, sinh(n.inputs[0])), 20)
ASINH = float_function("asinh", body(_asinh), lambda n, g: div(g, _hyperbola(n.inputs[0], 1.0)), 30)
ACOSH = float_function("acosh", body(_acosh), lambda n, g: div(g, _hyperbola(n.inputs[0], -1.0)), 30)
ATANH = float_function("atanh", body(_atanh), lambda n, g: div(g, sub(_one(g), _square(n.inputs[0]))), 24)
EXP2 = float_function("exp2", body(_exp2), lambda n, g: mul(g, mul(n, scalar(_LN2, n))), 40)
EXPM1 = float_function("expm1", body(_expm1), lambda n, g: mul(g, exp(n.inputs[0])), 24)
LOG1P = float_function("log1p", body(log1p_of), lambda n, g: div(g, add(n.inputs[0], _one(g))), 20)
LOG2 = float_function("log2", body(_log2), lambda n, g: div(g, mul(n.inputs[0], scalar(_LN2, g))), 24)
LOG10 = float_function("log10", body(_log10), lambda n, g: div(g, mul(n.inputs[0], scalar(math.log(10), g))), 24)


def _unit_leg(x: Node) -> Node:
    """sqrt(1 - x^2), without losing the digits of 1 - |x|."""
    return sqrt(mul(sub(_one(x), x), add(_one(x), x)))


def _hyperbola(x: Node, sign: float) -> Node:
    """sqrt(x^2 + sign)."""
    if sign < 0:
        return sqrt(mul(sub(x, _one(x)), add(x, _one(x))))
    return sqrt(add(_square(x), _one(x)))


def _over_square_of_radius(n: Node, x: Node) -> Node:
    """x / (a^2 + b^2) for the operands a and b, of which the squares may overflow or underflow; 0 where both are 0."""
    a, b = n.inputs
    greater = maximum(absolute(a), absolute(b))
    unscaled = bit_or(eq(greater, scalar(0.0, x)), eq(greater, scalar(math.inf, x)))
    unit = choose(unscaled, _one(x), greater)
    square = add(_square(div(a, unit)), _square(div(b, unit)))
    return div(div(div(x, unit), choose(eq(square, scalar(0.0, x)), _one(x), square)), unit)


ATAN2 = elementwise(
    "atan2",
    body(_atan2),
    lambda n, g: mul(g, _over_square_of_radius(n, n.inputs[1])),
    lambda n, g: neg(mul(g, _over_square_of_radius(n, n.inputs[0]))),
    takes=(FLOAT,),
    cost=30,
)


tan: Builder = builder(TAN)
atan: Builder = builder(ATAN)
asin: Builder = builder(ASIN)
acos: Builder = builder(ACOS)
sinh: Builder = builder(SINH)
cosh: Builder = builder(COSH)
asinh: Builder = builder(ASINH)
acosh: Builder = builder(ACOSH)
atanh: Builder = builder(ATANH)
exp2: Builder = builder(EXP2)
expm1: Builder = builder(EXPM1)
log1p: Builder = builder(LOG1P)
log2: Builder = builder(LOG2)
log10: Builder = builder(LOG10)
atan2: Builder = builder(ATAN2)
