"""Functions of several tensors that move elements: joining, stacking, broadcasting, grids and combinations."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DTypeError, ShapeError
from ..graph.types import int64
from ..ops import elementwise as e
from ..ops.movement import concatenate as joined
from ..ops.movement import pad
from ..ops.primitive import user_source
from .handle import Handle
from .promotion import result_type
from .reductions import normalize_axis

if TYPE_CHECKING:
    from . import Tensor


def _listed(name: str, tensors: Sequence[Tensor]) -> list[Tensor]:
    if isinstance(tensors, Handle) or not all(isinstance(t, Handle) for t in tensors):
        raise TypeError(f"{name} takes a sequence of tensors (at {user_source()})")
    if not tensors:
        raise ShapeError(f"{name}: no tensors given (at {user_source()})")
    return list(tensors)


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors one after the other along `dim`; their other sizes must agree.

    >>> pb.cat([pb.ones(2), pb.zeros(1)])
    tensor([1., 1., 0.])
    """
    every = _listed("cat", tensors)
    dtype = result_type(*every)
    # PyTorch lets an empty vector join anything
    listed = [t for t in every if t.shape != (0,)] or every[:1]
    first = listed[0]
    axis = normalize_axis(dim, first.ndim, "cat")
    if any(t.ndim != first.ndim for t in listed) or not first.shape:
        raise ShapeError(
            f"cat: shapes {[list(t.shape) for t in listed]} must have the same number of axes, at least one "
            f"(at {user_source()})"
        )
    return first._wrap(joined(tuple(e.convert(t.node, dtype) for t in listed), axis))


def concat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """As `cat`."""
    return cat(tensors, dim)


