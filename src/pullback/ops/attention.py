"""Attention: softmax(scale · query keyᵀ + mask) value, its two gradients' ingredients, and its three gradients.

The weights of attention have a row for each query and a column for each key: quadratic memory that no primitive here
asks for. Tiles of them are computed where they are used, with the maximum and the sum of each row kept as it goes on
(Milakov & Gimelshein, "Online normalizer calculation for softmax", 2018; Dao, "FlashAttention-2", 2023). The backward
pass computes them again from `attention_log_sum`, one number a query.

Shapes, the batch axes being equal: query [..., L, E], key [..., S, E], value [..., S, V], result [..., L, V]. Further
operands, [..., L, S]: with `masked` a bool (True: may be looked at) or a float that is added to the scores; with
`kept` (not None) a bool that tells which weights dropout leaves, those multiplied by `kept`. They may be expressions:
a kernel computes them where it needs them. `causal` lets query i look at keys 0 to i. A query that may look at nothing
gets zeros. The first derivatives are primitives; the derivatives of those, and that of a float mask, are composed of
matrix products, and take memory in proportion to L · S.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import DTypeError, ShapeError
from ..graph.node import Node, Shape
from ..graph.types import DType, bool_, int64, round_to
from . import elementwise as e
from .contraction import matmul
from .movement import expand, reshape, swap_last
from .primitive import ATTENTION, Primitive, apply, constant, iota, register, user_source
from .reduction import reduce_sum

Arrays = list[np.ndarray]


def weight_operands(node: Node) -> tuple[Node | None, Node | None]:
    """The mask and the choice of dropout among the inputs of a node of this family, None where there is none."""
    more = iter(node.inputs[3:])
    return next(more) if node["masked"] else None, next(more) if node["kept"] is not None else None


def row_operands(node: Node) -> tuple[Node, ...]:
    """The inputs after those that the whole family has: log_sum, delta and cotangent of a gradient; else none."""
    return node.inputs[3 + node["masked"] + (node["kept"] is not None) :]


def features_compared(node: Node) -> int:
    """How many features of keys and values, on an average of both, meet queries that may look at them.

    A causal mask counts; other masks are not known before they are computed.
    """
    query, key, value = node.inputs[:3]
    queries, keys = query.shape[-2], key.shape[-2]
    pairs = queries * keys
    if node["causal"]:
        square = min(queries, keys)
        pairs = square * (square + 1) // 2 + (queries - square) * keys
    return math.prod(query.shape[:-2]) * pairs * (query.shape[-1] + value.shape[-1]) // 2


def _infer(
    query: Node, key: Node, value: Node, *more: Node, scale: float, causal: bool, masked: bool, kept: float | None
) -> tuple[Shape, Shape, DType]:
    """Shapes of the scores and of the result, and the dtype; errors for operands that do not fit."""
    operands, batch = (query, key, value), query.shape[:-2]
    if any(o.dtype is not query.dtype for o in operands) or not query.dtype.is_floating_point:
        names = ", ".join(o.dtype.name for o in operands)
        raise DTypeError(
            f"attention takes query, key and value of one floating point dtype, got {names} (at {user_source()}). "
            "Convert them with .to(dtype)."
        )
    if any(o.shape[:-2] != batch for o in operands) or query.shape[-1] != key.shape[-1]:
        raise ShapeError(_misfit(operands))
    if key.shape[-2] != value.shape[-2]:
        raise ShapeError(_misfit(operands))
    scores = (*batch, query.shape[-2], key.shape[-2])
    for operand in more[: masked + (kept is not None)]:
        if operand.shape != scores:
            raise ShapeError(
                f"attention: a mask must be {list(scores)}, got {list(operand.shape)} (at {user_source()})"
            )
    return scores, (*query.shape[:-1], value.shape[-1]), query.dtype


def _misfit(operands: tuple[Node, ...]) -> str:
    query, key, value = (list(o.shape) for o in operands)
    return (
        f"attention: query {query}, key {key} and value {value} do not fit: query is [..., L, E], key [..., S, E] and "
        f"value [..., S, V] (at {user_source()})"
    )


def _permuted(shape: Shape, axes: tuple[int, ...] | None) -> Shape:
    return shape if axes is None else tuple(shape[a] for a in axes)


# ---- the meaning, in NumPy


def _scores(node: Node, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    query, key = arrays[:2]
    scores = np.matmul(query, np.swapaxes(key, -1, -2)) * query.dtype.type(node["scale"])
    if node["masked"]:
        mask = arrays[3]
        scores = np.where(mask, scores, -math.inf) if mask.dtype == bool else scores + mask
    if node["causal"]:
        visible = np.arange(scores.shape[-1]) <= np.arange(scores.shape[-2])[:, None]
        scores = np.where(visible, scores, -math.inf)
    return scores.astype(query.dtype, copy=False)


def _dropped(node: Node, weights: np.ndarray, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    if node["kept"] is None:
        return weights
    return np.where(arrays[3 + node["masked"]], weights * weights.dtype.type(node["kept"]), weights.dtype.type(0))


def _log_sum(scores: np.ndarray) -> np.ndarray:
    """log Σ exp along the last axis; infinity for a row of nothing but -inf, so that exp(score - log_sum) is 0."""
    greatest = scores.max(-1, initial=-math.inf)
    shift = np.where(greatest == -math.inf, scores.dtype.type(0), greatest)
    total = np.exp(scores - shift[..., None]).sum(-1)
    return np.where(total == 0, scores.dtype.type(math.inf), shift + np.log(total)).astype(scores.dtype)


def _evaluate_attention(node: Node, *arrays: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        scores = _scores(node, arrays)
        weights = np.exp(scores - _log_sum(scores)[..., None])
        result = np.matmul(_dropped(node, weights, arrays), arrays[2])
    return round_to(result if node["axes"] is None else result.transpose(node["axes"]), node.dtype)


def _evaluate_log_sum(node: Node, *arrays: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return _log_sum(_scores(node, arrays))


def _evaluate_gradient(node: Node, *arrays: np.ndarray) -> np.ndarray:
    query, key, value = arrays[:3]
    log_sum, delta, cotangent = arrays[-3:]
    with np.errstate(all="ignore"):
        weights = np.exp(_scores(node, arrays) - log_sum[..., None])
        by_weight = _dropped(node, np.matmul(cotangent, np.swapaxes(value, -1, -2)), arrays)
        by_score = weights * (by_weight - delta[..., None])
        scale = query.dtype.type(node["scale"])
        if node.op is QUERY_GRADIENT:
            result = np.matmul(by_score, key) * scale
        elif node.op is KEY_GRADIENT:
            result = np.matmul(np.swapaxes(by_score, -1, -2), query) * scale
        else:
            result = np.matmul(np.swapaxes(_dropped(node, weights, arrays), -1, -2), cotangent)
    return round_to(result if node["axes"] is None else result.transpose(node["axes"]), node.dtype)


# ---- the gradient rules


class _Weights:
    """The weights of a node of this family, from its operands and log_sum, composed of smaller primitives.

    Everything is in the dtype that is computed in. `rows` are the gradient's further operands.
    """

    def __init__(self, node: Node, log_sum: Node):
        self.node, self.dtype = node, node.inputs[0].dtype.compute
        self.query, self.key, self.value = (e.convert(i, self.dtype) for i in node.inputs[:3])
        self.mask, self.choice = weight_operands(node)
        self.weights = e.exp(e.sub(self._scores(), self.column(log_sum)))

    def number(self, value: float) -> Node:
        return constant(value, self.dtype)

    def scaled(self, x: Node) -> Node:
        return e.mul(x, self.number(self.node["scale"]))

    def column(self, row: Node) -> Node:
        """A number a query, repeated along the keys."""
        full = (*row.shape, self.node.inputs[1].shape[-2])
        return expand(reshape(row, (*row.shape, 1)), full)

    def _scores(self) -> Node:
        scores = self.scaled(matmul(self.query, swap_last(self.key)))
        nothing = self.number(-math.inf)
        if self.mask is not None:
            boolean = self.mask.dtype is bool_
            scores = e.where(self.mask, scores, nothing) if boolean else e.add(scores, e.convert(self.mask, self.dtype))
        if self.node["causal"]:
            size = scores.shape[-2:]
            scores = e.where(e.le(iota(size, 1, int64), iota(size, 0, int64)), scores, nothing)
        return scores

    def dropped(self, x: Node) -> Node:
        """`x` [..., L, S] after dropout; as it is linear and its own transpose, also the pullback of that."""
        if self.choice is None:
            return x
        return e.where(self.choice, e.mul(x, self.number(self.node["kept"])), self.number(0.0))

    def inputs_from(self, by_score: Node) -> list[Node | None]:
        """The cotangents of query, key, value and the rest of the family's operands from that of the scores."""
        mask: list[Node | None] = [] if self.mask is None else [None if self.mask.dtype is bool_ else by_score]
        choice: list[Node | None] = [] if self.choice is None else [None]
        return [
            self.scaled(matmul(by_score, self.key)),
            self.scaled(matmul(swap_last(by_score), self.query)),
            None,
            *mask,
            *choice,
        ]


