"""Functions of one element: elementary and special functions, rounding, and what kind of number an element is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..errors import DTypeError
from ..graph.node import Node
from ..graph.types import BOOL, FLOAT, bfloat16, bool_, float16, float32, float64
from ..ops import elementwise as e
from ..ops import exponential as ex
from ..ops import special as sp
from ..ops.elementwise import Builder
from ..ops.host import custom
from ..ops.movement import expand
from ..ops.primitive import constant, user_source
from . import promotion
from .arguments import whole_number
from .handle import Handle
from .promotion import promoted, require_float

if TYPE_CHECKING:
    from . import Tensor


class MathematicsMethods(Handle):
    """Functions of each element. Those of floats turn integers into the default float first."""

    __slots__ = ()

    def _function(self, build: Builder) -> Tensor:
        """A function of floats; integers become the default float first."""
        (x,) = promoted(self, at_least=promotion.get_default_dtype())
        return self._wrap(build(x))

    def _composed(self, build: Builder) -> Tensor:
        """As `_function`, of several primitives: the 16-bit floats are widened before and rounded once after."""
        (x,) = promoted(self, at_least=promotion.get_default_dtype())
        return self._wrap(e.convert(build(e.convert(x, x.dtype.compute)), x.dtype))

    # ---- exponentials, logarithms, powers

    def exp(self) -> Tensor:
        """e to the power of each element."""
        return self._function(e.exp)

    def exp2(self) -> Tensor:
        """2 to the power of each element."""
        return self._function(ex.exp2)

    def expm1(self) -> Tensor:
        """exp(x) - 1, exact for small x."""
        return self._function(ex.expm1)

    def log(self) -> Tensor:
        """The natural logarithm; NaN below 0."""
        return self._function(e.log)

    def log2(self) -> Tensor:
        """The logarithm to base 2; exact at powers of 2."""
        return self._function(ex.log2)

    def log10(self) -> Tensor:
        """The logarithm to base 10; exact at powers of 10."""
        return self._function(ex.log10)

    def log1p(self) -> Tensor:
        """log(1 + x), exact for small x; NaN below -1."""
        return self._function(ex.log1p)

    def sqrt(self) -> Tensor:
        """The square root; NaN below 0."""
        return self._function(e.sqrt)

    def rsqrt(self) -> Tensor:
        """1 / sqrt."""
        return self._function(lambda x: e.div(constant(1.0, x.dtype), e.sqrt(x)))

    def reciprocal(self) -> Tensor:
        """1 / x."""
        return self._function(lambda x: e.div(constant(1.0, x.dtype), x))

    def square(self) -> Tensor:
        """x * x."""
        return self.pow(2)  # type: ignore[attr-defined]

    # ---- trigonometric and hyperbolic functions

    def sin(self) -> Tensor:
        """The sine of radians."""
        return self._function(e.sin)

    def cos(self) -> Tensor:
        """The cosine of radians."""
        return self._function(e.cos)

    def tan(self) -> Tensor:
        """The tangent of radians."""
        return self._function(ex.tan)

    def asin(self) -> Tensor:
        """The angle whose sine the element is, between -π/2 and π/2; NaN outside [-1, 1]."""
        return self._function(ex.asin)

    def acos(self) -> Tensor:
        """The angle whose cosine the element is, between 0 and π; NaN outside [-1, 1]."""
        return self._function(ex.acos)

    def atan(self) -> Tensor:
        """The angle whose tangent the element is, between -π/2 and π/2."""
        return self._function(ex.atan)

    def sinh(self) -> Tensor:
        """The hyperbolic sine."""
        return self._function(ex.sinh)

    def cosh(self) -> Tensor:
        """The hyperbolic cosine."""
        return self._function(ex.cosh)

    def tanh(self) -> Tensor:
        """The hyperbolic tangent."""
        return self._function(e.tanh)

    def asinh(self) -> Tensor:
        """The inverse of the hyperbolic sine."""
        return self._function(ex.asinh)

    def acosh(self) -> Tensor:
        """The inverse of the hyperbolic cosine; NaN below 1."""
        return self._function(ex.acosh)

    def atanh(self) -> Tensor:
        """The inverse of the hyperbolic tangent; NaN outside [-1, 1]."""
        return self._function(ex.atanh)

    def sinc(self) -> Tensor:
        """sin(πx) / (πx), and 1 at 0."""
        return self._composed(_sinc)

    def deg2rad(self) -> Tensor:
        """Degrees as radians."""
        return self._function(lambda x: e.mul(x, constant(math.pi / 180, x.dtype)))

    def rad2deg(self) -> Tensor:
        """Radians as degrees."""
        return self._function(lambda x: e.mul(x, constant(180 / math.pi, x.dtype)))

    arcsin, arccos, arctan, arcsinh, arccosh, arctanh = asin, acos, atan, asinh, acosh, atanh

    # ---- special functions

    def sigmoid(self) -> Tensor:
        """1 / (1 + exp(-x))."""
        return self._function(e.sigmoid)

    def logit(self, eps: float | None = None) -> Tensor:
        """log(x / (1 - x)), the inverse of sigmoid; with `eps` of x brought into [eps, 1 - eps].

        >>> pb.tensor([0.5, 0.0]).logit(eps=1e-6)
        tensor([  0.0000, -13.8155])
        """
        return self._composed(lambda x: _logit(x, eps))

    def erf(self) -> Tensor:
        """The error function."""
        return self._function(e.erf)

    def erfc(self) -> Tensor:
        """1 - erf(x), without losing digits where erf is near 1."""
        return self._function(sp.erfc)

    def erfinv(self) -> Tensor:
        """The inverse of erf; NaN outside [-1, 1]."""
        return self._function(sp.erfinv)

    def lgamma(self) -> Tensor:
        """The logarithm of the gamma function's magnitude."""
        return self._function(sp.lgamma)

    def digamma(self) -> Tensor:
        """The derivative of lgamma."""
        return self._function(sp.digamma)

    def polygamma(self, n: int) -> Tensor:
        """The n-th derivative of digamma."""
        return polygamma(n, self)  # type: ignore[arg-type]

    def mvlgamma(self, p: int) -> Tensor:
        """The logarithm of the multivariate gamma function of dimension `p`."""
        if p < 1:
            raise ValueError(f"mvlgamma: p must be at least 1, got {p} (at {user_source()})")
        return self._composed(lambda x: _mvlgamma(x, p))

    def i0(self) -> Tensor:
        """The modified Bessel function of the first kind and order 0."""
        return self._function(sp.i0)

    # ---- rounding and parts

    def _rounded(self, build: Builder) -> Tensor:
        return self._wrap(build(self.node) if self.dtype.category == FLOAT else self.node)

    def abs(self) -> Tensor:
        """The absolute value."""
        return self._wrap(self.node if self.dtype.category == BOOL else e.absolute(self.node))

    def sign(self) -> Tensor:
        """-1, 0 or 1; of a bool itself."""
        return self._wrap(self.node if self.dtype.category == BOOL else e.sign(self.node))

    def floor(self) -> Tensor:
        """The greatest integer not above."""
        return self._rounded(e.floor)

    def ceil(self) -> Tensor:
        """The least integer not below."""
        return self._rounded(e.ceil)

    def trunc(self) -> Tensor:
        """The integer part."""
        return self._rounded(e.trunc)

    def round(self, *, decimals: int = 0) -> Tensor:
        """The nearest multiple of 10 to the power of -`decimals`, ties to even."""
        decimals = whole_number(decimals, "round", "decimals")
        if decimals == 0:
            return self._rounded(e.rint)
        if self.dtype.category != FLOAT:
            raise DTypeError(f"round: decimals are of floats, not of {self.dtype.name} (at {user_source()})")
        return self._composed(lambda x: _rounded_to(x, decimals))

    def frac(self) -> Tensor:
        """What is left of the integer part."""
        require_float("frac", self)
        return self._composed(lambda x: e.sub(x, e.trunc(x)))

    def frexp(self) -> tuple[Tensor, Tensor]:
        """Mantissas of magnitude in [1/2, 1), and int32 exponents: x = mantissa * 2 ** exponent.

        >>> mantissa, exponent = pb.tensor([6.0]).frexp()
        >>> mantissa, exponent
        (tensor([0.7500]), tensor([3], dtype=pullback.int32))
        """
        require_float("frexp", self)
        return _frexp(self)  # type: ignore[arg-type]

    absolute, fix, sgn = abs, trunc, sign

    def nan_to_num(self, nan: float | None = None, posinf: float | None = None, neginf: float | None = None) -> Tensor:
        """NaN and infinities replaced: by 0, the dtype's greatest and its least number where nothing is given."""
        if self.dtype.category != FLOAT:
            return self._wrap(self.node)
        greatest = _GREATEST[self.dtype]
        x, zero = self.node, 0.0 if nan is None else nan
        result = e.where(e.ne(x, x), constant(zero, x.dtype), x)
        above, below = greatest if posinf is None else posinf, -greatest if neginf is None else neginf
        result = e.where(e.eq(x, constant(math.inf, x.dtype)), constant(above, x.dtype), result)
        return self._wrap(e.where(e.eq(x, constant(-math.inf, x.dtype)), constant(below, x.dtype), result))

    # ---- real parts

    @property
    def real(self) -> Tensor:
        """The tensor itself: there are no complex numbers here."""
        return self  # type: ignore[return-value]

    def conj(self) -> Tensor:
        """The tensor itself: there are no complex numbers here."""
        return self  # type: ignore[return-value]

    conj_physical = resolve_conj = resolve_neg = conj

    def angle(self) -> Tensor:
        """The angle as a complex number: 0, π where negative, NaN where NaN."""
        return self._function(_angle)

    # ---- kinds of numbers

    def isnan(self) -> Tensor:
        """True where the element is not a number."""
        return self._wrap(e.ne(self.node, self.node))

    def isinf(self) -> Tensor:
        """True where the element is an infinity."""
        return self._is_one_of(math.inf, -math.inf)

    def isposinf(self) -> Tensor:
        """True where the element is infinity."""
        return self._is_one_of(math.inf)

    def isneginf(self) -> Tensor:
        """True where the element is minus infinity."""
        return self._is_one_of(-math.inf)

    def _is_one_of(self, *values: float) -> Tensor:
        if not self.dtype.is_floating_point:
            return self.isnan()
        first, *rest = [e.eq(self.node, constant(value, self.dtype)) for value in values]
        for other in rest:
            first = e.bit_or(first, other)
        return self._wrap(first)

    def isfinite(self) -> Tensor:
        """True where the element is neither an infinity nor NaN."""
        return self._wrap(e.bit_not(e.bit_or(self.isnan().node, self.isinf().node)))

    def isreal(self) -> Tensor:
        """True everywhere: there are no complex numbers here."""
        return self._wrap(expand(constant(True, bool_), self.shape))

    def signbit(self) -> Tensor:
        """True where the sign is minus, that of -0.0 and NaN included."""
        x = self.node
        if x.dtype.category == BOOL:
            return self.isnan()
        if x.dtype.category == FLOAT:
            x = _signs(x)
        return self._wrap(e.lt(x, constant(0, x.dtype)))


