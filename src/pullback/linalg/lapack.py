"""What NumPy's LAPACK computes on the host, and what it lacks, on batches of matrices: arrays in, one array out.

A host call has one result. Where a factorization has several they come in one array, side by side along the last axis
(`packed`), and are cut apart in the graph. Every function here is one object for each choice of options, so that equal
calls are equal operations.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from ..errors import LinAlgError

Function = Callable[..., np.ndarray]

#: columns that are eliminated, and rows that are substituted, one by one before the rest is a matrix product
_PANEL = 32
#: coefficients of the Padé approximant of exp of order 13, and the norm up to which it is exact to float64:
#: Higham, "The scaling and squaring method for the matrix exponential revisited" (2005), table 2.3
_PADE = (
    *(64764752532480000.0, 32382376266240000.0, 7771770303897600.0, 1187353796428800.0, 129060195264000.0),
    *(10559470521600.0, 670442572800.0, 33522128640.0, 1323241920.0, 40840800.0, 960960.0, 16380.0, 182.0, 1.0),
)
_PADE_NORM = 5.371920351148152


def packed(batch: tuple[int, ...], parts: Sequence[np.ndarray]) -> np.ndarray:
    """The results of each matrix of the batch, flattened, side by side."""
    return np.concatenate([p.reshape(*batch, math.prod(p.shape[len(batch) :])) for p in parts], axis=-1)


def _guarded(function: Function, name: str, why: str) -> Function:
    """`function` on a batch; where LAPACK gives up the error names the matrix."""

    def run(a: np.ndarray, *others: np.ndarray) -> np.ndarray:
        try:
            return function(a, *others)
        except np.linalg.LinAlgError:
            raise LinAlgError(f"{name}: {_culprit(function, a, others)}{why}") from None

    return run


def _of_finite(function: Function) -> Function:
    """`function`, which raises for a matrix that holds NaN or infinity: LAPACK may never return from an infinity."""

    def run(a: np.ndarray, *others: np.ndarray) -> np.ndarray:
        if not np.isfinite(a).all():
            raise np.linalg.LinAlgError("a matrix holds NaN or infinity")
        return function(a, *others)

    return run


def _culprit(function: Function, a: np.ndarray, others: tuple[np.ndarray, ...]) -> str:
    if a.ndim <= 2:
        return "the matrix "
    batch = np.broadcast_shapes(a.shape[:-2], *(o.shape[:-2] for o in others))
    spread = [np.broadcast_to(x, batch + x.shape[-2:]) for x in (a, *others)]
    for place in np.ndindex(*batch):
        try:
            function(*(x[place] for x in spread))
        except np.linalg.LinAlgError:
            return f"the matrix at {list(place)} of the batch "
    return "a matrix of the batch "


@cache
def where_finite(function: Function) -> Function:
    """`function`, but where it raises for matrices that hold NaN or infinity: what it would give for these is NaN."""

    def run(*arrays: np.ndarray) -> np.ndarray:
        try:
            return function(*arrays)
        except (LinAlgError, np.linalg.LinAlgError):
            bad = [~np.isfinite(a).all(axis=(-2, -1)) if a.ndim > 1 else np.zeros((), bool) for a in arrays]
            if not any(each.any() for each in bad):
                raise
        sound = [
            np.where(each[..., None, None], np.eye(*a.shape[-2:], dtype=a.dtype), a) if each.any() else a
            for each, a in zip(bad, arrays, strict=True)
        ]
        result = function(*sound)
        left_out = functools.reduce(np.logical_or, bad)
        return np.where(left_out.reshape(left_out.shape + (1,) * (result.ndim - left_out.ndim)), np.nan, result)

    return run


def _quiet(function: Function) -> Function:
    def run(*arrays: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return function(*arrays)

    return run


inverse = _guarded(_quiet(np.linalg.inv), "inv", "is singular and has no inverse")
solution = _guarded(_quiet(np.linalg.solve), "solve", "is singular: there is no unique solution")


@_quiet
def solution_and_info(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The solution of A X = B and LAPACK's `info`, packed: 0, or the first pivot that is 0 and was divided by."""
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    info = np.zeros((*batch, 1), a.dtype)
    try:
        return packed(batch, [np.linalg.solve(a, b), info])
    except np.linalg.LinAlgError:
        a, b = (np.broadcast_to(x, batch + x.shape[-2:]) for x in (a, b))
    found = np.empty_like(b)
    for place in np.ndindex(*batch):
        try:
            found[place] = np.linalg.solve(a[place], b[place])
        except np.linalg.LinAlgError:
            found[place], info[place] = _substituted(a[place], b[place])
    return packed(batch, [found, info])


def _substituted(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, int]:
    """What is left of the solution of a singular system where its zero pivots are divided by."""
    both, pivots, info = _eliminate(a)
    b = np.array(b)
    for row, other in enumerate(pivots - 1):
        b[[row, other]] = b[[other, row]]
    return triangular(True, False)(both, triangular(False, True)(both, b)), info


@_quiet
def determinant(a: np.ndarray) -> np.ndarray:
    """The determinant of each matrix."""
    return np.asarray(np.linalg.det(a), a.dtype)


