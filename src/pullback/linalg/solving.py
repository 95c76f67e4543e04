"""Inverses, determinants and solutions of linear systems."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..autograd.function import with_gradient
from ..errors import ShapeError
from ..graph.types import int32, int64
from ..ops.elementwise import broadcast_shapes
from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.arithmetic import where
from ..tensor.autocast_mode import widening
from ..tensor.creation import eye, full, zeros
from . import lapack
from .calls import call, matrices, packed_call, parts

_DRIVERS = ("gels", "gelsy", "gelsd", "gelss")


class SlogdetResult(NamedTuple):
    """The sign of a determinant and the logarithm of its size."""

    sign: Tensor
    logabsdet: Tensor


class InverseInfo(NamedTuple):
    """An inverse, and 0 where there is one."""

    inverse: Tensor
    info: Tensor


class SolveInfo(NamedTuple):
    """A solution, and 0 where there is one."""

    result: Tensor
    info: Tensor


class LstsqResult(NamedTuple):
    """A least squares solution, the sums of squared residuals, the ranks and the singular values."""

    solution: Tensor
    residuals: Tensor
    rank: Tensor
    singular_values: Tensor


@widening
def inv(A: Tensor) -> Tensor:
    """The inverse of square matrices [..., n, n]; LinAlgError where one is singular.

    >>> pb.linalg.inv(pb.tensor([[2.0, 0.0], [0.0, 4.0]]))
    tensor([[0.5000, 0.0000],
            [0.0000, 0.2500]])
    """
    matrices("inv", A, square=True)
    return with_gradient(call(lapack.inverse, A.shape, A), [A], lambda y, g: [-(y.mT @ g @ y.mT)])


@widening
def inv_ex(A: Tensor, *, check_errors: bool = False) -> InverseInfo:
    """`inv`, and `info`: 0 where there is an inverse, else the first pivot that is 0; the inverse has then the
    infinities and NaN that dividing by it gives.
    """
    matrices("inv_ex", A, square=True)
    if check_errors:
        return InverseInfo(inv(A), zeros(A.shape[:-2], dtype=int32))
    shapes: list[tuple[int, ...]] = [tuple(A.shape[-2:]), (1,)]

    def rule(found: Tensor, cotangent: Tensor) -> list[Tensor]:
        y, g = parts(found, shapes)[0], parts(cotangent, shapes)[0]
        return [-(y.mT @ g @ y.mT)]

    one = eye(A.shape[-1], dtype=A.dtype)
    packed = with_gradient(packed_call(lapack.solution_and_info, A.shape[:-2], shapes, A, one), [A], rule)
    inverse, info = parts(packed, shapes)
    return InverseInfo(inverse, _as_info(info))


def _as_info(info: Tensor) -> Tensor:
    """LAPACK's `info`, which was packed as a float with a last axis of its own."""
    return info.detach().squeeze(-1).to(int32)


@widening
def det(A: Tensor) -> Tensor:
    """The determinant of square matrices [..., n, n] -> [...]. Its gradient, the cofactors, singular ones have too."""
    matrices("det", A, square=True)
    value = call(lapack.determinant, A.shape[:-2], A)
    return with_gradient(value, [A], lambda d, g: [_cofactors(A) * g[..., None, None]])


def _cofactors(A: Tensor) -> Tensor:
    """det(A) A⁻ᵀ."""

    def rule(_: Tensor, g: Tensor) -> list[Tensor]:
        inverse = inv(A).mT
        along = (g * inverse).sum((-2, -1), keepdim=True)
        return [det(A)[..., None, None] * (along * inverse - inverse @ g.mT @ inverse)]

    return with_gradient(call(lapack.where_finite(lapack.cofactors), A.shape, A), [A], rule)


@widening
def slogdet(A: Tensor) -> SlogdetResult:
    """The sign of the determinant and the logarithm of its absolute value: 0 and -inf of a singular matrix, whose
    gradient is not finite.
    """
    matrices("slogdet", A, square=True)
    shapes: list[tuple[int, ...]] = [(), ()]
    both = packed_call(lapack.sign_and_log, A.shape[:-2], shapes, A)
    both = with_gradient(both, [A], lambda _, g: [g[..., 1][..., None, None] * inv_ex(A)[0].mT])
    sign, logarithm = parts(both, shapes)
    return SlogdetResult(sign, logarithm)