def _signs(x: Node) -> Node:
    from ..ops.pairs import copysign

    return copysign(constant(1.0, x.dtype), x)


def _sinc(x: Node) -> Node:
    """The sine is that of x less an even number, exactly; πx would lose the digits after the point."""
    half_turns = constant(2.0, x.dtype)
    turned = e.sub(x, e.mul(half_turns, e.rint(e.div(x, half_turns))))
    pi = constant(math.pi, x.dtype)
    return sine_over_angle(e.mul(x, pi), e.sin(e.mul(turned, pi)))


def sine_over_angle(angle: Node, sine: Node) -> Node:
    """sine / angle; near 0 the series, of which the derivative keeps its digits too."""
    near = e.lt(e.absolute(angle), constant(0.5, angle.dtype))
    square = e.where(near, e.mul(angle, angle), constant(0.0, angle.dtype))
    series = constant(-1 / math.factorial(15), angle.dtype)
    for k in reversed(range(7)):
        series = e.add(e.mul(series, square), constant((-1) ** k / math.factorial(2 * k + 1), angle.dtype))
    return e.where(near, series, e.div(sine, e.where(near, constant(1.0, angle.dtype), angle)))


def _logit(x: Node, eps: float | None) -> Node:
    one, lowest, highest = (constant(value, x.dtype) for value in (1.0, eps or 0.0, 1 - (eps or 0.0)))
    beyond = e.bit_or(e.lt(x, lowest), e.lt(highest, x))
    inside = x if eps is None else e.where(e.lt(x, lowest), lowest, e.where(e.lt(highest, x), highest, x))

    def rule(_: Node, cotangent: Node) -> list[Node | None]:
        slope = e.div(cotangent, e.mul(x, e.sub(one, x)))
        return [e.where(beyond, constant(math.nan if eps is None else 0.0, x.dtype), slope)]

    return custom(e.log(e.div(inside, e.sub(one, inside))), (x,), rule)


