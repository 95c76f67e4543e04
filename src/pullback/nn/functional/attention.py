"""Attention."""

from __future__ import annotations

import math

from ...autograd.function import with_gradient
from ...errors import DTypeError, ShapeError
from ...graph.types import bool_, float32, int64
from ...ops.attention import attention
from ...ops.elementwise import broadcast_shapes, le, lt
from ...ops.movement import expand
from ...ops.primitive import constant, iota, user_source
from ...tensor import Tensor
from ...tensor.arithmetic import where
from ...tensor.autocast_mode import lowered
from ...tensor.grad_modes import no_grad
from ...tensor.random import uniform_nodes
from .activation import dropout, finished, softmax, widened

#: queries below which a tile would be mostly empty
_FEW_QUERIES = 4


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """softmax(query keyᵀ scale + mask) value: Vaswani et al., "Attention Is All You Need" (2017), section 3.2.1.

    Shapes: query [..., L, E], key [..., S, E], value [..., S, V], result [..., L, V]; leading axes broadcast.
    `attn_mask`, broadcast to [..., L, S], is bool (True: may be looked at) or added to the scores. `is_causal` lets
    position i look at 0 to i. `scale` is 1 / sqrt(E) unless given. A query that may look at nothing gets zeros.
    """
    query, key, value, attn_mask = lowered(query, key, value, attn_mask)
    if attn_mask is not None and is_causal:
        raise ValueError(f"scaled_dot_product_attention takes attn_mask or is_causal, not both (at {user_source()})")
    if min(query.ndim, key.ndim, value.ndim) < 2:
        raise ShapeError(
            f"scaled_dot_product_attention: query, key and value need at least 2 axes, got {list(query.shape)}, "
            f"{list(key.shape)} and {list(value.shape)} (at {user_source()})"
        )
    if not 0 <= dropout_p <= 1:
        raise ValueError(
            f"scaled_dot_product_attention: dropout_p must lie between 0 and 1, got {dropout_p} (at {user_source()})"
        )
    factor = 1 / math.sqrt(max(query.shape[-1], 1)) if scale is None else float(scale)
    if query.shape[-2] < _FEW_QUERIES:
        return _composed(query, key, value, attn_mask, dropout_p, is_causal, factor)
    return _tiled(query, key, value, attn_mask, dropout_p, is_causal, factor)


def _tiled(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout_p: float, is_causal: bool, factor: float
) -> Tensor:
    """By the primitive, whose memory grows with L + S."""
    batch = broadcast_shapes("scaled_dot_product_attention", *(t.shape[:-2] for t in (query, key, value)))
    scores = (query.shape[-2], key.shape[-2])
    added = None
    if mask is not None:
        _check_mask(mask)
        batch = broadcast_shapes("scaled_dot_product_attention", batch, mask.shape[:-2])
        given = mask if mask.dtype is bool_ else mask.to(query.dtype.compute)
        added = expand(given.node, (*batch, *scores))
    choice, kept = None, None
    if dropout_p:
        uniform = uniform_nodes((*batch, *scores), float32, None)
        choice, kept = lt(uniform, constant(1 - dropout_p, float32)), 0.0 if dropout_p == 1 else 1 / (1 - dropout_p)
    q, k, v = (expand(t.node, (*batch, *t.shape[-2:])) for t in (query, key, value))
    return Tensor(attention(q, k, v, factor, is_causal, added, choice, kept))


def _composed(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout_p: float, is_causal: bool, factor: float
) -> Tensor:
    """By matrix products and softmax, whose memory grows with L S: for few queries the faster way."""
    scores = (query @ key.transpose(-2, -1)) * factor
    if is_causal:
        size = (scores.shape[-2], scores.shape[-1])
        allowed = Tensor(le(iota(size, 1, int64), iota(size, 0, int64)))
        weights = softmax(where(allowed, scores, -math.inf), -1)
    elif mask is None:
        weights = softmax(scores, -1)
    else:
        weights = _masked_softmax(_masked(scores, mask))
    if dropout_p:
        weights = dropout(weights, dropout_p)
    return weights @ value


def _check_mask(mask: Tensor) -> None:
    if mask.dtype is not bool_ and not mask.dtype.is_floating_point:
        raise DTypeError(
            f"scaled_dot_product_attention: attn_mask must be bool or floating point, got {mask.dtype.name} "
            f"(at {user_source()})"
        )


def _masked(scores: Tensor, mask: Tensor) -> Tensor:
    _check_mask(mask)
    if mask.dtype is bool_:
        return where(mask, scores, -math.inf)
    return scores + mask.to(scores.dtype)


def _masked_softmax(scores: Tensor) -> Tensor:
    """softmax over the last axis, in which rows of nothing but -inf give zeros."""
    x = widened("scaled_dot_product_attention", scores)
    with no_grad():
        greatest = x.amax(-1, keepdim=True)
        powers = (x - greatest.masked_fill(greatest == -math.inf, 0.0)).exp()
        total = powers.sum(-1, keepdim=True)
        primal = powers / total.masked_fill(total == 0, 1.0)

    def rule(result: Tensor, cotangent: Tensor) -> list[Tensor]:
        return [result * (cotangent - (result * cotangent).sum(-1, keepdim=True))]

    return finished(with_gradient(primal, [x], rule), scores)
