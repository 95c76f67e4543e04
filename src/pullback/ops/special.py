"""Special functions: the error function's relatives, the gamma function's logarithm and its derivatives, Bessel's I.

Formulas for float32 and float64 alike, as in `exponential.py`. Errors named are bounds of what the tests measure
against 30-digit arithmetic.
"""

from __future__ import annotations

import math

from ..graph.node import Node
from ..graph.types import float16, float64
from . import special_tables as tables
from .elementwise import Builder, absolute, add, builder, div, exp, float_function, lt, mul, neg, scalar, sign, sub
from .elementwise import where as choose
from .exponential import log1p_of
from .formula import Number, body, by_type, polynomial, where
from .primitive import apply

_ROOT_HALF, _TWO_OVER_ROOT_PI = math.sqrt(0.5), 2 / math.sqrt(math.pi)
#: erfcx's slope for large x in 1/x^2: 2/sqrt(pi) times -1/2, 3/4, -15/8, …
_ERFCX_SLOPE = [_TWO_OVER_ROOT_PI * math.prod(range(1, 2 * k, 2)) / (-2) ** k for k in range(1, 7)]


# ---- the error function's relatives


def _square_in_parts(x: Number) -> tuple[Number, Number]:
    """x^2 as the sum of two, as the rounding of one would be magnified 2x^2 times by exp; 10,000 where it is more."""
    bounded = where(abs(x) > 100.0, 100.0, x)
    high = (bounded.bits() & by_type(x, -(1 << 12), -(1 << 27))).from_bits(x.dtype)
    return high * high, (bounded - high) * (bounded + high)


def exp_of_minus_square(x: Number) -> Number:
    """exp(-x^2)."""
    high, low = _square_in_parts(x)
    return (-high).exp() * (-low).exp()


def _scaled_above_zero(x: Number) -> Number:
    """exp(x^2) erfc(x) for x >= 0, after Shepherd and Laframboise (1981): (1 + 2x) times it is smooth in t."""
    bounded = where(x > 1e18, 1e18, x)
    t = (bounded - 3.75) / (bounded + 3.75)
    return 0.5 * polynomial(t, by_type(x, tables.ERFCX, tables.ERFCX_64)) / (0.5 + x)


def _erfcx(x: Number) -> Number:
    """exp(x^2) erfc(x); error below 6 ulp."""
    above = _scaled_above_zero(abs(x))
    high, low = _square_in_parts(x)
    return where(x < 0.0, 2.0 * (high.exp() * low.exp()) - above, above)


def _erfc(x: Number) -> Number:
    """1 - erf(x); error below 5 ulp, out to where it underflows."""
    return where(x < 0.5, 1.0 - x.erf(), exp_of_minus_square(x) * _scaled_above_zero(abs(x)))


def _log_ndtr(x: Number) -> Number:
    """The logarithm of the normal distribution function."""
    scaled = x * _ROOT_HALF
    below = (_scaled_above_zero(abs(scaled)) * 0.5).log() - scaled * scaled
    return where(x < -1.0, below, log1p_of(-0.5 * _erfc(scaled)))


def _quantile(q: Number, smaller: Number) -> Number:
    """The normal distribution's quantile: q is the probability less 1/2, `smaller` that of the nearer tail.

    Wichura, "Algorithm AS 241" (Applied Statistics 37, 1988). Near the centre what his quotient differs from its value
    there, sqrt(2 pi), is taken as a quotient of its own, so that its rounding is that of a small term.
    """
    square = q * q
    r = 0.180625 - square
    slope, rest = by_type(q, *tables.ROOT_TWO_PI)
    bend = square * (polynomial(r, tables.QUANTILE_CENTRE[0]) / polynomial(r, tables.QUANTILE_CENTRE[1]))
    centre = q * slope + q * (rest + bend)
    root = (-smaller.log()).sqrt()
    near, far = where(root < 5.0, root, 5.0) - 1.6, where(root > 5.0, root, 5.0) - 5.0
    tail = polynomial(near, tables.QUANTILE_TAIL[0]) / polynomial(near, tables.QUANTILE_TAIL[1])
    beyond = polynomial(far, tables.QUANTILE_FAR[0]) / polynomial(far, tables.QUANTILE_FAR[1])
    outer = where(root > 5.0, beyond, tail)
    outer = where(smaller.equals(0.0), math.inf, outer).copysign(q)
    return where(abs(q) < 0.425, centre, where(smaller >= 0.0, outer, math.nan))


