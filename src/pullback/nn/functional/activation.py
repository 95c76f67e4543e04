"""Activation functions, softmax and dropout.

The 16-bit floats are widened to float32 at the start of each function and rounded once at its end.
"""

from __future__ import annotations

import math
import warnings
from functools import partial

from ...autograd.function import with_gradient
from ...graph.types import DType, float32
from ...ops.elementwise import lt
from ...ops.primitive import constant, user_source
from ...tensor import Tensor
from ...tensor.arguments import real
from ...tensor.arithmetic import where
from ...tensor.grad_modes import no_grad
from ...tensor.promotion import require_float
from ...tensor.random import Generator, uniform_nodes
from ...tensor.reductions import normalize_axis


def widened(name: str, input: Tensor) -> Tensor:
    """`input` in the dtype that it is computed in (float32 for the 16-bit floats), as a handle of its own.

    Gradient rules hold on to what this gives: writing to `input` in place afterwards does not reach it.
    """
    require_float(name, input)
    return Tensor(input.to(input.dtype.compute).node)


def finished(result: Tensor, input: Tensor, inplace: bool = False) -> Tensor:
    """`result` rounded to the dtype of `input`, and written into `input` if `inplace`."""
    rounded = result.to(input.dtype)
    return input._assign(rounded.node) if inplace else rounded


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """The element where positive, else 0; NaN stays NaN. The gradient at 0 is 0."""
    return finished(input.relu(), input, inplace)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """The element where positive, else `negative_slope` times it."""
    x = widened("leaky_relu", input)
    return finished(where(x > 0, x, x * negative_slope), input, inplace)


def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    return input.sigmoid()


def tanh(input: Tensor) -> Tensor:
    """The hyperbolic tangent."""
    return input.tanh()


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x * sigmoid(x)."""
    x = widened("silu", input)
    return finished(x * x.sigmoid(), input, inplace)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x * Φ(x), Φ the normal distribution function; with "tanh" the approximation of Hendrycks & Gimpel (2016)."""
    if approximate not in ("none", "tanh"):
        raise ValueError(f'gelu: approximate must be "none" or "tanh", got {approximate!r} (at {user_source()})')
    x = widened("gelu", input)
    if approximate == "none":
        return finished(x * 0.5 * (1 + (x * math.sqrt(0.5)).erf()), input)
    inner = (x + x * x * x * 0.044715) * math.sqrt(2 / math.pi)
    return finished(x * 0.5 * (1 + inner.tanh()), input)


def _log1p_of_exp(x: Tensor) -> Tensor:
    """log(1 + exp(x)) for x ≤ 0 without losing the small ones: log(u) e / (u - 1), u = 1 + e (Kahan's quotient)."""
    small = x.exp()
    u = 1 + small
    return where(u == 1, small, u.log() * (small / (u - 1)))


def logsigmoid(input: Tensor) -> Tensor:
    """log(sigmoid(x)), without overflow and exact for large x."""
    x = widened("logsigmoid", input)
    with no_grad():
        primal = x.clamp(max=0.0) - _log1p_of_exp(-x.abs())
    return finished(with_gradient(primal, [x], lambda _, cotangent: [cotangent * (-x).sigmoid()]), input)


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta * x)) / beta, and x itself where beta * x is above `threshold`."""
    x = widened("softplus", input)
    return finished(where(x * beta > threshold, x, -logsigmoid(-(x * beta)) / beta), input)


def shifted_by_maximum(x: Tensor, dim: int) -> Tensor:
    """x less its greatest element along `dim`, taken as a number: softmax does not change, and exp cannot overflow."""
    return x - x.amax(dim, keepdim=True).detach()


def _prepared(name: str, input: Tensor, dtype: DType | None) -> Tensor:
    source = input if dtype is None else input.to(dtype)
    require_float(name, source)
    return source


def _axis(name: str, input: Tensor, dim: int | None, stacklevel: int) -> int:
    """`dim`, or where it is None what PyTorch takes, which deserves a warning: 0 of 0, 1 or 3 axes, else 1."""
    if dim is not None:
        return normalize_axis(dim, input.ndim, name)
    warnings.warn(f"{name}: dim is chosen by the number of axes; name it", stacklevel=stacklevel + 1)
    return 0 if input.ndim in (0, 1, 3) else 1


def softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: DType | None = None) -> Tensor:
    """exp(x) / sum(exp(x)) along `dim`, computed in `dtype` if given. A row of nothing but -inf gives NaN.

    >>> pb.nn.functional.softmax(pb.zeros(4), dim=0)
    tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """
    dim = _axis("softmax", input, dim, _stacklevel)
    source = _prepared("softmax", input, dtype)
    if source.numel() == 0:
        return source.clone()
    x = widened("softmax", source)
    with no_grad():
        powers = shifted_by_maximum(x, dim).exp()
        primal = powers / powers.sum(dim, keepdim=True)

    def rule(result: Tensor, cotangent: Tensor) -> list[Tensor]:
        return [result * (cotangent - (result * cotangent).sum(dim, keepdim=True))]

    return finished(with_gradient(primal, [x], rule), source)


def log_softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: DType | None = None) -> Tensor:
    """log(softmax(x)) along `dim`, computed in `dtype` if given."""
    dim = _axis("log_softmax", input, dim, _stacklevel)
    source = _prepared("log_softmax", input, dtype)
    if source.numel() == 0:
        return source.clone()
    x = widened("log_softmax", source)
    with no_grad():
        shifted = shifted_by_maximum(x, dim)
        primal = shifted - shifted.exp().sum(dim, keepdim=True).log()

    def rule(result: Tensor, cotangent: Tensor) -> list[Tensor]:
        return [cotangent - result.exp() * cotangent.sum(dim, keepdim=True)]

    return finished(with_gradient(primal, [x], rule), source)


def softmin(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: DType | None = None) -> Tensor:
    """softmax(-x) along `dim`."""
    return softmax(-input, _axis("softmin", input, dim, _stacklevel), dtype=dtype)


def dropout(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, generator: Generator | None = None
) -> Tensor:
    """Each element 0 with probability `p`, else divided by 1 - p; the input itself unless `training`.

    Srivastava et al., "Dropout" (JMLR 15, 2014), in the inverted form. The mask is a function of the generator's
    counter, so that computing it again gives the same mask.
    """
    if not 0 <= real(p, "dropout", "p") <= 1:
        raise ValueError(f"dropout: p must lie between 0 and 1, got {p} (at {user_source()})")
    require_float("dropout", input)
    if not training or p == 0:
        return input
    if p == 1:
        return finished(input * 0.0, input, inplace)
    x = widened("dropout", input)
    keep = Tensor(lt(uniform_nodes(x.shape, float32, generator), constant(1 - p, float32)))
    return finished(where(keep, x * (1 / (1 - p)), 0.0), input, inplace)


relu_, leaky_relu_ = partial(relu, inplace=True), partial(leaky_relu, inplace=True)