@_quiet
def sign_and_log(a: np.ndarray) -> np.ndarray:
    """The determinant's sign and the logarithm of its size, packed."""
    sign, logarithm = np.linalg.slogdet(a)
    return np.stack([np.asarray(sign, a.dtype), np.asarray(logarithm, a.dtype)], axis=-1)


@_of_finite
@_quiet
def cofactors(a: np.ndarray) -> np.ndarray:
    """The matrix of cofactors: det(A) A⁻ᵀ, which singular matrices have too. From the singular value decomposition."""
    u, s, vh = np.linalg.svd(a)
    size = s.shape[-1]
    if not size:
        return np.array(a)
    others = np.stack([np.prod(np.delete(s, i, axis=-1), axis=-1) for i in range(size)], axis=-1)
    sign = np.asarray(np.linalg.det(u) * np.linalg.det(vh))
    return (u * others[..., None, :]) @ vh * np.round(sign)[..., None, None]


@cache
def cholesky(upper: bool, checked: bool) -> Function:
    """The Cholesky factor, packed with LAPACK's `info`: 0, or the first order at which it is not positive definite."""

    def run(a: np.ndarray) -> np.ndarray:
        a = np.swapaxes(a, -1, -2) if upper else a
        batch = a.shape[:-2]
        factor, info = np.zeros_like(a), np.zeros(batch, a.dtype)
        for place in np.ndindex(*batch):
            try:
                factor[place] = np.linalg.cholesky(a[place])
            except np.linalg.LinAlgError:
                info[place] = _first_bad_minor(a[place])
                factor[place] = _begun_cholesky(a[place], int(info[place]) - 1)
                if checked:
                    where = f"the matrix at {list(place)} of the batch" if batch else "the matrix"
                    raise LinAlgError(
                        f"cholesky: {where} is not positive definite: its leading minor of order "
                        f"{int(info[place])} is not positive"
                    ) from None
        factor = np.swapaxes(factor, -1, -2) if upper else factor
        return packed(batch, [factor, info[..., None]])

    return run


def _begun_cholesky(a: np.ndarray, done: int) -> np.ndarray:
    """The factor's first `done` columns, and under them what was to be factored next: A less their products."""
    factor = np.tril(a)
    factor[:done, :done] = head = np.linalg.cholesky(a[:done, :done])
    factor[done:, :done] = below = triangular(False, False)(head, a[done:, :done].T).T
    factor[done:, done:] -= np.tril(below @ below.T)
    return factor


def _first_bad_minor(a: np.ndarray) -> int:
    for order in range(1, a.shape[-1] + 1):
        try:
            np.linalg.cholesky(a[:order, :order])
        except np.linalg.LinAlgError:
            return order
    return a.shape[-1]


@cache
def qr(mode: str) -> Function:
    """Q and R packed, or R alone."""

    def run(a: np.ndarray) -> np.ndarray:
        if mode == "r":
            return np.asarray(np.linalg.qr(a, "r"))
        q, r = np.linalg.qr(a, mode)  # type: ignore[call-overload]
        return packed(a.shape[:-2], [q, r])

    return run


def geqrf(a: np.ndarray) -> np.ndarray:
    """R above reflections, as LAPACK packs them, and their scales."""
    reflections, scales = np.linalg.qr(a, mode="raw")
    return packed(a.shape[:-2], [np.swapaxes(reflections, -1, -2), scales])


@cache
def svd(full_matrices: bool) -> Function:
    """U, the singular values and Vᵀ packed."""

    def run(a: np.ndarray) -> np.ndarray:
        return packed(a.shape[:-2], np.linalg.svd(a, full_matrices))

    return _guarded(_of_finite(run), "svd", "holds NaN or infinity, or its singular values were not found")


@cache
def eigh(upper: bool) -> Function:
    """The eigenvalues of symmetric matrices, ascending, and the eigenvectors as columns, packed."""

    def run(a: np.ndarray) -> np.ndarray:
        return packed(a.shape[:-2], np.linalg.eigh(a, "U" if upper else "L"))

    return _guarded(_of_finite(run), "eigh", "holds NaN or infinity, or its eigenvalues were not found")


