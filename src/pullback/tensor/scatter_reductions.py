"""What scatter_reduce is on flat tensors: sums and means by the primitive, extremes and products on the host.

The gradients follow PyTorch's (torch/csrc/autograd/FunctionsManual.cpp, scatter_reduce_backward): of equal extremes
each gets its share; a product's is the product of the others, also where one factor is zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..graph.types import BOOL, FLOAT, int64
from ..ops import elementwise as e
from ..ops.host import host_call
from ..ops.indexing import put, scatter_add
from ..ops.movement import expand
from ..ops.primitive import constant

if TYPE_CHECKING:
    from . import Tensor

_COMBINE = {"prod": np.multiply, "amax": np.maximum, "amin": np.minimum}


def reduced(x: Tensor, places: Tensor, rows: Tensor, reduce: str, include_self: bool) -> Tensor:
    """The vector `x` with `rows` combined into it at `places`, all in range."""
    base = x if include_self else _cleared(x, places)
    if reduce in ("sum", "mean"):
        if x.dtype.category == BOOL:
            return reduced(x.to(int64), places, rows.to(int64), reduce, include_self).bool()
        total = base + _summed(places, rows, x.shape[0])
        return total if reduce == "sum" else _divided(total, places, include_self)
    return _extreme(x, places, rows, reduce, include_self)


def _summed(places: Tensor, rows: Tensor, size: int) -> Tensor:
    return rows._wrap(scatter_add(places.node, rows.node, size))


def _cleared(x: Tensor, places: Tensor) -> Tensor:
    """`x` with zeros where anything is written."""
    return x._wrap(put(x.node, places.node, expand(constant(0, x.dtype), places.shape)))


def _divided(total: Tensor, places: Tensor, include_self: bool) -> Tensor:
    """The sums as means; integers are rounded down."""
    ones = total._wrap(expand(constant(1, int64), places.shape))
    count = (_summed(places, ones, total.shape[0]) + int(include_self)).clamp(min=1)
    if total.dtype.category != FLOAT:
        return (total // count).to(total.dtype)
    return total / count.to(total.dtype)


def _combined(x: Tensor, places: Tensor, rows: Tensor, reduce: str, include_self: bool) -> Tensor:
    """The values alone, without a history."""
    combine = _COMBINE[reduce]

    def on_arrays(values: np.ndarray, index: np.ndarray, added: np.ndarray) -> np.ndarray:
        result = np.array(values)
        if not include_self:
            if reduce == "prod":
                start: object = 1
            elif values.dtype.kind == "f":
                start = -np.inf if reduce == "amax" else np.inf
            elif values.dtype.kind == "b":
                start = reduce == "amin"
            else:
                limits = np.iinfo(values.dtype)
                start = limits.min if reduce == "amax" else limits.max
            result[index] = start
        with np.errstate(all="ignore"):
            combine.at(result, index, added)
        return result

    nodes = (x.detach().node, places.node, rows.detach().node)
    return x._wrap(host_call(nodes, on_arrays, x.shape, x.dtype))


def _extreme(x: Tensor, places: Tensor, rows: Tensor, reduce: str, include_self: bool) -> Tensor:
    from ..autograd.function import with_gradient

    primal = _combined(x, places, rows, reduce, include_self)
    if not (x.requires_grad or rows.requires_grad):
        return primal

    def rule(result: Tensor, cotangent: Tensor) -> list[Tensor]:
        pulled = _product_rule if reduce == "prod" else _extreme_rule
        mine, theirs = pulled(x, places, rows, result, cotangent, include_self)
        if not include_self:
            mine = _cleared(mine, places)
        return [mine, theirs]

    return with_gradient(primal, [x, rows], rule)


def _extreme_rule(
    x: Tensor, places: Tensor, rows: Tensor, result: Tensor, cotangent: Tensor, _: bool
) -> tuple[Tensor, Tensor]:
    mine = (x == result).to(x.dtype)
    theirs = (rows == result.take(places)).to(x.dtype)
    # PyTorch gives the tensor's own element its share also where it does not count
    share = cotangent / (mine + _summed(places, theirs, x.shape[0])).clamp(min=1)
    return mine * share, theirs * share.take(places)


def _product_rule(
    x: Tensor, places: Tensor, rows: Tensor, result: Tensor, cotangent: Tensor, include_self: bool
) -> tuple[Tensor, Tensor]:
    own = x.masked_fill(x == 0, 1)
    mine = cotangent * reduced(own, places, rows, "prod", include_self) / own
    zero = rows == 0
    zeros = _summed(places, zero.to(int64), x.shape[0]).take(places)
    single = zero & (zeros == 1)
    others = reduced(x, places, rows.masked_fill(single, 1), "prod", include_self)
    whole = (cotangent * result).take(places) / rows.masked_fill(zero, 1)
    alone = (cotangent * others).take(places)
    return mine, x._wrap(e.where(single.node, alone.node, whole.node))


__all__ = ["reduced"]
