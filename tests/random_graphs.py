"""Random graphs over all primitives, each with a bound on how far two right implementations may differ.

A graph is a pure function of a seed and a number of operations, and the graph of fewer operations is its beginning: a
failure is repeated by two numbers, and shrinks by the second. Along with each node goes what is known of its values:
a bound on their size, a bound on the error that rounding may have left in them, and whether they are exact (small
multiples of a power of two, which no order of summation and no fused multiply-add can change). Operations with steps,
such as floor or a comparison, are only applied to exact values, so that a difference of one rounding cannot grow.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import hypothesis.strategies as st
import numpy as np

from pullback.graph import types
from pullback.graph.node import Node
from pullback.graph.types import DType, bfloat16, bool_, float16, float32, float64, int32, int64, uint8, uint32
from pullback.ops import (
    attention,
    bessel,
    contraction,
    convolution,
    exponential,
    host,
    indexing,
    movement,
    pairs,
    recurrence,
    reduction,
    special,
)
from pullback.ops import elementwise as e
from pullback.ops.body import Closing
from pullback.ops.primitive import apply, buffer_node, constant, iota, parameter
from pullback.ops.scan import final, scan, stacked
from pullback.runtime.buffers import Buffer

Shape = tuple[int, ...]
#: elements of the largest value
_LARGEST = 3000
#: a step over which no value and no error may grow
_MOST, _WORST = 1e4, 1e-2
#: units in the last place that one elementary function may be off
_SLACK = 8
_PRECISION = {float32: 2.0**-23, float64: 2.0**-50, float16: 2.0**-10, bfloat16: 2.0**-7}
_EXACT_BITS = {float32: 22, float64: 48}


@dataclass(frozen=True)
class Known:
    """A node, and what is known of its values.

    `size` bounds the finite absolute values; `error` bounds the difference of two right results; `scale` is the s for
    which all values are multiples of 2**-s, where they are exact; `finite` tells that no value is infinite or NaN.
    """

    node: Node
    size: float
    error: float = 0.0
    scale: int | None = 0
    finite: bool = True

    @property
    def dtype(self) -> DType:
        return self.node.dtype

    @property
    def shape(self) -> Shape:
        return self.node.shape

    @property
    def exact(self) -> bool:
        return self.error == 0.0


@dataclass(frozen=True)
class RandomGraph:
    """All nodes in the order in which they were made, the outputs among them, and what makes them again."""

    seed: int
    operations: int
    pool: tuple[Known, ...]
    outputs: tuple[Known, ...]

    def __repr__(self) -> str:
        return f"random_graph(seed={self.seed}, operations={self.operations})"


class _Maker:
    """The nodes made so far, and the choices, all drawn from one generator."""

    def __init__(self, seed: int):
        self.random = np.random.default_rng(seed)
        self.pool: list[Known] = []

    # ---- choices

    def below(self, count: int) -> int:
        return int(self.random.integers(count))

    def chance(self, probability: float) -> bool:
        return bool(self.random.random() < probability)

    def choose(self, options: Any) -> Any:
        return options[self.below(len(options))]

    def dimension(self) -> int:
        """A size from 0 to 17: often 1 or a size around a vector's, seldom 0."""
        return int(self.choose((1, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, self.below(18), self.below(18))))

    def shape(self, most: int = _LARGEST) -> Shape:
        shape: Shape = ()
        for _ in range(self.choose((0, 1, 1, 2, 2, 3, 3, 4))):
            size = self.dimension()
            if math.prod(shape) * size <= most:
                shape = (*shape, size)
        return shape

    def axes(self, rank: int) -> tuple[int, ...]:
        return tuple(axis for axis in range(rank) if self.chance(0.5))

    # ---- leaves

    def leaf(self, shape: Shape, dtype: DType, finite: bool = False) -> Known:
        """Values in memory; floats are multiples of 1/4, now and then with infinities and NaN unless `finite`."""
        if dtype is bool_:
            return self._held(self.random.random(shape) < 0.5, dtype, 1.0)
        if dtype.category == types.INTEGER:
            low = 0 if dtype in (uint8, uint32) else -9
            return self._held(self.random.integers(low, 10, shape), dtype, 9.0)
        values = self.random.integers(-16, 17, shape) / 4
        special = self.chance(0.1) and not finite
        if special:
            where = self.random.random(shape) < 0.1
            values = np.where(where, self.random.choice([np.inf, -np.inf, np.nan, -0.0], shape), values)
        return replace(self._held(values, dtype, 4.0), scale=2, finite=not special)

    def _held(self, values: np.ndarray, dtype: DType, size: float) -> Known:
        array = np.asarray(values, dtype.storage, order="C")
        return Known(buffer_node(Buffer.of(array, copy=True), array.shape, dtype), size)

    def index(self, shape: Shape, size: int) -> Known:
        """int64 numbers from 0 to size - 1, in memory or computed."""
        if size > 1 and self.chance(0.3):
            place = iota(shape, self.below(len(shape)), int64) if shape else constant(1, int64)
            return Known(e.remainder(e.mul(place, constant(7, int64)), constant(size, int64)), float(size))
        held = self._held(self.random.integers(0, max(size, 1), shape), int64, float(size))
        checked = self.chance(0.5)
        return replace(held, node=indexing.bounded(held.node, 0, size, "index") if checked else held.node)

    def number(self, like: Known) -> Known:
        """A number known when the graph is built."""
        if like.dtype is bool_:
            return Known(constant(self.chance(0.5), bool_), 1.0)
        value = self.below(7) if like.dtype in (uint8, uint32) else self.below(13) - 6
        scaled = value / 2 if like.dtype.is_floating_point else value
        return Known(constant(scaled, like.dtype), abs(scaled), scale=1)

    # ---- operands

    def operand(self, *categories: int, exact: bool = False, finite: bool = False) -> Known:
        """A node made before, of a dtype in the categories, or a new leaf where none fits."""
        fitting = [
            k
            for k in self.pool
            if k.dtype.category in (categories or (0, 1, 2))
            and k.dtype is not uint32
            and (k.exact or not exact)
            and (k.finite or not finite)
        ]
        # the later ones more often, so that chains grow
        if fitting and self.chance(0.85):
            return fitting[-1 - min(self.below(4), self.below(len(fitting)))]
        by_category = {0: (bool_,), 1: (int64, int64, int32, uint8), 2: (float32, float32, float32, float64)}
        return self.leaf(self.shape(), self.choose(by_category[self.choose(categories or (2, 2, 1, 0))]), finite)

    def partner(self, like: Known, exact: bool = False, finite: bool = False) -> Known:
        """An operand of the same dtype that broadcasts with `like`: one made before, a new leaf, or a number."""
        fitting = [
            k
            for k in self.pool
            if k.dtype is like.dtype and (k.exact or not exact) and (k.finite or not finite) and _meet(k, like)
        ]
        if fitting and self.chance(0.5):
            return self.choose(fitting)
        if self.chance(0.3):
            return self.number(like)
        shape = tuple(1 if self.chance(0.3) else size for size in like.shape)
        return self.leaf(shape[self.below(len(shape) + 1) if self.chance(0.3) else 0 :], like.dtype, finite)


