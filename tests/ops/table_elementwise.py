"""The table's rows of elementwise functions beyond the operators: elementary and special functions, bits, choice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from scipy import special as scipy

from operation_rows import AWKWARD, INF, NAN, Row, normal, positive
from oracle import Expression

Array = Callable[[np.ndarray], np.ndarray]

_WITHIN_ONE = np.linspace(-0.97, 0.93, 12).reshape(3, 4)
_PROBABILITIES = np.linspace(0.02, 0.96, 12).reshape(3, 4)
_AWKWARD = np.array(AWKWARD)
_FINITE = np.array([v for v in AWKWARD if abs(v) < INF])
_INTEGERS = np.array([[7, -7, 0, 3], [-128, 127, 1, -1]])
_COUNTS = np.array([[1, 2, 0, 70], [3, 1, 63, 64]])


def _method(name: str, *arguments: Any, **options: Any) -> Expression:
    return lambda f, x: getattr(x, name)(*arguments, **options)


def _special(name: str) -> Expression:
    return lambda f, x: getattr(f.special, name)(x)


def _functions() -> Iterator[Row]:
    everywhere = ("tan", "atan", "sinh", "cosh", "asinh", "exp2", "expm1", "sinc", "deg2rad", "rad2deg")
    for name in everywhere:
        numbers = _AWKWARD if name not in ("tan", "cosh", "sinh", "sinc") else _FINITE
        # PyTorch's sinc loses the digits of its derivative near 0
        awkward = ((numbers[np.abs(numbers) != 1e-3] if name == "sinc" else numbers,), (np.zeros((0, 3)),))
        yield Row(name, _method(name), (normal(3, 4),), awkward, differences=True)
    for name in ("log1p", "log2", "log10", "lgamma", "mvlgamma"):
        expression = _method(name, 2) if name == "mvlgamma" else _method(name)
        operand = positive(3, 4) + (1.0 if name == "mvlgamma" else 0.0)
        yield Row(name, expression, (operand,), ((np.array([1e-3, 1.0, 2.0, 30.0, 1e6]),),), differences=True)
    # PyTorch's polygamma(1), which is digamma's derivative, has nine digits; its zeta has all
    yield Row("digamma", _method("digamma"), (positive(3, 4),), dtypes=("float32",), smooth=False)
    for name in ("asin", "acos", "atanh", "erfinv"):
        yield Row(name, _method(name), (_WITHIN_ONE,), ((np.array([0.0, -0.0, 2.0, -3.0, NAN]),),), differences=True)
    yield Row("acosh", _method("acosh"), (positive(3, 4) + 1.1,), ((np.array([0.5, -3.0, 1e20, NAN]),),))
    yield Row("erfc", _method("erfc"), (normal(3, 4),), ((np.append(_AWKWARD, 9.0),),), sixteen=True, differences=True)
    yield Row("lgamma below 0", _method("lgamma"), (np.array([-0.3, -1.7, -4.4]),))
    below = np.array([-0.3, -1.7, -4.4, NAN])
    yield Row("digamma below 0", _method("digamma"), (below,), dtypes=("float32",), smooth=False)
    for n, factor in ((1, 1), (2, -2), (3, 6)):
        operand = np.array([0.3, 1.7, 4.4, 15.0])
        theirs = lambda f, x, n=n, factor=factor: factor * f.special.zeta(n + 1.0, x)  # noqa: E731
        yield Row(f"polygamma {n}", lambda f, x, n=n: f.polygamma(n, x), (operand,), theirs=theirs)
    yield Row("i0", _method("i0"), (normal(3, 4) * 5,), ((_FINITE,),), differences=True)
    yield Row("logit", _method("logit"), (_PROBABILITIES,), differences=True)
    yield Row("logit with eps", _method("logit", 0.1), (_PROBABILITIES,))


def _special_functions() -> Iterator[Row]:
    for name in ("erfcx", "i0e", "i1", "i1e", "ndtr", "log_ndtr", "spherical_bessel_j0"):
        yield Row(f"special.{name}", _special(name), (normal(3, 4) * 2,), ((_FINITE[2:],),), differences=True)
    yield Row("special.ndtri", _special("ndtri"), (_PROBABILITIES,), ((np.array([1e-9, 0.0, 1.0, 2.0, NAN]),),))
    yield Row("special.entr", _special("entr"), (positive(3, 4),), ((np.array([0.0, -1.0, 2.0, NAN]),),))
    expression = lambda f, x, y: f.special.xlog1py(x, y)  # noqa: E731
    yield Row("special.xlog1py", expression, (normal(2, 3), positive(3)), ((np.zeros(2), np.array([-0.5, 3.0])),))
    shape = np.array([[0.3], [2.5], [30.0]])
    for name in ("igamma", "igammac"):
        operands = (np.array([0.1, 1.0, 4.0, 40.0]),)
        yield Row(name, lambda f, x, name=name: getattr(f, name)(f.tensor(shape, dtype=x.dtype), x), operands)
    yield Row("special.zeta", lambda f, x: f.special.zeta(3.0, x), (np.array([0.2, 1.0, 7.0, 50.0, -1.5]),))


class _Scipys(torch.autograd.Function):
    """A function of SciPy's with its derivative: PyTorch has none of Bessel's, and their values to seven digits."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, function: Array, slope: Array) -> torch.Tensor:
        ctx.slope = torch.as_tensor(slope(x.detach().double().numpy()))
        return torch.as_tensor(function(x.detach().double().numpy())).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, cotangent: torch.Tensor) -> Any:
        return cotangent * ctx.slope.to(cotangent.dtype), None, None


