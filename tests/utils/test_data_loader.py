"""Batches: how examples are put together, in which order they come, and what is told of errors."""

from collections import namedtuple
from typing import Any

import numpy as np
import pytest
import torch

import pullback as pb
from data_examples import Broken, Numbers, Stream
from pullback.errors import ShapeError

data = pb.utils.data


def test_batches_in_order() -> None:
    x, y = pb.arange(10).reshape(5, 2).float(), pb.arange(5)
    loader = data.DataLoader(data.TensorDataset(x, y), batch_size=2)
    batches = list(loader)
    assert len(loader) == len(batches) == 3
    assert [b.tolist() for _, b in batches] == [[0, 1], [2, 3], [4]]
    assert batches[1][0].tolist() == [[4.0, 5.0], [6.0, 7.0]]
    dropped = data.DataLoader(data.TensorDataset(x, y), batch_size=2, drop_last=True)
    assert len(dropped) == len(list(dropped)) == 2


# ---- collating


def test_collating_is_pytorchs() -> None:
    Point = namedtuple("Point", "x y")
    examples = [
        {"array": np.float32([i, i]), "int": i, "float": i / 2, "bool": i > 1, "text": str(i), "bytes": b"a",
         "tuple": (i, [np.float64(i)]), "point": Point(i, np.int8(i)), "tensor": i}
        for i in range(3)
    ]  # fmt: skip
    ours = data.default_collate([{**e, "tensor": pb.tensor(e["tensor"])} for e in examples])
    theirs = torch.utils.data.default_collate([{**e, "tensor": torch.tensor(e["tensor"])} for e in examples])

    def compare(a: Any, b: Any) -> None:
        if isinstance(a, pb.Tensor):
            assert a.tolist() == b.tolist()
            assert a.dtype.name == str(b.dtype).removeprefix("torch.")
        elif isinstance(a, dict):
            assert a.keys() == b.keys()
            for key in a:
                compare(a[key], b[key])
        else:
            assert type(a) is type(b)
            assert len(a) == len(b)
            for one, other in zip(a, b, strict=True):
                compare(one, other) if not isinstance(one, (str, bytes)) else None
            assert not isinstance(a[0], (str, bytes)) or a == b

    compare(ours, theirs)
    assert next(iter(data.DataLoader([1, 2, 3], batch_size=3, collate_fn=sum))) == 6


def test_examples_without_batches() -> None:
    loader = data.DataLoader([np.ones(2), (1, np.int64(2))], batch_size=None)
    first, second = loader
    assert (len(loader), first.tolist(), second[0], second[1].item()) == (2, [1, 1], 1, 2)


def test_collating_errors() -> None:
    with pytest.raises(TypeError, match="does not take set"):
        data.default_collate([{1}])
    with pytest.raises(TypeError, match=r"a value is missing: example 1 of the batch has None in \['x'\]\[0\]"):
        data.default_collate([{"x": (1.0, 2)}, {"x": (None, 2)}])
    with pytest.raises(ShapeError, match=r"equally many parts, got \[1, 2\]"):
        data.default_collate([(1,), (1, 2)])
    with pytest.raises(ShapeError, match=r"one shape, got \[\[1\], \[2\]\]"):
        data.default_collate([np.ones(1), np.ones(2)])


# ---- order


def test_samplers() -> None:
    def twice(make: Any) -> list[list[int]]:
        sampler = make(pb.Generator(5))
        orders = [list(sampler), list(sampler)]
        again = make(pb.Generator(5))
        assert orders == [list(again), list(again)]
        assert orders[0] != orders[1]
        assert all(len(order) == len(sampler) for order in orders)
        return orders

    for order in twice(lambda g: data.RandomSampler(range(50), generator=g)):
        assert sorted(order) == list(range(50))
    for order in twice(lambda g: data.RandomSampler(range(20), num_samples=50, generator=g)):
        assert sorted(order[:20]) == sorted(order[20:40]) == list(range(20))
        assert len(set(order[40:])) == 10
    for order in twice(lambda g: data.RandomSampler(range(50), True, 300, generator=g)):
        assert set(order) <= set(range(50))
        assert len(set(order)) > 40
    for order in twice(lambda g: data.SubsetRandomSampler([3, 7, 9, 11, 2, 5, 6, 8], generator=g)):
        assert sorted(order) == [2, 3, 5, 6, 7, 8, 9, 11]
    for order in twice(lambda g: data.WeightedRandomSampler([0, 1, 3, 0.0], 400, generator=g)):
        assert set(order) == {1, 2}
        assert 250 < order.count(2) < 350
    with pytest.raises(ValueError, match="the dataset has no examples"):
        data.RandomSampler([])
    with pytest.raises(ValueError, match="the dataset has no examples"):
        data.DataLoader(data.TensorDataset(pb.zeros(0, 3)), batch_size=2, shuffle=True)
    later: list[int] = []  # as a buffer that is filled by what is trained
    drawn = data.RandomSampler(later, num_samples=3)
    with pytest.raises(ValueError, match="the dataset has no examples"):
        list(drawn)
    later += [1, 2]
    assert len(list(drawn)) == 3
    assert list(data.DataLoader(data.TensorDataset(pb.zeros(0, 3)))) == []
    assert list(data.SequentialSampler("abc")) == [0, 1, 2]
    batches = data.BatchSampler(range(7), 3, drop_last=True)
    assert (list(batches), len(batches)) == ([[0, 1, 2], [3, 4, 5]], 2)