def _attention_rule(node: Node, cotangent: Node) -> list[Node | None]:
    attributes = {name: node[name] for name in ("scale", "causal", "masked", "kept")}
    log_sum = apply(LOG_SUM, *node.inputs, **attributes)
    compute = node.dtype.compute
    delta = reduce_sum(e.mul(e.convert(node, compute), e.convert(cotangent, compute)), (len(node.shape) - 1,))
    operands = (*node.inputs, log_sum, delta, cotangent)
    found: list[Node | None] = [apply(op, *operands, axes=None, **attributes) for op in GRADIENTS]
    mask, choice = weight_operands(node)
    if mask is not None:
        found.append(_mask_gradient(node, log_sum, delta, cotangent) if mask.requires_grad else None)
    return found if choice is None else [*found, None]


def _mask_gradient(node: Node, log_sum: Node, delta: Node, cotangent: Node) -> Node:
    """The cotangent of a float mask, which is that of the scores."""
    parts = _Weights(node, log_sum)
    by_weight = parts.dropped(matmul(e.convert(cotangent, parts.dtype), swap_last(parts.value)))
    return e.mul(parts.weights, e.sub(by_weight, parts.column(delta)))


def _log_sum_rule(node: Node, cotangent: Node) -> list[Node | None]:
    """The slope of log Σ exp is the weights."""
    parts = _Weights(node, node)
    return parts.inputs_from(e.mul(parts.weights, parts.column(cotangent)))


