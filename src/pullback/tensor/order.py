"""What depends on the order or the places of elements, and methods whose result's size depends on data.

The latter need the values: they are computed at once, and refused inside a compiled step, whose shapes are fixed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DomainError, DTypeError, ShapeError, TraceError
from ..graph.node import Node
from ..graph.types import bool_, int64
from ..ops import elementwise as e
from ..ops.host import detach, host_call
from ..ops.indexing import require, take
from ..ops.movement import expand, reshape
from ..ops.primitive import constant, user_source
from .creation import tensor
from .handle import Handle
from .reductions import normalize_axis
from .state import STATE

if TYPE_CHECKING:
    from . import Tensor


def realized(x: Handle, name: str) -> np.ndarray:
    """The values of `x` for an operation the size of whose result depends on them."""
    if STATE.trace is not None or STATE.loop is not None:
        raise TraceError(
            f"{name} inside a compiled step or the body of a loop (at {user_source()}): the size of its result depends "
            "on values, and shapes are fixed there. Do it outside, or use a form of fixed size: pb.where(mask, x, "
            "other), x.masked_fill(mask, value), or pb.nonzero_static(x, size=...)."
        )
    return x.detach()._numbers()


def checked(value: Node, holds: Node, message: str) -> Node:
    """`value`, whose computing raises DomainError with `message` where `holds` is false."""
    mark = require(holds, DomainError, message)
    return e.where(e.eq(mark, constant(0, mark.dtype)), value, constant(0, value.dtype))


def _as_tensor(array: np.ndarray, like: Handle) -> Tensor:
    """Values of the dtype of `like` as a tensor of that dtype."""
    return tensor(array, dtype=like.dtype)


@cache
def _static_places(size: int, fill_value: int) -> Callable[[np.ndarray], np.ndarray]:
    """The function that gives the places of the first `size` elements that are not zero, one a row."""

    def places(array: np.ndarray) -> np.ndarray:
        found = np.argwhere(array)[:size]
        missing = np.full((size - len(found), array.ndim), fill_value)
        return np.concatenate([found, missing])

    return places


class OrderMethods(Handle):
    """Places, order, and distinct values."""

    __slots__ = ()

    def nonzero(self, *, as_tuple: bool = False) -> Any:
        """Where the elements are that are not zero: int64[found, ndim], or with `as_tuple` a vector for each axis.

        The values are computed at once. Raises TraceError inside a compiled step; `nonzero_static` works there.

        >>> pb.nonzero(pb.tensor([[1, 0], [0, 2]]))
        tensor([[0, 0],
                [1, 1]])
        """
        array = realized(self, "nonzero")
        if as_tuple:
            return tuple(tensor(places) for places in np.nonzero(np.atleast_1d(array)))
        return tensor(np.argwhere(array).astype(np.int64))

    def argwhere(self) -> Tensor:
        """Where the elements are that are not zero, int64[found, ndim]: `nonzero` by NumPy's name."""
        return tensor(np.argwhere(realized(self, "argwhere")).astype(np.int64))

    def nonzero_static(self, *, size: int, fill_value: int = -1) -> Tensor:
        """The first `size` places of elements that are not zero, int64[size, ndim], filled up with `fill_value`.

        A host call: it works inside a compiled step.
        """
        if size < 0:
            raise ShapeError(f"nonzero_static: size must not be negative, got {size} (at {user_source()})")
        shape = (size, self.ndim)
        return self._wrap(host_call((detach(self.node),), _static_places(size, fill_value), shape, int64))

    def masked_select(self, mask: Tensor) -> Tensor:
        """The elements where the bool `mask`, which broadcasts with the tensor, holds: a vector.

        The mask is computed at once; the gradient goes to the elements selected. Raises TraceError inside a compiled
        step; `where` and `masked_fill` work there.
        """
        if mask.dtype is not bool_:
            raise DTypeError(
                f"masked_select: the mask must be bool, got {mask.dtype.name} (at {user_source()}); compare, or .bool()"
            )
        shape = e.broadcast_shapes("masked_select", self.shape, mask.shape)
        places = np.flatnonzero(np.broadcast_to(realized(mask, "masked_select"), shape))
        flat = reshape(expand(self.node, shape), (int(np.prod(shape, dtype=np.int64)),))
        return self._wrap(take(flat, tensor(places.astype(np.int64)).node))

    def unique(
        self,
        sorted: bool = True,
        return_inverse: bool = False,
        return_counts: bool = False,
        dim: int | None = None,
    ) -> Any:
        """The distinct elements (or slices along `dim`) in ascending order; every NaN is one of its own.

        With `return_inverse` also where in them each element went, with `return_counts` how often each occurs (int64).
        They are sorted whatever `sorted` says, as PyTorch's are on CPUs. Computed at once: TraceError inside a compiled
        step. It has no gradient.
        """
        array = realized(self, "unique")
        axis = None if dim is None else normalize_axis(dim, self.ndim, "unique")
        return self._distinct(_unique(array, axis), return_inverse, return_counts)

    def unique_consecutive(
        self, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
    ) -> Any:
        """The elements (or slices along `dim`) without those that equal the one before; otherwise as `unique`."""
        array = realized(self, "unique_consecutive")
        axis = None if dim is None else normalize_axis(dim, self.ndim, "unique_consecutive")
        return self._distinct(_unique_consecutive(array, axis), return_inverse, return_counts)

    def _distinct(self, found: tuple[np.ndarray, ...], return_inverse: bool, return_counts: bool) -> Any:
        values, inverse, counts = found
        results = [_as_tensor(values, self)]
        results += [tensor(inverse.astype(np.int64))] if return_inverse else []
        results += [tensor(counts.astype(np.int64))] if return_counts else []
        return tuple(results) if len(results) > 1 else results[0]


def _unique(array: np.ndarray, axis: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct values, where each element went, and how often each occurs."""
    if axis is not None and array.ndim and array.size == 0:
        return _unique_consecutive(array, axis)
    values, inverse, counts = np.unique(
        array, return_inverse=True, return_counts=True, axis=axis if array.ndim else None, equal_nan=False
    )
    return values, inverse.reshape(array.shape if axis is None else -1), counts


def _unique_consecutive(array: np.ndarray, axis: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows = array.reshape(-1) if axis is None or not array.ndim else np.moveaxis(array, axis, 0)
    count = len(rows)
    flat = rows.reshape(count, -1) if rows.size else np.zeros((count, 0))
    starts = np.concatenate([np.ones(min(count, 1), bool), (flat[1:] != flat[:-1]).any(axis=1)])
    inverse = np.cumsum(starts) - 1
    counts = np.diff(np.append(np.flatnonzero(starts), count))
    values = rows[starts]
    if axis is None or not array.ndim:
        return values, inverse.reshape(array.shape), counts
    return np.moveaxis(values, 0, axis), inverse, counts


__all__ = ["OrderMethods", "realized"]