def _erfinv(x: Number) -> Number:
    """The inverse of erf; error below 5 ulp. NaN beyond 1."""
    return _quantile(0.5 * x, 0.5 * (1.0 - abs(x))) * _ROOT_HALF


def _ndtri(p: Number) -> Number:
    """The inverse of the normal distribution function; NaN outside [0, 1]."""
    return _quantile(p - 0.5, where(p < 0.5, p, 1.0 - p))


# ---- the gamma function


def _fraction_of_pi(x: Number) -> Number:
    """pi times the distance of x from the nearest integer, which is exact before pi comes in."""
    return (x - x.rint()) * math.pi


def _lgamma(x: Number) -> Number:
    """log |gamma(x)|; relative error below 4 ulp for x > 0.

    lgamma(2 + d) is d (1 + d) times a polynomial for -1.3 <= d <= 1/2, so that nothing is taken off near its zeros at 1
    and 2; smaller and middling arguments are shifted there. From 8 on it is Stirling's series, at -1/2 and below the
    reflection.
    """
    reflected = x <= -0.5
    z = where(reflected, -x, x)
    low, middle = z < 0.5, z < 0.7
    y, product = z, z.like(1.0)
    for _ in range(6):
        above = y > 2.5
        y = where(above, y - 1.0, y)
        product = where(above, product * y, product)
    d, after = where(low, z, where(middle, z - 1.0, y - 2.0)), where(low, z + 1.0, where(middle, z, y - 1.0))
    outside = where(low, -(abs(z) * (z + 1.0)).log(), where(middle, -z.log(), product.log()))
    near = d * after * polynomial(d, by_type(x, tables.LOG_GAMMA, tables.LOG_GAMMA_64)) + outside
    inverse = 1.0 / z
    series = inverse * polynomial(inverse * inverse, tables.STIRLING)
    far = (z - 0.5) * (z.log() - 1.0) + (series + (0.5 * math.log(2 * math.pi) - 0.5))
    result = where(z < 8.0, near, far)
    distance = _fraction_of_pi(z)
    mirrored = (math.pi / abs(distance.sin())).log() - z.log() - result
    result = where(reflected, where(distance.equals(0.0), math.inf, mirrored), result)
    return where(abs(x).equals(math.inf), math.inf, result)


def _digamma(x: Number) -> Number:
    """lgamma's derivative: shifted up to 10, where the asymptotic series begins; reflected below 1/2."""
    reflected = x < 0.5
    z = where(reflected, 1.0 - x, x)
    shifted = z.like(0.0)
    for _ in range(10):
        below = z < 10.0
        shifted = where(below, shifted + 1.0 / z, shifted)
        z = where(below, z + 1.0, z)
    inverse = 1.0 / z
    square = inverse * inverse
    terms = [(2 * k + 1) * coefficient for k, coefficient in enumerate(tables.STIRLING)]
    result = z.log() - 0.5 * inverse - square * polynomial(square, terms) - shifted
    angle = _fraction_of_pi(x)
    result = where(reflected, result - math.pi * (angle.cos() / angle.sin()), result)
    at_zero = x.like(math.inf).copysign(-x)
    whole_below = (x < 0.0) & x.equals(x.floor())
    return where(x.equals(0.0), at_zero, where(whole_below, math.nan, result))


def _whole_power(x: Number, exponent: int) -> Number:
    """x to a whole power of at least 1, by squaring."""
    result, square = None, x
    while exponent:
        if exponent & 1:
            result = square if result is None else result * square
        exponent >>= 1
        if exponent:
            square = square * square
    assert result is not None
    return result


#: B(2k)/(2k)! for k = 1, 2, …: Bernoulli's numbers in the Euler-Maclaurin formula
TERMS_OF_EULER_MACLAURIN = (
    1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160, -691 / 1307674368000, 1 / 74724249600,
    -3617 / 10670622842880000,
)  # fmt: skip


