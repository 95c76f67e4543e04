"""Orthogonal polynomials under PyTorch's names, of a degree `n` that is a number or a tensor. Host calls.

They have no derivatives, as in PyTorch: asking for one raises `GradientError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import GradientError
from ..graph.node import Node
from ..ops import polynomials
from ..ops.elementwise import broadcast_shapes
from ..ops.host import custom, host_call
from ..ops.primitive import user_source
from .pairs import joined
from .promotion import Operand

if TYPE_CHECKING:
    from . import Tensor


def without_derivative(name: str, primal: Node, *inputs: Node) -> Node:
    """The node of a function of which PyTorch has no derivative either: asking for one raises GradientError."""
    source = user_source()

    def rule(_: Node, cotangent: Node) -> list[Node | None]:
        raise GradientError(f"{name} has no derivative (at {source}), as in PyTorch; use .detach()")

    return custom(primal, inputs, rule)


def _values(name: str, family: polynomials.Family, input: Operand, n: Operand) -> Tensor:
    def build(x: Node, degree: Node) -> Node:
        primal = host_call((x, degree), family, broadcast_shapes(name, x.shape, degree.shape), x.dtype)
        return without_derivative(name, primal, x, degree)

    return joined(build, input, n, floats=True)


def chebyshev_polynomial_t(input: Operand, n: Operand) -> Tensor:
    """Chebyshev's polynomial of the first kind and degree n; 0 for negative n.

    >>> pb.special.chebyshev_polynomial_t(pb.tensor([0.5, 2.0]), 3)
    tensor([-1., 26.])
    """
    return _values("chebyshev_polynomial_t", polynomials.CHEBYSHEV_T, input, n)


def chebyshev_polynomial_u(input: Operand, n: Operand) -> Tensor:
    """Chebyshev's polynomial of the second kind and degree n; 0 for negative n."""
    return _values("chebyshev_polynomial_u", polynomials.CHEBYSHEV_U, input, n)


def chebyshev_polynomial_v(input: Operand, n: Operand) -> Tensor:
    """Chebyshev's polynomial of the third kind and degree n; 0 for negative n."""
    return _values("chebyshev_polynomial_v", polynomials.CHEBYSHEV_V, input, n)


def chebyshev_polynomial_w(input: Operand, n: Operand) -> Tensor:
    """Chebyshev's polynomial of the fourth kind and degree n; 0 for negative n."""
    return _values("chebyshev_polynomial_w", polynomials.CHEBYSHEV_W, input, n)


def hermite_polynomial_h(input: Operand, n: Operand) -> Tensor:
    """The physicists' Hermite polynomial of degree n; NaN for n beyond 512 (128 in float32), as PyTorch has it."""
    return _values("hermite_polynomial_h", polynomials.HERMITE_H, input, n)


def hermite_polynomial_he(input: Operand, n: Operand) -> Tensor:
    """The probabilists' Hermite polynomial of degree n; NaN for n beyond 512 (128 in float32), as PyTorch has it."""
    return _values("hermite_polynomial_he", polynomials.HERMITE_HE, input, n)


def laguerre_polynomial_l(input: Operand, n: Operand) -> Tensor:
    """Laguerre's polynomial of degree n; 0 for negative n."""
    return _values("laguerre_polynomial_l", polynomials.LAGUERRE_L, input, n)


def legendre_polynomial_p(input: Operand, n: Operand) -> Tensor:
    """Legendre's polynomial of degree n; 0 for negative n."""
    return _values("legendre_polynomial_p", polynomials.LEGENDRE_P, input, n)


def shifted_chebyshev_polynomial_t(input: Operand, n: Operand) -> Tensor:
    """Chebyshev's polynomial of the first kind and degree n at 2 input - 1."""
    return _values("shifted_chebyshev_polynomial_t", polynomials.SHIFTED_CHEBYSHEV_T, input, n)


def shifted_chebyshev_polynomial_u(input: Operand, n: Operand) -> Tensor:
    """Chebyshev's polynomial of the second kind and degree n at 2 input - 1."""
    return _values("shifted_chebyshev_polynomial_u", polynomials.SHIFTED_CHEBYSHEV_U, input, n)


def shifted_chebyshev_polynomial_v(input: Operand, n: Operand) -> Tensor:
    """Chebyshev's polynomial of the third kind and degree n at 2 input - 1."""
    return _values("shifted_chebyshev_polynomial_v", polynomials.SHIFTED_CHEBYSHEV_V, input, n)


def shifted_chebyshev_polynomial_w(input: Operand, n: Operand) -> Tensor:
    """Chebyshev's polynomial of the fourth kind and degree n at 2 input - 1."""
    return _values("shifted_chebyshev_polynomial_w", polynomials.SHIFTED_CHEBYSHEV_W, input, n)
