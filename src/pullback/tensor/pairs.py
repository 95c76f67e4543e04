"""Functions of two elements and more, beyond the operators. As functions they take a number in the first place too."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DomainError, DTypeError
from ..graph.node import Node
from ..graph.types import BOOL, FLOAT, INTEGER, DType, bfloat16, float16, float64
from ..ops import elementwise as e
from ..ops import exponential as ex
from ..ops import pairs
from ..ops.elementwise import Builder, broadcast_shapes
from ..ops.host import custom, detach, host_call
from ..ops.movement import expand
from ..ops.primitive import constant, user_source
from . import promotion
from .handle import Handle
from .promotion import Number, Operand, as_node, dtype_of_number, promoted, result_type

if TYPE_CHECKING:
    from . import Tensor


def joined(build: Builder, *operands: Operand, floats: bool = False, wide: bool = True) -> Tensor:
    """`build` on the operands in their common dtype, with `floats` a float at least.

    With `wide` the 16-bit floats are computed in float32 and rounded once, at the end.
    """
    nodes = promoted(*operands, at_least=promotion.get_default_dtype() if floats else None)
    dtype = nodes[0].dtype
    if wide:
        nodes = [e.convert(node, dtype.compute) for node in nodes]
    result = build(*nodes)
    return Handle._wrap(e.convert(result, dtype) if result.dtype is dtype.compute else result)


class PairMethods(Handle):
    """Functions of a tensor and another operand that broadcasts with it."""

    __slots__ = ()

    def atan2(self, other: Operand) -> Tensor:
        """The angle of the point (other, self), between -π and π."""
        return joined(ex.atan2, self, other, floats=True)

    arctan2 = atan2

    def hypot(self, other: Operand) -> Tensor:
        """sqrt(self² + other²), without overflow on the way."""
        return joined(pairs.hypot, self, other, floats=True)

    def copysign(self, other: Operand) -> Tensor:
        """The magnitude of `self` with the sign of `other`."""
        return joined(pairs.copysign, self, other, floats=True)

    def ldexp(self, other: Operand) -> Tensor:
        """self * 2 ** other."""
        return joined(lambda x, y: e.mul(x, ex.exp2(y)), self, other, floats=True)

    def logaddexp(self, other: Operand) -> Tensor:
        """log(exp(self) + exp(other)), without overflow on the way."""
        return joined(pairs.logaddexp, self, other, floats=True)

    def logaddexp2(self, other: Operand) -> Tensor:
        """log2(2 ** self + 2 ** other), without overflow on the way."""
        return joined(pairs.logaddexp2, self, other, floats=True)

    def xlogy(self, other: Operand) -> Tensor:
        """self * log(other), and 0 where self is 0, unless other is NaN.

        >>> pb.tensor([0.0, 2.0]).xlogy(pb.tensor([0.0, 1.0]))
        tensor([0., 0.])
        """
        return joined(lambda x, y: _times_log(x, y, e.log, 0.0), self, other, floats=True)

    def float_power(self, exponent: Operand) -> Tensor:
        """self to the power of `exponent`, in float64."""
        return Handle._wrap(e.power(as_node(self, float64), as_node(exponent, float64)))

    def nextafter(self, other: Operand) -> Tensor:
        """The float next to `self` in the direction of `other`. The gradient passes."""
        return joined(_nextafter, self, other, wide=False)

    def heaviside(self, values: Operand) -> Tensor:
        """0 below 0, 1 above, and `values` at 0."""
        return joined(_heaviside, self, values)

    # ---- the greater and the lesser

    def minimum(self, other: Operand) -> Tensor:
        """The lesser of two elements; NaN where either is. Equal ones share the gradient."""
        return joined(_of_bools(e.minimum, e.bit_and), self, other)

    def maximum(self, other: Operand) -> Tensor:
        """The greater of two elements; NaN where either is. Equal ones share the gradient."""
        return joined(_of_bools(e.maximum, e.bit_or), self, other)

    def fmin(self, other: Operand) -> Tensor:
        """The lesser of two elements, the other where one is NaN. The gradient goes to `self` where they are equal."""
        return joined(lambda x, y: e.where(_takes_first(x, y, e.le), x, y), self, other)

    def fmax(self, other: Operand) -> Tensor:
        """The greater of two elements, the other where one is NaN. The gradient goes to `self` where they are equal."""
        return joined(lambda x, y: e.where(_takes_first(x, y, lambda a, b: e.le(b, a)), x, y), self, other)

    # ---- sums of products

    def addcmul(self, tensor1: Operand, tensor2: Operand, *, value: Number = 1) -> Tensor:
        """self + value * tensor1 * tensor2."""
        return _with_number("addcmul", lambda n, x, y, z: e.add(x, e.mul(_by(n, y), z)), value, self, tensor1, tensor2)

    def addcdiv(self, tensor1: Operand, tensor2: Operand, *, value: Number = 1) -> Tensor:
        """self + value * tensor1 / tensor2, of floats."""
        return _with_number("addcdiv", _add_quotient, value, self, tensor1, tensor2)

    def lerp(self, end: Operand, weight: Operand) -> Tensor:
        """self + weight * (end - self), which is `end` exactly where `weight` is 1."""
        return joined(_lerp, self, end, weight)

    def igamma(self, other: Tensor) -> Tensor:
        """The regularized lower incomplete gamma function P(self, other); a gradient by `other` only. A host call."""
        from .special import igamma

        return igamma(self, other)  # type: ignore[arg-type]

    def igammac(self, other: Tensor) -> Tensor:
        """The regularized upper incomplete gamma function, 1 - P(self, other); a gradient by `other` only."""
        from .special import igammac

        return igammac(self, other)  # type: ignore[arg-type]

    # ---- whole numbers

    def gcd(self, other: Operand) -> Tensor:
        """The greatest common divisor of integers. Computed by a host call."""
        return joined(lambda x, y: _on_host("gcd", np.gcd, x, y), self, other)

    def lcm(self, other: Operand) -> Tensor:
        """The least common multiple of integers. Computed by a host call."""
        return joined(lambda x, y: _on_host("lcm", _least_common_multiple, x, y), self, other)

    # ---- comparison as a whole

    def isclose(self, other: Operand, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> Tensor:
        """True where |self - other| <= atol + rtol * |other|; so are infinities of one sign.

        With `equal_nan` NaN is close to NaN. Both must have one dtype, as in PyTorch.
        """
        if rtol < 0 or atol < 0:
            raise DomainError(
                f"isclose: rtol and atol must not be negative, got {rtol} and {atol} (at {user_source()})"
            )
        left, right = (o.dtype if isinstance(o, Handle) else dtype_of_number(o) for o in (self, other))
        if left is not right:
            raise DTypeError(f"isclose: {left.name} and {right.name} differ (at {user_source()}); use .to(dtype)")
        return joined(lambda x, y: _close(x, y, rtol, atol, equal_nan), self, other, wide=False)

    def allclose(self, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> bool:
        """Whether all elements are close, see isclose; a Python bool, for which the values are computed."""
        return bool(PairMethods.isclose(self, other, rtol, atol, equal_nan).all().item())

    def equal(self, other: Tensor) -> bool:
        """Whether shapes and all elements are equal; a Python bool, for which the values are computed."""
        return self.shape == other.shape and bool((self == other).all().item())


def _of_bools(numbers: Builder, bools: Builder) -> Builder:
    return lambda x, y: bools(x, y) if x.dtype.category == BOOL else numbers(x, y)


def _takes_first(x: Node, y: Node, wins: Builder) -> Node:
    """Where x is the result: it wins, or y is NaN."""
    return e.bit_or(wins(x, y), e.ne(y, y))


def _times_log(x: Node, y: Node, logarithm: Builder, bound: float) -> Node:
    """x * logarithm(y), and 0 where x is 0, unless y is NaN. There the logarithm of `bound` and less has no part."""
    zero, least = constant(0.0, x.dtype), constant(bound, x.dtype)
    at_end = e.bit_or(e.le(y, least), e.eq(y, constant(math.inf, x.dtype)))
    vanishes = e.bit_and(e.eq(x, zero), at_end)
    inner = e.where(vanishes, constant(1.0, x.dtype), y)
    return e.where(vanishes, zero, e.mul(x, logarithm(inner)))


def xlog1py(input: Operand, other: Operand) -> Tensor:
    """input * log1p(other), and 0 where input is 0, unless other is NaN."""
    return joined(lambda x, y: _times_log(x, y, ex.log1p, -1.0), input, other, floats=True)


def _nextafter(x: Node, y: Node) -> Node:
    if x.dtype.category != FLOAT:
        raise DTypeError(f"nextafter takes floats, got {x.dtype.name} (at {user_source()})")
    return _nextafter_of_16_bits(x, y) if x.dtype in _DIGITS else pairs.nextafter(x, y)


#: the bits of the significand, the exponent of the least float above 0, and the greatest float, of 16 bits
_DIGITS = {float16: (11, -24, 65504.0), bfloat16: (8, -133, (2 - 2.0**-7) * 2.0**127)}


def _nextafter_of_16_bits(x: Node, y: Node) -> Node:
    """Rounded after a step of between a half and one distance of neighbours, as which |x| / 2^digits always serves.

    Rump, Zimmermann, Boldo & Melquiond, "Computing predecessor and successor in rounding to nearest" (2009).
    """
    digits, least, greatest = _DIGITS[x.dtype]
    x = expand(x, e.broadcast_shapes("nextafter", x.shape, y.shape))
    start, end = (e.convert(detach(node), float64) for node in (x, y))
    size = e.maximum(start, e.neg(start))
    step = e.maximum(
        e.mul(size, constant(2.0**-digits * (1 + 2.0**-10), float64)), constant(0.75 * 2.0**least, float64)
    )
    toward = e.where(e.lt(start, end), step, e.neg(step))
    infinite = e.eq(size, constant(math.inf, float64))
    bound = e.where(e.lt(start, end), constant(-greatest, float64), constant(greatest, float64))
    moved = e.where(infinite, bound, e.add(start, toward))
    moved = e.where(e.eq(start, end), end, e.where(e.ne(end, end), end, e.where(e.ne(start, start), start, moved)))
    return custom(e.convert(moved, x.dtype), (x,), lambda _, cotangent: [cotangent])


def _heaviside(x: Node, values: Node) -> Node:
    zero = constant(0, x.dtype)
    return e.where(e.eq(x, zero), values, e.convert(e.lt(zero, x), x.dtype))


def _by(number: Node, x: Node) -> Node:
    return x if number["value"] == 1 else e.mul(number, x)


def _add_quotient(number: Node, x: Node, y: Node, z: Node) -> Node:
    if x.dtype.category != FLOAT:
        raise DTypeError(f"addcdiv takes floats, got {x.dtype.name} (at {user_source()}); use .float()")
    return e.add(x, e.div(_by(number, y), z))


def _with_number(name: str, build: Builder, number: Number, *operands: Operand) -> Tensor:
    """`build` on a number and operands, which the number may not raise to a higher category."""
    dtype = result_type(*operands)
    if dtype.category == BOOL or dtype_of_number(number).category > dtype.category:
        raise DTypeError(
            f"{name}: value = {number!r} does not fit operands of {dtype.name} (at {user_source()}); convert first"
        )
    return joined(lambda *nodes: build(constant(number, nodes[0].dtype), *nodes), *operands)


def _lerp(start: Node, end: Node, weight: Node) -> Node:
    """From the nearer end, as PyTorch computes it: what is added is then the smaller part."""
    if start.dtype.category != FLOAT:
        raise DTypeError(f"lerp takes floats, got {start.dtype.name} (at {user_source()}); use .float()")
    difference, one = e.sub(end, start), constant(1.0, start.dtype)
    near = e.lt(e.absolute(weight), constant(0.5, start.dtype))
    from_end = e.sub(end, e.mul(difference, e.sub(one, weight)))
    return e.where(near, e.add(start, e.mul(weight, difference)), from_end)


def _least_common_multiple(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.abs(np.lcm(x, y))


def _on_host(name: str, function: Callable[..., np.ndarray], x: Node, y: Node) -> Node:
    if x.dtype.category != INTEGER:
        raise DTypeError(f"{name} takes integers, got {x.dtype.name} (at {user_source()})")
    return host_call((x, y), function, broadcast_shapes(name, x.shape, y.shape), x.dtype)


def _close(x: Node, y: Node, rtol: float, atol: float, equal_nan: bool) -> Node:
    equal = e.eq(x, y)
    if equal_nan and x.dtype.category == FLOAT:
        equal = e.bit_or(equal, e.bit_and(e.ne(x, x), e.ne(y, y)))
    if rtol == 0 and atol == 0:
        return equal
    dtype = _compared_in(x.dtype)
    x, y = e.convert(x, dtype), e.convert(y, dtype)
    allowed = e.add(constant(atol, dtype), e.absolute(e.mul(constant(rtol, dtype), y)))
    distance = e.absolute(e.sub(x, y))
    near = e.bit_and(e.lt(distance, constant(math.inf, dtype)), e.le(distance, allowed))
    return e.bit_or(equal, near)


def _compared_in(dtype: DType) -> DType:
    return dtype.compute if dtype.category == FLOAT else float64


__all__ = ["PairMethods", "joined", "xlog1py"]
