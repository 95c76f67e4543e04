"""Cumulative methods of tensors: what of an axis has come so far, at each place of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import ShapeError
from ..graph.node import Node
from ..graph.types import BOOL, DType, int64, uint8
from ..ops import elementwise as e
from ..ops.host import detach
from ..ops.indexing import flat_index, take
from ..ops.movement import expand, pad, reshape, slice_
from ..ops.primitive import constant, iota, user_source
from ..ops.recurrence import recurrence, running_max, running_min
from ..ops.reduction import kept_shape, reduce_sum
from .autocast_mode import widening
from .handle import Handle
from .promotion import require_float
from .reductions import ValuesIndices, normalize_axis

if TYPE_CHECKING:
    from . import Tensor

#: products of more elements than this are taken in pieces side by side
_LONG_PRODUCT = 256


def along(x: Node, axis: int) -> Node:
    """`x` as [what comes before the axis, the axis, what comes after it]."""
    if not x.shape:
        return reshape(x, (1, 1, 1))
    return reshape(x, (math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :])))


def cumulated_product(x: Node) -> Node:
    """The product of x[:, :i+1] at each i; x is [outer, length, inner]."""
    first = e.eq(iota(x.shape, 1, int64), constant(0, int64))
    return recurrence(x, e.where(first, x, constant(0, x.dtype)))


def product_along(x: Node) -> Node:
    """The product over the middle axis of [outer, length, inner]; 1 of no elements. No gradient rule divides."""
    outer, length, inner = x.shape
    if length == 0:
        return e.add(reduce_sum(x, (1,)), constant(1, x.dtype))  # which keeps the history of x
    if length > _LONG_PRODUCT and inner == 1:  # pieces side by side, which vectors take together
        pieces = math.isqrt(length)
        each = -(-length // pieces)
        whole = pad(x, ((0, 0), (0, each * pieces - length), (0, 0)))
        place = iota(whole.shape, 1, int64)
        whole = e.where(e.lt(place, constant(length, int64)), whole, constant(1, x.dtype))
        return product_along(reshape(product_along(reshape(whole, (outer, each, pieces))), (outer, pieces, 1)))
    every = cumulated_product(x)
    return reshape(slice_(every, ((0, outer), (length - 1, length), (0, inner))), (outer, inner))


def taken_along(x: Node, index: Node, axis: int) -> Node:
    """x at `index` along an axis, as gather has it, for indices that are known to be in range."""
    if not x.shape:
        return x
    return take(reshape(x, (math.prod(x.shape),)), flat_index(index, x.shape, axis))


class CumulativeMethods(Handle):
    """Sums, products and extremes of what stands up to each place of the axis `dim`, that place included."""

    __slots__ = ()

    def _counted(self, dtype: DType | None) -> tuple[Node, DType]:
        """The value in the dtype in which sums and products are taken, and the dtype of the result.

        That is `dtype`, or else int64 for integers and bool. What is asked for in bool is counted in int64.
        """
        result = dtype or (self.dtype if self.dtype.is_floating_point else int64)
        if result.category == BOOL:
            return e.convert(e.convert(self.node, result), int64), result
        return e.convert(self.node, result), result

    def cumsum(self, dim: int, *, dtype: DType | None = None) -> Tensor:
        """The sum of the elements so far; of integers and bool in int64. Summed in float64 for float32.

        >>> pb.tensor([1, 2, 3]).cumsum(0)
        tensor([1, 3, 6])
        """
        axis = normalize_axis(dim, self.ndim, "cumsum")
        counted, result = self._counted(dtype)
        x = along(counted, axis)
        summed = recurrence(expand(constant(1, x.dtype), x.shape), x)
        return self._wrap(e.convert(reshape(summed, self.shape), result))

    def cumprod(self, dim: int, *, dtype: DType | None = None) -> Tensor:
        """The product of the elements so far; of integers and bool in int64. Its gradients are right at zeros too."""
        axis = normalize_axis(dim, self.ndim, "cumprod")
        counted, result = self._counted(dtype)
        return self._wrap(e.convert(reshape(cumulated_product(along(counted, axis)), self.shape), result))

    def cummax(self, dim: int) -> ValuesIndices:
        """The greatest element so far, and where it last stood; NaN from the first one on."""
        return self._running(running_max, dim, "cummax")

    def cummin(self, dim: int) -> ValuesIndices:
        """The least element so far, and where it last stood; NaN from the first one on."""
        return self._running(running_min, dim, "cummin")

    def _running(self, build: Callable[[Node], Node], dim: int, name: str) -> ValuesIndices:
        axis = normalize_axis(dim, self.ndim, name)
        x = along(detach(self.node), axis)
        if x.dtype.category == BOOL:
            x = e.convert(x, uint8)
        best = build(x)
        hit = e.bit_or(e.eq(x, best), e.ne(x, x))
        place = iota(x.shape, 1, int64)
        index = reshape(running_max(e.where(hit, place, constant(0, int64))), self.shape)
        return ValuesIndices(self._wrap(taken_along(self.node, index, axis)), self._wrap(index))

    def logcumsumexp(self, dim: int) -> Tensor:
        """log(cumsum(exp(x))), without overflow: the sum so far is kept relative to the greatest element so far."""
        from .arithmetic import where

        require_float("logcumsumexp", self)
        axis = normalize_axis(dim, self.ndim, "logcumsumexp")
        if self.dtype.compute is not self.dtype:
            wide = self._wrap(e.convert(self.node, self.dtype.compute))
            return wide.logcumsumexp(dim).to(self.dtype)
        x = self._wrap(along(self.node, axis))
        greatest = self._wrap(running_max(detach(x.node)))
        base = greatest.masked_fill(greatest.isinf(), 0.0)
        outer, length, inner = x.shape
        before = slice_(greatest.node, ((0, outer), (0, max(0, length - 1)), (0, inner)))
        before = pad(before, ((0, 0), (min(1, length), 0), (0, 0)))
        nothing = greatest == -math.inf
        shrunk = (self._wrap(before) - base).exp()
        total = self._wrap(recurrence(shrunk.node, (x - base).exp().node))
        # where nothing but -inf has come so far the sum is 0, and its logarithm's slope no number
        result = where(nothing, x, where(nothing, 1.0, total).log() + base)
        return result.reshape(self.shape)

    @widening
    def prod(self, dim: int | None = None, keepdim: bool = False, *, dtype: DType | None = None) -> Tensor:
        """The product of all elements, or along `dim`; of integers and bool in int64, 1 of no elements.

        Its gradients of every order are right where elements are zero.
        """
        x, result = self._counted(dtype)
        if dim is None:
            shape: tuple[int, ...] = ()
            x, kept = reshape(x, (1, self.numel(), 1)), (1,) * self.ndim
        else:
            axis = normalize_axis(dim, self.ndim, "prod")
            x, kept = along(x, axis), kept_shape(self.shape, (axis,))
            shape = self.shape[:axis] + self.shape[axis + 1 :]
        return self._wrap(e.convert(reshape(product_along(x), kept if keepdim else shape), result))

    def diff(self, n: int = 1, dim: int = -1, prepend: Tensor | None = None, append: Tensor | None = None) -> Tensor:
        """Differences of neighbours along `dim`, taken `n` times, of the tensor between `prepend` and `append`."""
        from .joining import cat

        if not self.shape:
            raise ShapeError(f"diff takes a tensor with axes, got shape [] (at {user_source()})")
        if n < 0:
            raise ValueError(f"diff: n must not be negative, got {n} (at {user_source()})")
        axis = normalize_axis(dim, self.ndim, "diff")
        if n == 0:
            return self  # type: ignore[return-value]
        parts: list[Any] = [prepend, self, append]
        x: Any = cat([t for t in parts if t is not None], axis)
        for _ in range(min(n, x.shape[axis])):
            later, earlier = x.narrow(axis, 1, x.shape[axis] - 1), x.narrow(axis, 0, x.shape[axis] - 1)
            x = later.ne(earlier) if x.dtype.category == BOOL else later - earlier
        return x
