"""Matrices of powers, and diagonals, as torch.linalg has them."""

from __future__ import annotations

from ..errors import ShapeError
from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.products import powers_of


def vander(x: Tensor, *, N: int | None = None) -> Tensor:
    """The powers 0 to N - 1 (by default as many as the last axis has elements) of each element, as a last axis."""
    if N is None and not x.ndim:
        raise ShapeError(f"linalg.vander takes at least one axis, got shape [] (at {user_source()})")
    if N is not None and N <= 1:
        raise ValueError(f"linalg.vander: N must be greater than 1, got {N} (at {user_source()})")
    x = x if x.ndim else x.reshape(1)
    return powers_of(x, x.shape[-1] if N is None else N)


def diagonal(A: Tensor, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """The diagonals of matrices, by default of the last two axes, as a last axis."""
    return A.diagonal(offset, dim1, dim2)


__all__ = ["diagonal", "vander"]