def _meet(a: Known, b: Known) -> bool:
    """Whether two shapes broadcast, and not to something too large."""
    rank = max(len(a.shape), len(b.shape))
    pairs = zip((1,) * (rank - len(a.shape)) + a.shape, (1,) * (rank - len(b.shape)) + b.shape, strict=True)
    listed = list(pairs)
    fits = all(x == y or 1 in (x, y) for x, y in listed)
    return fits and math.prod(y if x == 1 else x for x, y in listed) <= _LARGEST


def _rounded(node: Node, size: float, error: float, scale: int | None, finite: bool, slack: int = 1) -> Known:
    """A float result: exact where its bits suffice, else with the error of one more rounding."""
    if not node.dtype.is_floating_point:
        return Known(node, min(size, 2.0**63), 0.0, 0, True)
    bits = _EXACT_BITS.get(node.dtype, 0)
    if error == 0.0 and scale is not None and (size == 0.0 or math.log2(max(size, 2.0**-scale)) + scale <= bits):
        return Known(node, size, 0.0, scale, finite)
    return Known(node, size, error + slack * _PRECISION[node.dtype] * (size + 1e-30), None, finite)


Operation = Callable[[_Maker], Known]
OPERATIONS: list[tuple[Operation, int]] = []


def _operation(weight: int = 1) -> Callable[[Operation], Operation]:
    def enter(function: Operation) -> Operation:
        OPERATIONS.append((function, weight))
        return function

    return enter