@widening
def logdet(A: Tensor) -> Tensor:
    """The logarithm of the determinant; NaN where it is negative."""
    sign, logarithm = slogdet(A)
    return where(sign < 0, math.nan, logarithm)


def _is_vector(A: Tensor, B: Tensor) -> bool:
    return B.ndim == 1 or (A.ndim - 1 == B.ndim and B.shape == A.shape[:-1])


@widening
def solve(A: Tensor, B: Tensor, *, left: bool = True) -> Tensor:
    """X of A X = B (with `left=False` of X A = B) for square A [..., n, n]; LinAlgError where one is singular.

    B is [..., n, k], or vectors: [n], or the shape of A without its last axis. The batch axes broadcast.
    """
    if _is_vector(A, B):
        _check_side("solve", B, left)
        return solve(A, B.unsqueeze(-1)).squeeze(-1)
    matrices("solve", A, B, square=True)
    if not left:
        return solve(A.mT, B.mT).mT
    _check_rows("solve", A, B)
    batch = _broadcast("solve", A, B)
    value = call(lapack.solution, (*batch, *B.shape[-2:]), A, B)

    def rule(x: Tensor, g: Tensor) -> list[Tensor]:
        by_b = solve(A.mT, g)
        return [_summed(-(by_b @ x.mT), A), _summed(by_b, B)]

    return with_gradient(value, [A, B], rule)


@widening
def solve_ex(A: Tensor, B: Tensor, *, left: bool = True, check_errors: bool = False) -> SolveInfo:
    """`solve`, and `info`: 0 where there is a solution, else the first pivot that is 0; the solution has then the
    infinities and NaN that dividing by it gives.
    """
    if check_errors:
        return SolveInfo(solve(A, B, left=left), zeros(A.shape[:-2], dtype=int32))
    if _is_vector(A, B):
        _check_side("solve_ex", B, left)
        found, info = solve_ex(A, B.unsqueeze(-1))
        return SolveInfo(found.squeeze(-1), info)
    matrices("solve_ex", A, B, square=True)
    if not left:
        found, info = solve_ex(A.mT, B.mT)
        return SolveInfo(found.mT, info)
    _check_rows("solve_ex", A, B)
    batch = _broadcast("solve_ex", A, B)
    shapes: list[tuple[int, ...]] = [tuple(B.shape[-2:]), (1,)]

    def rule(x: Tensor, g: Tensor) -> list[Tensor]:
        x, g = parts(x, shapes)[0], parts(g, shapes)[0]
        by_b = solve_ex(A.mT, g).result
        return [_summed(-(by_b @ x.mT), A), _summed(by_b, B)]

    packed = with_gradient(packed_call(lapack.solution_and_info, batch, shapes, A, B), [A, B], rule)
    found, info = parts(packed, shapes)
    return SolveInfo(found, _as_info(info))


def _check_side(name: str, B: Tensor, left: bool) -> None:
    if not left:
        raise ShapeError(f"{name}: left=False takes matrices, got the vectors {list(B.shape)} (at {user_source()})")


def _check_rows(name: str, A: Tensor, B: Tensor) -> None:
    if A.shape[-2] != B.shape[-2]:
        raise ShapeError(
            f"{name}: {list(A.shape)} and {list(B.shape)} differ in rows, {A.shape[-2]} and {B.shape[-2]} "
            f"(at {user_source()})"
        )


def _broadcast(name: str, *operands: Tensor) -> tuple[int, ...]:
    return broadcast_shapes(name, *(o.shape[:-2] for o in operands))


def _summed(cotangent: Tensor, like: Tensor) -> Tensor:
    """The cotangent of an operand whose batch axes were broadcast."""
    extra = cotangent.ndim - like.ndim
    axes = [*range(extra)]
    axes += [a + extra for a, s in enumerate(like.shape[:-2]) if s == 1 and cotangent.shape[a + extra] != 1]
    return cotangent.sum(tuple(axes), keepdim=True).reshape(like.shape) if axes else cotangent


