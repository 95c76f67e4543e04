"""Elementwise operations on two numbers beyond the operators, and on the bits of numbers."""

from __future__ import annotations

import math

from ..graph.node import Node
from ..graph.types import FLOAT, INTEGER, int32
from .elementwise import Builder, add, builder, div, elementwise, eq, exp, mul, neg, scalar, sub, trunc
from .elementwise import where as choose
from .exponential import log1p_of
from .formula import Number, body, by_type, where


def _fmod(x: Number, y: Number) -> Number:
    """What division rounded toward zero leaves, with the sign of x."""
    if x.dtype.category == FLOAT:
        return abs(x).remainder(abs(y)).copysign(x)
    rest = x.remainder(y)
    return where(rest.differs(0) & ((x < 0) ^ (y < 0)), rest - y, rest)


def _fmod_slope(n: Node) -> Node:
    """-trunc(x / y), as PyTorch has it."""
    return neg(trunc(div(*n.inputs)))


def _nextafter_gradient(n: Node, g: Node) -> Node:
    """Passed on, and 0 where the operands are equal, as PyTorch has it."""
    return choose(eq(*n.inputs), scalar(0.0, g), g)


def _copysign_slope(n: Node) -> Node:
    """1 or -1, and 0 where x is 0, as PyTorch has it."""
    x = n.inputs[0]
    return choose(eq(x, scalar(0.0, x)), scalar(0.0, x), choose(eq(n, x), scalar(1.0, x), scalar(-1.0, x)))


def _hypot(x: Number, y: Number) -> Number:
    """sqrt(x^2 + y^2), without overflow on the way."""
    x, y = abs(x), abs(y)
    greater, lesser = where(x < y, y, x), where(x < y, x, y)
    ratio = lesser / where(greater.equals(0.0), 1.0, greater)
    result = where(ratio.equals(1.0), greater * math.sqrt(2), greater * (1.0 + ratio * ratio).sqrt())
    result = where(x.differs(x), x, where(y.differs(y), y, result))
    return where(x.equals(math.inf) | y.equals(math.inf), math.inf, result)


def _logaddexp(x: Number, y: Number) -> Number:
    """log(exp(x) + exp(y)) about the greater."""
    near = where(x < y, y, x) + log1p_of((-abs(x - y)).exp())
    return where(x.equals(y) & abs(x).equals(math.inf), x, near)


def _logaddexp2(x: Number, y: Number) -> Number:
    """log2(2^x + 2^y) about the greater."""
    near = where(x < y, y, x) + log1p_of((-abs(x - y) * math.log(2)).exp()) * (1 / math.log(2))
    return where(x.equals(y) & abs(x).equals(math.inf), x, near)


def _share(n: Node, mine: int, scale: float) -> Node:
    """1 / (1 + exp(scale * (other - mine))): what an operand has of the sum."""
    difference = sub(n.inputs[1 - mine], n.inputs[mine])
    return div(scalar(1.0, n), add(scalar(1.0, n), exp(mul(difference, scalar(scale, n)))))


def _nextafter(x: Number, y: Number) -> Number:
    """The float next to x in the direction of y: floats of one sign are ordered as their bits are."""
    bits = x.bits()
    least = bits.like(1).from_bits(x.dtype)
    away = (x > 0.0) ^ (x > y)
    moved = where(away, bits + 1, bits - 1).from_bits(x.dtype)
    moved = where(x.equals(0.0), least.copysign(y), moved)
    return where(x.differs(x), x, where(y.differs(y) | x.equals(y), y, moved))


def _binary_exponent(x: Number) -> Number:
    """The integer e with |x| = m 2^e, 1/2 <= m < 1; 0 for zeros, infinities and NaN. In the float's own type."""
    digits, width, bias = by_type(x, (23, 0xFF, 126), (52, 0x7FF, 1022))
    tiny = abs(x) < 2.0 ** (1 - bias)
    normal = where(tiny, x * 2.0**digits, x)
    exponent = (normal.bits().shift_right(digits) & width) - bias
    exponent = exponent - where(tiny, exponent.like(digits), 0)
    return where(x.equals(0.0) | abs(x).equals(math.inf) | x.differs(x), 0, exponent).convert(int32)


def _shifted(x: Number, count: Number, left: bool) -> Number:
    """x shifted by a number of bits for each element; all shifted out where that is not less than the width."""
    width = 8 * x.dtype.itemsize
    gone = (count < 0) | (count >= width) if width < 256 else count < 0
    result, step = x, 1
    while step < width:
        moved = result.shift_left(step) if left else result.shift_right(step)
        result = where((count & step).differs(0), moved, result)
        step *= 2
    if left:
        return where(gone, 0, result)
    return where(gone, where(x < 0, x.like(0) - 1, 0), result)


FMOD = elementwise("fmod", body(_fmod), lambda n, g: g, lambda n, g: mul(g, _fmod_slope(n)), cost=12)
COPYSIGN = elementwise(
    "copysign",
    lambda a, x, y: a.copysign(x, y),
    lambda n, g: mul(g, _copysign_slope(n)),
    None,
    takes=(FLOAT,),
)
HYPOT = elementwise(
    "hypot",
    body(_hypot),
    lambda n, g: mul(g, div(n.inputs[0], n)),
    lambda n, g: mul(g, div(n.inputs[1], n)),
    takes=(FLOAT,),
    cost=16,
)
LOGADDEXP = elementwise(
    "logaddexp",
    body(_logaddexp),
    lambda n, g: mul(g, _share(n, 0, 1.0)),
    lambda n, g: mul(g, _share(n, 1, 1.0)),
    takes=(FLOAT,),
    cost=40,
)
LOGADDEXP2 = elementwise(
    "logaddexp2",
    body(_logaddexp2),
    lambda n, g: mul(g, _share(n, 0, math.log(2))),
    lambda n, g: mul(g, _share(n, 1, math.log(2))),
    takes=(FLOAT,),
    cost=40,
)
NEXTAFTER = elementwise("nextafter", body(_nextafter), _nextafter_gradient, None, takes=(FLOAT,), cost=8)
BINARY_EXPONENT = elementwise("binary_exponent", body(_binary_exponent), takes=(FLOAT,), result=int32, cost=6)
SHIFT_LEFT_BY = elementwise("shift_left_by", body(lambda x, count: _shifted(x, count, True)), takes=(INTEGER,), cost=12)
SHIFT_RIGHT_BY = elementwise(
    "shift_right_by", body(lambda x, count: _shifted(x, count, False)), takes=(INTEGER,), cost=12
)

fmod: Builder = builder(FMOD)
copysign: Builder = builder(COPYSIGN)
hypot: Builder = builder(HYPOT)
logaddexp: Builder = builder(LOGADDEXP)
logaddexp2: Builder = builder(LOGADDEXP2)
nextafter: Builder = builder(NEXTAFTER)
binary_exponent: Builder = builder(BINARY_EXPONENT)
shift_left_by: Builder = builder(SHIFT_LEFT_BY)
shift_right_by: Builder = builder(SHIFT_RIGHT_BY)
