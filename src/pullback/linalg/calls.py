"""How linear algebra is put into a graph: checks of operands, host calls, and the cutting apart of packed results."""

from __future__ import annotations

import math
from typing import Any

from ..errors import DTypeError, ShapeError
from ..graph.types import DType, float32, float64
from ..ops.host import host_call
from ..ops.primitive import MODE, user_source
from ..tensor import Tensor
from ..tensor.handle import Handle
from ..tensor.state import STATE
from .lapack import Function, where_finite

Shape = tuple[int, ...]


def matrices(name: str, *operands: Any, square: bool = False) -> None:
    """Raise unless the operands are batches of matrices of one dtype that LAPACK has."""
    for operand in operands:
        if not isinstance(operand, Handle):
            raise TypeError(f"{name} takes tensors, got {type(operand).__name__} (at {user_source()})")
        if operand.dtype not in (float32, float64):
            raise DTypeError(
                f"{name} takes float32 or float64, got {operand.dtype.name} (at {user_source()}); convert with .float()"
            )
        if operand.dtype is not operands[0].dtype:
            raise DTypeError(
                f"{name}: operands have dtypes {operands[0].dtype.name} and {operand.dtype.name} (at {user_source()})"
            )
        if operand.ndim < 2:
            raise ShapeError(f"{name} takes matrices [..., m, n], got {list(operand.shape)} (at {user_source()})")
    if square and operands[0].shape[-1] != operands[0].shape[-2]:
        raise ShapeError(f"{name} takes square matrices, got {list(operands[0].shape)} (at {user_source()})")


def call(function: Function, shape: Shape, *operands: Tensor, dtype: DType | None = None) -> Tensor:
    """`function` of the operands' values, without a gradient.

    It raises for matrices that hold NaN or infinity where it cannot be computed for them, as PyTorch's does. A step
    that is being recorded goes on with NaN then, and so does one in which anomalies are looked for: they tell where
    these come from, which the call does not know.
    """
    if STATE.trace is not None or MODE.anomaly:
        function = where_finite(function)
    nodes = tuple(operand.detach().node for operand in operands)
    return operands[0]._wrap(host_call(nodes, function, shape, dtype or operands[0].dtype))


def packed_call(function: Function, batch: Shape, shapes: list[Shape], *operands: Tensor) -> Tensor:
    """The packed results of `function`: [*batch, total]."""
    return call(function, (*batch, sum(map(math.prod, shapes))), *operands)


def parts(packed: Tensor, shapes: list[Shape]) -> list[Tensor]:
    """The results that stand side by side in `packed`, or the cotangents of them."""
    batch = packed.shape[:-1]
    found, start = [], 0
    for shape in shapes:
        end = start + math.prod(shape)
        found.append(packed[..., start:end].reshape((*batch, *shape)))
        start = end
    return found


def skew(x: Tensor) -> Tensor:
    """x - xᵀ."""
    return x - x.mT


def diagonal_matrix(x: Tensor) -> Tensor:
    """Matrices with `x` [..., n] on their diagonals."""
    from ..tensor.creation import eye

    return x.unsqueeze(-1) * eye(x.shape[-1], dtype=x.dtype)


def half_diagonal(x: Tensor) -> Tensor:
    """The lower triangle with half the diagonal: the derivative of what a triangular factor holds."""
    return x.tril() - diagonal_of(x) * 0.5


def diagonal_of(x: Tensor) -> Tensor:
    """`x` [..., n, n] with zeros off its diagonal."""
    return x.tril().triu()


def over(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The quotient, and 0 where the denominator is.

    The denominators are gaps between singular values or eigenvalues: where two are equal their vectors are not unique,
    and a loss that does not depend on the choice has numerators of 0 there.
    """
    from ..tensor.arithmetic import where

    nothing = denominator == 0
    return where(nothing, 0.0, numerator / where(nothing, 1.0, denominator))
