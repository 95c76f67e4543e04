"""Contraction: the batched matrix product."""

from __future__ import annotations

import numpy as np

from ..errors import DTypeError, ShapeError
from ..graph.node import Node, Shape
from ..graph.types import BOOL, DType, round_to
from .elementwise import convert
from .movement import swap_last
from .primitive import CONTRACTION, Primitive, apply, register, user_source


def _infer(a: Node, b: Node, dtype: DType | None = None) -> tuple[Shape, DType]:
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
    if dtype not in (None, a.dtype, a.dtype.compute):
        raise DTypeError(
            f"matmul of {a.dtype.name} sums in {a.dtype.compute.name} and can give that or {a.dtype.name}, "
            f"not {dtype.name} (at {user_source()}). Convert the result with .to(dtype)."
        )
    return (*a.shape[:-1], b.shape[-1]), dtype or a.dtype


def _evaluate(node: Node, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return round_to(np.matmul(a, b), node.dtype)


def _times(cotangent: Node, operand: Node, turned: bool, dtype: DType) -> Node:
    """The cotangent of the other operand of a product, which is of `dtype`, from that of the result."""
    operand = swap_last(convert(operand, cotangent.dtype))
    return convert(matmul(operand, cotangent) if turned else matmul(cotangent, operand), dtype)


#: [..., m, k] @ [..., k, n] -> [..., m, n]; the batch axes of both are equal. Sums of the 16-bit floats are in float32,
#: and are the result where the attribute `dtype` says so; otherwise they are rounded to the operands' type.
MATMUL = register(
    Primitive(
        "matmul",
        CONTRACTION,
        _infer,
        _evaluate,
        (
            lambda n, g: _times(g, n.inputs[1], False, n.inputs[0].dtype),
            lambda n, g: _times(g, n.inputs[0], True, n.inputs[1].dtype),
        ),
        cost=2,
    )
)


def matmul(a: Node, b: Node, dtype: DType | None = None) -> Node:
    """The matrix product of the last two axes, for each place of the batch axes before them, in `dtype`."""
    return apply(MATMUL, a, b, dtype=dtype) if dtype not in (None, a.dtype) else apply(MATMUL, a, b)
