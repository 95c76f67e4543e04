"""Reducing methods of tensors: sums, means, extremes, norms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import ShapeError
from ..graph import types
from ..graph.node import Node
from ..graph.types import BOOL, DType, bool_, float64, int64, uint8
from ..ops import elementwise as e
from ..ops.host import detach
from ..ops.movement import expand, reshape
from ..ops.primitive import constant, iota, user_source
from ..ops.reduction import kept_shape, reduce_max, reduce_min, reduce_sum
from .arguments import UNSAID
from .handle import Handle
from .promotion import get_default_dtype, require_float

if TYPE_CHECKING:
    from . import Tensor

Axes = int | tuple[int, ...] | list[int] | None


class ValuesIndices(NamedTuple):
    """What max and min along an axis give: the extremes, and where they stand."""

    values: Tensor
    indices: Tensor


def normalize_axis(axis: int, rank: int, name: str) -> int:
    """`axis` counted from the front; IndexError where there is none such."""
    limit = max(rank, 1)
    if not isinstance(axis, int):
        raise TypeError(f"{name}: an axis must be an int, got {axis!r} (at {user_source()})")
    if not -limit <= axis < limit:
        raise IndexError(
            f"{name}: axis {axis} of a tensor with {rank} axes (at {user_source()}); "
            f"allowed are {-limit} to {limit - 1}"
        )
    return axis % limit


def normalize_axes(axes: Axes, rank: int, name: str) -> tuple[int, ...]:
    """The axes counted from the front, in order; all of them for None or an empty list."""
    if axes is None or axes == () or axes == []:
        return tuple(range(rank))
    listed = (axes,) if isinstance(axes, int) else tuple(axes)
    result = sorted(normalize_axis(a, rank, name) for a in listed)
    if len(set(result)) != len(result):
        raise ShapeError(f"{name}: axis given twice in {listed} (at {user_source()})")
    return tuple(result) if rank else ()


def _dim_or_other(name: str, dim: Any, keepdim: bool, other: Tensor | None) -> Any:
    """The tensor to compare with, under whichever name it was given, or the axis."""
    if other is not None and (dim is not None or keepdim):
        raise TypeError(f"{name} takes another tensor, or dim and keepdim, not both (at {user_source()})")
    return dim if other is None else other


def _axes_and_correction(dim: Any, unbiased: bool, correction: float | None) -> tuple[Axes, float]:
    """Along what a variance is taken, and what its count of elements is lessened by."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if unbiased is UNSAID:
        return dim, 1 if correction is None else correction
    if correction is not None:
        raise TypeError(f"var and std take unbiased or correction, not both (at {user_source()})")
    return dim, int(unbiased)