def concatenate(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """As `cat`."""
    return cat(tensors, axis)


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors of one shape side by side along a new axis `dim`."""
    listed = _listed("stack", tensors)
    if any(t.shape != listed[0].shape for t in listed):
        raise ShapeError(f"stack: shapes must be equal, got {[list(t.shape) for t in listed]} (at {user_source()})")
    axis = normalize_axis(dim, listed[0].ndim + 1, "stack")
    return cat([t.unsqueeze(axis) for t in listed], axis)


def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors one after the other along axis 1, vectors along axis 0."""
    listed = [atleast_1d(t) for t in _listed("hstack", tensors)]
    return cat(listed, 0 if listed[0].ndim == 1 else 1)


def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors one below the other along axis 0, vectors as rows."""
    return cat([atleast_2d(t) for t in _listed("vstack", tensors)], 0)


row_stack = vstack


def dstack(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors one behind the other along axis 2."""
    return cat([atleast_3d(t) for t in _listed("dstack", tensors)], 2)


def column_stack(tensors: Sequence[Tensor]) -> Tensor:
    """Vectors as columns, and tensors with more axes, one after the other along axis 1."""
    listed = _listed("column_stack", tensors)
    return cat([t.reshape(t.numel(), 1) if t.ndim < 2 else t for t in listed], 1)


def _each(tensors: tuple[Any, ...], change: Any) -> Any:
    if len(tensors) == 1:
        return change(tensors[0]) if isinstance(tensors[0], Handle) else tuple(map(change, tensors[0]))
    return tuple(map(change, tensors))


def atleast_1d(*tensors: Any) -> Any:
    """Tensors of shape [] as vectors, others as they are. One tensor, several, or a sequence of them."""
    return _each(tensors, lambda t: t if t.ndim else t.reshape(1))


def atleast_2d(*tensors: Any) -> Any:
    """Vectors as one row, others as they are."""
    return _each(tensors, lambda t: t if t.ndim > 1 else t.reshape(1, t.numel()))


def atleast_3d(*tensors: Any) -> Any:
    """Vectors as [1, n, 1], matrices as [m, n, 1], others as they are."""
    return _each(tensors, lambda t: t if t.ndim > 2 else t.unsqueeze(-1) if t.ndim == 2 else t.reshape(1, t.numel(), 1))


def block_diag(*tensors: Tensor) -> Tensor:
    """Matrices down the diagonal of a matrix of zeros; vectors count as rows."""
    if any(t.ndim > 2 for t in tensors):
        raise ShapeError(f"block_diag takes at most 2 axes, got {[list(t.shape) for t in tensors]} ({user_source()})")
    blocks = [atleast_2d(t) for t in _listed("block_diag", tensors)]
    dtype = result_type(*tensors)
    width, before, rows = sum(b.shape[1] for b in blocks), 0, []
    for block in blocks:
        after = width - before - block.shape[1]
        rows.append(pad(e.convert(block.node, dtype), ((0, 0), (before, after))))
        before += block.shape[1]
    return tensors[0]._wrap(joined(tuple(rows), 0))


def broadcast_shapes(*shapes: Any) -> tuple[int, ...]:
    """The shape that tensors of these shapes broadcast to."""
    return e.broadcast_shapes("broadcast_shapes", *((s,) if isinstance(s, int) else tuple(s) for s in shapes))


def broadcast_tensors(*tensors: Any) -> tuple[Tensor, ...]:
    """The tensors repeated to the shape that they broadcast to."""
    listed = tensors[0] if len(tensors) == 1 and not isinstance(tensors[0], Handle) else tensors
    shape = e.broadcast_shapes("broadcast_tensors", *(t.shape for t in listed))
    return tuple(t.expand(shape) for t in listed)


def meshgrid(*tensors: Any, indexing: str | None = None) -> tuple[Tensor, ...]:
    """The coordinates of the grid that vectors span: one tensor a vector, repeated along the others' axes.

    `indexing` "ij" (the default) puts the first vector along axis 0, "xy" along axis 1.
    """
    listed = list(tensors[0]) if len(tensors) == 1 and not isinstance(tensors[0], Handle) else list(tensors)
    if indexing not in (None, "ij", "xy"):
        raise ValueError(f'meshgrid: indexing must be "ij" or "xy", got {indexing!r} (at {user_source()})')
    if not listed or any(t.ndim > 1 for t in listed) or len({t.dtype for t in listed}) > 1:
        raise ShapeError(
            f"meshgrid takes vectors of one dtype, got {[f'{t.dtype.name}{list(t.shape)}' for t in listed]} "
            f"(at {user_source()})"
        )
    exchange = indexing == "xy" and len(listed) > 1
    if exchange:
        listed[:2] = listed[1::-1]
    shape = tuple(t.numel() for t in listed)
    grids = [
        t.reshape([t.numel() if a == axis else 1 for a in range(len(listed))]).expand(shape)
        for axis, t in enumerate(listed)
    ]
    if exchange:
        grids[:2] = grids[1::-1]
    return tuple(grids)


def cartesian_prod(*tensors: Any) -> Tensor:
    """Every choice of one element of each vector, a row a choice; of one vector the vector."""
    listed = list(tensors[0]) if len(tensors) == 1 and not isinstance(tensors[0], Handle) else list(tensors)
    if any(t.ndim != 1 for t in listed):
        raise ShapeError(f"cartesian_prod takes vectors, got {[list(t.shape) for t in listed]} (at {user_source()})")
    if len(listed) == 1:
        return listed[0]
    return stack([g.reshape(g.numel()) for g in meshgrid(*listed)], 1)


def combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """The choices of `r` elements of a vector, a row each, in order; with replacement also an element with itself."""
    if input.ndim != 1:
        raise ShapeError(f"combinations takes a vector, got {list(input.shape)} (at {user_source()})")
    if r < 0:
        raise ValueError(f"combinations: r must not be negative, got {r} (at {user_source()})")
    from .creation import tensor

    if r == 0:
        return input.new_empty(0) if hasattr(input, "new_empty") else input[:0]
    choose = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    rows = np.array(list(choose(range(input.shape[0]), r)), np.int64).reshape(-1, r)
    return input[tensor(rows, dtype=int64)] if len(rows) else input[:0].reshape(0, 1).expand(0, r)


def unravel_index(indices: Tensor, shape: Any) -> tuple[Tensor, ...]:
    """The place along each axis of `shape` of elements given by their numbers in row-major order (int64)."""
    if indices.dtype.category != 1:
        raise DTypeError(f"unravel_index takes integers, got {indices.dtype.name} (at {user_source()})")
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    places, left = [], indices.long()
    for size in reversed(sizes):
        places.append(left % size)
        left = left // size
    return tuple(reversed(places))


__all__ = [
    "atleast_1d",
    "atleast_2d",
    "atleast_3d",
    "block_diag",
    "broadcast_shapes",
    "broadcast_tensors",
    "cartesian_prod",
    "cat",
    "column_stack",
    "combinations",
    "concat",
    "concatenate",
    "dstack",
    "hstack",
    "meshgrid",
    "row_stack",
    "stack",
    "unravel_index",
    "vstack",
]
