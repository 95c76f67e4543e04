"""Factorizations of matrices, and what is read from them.

The gradients of factors suppose distinct singular values or eigenvalues, and full rank; where they are not unique
(signs, order) a loss must not depend on the choice. References: Giles, "Collected matrix derivative results for forward
and reverse mode algorithmic differentiation" (2008); Walter and Lehmann, "Algorithmic differentiation of linear algebra
functions" (2010).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..autograd.function import with_gradient
from ..errors import DTypeError, ShapeError
from ..graph.types import int32
from ..ops.elementwise import broadcast_shapes
from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.arithmetic import where
from ..tensor.autocast_mode import widening
from ..tensor.creation import eye, zeros
from ..tensor.joining import cat
from . import lapack
from .calls import call, diagonal_matrix, half_diagonal, matrices, over, packed_call, parts, skew
from .solving import _pinv_pullback, solve_triangular


class CholeskyInfo(NamedTuple):
    """A Cholesky factor, and 0 where there is one."""

    L: Tensor
    info: Tensor


class QRResult(NamedTuple):
    """Orthonormal columns and an upper triangle."""

    Q: Tensor
    R: Tensor


class SVDResult(NamedTuple):
    """Left singular vectors, singular values in falling order, right singular vectors as rows."""

    U: Tensor
    S: Tensor
    Vh: Tensor


class EighResult(NamedTuple):
    """Eigenvalues in rising order and eigenvectors as columns."""

    eigenvalues: Tensor
    eigenvectors: Tensor


class LUResult(NamedTuple):
    """A permutation, a lower triangle with ones on its diagonal and an upper triangle: A = P L U."""

    P: Tensor
    L: Tensor
    U: Tensor


class LUFactors(NamedTuple):
    """L and U in one matrix, and the rows exchanged, counted from 1."""

    LU: Tensor
    pivots: Tensor


class LUFactorsInfo(NamedTuple):
    """L and U in one matrix, the rows exchanged, and 0 where no pivot is 0."""

    LU: Tensor
    pivots: Tensor
    info: Tensor


# ---- Cholesky


@widening
def cholesky(A: Tensor, *, upper: bool = False) -> Tensor:
    """L with A = L Lᵀ (with `upper` Lᵀ, for A = Lᵀ L) of symmetric positive definite matrices [..., n, n].

    Only the lower (upper) triangle of A is read. LinAlgError names the matrix that is not positive definite.
    """
    return _cholesky(A, upper, True).L


@widening
def cholesky_ex(A: Tensor, *, upper: bool = False, check_errors: bool = False) -> CholeskyInfo:
    """`cholesky`, and `info`: 0, or the order of the first leading minor that is not positive.

    The factor has then its columns before that order, and below and right of them what is left of A to be factored.
    """
    return _cholesky(A, upper, check_errors)


def _cholesky(A: Tensor, upper: bool, checked: bool) -> CholeskyInfo:
    matrices("cholesky", A, square=True)
    size = A.shape[-1]
    shapes: list[tuple[int, ...]] = [(size, size), (1,)]
    packed = packed_call(lapack.cholesky(upper, checked), A.shape[:-2], shapes, A)

    def rule(result: Tensor, cotangent: Tensor) -> list[Tensor]:
        factor, g = parts(result, shapes)[0], parts(cotangent, shapes)[0]
        lower, g = (factor.mT, g.mT) if upper else (factor, g)
        inner = half_diagonal(lower.mT @ g)
        middle = solve_triangular(lower.mT, inner, upper=True)
        whole = solve_triangular(lower.mT, middle.mT, upper=True).mT
        return [(whole + whole.mT) * 0.5]

    factor, info = parts(with_gradient(packed, [A], rule), shapes)
    return CholeskyInfo(factor, info.detach().reshape(A.shape[:-2]).to(int32))


# ---- QR


@widening
def qr(A: Tensor, mode: str = "reduced") -> QRResult:
    """Q with orthonormal columns and upper triangular R, A = Q R: A [..., m, n], k = min(m, n).

    `mode` "reduced": Q [..., m, k], R [..., k, n]; "complete": Q [..., m, m], R [..., m, n]; "r": Q is empty. There
    is a gradient in mode "reduced", and in mode "complete" where m <= n.
    """
    if mode not in ("reduced", "complete", "r"):
        raise ValueError(f'qr: mode must be "reduced", "complete" or "r", got {mode!r} (at {user_source()})')
    matrices("qr", A)
    batch, (m, n) = A.shape[:-2], A.shape[-2:]
    inner = m if mode == "complete" else min(m, n)
    if mode == "r":
        return QRResult(zeros((0,), dtype=A.dtype), call(lapack.qr(mode), (*batch, inner, n), A))
    shapes: list[tuple[int, ...]] = [(m, inner), (inner, n)]
    packed = packed_call(lapack.qr(mode), batch, shapes, A)
    source = user_source()

    def rule(result: Tensor, cotangent: Tensor) -> list[Tensor]:
        if inner > n:
            raise ShapeError(f'qr: mode "complete" of {list(A.shape)} has no gradient (at {source}); use "reduced"')
        return [_qr_pullback(*parts(result, shapes), *parts(cotangent, shapes))]

    return QRResult(*parts(with_gradient(packed, [A], rule), shapes))


def _qr_pullback(Q: Tensor, R: Tensor, gQ: Tensor, gR: Tensor) -> Tensor:
    m, n = Q.shape[-2], R.shape[-1]
    if n > R.shape[-2]:  # wide: A = Q [R1 R2], and R2 is Qᵀ A2
        first, second, g_second = R[..., :m], Q @ R[..., m:], gR[..., m:]
        left = _qr_pullback(Q, first, gQ + second @ g_second.mT, gR[..., :m])
        return cat([left, Q @ g_second], -1)
    inner = (gR @ R.mT - Q.mT @ gQ).triu()
    symmetric = inner + inner.mT - inner.tril()
    whole = gQ + Q @ symmetric
    return solve_triangular(R, whole.mT, upper=True).mT


# ---- singular values


@widening
def svd(A: Tensor, full_matrices: bool = True, *, driver: str | None = None) -> SVDResult:
    """The singular value decomposition A = U diag(S) Vh: A [..., m, n], k = min(m, n), S [..., k].

    U is [..., m, k] and Vh [..., k, n], or square with `full_matrices`. Gradients through vectors beyond the first k do
    not exist and count as 0. So does what goes through the vectors of two equal singular values, which are not unique:
    that is right for what does not change with them, and not for all that is made of both, such as U Vh; PyTorch gives
    NaN there.
    """
    if driver is not None:
        raise ValueError(f"svd: driver chooses between CUDA's, got {driver!r} (at {user_source()}); leave it None")
    matrices("svd", A)
    batch, (m, n) = A.shape[:-2], A.shape[-2:]
    k = min(m, n)
    shapes: list[tuple[int, ...]] = [(m, m if full_matrices else k), (k,), (n if full_matrices else k, n)]
    packed = packed_call(lapack.svd(full_matrices), batch, shapes, A)

    def rule(result: Tensor, cotangent: Tensor) -> list[Tensor]:
        (U, S, Vh), (gU, gS, gVh) = parts(result, shapes), parts(cotangent, shapes)
        return [_svd_pullback(U[..., :k], S, Vh[..., :k, :], gU[..., :k], gS, gVh[..., :k, :])]

    return SVDResult(*parts(with_gradient(packed, [A], rule), shapes))


def _svd_pullback(U: Tensor, S: Tensor, Vh: Tensor, gU: Tensor, gS: Tensor, gVh: Tensor) -> Tensor:
    squares = S * S
    gaps = squares.unsqueeze(-2) - squares.unsqueeze(-1)
    by_u, by_v = over(skew(U.mT @ gU), gaps), over(skew(Vh @ gVh.mT), gaps)
    inner = by_u * S.unsqueeze(-2) + S.unsqueeze(-1) * by_v + diagonal_matrix(gS)
    whole = U @ inner @ Vh
    if U.shape[-2] > U.shape[-1]:
        outside = over(gU, S.unsqueeze(-2))
        whole = whole + (outside - U @ (U.mT @ outside)) @ Vh
    if Vh.shape[-1] > Vh.shape[-2]:
        outside = over(gVh, S.unsqueeze(-1))
        whole = whole + U @ (outside - (outside @ Vh.mT) @ Vh)
    return whole


@widening
def svdvals(A: Tensor, *, driver: str | None = None) -> Tensor:
    """The singular values, in falling order."""
    return svd(A, False, driver=driver).S


@widening
def pinv(
    A: Tensor,
    rcond: float | Tensor | None = None,
    hermitian: bool = False,
    *,
    atol: float | Tensor | None = None,
    rtol: float | Tensor | None = None,
) -> Tensor:
    """The Moore-Penrose pseudoinverse of [..., m, n] -> [..., n, m].

    Singular values up to max(atol, rtol times the largest) count as 0; rtol (formerly `rcond`) is machine precision
    times max(m, n) where neither is given. With `hermitian` A is symmetric. The gradient supposes that the rank stays.
    """
    matrices("pinv", A, square=hermitian)
    if rcond is not None and rtol is not None:
        raise ValueError(f"pinv: rcond is the former name of rtol, give one of them (at {user_source()})")
    relative = rcond if rtol is None else rtol
    value = _symmetric_pinv(A.detach(), atol, relative) if hermitian else _plain_pinv(A.detach(), atol, relative)

    def rule(result: Tensor, g: Tensor) -> list[Tensor]:
        return [_pinv_pullback(A, result, g)]

    return with_gradient(value, [A], rule)


def _plain_pinv(A: Tensor, atol: Any, rtol: Any) -> Tensor:
    U, S, Vh = svd(A, False)
    kept = _threshold(S, A.shape, atol, rtol) < S
    return Vh.mT @ (where(kept, 1 / where(kept, S, 1.0), 0.0).unsqueeze(-1) * U.mT)


def _symmetric_pinv(A: Tensor, atol: Any, rtol: Any) -> Tensor:
    values, V = eigh(A)
    kept = values.abs() > _threshold(values.abs(), A.shape, atol, rtol)
    return (V * where(kept, 1 / where(kept, values, 1.0), 0.0).unsqueeze(-2)) @ V.mT


def _threshold(S: Tensor, shape: tuple[int, ...], atol: Any, rtol: Any) -> Tensor:
    """What singular values must be above, [..., 1]."""
    if rtol is None:
        epsilon = 2.0**-23 if S.dtype.itemsize == 4 else 2.0**-52
        rtol = epsilon * max(shape[-2:]) if atol is None or not isinstance(atol, (int, float)) or atol <= 0 else 0.0
    largest = S.detach().amax(-1) if S.shape[-1] else zeros(S.shape[:-1], dtype=S.dtype)
    relative = largest * rtol
    bound = relative if atol is None else (relative * 0 + atol).maximum(relative)
    return bound.to(S.dtype).unsqueeze(-1)


@widening
def matrix_rank(A: Tensor, tol: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None) -> Tensor:
    """How many singular values are above max(atol, rtol times the largest), int64; `tol` is an absolute one."""
    matrices("matrix_rank", A, square=hermitian)
    x = A.detach()
    S = eigvalsh(x).abs() if hermitian else svdvals(x)
    if tol is not None:
        return ((tol.unsqueeze(-1) if isinstance(tol, Tensor) else tol) < S).sum(-1)
    return (_threshold(S, A.shape, atol, rtol) < S).sum(-1)


# ---- eigenvalues


@widening
def eigh(A: Tensor, UPLO: str = "L") -> EighResult:
    """Eigenvalues, rising, and eigenvectors as columns of symmetric matrices [..., n, n]; one triangle is read.

    What of a gradient goes through the vectors of two equal eigenvalues counts as 0: see `svd`.
    """
    if UPLO.upper() not in ("L", "U"):
        raise ValueError(f'eigh: UPLO must be "L" or "U", got {UPLO!r} (at {user_source()})')
    matrices("eigh", A, square=True)
    size = A.shape[-1]
    shapes: list[tuple[int, ...]] = [(size,), (size, size)]
    packed = packed_call(lapack.eigh(UPLO.upper() == "U"), A.shape[:-2], shapes, A)

    def rule(result: Tensor, cotangent: Tensor) -> list[Tensor]:
        (values, V), (g_values, gV) = parts(result, shapes), parts(cotangent, shapes)
        one = eye(size, dtype=A.dtype)
        gaps = values.unsqueeze(-2) - values.unsqueeze(-1) + one
        inner = over(skew(V.mT @ gV) * (1 - one), gaps) * 0.5
        return [V @ (inner + diagonal_matrix(g_values)) @ V.mT]

    return EighResult(*parts(with_gradient(packed, [A], rule), shapes))


@widening
def eigvalsh(A: Tensor, UPLO: str = "L") -> Tensor:
    """The eigenvalues of symmetric matrices, rising."""
    return eigh(A, UPLO).eigenvalues


def eig(A: Tensor) -> Any:
    """Not there: eigenvalues of a general matrix are complex numbers, which Pullback does not have."""
    raise DTypeError(
        "eig: the eigenvalues of a general matrix are complex, and complex numbers are out of scope "
        f"(at {user_source()}). For symmetric matrices use eigh."
    )


def eigvals(A: Tensor) -> Any:
    """Not there: eigenvalues of a general matrix are complex numbers, which Pullback does not have."""
    return eig(A)


# ---- LU


@widening
def lu_factor_ex(A: Tensor, *, pivot: bool = True, check_errors: bool = False) -> LUFactorsInfo:
    """`lu_factor`, and `info`: 0, or the first column whose pivot is 0, which `check_errors` makes a LinAlgError."""
    if not pivot:
        raise ValueError(f"lu: pivot=False is CUDA's only, as in PyTorch (at {user_source()})")
    matrices("lu", A)
    m, n = A.shape[-2:]
    k = min(m, n)
    shapes: list[tuple[int, ...]] = [(m, n), (k,), (1,)]
    packed = packed_call(lapack.checked_lu if check_errors else lapack.lu, A.shape[:-2], shapes, A)

    def rule(result: Tensor, cotangent: Tensor) -> list[Tensor]:
        both, pivots, _ = parts(result, shapes)
        g = parts(cotangent, shapes)[0]
        P = _permutation(pivots, m)
        return [_lu_pullback(P, _lower(both), both[..., :k, :].triu(), g[..., :k].tril(-1), g[..., :k, :].triu())]

    both, pivots, info = parts(with_gradient(packed, [A], rule), shapes)
    code = info.detach().reshape(A.shape[:-2]).to(int32)
    return LUFactorsInfo(both, pivots.detach().to(int32), code)


@widening
def lu_factor(A: Tensor, *, pivot: bool = True) -> LUFactors:
    """L and U of A = P L U in one matrix, and the exchanged rows: Gaussian elimination with partial pivoting.

    LinAlgError where a pivot is 0.
    """
    return LUFactors(*lu_factor_ex(A, pivot=pivot, check_errors=True)[:2])


@widening
def lu(A: Tensor, *, pivot: bool = True) -> LUResult:
    """P, L and U with A = P L U: A [..., m, n], k = min(m, n), P [..., m, m], L [..., m, k], U [..., k, n]."""
    return lu_unpack(*lu_factor_ex(A, pivot=pivot)[:2])


def _lower(both: Tensor) -> Tensor:
    k = min(both.shape[-2:])
    return both[..., :k].tril(-1) + eye(both.shape[-2], k, dtype=both.dtype)


def _permutation(pivots: Tensor, rows: int) -> Tensor:
    as_floats = pivots.detach()
    return call(lapack.permutation_of(rows), (*pivots.shape[:-1], rows, rows), as_floats)


def _lu_pullback(P: Tensor, L: Tensor, U: Tensor, gL: Tensor, gU: Tensor) -> Tensor:
    m, k, n = L.shape[-2], L.shape[-1], U.shape[-1]
    L1, U1 = L[..., :k, :], U[..., :k]
    lower, upper = L1.mT @ gL[..., :k, :], gU[..., :k] @ U1.mT
    if n > k:
        lower = lower - gU[..., k:] @ U[..., k:].mT
    if m > k:
        upper = upper - L[..., k:, :].mT @ gL[..., k:, :]
    inner = lower.tril(-1) + upper.triu()
    if m <= n:
        first = solve_triangular(U1, inner.mT, upper=True).mT
        right = cat([first, gU[..., k:]], -1) if n > k else first
        return P @ solve_triangular(L1.mT, right, upper=True, unitriangular=True)
    top = solve_triangular(L1.mT, inner, upper=True, unitriangular=True)
    below = cat([top, gL[..., k:, :]], -2)
    return P @ solve_triangular(U, below.mT, upper=True).mT


@widening
def lu_unpack(LU_data: Tensor, LU_pivots: Tensor, unpack_data: bool = True, unpack_pivots: bool = True) -> LUResult:
    """P, L and U from what `lu_factor` gives; what is not unpacked is empty."""
    matrices("lu_unpack", LU_data)
    nothing = zeros((0,), dtype=LU_data.dtype)
    P = _permutation(LU_pivots.to(LU_data.dtype), LU_data.shape[-2]) if unpack_pivots else nothing
    if not unpack_data:
        return LUResult(P, nothing, nothing)
    k = min(LU_data.shape[-2:])
    return LUResult(P, _lower(LU_data), LU_data[..., :k, :].triu())


@widening
def lu_solve(LU: Tensor, pivots: Tensor, B: Tensor, *, left: bool = True, adjoint: bool = False) -> Tensor:
    """X of A X = B (with `left=False` of X A = B, with `adjoint` of Aᵀ), given A's `lu_factor`."""
    matrices("lu_solve", LU, B, square=True)
    if not left:
        return lu_solve(LU, pivots, B.mT, adjoint=not adjoint).mT
    P = _permutation(pivots.to(LU.dtype), LU.shape[-2])
    if adjoint:
        inner = solve_triangular(LU.mT, B, upper=False)
        return P @ solve_triangular(LU.mT, inner, upper=True, unitriangular=True)
    inner = solve_triangular(LU, P.mT @ B, upper=False, unitriangular=True)
    return solve_triangular(LU, inner, upper=True)


