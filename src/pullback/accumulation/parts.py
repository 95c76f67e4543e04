"""A batch, nested as it may be, and its parts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ShapeError
from ..graph.node import Node
from ..ops.host import identity
from ..ops.movement import slice_
from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.creation import from_numpy
from ..tensor.joining import cat
from ..tensor.reductions import normalize_axis
from ..trees import flatten, unflatten
from .classes import Place, Rows, rows_at


class Batch:
    """The leaves of a batch; its tensors have the examples along one axis."""

    def __init__(self, batch: Any, dim: int):
        leaves, self.shape = flatten(batch)
        self.leaves = [from_numpy(leaf) if isinstance(leaf, np.ndarray) else leaf for leaf in leaves]
        self.tensors = [leaf for leaf in self.leaves if isinstance(leaf, Tensor)]
        if not self.tensors:
            raise TypeError(f"accumulate: the batch holds no tensors (at {user_source()})")
        for tensor in self.tensors:
            if tensor.ndim == 0:
                raise ShapeError(
                    f"accumulate: a tensor of shape [] has no examples to divide (at {user_source()}); let loss_fn "
                    "take what is the same for all examples from outside of the batch"
                )
        self.axes = [normalize_axis(dim, tensor.ndim, "accumulate") for tensor in self.tensors]
        sizes = {tensor.shape[axis] for tensor, axis in zip(self.tensors, self.axes, strict=True)}
        if len(sizes) != 1:
            raise ShapeError(
                f"accumulate: the tensors of a batch must have one size along dim={dim}, got {sorted(sizes)} (at "
                f"{user_source()})"
            )
        #: how many examples there are
        (self.count,) = sizes

    def of(self, tensors: Sequence[Tensor]) -> Any:
        """A batch nested alike, of other tensors."""
        rest = iter(tensors)
        return unflatten(self.shape, [next(rest) if isinstance(leaf, Tensor) else leaf for leaf in self.leaves])

    def whole(self) -> list[Tensor]:
        """The batch in tensors of their own, so that it can be told from tensors that loss_fn has from elsewhere."""
        return [Tensor(identity(tensor.node)) for tensor in self.tensors]

    def between(self, start: int, stop: int) -> list[Tensor]:
        """The examples from `start` to `stop` (excluded), likewise; some twice where there are not so many."""
        return [
            Tensor(identity(self._cut(tensor, axis, start, stop)))
            for tensor, axis in zip(self.tensors, self.axes, strict=True)
        ]

    def _cut(self, tensor: Tensor, axis: int, start: int, stop: int) -> Node:
        if stop > self.count:
            tensor = cat([tensor] * -(-stop // self.count), axis)
        bounds = [(0, size) for size in tensor.shape]
        bounds[axis] = start, stop
        return slice_(tensor.node, tuple(bounds))

    def rows(self) -> list[Rows]:
        """How the examples lie in each tensor."""
        return [
            rows_at(tensor.shape, Place(axis - tensor.ndim, 1))
            for tensor, axis in zip(self.tensors, self.axes, strict=True)
        ]

    def bounds(self, parts: int) -> list[tuple[int, int]]:
        """Where each part starts and stops; sizes differ by one at most."""
        places = [self.count * number // parts for number in range(parts + 1)]
        return list(itertools.pairwise(places))