def _angle(x: Node) -> Node:
    zero = constant(0.0, x.dtype)
    return e.where(e.ne(x, x), x, e.where(e.lt(x, zero), constant(math.pi, x.dtype), zero))


def _rounded_to(x: Node, decimals: int) -> Node:
    power = constant(10.0 ** abs(decimals), x.dtype)
    if decimals < 0:
        return e.mul(e.rint(e.div(x, power)), power)
    return e.div(e.rint(e.mul(x, power)), power)


def _mvlgamma(x: Node, p: int) -> Node:
    result = constant(p * (p - 1) / 4 * math.log(math.pi), x.dtype)
    for j in range(p):
        result = e.add(result, sp.lgamma(e.sub(x, constant(j / 2, x.dtype)) if j else x))
    return result


def _frexp(x: Tensor) -> tuple[Tensor, Tensor]:
    from ..ops.pairs import binary_exponent

    wide = e.convert(x.node, x.dtype.compute)
    exponent = binary_exponent(wide)
    # in two factors, as the power for the smallest numbers would overflow
    power, two = e.neg(e.convert(exponent, wide.dtype)), constant(2.0, wide.dtype)
    half = e.trunc(e.mul(power, constant(0.5, wide.dtype)))
    mantissa = e.mul(e.mul(wide, e.power(two, half)), e.power(two, e.sub(power, half)))
    return x._wrap(e.convert(mantissa, x.dtype)), x._wrap(exponent)


