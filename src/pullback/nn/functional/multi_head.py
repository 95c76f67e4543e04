"""Attention with several heads, their projections and PyTorch's masks."""

from __future__ import annotations

import math
from typing import NamedTuple

from ...errors import DTypeError, ShapeError
from ...graph.types import bool_
from ...ops.primitive import unnamed, user_source
from ...tensor import Tensor
from ...tensor.arithmetic import where
from ...tensor.autocast_mode import lowered
from ...tensor.creation import zeros
from ...tensor.joining import cat
from .activation import dropout, softmax
from .attention import product_of_scores, scaled_dot_product_attention
from .linear import linear

_NAME = "multi_head_attention_forward"


class Projections(NamedTuple):
    """The parameters of attention with several heads: E is the width of queries and results.

    `packed` [3 E, E] gives queries, keys and values, or `separate` does: [E, E], [E, width of keys], [E, width of
    values]. `bias` is [3 E]; `further`, a pair of [1, 1, E], is one more key and value of every example.
    """

    packed: Tensor | None
    separate: tuple[Tensor, Tensor, Tensor] | None
    bias: Tensor | None
    further: tuple[Tensor, Tensor] | None
    out_weight: Tensor
    out_bias: Tensor | None


class Masks(NamedTuple):
    """Which keys a query may not look at: bool (True: not) or floats that are added to the scores.

    `scores` is [L, S] or [N H, L, S], `padding` [N, S]; N examples, H heads, L queries, S keys.
    """

    scores: Tensor | None
    padding: Tensor | None
    is_causal: bool = False


class Weights(NamedTuple):
    """What becomes of the weights: the probability to drop one, whether they are asked for, averaged over heads."""

    dropout_p: float
    needed: bool
    averaged: bool


def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Attention with several heads (Vaswani et al., 2017, section 3.2.2): the function of `nn.MultiheadAttention`.

    Shapes: query [L, N, E] or [L, E], key and value [S, N, E] or [S, E]; the result is as query, the weights
    [N, L, S] if averaged over the heads, else [N, H, L, S], or None where they are not needed. Masks as in
    `nn.MultiheadAttention`. `static_k` and `static_v` [N H, S, E / H] stand in the place of projected keys and values.
    """
    if query.ndim in (2, 3) and query.shape[-1] != embed_dim_to_check:
        raise ShapeError(f"{_NAME}: the embedding is {embed_dim_to_check} wide, got query {list(query.shape)}"
                         f" (at {user_source()})")  # fmt: skip
    if (bias_k is None) != (bias_v is None):
        raise ValueError(f"{_NAME} takes bias_k and bias_v, or neither (at {user_source()})")
    separate = _separate(q_proj_weight, k_proj_weight, v_proj_weight) if use_separate_proj_weight else None
    if separate is None and in_proj_weight is None:
        raise ValueError(f"{_NAME}: in_proj_weight is None, and use_separate_proj_weight is not set"
                         f" (at {user_source()})")  # fmt: skip
    further = None if bias_k is None or bias_v is None else (bias_k, bias_v)
    projections = Projections(in_proj_weight, separate, in_proj_bias, further, out_proj_weight, out_proj_bias)
    return attend(
        (query, key, value),
        num_heads,
        projections,
        Masks(attn_mask, key_padding_mask, is_causal),
        Weights(dropout_p if training else 0.0, need_weights, average_attn_weights),
        add_zero_attn,
        (static_k, static_v),
    )


def _separate(*weights: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    query, key, value = weights
    if query is None or key is None or value is None:
        raise ValueError(
            f"{_NAME}: with use_separate_proj_weight q_proj_weight, k_proj_weight and v_proj_weight are needed "
            f"(at {user_source()})"
        )
    return query, key, value


@unnamed
def attend(
    operands: tuple[Tensor, Tensor, Tensor],
    heads: int,
    projections: Projections,
    masks: Masks,
    weights: Weights,
    add_zero: bool = False,
    static: tuple[Tensor | None, Tensor | None] = (None, None),
    batch_first: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """The result and the weights (None where not needed); with `batch_first` the operands are [N, L or S, …]."""
    batched = _check(operands, heads, masks, projections.separate is not None)
    if not batched:
        operands, batch_first = _alike(operands), True
        masks = masks._replace(padding=None if masks.padding is None else masks.padding.unsqueeze(0))
    steps = 1 if batch_first else 0
    query, key, _ = operands
    projected = _projected(*operands, projections)
    q, k, v = (_heads(t, heads, batch_first) for t in _lengthened(projected, projections.further, static, steps))
    k, v = (t if given is None else _static(given, t) for t, given in zip((k, v), static, strict=True))
    if add_zero:
        k, v = (cat([t, zeros(*t.shape[:2], 1, t.shape[-1], dtype=t.dtype)], -2) for t in (k, v))
    sizes = (query.shape[1 - steps], heads, query.shape[steps], key.shape[steps])
    mask, is_causal = _merged(masks, weights.needed, sizes, (projections.further is not None) + add_zero)
    if mask is not None and mask.shape[-1] != k.shape[-2]:
        raise ShapeError(
            f"{_NAME}: the masks are for {mask.shape[-1]} keys, and there are {k.shape[-2]} (at {user_source()})"
        )
    kept = None
    if weights.needed:
        result, kept = _with_weights(q, k, v, mask, weights)
    else:
        result = scaled_dot_product_attention(q, k, v, mask, weights.dropout_p, is_causal)
    joined = result.permute(0, 2, 1, 3) if batch_first else result.permute(2, 0, 1, 3)
    output = linear(joined.flatten(2), projections.out_weight, projections.out_bias)
    if batched:
        return output, kept
    return output.squeeze(0), None if kept is None else kept.squeeze(0)


def _alike(operands: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """The operands with a batch axis in front; what was one tensor stays one."""
    made: dict[int, Tensor] = {}
    return tuple(made.setdefault(id(t), t.unsqueeze(0)) for t in operands)  # type: ignore[return-value]


def _lengthened(
    projected: tuple[Tensor, Tensor, Tensor],
    further: tuple[Tensor, Tensor] | None,
    static: tuple[Tensor | None, Tensor | None],
    steps: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, the latter with one more along the axis `steps`."""
    if further is None:
        return projected
    if static != (None, None):
        raise ValueError(f"{_NAME}: bias_k and bias_v cannot be added to static keys or values (at {user_source()})")
    query, key, value = projected
    shape = (key.shape[0], 1, -1) if steps else (1, key.shape[1], -1)
    key, value = (
        cat([t, bias.to(t.dtype).expand(*shape)], steps) for t, bias in zip((key, value), further, strict=True)
    )
    return query, key, value


