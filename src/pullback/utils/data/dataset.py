"""Datasets: what can be read by number, or gone through once."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain
from typing import Any, Generic, TypeVar

import numpy as np

from ...errors import ShapeError
from ...ops.primitive import user_source
from ...tensor import Tensor
from ...tensor.creation import from_numpy, tensor
from ...tensor.random import Generator, default_generator, randperm

T = TypeVar("T", covariant=True)


class Dataset(Generic[T]):
    """The base of datasets that are read by number: a subclass gives `__getitem__` and, for most uses, `__len__`.

    Anything else with the two methods serves as well: a list, an array, a Hugging Face dataset. One with
    `__getitems__(numbers)`, which gives a list of examples, is asked for whole batches.
    """

    def __getitem__(self, index: int) -> T:
        raise NotImplementedError(f"{type(self).__name__} must define __getitem__")

    def __add__(self, other: Dataset[Any]) -> ConcatDataset:
        return ConcatDataset([self, other])


class IterableDataset(Dataset[T]):
    """The base of datasets that are gone through: a subclass gives `__iter__`.

    In worker processes each goes through a copy of it: divide the examples by `get_worker_info()`.
    """

    def __iter__(self) -> Iterator[T]:
        raise NotImplementedError(f"{type(self).__name__} must define __iter__")

    def __add__(self, other: Dataset[Any]) -> Any:
        return ChainDataset([self, other])


class ChainDataset(IterableDataset[Any]):
    """Datasets that are gone through, one after another."""

    def __init__(self, datasets: Iterable[Any]):
        self.datasets = list(datasets)
        if wrong := [type(d).__name__ for d in self.datasets if not isinstance(d, IterableDataset)]:
            raise TypeError(
                f"ChainDataset takes datasets that are gone through (IterableDataset), got {', '.join(wrong)} (at "
                f"{user_source()}); ConcatDataset takes those that are read by number"
            )

    def __iter__(self) -> Iterator[Any]:
        return chain.from_iterable(self.datasets)

    def __len__(self) -> int:
        return sum(len(dataset) for dataset in self.datasets)


class TensorDataset(Dataset[tuple[Tensor, ...]]):
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

    def _batch(self, numbers: np.ndarray) -> list[Tensor]:
        index = tensor(numbers)
        return [t[index] for t in self.tensors]


class ConcatDataset(Dataset[Any]):
    """Datasets one after another."""

    def __init__(self, datasets: Iterable[Any]):
        self.datasets = [as_dataset(dataset) for dataset in datasets]
        if not self.datasets:
            raise ValueError(f"ConcatDataset: no datasets given (at {user_source()})")
        if any(isinstance(dataset, IterableDataset) for dataset in self.datasets):
            raise TypeError(
                f"ConcatDataset does not take an IterableDataset, which has no numbers (at {user_source()})"
            )
        self.cumulative_sizes = list(accumulate(len(dataset) for dataset in self.datasets))

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]

    def __getitem__(self, index: int) -> Any:
        if not -len(self) <= index < len(self):
            raise IndexError(f"example {index} of a ConcatDataset of {len(self)}")
        index %= len(self)
        place = bisect_right(self.cumulative_sizes, index)
        return self.datasets[place][index - (self.cumulative_sizes[place - 1] if place else 0)]


class StackDataset(Dataset[Any]):
    """Datasets side by side: example i is the tuple of their examples i, or the dict of them where they have names.

    >>> both = pb.utils.data.StackDataset(x=range(3), y=["a", "b", "c"])
    >>> both[1]
    {'x': 1, 'y': 'b'}
    """

    def __init__(self, *args: Any, **kwargs: Any):
        if bool(args) == bool(kwargs):
            raise ValueError(
                f"StackDataset takes datasets by place or by name, got {len(args)} by place and {len(kwargs)} by name "
                f"(at {user_source()})"
            )
        self.datasets: Any = {name: as_dataset(d) for name, d in kwargs.items()} or tuple(map(as_dataset, args))
        sizes = [len(dataset) for dataset in self._each()]
        if len({*sizes}) > 1:
            raise ValueError(f"StackDataset: the datasets must have one length, got {sizes} (at {user_source()})")

    def _each(self) -> Iterable[Any]:
        return self.datasets.values() if isinstance(self.datasets, dict) else self.datasets

    def _of(self, parts: Iterable[Any]) -> Any:
        return dict(zip(self.datasets, parts, strict=True)) if isinstance(self.datasets, dict) else tuple(parts)

    def __len__(self) -> int:
        return len(next(iter(self._each())))

    def __getitem__(self, index: int) -> Any:
        return self._of(dataset[index] for dataset in self._each())

    def __getitems__(self, indices: list[int]) -> list[Any]:
        """The examples of several numbers, from datasets that give several at once where they do."""
        columns = []
        for dataset in self._each():
            together = getattr(dataset, "__getitems__", None)
            columns.append(together(indices) if callable(together) else [dataset[index] for index in indices])
        if any(len(column) != len(indices) for column in columns):
            raise ValueError(
                f"StackDataset: a dataset gave {[len(column) for column in columns]} examples for {len(indices)} "
                f"numbers (at {user_source()})"
            )
        return [self._of(parts) for parts in zip(*columns, strict=True)]


class Subset(Dataset[Any]):
    """The examples of a dataset that stand at `indices`."""

    def __init__(self, dataset: Any, indices: Sequence[int]):
        self.dataset, self.indices = as_dataset(dataset), indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, list):
            return self.__getitems__(index)
        return self.dataset[self.indices[index]]

    def __getitems__(self, indices: list[int]) -> list[Any]:
        """The examples of several numbers."""
        inner = [self.indices[index] for index in indices]
        together = getattr(self.dataset, "__getitems__", None)
        return list(together(inner)) if callable(together) else [self.dataset[index] for index in inner]

    def _batch(self, numbers: np.ndarray) -> Any:
        return batch_of(self.dataset, np.asarray([self.indices[int(number)] for number in numbers], np.int64))


def random_split(dataset: Any, lengths: Sequence[int | float], generator: Generator | None = None) -> list[Subset]:
    """Subsets of the given lengths that share no example, drawn at random. The lengths are numbers of examples, or
    fractions that add up to 1, whose remainder is dealt out from the first on.

    >>> [len(part) for part in pb.utils.data.random_split(range(10), [0.7, 0.3])]
    [7, 3]
    """
    dataset = as_dataset(dataset)
    count, sizes = len(dataset), list(lengths)
    if math.isclose(sum(sizes), 1):
        if not all(0 <= size <= 1 for size in sizes):
            raise ValueError(f"random_split: fractions must be from 0 to 1, got {lengths} (at {user_source()})")
        floors = [math.floor(count * size) for size in sizes]
        rest = count - sum(floors)
        sizes = [size + (place < rest) for place, size in enumerate(floors)]
    if sum(sizes) != count:
        raise ValueError(
            f"random_split: the lengths {lengths} add up to {sum(sizes)}, but there are {count} examples "
            f"(at {user_source()})"
        )
    order = permutation(count, Generator((generator or default_generator())._split()))
    ends = list(accumulate(int(size) for size in sizes))
    return [Subset(dataset, order[end - int(size) : end].tolist()) for end, size in zip(ends, sizes, strict=True)]


def as_dataset(dataset: Any) -> Any:
    """The dataset of what is given: of an Arrow table its rows."""
    if type(dataset).__module__.partition(".")[0] != "pyarrow":
        return dataset
    from .files import TableDataset, is_table

    return TableDataset(dataset) if is_table(dataset) else dataset


def gives_tables(dataset: Any) -> bool:
    """Whether it is a Hugging Face dataset in Arrow's format, of which several rows are a table."""
    kind = type(dataset)
    is_theirs = kind.__name__ == "Dataset" and kind.__module__.partition(".")[0] == "datasets"
    return is_theirs and dataset.format["type"] == "arrow"


def permutation(count: int, generator: Generator) -> np.ndarray:
    """The whole numbers below `count` in random order, int64."""
    return np.array(randperm(count, generator=generator).numpy())


def batch_of(dataset: Any, numbers: np.ndarray) -> Any:
    """The examples of the given numbers as one batch, where the dataset has a quicker way to it than one by one; else
    NotImplemented.
    """
    if isinstance(dataset, Tensor):
        return dataset[tensor(numbers)]
    if type(dataset) in (np.ndarray, np.memmap) and dataset.dtype.kind in "biuf":
        return from_numpy(np.asarray(dataset[numbers]))
    if gives_tables(dataset):
        return as_dataset(dataset[numbers.tolist()])._batch(np.arange(len(numbers)))
    own = getattr(dataset, "_batch", None) if type(dataset).__module__.startswith(_OWN) else None
    return NotImplemented if own is None else own(numbers)


_OWN = __name__.rpartition(".")[0]

__all__ = [
    "ChainDataset",
    "ConcatDataset",
    "Dataset",
    "IterableDataset",
    "StackDataset",
    "Subset",
    "TensorDataset",
    "as_dataset",
    "batch_of",
    "gives_tables",
    "permutation",
    "random_split",
]