# ---- elementwise


@_operation(5)
def _sums_and_products(make: _Maker) -> Known:
    x = make.operand(1, 2)
    y = make.partner(x)
    build = make.choose((e.add, e.sub, e.mul, e.mul))
    size = x.size * y.size if build is e.mul else x.size + y.size
    error = x.error * (y.size + y.error) + y.error * x.size if build is e.mul else x.error + y.error
    scale = None
    if x.scale is not None and y.scale is not None:
        scale = x.scale + y.scale if build is e.mul else max(x.scale, y.scale)
    pair = (x.node, y.node) if make.chance(0.5) or build is e.sub else (y.node, x.node)
    return _rounded(build(*pair), size, error, scale, x.finite and y.finite)


@_operation(3)
def _functions(make: _Maker) -> Known:
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
            e.mul(e.tanh(x.node), constant(3.0, x.dtype)), 3.0, 3 * x.error + 3 * _SLACK * _PRECISION[x.dtype], None
        )
        size = math.exp(3)
        return _rounded(e.exp(small.node), size, small.error * size, None, x.finite, _SLACK)
    return _rounded(build(x.node), size, x.error * slope, None, x.finite, _SLACK)


@_operation(2)
def _functions_of_positive_numbers(make: _Maker) -> Known:
    x = make.operand(2)
    above = e.add(e.absolute(x.node), constant(0.5, x.dtype))
    build, size, slope = make.choose(
        (
            (e.sqrt, math.sqrt(x.size + 0.5), 0.75),
            (e.log, math.log(x.size + 0.5) + 0.7, 2.0),
            (lambda v: e.div(constant(1.0, x.dtype), v), 2.0, 4.0),
        )
    )
    spread = _PRECISION[x.dtype] * (x.size + 0.5)
    return _rounded(build(above), size, (x.error + spread) * slope, None, x.finite, _SLACK)


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
    return Known(node, 0.9 + distance, x.error + 2 * _SLACK * _PRECISION[x.dtype] * (1 + distance), None, x.finite)


@_operation(3)
def _functions_on_an_interval(make: _Maker) -> Known:
    build, distance, size, slope = make.choose(_ON_AN_INTERVAL)
    x = _moved(make.operand(2), distance)
    return _rounded(build(x.node), size, x.error * slope, None, x.finite, 4 * _SLACK)


@_operation(2)
def _functions_of_two_numbers(make: _Maker) -> Known:
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
    return _rounded(build(x.node, y.node), size, (x.error + y.error) * slope, None, finite, 4 * _SLACK)


@_operation()
def _exponents_and_shifts(make: _Maker) -> Known:
    if make.chance(0.3):
        return Known(pairs.binary_exponent(make.operand(2, exact=True, finite=True).node), 2.0**11, 0.0, 0, True)
    x = make.operand(1)
    count = e.bit_and(x.node, constant(3, x.dtype))
    if make.chance(0.5):
        return Known(pairs.shift_right_by(x.node, count), x.size, 0.0, 0, True)
    return Known(pairs.shift_left_by(x.node, count), 2.0**63, 0.0, 0, True)


@_operation(2)
def _recurrences(make: _Maker) -> Known:
    x = make.operand(2)
    length = math.prod(x.shape)
    flat = movement.reshape(x.node, (1, length, 1))
    if make.chance(0.5):
        build = make.choose((recurrence.running_max, recurrence.running_min))
        return Known(build(flat), x.size, x.error, x.scale, x.finite)
    factor = e.mul(e.tanh(flat), constant(0.5, x.dtype))
    size, error = 2 * x.size, 2 * x.error + 2 * x.size * (x.error + 3 * _SLACK * _PRECISION[x.dtype])
    return _rounded(recurrence.recurrence(factor, flat), size, error, None, x.finite, _SLACK)


