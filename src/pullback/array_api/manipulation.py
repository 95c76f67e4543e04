"""Axes and shapes rearranged; arrays joined; elements taken by index."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from ..errors import ShapeError
from ..graph.types import int64
from ..ops.elementwise import broadcast_shapes as common_shape
from ..ops.primitive import user_source
from ..tensor import Tensor, joining
from ..tensor.reductions import normalize_axes, normalize_axis
from .dtypes import promoted

Axes = int | tuple[int, ...] | None


def reshape(x: Tensor, /, shape: Sequence[int], *, copy: bool | None = None) -> Tensor:
    """The elements in row-major order in another shape; -1 stands for the size that fits."""
    found = x.reshape(tuple(operator.index(size) for size in shape))
    return found.clone() if copy else found


def permute_dims(x: Tensor, /, axes: tuple[int, ...]) -> Tensor:
    """The axes in another order."""
    return x.permute(*axes) if x.ndim else x


def matrix_transpose(x: Tensor, /) -> Tensor:
    """The last two axes exchanged."""
    return x.mT


def moveaxis(x: Tensor, source: Any, destination: Any, /) -> Tensor:
    """Axes moved to other places; the rest keep their order."""
    return x.movedim(source, destination)


def expand_dims(x: Tensor, /, axis: int | tuple[int, ...] = 0) -> Tensor:
    """With new axes of size 1, counted in the result."""
    listed = (axis,) if isinstance(axis, int) else axis
    for place in sorted(normalize_axis(a, x.ndim + len(listed), "expand_dims") for a in listed):
        x = x.unsqueeze(place)
    return x


def squeeze(x: Tensor, /, axis: int | tuple[int, ...]) -> Tensor:
    """Without these axes; ValueError where one is not of size 1."""
    axes = () if axis == () else normalize_axes(axis, x.ndim, "squeeze")
    if any(x.shape[a] != 1 for a in axes):
        raise ValueError(f"squeeze: axes {axis} of {list(x.shape)} are not all of size 1 (at {user_source()})")
    return x.squeeze(axes)


def flip(x: Tensor, /, *, axis: Axes = None) -> Tensor:
    """The order reversed along `axis`, by default along all."""
    return x.flip(normalize_axes(axis, x.ndim, "flip")) if axis != () else +x


def roll(x: Tensor, /, shift: Any, *, axis: Axes = None) -> Tensor:
    """Elements shifted along `axis`, those that leave coming in again; by default in row-major order."""
    if isinstance(axis, tuple) and isinstance(shift, int):
        shift = (shift,) * len(axis)
    return x.roll(shift, axis)


def tile(x: Tensor, repetitions: tuple[int, ...], /) -> Tensor:
    """The array repeated as a whole along each axis."""
    return x.tile(tuple(repetitions))


def repeat(x: Tensor, repeats: int | Tensor, /, *, axis: int | None = None) -> Tensor:
    """Each element repeated along `axis`, by default of the flattened array."""
    return x.repeat_interleave(repeats.to(int64) if isinstance(repeats, Tensor) else repeats, axis)


def concat(arrays: Sequence[Tensor], /, *, axis: int | None = 0) -> Tensor:
    """Arrays one after the other along `axis`; None flattens them first."""
    parts = promoted(*arrays)
    return joining.cat([p.reshape(-1) for p in parts] if axis is None else parts, 0 if axis is None else axis)


def stack(arrays: Sequence[Tensor], /, *, axis: int = 0) -> Tensor:
    """Arrays of one shape along a new axis."""
    return joining.stack(promoted(*arrays), axis)


def unstack(x: Tensor, /, *, axis: int = 0) -> tuple[Tensor, ...]:
    """The parts along an axis, without it."""
    return tuple(x.unbind(axis))


def broadcast_to(x: Tensor, /, shape: tuple[int, ...]) -> Tensor:
    """The array repeated to `shape`."""
    return x.broadcast_to(tuple(shape))


def broadcast_shapes(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that all of `shapes` broadcast to."""
    return common_shape("broadcast_shapes", *map(tuple, shapes)) if shapes else ()


def broadcast_arrays(*arrays: Tensor) -> tuple[Tensor, ...]:
    """The arrays in their common shape, each in its own dtype."""
    shape = broadcast_shapes(*(a.shape for a in arrays))
    return tuple(a.broadcast_to(shape) for a in arrays)


def take(x: Tensor, indices: Tensor, /, *, axis: int | None = None) -> Tensor:
    """What stands at `indices` along `axis`, which a vector need not say."""
    if axis is None and x.ndim != 1:
        raise ShapeError(f"take: axis must be given for an array of {x.ndim} axes (at {user_source()})")
    place = 0 if axis is None else normalize_axis(axis, x.ndim, "take")
    return x[(slice(None),) * place + (indices.to(int64),)]


def take_along_axis(x: Tensor, indices: Tensor, /, *, axis: int = -1) -> Tensor:
    """What stands at `indices` along `axis`, row by row; the other axes broadcast."""
    index, place = indices.to(int64), normalize_axis(axis, x.ndim, "take_along_axis")
    size = x.shape[place]
    from ..tensor.arithmetic import where

    return x.take_along_dim(where(index < 0, index + size, index), place)