#: name: SciPy's function and its derivative
_BESSEL: dict[str, tuple[Array, Array]] = {
    "bessel_j0": (scipy.j0, lambda x: -scipy.j1(x)),
    "bessel_j1": (scipy.j1, lambda x: scipy.jvp(1, x)),
    "bessel_y0": (scipy.y0, lambda x: -scipy.y1(x)),
    "bessel_y1": (scipy.y1, lambda x: scipy.yvp(1, x)),
    "modified_bessel_k0": (scipy.k0, lambda x: -scipy.k1(x)),
    "modified_bessel_k1": (scipy.k1, lambda x: scipy.kvp(1, x)),
    "scaled_modified_bessel_k0": (scipy.k0e, lambda x: scipy.k0e(x) - scipy.k1e(x)),
    "scaled_modified_bessel_k1": (scipy.k1e, lambda x: scipy.k1e(x) * (1 - 1 / x) - scipy.k0e(x)),
}


def _bessel_functions() -> Iterator[Row]:
    operand = np.array([0.3, 1.1, 3.0, 7.0, 19.0])
    for name, (function, slope) in _BESSEL.items():
        theirs = lambda _, x, function=function, slope=slope: _Scipys.apply(x, function, slope)  # noqa: E731
        yield Row(f"special.{name}", _special(name), (operand,), theirs=theirs, smooth=False)
    airy = lambda f, x: torch.as_tensor(scipy.airy(x.detach().double().numpy())[0]).to(x.dtype)  # noqa: E731
    expression = lambda f, x: f.special.airy_ai(x.detach())  # noqa: E731
    yield Row("special.airy_ai", expression, (np.array([-7.0, -1.1, 0.3, 3.0]),), theirs=airy, smooth=False)


def _parts() -> Iterator[Row]:
    for name in ("frac", "nan_to_num", "signbit", "isposinf", "isneginf", "isreal", "sgn", "angle", "conj"):
        smooth = name in ("frac", "nan_to_num", "conj")
        operand = _FINITE if name == "angle" else _AWKWARD
        yield Row(name, _method(name), (normal(3, 4),), ((operand,),), smooth=smooth)
    yield Row("nan_to_num with values", _method("nan_to_num", 1.5, 2.5, -3.5), (normal(3),), ((_AWKWARD,),))
    for decimals in (2, -1):
        yield Row(f"round to {decimals}", _method("round", decimals=decimals), (normal(3, 4) * 30,), smooth=False)
    numbers = np.array([6.0, -0.75, 1e-40, 0.0, -3e30, INF, NAN])
    yield Row("frexp", lambda f, x: tuple(x.frexp()), (normal(3, 4),), ((numbers,),), smooth=False)


