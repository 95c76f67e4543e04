"""Products of tensors: matrices, batches of matrices, vectors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..errors import DTypeError, ShapeError
from ..graph.types import BOOL
from ..ops import elementwise as e
from ..ops.contraction import matmul as matmul_nodes
from ..ops.movement import expand, reshape
from ..ops.primitive import user_source
from .autocast_mode import lowered
from .handle import Handle

if TYPE_CHECKING:
    from . import Tensor


class ProductMethods(Handle):
    """Matrix products."""

    __slots__ = ()

    def __matmul__(self, other: Tensor) -> Tensor:
        return matmul(self, other)  # type: ignore[arg-type]

    def matmul(self, other: Tensor) -> Tensor:
        """The product of matrices, batches of matrices and vectors; the batch axes broadcast."""
        return matmul(self, other)  # type: ignore[arg-type]

    def mm(self, other: Tensor) -> Tensor:
        """The product of two matrices."""
        return matmul(*self._of_rank(other, 2, "mm"))

    def bmm(self, other: Tensor) -> Tensor:
        """The products of two batches of matrices."""
        return matmul(*self._of_rank(other, 3, "bmm"))

    def dot(self, other: Tensor) -> Tensor:
        """The inner product of two vectors, in their own dtype also under autocast."""
        return _matmul(*self._of_rank(other, 1, "dot"))

    def _of_rank(self, other: Tensor, rank: int, name: str) -> tuple[Any, Tensor]:
        if self.ndim != rank or other.ndim != rank:
            raise ShapeError(
                f"{name} takes two tensors with {rank} axes, got {list(self.shape)} and {list(other.shape)} "
                f"(at {user_source()})"
            )
        return self, other


def matmul(x: Tensor, y: Tensor) -> Tensor:
    """The product of matrices, batches of matrices and vectors; the batch axes broadcast.

    Shapes: [..., m, k] @ [..., k, n] -> [..., m, n]; a vector counts as a row on the left and a column on the right,
    and that axis is dropped from the result. Both operands have one dtype, unless an autocast region gives them one.
    """
    return _matmul(*lowered(x, y))


def _matmul(x: Tensor, y: Tensor) -> Tensor:
    """matmul in the dtype of its operands."""
    if x.ndim == 0 or y.ndim == 0:
        raise ShapeError(
            f"matmul takes tensors with axes, got {list(x.shape)} and {list(y.shape)} (at {user_source()})"
        )
    if x.dtype is not y.dtype:
        raise DTypeError(
            f"matmul: operands have dtypes {x.dtype.name} and {y.dtype.name} (at {user_source()}); "
            "convert one with .to(dtype)"
        )
    if x.dtype.category == BOOL:
        raise DTypeError(f"matmul does not take bool (at {user_source()})")
    a = reshape(x.node, (1, *x.shape)) if x.ndim == 1 else x.node
    b = reshape(y.node, (*y.shape, 1)) if y.ndim == 1 else y.node
    if a.shape[-1] != b.shape[-2]:
        raise ShapeError(
            f"matmul: {list(x.shape)} @ {list(y.shape)}: inner sizes {a.shape[-1]} and {b.shape[-2]} differ "
            f"(at {user_source()}). Transpose or reshape one so that they meet."
        )
    batch = e.broadcast_shapes("matmul", a.shape[:-2], b.shape[:-2])
    rows, columns, inner = a.shape[-2], b.shape[-1], a.shape[-1]
    if len(b.shape) == 2 and len(a.shape) > 2:
        # one matrix for the whole batch: one product of all rows
        flat = matmul_nodes(reshape(a, (math.prod(batch) * rows, inner)), b)
        product = reshape(flat, (*batch, rows, columns))
    else:
        product = matmul_nodes(expand(a, (*batch, rows, inner)), expand(b, (*batch, inner, columns)))
    shape = (*batch, *((rows,) if x.ndim > 1 else ()), *((columns,) if y.ndim > 1 else ()))
    return x._wrap(reshape(product, shape))


__all__ = ["ProductMethods", "matmul"]
