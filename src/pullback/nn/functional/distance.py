"""Distances and likenesses of vectors, and the bilinear form."""

from __future__ import annotations

import numpy as np

from ...errors import ShapeError
from ...ops.elementwise import broadcast_shapes
from ...ops.primitive import user_source
from ...tensor import Tensor
from ...tensor.autocast_mode import is_autocast_enabled, unlowered, widening
from ...tensor.creation import tensor
from ...tensor.einsum import einsum
from ...tensor.promotion import require_float, result_type
from .linear import fitting


def _norm(x: Tensor, p: float, keepdim: bool = False) -> Tensor:
    return x.norm(p, -1, keepdim=keepdim)


def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """The p-norm of x1 - x2 + eps along the last axis; the other axes broadcast."""
    broadcast_shapes("pairwise_distance", x1.shape, x2.shape)
    return _norm(x1 - x2 + eps, p, keepdim)


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """x1 · x2 / (max(‖x1‖, eps) max(‖x2‖, eps)) along `dim`; the other axes broadcast."""
    dtype = result_type(x1, x2)
    first, second = x1.to(dtype), x2.to(dtype)
    require_float("cosine_similarity", first)
    shape = broadcast_shapes("cosine_similarity", x1.shape, x2.shape)
    first, second = first.expand(shape), second.expand(shape)
    parts = []
    for x in (first, second):
        length = x.norm(2, dim, keepdim=True).clone()
        length.detach().clamp_(min=eps)  # the gradient goes past the limit, as in PyTorch
        parts.append(x / length)
    return (parts[0] * parts[1]).sum(dim)


@widening
def cdist(
    x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str | None = "use_mm_for_euclid_dist_if_necessary"
) -> Tensor:
    """The p-norms of the differences of every row of x1 and every row of x2: [..., m, d], [..., n, d] to [..., m, n].

    `compute_mode` chooses among PyTorch's ways of computing; here all are the same, by differences, which is exact
    where rows nearly agree.
    """
    modes = ("use_mm_for_euclid_dist_if_necessary", "use_mm_for_euclid_dist", "donot_use_mm_for_euclid_dist", None)
    if compute_mode not in modes:
        raise ValueError(f"cdist: compute_mode must be one of {modes}, got {compute_mode!r} (at {user_source()})")
    if x1.ndim < 2 or x2.ndim < 2 or x1.shape[-1] != x2.shape[-1]:
        raise ShapeError(
            f"cdist takes rows of one size, got {list(x1.shape)} and {list(x2.shape)} (at {user_source()})"
        )
    if p < 0:
        raise ValueError(f"cdist: p must not be negative, got {p} (at {user_source()})")
    require_float("cdist", x1)
    require_float("cdist", x2)
    return _distance(x1.unsqueeze(-2) - x2.unsqueeze(-3), p)


def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """The p-norms of the differences of all pairs of rows of a matrix [n, d], in order: [n (n - 1) / 2]."""
    if input.ndim != 2:
        raise ShapeError(f"pdist takes a matrix, got {list(input.shape)} (at {user_source()})")
    if p < 0:
        raise ValueError(f"pdist: p must not be negative, got {p} (at {user_source()})")
    require_float("pdist", input)
    first, second = np.triu_indices(input.shape[0], 1)
    return _distance(input[tensor(first)] - input[tensor(second)], p)


def _distance(difference: Tensor, p: float) -> Tensor:
    """The p-norm along the last axis; 0 of no elements."""
    if difference.shape[-1] == 0:
        return difference.sum(-1)
    return _norm(difference, p)


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x1ᵀ W_o x2 + b_o for each o. Shapes: [..., i], [..., j], weight [o, i, j], bias [o], result [..., o].

    Under autocast it stays in the dtype of its operands, of different ones in the wider.
    """
    fits = weight.ndim == 3 and input1.ndim == input2.ndim and input1.shape[:-1] == input2.shape[:-1]
    if not fits or (input1.shape[-1], input2.shape[-1]) != weight.shape[1:]:
        raise ShapeError(
            f"bilinear: inputs {list(input1.shape)} and {list(input2.shape)} must agree but for the last axes, which "
            f"are those of weight {list(weight.shape)}, [out, in1, in2] (at {user_source()})"
        )
    operands = [input1, weight, input2]
    if is_autocast_enabled():  # PyTorch refuses what autocast has made different
        operands = [operand.to(result_type(*operands)) for operand in operands]
    product = unlowered(einsum)("...i,oij,...j->...o", *operands)
    return product if bias is None else product + fitting("bilinear", "bias", bias, product)


__all__ = ["bilinear", "cdist", "cosine_similarity", "pairwise_distance", "pdist"]