@widening
def geqrf(input: Tensor) -> tuple[Tensor, Tensor]:
    """(a, tau): R of a QR decomposition, with the vectors of the reflections that make Q below its diagonal, and their
    scales (see householder_product). A host call, without a gradient; use qr for one.
    """
    matrices("geqrf", input)
    m, n = input.shape[-2:]
    shapes: list[tuple[int, ...]] = [(m, n), (min(m, n),)]
    a, tau = parts(packed_call(lapack.geqrf, input.shape[:-2], shapes, input), shapes)
    return a, tau


@widening
def ormqr(input: Tensor, tau: Tensor, other: Tensor, left: bool = True, transpose: bool = False) -> Tensor:
    """Q @ `other`, or `other` @ Q without `left`, Q being all m columns of `input`'s reflections; see geqrf.

    `input` [..., m, k], `tau` [..., k]; with `transpose` Qᵀ takes Q's place, which is never formed.
    """
    matrices("ormqr", input, other)
    m, k = input.shape[-2], tau.shape[-1]
    if tau.shape[:-1] != input.shape[:-2] or k > min(input.shape[-2:]) or other.shape[-2 if left else -1] != m:
        raise ShapeError(
            f"ormqr: {list(input.shape)}, {list(tau.shape)} and {list(other.shape)} are not reflections of length "
            f"{m}, their scales, and what they multiply (at {user_source()})"
        )
    if not left:
        return ormqr(input, tau, other.mT, transpose=not transpose).mT
    for i in range(k) if transpose else reversed(range(k)):
        other = _reflected(input, tau, i, other)
    return other


