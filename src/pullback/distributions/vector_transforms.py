"""Invertible functions of vectors and matrices, and of parts of tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..linalg import cholesky
from ..nn.functional import logsigmoid, pad, softplus
from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.creation import arange, eye
from ..tensor.joining import cat, stack
from ..tensor.limits import finfo
from ..tensor.size import Size
from . import constraints
from .number_transforms import _OfItsKind, clipped_sigmoid
from .transform import Shape, Transform
from .utils import sum_rightmost, tril_matrix_to_vec, vec_to_tril_matrix


class ReshapeTransform(Transform):
    """Values of the shape `in_shape` in the shape `out_shape`."""

    bijective = True

    def __init__(self, in_shape: Shape, out_shape: Shape, cache_size: int = 0):
        super().__init__(cache_size)
        self.in_shape, self.out_shape = Size(in_shape), Size(out_shape)
        if self.in_shape.numel() != self.out_shape.numel():
            raise ValueError(f"in_shape, out_shape have different numbers of elements (at {user_source()})")

    @property
    def domain(self) -> constraints.Constraint:
        """Numbers."""
        return constraints.independent(constraints.real, len(self.in_shape))

    @property
    def codomain(self) -> constraints.Constraint:
        """Numbers."""
        return constraints.independent(constraints.real, len(self.out_shape))

    def with_cache(self, cache_size: int = 1) -> Transform:
        """The same that remembers."""
        if self._cache_size == cache_size:
            return self
        return ReshapeTransform(self.in_shape, self.out_shape, cache_size)

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, ReshapeTransform)
        return same and (self.in_shape, self.out_shape) == (other.in_shape, other.out_shape)  # type: ignore[attr-defined]

    __hash__ = Transform.__hash__

    def _call(self, x: Tensor) -> Tensor:
        return x.reshape(self.forward_shape(x.shape))

    def _inverse(self, y: Tensor) -> Tensor:
        return y.reshape(self.inverse_shape(y.shape))

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """0."""
        return x.new_zeros(x.shape[: x.ndim - len(self.in_shape)])

    def forward_shape(self, shape: Shape) -> Shape:
        """`out_shape` in the place of `in_shape`."""
        return _exchanged(shape, self.in_shape, self.out_shape)

    def inverse_shape(self, shape: Shape) -> Shape:
        """`in_shape` in the place of `out_shape`."""
        return _exchanged(shape, self.out_shape, self.in_shape)


def _exchanged(shape: Shape, end: Size, other: Size) -> Size:
    _at_least(shape, len(end))
    cut = len(shape) - len(end)
    if tuple(shape[cut:]) != end:
        raise ValueError(f"Shape mismatch: expected {list(end)} but got {list(shape[cut:])} (at {user_source()})")
    return Size(shape[:cut]) + other


def _at_least(shape: Shape, count: int) -> None:
    if len(shape) < count:
        raise ValueError(f"Too few dimensions on input: {list(shape)} (at {user_source()})")


class SoftmaxTransform(_OfItsKind):
    """softmax(x) along the last axis. Not bijective: a constant can be added to x."""

    domain, codomain = constraints.real_vector, constraints.simplex

    def _call(self, x: Tensor) -> Tensor:
        return x.softmax(-1)

    def _inverse(self, y: Tensor) -> Tensor:
        return y.log()

    def forward_shape(self, shape: Shape) -> Shape:
        """The same."""
        _at_least(shape, 1)
        return shape

    inverse_shape = forward_shape


class StickBreakingTransform(_OfItsKind):
    """Vectors to probabilities of one class more: each number says by its sigmoid which part of what is left a class
    gets, moved so that 0 gives all classes the same."""

    domain, codomain, bijective = constraints.real_vector, constraints.simplex, True

    def _offset(self, like: Tensor, count: int) -> Tensor:
        return arange(count, 0, -1).to(like.dtype).log()

    def _call(self, x: Tensor) -> Tensor:
        part = clipped_sigmoid(x - self._offset(x, x.shape[-1]))
        return pad(part, (0, 1), value=1.0) * pad((1 - part).cumprod(-1), (1, 0), value=1.0)

    def _inverse(self, y: Tensor) -> Tensor:
        taken = y[..., :-1]
        left = (1 - taken.cumsum(-1)).clamp(min=finfo(y.dtype).tiny)
        return taken.log() - left.log() + self._offset(y, y.shape[-1] - 1)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """The sum of log(part (1 - part) what was left), where 1 - sigmoid(x) is exp(-x) sigmoid(x)."""
        moved = x - self._offset(x, x.shape[-1])
        return (-moved + logsigmoid(moved) + y[..., :-1].log()).sum(-1)

    def forward_shape(self, shape: Shape) -> Shape:
        """One longer."""
        _at_least(shape, 1)
        return Size((*shape[:-1], shape[-1] + 1))

    def inverse_shape(self, shape: Shape) -> Shape:
        """One shorter."""
        _at_least(shape, 1)
        return Size((*shape[:-1], shape[-1] - 1))


class LowerCholeskyTransform(_OfItsKind):
    """Matrices to lower triangular ones, with exp of their diagonals."""

    domain, codomain = constraints.independent(constraints.real, 2), constraints.lower_cholesky

    def _call(self, x: Tensor) -> Tensor:
        return x.tril(-1) + x.diagonal(dim1=-2, dim2=-1).exp().diag_embed()

    def _inverse(self, y: Tensor) -> Tensor:
        return y.tril(-1) + y.diagonal(dim1=-2, dim2=-1).log().diag_embed()


class PositiveDefiniteTransform(_OfItsKind):
    """Matrices to positive definite ones, by `LowerCholeskyTransform`."""

    domain, codomain = constraints.independent(constraints.real, 2), constraints.positive_definite

    def _call(self, x: Tensor) -> Tensor:
        factor = LowerCholeskyTransform()(x)
        return factor @ factor.mT

    def _inverse(self, y: Tensor) -> Tensor:
        return LowerCholeskyTransform().inv(cholesky(y))


class CorrCholeskyTransform(Transform):
    """Vectors of D (D - 1) / 2 numbers to Cholesky factors of correlation matrices of D rows, each of length 1.

    tanh of the numbers are partial correlations; each row breaks a stick of length 1 by their squares (Stan's reference
    manual, "Cholesky factors of correlation matrices").
    """

    domain, codomain, bijective = constraints.real_vector, constraints.corr_cholesky, True

    def _call(self, x: Tensor) -> Tensor:
        eps = finfo(x.dtype).eps
        partial = vec_to_tril_matrix(x.tanh().clamp(min=-1 + eps, max=1 - eps), diag=-1)
        left = (1 - partial**2).sqrt().cumprod(-1)
        return (partial + eye(partial.shape[-1]).to(x.dtype)) * pad(left[..., :-1], (1, 0), value=1.0)

    def _inverse(self, y: Tensor) -> Tensor:
        left = pad((1 - (y * y).cumsum(-1))[..., :-1], (1, 0), value=1.0)
        partial = tril_matrix_to_vec(y, diag=-1) / tril_matrix_to_vec(left, diag=-1).sqrt()
        return (partial.log1p() - (-partial).log1p()) / 2

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Of the numbers below the diagonal."""
        left = tril_matrix_to_vec(1 - (y * y).cumsum(-1), diag=-2)
        return 0.5 * left.log().sum(-1) - 2 * (x + softplus(-2 * x) - math.log(2.0)).sum(-1)

    def forward_shape(self, shape: Shape) -> Shape:
        """[…, D (D - 1) / 2] to […, D, D]."""
        _at_least(shape, 1)
        count = shape[-1]
        rows = round((0.25 + 2 * count) ** 0.5 + 0.5)
        if rows * (rows - 1) // 2 != count:
            raise ValueError(f"Input is not a flattened lower-diagonal number: {list(shape)} (at {user_source()})")
        return Size((*shape[:-1], rows, rows))

    def inverse_shape(self, shape: Shape) -> Shape:
        """[…, D, D] to […, D (D - 1) / 2]."""
        _at_least(shape, 2)
        if shape[-2] != shape[-1]:
            raise ValueError(f"Input is not square: {list(shape)} (at {user_source()})")
        return Size((*shape[:-2], shape[-1] * (shape[-1] - 1) // 2))


class _OfParts(Transform):
    """Functions of parts of values along an axis."""

    def __init__(self, tseq: Sequence[Transform], dim: int, cache_size: int):
        if not all(isinstance(part, Transform) for part in tseq):
            raise TypeError(f"the parts of a transform must be transforms, got {list(tseq)} (at {user_source()})")
        super().__init__(cache_size)
        self.transforms = [part.with_cache(cache_size) for part in tseq] if cache_size else list(tseq)
        self.dim = dim

    @property
    def bijective(self) -> bool:
        """Whether all are."""
        return all(part.bijective for part in self.transforms)

    def _check(self, value: Tensor, length: int) -> None:
        if value.shape[self.dim] != length:
            raise ValueError(
                f"{type(self).__name__}: axis {self.dim} of {list(value.shape)} must have {length} elements (at "
                f"{user_source()})"
            )


class CatTransform(_OfParts):
    """Functions of parts of the lengths `lengths` (1) along an axis, joined again."""

    def __init__(
        self, tseq: Sequence[Transform], dim: int = 0, lengths: Sequence[int] | None = None, cache_size: int = 0
    ):
        super().__init__(tseq, dim, cache_size)
        self.lengths = [1] * len(self.transforms) if lengths is None else list(lengths)
        if len(self.lengths) != len(self.transforms):
            raise ValueError(
                f"CatTransform: {len(self.transforms)} transforms have {len(self.lengths)} lengths (at {user_source()})"
            )

    @property
    def event_dim(self) -> int:
        """The most axes that one of them needs."""
        return max(part.event_dim for part in self.transforms)

    @property
    def length(self) -> int:
        """That of the whole axis."""
        return sum(self.lengths)

    @property
    def domain(self) -> constraints.Constraint:
        """What the parts take."""
        return constraints.cat([part.domain for part in self.transforms], self.dim, self.lengths)

    @property
    def codomain(self) -> constraints.Constraint:
        """What the parts give."""
        return constraints.cat([part.codomain for part in self.transforms], self.dim, self.lengths)

    def with_cache(self, cache_size: int = 1) -> Transform:
        """The same with parts that remember."""
        if self._cache_size == cache_size:
            return self
        return CatTransform(self.transforms, self.dim, self.lengths, cache_size)

    def _split(self, value: Tensor) -> Sequence[Tensor]:
        self._check(value, self.length)
        return value.split(self.lengths, self.dim)

    def _call(self, x: Tensor) -> Tensor:
        return cat([part(v) for part, v in zip(self.transforms, self._split(x), strict=True)], self.dim)

    def _inverse(self, y: Tensor) -> Tensor:
        return cat([part.inv(v) for part, v in zip(self.transforms, self._split(y), strict=True)], self.dim)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Those of the parts, joined; summed where the axis is one of a value."""
        each = []
        for part, before, after in zip(self.transforms, self._split(x), self._split(y), strict=True):
            found = part.log_abs_det_jacobian(before, after)
            each.append(sum_rightmost(found, self.event_dim - part.event_dim))
        place = (self.dim - x.ndim if self.dim >= 0 else self.dim) + self.event_dim
        total: Any = cat(each, place) if place < 0 else sum(each)
        return total


class StackTransform(_OfParts):
    """Functions of the elements along an axis, one each, stacked again."""

    def __init__(self, tseq: Sequence[Transform], dim: int = 0, cache_size: int = 0):
        super().__init__(tseq, dim, cache_size)

    @property
    def domain(self) -> constraints.Constraint:
        """What the parts take."""
        return constraints.stack([part.domain for part in self.transforms], self.dim)

    @property
    def codomain(self) -> constraints.Constraint:
        """What the parts give."""
        return constraints.stack([part.codomain for part in self.transforms], self.dim)

    def with_cache(self, cache_size: int = 1) -> Transform:
        """The same with parts that remember."""
        return self if self._cache_size == cache_size else StackTransform(self.transforms, self.dim, cache_size)

    def _unbind(self, value: Tensor) -> Sequence[Tensor]:
        self._check(value, len(self.transforms))
        return value.unbind(self.dim)

    def _call(self, x: Tensor) -> Tensor:
        return stack([part(v) for part, v in zip(self.transforms, self._unbind(x), strict=True)], self.dim)

    def _inverse(self, y: Tensor) -> Tensor:
        return stack([part.inv(v) for part, v in zip(self.transforms, self._unbind(y), strict=True)], self.dim)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Those of the parts, stacked."""
        pairs = zip(self.transforms, self._unbind(x), self._unbind(y), strict=True)
        return stack([part.log_abs_det_jacobian(before, after) for part, before, after in pairs], self.dim)


__all__ = [
    "CatTransform",
    "CorrCholeskyTransform",
    "LowerCholeskyTransform",
    "PositiveDefiniteTransform",
    "ReshapeTransform",
    "SoftmaxTransform",
    "StackTransform",
    "StickBreakingTransform",
]
