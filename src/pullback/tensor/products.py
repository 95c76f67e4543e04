"""Products of tensors: matrices, batches of matrices, vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import DTypeError, ShapeError
from ..graph.types import BOOL, INTEGER, DType, int64
from ..ops import elementwise as e
from ..ops.contraction import matmul as matmul_nodes
from ..ops.movement import expand, reshape
from ..ops.primitive import constant, unnamed, user_source
from .autocast_mode import lowered, unlowered
from .einsum import tensordot
from .handle import Handle
from .joining import stack
from .promotion import Number
from .reductions import normalize_axis

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

    def mm(self, mat2: Tensor) -> Tensor:
        """The product of two matrices."""
        return matmul(*self._of_rank(mat2, 2, "mm"))

    def bmm(self, mat2: Tensor) -> Tensor:
        """The products of two batches of matrices."""
        return matmul(*self._of_rank(mat2, 3, "bmm"))

    def dot(self, tensor: Tensor) -> Tensor:
        """The inner product of two vectors, in their own dtype also under autocast."""
        return _matmul(*self._of_rank(tensor, 1, "dot"))

    def vdot(self, other: Tensor) -> Tensor:
        """As `dot`: numbers are real."""
        return _matmul(*self._of_rank(other, 1, "vdot"))

    @unlowered
    def mv(self, vec: Tensor) -> Tensor:
        """The product of a matrix and a vector."""
        if self.ndim != 2 or vec.ndim != 1:
            raise ShapeError(
                f"mv takes a matrix and a vector, got {list(self.shape)} and {list(vec.shape)} (at {user_source()})"
            )
        return matmul(self, vec)  # type: ignore[arg-type]

    def inner(self, other: Tensor) -> Tensor:
        """The sum of products along the last axes; of a tensor of shape [] the product."""
        if not self.ndim or not other.ndim:
            return self * other
        if self.shape[-1] != other.shape[-1]:
            raise ShapeError(
                f"inner: the last axes of {list(self.shape)} and {list(other.shape)} differ (at {user_source()})"
            )
        if self.ndim == other.ndim == 1:  # stays in its dtype, as `dot`
            return _matmul(self, other)  # type: ignore[arg-type]
        return tensordot(self, other, ([-1], [-1]))  # type: ignore[arg-type]

    @unlowered
    def outer(self, vec2: Tensor) -> Tensor:
        """The products of each element of one vector with each of another."""
        x, y = self._of_rank(vec2, 1, "outer")
        return x.unsqueeze(-1) * y

    def ger(self, vec2: Tensor) -> Tensor:
        """As `outer`."""
        return self.outer(vec2)

    def kron(self, other: Tensor) -> Tensor:
        """The blocks `self[i, j] * other`, side by side as the elements of self lie; with any number of axes."""
        rank = max(self.ndim, other.ndim)
        mine, theirs = ((1,) * (rank - t.ndim) + t.shape for t in (self, other))
        x = self.reshape([s for size in mine for s in (size, 1)])  # type: ignore[attr-defined]
        y = other.reshape([s for size in theirs for s in (1, size)])
        return (x * y).reshape([m * t for m, t in zip(mine, theirs, strict=True)])

    def cross(self, other: Tensor, dim: int | None = None) -> Tensor:
        """The cross products of vectors of three elements along `dim`; None: the first axis of size 3."""
        if dim is None:
            found = [a for a, (s, t) in enumerate(zip(self.shape, other.shape, strict=False)) if s == t == 3]
            if not found or self.ndim != other.ndim:
                raise ShapeError(
                    f"cross: {list(self.shape)} and {list(other.shape)} have no common axis of size 3 "
                    f"(at {user_source()}); pass dim"
                )
            dim = found[0]
        return cross(self, other, dim=dim)  # type: ignore[arg-type]

    # ---- a product added to something

    def _plus(self, name: str, product: Tensor, beta: Number, alpha: Number) -> Tensor:
        """beta * self + alpha * product; self is not read where beta is 0."""
        if e.broadcast_shapes(name, self.shape, product.shape) != product.shape:
            raise ShapeError(
                f"{name}: {list(self.shape)} cannot be repeated to the product's shape {list(product.shape)} "
                f"(at {user_source()})"
            )
        dtype = product.dtype
        if dtype.category == INTEGER:  # PyTorch cuts the factors of integers to integers
            beta, alpha = int(beta), int(alpha)
        if dtype.category == BOOL:
            scaled = product if alpha else product & False
            return scaled | self if beta else scaled
        scaled = product if alpha == 1 else product * alpha
        if beta == 0:
            return scaled
        (own,) = lowered(self)
        if own.dtype is not dtype:
            raise DTypeError(
                f"{name}: dtypes {own.dtype.name} and {dtype.name} differ (at {user_source()}); convert with .to(dtype)"
            )
        return (own if beta == 1 else own * beta) + scaled

    def addmm(self, mat1: Tensor, mat2: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
        """beta * self + alpha * (mat1 @ mat2) of matrices."""
        return self._plus("addmm", mat1.mm(mat2), beta, alpha)

    @unlowered
    def addmv(self, mat: Tensor, vec: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
        """beta * self + alpha * (mat @ vec) of a matrix and a vector."""
        return self._plus("addmv", mat.mv(vec), beta, alpha)

    @unlowered
    def addr(self, vec1: Tensor, vec2: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
        """beta * self + alpha * (the outer product of two vectors)."""
        return self._plus("addr", vec1.outer(vec2), beta, alpha)

    def baddbmm(self, batch1: Tensor, batch2: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
        """beta * self + alpha * (batch1 @ batch2) of batches of matrices."""
        return self._plus("baddbmm", batch1.bmm(batch2), beta, alpha)

    def addbmm(self, batch1: Tensor, batch2: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
        """beta * self + alpha * (the sum over the batch of batch1 @ batch2)."""
        if batch1.ndim != 3 or batch2.ndim != 3 or batch1.shape[0] != batch2.shape[0]:
            raise ShapeError(
                f"addbmm takes two batches of matrices, got {list(batch1.shape)} and {list(batch2.shape)} "
                f"(at {user_source()})"
            )
        return self._plus("addbmm", tensordot(batch1, batch2, ([0, 2], [0, 1])), beta, alpha)

    @unlowered
    def addmm_(self, mat1: Tensor, mat2: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
        """`addmm` into the tensor itself, in its dtype also under autocast."""
        return self._assign(self.addmm(mat1, mat2, beta=beta, alpha=alpha).node)

    def addmv_(self, mat: Tensor, vec: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
        """`addmv` into the tensor itself."""
        return self._assign(self.addmv(mat, vec, beta=beta, alpha=alpha).node)

    def addr_(self, vec1: Tensor, vec2: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
        """`addr` into the tensor itself."""
        return self._assign(self.addr(vec1, vec2, beta=beta, alpha=alpha).node)

    @unlowered
    def baddbmm_(self, batch1: Tensor, batch2: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
        """`baddbmm` into the tensor itself, in its dtype also under autocast."""
        return self._assign(self.baddbmm(batch1, batch2, beta=beta, alpha=alpha).node)

    @unlowered
    def addbmm_(self, batch1: Tensor, batch2: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
        """`addbmm` into the tensor itself, in its dtype also under autocast."""
        return self._assign(self.addbmm(batch1, batch2, beta=beta, alpha=alpha).node)

    def _of_rank(self, other: Tensor, rank: int, name: str) -> tuple[Any, Tensor]:
        if self.ndim != rank or other.ndim != rank:
            raise ShapeError(
                f"{name} takes two tensors with {rank} axes, got {list(self.shape)} and {list(other.shape)} "
                f"(at {user_source()})"
            )
        return self, other


def matmul(input: Tensor, other: Tensor) -> Tensor:
    """The product of matrices, batches of matrices and vectors; the batch axes broadcast.

    Shapes: [..., m, k] @ [..., k, n] -> [..., m, n]; a vector counts as a row on the left and a column on the right,
    and that axis is dropped from the result. Both operands have one dtype, unless an autocast region gives them one.
    """
    return _matmul(*lowered(input, other))


def _matmul(x: Tensor, y: Tensor, dtype: DType | None = None) -> Tensor:
    """matmul of operands of one dtype, in `dtype` or that."""
    if x.ndim == 0 or y.ndim == 0:
        raise ShapeError(
            f"matmul takes tensors with axes, got {list(x.shape)} and {list(y.shape)} (at {user_source()})"
        )
    if not isinstance(y, Handle):
        raise TypeError(
            f"matmul takes tensors, got {type(y).__name__} (at {user_source()}); pullback.tensor(…) makes one"
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
        flat = matmul_nodes(reshape(a, (math.prod(batch) * rows, inner)), b, dtype)
        product = reshape(flat, (*batch, rows, columns))
    else:
        product = matmul_nodes(expand(a, (*batch, rows, inner)), expand(b, (*batch, inner, columns)), dtype)
    shape = (*batch, *((rows,) if x.ndim > 1 else ()), *((columns,) if y.ndim > 1 else ()))
    return x._wrap(reshape(product, shape))


@unnamed
def product_in(x: Tensor, y: Tensor, dtype: DType) -> Tensor:
    """matmul of operands of one dtype, also under autocast: in that dtype, or the sums in float32 of 16-bit floats."""
    return _matmul(x, y, dtype)


def cross(input: Tensor, other: Tensor, *, dim: int = -1) -> Tensor:
    """The cross products of vectors of three elements along `dim`; the other axes broadcast."""
    if input.ndim != other.ndim:
        raise ShapeError(f"cross: {list(input.shape)} and {list(other.shape)} differ in axes (at {user_source()})")
    axis = normalize_axis(dim, input.ndim, "cross")
    if not input.ndim or input.shape[axis] != 3 or other.shape[axis] != 3:
        raise ShapeError(
            f"cross: axis {dim} of {list(input.shape)} and {list(other.shape)} must have size 3 (at {user_source()})"
        )
    return input.roll(-1, axis) * other.roll(-2, axis) - input.roll(-2, axis) * other.roll(-1, axis)


def multi_dot(tensors: Sequence[Tensor]) -> Tensor:
    """The product of several matrices in the order of fewest multiplications; the first and last may be vectors."""
    listed = list(tensors)
    if len(listed) < 2:
        raise ShapeError(f"multi_dot takes at least two tensors, got {len(listed)} (at {user_source()})")
    ends = listed[0].ndim, listed[-1].ndim
    if ends[0] not in (1, 2) or ends[1] not in (1, 2) or any(t.ndim != 2 for t in listed[1:-1]):
        raise ShapeError(
            f"multi_dot takes matrices, and vectors at the ends, got {[list(t.shape) for t in listed]} "
            f"(at {user_source()})"
        )
    if ends[0] == 1:
        listed[0] = listed[0].unsqueeze(0)
    if ends[1] == 1:
        listed[-1] = listed[-1].unsqueeze(1)
    product = _best_product(listed)
    product = product.squeeze(0) if ends[0] == 1 else product
    return product.squeeze(-1) if ends[1] == 1 else product


def chain_matmul(*matrices: Tensor) -> Tensor:
    """As `linalg.multi_dot`, of matrices one by one."""
    if any(m.ndim != 2 for m in matrices) or not matrices:
        raise ShapeError(f"chain_matmul takes matrices, got {[list(m.shape) for m in matrices]} (at {user_source()})")
    return matrices[0] if len(matrices) == 1 else multi_dot(matrices)


def _best_product(matrices: list[Tensor]) -> Tensor:
    """The product in the order of fewest multiplications (Cormen et al., "Introduction to Algorithms", 15.2)."""
    sizes = [m.shape[0] for m in matrices] + [matrices[-1].shape[1]]
    best: dict[tuple[int, int], tuple[int, int]] = {(i, i): (0, i) for i in range(len(matrices))}
    for length in range(1, len(matrices)):
        for first in range(len(matrices) - length):
            last = first + length
            best[first, last] = min(
                (best[first, k][0] + best[k + 1, last][0] + sizes[first] * sizes[k + 1] * sizes[last + 1], k)
                for k in range(first, last)
            )

    def product(first: int, last: int) -> Tensor:
        if first == last:
            return matrices[first]
        k = best[first, last][1]
        return matmul(product(first, k), product(k + 1, last))

    return product(0, len(matrices) - 1)


def vander(x: Tensor, N: int | None = None, increasing: bool = False) -> Tensor:
    """The powers of a vector's elements in rows: from N - 1 (by default as many as elements) down to 0, or up."""
    if x.ndim != 1:
        raise ShapeError(f"vander takes a vector, got {list(x.shape)} (at {user_source()})")
    powers = powers_of(x, x.shape[0] if N is None else N)
    return powers if increasing else powers.flip(-1)


def powers_of(x: Tensor, count: int) -> Tensor:
    """The powers 0, 1, 2 … of each element along a new last axis; integers become int64."""
    if count < 0:
        raise ValueError(f"vander: N must not be negative, got {count} (at {user_source()})")
    x = x if x.dtype.is_floating_point else x.to(int64)
    powers = [x._wrap(expand(constant(1, x.dtype), x.shape))]
    for _ in range(count - 1):
        powers.append(powers[-1] * x)
    return stack(powers[:count], -1) if count else x.unsqueeze(-1)[..., :0]


__all__ = ["ProductMethods", "chain_matmul", "cross", "matmul", "multi_dot", "powers_of", "product_in", "vander"]
