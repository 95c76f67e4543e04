"""The standard's linear algebra: products everywhere, decompositions as the extension `linalg`."""

from __future__ import annotations

from typing import Any

from .. import linalg as torch_names
from ..errors import DTypeError, ShapeError
from ..graph.types import DType
from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.einsum import tensordot as product
from .dtypes import promoted
from .manipulation import matrix_transpose
from .statistics import number_of, sum

Axes = int | tuple[int, ...] | None


def matmul(x1: Tensor, x2: Tensor, /) -> Tensor:
    """The product of matrices, or of stacks of them."""
    one, other = promoted(x1, x2)
    return one @ other


def tensordot(x1: Tensor, x2: Tensor, /, *, axes: Any = 2) -> Tensor:
    """The sum of products over `axes`: the last ones of x1 with the first ones of x2, or two lists of axes."""
    one, other = promoted(x1, x2)
    return product(one, other, axes)


def vecdot(x1: Tensor, x2: Tensor, /, *, axis: int = -1) -> Tensor:
    """The sum of products along `axis`, which counts from the end."""
    one, other = promoted(x1, x2)
    if axis >= 0 or one.shape[axis] != other.shape[axis]:
        raise ShapeError(
            f"vecdot: axis must be negative and of one size in {list(one.shape)} and {list(other.shape)}, got {axis} "
            f"(at {user_source()})"
        )
    return (one * other).sum(axis, dtype=one.dtype)


def cholesky(x: Tensor, /, *, upper: bool = False) -> Tensor:
    """The triangular factor of a positive definite matrix."""
    return torch_names.cholesky(x, upper=upper)


def cross(x1: Tensor, x2: Tensor, /, *, axis: int = -1) -> Tensor:
    """The cross product of vectors of 3 along `axis`."""
    one, other = promoted(x1, x2)
    return torch_names.cross(one, other, dim=axis)


def det(x: Tensor, /) -> Tensor:
    """The determinant."""
    return torch_names.det(x)


def diagonal(x: Tensor, /, *, offset: int = 0) -> Tensor:
    """The diagonals of the matrices as a last axis."""
    return torch_names.diagonal(x, offset=offset)


def eigh(x: Tensor, /) -> Any:
    """The eigenvalues in order, and the eigenvectors as columns, of a symmetric matrix."""
    return torch_names.eigh(x)


def eigvalsh(x: Tensor, /) -> Tensor:
    """The eigenvalues of a symmetric matrix in order."""
    return torch_names.eigvalsh(x)


def eig(x: Tensor, /) -> Any:
    """Eigenvalues of a general matrix are complex numbers, which are not there: raises DTypeError."""
    raise DTypeError(f"eig: eigenvalues are complex numbers, which are not there (at {user_source()}); see eigh")


def eigvals(x: Tensor, /) -> Tensor:
    """Eigenvalues of a general matrix are complex numbers, which are not there: raises DTypeError."""
    raise DTypeError(f"eigvals: eigenvalues are complex numbers, which are not there (at {user_source()}); see eigh")


def inv(x: Tensor, /) -> Tensor:
    """The inverse."""
    return torch_names.inv(x)


def matrix_norm(x: Tensor, /, *, keepdims: bool = False, ord: Any = "fro") -> Tensor:
    """The norm of each matrix: "fro", "nuc", or 1, 2, infinity and their opposites."""
    return torch_names.matrix_norm(x, ord=ord, keepdim=keepdims)


def matrix_power(x: Tensor, n: int, /) -> Tensor:
    """The matrix multiplied with itself; a negative power is that of the inverse."""
    return torch_names.matrix_power(x, n)


def matrix_rank(x: Tensor, /, *, rtol: Any = None) -> Tensor:
    """How many singular values are above `rtol` times the greatest."""
    return torch_names.matrix_rank(x, rtol=rtol)


def outer(x1: Tensor, x2: Tensor, /) -> Tensor:
    """The products of each element of one vector with each of the other."""
    one, other = promoted(x1, x2)
    return one.outer(other)


def pinv(x: Tensor, /, *, rtol: Any = None) -> Tensor:
    """The pseudo-inverse; singular values below `rtol` times the greatest count as 0."""
    return torch_names.pinv(x, rtol=rtol)


def qr(x: Tensor, /, *, mode: str = "reduced") -> Any:
    """An orthogonal and an upper triangular matrix, whose product is `x`."""
    return torch_names.qr(x, mode=mode)


def slogdet(x: Tensor, /) -> Any:
    """The sign and the logarithm of the magnitude of the determinant."""
    return torch_names.slogdet(x)


def solve(x1: Tensor, x2: Tensor, /) -> Tensor:
    """The x of x1 x = x2; x2 is a vector only where it has one axis."""
    one, other = promoted(x1, x2)
    if other.ndim == 1:
        return torch_names.solve(one, other[:, None])[..., 0]
    if other.ndim < one.ndim:  # which PyTorch may take for a stack of vectors
        other = other.expand(*one.shape[:-2], *other.shape[-2:])
    return torch_names.solve(one, other)


def svd(x: Tensor, /, *, full_matrices: bool = True) -> Any:
    """Singular vectors as columns, singular values, singular vectors as rows."""
    return torch_names.svd(x, full_matrices=full_matrices)


def svdvals(x: Tensor, /) -> Tensor:
    """The singular values in falling order."""
    return torch_names.svdvals(x)


def trace(x: Tensor, /, *, offset: int = 0, dtype: DType | None = None) -> Tensor:
    """The sum of each matrix's diagonal."""
    return sum(torch_names.diagonal(x, offset=offset), axis=-1, dtype=dtype)


def vector_norm(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False, ord: float = 2) -> Tensor:
    """The norm of order `ord` over `axis`, by default over all elements."""
    if axis == ():
        return torch_names.vector_norm(x.reshape((*x.shape, 1)), ord=ord, dim=-1)
    if axis is None and number_of(x.shape) == x.ndim == 0:
        return torch_names.vector_norm(x.reshape(1), ord=ord)
    return torch_names.vector_norm(x, ord=ord, dim=axis, keepdim=keepdims)


__all__ = [
    "cholesky", "cross", "det", "diagonal", "eig", "eigh", "eigvals", "eigvalsh", "inv", "matmul", "matrix_norm",
    "matrix_power", "matrix_rank", "matrix_transpose", "outer", "pinv", "qr", "slogdet", "solve", "svd", "svdvals",
    "tensordot", "trace", "vecdot", "vector_norm",
]  # fmt: skip
