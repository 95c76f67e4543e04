"""Datasets and the batches that are drawn from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ..errors import ShapeError
from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.creation import as_tensor, tensor
from ..tensor.joining import stack
from ..tensor.random import Generator, randperm


class Dataset(Protocol):
    """What can be counted and read by number. A dataset with `take(numbers)` gives a whole batch at once."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Any: ...


class TensorDataset:
    """Tensors with one first axis: example i is the tuple of their slices i."""

    def __init__(self, *tensors: Tensor):
        if not tensors:
            raise ValueError(f"TensorDataset: no tensors given (at {user_source()})")
        if any(not t.shape or t.shape[0] != tensors[0].shape[0] for t in tensors):
            raise ShapeError(
                f"TensorDataset: the first axes must have one size, got shapes {[list(t.shape) for t in tensors]} "
                f"(at {user_source()})"
            )
        self.tensors = tensors

    def __len__(self) -> int:
        return self.tensors[0].shape[0]

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return tuple(t[index] for t in self.tensors)

    def take(self, numbers: np.ndarray) -> tuple[Tensor, ...]:
        """The examples of the given numbers as one batch."""
        index = tensor(numbers)
        return tuple(t[index] for t in self.tensors)


def default_collate(batch: Sequence[Any]) -> Any:
    """Examples as one batch: tensors, arrays and numbers stacked; tuples, lists and dicts part by part."""
    first = batch[0]
    if isinstance(first, Tensor):
        return stack(list(batch))
    if isinstance(first, np.ndarray):
        return stack([as_tensor(item) for item in batch])
    if isinstance(first, (bool, int, float, np.generic)):
        return tensor(batch)
    if isinstance(first, Mapping):
        return {key: default_collate([item[key] for item in batch]) for key in first}
    if isinstance(first, (tuple, list)):
        if any(len(item) != len(first) for item in batch):
            raise ShapeError(
                f"default_collate: examples have {sorted({len(item) for item in batch})} parts (at {user_source()})"
            )
        parts = [default_collate(part) for part in zip(*batch, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)
    if isinstance(first, str):
        return list(batch)
    raise TypeError(f"default_collate does not take {type(first).__name__} (at {user_source()}); pass collate_fn")


class DataLoader:
    """Batches of a dataset, in order or shuffled anew each time it is gone through, in this process.

    `generator` draws the order, so a seeded one repeats it. The last batch may be smaller, unless `drop_last`.

    >>> loader = pb.utils.data.DataLoader(pb.utils.data.TensorDataset(pb.arange(5)), batch_size=2)
    >>> [batch.tolist() for (batch,) in loader]
    [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        drop_last: bool = False,
        collate_fn: Callable[[Sequence[Any]], Any] | None = None,
        generator: Generator | None = None,
    ):
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"DataLoader: batch_size must be a positive int, got {batch_size!r} (at {user_source()})")
        self.dataset, self.batch_size, self.shuffle = dataset, batch_size, shuffle
        self.drop_last, self.collate_fn, self.generator = drop_last, collate_fn, generator

    def __len__(self) -> int:
        count = len(self.dataset)
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        count = len(self.dataset)
        order = randperm(count, generator=self.generator).numpy() if self.shuffle else np.arange(count)
        for number in range(len(self)):
            yield self._batch(order[number * self.batch_size : (number + 1) * self.batch_size])

    def _batch(self, numbers: np.ndarray) -> Any:
        take = getattr(self.dataset, "take", None)
        if self.collate_fn is None and take is not None:
            return take(numbers)
        collate = default_collate if self.collate_fn is None else self.collate_fn
        return collate([self.dataset[int(number)] for number in numbers])


__all__ = ["DataLoader", "Dataset", "TensorDataset", "default_collate"]
