"""Special functions beyond the methods of tensors: what `pullback.special` has."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ..errors import GradientError
from ..graph.node import Node
from ..ops import bessel as b
from ..ops import elementwise as e
from ..ops import special as sp
from ..ops.elementwise import broadcast_shapes
from ..ops.host import custom, host_call
from ..ops.host_functions import zeta as hurwitz
from ..ops.incomplete_gamma import gamma_density, incomplete_gamma
from ..ops.primitive import constant, user_source
from .mathematics import sine_over_angle
from .pairs import joined
from .polynomials import without_derivative
from .promotion import Operand

if TYPE_CHECKING:
    from . import Tensor


def entr(input: Tensor) -> Tensor:
    """-x log(x): 0 at 0, minus infinity below."""
    return input._composed(_entropy)


def erfcx(input: Tensor) -> Tensor:
    """exp(x²) erfc(x), which neither overflows nor underflows for x > 0."""
    return input._function(sp.erfcx)


def i0e(input: Tensor) -> Tensor:
    """exp(-|x|) times the modified Bessel function of order 0."""
    return input._function(sp.i0e)


def i1(input: Tensor) -> Tensor:
    """The modified Bessel function of the first kind and order 1."""
    return input._function(sp.i1)


def i1e(input: Tensor) -> Tensor:
    """exp(-|x|) times the modified Bessel function of order 1."""
    return input._function(sp.i1e)


def ndtr(input: Tensor) -> Tensor:
    """The distribution function of the normal distribution.

    >>> pb.special.ndtr(pb.tensor([0.0, 2.0]))
    tensor([0.5000, 0.9772])
    """
    return input._composed(_ndtr)


def log_ndtr(input: Tensor) -> Tensor:
    """log(ndtr(x)), which does not underflow."""
    return input._function(sp.log_ndtr)


def ndtri(input: Tensor) -> Tensor:
    """The inverse of ndtr; NaN outside [0, 1]."""
    return input._function(sp.ndtri)


def spherical_bessel_j0(input: Tensor) -> Tensor:
    """sin(x) / x, and 1 at 0."""
    return input._composed(_spherical_j0)


def bessel_j0(input: Tensor) -> Tensor:
    """Bessel's function of the first kind and order 0.

    >>> pb.special.bessel_j0(pb.tensor([0.0, 1.0, 10.0]))
    tensor([ 1.0000,  0.7652, -0.2459])
    """
    return input._function(b.bessel_j0)


def bessel_j1(input: Tensor) -> Tensor:
    """Bessel's function of the first kind and order 1."""
    return input._function(b.bessel_j1)


def bessel_y0(input: Tensor) -> Tensor:
    """Bessel's function of the second kind and order 0: minus infinity at 0, NaN below."""
    return input._function(b.bessel_y0)


def bessel_y1(input: Tensor) -> Tensor:
    """Bessel's function of the second kind and order 1: minus infinity at 0, NaN below."""
    return input._function(b.bessel_y1)


def modified_bessel_k0(input: Tensor) -> Tensor:
    """The modified Bessel function of the second kind and order 0: infinity at 0, NaN below."""
    return input._function(b.modified_bessel_k0)


def modified_bessel_k1(input: Tensor) -> Tensor:
    """The modified Bessel function of the second kind and order 1: infinity at 0, NaN below."""
    return input._function(b.modified_bessel_k1)


def scaled_modified_bessel_k0(input: Tensor) -> Tensor:
    """exp(x) times the modified Bessel function of the second kind and order 0."""
    return input._function(b.scaled_modified_bessel_k0)


def scaled_modified_bessel_k1(input: Tensor) -> Tensor:
    """exp(x) times the modified Bessel function of the second kind and order 1."""
    return input._function(b.scaled_modified_bessel_k1)


def airy_ai(input: Tensor) -> Tensor:
    """Airy's function Ai, which solves y'' = x y and decays for positive x. It has no derivative, as in PyTorch."""
    return input._function(lambda x: without_derivative("airy_ai", b.airy_ai(x), x))


def igamma(input: Tensor, other: Tensor) -> Tensor:
    """The regularized lower incomplete gamma function P(input, other); a gradient by `other` only. A host call."""
    return joined(lambda a, x: _incomplete(a, x, False), input, other, floats=True)


def igammac(input: Tensor, other: Tensor) -> Tensor:
    """The regularized upper incomplete gamma function, 1 - P(input, other); a gradient by `other` only. A host call."""
    return joined(lambda a, x: _incomplete(a, x, True), input, other, floats=True)


def zeta(input: Operand, other: Operand) -> Tensor:
    """Hurwitz's zeta function, the sum of (other + k)^-input over k >= 0; a gradient by `other` only. A host call."""
    return joined(_zeta, input, other, floats=True)


def _entropy(x: Node) -> Node:
    zero = constant(0.0, x.dtype)
    inside = e.where(e.eq(x, zero), constant(1.0, x.dtype), x)
    value = e.where(e.lt(x, zero), constant(-math.inf, x.dtype), e.neg(e.mul(inside, e.log(inside))))

    def rule(_: Node, cotangent: Node) -> list[Node | None]:
        return [e.neg(e.mul(cotangent, e.add(constant(1.0, x.dtype), e.log(x))))]

    return custom(e.where(e.eq(x, zero), zero, value), (x,), rule)


def _spherical_j0(x: Node) -> Node:
    infinite = e.eq(e.absolute(x), constant(math.inf, x.dtype))
    finite = e.where(infinite, constant(1.0, x.dtype), x)
    return e.where(infinite, constant(0.0, x.dtype), sine_over_angle(finite, e.sin(finite)))


def _ndtr(x: Node) -> Node:
    return e.mul(constant(0.5, x.dtype), sp.erfc(e.mul(x, constant(-math.sqrt(0.5), x.dtype))))


def _by_the_second(name: str, function: Callable[..., np.ndarray], x: Node, y: Node, slope: Callable[[], Node]) -> Node:
    """A host call differentiated by its second operand; by the first it has no known derivative."""
    primal = host_call((x, y), function, broadcast_shapes(name, x.shape, y.shape), x.dtype)
    source = user_source()

    def rule(_: Node, cotangent: Node) -> list[Node | None]:
        if x.requires_grad:
            raise GradientError(f"{name} has no derivative by its first argument (at {source}); use .detach() on it")
        return [None, e.mul(cotangent, slope())]

    return custom(primal, (x, y), rule)


def _incomplete(a: Node, x: Node, upper: bool) -> Node:
    def slope() -> Node:
        density = _density(a, x)
        return e.neg(density) if upper else density

    function = _upper_gamma if upper else _lower_gamma
    return _by_the_second("igammac" if upper else "igamma", function, a, x, slope)


def _density(a: Node, x: Node) -> Node:
    """x^(a - 1) exp(-x) / gamma(a). By logarithms it would have lost half of float32's digits at a = 1,000."""

    def slope() -> Node:
        one = constant(1.0, a.dtype)
        return e.mul(_density(a, x), e.sub(e.div(e.sub(a, one), x), one))

    return _by_the_second("igamma", gamma_density, a, x, slope)


def _lower_gamma(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    return incomplete_gamma(a, x, upper=False)


def _upper_gamma(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    return incomplete_gamma(a, x, upper=True)


def _zeta(s: Node, q: Node) -> Node:
    def slope() -> Node:
        return e.neg(e.mul(s, _zeta(e.add(s, constant(1.0, s.dtype)), q)))

    return _by_the_second("zeta", hurwitz, s, q, slope)
