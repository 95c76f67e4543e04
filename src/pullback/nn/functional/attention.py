"""Attention."""

from __future__ import annotations

import math

from ...autograd.function import with_gradient
from ...errors import DTypeError, ShapeError
from ...graph.types import DType, bool_, float32, int64
from ...ops.attention import attention
from ...ops.elementwise import broadcast_shapes, le, lt
from ...ops.movement import expand
from ...ops.primitive import constant, iota, unnamed, user_source
from ...tensor import Tensor
from ...tensor.arithmetic import where
from ...tensor.autocast_mode import lowered
from ...tensor.grad_modes import is_grad_enabled, no_grad
from ...tensor.products import product_in
from ...tensor.random import uniform_nodes
from ..attention import SDPBackend, allowed_ways
from .activation import dropout, finished, softmax, widened

#: queries up to which a tile would be mostly empty
_FEW_QUERIES = 16
#: weights of a head up to which its gradients are found sooner where they are kept: of float32 and float64 without a
#: causal mask and with one, and of the 16-bit floats (docs/decisions/attention.md)
_FEW_WEIGHTS, _FEW_CAUSAL_WEIGHTS, _FEW_SHORT_WEIGHTS = 64 * 64, 48 * 48, 24 * 24


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(query keyᵀ scale + mask) value: Vaswani et al., "Attention Is All You Need" (2017), section 3.2.1.

    Shapes: query [..., L, E], key [..., S, E], value [..., S, V], result [..., L, V]; leading axes broadcast.
    `attn_mask`, broadcast to [..., L, S], is bool (True: may be looked at) or added to the scores. `is_causal` lets
    position i look at 0 to i. `scale` is 1 / sqrt(E) unless given. A query that may look at nothing gets zeros.

    `enable_gqa` lets groups of query heads (axis -3) share a head of key and value: query head h looks at head
    h // (query heads / key heads). Ainslie et al., "GQA" (2023). The heads of key and of value must divide the query's.

    Memory grows with L + S: no matrix of weights is kept, save where it is so small that keeping it is faster. Second
    derivatives, and the gradient of a float mask, take memory in proportion to L S.
    """
    query, key, value, attn_mask = lowered(query, key, value, attn_mask)
    if attn_mask is not None and is_causal:
        raise ValueError(f"scaled_dot_product_attention takes attn_mask or is_causal, not both (at {user_source()})")
    if enable_gqa:
        key, value = _shared_heads(query, key, value)
    _check_operands(query, key, value)
    if attn_mask is not None:
        _check_mask(attn_mask, query.shape[-2], key.shape[-2])
    _check_batch(query, key, value, attn_mask)
    if not 0 <= dropout_p <= 1:
        raise ValueError(
            f"scaled_dot_product_attention: dropout_p must lie between 0 and 1, got {dropout_p} (at {user_source()})"
        )
    factor = 1 / math.sqrt(max(query.shape[-1], 1)) if scale is None else float(scale)
    way = _composed if _goes_by_products(query, key, value, is_causal) else _tiled
    return way(query, key, value, attn_mask, dropout_p, is_causal, factor)


def _shared_heads(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Key and value with each head repeated for the group of query heads that shares it."""
    name = "scaled_dot_product_attention"
    if min(query.ndim, key.ndim, value.ndim) < 3:
        listed = f"query {list(query.shape)}, key {list(key.shape)} and value {list(value.shape)}"
        raise ShapeError(f"{name}: enable_gqa needs heads on axis -3, got {listed} (at {user_source()})")
    heads = query.shape[-3]
    given = (key.shape[-3], value.shape[-3])
    if given == (heads, heads):
        return key, value
    if any(count == 0 or heads % count for count in given):
        raise ShapeError(
            f"{name}: with enable_gqa the heads of key ({given[0]}) and of value ({given[1]}) must divide "
            f"the query's ({heads}) (at {user_source()})"
        )
    return key.repeat_interleave(heads // given[0], -3), value.repeat_interleave(heads // given[1], -3)


def _goes_by_products(query: Tensor, key: Tensor, value: Tensor, is_causal: bool) -> bool:
    ways = allowed_ways()
    if not ways:
        raise RuntimeError(
            f"No viable backend for scaled_dot_product_attention was found (at {user_source()}): sdpa_kernel asked for "
            "none of MATH and FLASH_ATTENTION"
        )
    return ways[0] is SDPBackend.MATH if len(ways) == 1 else _is_small(query, key, value, is_causal)


def _is_small(query: Tensor, key: Tensor, value: Tensor, is_causal: bool) -> bool:
    """Whether matrix products and softmax are the faster way."""
    if query.shape[-2] <= _FEW_QUERIES:
        return True
    if not (is_grad_enabled() and any(t.requires_grad for t in (query, key, value))):
        return False
    weights = query.shape[-2] * key.shape[-2]
    if query.dtype is not query.dtype.compute:
        return weights <= _FEW_SHORT_WEIGHTS
    return weights <= (_FEW_CAUSAL_WEIGHTS if is_causal else _FEW_WEIGHTS)


def _tiled(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout_p: float, is_causal: bool, factor: float
) -> Tensor:
    """By the primitive, whose memory grows with L + S."""
    batch = broadcast_shapes("scaled_dot_product_attention", *(t.shape[:-2] for t in (query, key, value)))
    scores = (query.shape[-2], key.shape[-2])
    added = None
    if mask is not None:
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
    """By matrix products and softmax, whose memory grows with L S: for few queries the faster way.

    Of the 16-bit floats scores and weights, and their cotangents, are in float32; products round them as they read.
    """
    scores = product_of_scores(query, key.transpose(-2, -1), query.dtype.compute) * factor
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
    return product_of_scores(weights, value, query.dtype)


@unnamed
def product_of_scores(x: Tensor, y: Tensor, dtype: DType) -> Tensor:
    """x y in `dtype`: the product that makes the scores or the one that the weights go into.

    Its operands, and its cotangent, are rounded to the dtype of y as they are read, and nothing else is: the cotangent
    of weights in float32 is in float32, where that of a product of 16-bit floats would have been rounded.
    """
    if y.dtype is y.dtype.compute:
        return product_in(x, y, dtype)
    batch = broadcast_shapes("scaled_dot_product_attention", x.shape[:-2], y.shape[:-2])
    x, y = x.expand(*batch, *x.shape[-2:]), y.expand(*batch, *y.shape[-2:])
    low = y.dtype

    def times(a: Tensor, b: Tensor, dtype: DType) -> Tensor:
        return product_in(a.to(low), b.to(low), dtype)

    with no_grad():
        primal = times(x, y, dtype)

    def rule(_: Tensor, cotangent: Tensor) -> list[Tensor]:
        return [times(cotangent, y.transpose(-2, -1), x.dtype), times(x.transpose(-2, -1), cotangent, y.dtype)]

    return with_gradient(primal, [x, y], rule)


def _check_operands(query: Tensor, key: Tensor, value: Tensor) -> None:
    name, shapes = "scaled_dot_product_attention", [list(t.shape) for t in (query, key, value)]
    listed = f"query {shapes[0]}, key {shapes[1]} and value {shapes[2]}"
    if min(query.ndim, key.ndim, value.ndim) < 2:
        raise ShapeError(f"{name}: {listed} need at least 2 axes each (at {user_source()})")
    if query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2]:
        raise ShapeError(
            f"{name}: {listed} do not fit: query is [..., L, E], key [..., S, E] and value [..., S, V] "
            f"(at {user_source()})"
        )
    if len({query.dtype, key.dtype, value.dtype}) > 1 or not query.dtype.is_floating_point:
        raise DTypeError(
            f"{name} takes query, key and value of one floating point dtype, got {query.dtype.name}, {key.dtype.name} "
            f"and {value.dtype.name} (at {user_source()}). Convert them with .to(dtype)."
        )