def _gradient_rule(node: Node, cotangent: Node) -> list[Node | None]:
    """Second derivatives. With P the weights, R dropout, G the cotangent of attention, D delta and c the scale:

    dS = P ∘ (R(G Vᵀ) - D);   query: c dS K;   key: c dSᵀ Q;   value: R(P)ᵀ G.
    """
    log_sum, delta, given = row_operands(node)
    parts = _Weights(node, log_sum)
    u, g = e.convert(cotangent, parts.dtype), e.convert(given, parts.dtype)
    p = parts.weights
    if node.op is VALUE_GRADIENT:
        by_p = parts.dropped(matmul(g, swap_last(u)))
        found = parts.inputs_from(by_s := e.mul(by_p, p))
        return [*found, _minus_rows(by_s), None, matmul(parts.dropped(p), u)]
    difference = e.sub(parts.dropped(matmul(g, swap_last(parts.value))), parts.column(delta))
    d_s = e.mul(p, difference)
    if node.op is QUERY_GRADIENT:
        by_ds, direct = parts.scaled(matmul(u, swap_last(parts.key))), parts.scaled(matmul(swap_last(d_s), u))
    else:
        by_ds, direct = parts.scaled(matmul(parts.query, swap_last(u))), parts.scaled(matmul(d_s, u))
    by_difference = e.mul(by_ds, p)
    by_product = parts.dropped(by_difference)
    by_s = e.mul(by_ds, d_s)
    found = parts.inputs_from(by_s)
    place = 1 if node.op is QUERY_GRADIENT else 0
    before = found[place]
    found[place] = direct if before is None else e.add(before, direct)
    found[2] = matmul(swap_last(by_product), g)
    return [*found, _minus_rows(by_s), _minus_rows(by_difference), matmul(by_product, parts.value)]