@_operation(2)
def _quotients_and_powers(make: _Maker) -> Known:
    x = make.operand(2, finite=True)
    y = make.partner(x, finite=True)
    below = e.add(e.absolute(y.node), constant(0.5, x.dtype))
    spread = _PRECISION[x.dtype]
    if make.chance(0.6):
        error = 2 * x.error + 4 * x.size * (y.error + spread * (y.size + 0.5))
        return _rounded(e.div(x.node, below), 2 * x.size, error, None, True, _SLACK)
    exponent = e.mul(e.sin(x.node), constant(2.0, x.dtype))
    size = max(4.0, (y.size + 0.5) ** 2)
    error = 4 * size * (y.error + spread * (y.size + 0.5)) + math.log(y.size + 2) * size * (
        2 * x.error + 2 * _SLACK * spread
    )
    return _rounded(e.power(below, exponent), size, error, None, True, _SLACK)


@_operation(2)
def _negated(make: _Maker) -> Known:
    x = make.operand(1, 2)
    return replace(x, node=make.choose((e.neg, e.absolute))(x.node))


@_operation(2)
def _steps(make: _Maker) -> Known:
    x = make.operand(2, exact=True)
    build = make.choose((e.floor, e.ceil, e.trunc, e.rint, e.sign))
    return Known(build(x.node), x.size + 1, 0.0, 0, x.finite)


@_operation(2)
def _whole_division(make: _Maker) -> Known:
    x = make.operand(1, 2, exact=True, finite=True)
    y = make.partner(x, exact=True, finite=True)
    build = make.choose((e.floor_divide, e.remainder))
    if not x.dtype.is_floating_point:
        return Known(build(x.node, y.node), max(x.size, y.size))
    below = e.add(e.absolute(y.node), constant(1.0, y.dtype))
    size = x.size + 1 if build is e.floor_divide else y.size + 1
    scale = 0 if build is e.floor_divide else max(x.scale or 0, y.scale or 0)
    return _rounded(build(x.node, below), size, 0.0, scale, True)


@_operation(3)
def _choice(make: _Maker) -> Known:
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


@_operation(2)
def _comparisons(make: _Maker) -> Known:
    x = make.operand(exact=True)
    y = make.partner(x, exact=True)
    return Known(make.choose((e.eq, e.ne, e.lt, e.le))(x.node, y.node), 1.0)


@_operation(2)
def _bits(make: _Maker) -> Known:
    x = make.operand(0, 1)
    if make.chance(0.3):
        return Known(e.bit_not(x.node), max(x.size + 1, 255.0 if x.dtype is uint8 else 0.0))
    if x.dtype is not bool_ and make.chance(0.3):
        return Known(e.shift_right(x.node, make.below(7)), x.size)
    y = make.partner(x)
    build = make.choose((e.bit_and, e.bit_or, e.bit_xor))
    return Known(build(x.node, y.node), 2 * max(x.size, y.size) + 1)


@_operation(2)
def _conversions(make: _Maker) -> Known:
    x = make.operand()
    to = make.choose((float32, float32, float64, int64, int32, uint8, bool_, float16, bfloat16))
    if to is bool_:
        return Known(e.convert(x.node, to), 1.0) if x.exact else x
    if to.is_floating_point:
        if x.size > _MOST:
            return x
        if to in (float16, bfloat16):
            coarse = _rounded(e.convert(x.node, to), x.size, x.error, None, x.finite)
            back = e.convert(coarse.node, float32)
            # a value that both round alike is still not exact: two roundings of nearly the same may part
            return Known(back, x.size * (1 + _PRECISION[to]), coarse.error, None, x.finite)
        return _rounded(e.convert(x.node, to), x.size, x.error, x.scale, x.finite)
    if x.exact and x.finite and x.size < 100 and not (to is uint8 and x.dtype.category != types.BOOL):
        return Known(e.convert(x.node, to), x.size)
    return x


@_operation(1)
def _random_numbers(make: _Maker) -> Known:
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


# ---- movement


@_operation(7)
def _movements(make: _Maker) -> Known:
    x = make.operand()
    return replace(x, node=make.choose((_reshaped, _permuted, _expanded, _sliced, _padded, _flipped))(make, x.node))


