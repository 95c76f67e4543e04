"""Operations element by element, recurrences and random numbers among them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from pullback.graph import types
from pullback.graph.node import Node
from pullback.graph.types import bfloat16, bool_, float16, float32, float64, int32, int64, uint8, uint32
from pullback.ops import bessel, exponential, movement, pairs, recurrence, special
from pullback.ops import elementwise as e
from pullback.ops.primitive import constant, iota

from .maker import MOST, PRECISION, SLACK, Family, Known, Maker, rounded

ELEMENTWISE = Family()


@ELEMENTWISE.operation(5)
def _sums_and_products(make: Maker) -> Known:
    x = make.operand(1, 2)
    y = make.partner(x)
    build = make.choose((e.add, e.sub, e.mul, e.mul))
    size = x.size * y.size if build is e.mul else x.size + y.size
    error = x.error * (y.size + y.error) + y.error * x.size if build is e.mul else x.error + y.error
    scale = None
    if x.scale is not None and y.scale is not None:
        scale = x.scale + y.scale if build is e.mul else max(x.scale, y.scale)
    pair = (x.node, y.node) if make.chance(0.5) or build is e.sub else (y.node, x.node)
    return rounded(build(*pair), size, error, scale, x.finite and y.finite)


@ELEMENTWISE.operation(3)
def _functions(make: Maker) -> Known:
    x = make.operand(2)
    name, build, slope, size = make.choose(
        (
            ("sin", e.sin, 1.0, 1.0),
            ("cos", e.cos, 1.0, 1.0),
            ("tanh", e.tanh, 1.0, 1.0),
            ("erf", e.erf, 1.2, 1.0),
            ("sigmoid", e.sigmoid, 0.25, 1.0),
            ("exp", e.exp, math.nan, math.nan),
        )
    )
    if name == "exp":
        small = Known(
            e.mul(e.tanh(x.node), constant(3.0, x.dtype)), 3.0, 3 * x.error + 3 * SLACK * PRECISION[x.dtype], None
        )
        size = math.exp(3)
        return rounded(e.exp(small.node), size, small.error * size, None, x.finite, SLACK)
    return rounded(build(x.node), size, x.error * slope, None, x.finite, SLACK)


@ELEMENTWISE.operation(2)
def _functions_of_positive_numbers(make: Maker) -> Known:
    x = make.operand(2)
    above = e.add(e.absolute(x.node), constant(0.5, x.dtype))
    build, size, slope = make.choose(
        (
            (e.sqrt, math.sqrt(x.size + 0.5), 0.75),
            (e.log, math.log(x.size + 0.5) + 0.7, 2.0),
            (lambda v: e.div(constant(1.0, x.dtype), v), 2.0, 4.0),
        )
    )
    spread = PRECISION[x.dtype] * (x.size + 0.5)
    return rounded(build(above), size, (x.error + spread) * slope, None, x.finite, SLACK)


def _bessel(x: Node) -> Node:
    """I1 and the other functions of Bessel's, and Airy's, at places where K and Ai take both of their forms."""
    far = e.add(x, constant(2.5, x.dtype))
    total = special.i1e(x)
    for build in (
        *(bessel.bessel_j0, bessel.bessel_j1, bessel.bessel_y0, bessel.bessel_y1, bessel.airy_ai),
        *(bessel.modified_bessel_k0, bessel.modified_bessel_k1),
        *(bessel.scaled_modified_bessel_k0, bessel.scaled_modified_bessel_k1),
    ):
        total = e.add(total, build(far))
    return total


#: functions of one element on (-0.9, 0.9) moved by a distance: how large they are there, and how steep
_ON_AN_INTERVAL: tuple[tuple[Callable[[Node], Node], float, float, float], ...] = (
    (exponential.tan, 0.0, 1.3, 2.6),
    (exponential.atan, 0.0, 0.8, 1.0),
    (exponential.asin, 0.0, 1.2, 2.3),
    (exponential.acos, 0.0, 2.7, 2.3),
    (exponential.sinh, 0.0, 1.1, 1.5),
    (exponential.cosh, 0.0, 1.5, 1.1),
    (exponential.asinh, 0.0, 0.9, 1.0),
    (exponential.acosh, 2.5, 1.9, 0.9),
    (exponential.atanh, 0.0, 1.5, 5.3),
    (exponential.exp2, 0.0, 1.9, 1.4),
    (exponential.expm1, 0.0, 1.5, 2.5),
    (exponential.log1p, 0.0, 2.4, 10.0),
    (exponential.log2, 1.5, 1.3, 2.5),
    (exponential.log10, 1.5, 0.4, 0.8),
    (special.erfc, 0.0, 1.8, 1.2),
    (special.erfcx, 0.0, 4.1, 8.5),
    (special.erfinv, 0.0, 1.2, 3.6),
    (special.log_ndtr, 0.0, 1.8, 1.7),
    (special.lgamma, 2.5, 1.2, 1.2),
    (special.digamma, 2.5, 1.2, 1.0),
    (lambda x: special.polygamma(x, 1), 2.5, 1.0, 1.0),
    (special.i0, 0.0, 1.3, 0.6),
    (special.i0e, 0.0, 1.0, 1.1),
    (special.i1, 0.0, 0.6, 0.8),
    (_bessel, 0.0, 5.0, 4.4),
    (lambda x: special.ndtri(e.add(e.mul(x, constant(0.4, x.dtype)), constant(0.5, x.dtype))), 0.0, 1.2, 2.0),
)


def _moved(x: Known, distance: float) -> Known:
    """A number in (-0.9, 0.9) + distance at every element of `x`."""
    inside = e.mul(e.tanh(x.node), constant(0.9, x.dtype))
    node = e.add(inside, constant(distance, x.dtype)) if distance else inside
    return Known(node, 0.9 + distance, x.error + 2 * SLACK * PRECISION[x.dtype] * (1 + distance), None, x.finite)


@ELEMENTWISE.operation(3)
def _functions_on_an_interval(make: Maker) -> Known:
    build, distance, size, slope = make.choose(_ON_AN_INTERVAL)
    x = _moved(make.operand(2), distance)
    return rounded(build(x.node), size, x.error * slope, None, x.finite, 4 * SLACK)


@ELEMENTWISE.operation(2)
def _functions_of_two_numbers(make: Maker) -> Known:
    x = make.operand(2)
    y = make.partner(x)
    x, y = _moved(x, 0.0), _moved(y, 2.0)
    build, size, slope = make.choose(
        (
            (exponential.atan2, 1.0, 2.0),
            (pairs.hypot, 3.1, 2.0),
            (pairs.logaddexp, 3.7, 2.0),
            (pairs.logaddexp2, 4.0, 2.0),
            (pairs.copysign, 1.0, 1.0),
            (pairs.nextafter, 1.0, 1.0),
            (pairs.fmod, 1.0, 1.0),
        )
    )
    finite = x.finite and y.finite
    if build in (pairs.fmod, pairs.copysign):  # the first is smaller than the second, and the second positive
        x = Known(e.absolute(x.node), x.size, x.error, None, x.finite)
    return rounded(build(x.node, y.node), size, (x.error + y.error) * slope, None, finite, 4 * SLACK)


@ELEMENTWISE.operation()
def _exponents_and_shifts(make: Maker) -> Known:
    if make.chance(0.3):
        return Known(pairs.binary_exponent(make.operand(2, exact=True, finite=True).node), 2.0**11, 0.0, 0, True)
    x = make.operand(1)
    count = e.bit_and(x.node, constant(3, x.dtype))
    if make.chance(0.5):
        return Known(pairs.shift_right_by(x.node, count), x.size, 0.0, 0, True)
    return Known(pairs.shift_left_by(x.node, count), 2.0**63, 0.0, 0, True)


@ELEMENTWISE.operation(2)
def _recurrences(make: Maker) -> Known:
    x = make.operand(2)
    length = math.prod(x.shape)
    flat = movement.reshape(x.node, (1, length, 1))
    if make.chance(0.5):
        build = make.choose((recurrence.running_max, recurrence.running_min))
        return Known(build(flat), x.size, x.error, x.scale, x.finite)
    factor = e.mul(e.tanh(flat), constant(0.5, x.dtype))
    size, error = 2 * x.size, 2 * x.error + 2 * x.size * (x.error + 3 * SLACK * PRECISION[x.dtype])
    return rounded(recurrence.recurrence(factor, flat), size, error, None, x.finite, SLACK)


@ELEMENTWISE.operation(2)
def _quotients_and_powers(make: Maker) -> Known:
    x = make.operand(2, finite=True)
    y = make.partner(x, finite=True)
    below = e.add(e.absolute(y.node), constant(0.5, x.dtype))
    spread = PRECISION[x.dtype]
    if make.chance(0.6):
        error = 2 * x.error + 4 * x.size * (y.error + spread * (y.size + 0.5))
        return rounded(e.div(x.node, below), 2 * x.size, error, None, True, SLACK)
    exponent = e.mul(e.sin(x.node), constant(2.0, x.dtype))
    size = max(4.0, (y.size + 0.5) ** 2)
    error = 4 * size * (y.error + spread * (y.size + 0.5)) + math.log(y.size + 2) * size * (
        2 * x.error + 2 * SLACK * spread
    )
    return rounded(e.power(below, exponent), size, error, None, True, SLACK)


@ELEMENTWISE.operation(2)
def _negated(make: Maker) -> Known:
    x = make.operand(1, 2)
    return replace(x, node=make.choose((e.neg, e.absolute))(x.node))


@ELEMENTWISE.operation(2)
def _steps(make: Maker) -> Known:
    x = make.operand(2, exact=True)
    build = make.choose((e.floor, e.ceil, e.trunc, e.rint, e.sign))
    return Known(build(x.node), x.size + 1, 0.0, 0, x.finite)


@ELEMENTWISE.operation(2)
def _whole_division(make: Maker) -> Known:
    x = make.operand(1, 2, exact=True, finite=True)
    y = make.partner(x, exact=True, finite=True)
    build = make.choose((e.floor_divide, e.remainder))
    if not x.dtype.is_floating_point:
        return Known(build(x.node, y.node), max(x.size, y.size))
    below = e.add(e.absolute(y.node), constant(1.0, y.dtype))
    size = x.size + 1 if build is e.floor_divide else y.size + 1
    scale = 0 if build is e.floor_divide else max(x.scale or 0, y.scale or 0)
    return rounded(build(x.node, below), size, 0.0, scale, True)


@ELEMENTWISE.operation(3)
def _choice(make: Maker) -> Known:
    x = make.operand(1, 2)
    y = make.partner(x)
    size, error = max(x.size, y.size), max(x.error, y.error)
    scale = max(x.scale, y.scale) if x.scale is not None and y.scale is not None else None
    if make.chance(0.5):
        node = make.choose((e.minimum, e.maximum))(x.node, y.node)
    else:
        shape = e.broadcast_shapes("where", x.shape, y.shape)
        conditions = [k for k in make.pool if k.dtype is bool_ and k.shape == shape]
        condition = make.choose(conditions) if conditions else make.leaf(shape, bool_)
        node = e.where(condition.node, x.node, y.node)
    return Known(node, size, error, scale, x.finite and y.finite)


@ELEMENTWISE.operation(2)
def _comparisons(make: Maker) -> Known:
    x = make.operand(exact=True)
    y = make.partner(x, exact=True)
    return Known(make.choose((e.eq, e.ne, e.lt, e.le))(x.node, y.node), 1.0)


@ELEMENTWISE.operation(2)
def _bits(make: Maker) -> Known:
    x = make.operand(0, 1)
    if make.chance(0.3):
        return Known(e.bit_not(x.node), max(x.size + 1, 255.0 if x.dtype is uint8 else 0.0))
    if x.dtype is not bool_ and make.chance(0.3):
        return Known(e.shift_right(x.node, make.below(7)), x.size)
    y = make.partner(x)
    build = make.choose((e.bit_and, e.bit_or, e.bit_xor))
    return Known(build(x.node, y.node), 2 * max(x.size, y.size) + 1)


@ELEMENTWISE.operation(2)
def _conversions(make: Maker) -> Known:
    x = make.operand()
    to = make.choose((float32, float32, float64, int64, int32, uint8, bool_, float16, bfloat16))
    if to is bool_:
        return Known(e.convert(x.node, to), 1.0) if x.exact else x
    if to.is_floating_point:
        if x.size > MOST:
            return x
        if to in (float16, bfloat16):
            coarse = rounded(e.convert(x.node, to), x.size, x.error, None, x.finite)
            back = e.convert(coarse.node, float32)
            # a value that both round alike is still not exact: two roundings of nearly the same may part
            return Known(back, x.size * (1 + PRECISION[to]), coarse.error, None, x.finite)
        return rounded(e.convert(x.node, to), x.size, x.error, x.scale, x.finite)
    if x.exact and x.finite and x.size < 100 and not (to is uint8 and x.dtype.category != types.BOOL):
        return Known(e.convert(x.node, to), x.size)
    return x


@ELEMENTWISE.operation(1)
def _random_numbers(make: Maker) -> Known:
    shape = make.shape()
    place = iota((math.prod(shape),), 0, int64)
    counter = (
        e.convert(place, uint32),
        e.convert(e.shift_right(place, 32), uint32),
        constant(make.below(1000), uint32),
        constant(0, uint32),
    )
    word = e.philox(counter, (constant(make.below(1 << 32), uint32), constant(7, uint32)), make.below(4))
    bits = movement.reshape(e.convert(e.shift_right(word, 12), float32), shape)
    return Known(e.mul(bits, constant(2.0**-20, float32)), 1.0, 0.0, 20)
