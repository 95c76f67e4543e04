"""Recurrences: results that each follow from the one before along an axis, as cumulative sums and products do.

Operands have three axes, [outer, length, inner]: the recurrence runs along the middle one. A linear recurrence is
closed under differentiation: its gradient is a linear recurrence from the other end. No rule divides, so the gradients
of a product, of every order, are right at zeros too. Float32 is carried in float64 from element to element, and 16-bit
floats in float32: what is rounded is each result, not the carry.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..errors import DTypeError, ShapeError
from ..graph.node import Node, Shape
from ..graph.types import BOOL, DType, float32, float64, round_to
from .elementwise import mul
from .movement import flip, pad, slice_
from .primitive import MOVEMENT, RECURRENCE, Primitive, apply, register, user_source


def carried_in(dtype: DType) -> DType:
    """The dtype in which a recurrence over values of `dtype` carries from element to element."""
    return float64 if dtype is float32 else dtype.compute


def _infer(*operands: Node) -> tuple[Shape, DType]:
    first = operands[0]
    if first.dtype.category == BOOL:
        raise DTypeError(f"a recurrence does not take bool (at {user_source()}); convert with .to(dtype)")
    if any(o.shape != first.shape or o.dtype is not first.dtype or len(o.shape) != 3 for o in operands):
        raise ShapeError(f"a recurrence takes operands of one shape [outer, length, inner], got {operands}")
    return first.shape, first.dtype


def _evaluator(step: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """The meaning: the last operand's first element, then `step(carry, *elements)` along the middle axis."""

    def evaluate(node: Node, *operands: np.ndarray) -> np.ndarray:
        result = np.empty(node.shape, node.dtype.carrier)
        carry = None
        wide = carried_in(node.dtype).carrier
        with np.errstate(all="ignore"):
            for i in range(node.shape[1]):
                now = [o[:, i].astype(wide) for o in operands]
                result[:, i] = carry = step(carry, *now) if i else now[-1]
        return round_to(result, node.dtype)

    return evaluate


def _is_number(node: Node) -> bool:
    while node.op.kind == MOVEMENT and len(node.inputs) == 1 and node.op.name != "pad":
        node = node.inputs[0]
    return node.op.name == "constant"


def _delayed(x: Node) -> Node:
    """Each element one place later, the last one dropped; what stands first is never read."""
    if _is_number(x):
        return x
    outer, length, inner = x.shape
    return pad(slice_(x, ((0, outer), (0, max(0, length - 1)), (0, inner))), ((0, 0), (min(1, length), 0), (0, 0)))


def _pull_linear(node: Node, cotangent: Node) -> list[Node | None]:
    """term̄_i = ḡ_i + factor_{i+1} term̄_{i+1}, the same recurrence from the end; factor̄_i = term̄_i result_{i-1}."""
    factor = node.inputs[0]
    outer, length, inner = node.shape
    of_term = flip(recurrence(_delayed(flip(factor, (1,))), flip(cotangent, (1,))), (1,))
    if length < 2:
        return [None, of_term]  # the first factor is never used
    later = slice_(of_term, ((0, outer), (1, length), (0, inner)))
    before = slice_(node, ((0, outer), (0, length - 1), (0, inner)))
    return [pad(mul(later, before), ((0, 0), (1, 0), (0, 0))), of_term]


#: h[i] = factor[i] h[i-1] + term[i], and h[0] = term[0]
LINEAR = register(
    Primitive(
        "recurrence",
        RECURRENCE,
        _infer,
        _evaluator(lambda carry, factor, term: factor * carry + term),
        _pull_linear,
        cost=2,
        joint=True,
    )
)
#: the greatest so far, and the least; NaN from the first one on. Differentiated by where it stands, see tensor/
RUNNING_MAX = register(Primitive("running_max", RECURRENCE, _infer, _evaluator(np.maximum), (None,)))
RUNNING_MIN = register(Primitive("running_min", RECURRENCE, _infer, _evaluator(np.minimum), (None,)))


def recurrence(factor: Node, term: Node) -> Node:
    """h[:, i] = factor[:, i] h[:, i-1] + term[:, i], from h[:, 0] = term[:, 0]; all [outer, length, inner].

    XLA has it as an associative scan of the pairs (factor, term).
    """
    return apply(LINEAR, factor, term)


def running_max(x: Node) -> Node:
    """The greatest of x[:, :i+1] at each i; NaN from the first one on. It has no gradient."""
    return apply(RUNNING_MAX, x)


def running_min(x: Node) -> Node:
    """The least of x[:, :i+1] at each i; NaN from the first one on. It has no gradient."""
    return apply(RUNNING_MIN, x)


__all__ = ["LINEAR", "RUNNING_MAX", "RUNNING_MIN", "carried_in", "recurrence", "running_max", "running_min"]