def _check(operands: tuple[Tensor, Tensor, Tensor], heads: int, masks: Masks, separate: bool) -> bool:
    """Whether the operands have a batch axis; ShapeError where they or the masks do not fit."""
    query, key, value = operands
    listed = f"query {list(query.shape)}, key {list(key.shape)} and value {list(value.shape)}"
    if query.ndim not in (2, 3) or key.ndim != query.ndim or value.ndim != query.ndim:
        raise ShapeError(f"{_NAME} takes three operands of 3 axes (a batch) or of 2, got {listed} (at {user_source()})")
    batched = query.ndim == 3
    if key.shape[:-1] != value.shape[:-1] or (not separate and key.shape != value.shape):
        raise ShapeError(f"{_NAME}: keys and values must go in pairs, got {listed} (at {user_source()})")
    if query.shape[-1] % heads:
        raise ShapeError(
            f"{_NAME}: the embedding {query.shape[-1]} is not divisible by num_heads {heads} (at {user_source()})"
        )
    _check_mask("attn_mask", masks.scores, (2, 3), listed)
    _check_mask("key_padding_mask", masks.padding, (2 if batched else 1,), listed)
    if masks.is_causal and masks.scores is None:
        raise ValueError(
            f"{_NAME}: is_causal says that attn_mask is the causal mask, and needs attn_mask (at {user_source()}): "
            "nn.Transformer.generate_square_subsequent_mask(L) makes it"
        )
    return batched


def _check_mask(name: str, mask: Tensor | None, axes: tuple[int, ...], listed: str) -> None:
    if mask is None:
        return
    if mask.dtype is not bool_ and not mask.dtype.is_floating_point:
        raise DTypeError(f"{_NAME}: {name} must be bool or floating point, got {mask.dtype.name} (at {user_source()})")
    if mask.ndim not in axes:
        raise ShapeError(
            f"{_NAME}: {name} takes {' or '.join(map(str, axes))} axes beside {listed}, got {list(mask.shape)} "
            f"(at {user_source()})"
        )