def _pairs() -> Iterator[Row]:
    several = ((_AWKWARD[:, None], _AWKWARD), (np.zeros((0, 3)), np.zeros(3)))
    finite = ((_FINITE[:, None], _FINITE[2:]),)
    shapes = (normal(2, 3), normal(3))
    for name in ("atan2", "hypot", "logaddexp", "logaddexp2", "fmod"):
        awkward = finite if name in ("fmod", "logaddexp", "logaddexp2") else ()
        yield Row(name, lambda f, x, y, name=name: getattr(f, name)(x, y), shapes, awkward, differences=True)
    for name in ("fmax", "fmin", "copysign", "heaviside", "nextafter"):
        smooth, awkward = name in ("fmax", "fmin"), several if name in ("fmax", "fmin") else ()
        operands = tuple(o.round() for o in shapes) if name == "heaviside" else shapes
        expression = lambda f, x, y, name=name: getattr(f, name)(x, y)  # noqa: E731
        if name == "heaviside":
            expression = lambda f, x, y: f.heaviside(x.detach(), y.detach())  # noqa: E731
        yield Row(name, expression, operands, awkward, smooth=smooth)
    yield Row("xlogy", lambda f, x, y: x.xlogy(y), (normal(2, 3), positive(3)), ((np.zeros(3), np.array([1.0, 2, 9])),))
    yield Row("ldexp", lambda f, x, y: x.ldexp(y), shapes)
    yield Row("float_power", lambda f, x, y: x.float_power(y), (positive(2, 3), normal(3)))
    yield Row("addcmul", lambda f, x, y: x.addcmul(x, y, value=0.5), shapes)
    yield Row("addcdiv", lambda f, x, y: x.addcdiv(x, y, value=-2), shapes)
    for weight in (0.25, 0.75):
        yield Row(f"lerp {weight}", lambda f, x, y, w=weight: f.lerp(x, y, w), shapes)
    yield Row("lerp by a tensor", lambda f, x, y, w: x.lerp(y, w), (*shapes, _PROBABILITIES[0, :3] * 2))
    yield Row("clamp by tensors", lambda f, x, y, z: x.clamp(y, z), (normal(4, 3), normal(3) - 0.5, normal(3) + 0.5))


def _whole() -> Iterator[Row]:
    pair = (_INTEGERS, np.array([2, -3, 5, -1]))
    for name in ("fmod", "gcd", "lcm", "bitwise_and", "bitwise_or", "bitwise_xor", "logical_xor", "maximum", "fmin"):
        yield Row(f"{name} of integers", lambda f, x, y, name=name: getattr(f, name)(x, y), pair, smooth=False)
    for mode in ("floor", "trunc"):
        expression = lambda f, x, y, mode=mode: x.div(y, rounding_mode=mode)  # noqa: E731
        yield Row(f"integers divided, {mode}", expression, pair, smooth=False)
    counts = (_INTEGERS, _COUNTS)
    yield Row("integers shifted", lambda f, x, y: (x << y, x >> y, 5 << (y % 8), 5 >> y), counts, smooth=False)
    bytes_ = (_INTEGERS.astype(np.int8), np.array([1, 2, 7, 0], np.int8))
    yield Row("bytes shifted", lambda f, x, y: (x << y, x >> y), bytes_, smooth=False)
    expression = lambda f, x: (f.add(1, x), f.rsub(x, 2, alpha=3), f.pow(2, x), f.mul(7, x))  # noqa: E731
    yield Row("numbers first", expression, (positive(3),))
    close = (np.array([1.0, 1.0, INF, NAN, INF]), np.array([1.0 + 1e-6, 1.1, INF, NAN, -INF]))
    yield Row("isclose", lambda f, x, y: (x.isclose(y), x.isclose(y, equal_nan=True)), close, smooth=False)


ROWS = [*_functions(), *_special_functions(), *_bessel_functions(), *_parts(), *_pairs(), *_whole()]
