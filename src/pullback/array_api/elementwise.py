"""Functions of one element and of two. Two arrays are promoted alike whatever their ranks; numbers count weakly."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from ..errors import DTypeError
from ..graph import types
from ..graph.types import BOOL, INTEGER
from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.arithmetic import where as chosen
from .dtypes import promoted, result_type

Unary = Callable[[Tensor], Tensor]
Binary = Callable[[Any, Any], Tensor]


def _unary(name: str, says: str, function: Callable[[Any], Tensor]) -> Unary:
    def apply(x: Tensor, /) -> Tensor:
        return function(x)

    return _named(apply, name, says)


def _binary(name: str, says: str, function: Callable[[Any, Any], Tensor]) -> Binary:
    def apply(x1: Any, x2: Any, /) -> Tensor:
        return function(*promoted(x1, x2))

    return _named(apply, name, says)


def _named(function: Any, name: str, says: str) -> Any:
    function.__name__ = function.__qualname__ = name
    function.__doc__ = says
    return function


def _whole(function: Callable[[Any], Tensor]) -> Callable[[Any], Tensor]:
    """Of integers, which are whole already, a copy."""
    return lambda x: function(x) if x.is_floating_point() else +x


def _refused_of_bool(name: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def run(*operands: Any) -> Tensor:
        if operands[0].dtype.category == BOOL:
            raise DTypeError(f"{name} takes numbers, got bool (at {user_source()}); convert with astype")
        return function(*operands)

    return run


abs = _unary("abs", "The magnitude of each element.", Tensor.abs)
acos = _unary("acos", "The angle in [0, π] of each cosine.", Tensor.acos)
acosh = _unary("acosh", "The inverse of cosh, 0 or more.", Tensor.acosh)
asin = _unary("asin", "The angle in [-π/2, π/2] of each sine.", Tensor.asin)
asinh = _unary("asinh", "The inverse of sinh.", Tensor.asinh)
atan = _unary("atan", "The angle in (-π/2, π/2) of each tangent.", Tensor.atan)
atanh = _unary("atanh", "The inverse of tanh.", Tensor.atanh)
bitwise_invert = _unary("bitwise_invert", "Each bit inverted; of a bool the opposite.", operator.invert)
ceil = _unary("ceil", "Each element rounded up.", _whole(Tensor.ceil))
conj = _unary("conj", "Each element: all numbers are real here.", operator.pos)
cos = _unary("cos", "The cosine of each angle.", Tensor.cos)
cosh = _unary("cosh", "The hyperbolic cosine.", Tensor.cosh)
exp = _unary("exp", "e to the power of each element.", Tensor.exp)
expm1 = _unary("expm1", "exp(x) - 1, exact near 0.", Tensor.expm1)
floor = _unary("floor", "Each element rounded down.", _whole(Tensor.floor))
isfinite = _unary("isfinite", "Whether each element is neither infinite nor NaN.", Tensor.isfinite)
isinf = _unary("isinf", "Whether each element is infinite.", Tensor.isinf)
isnan = _unary("isnan", "Whether each element is NaN.", Tensor.isnan)
log = _unary("log", "The natural logarithm.", Tensor.log)
log10 = _unary("log10", "The logarithm to base 10.", Tensor.log10)
log1p = _unary("log1p", "log(1 + x), exact near 0.", Tensor.log1p)
log2 = _unary("log2", "The logarithm to base 2.", Tensor.log2)
logical_not = _unary("logical_not", "True where the element is zero.", Tensor.logical_not)
negative = _unary("negative", "-x.", _refused_of_bool("negative", operator.neg))
positive = _unary("positive", "+x.", operator.pos)
real = _unary("real", "Each element: all numbers are real here.", operator.pos)
reciprocal = _unary("reciprocal", "1 / x.", Tensor.reciprocal)
round = _unary("round", "The nearest whole number, of two the even one.", _whole(Tensor.round))
sign = _unary("sign", "-1, 0 or 1; NaN of NaN.", lambda x: x.sign() if not x.is_floating_point() else _sign(x))
signbit = _unary("signbit", "Whether the sign bit is set, as of -0.0.", Tensor.signbit)
sin = _unary("sin", "The sine of each angle.", Tensor.sin)
sinh = _unary("sinh", "The hyperbolic sine.", Tensor.sinh)
sqrt = _unary("sqrt", "The square root.", Tensor.sqrt)
square = _unary("square", "x * x.", lambda x: x * x)
tan = _unary("tan", "The tangent of each angle.", Tensor.tan)
tanh = _unary("tanh", "The hyperbolic tangent.", Tensor.tanh)
trunc = _unary("trunc", "Each element rounded toward zero.", _whole(Tensor.trunc))

add = _binary("add", "x1 + x2.", operator.add)
atan2 = _binary("atan2", "The angle of the point (x2, x1), in [-π, π].", Tensor.atan2)
bitwise_and = _binary("bitwise_and", "The bits that both have.", operator.and_)
bitwise_left_shift = _binary("bitwise_left_shift", "x1 shifted left by x2 bits.", operator.lshift)
bitwise_or = _binary("bitwise_or", "The bits that either has.", operator.or_)
bitwise_right_shift = _binary("bitwise_right_shift", "x1 shifted right by x2 bits; the sign fills.", operator.rshift)
bitwise_xor = _binary("bitwise_xor", "The bits that one of the two has.", operator.xor)
copysign = _binary("copysign", "The magnitude of x1 with the sign of x2.", Tensor.copysign)
divide = _binary("divide", "x1 / x2, a float.", operator.truediv)
equal = _binary("equal", "x1 == x2.", operator.eq)
floor_divide = _binary("floor_divide", "x1 / x2 rounded down.", operator.floordiv)
greater = _binary("greater", "x1 > x2.", operator.gt)
greater_equal = _binary("greater_equal", "x1 >= x2.", operator.ge)
hypot = _binary("hypot", "sqrt(x1² + x2²), without overflow on the way.", Tensor.hypot)
less = _binary("less", "x1 < x2.", operator.lt)
less_equal = _binary("less_equal", "x1 <= x2.", operator.le)
logaddexp = _binary("logaddexp", "log(exp(x1) + exp(x2)), without overflow.", Tensor.logaddexp)
logical_and = _binary("logical_and", "Whether both are not zero.", Tensor.logical_and)
logical_or = _binary("logical_or", "Whether either is not zero.", Tensor.logical_or)
logical_xor = _binary("logical_xor", "Whether one is zero and the other is not.", Tensor.logical_xor)
maximum = _binary("maximum", "The greater; NaN where either is NaN.", Tensor.maximum)
minimum = _binary("minimum", "The lesser; NaN where either is NaN.", Tensor.minimum)
multiply = _binary("multiply", "x1 * x2.", operator.mul)
nextafter = _binary("nextafter", "The float next to x1 in the direction of x2.", Tensor.nextafter)
not_equal = _binary("not_equal", "x1 != x2.", operator.ne)
remainder = _binary("remainder", "What floor_divide leaves, with the sign of x2.", operator.mod)
subtract = _binary("subtract", "x1 - x2.", _refused_of_bool("subtract", operator.sub))


def pow(x1: Any, x2: Any, /) -> Tensor:
    """x1 to the power of x2."""
    if isinstance(x1, Tensor) and isinstance(x2, (int, float)):  # whose rules are by multiplication
        return x1.to(result_type(x1, x2)) ** x2
    x, y = promoted(x1, x2)
    return x**y


def _sign(x: Tensor) -> Tensor:
    """As the standard, and not PyTorch, has it: NaN of NaN."""
    return chosen(x.isnan(), x, x.sign())


def imag(x: Tensor, /) -> Tensor:
    """There are no complex numbers, so this raises."""
    raise DTypeError(f"imag: complex numbers are not there, got {x.dtype.name} (at {user_source()})")


def clip(x: Tensor, /, min: Any = None, max: Any = None) -> Tensor:
    """Each element brought into [min, max], arrays or numbers that may lie outside the dtype; in the dtype of `x`."""
    low, high = (_bound(x, value) for value in (min, max))
    if low is None and high is None:
        return +x
    return x.clamp(low, high).to(x.dtype)


def _bound(x: Tensor, value: Any) -> Any:
    """A bound as a number or an array of the dtype of `x`."""
    if isinstance(value, Tensor):
        return value.to(x.dtype) if value.dtype.category <= x.dtype.category else value
    if value is None or x.dtype.category != INTEGER:
        return value
    from ..tensor.limits import iinfo

    limits = iinfo(x.dtype)
    return sorted((limits.min, value, limits.max))[1]


def where(condition: Tensor, x1: Any, x2: Any, /) -> Tensor:
    """x1 where `condition` holds, else x2; at least one of the two is an array."""
    if not any(isinstance(x, Tensor) for x in (x1, x2)):
        dtype = types.bool_
        for value in (x1, x2):
            dtype = result_type(dtype, value)
        from .creation import asarray

        return chosen(condition, asarray(x1, dtype=dtype), asarray(x2, dtype=dtype))
    first, second = promoted(x1, x2)
    return chosen(condition, first, second)
