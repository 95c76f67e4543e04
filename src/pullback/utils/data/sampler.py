"""The order in which a dataset is gone through.

A sampler takes one seed from its generator when it is asked for an order, and the order is a pure function of the seed.
So the same state of the generator gives the same order, whatever is drawn meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from ...ops.primitive import user_source
from ...tensor.creation import as_tensor, tensor
from ...tensor.draws import multinomial
from ...tensor.random import Generator, default_generator, randint
from .dataset import permutation

T = TypeVar("T", covariant=True)


class Sampler(Generic[T]):
    """The base of samplers: a subclass gives `__iter__`, over numbers of examples or lists of them."""

    def __iter__(self) -> Iterator[T]:
        raise NotImplementedError(f"{type(self).__name__} must define __iter__")


class SequentialSampler(Sampler[int]):
    """All examples in order."""

    def __init__(self, data_source: Any):
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


class RandomSampler(Sampler[int]):
    """All examples in random order, or `num_samples` of them: each once before any comes again, or with `replacement`
    each drawn from all.

    >>> list(pb.utils.data.RandomSampler(range(5), generator=pb.Generator(0)))
    [3, 0, 1, 4, 2]
    """

    def __init__(
        self,
        data_source: Any,
        replacement: bool = False,
        num_samples: int | None = None,
        generator: Generator | None = None,
    ):
        self.data_source, self.replacement, self._num_samples = data_source, replacement, num_samples
        self.generator = generator
        if not isinstance(replacement, bool):
            raise TypeError(f"RandomSampler: replacement must be a bool, got {replacement!r} (at {user_source()})")
        if num_samples is not None:
            _check_count("RandomSampler", "num_samples", num_samples)
        else:
            self._check_not_empty()

    def _check_not_empty(self) -> None:
        if not len(self.data_source):
            raise ValueError(
                f"RandomSampler: there is nothing to draw from: the dataset has no examples (at {user_source()})"
            )

    @property
    def num_samples(self) -> int:
        """How many are drawn."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def __iter__(self) -> Iterator[int]:
        return self._order(_own_generator(self.generator))

    def _order(self, generator: Generator) -> Iterator[int]:
        self._check_not_empty()
        count, wanted = len(self.data_source), self.num_samples
        if self.replacement:
            yield from randint(0, count, (wanted,), generator=generator).tolist()
            return
        while wanted > 0:
            yield from permutation(count, generator)[:wanted].tolist()
            wanted -= count

    def __len__(self) -> int:
        return self.num_samples


class SubsetRandomSampler(Sampler[int]):
    """The given numbers in random order."""

    def __init__(self, indices: Sequence[int], generator: Generator | None = None):
        self.indices, self.generator = indices, generator

    def __iter__(self) -> Iterator[int]:
        return self._order(_own_generator(self.generator))

    def _order(self, generator: Generator) -> Iterator[int]:
        for place in permutation(len(self.indices), generator).tolist():
            yield self.indices[place]

    def __len__(self) -> int:
        return len(self.indices)


class WeightedRandomSampler(Sampler[int]):
    """`num_samples` numbers, each drawn with a probability in proportion to its weight."""

    def __init__(
        self,
        weights: Sequence[float],
        num_samples: int,
        replacement: bool = True,
        generator: Generator | None = None,
    ):
        _check_count("WeightedRandomSampler", "num_samples", num_samples)
        if not isinstance(replacement, bool):
            raise TypeError(
                f"WeightedRandomSampler: replacement must be a bool, got {replacement!r} (at {user_source()})"
            )
        self.weights = as_tensor(weights) if hasattr(weights, "dtype") else tensor(np.asarray(weights, np.float64))
        if self.weights.ndim != 1:
            raise ValueError(
                f"WeightedRandomSampler: weights must have one axis, got the shape {list(self.weights.shape)} "
                f"(at {user_source()})"
            )
        self.num_samples, self.replacement, self.generator = num_samples, replacement, generator

    def __iter__(self) -> Iterator[int]:
        return self._order(_own_generator(self.generator))

    def _order(self, generator: Generator) -> Iterator[int]:
        yield from multinomial(self.weights, self.num_samples, self.replacement, generator=generator).tolist()

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler(Sampler[list[int]]):
    """The numbers of another sampler in lists of `batch_size`; the last may be shorter, unless `drop_last`.

    >>> list(pb.utils.data.BatchSampler(range(5), batch_size=2, drop_last=False))
    [[0, 1], [2, 3], [4]]
    """

    def __init__(self, sampler: Iterable[int], batch_size: int, drop_last: bool):
        _check_count("BatchSampler", "batch_size", batch_size)
        if not isinstance(drop_last, bool):
            raise ValueError(f"BatchSampler: drop_last must be a bool, got {drop_last!r} (at {user_source()})")
        self.sampler, self.batch_size, self.drop_last = sampler, batch_size, drop_last

    def __iter__(self) -> Iterator[list[int]]:
        return self._batches(iter(self.sampler))

    def _batches(self, numbers: Iterator[int]) -> Iterator[list[int]]:
        batch: list[int] = []
        for number in numbers:
            batch.append(number)
            if len(batch) == self.batch_size:
                yield batch
                batch = []
        if batch and not self.drop_last:
            yield batch

    def __len__(self) -> int:
        count = len(self.sampler)  # type: ignore[arg-type]
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)


def _own_generator(given: Generator | None) -> Generator:
    return Generator((given or default_generator())._split())


def _check_count(name: str, argument: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}: {argument} must be a positive int, got {value!r} (at {user_source()})")


__all__ = [
    "BatchSampler",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
    "SubsetRandomSampler",
    "WeightedRandomSampler",
]
