"""Movement: the same elements in other places. No arithmetic, and all of it linear."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..errors import ShapeError
from ..graph.node import Node, Shape
from ..graph.types import DType
from .primitive import MOVEMENT, Primitive, Pullback, apply, register, user_source

Pairs = tuple[tuple[int, int], ...]


def _infer_reshape(x: Node, *, shape: Shape) -> tuple[Shape, DType]:
    if math.prod(shape) != math.prod(x.shape):
        raise ShapeError(
            f"reshape: {list(x.shape)} has {math.prod(x.shape)} elements and {list(shape)} has {math.prod(shape)} "
            f"(at {user_source()})"
        )
    return shape, x.dtype


def _infer_expand(x: Node, *, shape: Shape) -> tuple[Shape, DType]:
    lead = len(shape) - len(x.shape)
    if lead < 0 or any(have not in (1, want) for have, want in zip(x.shape, shape[lead:], strict=True)):
        raise ShapeError(
            f"expand: {list(x.shape)} cannot be repeated to {list(shape)}: only axes of size 1, and new ones in front, "
            f"can be (at {user_source()})"
        )
    return shape, x.dtype


def _infer_pad(x: Node, *, widths: Pairs) -> tuple[Shape, DType]:
    return tuple(low + size + high for size, (low, high) in zip(x.shape, widths, strict=True)), x.dtype


def _infer_concatenate(*parts: Node, axis: int) -> tuple[Shape, DType]:
    first = parts[0]
    for part in parts[1:]:
        if part.shape[:axis] + part.shape[axis + 1 :] != first.shape[:axis] + first.shape[axis + 1 :]:
            raise ShapeError(
                f"cat: all shapes must agree outside axis {axis}, got {list(first.shape)} and {list(part.shape)} "
                f"(at {user_source()})"
            )
    total = sum(part.shape[axis] for part in parts)
    return (*first.shape[:axis], total, *first.shape[axis + 1 :]), first.dtype


def _concatenate_pullback(node: Node, cotangent: Node, index: int) -> Node:
    axis = node["axis"]
    start = sum(part.shape[axis] for part in node.inputs[:index])
    bounds = [(0, size) for size in node.shape]
    bounds[axis] = (start, start + node.inputs[index].shape[axis])
    return slice_(cotangent, tuple(bounds))


def _movement(
    name: str,
    infer: Callable[..., tuple[Shape, DType]],
    evaluate: Callable[..., np.ndarray],
    pullbacks: tuple[Pullback | None, ...] | Callable[..., Node],
) -> Primitive:
    return register(Primitive(name, MOVEMENT, infer, evaluate, pullbacks, cost=0, linear=True))


RESHAPE = _movement(
    "reshape",
    _infer_reshape,
    lambda n, x: x.reshape(n.shape),
    (lambda n, g: reshape(g, n.inputs[0].shape),),
)
PERMUTE = _movement(
    "permute",
    lambda x, *, axes: (tuple(x.shape[a] for a in axes), x.dtype),
    lambda n, x: x.transpose(n["axes"]),
    (lambda n, g: permute(g, tuple(int(i) for i in np.argsort(n["axes"]))),),
)
# the driver of differentiation sums a cotangent back to the shape of its input: that is all that a repetition's needs
EXPAND = _movement("expand", _infer_expand, lambda n, x: np.broadcast_to(x, n.shape), (lambda n, g: g,))
SLICE = _movement(
    "slice",
    lambda x, *, bounds: (tuple(stop - start for start, stop in bounds), x.dtype),
    lambda n, x: x[tuple(slice(start, stop) for start, stop in n["bounds"])],
    (
        lambda n, g: pad(
            g,
            tuple((start, size - stop) for (start, stop), size in zip(n["bounds"], n.inputs[0].shape, strict=True)),
        ),
    ),
)
PAD = _movement(
    "pad",
    _infer_pad,
    lambda n, x: np.pad(x, n["widths"]),
    (
        lambda n, g: slice_(
            g, tuple((low, low + size) for (low, _), size in zip(n["widths"], n.inputs[0].shape, strict=True))
        ),
    ),
)
FLIP = _movement(
    "flip",
    lambda x, *, axes: (x.shape, x.dtype),
    lambda n, x: np.flip(x, n["axes"]),
    (lambda n, g: flip(g, n["axes"]),),
)
CONCATENATE = _movement(
    "concatenate", _infer_concatenate, lambda n, *parts: np.concatenate(parts, n["axis"]), _concatenate_pullback
)


def reshape(x: Node, shape: Shape) -> Node:
    """The elements in row-major order under another shape of the same size."""
    return x if x.shape == shape else apply(RESHAPE, x, shape=tuple(shape))


def permute(x: Node, axes: tuple[int, ...]) -> Node:
    """The axes in another order: axis i of the result is axis `axes[i]` of `x`."""
    return x if axes == tuple(range(len(axes))) else apply(PERMUTE, x, axes=axes)


def expand(x: Node, shape: Shape) -> Node:
    """Axes of size 1, and new ones in front, repeated to `shape`."""
    return x if x.shape == shape else apply(EXPAND, x, shape=tuple(shape))


def slice_(x: Node, bounds: Pairs) -> Node:
    """The part from start to stop (excluded) of each axis."""
    whole = all(start == 0 and stop == size for (start, stop), size in zip(bounds, x.shape, strict=True))
    return x if whole else apply(SLICE, x, bounds=bounds)


def pad(x: Node, widths: Pairs) -> Node:
    """`x` with zeros (False for bool) before and after along each axis."""
    return x if not any(map(any, widths)) else apply(PAD, x, widths=widths)


def flip(x: Node, axes: tuple[int, ...]) -> Node:
    """The order reversed along `axes`."""
    return apply(FLIP, x, axes=axes) if axes else x


def concatenate(parts: tuple[Node, ...], axis: int) -> Node:
    """The parts one after the other along `axis`."""
    return parts[0] if len(parts) == 1 else apply(CONCATENATE, *parts, axis=axis)


def swap_last(x: Node) -> Node:
    """The last two axes exchanged: the transpose of each matrix in a batch."""
    rank = len(x.shape)
    return permute(x, (*range(rank - 2), rank - 1, rank - 2))
