"""The names that PyTorch keeps outside of linalg: `pullback.svd` gives V and not Vᵀ, `pullback.qr` takes `some`."""

from __future__ import annotations

from typing import NamedTuple

from ..tensor import Tensor
from . import decompositions as d
from .solving import (
    cholesky_inverse,
    cholesky_solve,
    det,
    inv,
    logdet,
    matrix_exp,
    matrix_power,
    slogdet,
    triangular_solve,
)


class SVD(NamedTuple):
    """Left singular vectors, singular values in falling order, right singular vectors as columns."""

    U: Tensor
    S: Tensor
    V: Tensor


def svd(input: Tensor, some: bool = True, compute_uv: bool = True) -> SVD:
    """`linalg.svd` with V in place of Vᵀ, reduced with `some`; without `compute_uv` U and V are zeros."""
    from ..tensor.creation import zeros

    U, S, Vh = d.svd(input, not some or not compute_uv)
    if not compute_uv:
        U, Vh = zeros(U.shape, dtype=U.dtype), zeros(Vh.shape, dtype=U.dtype)
    return SVD(U, S, Vh.mT)


def qr(input: Tensor, some: bool = True) -> d.QRResult:
    """`linalg.qr`, reduced with `some`, complete without."""
    return d.qr(input, "reduced" if some else "complete")


def cholesky(input: Tensor, upper: bool = False) -> Tensor:
    """`linalg.cholesky`."""
    return d.cholesky(input, upper=upper)


def pinverse(input: Tensor, rcond: float = 1e-15) -> Tensor:
    """`linalg.pinv` with the relative threshold `rcond`."""
    return d.pinv(input, rcond)


def lu_solve(b: Tensor, LU_data: Tensor, LU_pivots: Tensor) -> Tensor:
    """`linalg.lu_solve`, the right side first."""
    return d.lu_solve(LU_data, LU_pivots, b)


def lu(A: Tensor, pivot: bool = True, get_infos: bool = False) -> d.LUFactors | d.LUFactorsInfo:
    """`linalg.lu_factor` without its error; with `get_infos` `linalg.lu_factor_ex`."""
    found = d.lu_factor_ex(A, pivot=pivot)
    return found if get_infos else d.LUFactors(*found[:2])


geqrf = d.geqrf
#: LAPACK's name of `linalg.householder_product`
orgqr = d.householder_product
ormqr = d.ormqr
#: the former name of `linalg.inv`
inverse = inv

__all__ = [
    "SVD",
    "cholesky",
    "cholesky_inverse",
    "cholesky_solve",
    "det",
    "geqrf",
    "inverse",
    "logdet",
    "lu",
    "lu_solve",
    "matrix_exp",
    "matrix_power",
    "orgqr",
    "ormqr",
    "pinverse",
    "qr",
    "slogdet",
    "svd",
    "triangular_solve",
]