def _reshaped(make: _Maker, x: Node) -> Node:
    sizes = list(x.shape)
    if len(sizes) > 1 and make.chance(0.5):
        at = make.below(len(sizes) - 1)
        sizes[at : at + 2] = [sizes[at] * sizes[at + 1]]
    elif sizes and make.chance(0.6):
        at = make.below(len(sizes))
        factors = [d for d in range(1, sizes[at] + 1) if sizes[at] % d == 0]
        if factors:
            factor = make.choose(factors)
            sizes[at : at + 1] = [factor, sizes[at] // factor]
    else:
        sizes.insert(make.below(len(sizes) + 1), 1)
    return movement.reshape(x, tuple(sizes)) if len(sizes) < 6 else x


def _permuted(make: _Maker, x: Node) -> Node:
    return movement.permute(x, tuple(int(a) for a in make.random.permutation(len(x.shape))))


def _expanded(make: _Maker, x: Node) -> Node:
    shape = tuple(make.dimension() if size == 1 else size for size in x.shape)
    shape = (make.dimension(), *shape) if make.chance(0.3) and len(shape) < 5 else shape
    return movement.expand(x, shape) if math.prod(shape) <= _LARGEST else x


def _sliced(make: _Maker, x: Node) -> Node:
    bounds = []
    for size in x.shape:
        start = make.below(size + 1) if make.chance(0.4) else 0
        stop = start + make.below(size - start + 1) if make.chance(0.4) else size
        bounds.append((start, max(start, stop)))
    return movement.slice_(x, tuple(bounds))


def _padded(make: _Maker, x: Node) -> Node:
    widths = tuple((make.below(3), make.below(3)) if make.chance(0.5) else (0, 0) for _ in x.shape)
    grown = math.prod(low + size + high for size, (low, high) in zip(x.shape, widths, strict=True))
    return movement.pad(x, widths) if grown <= _LARGEST else x


def _flipped(make: _Maker, x: Node) -> Node:
    return movement.flip(x, make.axes(len(x.shape)))


@_operation(2)
def _concatenated(make: _Maker) -> Known:
    x = make.operand()
    if not x.shape or 3 * math.prod(x.shape) > _LARGEST:
        return x
    axis = make.below(len(x.shape))
    others = [
        k
        for k in make.pool
        if k.dtype is x.dtype
        and len(k.shape) == len(x.shape)
        and all(a == b for i, (a, b) in enumerate(zip(k.shape, x.shape, strict=True)) if i != axis)
        and math.prod(k.shape) <= _LARGEST // 3
    ]
    parts = [x, make.choose(others) if others else x]
    if make.chance(0.5):
        parts.append(make.leaf(tuple(2 if i == axis else s for i, s in enumerate(x.shape)), x.dtype))
    if make.chance(0.5):
        parts.reverse()
    node = movement.concatenate(tuple(p.node for p in parts), axis)
    return _joined(node, parts)


def _joined(node: Node, parts: list[Known]) -> Known:
    scales = [p.scale for p in parts]
    scale = None if None in scales else max(s for s in scales if s is not None)
    return Known(node, max(p.size for p in parts), max(p.error for p in parts), scale, all(p.finite for p in parts))


# ---- reductions and products


@_operation(4)
def _reductions(make: _Maker) -> Known:
    x = make.operand(1, 2)
    axes = make.axes(len(x.shape))
    count = math.prod(x.shape[axis] for axis in axes)
    build = make.choose((reduction.reduce_sum, reduction.reduce_sum, reduction.reduce_max, reduction.reduce_min))
    if build is reduction.reduce_min and x.finite and x.dtype.is_floating_point and count > 1:
        size, error = 4 * x.size * x.size * count, 16 * x.size * x.error * count
        return _rounded(reduction.spread(x.node, axes), size, error, None, True, 4 * (4 + count))
    if build is not reduction.reduce_sum:
        return replace(x, node=build(x.node, axes)) if count else x
    return _rounded(build(x.node, axes), x.size * count, x.error * count, x.scale, x.finite, 1 + count)


@_operation(2)
def _softmax(make: _Maker) -> Known:
    """The chain that row kernels are made for: two reductions along one axis and what stands between them."""
    x = make.operand(2, finite=True)
    if not x.shape or 0 in x.shape:
        return x
    axes = (make.choose((len(x.shape) - 1, 0)),)
    kept = reduction.kept_shape(x.shape, axes)
    shifted = e.sub(x.node, movement.reshape(reduction.reduce_max(x.node, axes), kept))
    raised = e.exp(shifted)
    node = e.div(raised, movement.reshape(reduction.reduce_sum(raised, axes), kept))
    count = x.shape[axes[0]]
    return _rounded(node, 1.0, 4 * x.error + 4 * _PRECISION[x.dtype] * (x.size + count), None, True, 4 * _SLACK)


@_operation(3)
def _matrix_product(make: _Maker) -> Known:
    x = make.operand(2) if make.chance(0.9) else make.operand(1)
    if len(x.shape) < 2:
        x = make.leaf((make.dimension(), make.dimension()), x.dtype)
    *batch, rows, inner = x.shape
    columns = make.dimension()
    if math.prod((*batch, inner, columns)) > _LARGEST or math.prod((*batch, rows, columns)) > _LARGEST:
        return x
    y = make.leaf((*batch, columns, inner) if (turned := make.chance(0.4)) else (*batch, inner, columns), x.dtype)
    right = movement.swap_last(y.node) if turned else y.node
    left = x.node
    size = x.size * y.size * max(inner, 1)
    scale = None if x.scale is None or y.scale is None else x.scale + y.scale
    error = (x.error * y.size) * max(inner, 1)
    node = contraction.matmul(left, right)
    return _rounded(node, size, error, scale, x.finite and y.finite, 1 + inner)


@_operation(2)
def _product_of_rounded(make: _Maker) -> Known:
    """A product of operands that are converted to 16 bits for it, by way of another dtype or as they are: numbers that
    all of these hold, so that only the result is rounded.
    """
    rows, inner, columns = (make.dimension() for _ in range(3))
    to, between = make.choose((bfloat16, float16)), make.choose((float32, int32, bool_, float64, float16, bfloat16))
    x, y = (make.leaf(shape, float32, finite=True) for shape in ((rows, inner), (inner, columns)))
    left = movement.flip(x.node, (0,)) if make.chance(0.3) else x.node
    product = contraction.matmul(e.convert(e.convert(left, between), to), e.convert(y.node, to))
    size = (1.0 if between is bool_ else x.size) * y.size * max(inner, 1)
    known = _rounded(product, size, 0.0, None, True)
    return replace(known, node=e.convert(product, float32))


@_operation(1)
def _summed_product(make: _Maker) -> Known:
    """All elements of a product, or its columns, summed as they are or squared: what its own kernel can do."""
    x = _matrix_product(make)
    if not x.shape or not x.dtype.is_floating_point or 0 in x.shape:
        return x
    if make.chance(0.5):
        size, error = x.size * x.size, 2 * x.size * x.error
        x = _rounded(e.mul(x.node, x.node), size, error, None if x.scale is None else 2 * x.scale, x.finite)
    axes = tuple(range(len(x.shape) - int(make.chance(0.5))))
    count = math.prod(x.shape[axis] for axis in axes)
    return _rounded(reduction.reduce_sum(x.node, axes), x.size * count, x.error * count, x.scale, x.finite, 1 + count)


@_operation(2)
def _attention(make: _Maker) -> Known:
    """Attention and what belongs to it, the gradients with the log_sum and delta that go with them."""
    query = make.operand(2, finite=True)
    if len(query.shape) < 2:
        query = make.leaf((make.dimension(), make.dimension()), query.dtype, finite=True)
    *batch, length, features = query.shape
    keys, width = make.dimension(), make.dimension()
    largest = math.prod((*batch, max(length, keys), max(features, width, keys, length)))
    if largest > _LARGEST or 0 in (length, keys):
        return query
    key, value, cotangent = (
        make.leaf((*batch, *shape), query.dtype, finite=True)
        for shape in ((keys, features), (keys, width), (length, width))
    )
    scores = (*batch, length, keys)
    mask, choice = (make.leaf(scores, bool_) if make.chance(0.4) else None for _ in range(2))
    scale, kept = 0.5 / max(features, 1), None if choice is None else 1.5
    nodes = query.node, key.node, value.node
    result = attention.attention(*nodes, scale, make.chance(0.5), mask and mask.node, choice and choice.node, kept)
    epsilon = _PRECISION[query.dtype]
    size, reach = 0.5 * query.size * key.size, 1 + keys + length + features + width
    relative = key.size * query.error + 4 * _SLACK * epsilon * (reach + size)
    log_sum, *gradients = _attention_gradients(result, cotangent.node)
    slope = 2 * (kept or 1.0) * max(width, 1) * value.size * cotangent.size
    every = [
        (result, (kept or 1.0) * value.size),
        (log_sum, size + math.log(keys) + 1),
        (gradients[0], scale * slope * key.size),
        (gradients[1], scale * slope * length * (query.size + 1)),
        (gradients[2], (kept or 1.0) * length * cotangent.size),
    ]
    node, bound = make.choose(every)
    finite = node is not log_sum or mask is None  # a query that may look at nothing has infinity
    return Known(node, bound, 4 * bound * relative + 1e-30, None, finite)


def _attention_gradients(result: Node, cotangent: Node) -> list[Node]:
    """log_sum and the three gradients of an attention node."""
    options = {name: value for name, value in result.attributes.items() if name != "axes"}
    log_sum = apply(attention.LOG_SUM, *result.inputs, **options)
    delta = reduction.reduce_sum(e.mul(result, cotangent), (len(result.shape) - 1,))
    operands = (*result.inputs, log_sum, delta, cotangent)
    return [log_sum, *(apply(op, *operands, axes=None, **options) for op in attention.GRADIENTS)]


@_operation(2)
def _convolved(make: _Maker) -> Known:
    """Some value's elements as images with groups and channels, under a window of any steps."""
    x = make.operand(2, finite=True)
    left = math.prod(x.shape)
    if not 0 < left <= 800:
        return x
    shape: list[int] = []
    for _ in range(make.choose((3, 4, 4))):
        shape.append(make.choose([d for d in range(1, min(left, 20) + 1) if left % d == 0]))
        left //= shape[-1]
    shape.append(left)
    n, *sizes, groups, channels = shape
    taps = [1 + make.below(4) for _ in sizes]
    window = make.leaf((*taps, groups, channels, make.choose((1, 2, 3, 9))), x.dtype, finite=True)
    stride, apart, spread = ([1 + make.below(3) for _ in sizes] for _ in range(3))
    padding = [(make.below(5) - 1, make.below(5) - 1) for _ in sizes]
    places = list(map(convolution.output_size, sizes, taps, stride, padding, apart, spread))
    if 0 in places or n * math.prod(places) * groups * window.node.shape[-1] > _LARGEST:
        return x
    node = convolution.convolution(
        movement.reshape(x.node, tuple(shape)), window.node, tuple(stride), tuple(padding), tuple(apart), tuple(spread)
    )
    inner = math.prod(taps) * channels
    scale = None if x.scale is None or window.scale is None else x.scale + window.scale
    size, error = x.size * window.size * inner, x.error * window.size * inner
    return _rounded(node, size, error, scale, True, 1 + inner)


# ---- indexing by data


@_operation(3)
def _taken(make: _Maker) -> Known:
    x = make.operand()
    if not x.shape or x.shape[0] == 0:
        return x
    shape = make.shape(max(1, _LARGEST // max(1, math.prod(x.shape[1:]))))
    return replace(x, node=indexing.take(x.node, make.index(shape, x.shape[0]).node))


@_operation(2)
def _scattered(make: _Maker) -> Known:
    x = make.operand(1, 2)
    if not x.shape or math.prod(x.shape[1:]) * 17 > _LARGEST:
        return x
    lead = 1 + make.below(len(x.shape))
    size = make.dimension() or 1
    if size * math.prod(x.shape[lead:]) > _LARGEST:
        return x
    index = make.index(x.shape[:lead], size)
    count = math.prod(x.shape[:lead])
    node = indexing.scatter_add(index.node, x.node, size)
    return _rounded(node, x.size * max(count, 1), x.error * count, x.scale, x.finite, 1 + count)


@_operation(2)
def _written(make: _Maker) -> Known:
    x = make.operand()
    if not x.shape or x.shape[0] == 0:
        return x
    count = make.below(5)
    if count * math.prod(x.shape[1:]) > _LARGEST:
        return x
    rows = make.leaf((count, *x.shape[1:]), x.dtype)
    return _joined(indexing.put(x.node, make.index((count,), x.shape[0]).node, rows.node), [x, rows])


# ---- the rest


@_operation(1)
def _indices(make: _Maker) -> Known:
    shape = make.shape()
    if not shape:
        return make.leaf((), int64)
    dtype = make.choose((int64, int64, float32, int32))
    return Known(iota(shape, make.below(len(shape)), dtype), 17.0)


@_operation(1)
def _aliases(make: _Maker) -> Known:
    x = make.operand()
    custom = lambda n: host.custom(n, (n,), lambda node, cotangent: [cotangent])  # noqa: E731
    several = lambda n: host.result(host.several((n, n), (n,), lambda node, cotangents: [*cotangents.values()]), 1)  # noqa: E731
    build = make.choose((e.copy, host.identity, host.detach, custom, several))
    return replace(x, node=build(x.node))


def _reversed_signs(array: np.ndarray) -> np.ndarray:
    return -array


@_operation(1)
def _host_calls(make: _Maker) -> Known:
    x = make.operand(2)
    return replace(x, node=host.host_call((x.node,), _reversed_signs, x.shape, x.dtype))


@_operation(1)
def _loops(make: _Maker) -> Known:
    """The greatest so far along the first axis, forwards or backwards: what is carried in, out, or left at the end."""
    x = make.operand(1, 2)
    if not x.shape or x.shape[0] == 0:
        return x
    carry, row = (parameter(-1, x.shape[1:], x.dtype) for _ in range(2))
    start = make.leaf(x.shape[1:], x.dtype, finite=True)
    closing = Closing([carry], [row])
    next_ = closing.take([e.maximum(carry, row)])
    others = closing.take([e.minimum(carry, row)])
    body = closing.body(next_, others, [start.node])
    loop = scan(body, [start.node], [x.node], list(closing.captured), x.shape[0], make.chance(0.5))
    results = (*(stacked(loop, value) for value in (body.parameters[0], *next_, *others)), final(loop, 0))
    scale = None if x.scale is None or start.scale is None else max(x.scale, start.scale)
    return replace(x, node=make.choose(results), size=max(x.size, start.size), scale=scale)


_FLAT = [operation for operation, weight in OPERATIONS for _ in range(weight)]


def random_graph(seed: int, operations: int) -> RandomGraph:
    """The graph of a seed; with more operations it grows at its end."""
    make = _Maker(seed)
    while len(make.pool) < operations:
        made = make.choose(_FLAT)(make)
        if made.error > _WORST or (made.dtype.is_floating_point and made.size > _MOST):
            continue
        make.pool.append(made)
    others = [k for k in make.pool[:-1] if make.chance(0.15)]
    return RandomGraph(seed, operations, tuple(make.pool), (make.pool[-1], *others[-3:], *_totals(seed, make.pool)))


def _totals(seed: int, pool: list[Known]) -> list[Known]:
    """Totals of the last results that a reduction or an index made: as they are, of their squares, or of another
    elementwise function, in another shape or order. No choice of the graph itself depends on theirs.
    """
    random = np.random.default_rng((seed, 1))
    made = [
        k
        for k in pool
        if k.node.op.name in ("sum", "max", "scatter_add")
        and k.dtype.is_floating_point
        and math.prod(k.shape) > 1
        and k.size <= 100
    ]
    return [_total(random, k) for k in made[-2:]]


def _total(random: np.random.Generator, x: Known) -> Known:
    choice, node = random.integers(4), x.node
    if random.random() < 0.3:
        node = movement.reshape(node, (math.prod(x.shape),))
    elif random.random() < 0.3:
        node = movement.permute(node, tuple(reversed(range(len(x.shape)))))
    if choice == 1:
        x = replace(x, node=e.absolute(node))
    elif choice == 2:
        half = replace(x, node=e.mul(node, constant(0.5, x.dtype)), scale=None if x.scale is None else x.scale + 1)
        x = _rounded(half.node, half.size, half.error, half.scale, half.finite)
    elif choice == 3:
        scale = None if x.scale is None else 2 * x.scale
        x = _rounded(e.mul(node, node), x.size * x.size, 2 * x.size * x.error + x.error**2, scale, x.finite)
    count, axes = math.prod(x.shape), tuple(range(len(x.shape)))
    if random.random() < 0.2:
        return replace(x, node=reduction.reduce_max(x.node, axes))
    return _rounded(reduction.reduce_sum(x.node, axes), x.size * count, x.error * count, x.scale, x.finite, 1 + count)


def random_graphs(most: int = 14) -> st.SearchStrategy[RandomGraph]:
    """Graphs of at most `most` operations; a failure shrinks to the shortest beginning of its seed that fails."""
    return st.builds(random_graph, st.integers(0, 2**32 - 1), st.integers(1, most))