def _sum_of_powers(q: Number, s: int, unit: float) -> Number:
    """Hurwitz's zeta function, the sum of (q + i)^-s over i >= 0, times unit^s, a power of two.

    For q > 0: ten terms, then Euler and Maclaurin's.
    """
    total, w = q.like(0.0), q
    for _ in range(10):
        total = total + 1.0 / _whole_power(w * (1.0 / unit), s)
        w = w + 1.0
    power = 1.0 / _whole_power(w * (1.0 / unit), s)
    tail = (unit / _whole_power(w * (1.0 / unit), s - 1)) / (s - 1.0) + 0.5 * power
    square, rising = 1.0 / (w * w), float(s)
    term = power / w
    for k, coefficient in enumerate(TERMS_OF_EULER_MACLAURIN):
        tail = tail + term * (rising * coefficient)
        term = term * square
        rising *= (s + 2 * k + 1) * (s + 2 * k + 2)
    # where the power is no float the sum is none either
    return where(power < math.inf, total + tail, total)


def _cotangent_polynomial(n: int) -> list[int]:
    """The coefficients of p with d^n/dx^n cot(x) = p(cot(x))."""
    p = [0, 1]
    for _ in range(n):
        slope = [k * c for k, c in enumerate(p)][1:]
        p = [-(a + b) for a, b in zip([*slope, 0, 0], [0, 0, *slope], strict=True)]
    return p


def _polygamma(x: Number, n: int) -> Number:
    """The n-th derivative of digamma, n >= 1: (-1)^(n+1) n! zeta(n + 1, x), reflected below 1/2.

    A power of two for each factor of the powers keeps them and n! near each other: neither overflows by itself.
    """
    reflected = x < 0.5
    factorial = math.factorial(n)
    exponent = round(math.log2(factorial) / (n + 1))
    scale = factorial / 2 ** (exponent * (n + 1)) * (1.0 if n % 2 else -1.0)
    above = _sum_of_powers(where(reflected, 1.0 - x, x), n + 1, 2.0**exponent) * scale
    mirrored = -_cotangent_derivative(x, n)
    if n <= _greatest_reflected(x):
        mirrored = (-1.0) ** n * above + mirrored
    return where(reflected, mirrored, above)


def _greatest_reflected(x: Number) -> int:
    """The last n for which n! 2^(n + 1), the least magnitude below 1/2, is a float."""
    return int(by_type(x, 28, 150))


def _cotangent_derivative(x: Number, n: int) -> Number:
    """The n-th derivative of pi cot(pi x)."""
    angle = _fraction_of_pi(x)
    cotangent = angle.cos() / abs(angle).sin().copysign(angle)
    odd = n % 2 == 0  # the polynomial's powers are odd, or even
    if n > _greatest_reflected(x):
        return cotangent * math.inf if odd else abs(cotangent) * -math.inf
    p = _cotangent_polynomial(n)
    derivative = polynomial(cotangent * cotangent, [float(c) for c in p[1 if odd else 0 :: 2]])
    derivative = derivative * cotangent if odd else derivative
    return math.pi ** (n + 1) * derivative


# ---- Bessel's functions of imaginary argument


def _scaled_bessel(m: Number, near: tuple[float, ...], far: tuple[float, ...]) -> tuple[Number, Number]:
    """The polynomial's values for m <= 8, and beyond for sqrt(m) times the function; both times exp(-m)."""
    inside = m < 8.0
    small = polynomial(where(inside, m, 8.0) * 0.25 - 1.0, near)
    large = polynomial(16.0 / where(inside, 8.0, m) - 1.0, far) / where(inside, 8.0, m).sqrt()
    return small, large


def _i0e(x: Number) -> Number:
    """exp(-|x|) I0(x)."""
    m = abs(x)
    small, large = _scaled_bessel(
        m, by_type(x, tables.I0_NEAR, tables.I0_NEAR_64), by_type(x, tables.I0_FAR, tables.I0_FAR_64)
    )
    return where(m < 8.0, small, large)


def _i1e(x: Number) -> Number:
    """exp(-|x|) I1(x)."""
    m = abs(x)
    small, large = _scaled_bessel(
        m, by_type(x, tables.I1_NEAR, tables.I1_NEAR_64), by_type(x, tables.I1_FAR, tables.I1_FAR_64)
    )
    return where(m < 8.0, m * small, large).copysign(x)


def _unscaled(x: Number, scaled: Number) -> Number:
    """`scaled` times exp(|x|), which overflows before the product does."""
    half = (0.5 * abs(x)).exp()
    return where(abs(x).equals(math.inf), x.like(math.inf).copysign(scaled), half * scaled * half)


def _i0(x: Number) -> Number:
    """I0(x); error below 5 ulp."""
    return _unscaled(x, _i0e(x))


def _i1(x: Number) -> Number:
    """I1(x); error below 9 ulp."""
    return _unscaled(x, _i1e(x))


# ---- the records