def _reflected(A: Tensor, tau: Tensor, i: int, other: Tensor) -> Tensor:
    """(I - tau_i v_i v_iᵀ) @ `other`: v_i is 1 on A's diagonal and A below it."""
    v = A[..., i : i + 1].tril(-i - 1) + eye(A.shape[-2], i + 1, dtype=A.dtype)[:, i:]
    return other - tau[..., i][..., None, None] * (v @ (v.mT @ other))


@widening
def householder_product(A: Tensor, tau: Tensor) -> Tensor:
    """The first n columns of the product of reflections I - tau_i v_i v_iᵀ, v_i below A's diagonal: LAPACK's orgqr."""
    matrices("householder_product", A)
    m, n = A.shape[-2:]
    if n > m or tau.shape[-1] > n:
        raise ShapeError(
            f"householder_product: {list(A.shape)} and {list(tau.shape)}: more columns than rows, or "
            f"reflections than columns (at {user_source()})"
        )
    batch = broadcast_shapes("householder_product", A.shape[:-2], tau.shape[:-1])
    one = eye(m, n, dtype=A.dtype).expand(*batch, m, n)
    # it depends on A by name where there is no reflection too
    result = one if tau.shape[-1] else with_gradient(one, [A], lambda _, g: [g * 0])
    for i in reversed(range(tau.shape[-1])):
        result = _reflected(A, tau, i, result)
    return result
