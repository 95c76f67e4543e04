"""How batches are made of a dataset, in this process or in a worker, and what a worker knows of itself."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from numpy.random.mtrand import get_bit_generator, set_bit_generator

from ...errors import GradientError
from ...graph.node import Source
from ...graph.types import DType, from_name
from ...nn import Parameter
from ...ops.primitive import MODE
from ...tensor import Tensor
from ...tensor.creation import from_stored
from ...tensor.random import default_generator, manual_seed
from ...trees import flatten
from .collate import default_collate, default_convert
from .dataset import batch_of


@dataclass
class WorkerInfo:
    """What a worker process knows: its number `id` among `num_workers`, the seed of its epoch, and its copy of the
    dataset.
    """

    id: int
    num_workers: int
    seed: int
    dataset: Any


_info: WorkerInfo | None = None


def get_worker_info() -> WorkerInfo | None:
    """In a worker process of a DataLoader what it knows of itself, elsewhere None.

    >>> pb.utils.data.get_worker_info() is None
    True
    """
    return _info


#: what a worker answers when its part of an iterable dataset has come to its end
END = "end"


@dataclass(frozen=True)
class Batches:
    """Makes batches of a dataset: of the numbers of examples, or one after another where it is iterable.

    Without `size` there are no batches, only examples. `collate` None stands for the default.
    """

    dataset: Any
    size: int | None
    drop_last: bool
    collate: Callable[[Any], Any] | None

    def at(self, numbers: Any) -> Any:
        """The batch of a list of numbers, or the example of one."""
        if self.size is None:
            example = self._example(numbers)
            with _telling(f"sample {numbers!r} of the dataset was converted"):
                return self._converted(example)
        if self.collate is None and _are_numbers(numbers):
            with _telling(f"the samples {_some(numbers)} of the dataset were read"):
                quick = batch_of(self.dataset, np.asarray(numbers, np.int64))
            if quick is not NotImplemented:
                return quick
        examples = self._examples(numbers)
        with _telling(f"the samples {_some(numbers)} of the dataset were made a batch"):
            return self._collated(examples)

    def _examples(self, numbers: Sequence[Any]) -> list[Any]:
        together = getattr(self.dataset, "__getitems__", None)
        if not callable(together):
            return [self._example(number) for number in numbers]
        with _telling(f"the samples {_some(numbers)} of the dataset were read"):
            return list(together(list(numbers)))

    def _example(self, number: Any) -> Any:
        with _telling(f"sample {number!r} of the dataset was read"):
            return self.dataset[number]

    def following(self, examples: Iterator[Any], batch: int) -> Any:
        """The next batch, of that number, of an iterator over the dataset; END where there is none."""
        with _telling(f"batch {batch} of the dataset was made"):
            if self.size is None:
                for example in examples:
                    return self._converted(example)
                return END
            taken = list(islice(examples, self.size))
            if not taken or (self.drop_last and len(taken) < self.size):
                return END
            return self._collated(taken)

    def skip(self, examples: Iterator[Any]) -> None:
        """Go on by a batch."""
        for _ in islice(examples, self.size or 1):
            pass

    def _collated(self, examples: list[Any]) -> Any:
        return default_collate(examples) if self.collate is None else self.collate(examples)

    def _converted(self, example: Any) -> Any:
        return default_convert(example) if self.collate is None else self.collate(example)


class _telling:
    """Have an exception that comes from inside say what was done. One that says that there are no more examples would
    end the epoch in silence, as it does in PyTorch.
    """

    def __init__(self, what: str):
        self.what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if isinstance(error, StopIteration):
            raise RuntimeError(f"StopIteration was raised while {self.what}") from error
        if isinstance(error, Exception):
            error.add_note(f"while {self.what}")


class Failed(NamedTuple):
    """In the place of a batch that could not be made."""

    error: Exception


def _are_numbers(numbers: Any) -> bool:
    return all(isinstance(number, (int, np.integer)) and not isinstance(number, bool) for number in numbers)


def _some(numbers: Sequence[Any]) -> str:
    shown = ", ".join(map(repr, numbers[:8]))
    return shown if len(numbers) <= 8 else f"{shown}, … ({len(numbers)} in all)"


# ---- what is drawn, and what comes of it


def set_seeds(epoch: int, whose: object, batch: int) -> None:
    """Make what is drawn for a batch a pure function of the epoch's seed, the worker (where the batch is its own) and
    the batch: the same after a resume, and for any number of workers.
    """
    seed = int.from_bytes(hashlib.sha256(f"batch {epoch} {whose} {batch}".encode()).digest()[:7], "little")
    manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


class OwnDraws:
    """The global generators as a dataset without workers has them to itself: seeded for each batch of an epoch as a
    worker's are, while those of the training go on as if nothing had been drawn.

    A dataset that has drawn nothing when its first batch is made is taken to draw nothing, and is left alone. Where
    that is known beforehand, as of an epoch that goes on, `are_made` says so.
    """

    def __init__(self, epoch: int, whose: object, are_made: bool | None = None):
        self.epoch, self.whose = epoch, whose
        self._draws, self._is_known = bool(are_made), are_made is not None
        self._of_numpy = np.random.MT19937(0)

    @contextmanager
    def of(self, batch: int) -> Iterator[None]:
        """Inside, what is drawn is drawn for this batch; -1 is the beginning of the epoch."""
        if self._is_known and not self._draws:
            yield
            return
        generator = default_generator()
        kept, plain, of_numpy = generator.state.node, random.getstate(), get_bit_generator()
        set_bit_generator(self._of_numpy)
        set_seeds(self.epoch, self.whose, batch)
        before = None if self._is_known else self._states()
        try:
            yield
            if before is not None:
                self._draws = self._draws or self._states() != before
                self._is_known = batch >= 0
        finally:
            generator.state._rebind(kept)
            random.setstate(plain)
            set_bit_generator(of_numpy)

    @property
    def are_made(self) -> bool | None:
        """Whether the dataset draws; None where no batch has been made."""
        return self._draws if self._is_known else None

    def _states(self) -> tuple[object, ...]:
        inner = self._of_numpy.state["state"]
        return default_generator().get_state().tolist(), random.getstate(), inner["pos"], inner["key"].tobytes()


#: about how many elements of each array of a batch it is known again by
_MARKED = 64


def mark_of(batch: Any) -> str:
    """By which a batch is known again: its structure, its texts and numbers, and some elements of its arrays."""
    leaves, structure = flatten(batch)
    digest = hashlib.sha256(repr(structure).encode())
    for leaf in leaves:
        array = leaf._array() if isinstance(leaf, Tensor) else leaf
        if isinstance(array, np.ndarray) and not array.dtype.hasobject:
            flat = array.reshape(-1)
            told: Any = array.shape, array.dtype.str, flat[:: max(1, flat.size // _MARKED)].tobytes()
        else:
            told = array if isinstance(array, (bool, int, float, str, bytes)) else type(array).__name__
        digest.update(repr(told).encode())
    return digest.hexdigest()[:16]


# ---- in a worker


@dataclass(frozen=True)
class Begin:
    """The request with which an epoch begins; a worker of an iterable dataset goes on after `skip` batches."""

    seed: int
    skip: int
    #: the line of the loop that the batches are for
    line: Source | None = None


@dataclass(frozen=True)
class Make:
    """The request for the batch of that number in the epoch: of the examples `numbers`, or the worker's next."""

    batch: int
    numbers: Any

    def __str__(self) -> str:
        if self.numbers is None:
            return f"its batch {self.batch}"
        numbers = self.numbers if isinstance(self.numbers, (list, tuple)) else [self.numbers]
        return f"batch {self.batch} (samples {_some(numbers)})"


