"""Norms of vectors and matrices, and what is composed of them."""

from __future__ import annotations

import math
from typing import Any

from ..autograd.function import with_gradient
from ..errors import ShapeError
from ..graph.types import DType
from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.arithmetic import where
from ..tensor.autocast_mode import lowered, widening
from ..tensor.creation import zeros_like
from ..tensor.promotion import require_float
from ..tensor.reductions import normalize_axes
from .decompositions import svdvals
from .solving import inv

Axes = int | tuple[int, ...] | list[int] | None


def vector_norm(
    x: Tensor, ord: float = 2, dim: Axes = None, keepdim: bool = False, *, dtype: DType | None = None
) -> Tensor:
    """The vector norm of order `ord` (any number, inf or -inf) along `dim`, None taking all elements as one vector.

    With `dtype` the elements are converted first. Of no elements: 0, or an error where the order has no such norm.
    """
    if isinstance(ord, bool) or not isinstance(ord, (int, float)):
        raise TypeError(f"vector_norm: ord must be a number, got {ord!r} (at {user_source()})")
    x = x if dtype is None else x.to(dtype)
    require_float("vector_norm", x)
    axes = normalize_axes(dim, x.ndim, "vector_norm")
    if (ord < 0 or ord == math.inf) and any(x.shape[a] == 0 for a in axes):
        raise ShapeError(
            f"vector_norm: of order {ord} of no elements, {list(x.shape)} along {dim} (at {user_source()})"
        )
    kept = tuple(1 if a in axes else s for a, s in enumerate(x.shape))
    size = x.detach().to(x.dtype.compute).abs()
    if ord in (math.inf, -math.inf):
        value = size.amax(axes, True) if ord > 0 else size.amin(axes, True)
    elif ord == 0:
        value = (size != 0).to(size.dtype).sum(axes, True)
    elif ord == 2:
        value = (size * size).sum(axes, True).sqrt()
    else:
        value = size.sum(axes, True) if ord == 1 else (size**ord).sum(axes, True) ** (1.0 / ord)
    if not axes:
        value = value.reshape(kept)
    shape = kept if keepdim else tuple(s for a, s in enumerate(x.shape) if a not in axes)

    def rule(result: Tensor, g: Tensor) -> list[Tensor]:
        wide = x.to(x.dtype.compute)
        found = _slope(wide, result.reshape(kept).to(wide.dtype), g.reshape(kept).to(wide.dtype), ord, axes)
        return [found.to(x.dtype)]

    return with_gradient(value.reshape(shape).to(x.dtype), [x], rule)


def _slope(x: Tensor, norm_: Tensor, g: Tensor, ord: float, axes: tuple[int, ...]) -> Tensor:
    """The cotangent of a vector whose norm has cotangent `g`; where there is no slope, 0, as PyTorch has it."""
    if ord == 0:
        return zeros_like(x)
    if ord == 1:
        return x.sign() * g
    if ord in (math.inf, -math.inf):
        reached = (x.abs() == norm_).to(x.dtype)
        return x.sign() * reached * (g / reached.sum(axes, True))
    if ord == 2:
        return where(norm_ == 0, 0.0, x * (g / where(norm_ == 0, 1.0, norm_)))
    separate = 0 < ord < 2  # elsewhere no element's share of the norm has a power that is no float
    # of a negative order the norm is 0 where any element is, and changes with none of the others
    nothing = x == 0 if separate else norm_ == 0
    safe_norm = where(norm_ == 0, 1.0, norm_)
    ratio = where(nothing, 1.0, x.abs() if separate else x.abs() / safe_norm)
    if separate:
        return where(nothing, 0.0, x.sign() * ratio ** (ord - 1) * (g / safe_norm ** (ord - 1)))
    return where(nothing, 0.0, x.sign() * ratio ** (ord - 1) * g)


