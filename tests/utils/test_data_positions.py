"""The position in an epoch: a loader goes on exactly where another stopped, with workers and without."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pullback as pb
from data_examples import Numbers, Stream
from pullback.errors import StateDictError

data = pb.utils.data


def stopped(loader: Any, batches: int) -> tuple[Any, Iterator[Any]]:
    """The position after so many batches, as a file keeps it, and the iterator."""
    iterator = iter(loader)
    for _ in range(batches):
        next(iterator)
    pb.save(loader.state_dict(), "position.safetensors")
    return pb.load("position.safetensors"), iterator


def values(batches: Any) -> list[Any]:
    return [
        {
            key: value.tolist() if isinstance(value, pb.Tensor) else [v.tolist() for v in value]
            for key, value in b.items()
        }
        for b in batches
    ]


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("kind", ["shuffle", "weighted", "sequential"])
def test_a_position_is_exact(kind: str, own: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def make(seed: int) -> Any:
        generator = pb.Generator(seed) if own else pb.manual_seed(seed) and None
        order: dict[str, Any] = {
            "shuffle": {"shuffle": True},
            "weighted": {"sampler": data.WeightedRandomSampler([1.0] * 10, 10, generator=generator)},
            "sequential": {},
        }[kind]
        return data.DataLoader(range(10), batch_size=3, generator=generator, **order)

    loader = make(1)
    list(loader)
    for batches in (0, 1, 3, 4):
        state, iterator = stopped(loader, batches)
        pb.rand(3).tolist()  # as dropout does meanwhile
        default = pb.get_rng_state()
        rest = [batch.tolist() for batch in iterator]
        following = [batch.tolist() for batch in loader]
        other = make(2)
        other.load_state_dict(state)
        assert other.state_dict() == state
        assert other.epoch == state["epoch"]
        pb.set_rng_state(default)
        assert [batch.tolist() for batch in other] == rest
        assert [batch.tolist() for batch in other] == following
        assert (len(rest), len(following)) == (4 - batches, 4)


def test_what_a_dataset_draws_is_exact_without_workers_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what the training draws is what it would be with a dataset that draws nothing."""
    monkeypatch.chdir(tmp_path)

    def make() -> Any:
        return data.DataLoader(Numbers(11), batch_size=3, shuffle=True, generator=pb.Generator(5))

    states = random.getstate(), np.random.get_state()[1].tolist(), pb.get_rng_state().tolist()
    loader = make()
    list(loader)
    state, iterator = stopped(loader, 2)
    assert (random.getstate(), np.random.get_state()[1].tolist(), pb.get_rng_state().tolist()) == states
    rest, following = values(iterator), values(loader)
    random.seed(1), np.random.seed(2), pb.manual_seed(3)
    other = make()
    other.load_state_dict(state)
    assert values(other) == rest and values(other) == following


def test_epochs_are_counted() -> None:
    loader = data.DataLoader(range(4), batch_size=2)
    assert (loader.epoch, loader.state_dict()["batches"]) == (0, 0)
    list(loader)
    assert loader.epoch == 1
    next(iter(loader))
    assert (loader.epoch, loader.state_dict()["batches"]) == (1, 1)
    list(loader)
    assert loader.epoch == 3


def test_a_position_elsewhere_is_refused() -> None:
    state = data.DataLoader(range(10), batch_size=3).state_dict()
    with pytest.raises(StateDictError, match="batch_size was 3 and is 2; length was 10 and is 9"):
        data.DataLoader(range(9), batch_size=2).load_state_dict(state)
    with pytest.raises(StateDictError, match="other generators of their own"):
        data.DataLoader(range(10), batch_size=3, generator=pb.Generator(0)).load_state_dict(state)


def test_the_position_of_an_iterable_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    state, iterator = stopped(data.DataLoader(Stream(7), batch_size=2), 2)
    other = data.DataLoader(Stream(7), batch_size=2)
    other.load_state_dict(state)
    assert [b[0].tolist() for b in other] == [b[0].tolist() for b in iterator] == [[4, 5], [6]]


