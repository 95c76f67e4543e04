"""In-place forms of elementwise methods: each gives the handle what its namesake computes, in the handle's dtype."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import DTypeError
from ..graph.types import DType, float64
from ..ops.primitive import user_source
from .handle import Handle

if TYPE_CHECKING:
    from . import Tensor


def _in_place(name: str, only: DType | None = None) -> Callable[..., Tensor]:
    """The method `name` followed by an underscore. It bears its name, by which lines and profiles call it.

    Tensors of other dtypes than `only` are refused.
    """

    def write(self: Any, *args: Any, **kwargs: Any) -> Tensor:
        written = getattr(self, name)(*args, **kwargs)
        if only not in (None, self.dtype):
            raise DTypeError(
                f"{name}_ gives {only.name}, which a tensor of {self.dtype.name} does not hold (at {user_source()})"
            )
        return self._take(written)

    write.__code__ = write.__code__.replace(co_name=f"{name}_")
    write.__name__ = write.__qualname__ = f"{name}_"
    write.__doc__ = f"self = self.{name}(…), written into this tensor."
    return write


class InplaceMathematics(Handle):
    """What `InplaceMethods` does not spell out. The result keeps shape and dtype, or the call raises."""

    __slots__ = ()

    abs_ = _in_place("abs")
    absolute_ = _in_place("absolute")
    acos_ = _in_place("acos")
    acosh_ = _in_place("acosh")
    arccos_ = _in_place("arccos")
    arccosh_ = _in_place("arccosh")
    arcsin_ = _in_place("arcsin")
    arcsinh_ = _in_place("arcsinh")
    arctan_ = _in_place("arctan")
    arctan2_ = _in_place("arctan2")
    arctanh_ = _in_place("arctanh")
    asin_ = _in_place("asin")
    asinh_ = _in_place("asinh")
    atan_ = _in_place("atan")
    atan2_ = _in_place("atan2")
    atanh_ = _in_place("atanh")
    bitwise_and_ = _in_place("bitwise_and")
    bitwise_left_shift_ = _in_place("bitwise_left_shift")
    bitwise_not_ = _in_place("bitwise_not")
    bitwise_or_ = _in_place("bitwise_or")
    bitwise_right_shift_ = _in_place("bitwise_right_shift")
    bitwise_xor_ = _in_place("bitwise_xor")
    ceil_ = _in_place("ceil")
    clamp_max_ = _in_place("clamp_max")
    clamp_min_ = _in_place("clamp_min")
    clip_ = _in_place("clip")
    conj_physical_ = _in_place("conj_physical")
    copysign_ = _in_place("copysign")
    cos_ = _in_place("cos")
    cosh_ = _in_place("cosh")
    cumprod_ = _in_place("cumprod")
    cumsum_ = _in_place("cumsum")
    deg2rad_ = _in_place("deg2rad")
    digamma_ = _in_place("digamma")
    divide_ = _in_place("divide")
    eq_ = _in_place("eq")
    erf_ = _in_place("erf")
    erfc_ = _in_place("erfc")
    erfinv_ = _in_place("erfinv")
    exp2_ = _in_place("exp2")
    expm1_ = _in_place("expm1")
    fix_ = _in_place("fix")
    float_power_ = _in_place("float_power", only=float64)
    floor_ = _in_place("floor")
    floor_divide_ = _in_place("floor_divide")
    fmod_ = _in_place("fmod")
    frac_ = _in_place("frac")
    gcd_ = _in_place("gcd")
    ge_ = _in_place("ge")
    greater_ = _in_place("greater")
    greater_equal_ = _in_place("greater_equal")
    gt_ = _in_place("gt")
    heaviside_ = _in_place("heaviside")
    hypot_ = _in_place("hypot")
    i0_ = _in_place("i0")
    igamma_ = _in_place("igamma")
    igammac_ = _in_place("igammac")
    lcm_ = _in_place("lcm")
    ldexp_ = _in_place("ldexp")
    le_ = _in_place("le")
    less_ = _in_place("less")
    less_equal_ = _in_place("less_equal")
    lgamma_ = _in_place("lgamma")
    log_ = _in_place("log")
    log10_ = _in_place("log10")
    log1p_ = _in_place("log1p")
    log2_ = _in_place("log2")
    logical_and_ = _in_place("logical_and")
    logical_not_ = _in_place("logical_not")
    logical_or_ = _in_place("logical_or")
    logical_xor_ = _in_place("logical_xor")
    logit_ = _in_place("logit")
    lt_ = _in_place("lt")
    multiply_ = _in_place("multiply")
    mvlgamma_ = _in_place("mvlgamma")
    nan_to_num_ = _in_place("nan_to_num")
    ne_ = _in_place("ne")
    negative_ = _in_place("negative")
    nextafter_ = _in_place("nextafter")
    not_equal_ = _in_place("not_equal")
    polygamma_ = _in_place("polygamma")
    rad2deg_ = _in_place("rad2deg")
    reciprocal_ = _in_place("reciprocal")
    remainder_ = _in_place("remainder")
    renorm_ = _in_place("renorm")
    round_ = _in_place("round")
    rsqrt_ = _in_place("rsqrt")
    sgn_ = _in_place("sgn")
    sigmoid_ = _in_place("sigmoid")
    sign_ = _in_place("sign")
    sin_ = _in_place("sin")
    sinc_ = _in_place("sinc")
    sinh_ = _in_place("sinh")
    square_ = _in_place("square")
    subtract_ = _in_place("subtract")
    tan_ = _in_place("tan")
    tanh_ = _in_place("tanh")
    true_divide_ = _in_place("true_divide")
    trunc_ = _in_place("trunc")
    xlogy_ = _in_place("xlogy")

    def __ifloordiv__(self, other: Any) -> Tensor:
        return self.floor_divide_(other)

    def __imod__(self, other: Any) -> Tensor:
        return self.remainder_(other)

    def __iand__(self, other: Any) -> Tensor:
        return self.bitwise_and_(other)

    def __ior__(self, other: Any) -> Tensor:
        return self.bitwise_or_(other)

    def __ixor__(self, other: Any) -> Tensor:
        return self.bitwise_xor_(other)

    def __ilshift__(self, other: Any) -> Tensor:
        return self.bitwise_left_shift_(other)

    def __irshift__(self, other: Any) -> Tensor:
        return self.bitwise_right_shift_(other)