#: the highest order of polygamma: its code grows with the order, and its values leave the floats
_GREATEST_ORDER = 200


def polygamma(n: int, input: Tensor) -> Tensor:
    """The n-th derivative of digamma, n a whole number of at least 0; the two arguments in either order.

    >>> pb.polygamma(1, pb.tensor([1.0]))
    tensor([1.6449])
    """
    if isinstance(n, Handle):
        n, input = input, n
    if not isinstance(n, int) or isinstance(n, bool) or n < 0:
        raise ValueError(f"polygamma: n must be a whole number of at least 0, got {n!r} (at {user_source()})")
    if n > _GREATEST_ORDER:
        raise ValueError(f"polygamma: n must be at most {_GREATEST_ORDER}, got {n} (at {user_source()})")
    return input.digamma() if n == 0 else input._function(lambda x: sp.polygamma(x, n))


def real(input: Tensor) -> Tensor:
    """The tensor itself: there are no complex numbers here."""
    return input


#: the greatest finite number of each float
_GREATEST = {
    float16: 65504.0,
    bfloat16: float.fromhex("0x1.FEp127"),
    float32: float.fromhex("0x1.FFFFFEp127"),
    float64: float.fromhex("0x1.FFFFFFFFFFFFFp1023"),
}

__all__ = ["MathematicsMethods", "polygamma", "real", "sine_over_angle"]