def matrix_norm(
    A: Tensor, ord: float | str = "fro", dim: Any = (-2, -1), keepdim: bool = False, *, dtype: DType | None = None
) -> Tensor:
    """The matrix norm over the two axes `dim`: "fro", "nuc", inf, -inf, 1, -1, 2 or -2."""
    A = A if dtype is None else A.to(dtype)
    require_float("matrix_norm", A)
    if isinstance(dim, int) or len(dim) != 2:
        raise ShapeError(f"matrix_norm: dim must be two axes, got {dim} (at {user_source()})")
    if A.ndim < 2:
        raise ShapeError(f"matrix_norm takes matrices, got {list(A.shape)} (at {user_source()})")
    rows, columns = (d % A.ndim for d in dim)
    if rows == columns:
        raise ShapeError(f"matrix_norm: dim {dim} names one axis twice (at {user_source()})")
    if ord == "fro":
        return vector_norm(A, 2, (rows, columns), keepdim)
    if ord not in ("nuc", math.inf, -math.inf, 1, -1, 2, -2):
        raise ValueError(f'matrix_norm: ord must be "fro", "nuc", ±inf, ±1 or ±2, got {ord!r} (at {user_source()})')
    others = [a for a in range(A.ndim) if a not in (rows, columns)]
    moved = A.permute(*others, rows, columns)
    found = _plain_matrix_norm(moved, ord)
    return found.reshape(tuple(1 if a in (rows, columns) else s for a, s in enumerate(A.shape))) if keepdim else found


def _plain_matrix_norm(A: Tensor, ord: float | str) -> Tensor:
    if not A.numel():
        return A.sum((-2, -1))
    if ord in ("nuc", 2, -2):
        S = svdvals(A)
        if ord == "nuc":
            return S.sum(-1)
        return S.amax(-1) if ord == 2 else S.amin(-1)
    sums = A.abs().sum(-2 if ord in (1, -1) else -1)
    return sums.amax(-1) if ord in (1, math.inf) else sums.amin(-1)


def norm(
    A: Tensor, ord: float | str | None = None, dim: Axes = None, keepdim: bool = False, *, dtype: DType | None = None
) -> Tensor:
    """The vector or matrix norm: of a vector for one axis or a number over vectors, of a matrix for two axes.

    Without `ord` the root of the sum of squares, of all elements where `dim` is None.
    """
    if ord is None:
        return vector_norm(A, 2, dim, keepdim, dtype=dtype)
    axes = 1 if isinstance(dim, int) else A.ndim if dim is None else len(dim)
    if dim is None and A.ndim > 2:
        raise ShapeError(f"norm: of order {ord} over {A.ndim} axes; name one or two with dim (at {user_source()})")
    if axes == 2:
        return matrix_norm(A, ord, (-2, -1) if dim is None else dim, keepdim, dtype=dtype)
    if isinstance(ord, str):
        raise ValueError(f"norm: {ord!r} is a norm of matrices: two axes, got {axes} (at {user_source()})")
    return vector_norm(A, ord, dim, keepdim, dtype=dtype)


@widening
def cond(A: Tensor, p: float | str | None = None) -> Tensor:
    """The condition number in a matrix norm `p` (default 2): ‖A‖ ‖A⁻¹‖; infinite where A is singular."""
    if p in (None, 2, -2):
        S = svdvals(A)
        return S[..., 0] / S[..., -1] if p != -2 else S[..., -1] / S[..., 0]
    if A.shape[-1] != A.shape[-2]:
        raise ShapeError(f"cond: the norm {p} takes square matrices, got {list(A.shape)} (at {user_source()})")
    return matrix_norm(A, p) * matrix_norm(inv(A), p)


def vecdot(x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
    """The inner products of vectors along `dim`; the other axes broadcast."""
    x, y = lowered(x, y)
    return (x * y).sum(dim)


def matmul(input: Tensor, other: Tensor) -> Tensor:
    """The matrix product, as `pullback.matmul`."""
    return input @ other