class Server:
    """What a worker calls on every request."""

    def __init__(
        self, number: int, count: int, batches: Batches, iterable: bool, worker_init_fn: Callable[[int], Any] | None
    ):
        self.number, self.count, self.batches, self.iterable = number, count, batches, iterable
        self.worker_init_fn = worker_init_fn
        self._examples: Iterator[Any] = iter(())
        self._seed = 0

    def __call__(self, request: Any) -> Any:
        """The batch that is asked for."""
        if isinstance(request, Begin):
            return self._begin(request)
        self._set_seeds(request.batch)
        if self.iterable:
            return self.batches.following(self._examples, request.batch)
        return self.batches.at(request.numbers)

    def _begin(self, request: Begin) -> str:
        """Begin an epoch; of an iterable dataset that goes on, the mark of the last batch that is left out."""
        global _info
        self._seed, MODE.outermost = request.seed, request.line
        first = _info is None
        _info = WorkerInfo(self.number, self.count, request.seed + self.number, self.batches.dataset)
        self._set_seeds(-1)
        if first and self.worker_init_fn is not None:
            self.worker_init_fn(self.number)
        if self.iterable:
            self._examples = iter(_part_of(self.batches.dataset, self.number, self.count))
            for batch in range(request.skip):
                self._set_seeds(batch)
                if batch == request.skip - 1:
                    return mark_of(self.batches.following(self._examples, batch))
                self.batches.skip(self._examples)
        return ""

    def _set_seeds(self, batch: int) -> None:
        set_seeds(self._seed, self.number if self.iterable or batch < 0 else "", batch)


def shards_of(dataset: Any) -> int | None:
    """Of an iterable dataset of Hugging Face, which divides itself among workers, how many parts it can make."""
    kind = type(dataset)
    is_theirs = kind.__module__.partition(".")[0] == "datasets" and kind.__name__.startswith("Iterable")
    return int(dataset.num_shards) if is_theirs else None


def _part_of(dataset: Any, worker: int, workers: int) -> Any:
    """What a worker goes through: all, which divides itself by `get_worker_info()`, or the part of it that is made."""
    shards = shards_of(dataset)
    if shards is None:
        return dataset
    return dataset.shard(min(workers, shards), worker, contiguous=False) if worker < shards else ()


def serve(number: int, *arguments: Any) -> Server:
    """A worker's server: what a pool of workers makes in each of them."""
    return Server(number, *arguments)


# ---- tensors on their way between processes


def _reduced(tensor: Tensor) -> Any:
    if tensor.requires_grad and not tensor.is_leaf:
        raise GradientError("a tensor with a history cannot be sent to another process: detach() it in the dataset")
    stored = np.array(tensor._array())
    return _restored, (stored, tensor.dtype.name, tensor.requires_grad, isinstance(tensor, Parameter))


def _restored(stored: np.ndarray, name: str, requires_grad: bool, is_parameter: bool) -> Tensor:
    dtype: DType = from_name(name)
    made = from_stored(stored, dtype)
    if is_parameter:
        return Parameter(made, requires_grad)
    return made.requires_grad_() if requires_grad else made


#: how tensors travel: as the NumPy array of what is stored
REDUCERS = {Tensor: _reduced, Parameter: _reduced}

__all__ = [
    "END", "REDUCERS", "Batches", "Begin", "Failed", "Make", "OwnDraws", "Server", "WorkerInfo", "get_worker_info",
    "mark_of", "serve", "set_seeds", "shards_of",
]  # fmt: skip
