"""Contraction: the batched matrix product."""

from __future__ import annotations

import numpy as np

from ..errors import DTypeError, ShapeError
from ..graph.node import Node, Shape
from ..graph.types import BOOL, DType, round_to
from .movement import swap_last
from .primitive import CONTRACTION, Primitive, apply, register, user_source


def _infer(a: Node, b: Node) -> tuple[Shape, DType]:
    if a.dtype is not b.dtype or a.dtype.category == BOOL:
        raise DTypeError(
            f"matmul takes two operands of one number type, got {a.dtype.name} and {b.dtype.name} "
            f"(at {user_source()}). Convert one with .to(dtype)."
        )
    if a.shape[:-2] != b.shape[:-2] or a.shape[-1] != b.shape[-2]:
        raise ShapeError(
            f"matmul: {list(a.shape)} @ {list(b.shape)}: the last axis of the first ({a.shape[-1]}) must equal the "
            f"last but one of the second ({b.shape[-2]}) (at {user_source()})"
        )
    return (*a.shape[:-1], b.shape[-1]), a.dtype


def _evaluate(node: Node, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return round_to(np.matmul(a, b), node.dtype)


#: [..., m, k] @ [..., k, n] -> [..., m, n]; the batch axes of both are equal
MATMUL = register(
    Primitive(
        "matmul",
        CONTRACTION,
        _infer,
        _evaluate,
        (lambda n, g: matmul(g, swap_last(n.inputs[1])), lambda n, g: matmul(swap_last(n.inputs[0]), g)),
        cost=2,
    )
)


def matmul(a: Node, b: Node) -> Node:
    """The matrix product of the last two axes, for each place of the batch axes before them."""
    return apply(MATMUL, a, b)
