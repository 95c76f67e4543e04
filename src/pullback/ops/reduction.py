"""Reductions: many elements to one, along given axes, which are dropped from the shape."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..errors import DTypeError, ShapeError
from ..graph.node import Node, Shape
from ..graph.types import BOOL, DType, round_to
from .elementwise import div, eq, mul, sub, where
from .movement import expand, reshape
from .primitive import REDUCTION, Primitive, Pullback, apply, constant, register, user_source


def kept_shape(shape: Shape, axes: tuple[int, ...]) -> Shape:
    """`shape` with size 1 at each of `axes`."""
    return tuple(1 if axis in axes else size for axis, size in enumerate(shape))


def _back_to_full(reduced: Node, node: Node) -> Node:
    """A value of the reduced shape, repeated over the axes that `node` reduced."""
    full = node.inputs[0].shape
    return expand(reshape(reduced, kept_shape(full, node["axes"])), full)


def _extreme_pullback(node: Node, cotangent: Node) -> Node:
    """To the elements that equal the extreme, in equal shares (PyTorch's amax and amin)."""
    hit = eq(node.inputs[0], _back_to_full(node, node))
    ones = where(hit, constant(1.0, cotangent.dtype), constant(0.0, cotangent.dtype))
    share = div(cotangent, reduce_sum(ones, node["axes"]))
    return mul(ones, _back_to_full(share, node))


def _spread_pullback(node: Node, cotangent: Node) -> Node:
    """Twice the distance from the mean."""
    x = node.inputs[0]
    count = math.prod(x.shape[axis] for axis in node["axes"])
    mean = mul(_back_to_full(reduce_sum(x, node["axes"]), node), constant(1 / count, x.dtype))
    return mul(mul(sub(x, mean), constant(2.0, x.dtype)), _back_to_full(cotangent, node))


def _squared_distances(x: np.ndarray, axis: tuple[int, ...]) -> np.ndarray:
    distance = x - np.mean(x, axis=axis, dtype=x.dtype, keepdims=True)
    return np.sum(distance * distance, axis=axis, dtype=x.dtype)


def _reduction(
    name: str, function: Callable[..., np.ndarray], pullback: Pullback, linear: bool, empty: bool, cost: int = 1
) -> Primitive:
    def infer(x: Node, *, axes: tuple[int, ...]) -> tuple[Shape, DType]:
        if x.dtype.category == BOOL:
            raise DTypeError(f"{name} does not take bool (at {user_source()}); convert with .to(dtype)")
        if not empty and math.prod(x.shape[a] for a in axes) == 0:
            raise ShapeError(f"{name} of no elements: shape {list(x.shape)}, axes {list(axes)} (at {user_source()})")
        return tuple(s for axis, s in enumerate(x.shape) if axis not in axes), x.dtype

    def evaluate(node: Node, x: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return round_to(np.asarray(function(x, axis=node["axes"])), node.dtype)

    return register(Primitive(name, REDUCTION, infer, evaluate, (pullback,), linear=linear, cost=cost))


SUM = _reduction(
    "sum", lambda x, axis: np.sum(x, axis=axis, dtype=x.dtype), lambda n, g: _back_to_full(g, n), True, True
)
MAX = _reduction("max", np.max, _extreme_pullback, False, False)
MIN = _reduction("min", np.min, _extreme_pullback, False, False)
#: the sum of squared distances from the mean, of floats, in two passes or as parts put together; the compiler makes it
#: of that sum written out, where a kernel can take it on its way (see `compiler/spread.py`)
SPREAD = _reduction("spread", _squared_distances, _spread_pullback, False, False, cost=4)


def reduce_sum(x: Node, axes: tuple[int, ...]) -> Node:
    """The sum along `axes`; in float32 inside for the 16-bit floats."""
    return apply(SUM, x, axes=axes) if axes else x


def reduce_max(x: Node, axes: tuple[int, ...]) -> Node:
    """The greatest element along `axes`; NaN where there is one."""
    return apply(MAX, x, axes=axes) if axes else x


def reduce_min(x: Node, axes: tuple[int, ...]) -> Node:
    """The least element along `axes`; NaN where there is one."""
    return apply(MIN, x, axes=axes) if axes else x


def spread(x: Node, axes: tuple[int, ...]) -> Node:
    """The sum along `axes` of the squared distances from the mean along them."""
    return apply(SPREAD, x, axes=axes)


def sum_to_shape(x: Node, shape: Shape) -> Node:
    """`x` summed over the axes along which `shape` was broadcast to it: what undoes a broadcast."""
    if x.shape == shape:
        return x
    lead = len(x.shape) - len(shape)
    axes = tuple(range(lead)) + tuple(lead + i for i, size in enumerate(shape) if size == 1 and x.shape[lead + i] != 1)
    return reshape(reduce_sum(x, axes), shape)


__all__ = [
    "MAX", "MIN", "SPREAD", "SUM", "kept_shape", "reduce_max", "reduce_min", "reduce_sum", "spread", "sum_to_shape",
]  # fmt: skip