@widening
def solve_triangular(A: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Tensor:
    """X of A X = B (with `left=False` of X A = B), of which only the upper or lower triangle of A is read.

    Shapes: A [..., n, n], B [..., n, k]; the batch axes broadcast. With `unitriangular` the diagonal counts as 1. A
    zero on the diagonal gives infinities.
    """
    matrices("solve_triangular", A, B, square=True)
    if not left:
        return solve_triangular(A.mT, B.mT, upper=not upper, unitriangular=unitriangular).mT
    _check_rows("solve_triangular", A, B)
    batch = _broadcast("solve_triangular", A, B)
    value = call(lapack.triangular(upper, unitriangular), (*batch, *B.shape[-2:]), A, B)

    def rule(x: Tensor, g: Tensor) -> list[Tensor]:
        by_b = solve_triangular(A.mT, g, upper=not upper, unitriangular=unitriangular)
        offset = int(unitriangular)
        by_a = -(by_b @ x.mT)
        return [_summed(by_a.triu(offset) if upper else by_a.tril(-offset), A), _summed(by_b, B)]

    return with_gradient(value, [A, B], rule)


class TriangularSolution(NamedTuple):
    """A solution, and a copy of the matrix, as torch.triangular_solve gives them."""

    solution: Tensor
    cloned_coefficient: Tensor


@widening
def triangular_solve(
    b: Tensor, A: Tensor, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> TriangularSolution:
    """X of A X = b, or of Aᵀ X = b: the former name of `solve_triangular`."""
    matrix, upper = (A.mT, not upper) if transpose else (A, upper)
    return TriangularSolution(solve_triangular(matrix, b, upper=upper, unitriangular=unitriangular), A.clone())


@widening
def cholesky_solve(B: Tensor, L: Tensor, upper: bool = False) -> Tensor:
    """X of A X = B, given the Cholesky factor L of A = L Lᵀ (with `upper`, of A = Lᵀ L).

    The gradient by L is that of a full matrix, as PyTorch has it.
    """
    matrices("cholesky_solve", B, L)
    lower = (L.mT if upper else L).detach()
    value = solve_triangular(lower.mT, solve_triangular(lower, B.detach(), upper=False), upper=True)

    def rule(x: Tensor, g: Tensor) -> list[Tensor]:
        by_b = cholesky_solve(g, L, upper)
        both = by_b @ x.mT
        both = both + both.mT
        return [_summed(by_b, B), _summed(-(L @ both) if upper else -(both @ L), L)]

    return with_gradient(value, [B, L], rule)


@widening
def cholesky_inverse(L: Tensor, upper: bool = False) -> Tensor:
    """The inverse of A = L Lᵀ (with `upper`, of A = Lᵀ L), given the Cholesky factor.

    The gradient by L is that of a full matrix, as PyTorch has it.
    """
    matrices("cholesky_inverse", L, square=True)
    identity = eye(L.shape[-1], dtype=L.dtype)
    inverse = solve_triangular((L.mT if upper else L).detach(), identity, upper=False)

    def rule(x: Tensor, g: Tensor) -> list[Tensor]:
        both = x @ (g + g.mT) @ x
        return [-(L @ both) if upper else -(both @ L)]

    return with_gradient(inverse.mT @ inverse, [L], rule)


@widening
def lstsq(A: Tensor, B: Tensor, rcond: float | None = None, *, driver: str | None = None) -> LstsqResult:
    """The X of least norm that makes ‖A X - B‖ least: A [..., m, n], B [..., m, k] or vectors [..., m].

    All drivers ("gels", "gelsy", "gelsd", "gelss") are done by a singular value decomposition; as in PyTorch, the
    singular values are given for the last two, the ranks for all but "gels", and the residuals where m > n for all but
    "gelsy", the default. Singular values below `rcond` (default: machine precision times the greater of m and n) times
    the largest count as 0. The gradient supposes full rank.
    """
    if driver not in (None, "gels", "gelsy", "gelsd", "gelss"):
        raise ValueError(
            f'lstsq: driver must be "gels", "gelsy", "gelsd" or "gelss", got {driver!r} (at {user_source()})'
        )
    vector = _is_vector(A, B) and B.ndim == A.ndim - 1
    right = B.unsqueeze(-1) if vector else B
    matrices("lstsq", A, right)
    _check_rows("lstsq", A, right)
    batch, (m, n), k = _broadcast("lstsq", A, right), A.shape[-2:], right.shape[-1]
    shapes: list[tuple[int, ...]] = [(n, k), (1,), (min(m, n),)]
    found = packed_call(lapack.least_squares(rcond), batch, shapes, A, right)
    value, rank, singular = parts(found, shapes)

    def rule(_: Tensor, g: Tensor) -> list[Tensor]:
        from .decompositions import pinv

        inverse = pinv(A)
        by_b = inverse.mT @ g
        return [_summed(_pinv_pullback(A, inverse, g @ right.mT), A), _summed(by_b, right)]

    solution = with_gradient(value, [A, right], rule)
    residuals = solution[..., :0, :0].reshape(-1)[:0]
    if m > n and driver not in (None, "gelsy"):
        residual = A @ solution - right
        residuals = (residual * residual).sum(-2)
    ranks = rank.reshape(batch).to(int64) if driver != "gels" else zeros((0,), dtype=int64)
    shown = singular if driver in ("gelsd", "gelss") else zeros((0,), dtype=A.dtype)
    return LstsqResult(solution.squeeze(-1) if vector else solution, residuals, ranks, shown)


def _pinv_pullback(A: Tensor, P: Tensor, g: Tensor) -> Tensor:
    """A's cotangent, given that of its pseudoinverse P: Golub and Pereyra (1973), equation 4.12, transposed."""
    gt, pt = g.mT, P.mT
    if A.shape[-2] <= A.shape[-1]:
        k = gt @ P
        kp = k @ pt
        return -((P @ k).mT) + kp - (A @ P) @ kp + (pt @ P) @ (gt - k @ A)
    k = P @ gt
    pk = pt @ k
    return -((k @ P).mT) + (gt - A @ k) @ (P @ pt) + pk - (pk @ P) @ A


@widening
def tensorsolve(A: Tensor, B: Tensor, dims: Sequence[int] | None = None) -> Tensor:
    """X of tensordot(A, X, X.ndim) = B."""
    if dims is not None:
        axes = [d % A.ndim for d in dims]
        A = A.permute(*(a for a in range(A.ndim) if a not in axes), *axes)
    shape = A.shape[B.ndim :]
    if math.prod(A.shape[: B.ndim]) != math.prod(shape) or B.numel() != math.prod(shape):
        raise ShapeError(f"tensorsolve: {list(A.shape)} does not belong to {list(B.shape)} (at {user_source()})")
    return solve(A.reshape(B.numel(), -1) if B.numel() else A.reshape(0, 0), B.reshape(-1)).reshape(shape)


@widening
def tensorinv(A: Tensor, ind: int = 2) -> Tensor:
    """The inverse of A as a linear map from its axes after `ind` to those before."""
    if ind <= 0 or math.prod(A.shape[:ind]) != math.prod(A.shape[ind:]):
        raise ShapeError(f"tensorinv: {list(A.shape)} is not square when cut at {ind} (at {user_source()})")
    size = math.prod(A.shape[:ind])
    return inv(A.reshape(size, size)).reshape(*A.shape[ind:], *A.shape[:ind])


def matrix_power(A: Tensor, n: int) -> Tensor:
    """Aⁿ of square matrices by repeated squaring; of the inverse where n < 0."""
    if A.ndim < 2 or A.shape[-1] != A.shape[-2]:
        raise ShapeError(f"matrix_power takes square matrices, got {list(A.shape)} (at {user_source()})")
    if n < 0:
        return matrix_power(inv(A), -n)
    result: Any = None
    square = A
    while n:
        if n & 1:
            result = square if result is None else result @ square
        n >>= 1
        square = square @ square if n else square
    if result is None:
        one = eye(A.shape[-1], dtype=A.dtype).expand(A.shape)
        return with_gradient(one, [A], lambda _, g: [g * 0])
    return result.clone() if result is A else result


def matrix_exp(A: Tensor) -> Tensor:
    """The matrix exponential, by scaling and squaring (Higham 2005) in float64; NaN of what holds NaN or infinity."""
    if A.ndim < 2 or A.shape[-1] != A.shape[-2] or not A.dtype.is_floating_point:
        raise ShapeError(
            f"matrix_exp takes square matrices of floats, got {A.dtype.name}{list(A.shape)} (at {user_source()})"
        )
    value = call(lapack.where_finite(lapack.exponential), A.shape, A)
    return with_gradient(value, [A], lambda _, g: [_exponential_along(A.mT, g)])


def _exponential_along(A: Tensor, direction: Tensor) -> Tensor:
    """The derivative of exp(A) along a direction: a block of the exponential of twice the size (Higham 2008, 3.6)."""
    from ..tensor.joining import cat

    size = A.shape[-1]
    nothing = full(A.shape, 0.0, dtype=A.dtype)
    block = cat([cat([A, direction], -1), cat([nothing, A], -1)], -2)
    return matrix_exp(block)[..., :size, size:]
