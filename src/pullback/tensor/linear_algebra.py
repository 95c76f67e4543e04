"""Linear algebra as methods of tensors: PyTorch's, each the function of the same name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .handle import Handle

if TYPE_CHECKING:
    from . import Tensor


class LinearAlgebraMethods(Handle):
    """Factorizations, determinants and solutions of matrices [..., m, n]; see `pullback.linalg`."""

    __slots__ = ()

    def _linalg(self, name: str, *args: Any, **options: Any) -> Any:
        from ..linalg import methods

        return getattr(methods, name)(self, *args, **options)

    def inverse(self) -> Tensor:
        """The inverse of square matrices."""
        return self._linalg("inverse")

    def det(self) -> Tensor:
        """The determinant of square matrices."""
        return self._linalg("det")

    def logdet(self) -> Tensor:
        """The logarithm of the determinant; NaN where it is negative."""
        return self._linalg("logdet")

    def slogdet(self) -> Any:
        """The determinant's sign and the logarithm of its size."""
        return self._linalg("slogdet")

    def cholesky(self, upper: bool = False) -> Tensor:
        """The Cholesky factor of symmetric positive definite matrices."""
        return self._linalg("cholesky", upper)

    def cholesky_inverse(self, upper: bool = False) -> Tensor:
        """The inverse of the matrix of which this is the Cholesky factor."""
        return self._linalg("cholesky_inverse", upper)

    def cholesky_solve(self, input2: Tensor, upper: bool = False) -> Tensor:
        """X of A X = self, given A's Cholesky factor."""
        return self._linalg("cholesky_solve", input2, upper)

    def qr(self, some: bool = True) -> Any:
        """Orthonormal columns Q and an upper triangle R."""
        return self._linalg("qr", some)

    def svd(self, some: bool = True, compute_uv: bool = True) -> Any:
        """U, the singular values, and V."""
        return self._linalg("svd", some, compute_uv)

    def pinverse(self, rcond: float = 1e-15) -> Tensor:
        """The Moore-Penrose pseudoinverse."""
        return self._linalg("pinverse", rcond)

    def matrix_exp(self) -> Tensor:
        """The matrix exponential."""
        return self._linalg("matrix_exp")

    def matrix_power(self, n: int) -> Tensor:
        """The n-th power of square matrices."""
        return self._linalg("matrix_power", n)

    def triangular_solve(
        self, A: Tensor, upper: bool = True, transpose: bool = False, unitriangular: bool = False
    ) -> Any:
        """X of A X = self for a triangular A, and A."""
        return self._linalg("triangular_solve", A, upper, transpose, unitriangular)

    def lu(self, pivot: bool = True, get_infos: bool = False) -> Any:
        """`linalg.lu_factor` of matrices, or `linalg.lu_factor_ex` with `get_infos`."""
        return self._linalg("lu", pivot, get_infos)

    def geqrf(self) -> Any:
        """R and the reflections that make Q; see `linalg.geqrf`."""
        return self._linalg("geqrf")

    def orgqr(self, input2: Tensor) -> Tensor:
        """`linalg.householder_product` of these reflections and their scales."""
        return self._linalg("orgqr", input2)

    def ormqr(self, input2: Tensor, input3: Tensor, left: bool = True, transpose: bool = False) -> Tensor:
        """The product of `input3` and the Q of these reflections and the scales `input2`; see `pullback.ormqr`."""
        return self._linalg("ormqr", input2, input3, left, transpose)

    def lu_solve(self, LU_data: Tensor, LU_pivots: Tensor) -> Tensor:
        """X of A X = self, given A's `linalg.lu_factor`."""
        return self._linalg("lu_solve", LU_data, LU_pivots)