def _projected(query: Tensor, key: Tensor, value: Tensor, projections: Projections) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values [..., E], by as few products as the operands let."""
    packed, bias = projections.packed, projections.bias
    width = query.shape[-1]
    if projections.separate is not None:
        biases = (None, None, None) if bias is None else bias.chunk(3)
        return tuple(linear(x, w, b) for x, w, b in zip((query, key, value), projections.separate, biases, strict=True))  # type: ignore[return-value]
    assert packed is not None
    if key.shape[-1] != width or packed.shape != (3 * width, width):
        raise ShapeError(
            f"{_NAME}: in_proj_weight {list(packed.shape)} does not fit query {list(query.shape)} and key "
            f"{list(key.shape)}: it is [3 E, E] (at {user_source()})"
        )
    if query is key is value:
        return tuple(linear(query, packed, bias).chunk(3, -1))  # type: ignore[return-value]

    def part(x: Tensor, first: int, last: int) -> Tensor:
        rows = slice(first * width, last * width)
        return linear(x, packed[rows], None if bias is None else bias[rows])

    if key is value:
        return part(query, 0, 1), *part(key, 1, 3).chunk(2, -1)  # type: ignore[return-value]
    return part(query, 0, 1), part(key, 1, 2), part(value, 2, 3)


def _heads(x: Tensor, heads: int, batch_first: bool) -> Tensor:
    """[L, N, E] or [N, L, E] to [N, H, L, E / H]."""
    split = x.reshape(*x.shape[:2], heads, x.shape[-1] // heads)
    return split.permute(0, 2, 1, 3) if batch_first else split.permute(1, 2, 0, 3)


def _static(given: Tensor, like: Tensor) -> Tensor:
    """Given keys or values [N H, S, E / H] as [N, H, S, E / H]."""
    batch, heads, _, size = like.shape
    if given.ndim != 3 or (given.shape[0], given.shape[2]) != (batch * heads, size):
        raise ShapeError(
            f"{_NAME}: static keys and values must be [{batch * heads}, S, {size}], got {list(given.shape)} "
            f"(at {user_source()})"
        )
    return given.reshape(batch, heads, given.shape[1], size)


def _merged(masks: Masks, needed: bool, sizes: tuple[int, int, int, int], added: int) -> tuple[Tensor | None, bool]:
    """One mask, as scaled_dot_product_attention takes it, or whether a causal mask is meant.

    `sizes` are examples, heads, queries and keys; `added` further keys may be looked at by all.
    """
    batch, heads, queries, keys = sizes
    scores, padding = masks.scores, masks.padding
    if masks.is_causal and padding is None and not needed:
        return None, True
    if scores is not None:
        wanted = (queries, keys) if scores.ndim == 2 else (batch * heads, queries, keys)
        if scores.shape != wanted:
            raise ShapeError(
                f"{_NAME}: attn_mask must be [{queries}, {keys}] or [{batch * heads}, {queries}, {keys}], got "
                f"{list(scores.shape)} (at {user_source()})"
            )
        scores = scores if scores.ndim == 2 else scores.reshape(batch, heads, queries, keys)
    if padding is not None:
        if padding.shape != (batch, keys):
            raise ShapeError(
                f"{_NAME}: key_padding_mask must be [{batch}, {keys}], got {list(padding.shape)} (at {user_source()})"
            )
        padding = padding.reshape(batch, 1, 1, keys)
    found = [_widened(mask, added) for mask in (scores, padding) if mask is not None]
    if not found:
        return None, False
    if all(mask.dtype is bool_ for mask in found):
        hidden = found[0] if len(found) == 1 else found[0] | found[1]
        return ~hidden, False
    floats = [where(m, -math.inf, 0.0) if m.dtype is bool_ else m for m in found]
    return floats[0] if len(floats) == 1 else floats[0] + floats[1], False


def _widened(mask: Tensor, added: int) -> Tensor:
    """The mask with `added` further keys that may be looked at."""
    return cat([mask, zeros(*mask.shape[:-1], added, dtype=mask.dtype)], -1) if added else mask


def _with_weights(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, weights: Weights) -> tuple[Tensor, Tensor]:
    """The result [N, H, L, E / H] and the weights, which stand in memory; scores and weights are not of 16 bits."""
    q, k, v = lowered(q, k, v)
    scores = product_of_scores(q, k.transpose(-2, -1), q.dtype.compute) * math.sqrt(1 / q.shape[-1])
    if mask is not None:
        scores = where(mask, scores, -math.inf) if mask.dtype is bool_ else scores + mask.to(scores.dtype)
    found = dropout(softmax(scores, -1), weights.dropout_p, weights.dropout_p > 0)
    return product_of_scores(found, v, v.dtype), (found.mean(1) if weights.averaged else found).to(v.dtype)


__all__ = ["Masks", "Projections", "Weights", "attend", "multi_head_attention_forward"]