def _times(x: Node, factor: float) -> Node:
    return mul(x, scalar(factor, x))


def _density(x: Node) -> Node:
    """exp(-x^2)."""
    return exp(neg(mul(x, x)))


def _erfcx_slope(n: Node) -> Node:
    """2x erfcx(x) - 2/sqrt(pi), whose terms are all but equal for a large x: there by its asymptotic series."""
    x = n.inputs[0]
    large = lt(scalar(50.0 if x.dtype is float64 else 8.0, x), x)
    inverse = div(scalar(1.0, x), choose(large, x, scalar(1.0, x)))
    square = mul(inverse, inverse)
    series = scalar(_ERFCX_SLOPE[-1], x)
    for coefficient in reversed(_ERFCX_SLOPE[:-1]):
        series = add(mul(series, square), scalar(coefficient, x))
    near = sub(_times(mul(choose(large, scalar(1.0, x), x), n), 2.0), scalar(_TWO_OVER_ROOT_PI, n))
    return choose(large, mul(series, square), near)


def _is_tiny(x: Node) -> Node:
    """Where i1(x)/x would be a quotient of numbers that have lost their digits."""
    return lt(absolute(x), scalar(1e-3 if x.dtype is float16 else 1e-10, x))


def _i1_slope(n: Node) -> Node:
    x = n.inputs[0]
    tiny = _is_tiny(x)
    return choose(tiny, scalar(0.5, x), sub(i0(x), div(n, choose(tiny, scalar(1.0, x), x))))


def _i1e_slope(n: Node) -> Node:
    x = n.inputs[0]
    tiny = _is_tiny(x)
    quotient = div(n, choose(tiny, scalar(1.0, x), x))
    there = sub(scalar(0.5, x), absolute(x))
    return choose(tiny, there, sub(sub(i0e(x), mul(n, sign(x))), quotient))


ERFC = float_function("erfc", body(_erfc), lambda n, g: mul(g, _times(_density(n.inputs[0]), -_TWO_OVER_ROOT_PI)), 60)
ERFCX = float_function("erfcx", body(_erfcx), lambda n, g: mul(g, _erfcx_slope(n)), 60)
ERFINV = float_function("erfinv", body(_erfinv), lambda n, g: mul(g, _times(exp(mul(n, n)), 1 / _TWO_OVER_ROOT_PI)), 60)
NDTRI = float_function(
    "ndtri", body(_ndtri), lambda n, g: mul(g, _times(exp(_times(mul(n, n), 0.5)), math.sqrt(2 * math.pi))), 60
)
LOG_NDTR = float_function(
    "log_ndtr",
    body(_log_ndtr),
    lambda n, g: mul(g, div(scalar(math.sqrt(2 / math.pi), g), erfcx(_times(n.inputs[0], -_ROOT_HALF)))),
    90,
)
LGAMMA = float_function("lgamma", body(_lgamma), lambda n, g: mul(g, digamma(n.inputs[0])), 120)
DIGAMMA = float_function("digamma", body(_digamma), lambda n, g: mul(g, polygamma(n.inputs[0], 1)), 120)
I0 = float_function("i0", body(_i0), lambda n, g: mul(g, i1(n.inputs[0])), 70)
I0E = float_function("i0e", body(_i0e), lambda n, g: mul(g, sub(i1e(n.inputs[0]), mul(sign(n.inputs[0]), n))), 50)
I1 = float_function("i1", body(_i1), lambda n, g: mul(g, _i1_slope(n)), 70)
I1E = float_function("i1e", body(_i1e), lambda n, g: mul(g, _i1e_slope(n)), 50)
POLYGAMMA = float_function("polygamma", body(_polygamma), lambda n, g: mul(g, polygamma(n.inputs[0], n["n"] + 1)), 120)

erfc: Builder = builder(ERFC)
erfcx: Builder = builder(ERFCX)
erfinv: Builder = builder(ERFINV)
ndtri: Builder = builder(NDTRI)
log_ndtr: Builder = builder(LOG_NDTR)
lgamma: Builder = builder(LGAMMA)
digamma: Builder = builder(DIGAMMA)
i0: Builder = builder(I0)
i0e: Builder = builder(I0E)
i1: Builder = builder(I1)
i1e: Builder = builder(I1E)


def polygamma(x: Node, n: int) -> Node:
    """The n-th derivative of digamma, n >= 1."""
    return apply(POLYGAMMA, x, n=n)
