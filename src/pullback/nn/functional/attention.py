"""Attention."""

from __future__ import annotations

import math

from ...autograd.function import with_gradient
from ...errors import DTypeError, ShapeError
from ...graph.types import bool_, int64
from ...ops.elementwise import le
from ...ops.primitive import iota, user_source
from ...tensor import Tensor
from ...tensor.arithmetic import where
from ...tensor.autocast_mode import lowered
from ...tensor.grad_modes import no_grad
from .activation import dropout, finished, softmax, widened


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
    scores = (query @ key.transpose(-2, -1)) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        size = (scores.shape[-2], scores.shape[-1])
        allowed = Tensor(le(iota(size, 1, int64), iota(size, 0, int64)))
        weights = softmax(where(allowed, scores, -math.inf), -1)
    elif attn_mask is None:
        weights = softmax(scores, -1)
    else:
        weights = _masked_softmax(_masked(scores, attn_mask))
    if dropout_p:
        weights = dropout(weights, dropout_p)
    return weights @ value


def _masked(scores: Tensor, mask: Tensor) -> Tensor:
    if mask.dtype is bool_:
        return where(mask, scores, -math.inf)
    if not mask.dtype.is_floating_point:
        raise DTypeError(
            f"scaled_dot_product_attention: attn_mask must be bool or floating point, got {mask.dtype.name} "
            f"(at {user_source()})"
        )
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