def test_shuffling_repeats_with_the_seed_and_covers_all() -> None:
    def order(seed: int) -> list[list[int]]:
        generator = pb.Generator(seed)
        loader = data.DataLoader(data.TensorDataset(pb.arange(20)), batch_size=6, shuffle=True, generator=generator)
        return [[i for (batch,) in loader for i in batch.tolist()] for _ in range(2)]

    first, second = order(1)
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second
    assert order(1) == [first, second]


def test_own_batches() -> None:
    loader = data.DataLoader(range(6), batch_sampler=[[5, 1], [2]])
    assert ([b.tolist() for b in loader], len(loader), loader.batch_size) == ([[5, 1], [2]], 2, None)


def test_an_iterable_dataset_has_its_own_order() -> None:
    for arguments in ({"shuffle": True}, {"sampler": [1]}, {"batch_sampler": [[1]]}):
        with pytest.raises(ValueError, match="an iterable dataset has its own order"):
            data.DataLoader(Stream(3), **arguments)  # type: ignore[arg-type]
    loader = data.DataLoader(Stream(5), batch_size=2, drop_last=True)
    assert (len(loader), [b[0].tolist() for b in loader]) == (2, [[0, 1], [2, 3]])
    with pytest.raises(TypeError, match="does not take an IterableDataset"):
        data.ConcatDataset([Stream(1)])


# ---- errors


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"batch_size": 0}, "batch_size must be a positive int or None, got 0"),
        ({"batch_size": True}, "batch_size must be a positive int"),
        ({"batch_size": None, "drop_last": True}, "batch_size=None makes no batches"),
        ({"shuffle": True, "sampler": [0]}, "sampler option is mutually exclusive with shuffle"),
        ({"batch_sampler": [[0]], "batch_size": 2}, "batch_sampler option is mutually exclusive"),
        ({"shuffle": 2}, "shuffle must be True, False or None"),
        ({"num_workers": -1}, "num_workers must be a non-negative int"),
        ({"timeout": -1, "num_workers": 1}, "timeout must be non-negative"),
        ({"prefetch_factor": 2}, "set num_workers above 0"),
        ({"prefetch_factor": 0, "num_workers": 1}, "prefetch_factor must be a positive int"),
        ({"persistent_workers": True}, "set num_workers above 0"),
        ({"in_order": False}, "in_order can only be True"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        data.DataLoader([1], **arguments)


def test_pinning_does_nothing_and_says_so() -> None:
    with pytest.warns(UserWarning, match="pin_memory does nothing"):
        loader = data.DataLoader([1, 2], batch_size=2, pin_memory=True)
    assert [batch.tolist() for batch in loader] == [[1, 2]]


def test_the_sample_of_an_error_is_named() -> None:
    with pytest.raises(KeyError) as caught:
        list(data.DataLoader(Numbers(5, {3: "error"}), batch_size=2))
    assert caught.value.__notes__ == ["while sample 3 of the dataset was read"]
    with pytest.raises(RuntimeError, match="StopIteration was raised while sample 3 of the dataset was read"):
        list(data.DataLoader(Numbers(5, {3: "stop"}), batch_size=2))
    with pytest.raises(ShapeError) as unequal:
        list(data.DataLoader([pb.ones(1), pb.ones(1), pb.ones(1), pb.ones(2)], batch_size=2))
    assert unequal.value.__notes__ == ["while the samples 2, 3 of the dataset were made a batch"]


def _all_that_comes(loader: Any) -> list[Any]:
    """Its batches, and "error" where one failed."""
    batches, found = iter(loader), []
    while True:
        try:
            found.append(next(batches).tolist())
        except StopIteration:
            return found
        except KeyError:
            found.append("error")


@pytest.mark.parametrize("workers", [0, 2])
def test_after_an_error_the_next_batch_comes_as_in_pytorch(workers: int) -> None:
    def make() -> Any:
        return data.DataLoader(Broken(), 2, num_workers=workers, multiprocessing_context="fork" if workers else None)

    loader, theirs = make(), torch.utils.data.DataLoader(Broken(), 2)
    found = _all_that_comes(loader)
    assert found == _all_that_comes(theirs) and found[1] == "error" and len(found) == 5
    assert loader.epoch == 1
    batches, other = iter(loader), make()
    next(batches)
    with pytest.raises(KeyError):
        next(batches)
    other.load_state_dict(loader.state_dict())
    assert [batch.tolist() for batch in other] == found[2:], "the batch that failed does not come again"
