"""Singular values of matrices of low rank by random projection.

Halko, Martinsson and Tropp, "Finding structure with randomness" (SIAM Review 53, 2011): algorithms 4.4 and 5.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ShapeError
from ..ops.primitive import user_source
from ..tensor.promotion import require_float
from ..tensor.random import randn
from .decompositions import qr, svd
from .methods import SVD

if TYPE_CHECKING:
    from ..tensor import Tensor


def svd_lowrank(A: Tensor, q: int | None = 6, niter: int | None = 2, M: Tensor | None = None) -> SVD:
    """U [..., m, q], S [..., q] and V [..., n, q] with U diag(S) Vᵀ near A - M, for A [..., m, n] of rank at most q.

    `niter` rounds of subspace iteration sharpen the random basis; `M` is broadcast to A. Draws from the generator.
    """
    _require_matrices("svd_lowrank", A)
    difference = A if M is None else A - M.broadcast_to(A.shape)
    columns, rounds = 6 if q is None else q, 2 if niter is None else niter
    if not 0 <= columns <= min(A.shape[-2:]) or rounds < 0:
        raise ValueError(
            f"svd_lowrank: q and niter must not be negative, and q at most {min(A.shape[-2:])}, got {columns} and "
            f"{rounds} (at {user_source()})"
        )
    if A.shape[-2] < A.shape[-1]:
        U, S, V = _of_tall(difference.mT, columns, rounds)
        return SVD(V, S, U)
    return _of_tall(difference, columns, rounds)


def _of_tall(A: Tensor, q: int, niter: int) -> SVD:
    Q = _basis(A, q, niter)
    U, S, Vh = svd(Q.mT @ A, full_matrices=False)
    return SVD(Q @ U, S, Vh.mT)


def _basis(A: Tensor, q: int, niter: int) -> Tensor:
    """q orthonormal columns that nearly span A's."""
    Q = qr(A @ randn(A.shape[-1], q, dtype=A.dtype)).Q
    for _ in range(niter):
        Q = qr(A @ qr(A.mT @ Q).Q).Q
    return Q


def pca_lowrank(A: Tensor, q: int | None = None, center: bool = True, niter: int = 2) -> SVD:
    """Principal components of m samples of n features, A [..., m, n]: `svd_lowrank` of A less its columns' means.

    V's columns are the principal directions, S² / (m - 1) the variances along them. `q` is min(6, m, n) by default.
    """
    _require_matrices("pca_lowrank", A)
    columns = min(6, *A.shape[-2:]) if q is None else q
    return svd_lowrank(A - A.mean(-2, keepdim=True) if center else A, columns, niter)


def _require_matrices(name: str, A: Tensor) -> None:
    """Raise unless `A` holds matrices of floats; in a region of autocast they may be of 16 bits."""
    require_float(name, A)
    if A.ndim < 2:
        raise ShapeError(f"{name} takes matrices [..., m, n], got {list(A.shape)} (at {user_source()})")


__all__ = ["pca_lowrank", "svd_lowrank"]