@cache
def triangular(upper: bool, unit: bool) -> Function:
    """The solution X of T X = B, of which only one triangle of T is read (with `unit` its diagonal counts as 1)."""

    @_quiet
    def run(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        size = a.shape[-1]
        if upper:  # from the last row on: the same with both reversed
            a, b = a[..., ::-1, ::-1], b[..., ::-1, :]
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        x = np.array(np.broadcast_to(b, batch + b.shape[-2:]))
        for start in range(0, size, _PANEL):
            end = min(start + _PANEL, size)
            x[..., start:end, :] -= a[..., start:end, :start] @ x[..., :start, :]
            for row in range(start, end):
                x[..., row, :] -= (a[..., row : row + 1, start:row] @ x[..., start:row, :])[..., 0, :]
                if not unit:
                    x[..., row, :] /= a[..., row, row][..., None]
        return x[..., ::-1, :] if upper else x

    return run


def _eliminate(a: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """One matrix's L and U in one array, the rows exchanged (counted from 1), and LAPACK's `info`."""
    a = np.array(a)
    rows, columns = a.shape
    pivots, info = np.zeros(min(rows, columns), np.int64), 0
    for start in range(0, len(pivots), _PANEL):
        end = min(start + _PANEL, len(pivots))
        for j in range(start, end):
            pivot = j + int(np.argmax(np.abs(a[j:, j])))
            pivots[j] = pivot + 1
            if a[pivot, j] == 0:
                info = info or j + 1
                continue
            if pivot != j:
                a[[j, pivot]] = a[[pivot, j]]
            a[j + 1 :, j] /= a[j, j]
            a[j + 1 :, j + 1 : end] -= np.outer(a[j + 1 :, j], a[j, j + 1 : end])
        lower = np.tril(a[start:end, start:end], -1)
        a[start:end, end:] = triangular(False, True)(lower, a[start:end, end:])
        a[end:, end:] -= a[end:, start:end] @ a[start:end, end:]
    return a, pivots, info


@_quiet
def lu(a: np.ndarray) -> np.ndarray:
    """L and U in one array, the pivots, and LAPACK's `info`, packed: Gaussian elimination with partial pivoting.

    Right-looking by panels of columns (Golub and Van Loan, "Matrix Computations", 4th edition, section 3.2.11).
    """
    batch = a.shape[:-2]
    count = min(a.shape[-2:])
    both, pivots, info = np.empty_like(a), np.empty((*batch, count), a.dtype), np.empty((*batch, 1), a.dtype)
    for place in np.ndindex(*batch):
        both[place], pivots[place], info[place] = _eliminate(a[place])
    return packed(batch, [both, pivots, info])


def checked_lu(a: np.ndarray) -> np.ndarray:
    """`lu`; LinAlgError where a pivot is 0."""
    found = lu(a)
    for place in np.ndindex(*a.shape[:-2]):
        pivot = int(found[(*place, -1)])
        if pivot:
            where = f"of the matrix at {list(place)} of the batch " if place else ""
            raise LinAlgError(f"lu_factor: U[{pivot},{pivot}] {where}is zero: lu_solve would divide by it")
    return found


def permutation(pivots: np.ndarray, rows: int) -> np.ndarray:
    """The matrix P of A = P L U, from the exchanged rows."""
    batch = pivots.shape[:-1]
    result = np.zeros((*batch, rows, rows))
    for place in np.ndindex(*batch):
        order = np.arange(rows)
        for row, other in enumerate(pivots[place].astype(np.int64) - 1):
            order[[row, other]] = order[[other, row]]
        result[(*place, order, np.arange(rows))] = 1.0
    return result


@cache
def permutation_of(rows: int) -> Function:
    """`permutation` for matrices of so many rows."""
    return lambda pivots: permutation(pivots, rows)


@_quiet
def exponential(a: np.ndarray) -> np.ndarray:
    """The matrix exponential by scaling, the Padé approximant of order 13, and squaring (Higham 2005)."""
    wide = a.astype(np.float64)
    size = a.shape[-1]
    norms = np.max(np.sum(np.abs(wide), axis=-2), axis=-1, initial=0.0)
    if not np.all(np.isfinite(norms)):
        raise LinAlgError("matrix_exp: a matrix holds NaN or infinity")
    squarings = np.maximum(0, np.ceil(np.log2(np.maximum(norms, 1e-300) / _PADE_NORM))).astype(np.int64)
    wide = wide / np.exp2(squarings)[..., None, None]
    b, one = _PADE, np.eye(size)
    a2 = wide @ wide
    a4 = a2 @ a2
    a6 = a2 @ a4
    odd = a6 @ (b[13] * a6 + b[11] * a4 + b[9] * a2) + b[7] * a6 + b[5] * a4 + b[3] * a2 + b[1] * one
    even = a6 @ (b[12] * a6 + b[10] * a4 + b[8] * a2) + b[6] * a6 + b[4] * a4 + b[2] * a2 + b[0] * one
    result = np.linalg.solve(even - wide @ odd, even + wide @ odd)
    for turn in range(int(np.max(squarings, initial=0))):
        result = np.where((squarings > turn)[..., None, None], result @ result, result)
    return result


@cache
def least_squares(rcond: float | None) -> Function:
    """The least-norm solution of min ‖A X - B‖, its rank, and the singular values of A, packed."""

    def run(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        a, b = np.broadcast_to(a, batch + a.shape[-2:]), np.broadcast_to(b, batch + b.shape[-2:])
        x = np.zeros((*batch, a.shape[-1], b.shape[-1]), a.dtype)
        rank, s = np.zeros((*batch, 1), a.dtype), np.zeros((*batch, min(a.shape[-2:])), a.dtype)
        for place in np.ndindex(*batch):
            x[place], _, rank[place], s[place] = np.linalg.lstsq(a[place], b[place], rcond)
        return packed(batch, [x, rank, s])

    return _guarded(_of_finite(run), "lstsq", "holds NaN or infinity")