def _check_mask(mask: Tensor, queries: int, keys: int) -> None:
    if mask.dtype is not bool_ and not mask.dtype.is_floating_point:
        raise DTypeError(
            f"scaled_dot_product_attention: attn_mask must be bool or floating point, got {mask.dtype.name} "
            f"(at {user_source()})"
        )
    shape = (1, 1, *mask.shape)[-2:]
    if shape[0] not in (1, queries) or shape[1] not in (1, keys):
        raise ShapeError(
            f"scaled_dot_product_attention: attn_mask {list(mask.shape)} does not broadcast to "
            f"[..., {queries}, {keys}] (at {user_source()})"
        )


def _check_batch(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> None:
    """ShapeError where the axes before the last two do not broadcast; heads that do not may be meant to be shared."""
    name = "scaled_dot_product_attention"
    heads = [t.shape[-3] for t in (query, key, value) if t.ndim > 2]
    if len(heads) == 3 and any(1 < other < heads[0] and heads[0] % other == 0 for other in heads[1:]):
        raise ShapeError(
            f"{name}: the heads (axis -3) of query {list(query.shape)}, key {list(key.shape)} and value "
            f"{list(value.shape)} differ: {heads[0]} and {min(heads[1:])} (at {user_source()}). With enable_gqa=True "
            "groups of query heads share those of key and value."
        )
    masks = () if mask is None else (mask.shape[:-2],)
    broadcast_shapes(f"{name}: of the axes before the last two", *(t.shape[:-2] for t in (query, key, value)), *masks)


def _masked(scores: Tensor, mask: Tensor) -> Tensor:
    if mask.dtype is bool_:
        return where(mask, scores, -math.inf)
    return scores + mask.to(scores.dtype)


def _masked_softmax(scores: Tensor) -> Tensor:
    """softmax over the last axis, in which rows of nothing but -inf give zeros."""
    if scores.numel() == 0:
        return scores
    x = widened("scaled_dot_product_attention", scores)
    with no_grad():
        greatest = x.amax(-1, keepdim=True)
        powers = (x - greatest.masked_fill(greatest == -math.inf, 0.0)).exp()
        total = powers.sum(-1, keepdim=True)
        primal = powers / total.masked_fill(total == 0, 1.0)

    def rule(result: Tensor, cotangent: Tensor) -> list[Tensor]:
        return [result * (cotangent - (result * cotangent).sum(-1, keepdim=True))]

    return finished(with_gradient(primal, [x], rule), scores)