class Shuffled(data.IterableDataset[Any]):
    """Examples in a random order, of the global generators or of one that outlives the epoch."""

    def __init__(self, generator: random.Random | None = None):
        self.generator = generator

    def __iter__(self) -> Iterator[Any]:
        numbers = list(range(12))
        (self.generator or random).shuffle(numbers)
        for number in numbers:
            yield number, np.random.random(), pb.rand(()).item()


def test_an_iterable_dataset_with_an_order_of_its_own_goes_on_exactly_or_is_refused() -> None:
    def given(loader: Any) -> Any:
        for batch in loader:
            random.random(), np.random.random(), pb.rand(3).sum().item()  # as a training draws
            yield [part.tolist() for part in batch]

    first = data.DataLoader(Shuffled(), 3)
    epoch = given(first)
    assert next(epoch) != next(epoch)
    state, rest = first.state_dict(), list(epoch)
    assert len(rest) == 2
    random.seed(5)
    pb.manual_seed(5)
    other = data.DataLoader(Shuffled(), 3)
    other.load_state_dict(state)
    assert list(given(other)) == rest

    generator = random.Random(0)
    loader = data.DataLoader(Shuffled(generator), 3)
    next(iter(loader))
    other = data.DataLoader(Shuffled(generator), 3)
    other.load_state_dict(loader.state_dict())
    with pytest.raises(StateDictError, match="does not give the same examples again: batch 1 "):
        next(iter(other))


def test_what_is_no_position_is_refused() -> None:
    for state in ({}, {"epoch": 1}, 3):
        with pytest.raises(StateDictError, match="not the position of a DataLoader"):
            data.DataLoader(range(4)).load_state_dict(state)  # type: ignore[arg-type]


def test_workers_give_the_same_batches_and_go_on_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def make(workers: int, persistent: bool = False) -> Any:
        return data.DataLoader(
            Numbers(23), 4, shuffle=True, num_workers=workers, generator=pb.Generator(3), persistent_workers=persistent
        )

    alone, loader = make(0), make(2, persistent=True)
    for _ in range(2):
        expected, found = values(alone), values(loader)
        assert found == expected  # what is drawn included
    state, iterator = stopped(loader, 2)
    rest, following = values(iterator), values(loader)
    drawn = [value for batch in found for value in batch["drawn"]]
    assert len({str(value) for value in drawn}) == len(drawn)
    # another number of workers, and of batches ahead: also what the dataset draws is the same
    for workers in (0, 1, 3):
        other = make(workers)
        other.load_state_dict(state)
        assert values(other) == rest
        assert values(other) == following
    first = next(iter(loader))
    assert first["tensor"].dtype is pb.bfloat16
    assert len(values(loader)) == 6  # the epoch that was left is no longer in the way


def test_workers_of_an_iterable_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def make() -> Any:
        return data.DataLoader(Stream(11), 2, num_workers=2, generator=pb.Generator(3), multiprocessing_context="fork")

    def pairs(batches: Any) -> list[Any]:
        return [(numbers.tolist(), drawn.tolist()) for numbers, drawn in batches]

    state, iterator = stopped(make(), 3)
    rest = pairs(iterator)
    assert [numbers for numbers, _ in rest] == [[5, 7], [8, 10], [9]]
    other = make()
    other.load_state_dict(state)
    assert pairs(other) == rest
    alone = data.DataLoader(Stream(11), 2, num_workers=1, generator=pb.Generator(3))
    with pytest.raises(StateDictError, match="num_workers was 2 and is 1"):
        alone.load_state_dict(state)
    # before the first batch nothing is any worker's yet
    begun, iterator = stopped(make(), 0)
    whole = pairs(iterator)
    other = make()
    other.load_state_dict(begun)
    assert pairs(other) == whole
    alone.load_state_dict(begun)
    assert len(list(alone)) == 6