def _minus_rows(x: Node) -> Node:
    """The sum along the last axis, negated."""
    return e.neg(reduce_sum(x, (len(x.shape) - 1,)))


# ---- the records


def _record(
    name: str, infer: Callable[..., tuple[Shape, DType]], evaluate: Callable[..., np.ndarray], rule: Any, cost: int
) -> Primitive:
    return register(Primitive(name, ATTENTION, infer, evaluate, rule, cost=cost, joint=True))


def _infer_attention(*inputs: Node, axes: tuple[int, ...] | None, **options: Any) -> tuple[Shape, DType]:
    _, shape, dtype = _infer(*inputs, **options)
    return _permuted(shape, axes), dtype


def _infer_log_sum(*inputs: Node, **options: Any) -> tuple[Shape, DType]:
    scores, _, dtype = _infer(*inputs, **options)
    return scores[:-1], dtype.compute


def _infer_gradient(place: int) -> Callable[..., tuple[Shape, DType]]:
    def infer(*inputs: Node, axes: tuple[int, ...] | None, **options: Any) -> tuple[Shape, DType]:
        _infer(*inputs, **options)
        return _permuted(inputs[place].shape, axes), inputs[place].dtype

    return infer


# Costs are operations for each query, key and feature; each record counts what it adds to the kernel that it shares.

#: the result; `axes` is the order in which its axes lie, None for their own: a kernel writes what its reader wants
ATTEND = _record("attention", _infer_attention, _evaluate_attention, _attention_rule, 4)
#: [..., L]: log Σ exp of each query's scores, infinity where it may look at nothing. It has the inputs of the result,
#: of which it does not need all, so that one kernel computes both
LOG_SUM = _record("attention_log_sum", _infer_log_sum, _evaluate_log_sum, _log_sum_rule, 0)
#: the cotangents of query, key and value, from the family's operands and three more: log_sum [..., L], delta [..., L]
#: (the sum along V of result times cotangent) and the cotangent of the result [..., L, V]
QUERY_GRADIENT = _record("attention_query_gradient", _infer_gradient(0), _evaluate_gradient, _gradient_rule, 6)
KEY_GRADIENT = _record("attention_key_gradient", _infer_gradient(1), _evaluate_gradient, _gradient_rule, 2)
VALUE_GRADIENT = _record("attention_value_gradient", _infer_gradient(2), _evaluate_gradient, _gradient_rule, 2)
GRADIENTS = (QUERY_GRADIENT, KEY_GRADIENT, VALUE_GRADIENT)


def attention(
    query: Node,
    key: Node,
    value: Node,
    scale: float,
    causal: bool = False,
    mask: Node | None = None,
    choice: Node | None = None,
    kept: float | None = None,
) -> Node:
    """softmax(scale · query keyᵀ + mask) value; `choice` are the weights that dropout keeps, times `kept`."""
    more = [operand for operand in (mask, choice) if operand is not None]
    options = {"scale": scale, "causal": causal, "masked": mask is not None, "kept": kept}
    return apply(ATTEND, query, key, value, *more, axes=None, **options)
