"""DataLoader: batches of a dataset, in this process or made ahead by workers, from any position of an epoch on."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from ...errors import StateDictError
from ...graph.node import Source
from ...graph.types import int64
from ...ops.primitive import user_source
from ...tensor.creation import tensor
from ...tensor.random import Generator, default_generator
from .collate import default_collate as default_collate
from .dataset import IterableDataset, as_dataset
from .sampler import BatchSampler, RandomSampler, SequentialSampler
from .serving import END, REDUCERS, Batches, Begin, Failed, Make, OwnDraws, mark_of, serve, shards_of

if TYPE_CHECKING:
    from ...workers import Pool

#: batches that each worker makes ahead, where nothing else is asked for
_PREFETCH = 2


@dataclass
class _Position:
    """How far an epoch has come: what its generators were at its start, and how many batches were given."""

    generators: list[list[int]]
    seed: int = 0
    batches: int = 0
    #: of an iterable dataset: batches given by each worker, and whose turn it is
    workers: list[int] = field(default_factory=list)
    turn: int = 0
    #: whether the dataset draws, as far as that is known where there are no workers
    draws: bool | None = None
    #: of an iterable dataset: what the last batch of each worker, or of the loader itself, is known by
    marks: list[str] = field(default_factory=list)
    #: the line of the loop
    line: Source | None = None


class DataLoader:
    """Batches of a dataset, in order, shuffled, or as a sampler says, as PyTorch's.

    `dataset` is anything with `__len__` and `__getitem__` (lists, NumPy arrays, memory-mapped files, Hugging Face
    datasets), an Arrow table, or an IterableDataset. The order of an epoch is a pure function of the state that
    `generator`, by default the default one, has at its beginning, whatever the number of workers.

    `num_workers` processes make `prefetch_factor` batches each ahead. They are started by forkserver, so the dataset
    and the functions must be found by import, and a script starts them under `if __name__ == "__main__":`;
    `multiprocessing_context` ("fork", "spawn", a context) says otherwise. An error in a worker is raised here in its
    class, with its traceback and the sample; WorkerError where a worker died, or took longer than `timeout` seconds (0:
    no limit). After an error of a sample the next batch can be asked for, with and without workers.

    While a batch is made, in a worker or here, the dataset has the generators to itself (Pullback's, NumPy's and
    Python's global ones), seeded by the epoch's seed and the batch's number: what it draws is the same for any number
    of workers and after a resume, and the training's own draws go on as if it had drawn nothing. Without workers a
    dataset that draws nothing for the first batch of an epoch is taken to draw nothing, and is left alone.

    `state_dict()` is the position: after `load_state_dict` the next epoch that is begun goes on with the batch after
    the last that was given. `epoch` counts the epochs that came to their end, or were left for another.

    `pin_memory` does nothing, as in PyTorch where there is no accelerator, and warns. `in_order` takes the one value
    that there is here; False raises ValueError with the reason.

    >>> loader = pb.utils.data.DataLoader(pb.utils.data.TensorDataset(pb.arange(5)), batch_size=2)
    >>> [batch.tolist() for (batch,) in loader]
    [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Iterable[Any] | None = None,
        batch_sampler: Iterable[Any] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[Any], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], Any] | None = None,
        multiprocessing_context: Any = None,
        generator: Generator | None = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        in_order: bool = True,
    ):
        self.dataset = as_dataset(dataset)
        by_number = all(hasattr(self.dataset, name) for name in ("__getitem__", "__len__"))
        self._iterable = isinstance(dataset, IterableDataset) or (hasattr(dataset, "__iter__") and not by_number)
        _check_processes(num_workers, timeout, prefetch_factor, persistent_workers)
        shards = shards_of(self.dataset)
        if shards is not None and num_workers > shards:
            warnings.warn(
                f"DataLoader: the dataset has {_count(shards, 'shard')}, so that of {num_workers} workers "
                f"{num_workers - shards} will have nothing to do",
                stacklevel=2,
            )
        if pin_memory:
            warnings.warn("DataLoader: pin_memory does nothing: there is no other device to copy to", stacklevel=2)
        _check_one_value("in_order", in_order, True, "the order would depend on how fast each worker is")
        self._check_order(batch_size, shuffle, sampler, batch_sampler, drop_last)
        self.num_workers, self.timeout, self.prefetch_factor = num_workers, timeout, prefetch_factor
        self.persistent_workers, self.worker_init_fn = persistent_workers, worker_init_fn
        self.multiprocessing_context, self.generator, self.collate_fn = multiprocessing_context, generator, collate_fn
        if sampler is None and not self._iterable:
            sampler = RandomSampler(self.dataset, generator=generator) if shuffle else SequentialSampler(self.dataset)
        self.sampler = sampler
        if batch_sampler is not None:
            batch_size, drop_last = None, False
        elif batch_size is not None and sampler is not None:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.batch_size, self.batch_sampler, self.drop_last = batch_size, batch_sampler, drop_last
        #: epochs that came to their end, or were left for another
        self.epoch = 0
        self._position: _Position | None = None
        self._resume: _Position | None = None
        self._pool: Pool | None = None

    def _check_order(self, batch_size: Any, shuffle: Any, sampler: Any, batch_sampler: Any, drop_last: Any) -> None:
        where = f"(at {user_source()})"
        if shuffle not in (None, True, False):
            raise ValueError(f"DataLoader: shuffle must be True, False or None, got {shuffle!r} {where}")
        if self._iterable and (shuffle or sampler is not None or batch_sampler is not None):
            raise ValueError(
                f"DataLoader: an iterable dataset has its own order: shuffle, sampler and batch_sampler do not go with "
                f"it {where}"
            )
        if sampler is not None and shuffle:
            raise ValueError(f"DataLoader: sampler option is mutually exclusive with shuffle {where}")
        if batch_sampler is not None and (batch_size != 1 or shuffle or sampler is not None or drop_last):
            raise ValueError(
                "DataLoader: batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, and "
                f"drop_last {where}"
            )
        if batch_size is None and drop_last:
            raise ValueError(f"DataLoader: batch_size=None makes no batches, of which drop_last could drop one {where}")
        if batch_size is not None and (
            isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1
        ):
            raise ValueError(f"DataLoader: batch_size must be a positive int or None, got {batch_size!r} {where}")

    def __len__(self) -> int:
        if not self._iterable:
            return len(self._order())  # type: ignore[arg-type]
        count = len(self.dataset)
        if self.batch_size is None:
            return count
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)

    def _order(self) -> Iterable[Any]:
        """What gives the numbers of a batch, or of an example where no batches are made."""
        order = self.sampler if self.batch_sampler is None else self.batch_sampler
        assert order is not None
        return order

    @property
    def _batches(self) -> Batches:
        size = self.batch_size if self.batch_sampler is None else 1  # its own sizes
        return Batches(self.dataset, size, self.drop_last, self.collate_fn)

    # ---- an epoch

    def __iter__(self) -> Iterator[Any]:
        if self._position is not None:
            self.epoch += 1
        resumed, self._resume = self._resume, None
        generators = self._generators()
        now = _states(generators)
        self._position = position = resumed or _Position(now)
        if resumed is not None:
            _set_states(generators, resumed.generators)
        order = iter(()) if self._iterable else iter(self._order())
        position.seed = (self.generator or default_generator())._split()
        position.line = user_source()
        if resumed is not None:
            if not self._iterable:
                deque(islice(order, resumed.batches), maxlen=0)
            _set_states(generators, now)
        return _Epoch(self, position, self._source(position, order))

    def _source(self, position: _Position, order: Iterator[Any]) -> Iterator[Any]:
        if self.num_workers:
            return self._from_workers(position, order)
        return self._in_line(position) if self._iterable else self._here(position, order)

    def _has_ended(self, position: _Position) -> None:
        """Count an epoch that has come to its end."""
        if self._position is position:
            self._position = None
            self.epoch += 1

    def _here(self, position: _Position, order: Iterator[Any]) -> Iterator[Any]:
        batches, draws = self._batches, OwnDraws(position.seed, "", position.draws)
        for batch, numbers in enumerate(order, position.batches):
            try:
                with draws.of(batch):
                    made = batches.at(numbers)
            except Exception as error:
                made = Failed(error)
            position.draws = draws.are_made
            yield made

    def _in_line(self, position: _Position) -> Iterator[Any]:
        batches, draws = self._batches, OwnDraws(position.seed, 0)
        with draws.of(-1):
            examples = iter(self.dataset)
        for number in range(position.batches - 1):
            with draws.of(number):  # the first one whole, since whether anything is drawn is told from it
                batches.skip(examples) if number else batches.following(examples, number)
        if position.batches:
            with draws.of(position.batches - 1):
                last = batches.following(examples, position.batches - 1)
            _check_same(mark_of(last), position.marks[0], position.batches)
        while True:
            try:
                with draws.of(position.batches):
                    batch = batches.following(examples, position.batches)
            except Exception as error:
                yield Failed(error)
                continue
            if isinstance(batch, str) and batch == END:
                return
            position.marks = [mark_of(batch)]
            yield batch

    # ---- workers

    def _from_workers(self, position: _Position, order: Iterator[Any]) -> Iterator[Any]:
        # what it imports would take a loader without workers longer than its first epoch
        from ...workers import Pool

        pool = self._pool or Pool(
            self.num_workers,
            serve,
            (self.num_workers, self._batches, self._iterable, self.worker_init_fn),
            REDUCERS,
            self.multiprocessing_context,
            self.timeout,
        )
        if self.persistent_workers:
            self._pool = pool
        try:
            self._begin(pool, position)
            yield from self._in_turn(pool, position) if self._iterable else self._by_number(pool, position, order)
        finally:
            if pool is not self._pool:
                pool.close()

    def _begin(self, pool: Pool, position: _Position) -> None:
        """Have all workers begin the epoch, once they have answered what an epoch that was left had asked for."""
        position.workers = position.workers or [0] * self.num_workers
        position.marks = position.marks or [""] * self.num_workers
        for worker in range(self.num_workers):
            while pool.waiting(worker):
                pool.discard(worker)
            skip = position.workers[worker] if self._iterable else 0
            pool.submit(worker, Begin(position.seed, skip, position.line))
        for worker in range(self.num_workers):
            mark = pool.receive(worker, lambda request: "the beginning of an epoch")
            _check_same(mark, position.marks[worker], position.workers[worker])

    def _by_number(self, pool: Pool, position: _Position, order: Iterator[Any]) -> Iterator[Any]:
        """Batch i is made by worker i modulo their number, and batches are given in order."""
        numbered = enumerate(order, position.batches)
        asked: deque[int] = deque()

        def ask(count: int) -> None:
            for batch, numbers in islice(numbered, count):
                pool.submit(batch % self.num_workers, Make(batch, numbers))
                asked.append(batch)

        ask(self.num_workers * (self.prefetch_factor or _PREFETCH))
        while asked:
            self._check_current(position)
            made = pool.receive(asked.popleft() % self.num_workers, str, Failed)
            ask(1)
            yield made

    def _in_turn(self, pool: Pool, position: _Position) -> Iterator[Any]:
        """Each worker in turn gives a batch of its part of an iterable dataset, until all have come to their ends."""
        asked = list(position.workers)

        def ask(worker: int) -> None:
            pool.submit(worker, Make(asked[worker], None))
            asked[worker] += 1

        turns = deque(range(self.num_workers))
        turns.rotate(-position.turn)
        for worker in turns:
            for _ in range(self.prefetch_factor or _PREFETCH):
                ask(worker)
        while turns:
            self._check_current(position)
            worker = turns[0]
            made = pool.receive(worker, str, Failed)
            if isinstance(made, str) and made == END:
                turns.popleft()
                continue
            ask(worker)
            turns.rotate(-1)
            if isinstance(made, Failed):
                yield made
                continue
            position.workers[worker] += 1
            position.turn = turns[0]
            position.marks[worker] = mark_of(made)
            yield made

    def _check_current(self, position: _Position) -> None:
        if self.persistent_workers and self._position is not position:
            raise RuntimeError("the workers of this DataLoader have begun another epoch: go through one at a time")

    # ---- the position

    def _generators(self) -> list[Generator]:
        """The default generator, and those that the loader and its samplers have of their own."""
        holders = [self, self.sampler, self.batch_sampler, getattr(self.batch_sampler, "sampler", None)]
        found = [default_generator()]
        for generator in (getattr(holder, "generator", None) for holder in holders):
            if isinstance(generator, Generator) and all(generator is not other for other in found):
                found.append(generator)
        return found

    def _shape(self) -> dict[str, Any]:
        length = len(self.dataset) if hasattr(self.dataset, "__len__") else None
        return {"batch_size": self.batch_size, "drop_last": self.drop_last, "length": length}

    def state_dict(self) -> dict[str, Any]:
        """The position: how many epochs have ended and how many batches of the present one were given, with what makes
        its order. The state of the default generator is not part of it (a Checkpointer saves it).
        """
        position = self._resume or self._position
        state: dict[str, Any] = {
            "epoch": self.epoch,
            "batches": 0,
            "start": None,
            "generators": _states(self._generators()[1:]),
            **self._shape(),
        }
        if position is not None:
            start = {
                "generators": position.generators,
                "workers": list(position.workers),
                "turn": position.turn,
                "marks": list(position.marks),
                "draws": position.draws,
            }
            state.update(batches=position.batches, start=start)
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Have the next epoch that is begun go on from a position. StateDictError, with nothing changed, where it is
        one in another dataset, in batches of another size, or, of an iterable dataset that has given a batch, by
        another number of workers.
        """
        if not isinstance(state_dict, Mapping) or not state_dict.keys() >= _KEYS:
            raise StateDictError(f"this is not the position of a DataLoader (at {user_source()})")
        start = state_dict["start"]
        own = self._generators()[1:]
        faults = [
            f"{name} was {state_dict[name]!r} and is {now!r}"
            for name, now in self._shape().items()
            if state_dict[name] != now
        ]
        if len(state_dict["generators"]) != len(own):
            faults.append("the loader and its samplers have other generators of their own")
        is_begun = self._iterable and bool(state_dict["batches"])  # else it is no worker's
        if start and is_begun and len(start["workers"]) != self.num_workers:
            faults.append(f"num_workers was {len(start['workers'])} and is {self.num_workers}")
        if faults:
            raise StateDictError(f"the position does not fit this DataLoader (at {user_source()}): {'; '.join(faults)}")
        _set_states(own, state_dict["generators"])
        self.epoch, self._position = int(state_dict["epoch"]), None
        self._resume = start and _Position(
            [list(pair) for pair in start["generators"]],
            0,
            int(state_dict["batches"]),
            list(start["workers"]) if is_begun else [],
            start["turn"] if is_begun else 0,
            start.get("draws"),
            list(start["marks"]) if is_begun else [],
        )


class _Epoch(Iterator[Any]):
    """Goes through an epoch. Where an example raises, the next batch can be asked for, as in PyTorch; of what is read
    by number the one that failed counts as given.
    """

    def __init__(self, loader: DataLoader, position: _Position, source: Iterator[Any]):
        self._loader, self._position, self._source = loader, position, source

    def __next__(self) -> Any:
        try:
            batch = next(self._source)
        except StopIteration:
            self._loader._has_ended(self._position)
            raise
        if not isinstance(batch, Failed):
            self._position.batches += 1
            return batch
        self._position.batches += not self._loader._iterable
        raise batch.error


#: what is in a position
_KEYS = {"epoch", "batches", "start", "generators", "batch_size", "drop_last", "length"}


def _check_same(mark: str, expected: str, batches: int) -> None:
    """The last batch that is left out must be the one that was given."""
    if mark != expected:
        raise StateDictError(
            f"the dataset does not give the same examples again: batch {batches} is another than before. An "
            "IterableDataset must take its order from the global generators (of Pullback, NumPy and Python), which are "
            "seeded before each batch, or from one that it makes in __iter__"
        )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _states(generators: list[Generator]) -> list[list[int]]:
    return [generator.get_state().tolist() for generator in generators]


def _set_states(generators: list[Generator], states: list[list[int]]) -> None:
    for generator, state in zip(generators, states, strict=True):
        generator.set_state(tensor(state, dtype=int64))


def _check_processes(num_workers: Any, timeout: Any, prefetch_factor: Any, persistent_workers: Any) -> None:
    where = f"(at {user_source()})"
    if isinstance(num_workers, bool) or not isinstance(num_workers, int) or num_workers < 0:
        raise ValueError(f"DataLoader: num_workers must be a non-negative int, got {num_workers!r} {where}")
    if not timeout >= 0:
        raise ValueError(f"DataLoader: timeout must be non-negative, got {timeout!r} {where}")
    if num_workers == 0 and (prefetch_factor is not None or persistent_workers or timeout):
        raise ValueError(
            "DataLoader: prefetch_factor, persistent_workers and timeout are about worker processes: set num_workers "
            f"above 0 {where}"
        )
    if prefetch_factor is not None and (type(prefetch_factor) is not int or prefetch_factor < 1):
        raise ValueError(f"DataLoader: prefetch_factor must be a positive int, got {prefetch_factor!r} {where}")


def _check_one_value(name: str, value: Any, only: bool, reason: str) -> None:
    if value is not only:
        raise ValueError(f"DataLoader: {name} can only be {only}: {reason} (at {user_source()})")


__all__ = ["DataLoader"]