class ReductionMethods(Handle):
    """What makes many elements one. `dim` is an axis or several (None: all); `keepdim` leaves them with size 1."""

    __slots__ = ()

    def _reduce(
        self, build: Callable[[Node, tuple[int, ...]], Node], x: Node, dim: Axes, keepdim: bool, name: str
    ) -> Tensor:
        axes = normalize_axes(dim, len(x.shape), name)
        result = build(x, axes)
        return self._wrap(reshape(result, kept_shape(x.shape, axes)) if keepdim else result)

    def sum(self, dim: Axes = None, keepdim: bool = False, *, dtype: DType | None = None) -> Tensor:
        """The sum; of integers and bool in int64."""
        dtype = dtype or (self.dtype if self.dtype.is_floating_point else int64)
        return self._reduce(reduce_sum, e.convert(self.node, dtype), dim, keepdim, "sum")

    def mean(self, dim: Axes = None, keepdim: bool = False, *, dtype: DType | None = None) -> Tensor:
        """The mean; NaN of no elements."""
        x = self if dtype is None else self.to(dtype)  # type: ignore[attr-defined]
        require_float("mean", x)
        if x.dtype.compute is not x.dtype:  # the sum of many 16-bit floats may be beyond them where the mean is not
            return x._wrap(e.convert(x._wrap(e.convert(x.node, x.dtype.compute)).mean(dim, keepdim).node, x.dtype))
        return x.sum(dim, keepdim) / self._count(dim, "mean")

    def _count(self, dim: Axes, name: str) -> int:
        return math.prod(self.shape[a] for a in normalize_axes(dim, self.ndim, name)) if self.ndim else 1

    def var(
        self,
        dim: Any = None,
        unbiased: bool = UNSAID,
        keepdim: bool = False,
        *,
        correction: float | None = None,
    ) -> Tensor:
        """The variance, in two passes: the squares are of distances from the mean.

        Their sum is divided by the number of elements less `correction` (1); `unbiased`, also as the only positional
        argument, is the older name for a correction of 1 or 0.
        """
        require_float("var", self)
        dim, lost = _axes_and_correction(dim, unbiased, correction)
        wide = self._wrap(e.convert(self.node, self.dtype.compute))
        return self._wrap(e.convert(wide._variance(dim, lost, keepdim).node, self.dtype))

    def _variance(self, dim: Axes, lost: float, keepdim: bool) -> Tensor:
        distance = self - self.mean(dim, keepdim=True)
        degrees = max(self._count(dim, "var") - lost, 0)
        return (distance * distance).sum(dim, keepdim) / degrees

    def std(
        self,
        dim: Any = None,
        unbiased: bool = UNSAID,
        keepdim: bool = False,
        *,
        correction: float | None = None,
    ) -> Tensor:
        """The standard deviation: the square root of var. Its gradient where it is 0 is 0, not NaN.

        Both are computed in float64, in which squares of floats of any size are neither infinite nor 0.
        """
        from ..autograd.function import with_gradient
        from .arithmetic import where

        require_float("std", self)
        dim, lost = _axes_and_correction(dim, unbiased, correction)
        variance = self._wrap(e.convert(self.node, float64))._variance(dim, lost, keepdim)

        def rule(deviation: Tensor, cotangent: Tensor) -> list[Tensor]:
            return [where(deviation == 0, 0.0, cotangent / (deviation * 2))]

        found: Tensor = with_gradient(variance.sqrt(), [variance], rule)
        return found.to(self.dtype)

    def amax(self, dim: Axes = None, keepdim: bool = False) -> Tensor:
        """The greatest element; the gradient goes in equal shares to all that equal it."""
        return self._extreme(reduce_max, dim, keepdim, "amax")

    def amin(self, dim: Axes = None, keepdim: bool = False) -> Tensor:
        """The least element; the gradient goes in equal shares to all that equal it."""
        return self._extreme(reduce_min, dim, keepdim, "amin")

    def _extreme(self, build: Callable[[Node, tuple[int, ...]], Node], dim: Axes, keepdim: bool, name: str) -> Tensor:
        if self.dtype.category == BOOL:
            counted = self._reduce(build, e.convert(self.node, types.uint8), dim, keepdim, name)
            return counted.bool()
        return self._reduce(build, self.node, dim, keepdim, name)

    def max(self, dim: int | Tensor | None = None, keepdim: bool = False, *, other: Tensor | None = None) -> Any:
        """The greatest element; along `dim` a pair (values, indices); with a tensor, elementwise."""
        dim = _dim_or_other("max", dim, keepdim, other)
        if isinstance(dim, Handle):
            return self.maximum(dim)  # type: ignore[attr-defined]
        if dim is None:
            return self._extreme_of_all(reduce_max, "max")
        return self._extreme_with_index(self.argmax(dim, keepdim=True), dim, keepdim)

    def min(self, dim: int | Tensor | None = None, keepdim: bool = False, *, other: Tensor | None = None) -> Any:
        """The least element; along `dim` a pair (values, indices); with a tensor, elementwise."""
        dim = _dim_or_other("min", dim, keepdim, other)
        if isinstance(dim, Handle):
            return self.minimum(dim)  # type: ignore[attr-defined]
        if dim is None:
            return self._extreme_of_all(reduce_min, "min")
        return self._extreme_with_index(self.argmin(dim, keepdim=True), dim, keepdim)

    def _extreme_of_all(self, build: Callable[[Node, tuple[int, ...]], Node], name: str) -> Tensor:
        """The extreme of all elements. Where it is NaN its gradient goes to those that are, which amax's does not."""
        found = self._extreme(build, None, False, name)
        if not found.requires_grad:
            return found
        from ..autograd.function import with_gradient
        from .arithmetic import where

        def rule(extreme: Tensor, cotangent: Tensor) -> list[Tensor]:
            x: Any = self
            hit = (x == extreme) | (x != x)  # any NaN is the extreme
            share = cotangent / hit.sum().to(cotangent.dtype)
            return [where(hit, share, 0.0)]

        return with_gradient(found, [self], rule)

    def _extreme_with_index(self, index: Tensor, dim: int, keepdim: bool) -> ValuesIndices:
        values = self.gather(dim, index)  # type: ignore[attr-defined]
        return ValuesIndices(values, index) if keepdim else ValuesIndices(values.squeeze(dim), index.squeeze(dim))

    def argmax(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        """Where the greatest element stands first, int64; NaN counts as greatest."""
        return self._arg_extreme(reduce_max, dim, keepdim, "argmax")

    def argmin(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        """Where the least element stands first, int64; NaN counts as least."""
        return self._arg_extreme(reduce_min, dim, keepdim, "argmin")

    def _arg_extreme(
        self, build: Callable[[Node, tuple[int, ...]], Node], dim: int | None, keepdim: bool, name: str
    ) -> Tensor:
        x = detach(self.node)
        if x.dtype is bool_:
            x = e.convert(x, types.uint8)
        if dim is None:
            x = reshape(x, (self.numel(),))
            found = self._first_hit(build, x, 0)
            shape = (1,) * self.ndim if keepdim else ()
            return self._wrap(reshape(found, shape))
        axis = normalize_axis(dim, self.ndim, name)
        if not self.shape:
            return self._wrap(constant(0, int64))
        found = self._first_hit(build, x, axis)
        return self._wrap(reshape(found, kept_shape(self.shape, (axis,))) if keepdim else found)

    @staticmethod
    def _first_hit(build: Callable[[Node, tuple[int, ...]], Node], x: Node, axis: int) -> Node:
        """The least index along `axis` at which the extreme, or NaN, stands."""
        extreme = expand(reshape(build(x, (axis,)), kept_shape(x.shape, (axis,))), x.shape)
        hit = e.bit_or(e.eq(x, extreme), e.ne(x, x))
        place = iota(x.shape, axis, int64)
        return reduce_min(e.where(hit, place, constant(x.shape[axis], int64)), (axis,))

    def any(self, dim: Axes = None, keepdim: bool = False) -> Tensor:
        """Whether any element is not zero: bool, and of uint8, as in PyTorch, uint8."""
        found = self._truth().amax(dim, keepdim) if self.numel() else self._truth().sum(dim, keepdim).bool()
        return self._wrap(e.convert(found.node, uint8)) if self.dtype is uint8 else found

    def all(self, dim: Axes = None, keepdim: bool = False) -> Tensor:
        """Whether every element is not zero: bool, and of uint8, as in PyTorch, uint8."""
        found = ~(~self._truth()).any(dim, keepdim)
        return self._wrap(e.convert(found.node, uint8)) if self.dtype is uint8 else found

    def _truth(self) -> Tensor:
        return self._wrap(e.convert(self.node, bool_))

    def logsumexp(self, dim: Axes, keepdim: bool = False) -> Tensor:
        """log(sum(exp(x))), without overflow; minus infinity of nothing; of integers and bool in the default dtype."""
        if not self.dtype.is_floating_point:
            return self._wrap(e.convert(self.node, get_default_dtype())).logsumexp(dim, keepdim)
        if not self.numel():  # there is nothing to overflow, and there may be no greatest
            return self._wrap(e.exp(self.node)).sum(dim, keepdim).log()
        greatest = self.amax(dim, keepdim=True).detach()
        greatest = greatest.masked_fill(greatest.isinf(), 0.0)
        total = (self - greatest).exp().sum(dim, keepdim)
        axes = normalize_axes(dim, self.ndim, "logsumexp")
        back = greatest if keepdim else greatest.reshape(tuple(s for i, s in enumerate(self.shape) if i not in axes))
        return total.log() + back

    def norm(
        self, p: float | str | None = "fro", dim: Axes = None, keepdim: bool = False, dtype: DType | None = None
    ) -> Tensor:
        """The vector norm of order p ("fro", which is 2, any other power, or infinity) along `dim`, in `dtype`.

        "nuc" is the sum of the singular values of matrices, whose two axes are `dim` (a host call).
        """
        if dtype is not None:
            return self._wrap(e.convert(self.node, dtype)).norm(p, dim, keepdim)
        require_float("norm", self)
        if self.dtype is not self.dtype.compute:  # powers of 16-bit floats would overflow before the root is taken
            wide = self._wrap(e.convert(self.node, self.dtype.compute)).norm(p, dim, keepdim)
            return self._wrap(e.convert(wide.node, self.dtype))
        if p == "nuc":
            return _nuclear(self, dim, keepdim)
        p = 2 if p in (None, "fro") else p
        if not isinstance(p, (int, float)):
            raise ValueError(f'norm: p must be a number, "fro" or "nuc", got {p!r} (at {user_source()})')
        size = self.abs()  # type: ignore[attr-defined]
        if p == math.inf:
            return size.amax(dim, keepdim)
        if p == -math.inf:
            return size.amin(dim, keepdim)
        if p == 0:
            return _count_of_nonzero(self, dim, keepdim)
        if p == 1:
            return size.sum(dim, keepdim)
        if p == 2:
            return _root_of_squares(self, dim, keepdim)
        if p < 1:  # the slope of a power at 0 is infinite; a norm's gradient there is 0
            from ..linalg import vector_norm

            return vector_norm(self, p, dim, keepdim)  # type: ignore[arg-type]
        from .arithmetic import where

        total = (size**p).sum(dim, keepdim)
        # the root's slope at 0 is infinite; a norm's gradient there is 0
        return where(total == 0, 0.0, where(total == 0, 1.0, total) ** (1.0 / p))


def _nuclear(x: Any, dim: Axes, keepdim: bool) -> Tensor:
    """The nuclear norm over two axes; by default those of a matrix."""
    from ..linalg import matrix_norm

    if dim is None and x.ndim != 2:
        raise ShapeError(f'norm: "nuc" of shape {list(x.shape)} needs a `dim` of two axes (at {user_source()})')
    return matrix_norm(x, "nuc", (0, 1) if dim is None else dim, keepdim)


def _count_of_nonzero(x: Any, dim: Axes, keepdim: bool) -> Tensor:
    """How many elements are not 0, in their dtype; its gradient is 0 everywhere."""
    from ..autograd.function import with_gradient

    def rule(result: Tensor, cotangent: Tensor) -> list[Tensor]:
        return [x._wrap(expand(constant(0.0, x.dtype), x.shape))]

    return with_gradient((x != 0).to(x.dtype).sum(dim, keepdim), [x], rule)


def _root_of_squares(x: Any, dim: Axes, keepdim: bool) -> Tensor:
    """The Euclidean norm; its gradient at 0 is 0, as PyTorch has it, not NaN."""
    from ..autograd.function import with_gradient
    from .arithmetic import where

    axes = normalize_axes(dim, x.ndim, "norm")
    kept = kept_shape(x.shape, axes)

    def rule(result: Tensor, cotangent: Tensor) -> list[Tensor]:
        size = result.reshape(kept)
        return [where(size == 0, 0.0, x * (cotangent.reshape(kept) / size))]

    return with_gradient((x * x).sum(dim, keepdim).sqrt(), [x], rule)
