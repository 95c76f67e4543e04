"""Bessel's functions of orders 0 and 1, J, Y and K, and Airy's Ai.

After Moshier's Cephes library (see `bessel_tables.py`): quotients of polynomials near 0, and what multiplies a sine and
a cosine far from there. Formulas for float32 and float64 alike, as in `special.py`. The sine and the cosine of x - pi/4
are had from those of x, which are right however large x is; a difference would have lost that.

PyTorch's functions are the same but for the leading 1 of some of Moshier's denominators, which they leave out: they are
off by up to 3e-7. Errors named here are bounds that the tests hold, in units of the type's epsilon (1.2e-7, 2.2e-16).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..graph.node import Node
from . import bessel_tables as tables
from .elementwise import Builder, add, builder, div, eq, float_function, mul, neg, scalar, sub
from .elementwise import where as choose
from .formula import Number, body, by_type, polynomial, where
from .special import _i0, _i1

_TWO_OVER_PI = 2 / math.pi
#: orders of a series whose coefficients are below this are nothing to a float32
_SMALL = 1e-10


def _quotient(x: Number, numerator: Sequence[float], denominator: Sequence[float]) -> Number:
    return polynomial(x, numerator) / polynomial(x, denominator)


def _chebyshev_series(x: Number, coefficients: Sequence[float]) -> Number:
    """The sum of coefficients times Chebyshev's polynomials of x/2, the highest order first; that of order 0 by half.
    By Clenshaw's recurrence.
    """
    listed = by_type(x, [c for c in coefficients if abs(c) > _SMALL], coefficients)
    last, before = x.like(listed[0]), x.like(0.0)
    older = before
    for coefficient in listed[1:]:
        last, before, older = x * last - before + coefficient, last, before
    return 0.5 * (last - older)


# ---- J and Y


def _near(m: Number) -> Number:
    """m where it is at most 5, so that no power of it overflows where the result is not taken."""
    return where(m > 5.0, 5.0, m)


def _far(m: Number) -> Number:
    return where(m > 5.0, m, 5.0)


def _wave(order: int, m: Number, second: bool) -> Number:
    """J, or Y, for m >= 5: sqrt(2 / (pi m)) (p cos a - q sin a), or (p sin a + q cos a), a = m - pi/4 - order pi/2."""
    even, odd = (tables.EVEN_0, tables.ODD_0) if order == 0 else (tables.EVEN_1, tables.ODD_1)
    ratio = 5.0 / m
    p, q = _quotient(ratio * ratio, *even), ratio * _quotient(ratio * ratio, *odd)
    sine, cosine = m.sin(), m.cos()
    plus, minus = sine + cosine, sine - cosine
    # sqrt(2) times the cosine and the sine of a
    turned_cosine, turned_sine = (plus, minus) if order == 0 else (minus, -plus)
    both = p * turned_sine + q * turned_cosine if second else p * turned_cosine - q * turned_sine
    return both / (math.sqrt(math.pi) * m.sqrt())


def _j0_near(m: Number) -> Number:
    square = m * m
    zeros = (square - 5.783185962946785) * (square - 30.471262343662087)
    return where(m < 1e-5, 1.0 - 0.25 * square, zeros * _quotient(square, *tables.J0_NEAR))


def _j1_near(m: Number) -> Number:
    square = m * m
    zeros = (square - 14.681970642123893) * (square - 49.218456321694604)
    return m * zeros * _quotient(square, *tables.J1_NEAR)


def _j0(x: Number) -> Number:
    """J0(x); error below 4 epsilon."""
    m = abs(x)
    return where(m > 5.0, _wave(0, _far(m), False), _j0_near(_near(m)))


def _j1(x: Number) -> Number:
    """J1(x); error below 4 epsilon."""
    m = abs(x)
    found = where(m > 5.0, _wave(1, _far(m), False), _j1_near(_near(m)))
    return where(x < 0.0, -found, found)


def _from_zero(x: Number, result: Number, at_zero: float) -> Number:
    """The result for positive x; an infinity at 0, and NaN below."""
    return where(x > 0.0, result, where(x.equals(0.0), x.like(at_zero), math.nan))


def _y0(x: Number) -> Number:
    """Y0(x); error below 4 epsilon, times 1 + |Y0(x)|."""
    near = _near(x)
    close = _quotient(near * near, *tables.Y0_NEAR) + _TWO_OVER_PI * near.log() * _j0_near(near)
    return _from_zero(x, where(x > 5.0, _wave(0, _far(x), True), close), -math.inf)


def _y1(x: Number) -> Number:
    """Y1(x); error below 4 epsilon, times 1 + |Y1(x)|."""
    near = _near(x)
    logarithmic = _TWO_OVER_PI * (_j1_near(near) * near.log() - 1.0 / near)
    close = near * _quotient(near * near, *tables.Y1_NEAR) + logarithmic
    return _from_zero(x, where(x > 5.0, _wave(1, _far(x), True), close), -math.inf)


# ---- K


def _log_of_half(m: Number) -> Number:
    """log(m / 2): halved before, so that nothing is taken off near 2, but where a half may be no number any more."""
    tiny = m < 1e-30
    return where(tiny, m, 0.5 * m).log() - where(tiny, m.like(math.log(2)), 0.0)


def _k0_near(m: Number) -> Number:
    return _chebyshev_series(m * m - 2.0, tables.K0_NEAR) - _log_of_half(m) * _i0(m)


def _k1_near(m: Number) -> Number:
    return _log_of_half(m) * _i1(m) + _chebyshev_series(m * m - 2.0, tables.K1_NEAR) / m


def _decaying(x: Number, order: int, scaled: bool) -> Number:
    """K(x), times exp(x) if `scaled`."""
    near, far = where(x > 2.0, 2.0, x), where(x > 2.0, x, 2.0)
    series = tables.K0_FAR if order == 0 else tables.K1_FAR
    close = _k0_near(near) if order == 0 else _k1_near(near)
    distant = _chebyshev_series(8.0 / far - 2.0, series) / far.sqrt()
    if scaled:
        close = close * near.exp()
    else:
        distant = (-far).exp() * distant
    return _from_zero(x, where(x > 2.0, distant, close), math.inf)


def _k0(x: Number) -> Number:
    """K0(x); relative error below 12 epsilon, times 1 + x/12, as exp magnifies the rounding of great x."""
    return _decaying(x, 0, False)


def _k1(x: Number) -> Number:
    """K1(x); error as of K0."""
    return _decaying(x, 1, False)


def _k0e(x: Number) -> Number:
    """exp(x) K0(x); relative error below 12 epsilon."""
    return _decaying(x, 0, True)


def _k1e(x: Number) -> Number:
    """exp(x) K1(x); relative error below 12 epsilon."""
    return _decaying(x, 1, True)


# ---- Airy's function

_ROOT_OF_PI = math.sqrt(math.pi)


def _airy_below(m: Number) -> Number:
    """Ai(-m) for m >= 2.09: (1 + even) sin(z + pi/4) - odd cos(z + pi/4), over sqrt(pi) m^(1/4)."""
    root = m.sqrt()
    z = m * root * (2 / 3)
    inverse = 1.0 / z
    square = inverse * inverse
    even = 1.0 + square * _quotient(square, *tables.AIRY_SINE)
    odd = inverse * _quotient(square, *tables.AIRY_COSINE)
    sine, cosine = z.sin(), z.cos()
    waves = even * (sine + cosine) - odd * (cosine - sine)
    return waves / (math.sqrt(2 * math.pi) * root.sqrt())


def _airy_above(x: Number) -> Number:
    """Ai(x) for x >= 2.09, which decays as exp(-2/3 x^(3/2))."""
    root = x.sqrt()
    z = x * root * (2 / 3)
    return _quotient(1.0 / z, *tables.AIRY_ABOVE) * (-z).exp() / (2 * _ROOT_OF_PI * root.sqrt())


def _airy_ai(x: Number) -> Number:
    """Ai(x); NaN at infinities, as PyTorch and SciPy have it. Error below 4 epsilon, for positive x relative to the
    value, times 1 + |x|^(3/2), by which the exponential and the sine magnify rounding.
    """
    inside = where(abs(x) > 2.1, 0.0, x)
    cube = inside * inside * inside
    # the series takes 1.2 off 1.3 at 2, so beyond 1 the function itself is interpolated
    near = polynomial(cube, tables.AIRY_EVEN) - inside * polynomial(cube, tables.AIRY_ODD)
    middle = polynomial((inside - 1.545) * (1 / 0.545), by_type(x, tables.AIRY_MIDDLE, tables.AIRY_MIDDLE_64))
    below, above = _airy_below(where(x < -2.09, -x, 2.09)), _airy_above(where(x > 2.09, x, 2.09))
    result = where(x < -2.09, below, where(x > 2.09, above, where(x > 1.0, middle, near)))
    return where(abs(x) < math.inf, result, math.nan)


# ---- the records


def _over_argument(n: Node) -> Node:
    return div(n, n.inputs[0])


def _j1_slope(n: Node) -> Node:
    x = n.inputs[0]
    at_zero = eq(x, scalar(0.0, x))
    return choose(at_zero, scalar(0.5, x), sub(bessel_j0(x), div(n, choose(at_zero, scalar(1.0, x), x))))


J0 = float_function("bessel_j0", body(_j0), lambda n, g: neg(mul(g, bessel_j1(n.inputs[0]))), 120)
J1 = float_function("bessel_j1", body(_j1), lambda n, g: mul(g, _j1_slope(n)), 120)
Y0 = float_function("bessel_y0", body(_y0), lambda n, g: neg(mul(g, bessel_y1(n.inputs[0]))), 160)
Y1 = float_function("bessel_y1", body(_y1), lambda n, g: mul(g, sub(bessel_y0(n.inputs[0]), _over_argument(n))), 160)
K0 = float_function("modified_bessel_k0", body(_k0), lambda n, g: neg(mul(g, modified_bessel_k1(n.inputs[0]))), 200)
K1 = float_function(
    "modified_bessel_k1",
    body(_k1),
    lambda n, g: neg(mul(g, add(modified_bessel_k0(n.inputs[0]), _over_argument(n)))),
    200,
)
K0E = float_function(
    "scaled_modified_bessel_k0",
    body(_k0e),
    lambda n, g: mul(g, sub(n, scaled_modified_bessel_k1(n.inputs[0]))),
    200,
)
K1E = float_function(
    "scaled_modified_bessel_k1",
    body(_k1e),
    lambda n, g: mul(g, sub(sub(n, _over_argument(n)), scaled_modified_bessel_k0(n.inputs[0]))),
    200,
)
AIRY_AI = float_function("airy_ai", body(_airy_ai), None, 250)

bessel_j0: Builder = builder(J0)
bessel_j1: Builder = builder(J1)
bessel_y0: Builder = builder(Y0)
bessel_y1: Builder = builder(Y1)
modified_bessel_k0: Builder = builder(K0)
modified_bessel_k1: Builder = builder(K1)
scaled_modified_bessel_k0: Builder = builder(K0E)
scaled_modified_bessel_k1: Builder = builder(K1E)
airy_ai: Builder = builder(AIRY_AI)
