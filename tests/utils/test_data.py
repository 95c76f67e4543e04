"""Datasets, samplers and batches, in one process and with workers."""

import os
import pickle  # noqa: TID251 (what multiprocessing does with a dataset)
import random
import re
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pullback as pb
from data_examples import Broken, Numbers, OwnError, Stream, Unequal, mark, worker_id
from pullback.errors import GradientError, ShapeError, StateDictError, WorkerError

data = pb.utils.data


# ---- datasets


def test_batches_in_order() -> None:
    x, y = pb.arange(10).reshape(5, 2).float(), pb.arange(5)
    loader = data.DataLoader(data.TensorDataset(x, y), batch_size=2)
    batches = list(loader)
    assert len(loader) == len(batches) == 3
    assert [b.tolist() for _, b in batches] == [[0, 1], [2, 3], [4]]
    assert batches[1][0].tolist() == [[4.0, 5.0], [6.0, 7.0]]
    dropped = data.DataLoader(data.TensorDataset(x, y), batch_size=2, drop_last=True)
    assert len(dropped) == len(list(dropped)) == 2


def test_parts_and_joins_of_datasets() -> None:
    both = data.TensorDataset(pb.arange(3)) + data.TensorDataset(pb.arange(10, 14))
    assert isinstance(both, data.ConcatDataset)
    assert [both[i][0].item() for i in (0, 2, 3, 6, -1, -7)] == [0, 2, 10, 13, 13, 0]
    with pytest.raises(IndexError, match="example 7 of a ConcatDataset of 7"):
        both[7]
    part = data.Subset(both, [6, 0, 3])
    assert [value.tolist() for (value,) in data.DataLoader(part, batch_size=2)] == [[13, 0], [10]]
    inner = data.Subset(data.Subset(data.TensorDataset(pb.arange(9)), [8, 1, 5]), [2, 0])
    assert [value.tolist() for (value,) in data.DataLoader(inner, batch_size=2)] == [[5, 8]]
    assert inner[[1]][0][0].item() == 8


def test_random_splits() -> None:
    for lengths, sizes in (([7, 3], [7, 3]), ([0.5, 0.25, 0.25], [6, 3, 2]), ([0.7, 0.2, 0.1], [8, 2, 1])):
        count = sum(sizes)
        parts = data.random_split(range(count), lengths, generator=pb.Generator(0))
        assert [len(part) for part in parts] == sizes
        assert sorted(value for part in parts for value in part) == list(range(count))
        assert [len(part) for part in torch.utils.data.random_split(range(count), lengths)] == sizes  # type: ignore
    again = data.random_split(range(11), [6, 5], generator=pb.Generator(3))
    assert again[0].indices == data.random_split(range(11), [6, 5], generator=pb.Generator(3))[0].indices
    with pytest.raises(ValueError, match=r"add up to 9, but there are 10 examples"):
        data.random_split(range(10), [5, 4])


def test_arrays_and_files_are_datasets(tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.int32).reshape(6, 2)
    np.save(tmp_path / "array.npy", array)
    mapped = np.load(tmp_path / "array.npy", mmap_mode="r")
    for source in (array, mapped, pb.tensor(array), array.tolist()):
        loader = data.DataLoader(source, batch_size=4)
        batches = [batch.tolist() if isinstance(batch, pb.Tensor) else batch for batch in loader]
        if isinstance(source, list):
            assert [part.tolist() for part in batches[0]] == [[0, 2, 4, 6], [1, 3, 5, 7]]
        else:
            assert batches == [array[:4].tolist(), array[4:].tolist()]
    assert next(iter(data.DataLoader(np.array(["a", "b"]), batch_size=2))) == ["a", "b"]


def test_windows_of_a_file_of_tokens(tmp_path: Path) -> None:
    path = tmp_path / "tokens.bin"
    np.arange(11, dtype=np.uint16).tofile(path)
    tokens = data.TokenFile(path, np.uint16, length=3)
    assert [x.tolist() for x, _ in tokens] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    every = data.TokenFile(path, "uint16", length=3, stride=1)
    assert (len(every), every[-1][1].tolist()) == (8, [8, 9, 10])
    x, y = next(iter(data.DataLoader(every, batch_size=2, sampler=[7, 2])))
    assert (x.dtype, x.tolist(), y.tolist()) == (pb.int64, [[7, 8, 9], [2, 3, 4]], [[8, 9, 10], [3, 4, 5]])
    sent = pickle.dumps(every)
    assert len(sent) < 1000
    assert pickle.loads(sent)[1][0].tolist() == [1, 2, 3]
    with pytest.raises(IndexError, match=r"window 8 of .*, which has 8"):
        every[8]
    np.save(tmp_path / "tokens.npy", np.arange(5))
    assert len(data.TokenFile(tmp_path / "tokens.npy", length=4)) == 1
    for arguments, fault in (
        ({"dtype": np.uint32, "length": 3}, "has 22 bytes, no whole number of uint32"),
        ({"length": 11}, "has 11 tokens, but a window of 11 and the token after it need 12"),
        ({"dtype": np.float16, "length": 3}, "not a row of whole numbers"),
        ({"length": 3, "stride": 0}, "stride must be a positive int"),
    ):
        with pytest.raises(ValueError, match=fault):
            data.TokenFile(path, **arguments)  # type: ignore[arg-type]


def test_tables(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table({
        "x": arrow.array([1.5, 2.5, 3.5], arrow.float32()), "name": ["a", "b", "c"], "flag": [True, False, True],
        "row": arrow.array([[1, 2], [3, 4], [5, 6]], arrow.list_(arrow.int16(), 2)),
    })  # fmt: skip
    loader = data.DataLoader(table, batch_size=2, sampler=[2, 0])
    (batch,) = loader
    assert (batch["x"].dtype, batch["x"].tolist(), batch["name"]) == (pb.float32, [3.5, 1.5], ["c", "a"])
    assert (batch["flag"].tolist(), batch["row"].tolist(), batch["row"].dtype) == (
        [True] * 2,
        [[5, 6], [1, 2]],
        pb.int16,
    )
    one = loader.dataset[1]
    assert (one["x"], one["x"].dtype, one["name"], one["row"].tolist()) == (2.5, np.float32, "b", [3, 4])
    from pyarrow import parquet

    parquet.write_table(table, tmp_path / "table.parquet")
    read = data.TableDataset.from_parquet(tmp_path / "table.parquet", columns=["x"])
    assert [b["x"].tolist() for b in data.DataLoader(read, batch_size=3)] == [[1.5, 2.5, 3.5]]
    with pytest.raises(ValueError, match="has no column 'y', only 'x', 'name', 'flag', 'row'"):
        data.TableDataset.from_parquet(tmp_path / "table.parquet", columns=["x", "y"])
    runs = arrow.RunEndEncodedArray.from_arrays(arrow.array([1, 3], arrow.int32()), [1.5, 2.5])
    views = arrow.table({"text": arrow.array(["a", "b", "c"], arrow.string_view()), "runs": runs})
    (batch,) = data.DataLoader(views, batch_size=2, sampler=[2, 0])
    assert (batch["text"], batch["runs"].tolist(), views.num_rows) == (["c", "a"], [2.5, 1.5], 3)
    for odd in (arrow.array([["a"]], arrow.list_(arrow.string_view())), [{"a": 1}]):
        with pytest.raises(ValueError, match=r"the column 'odd' is of .*: numbers, lists of numbers"):
            list(data.DataLoader(arrow.table({"odd": odd})))
    for missing in ([1, None], arrow.array([[1, 2], [None, 1]], arrow.list_(arrow.int16(), 2))):
        with pytest.raises(ValueError, match="the column 'x' has missing values"):
            data.TableDataset(arrow.table({"x": missing}))[1]
    lists = arrow.table({
        "ids": [[1, 2], [3, 4], [5]], "kind": arrow.array(["a", "b", "a"]).dictionary_encode(),
        "raw": [b"x", b"y", b"z"],
        "grid": arrow.FixedShapeTensorArray.from_numpy_ndarray(np.arange(12.0).reshape(3, 2, 2)),
    })  # fmt: skip
    for given in (lists, lists.combine_chunks().to_batches()[0]):
        (batch,) = data.DataLoader(data.Subset(given, [1, 0]), batch_size=2)
        assert (batch["ids"].tolist(), batch["kind"], batch["raw"]) == ([[3, 4], [1, 2]], ["b", "a"], [b"y", b"x"])
        assert batch["grid"].tolist() == [[[4.0, 5.0], [6.0, 7.0]], [[0.0, 1.0], [2.0, 3.0]]]
    with pytest.raises(ValueError, match="the column 'ids' has lists of 1 to 2 numbers in one batch"):
        list(data.DataLoader(lists, batch_size=3))
    assert [len(row["ids"]) for row in next(iter(data.DataLoader(lists, 3, collate_fn=list)))] == [2, 2, 1]
    with pytest.raises(IndexError, match="row 3 of a table of 3"):
        list(data.DataLoader(lists, sampler=[0, 3], batch_size=2))


def test_datasets_of_hugging_face(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    theirs = pytest.importorskip("datasets")
    rows = theirs.Dataset.from_dict({"x": np.arange(20, dtype=np.float32).reshape(10, 2).tolist(), "y": range(10)})
    for kind in ("numpy", "torch", "arrow"):
        loader = data.DataLoader(rows.with_format(kind), 4, shuffle=True, generator=pb.Generator(1))
        batches = iter(loader)
        batch = next(batches)
        # in Arrow's format a column is of the type that it is stored in
        assert batch["x"].dtype is (pb.float64 if kind == "arrow" else pb.float32) and batch["x"].shape == (4, 2)
        assert batch["x"][:, 1].tolist() == [2 * y + 1 for y in batch["y"].tolist()]
        position, rest = loader.state_dict(), [b["y"].tolist() for b in batches]
        loader.load_state_dict(position)
        assert [b["y"].tolist() for b in loader] == rest
    assert next(iter(data.DataLoader(rows, 2)))["x"][1].tolist() == [1.0, 3.0]
    tables = list(data.DataLoader(rows.to_iterable_dataset().with_format("arrow"), 4))
    assert [b["y"].tolist() for b in tables] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]] and tables[0]["x"].shape == (4, 2)
    (single, *_) = data.DataLoader(rows.to_iterable_dataset().with_format("arrow"), batch_size=None)
    assert single["x"].tolist() == [[0, 1]]
    streamed = rows.to_iterable_dataset(num_shards=2)
    parts = data.DataLoader(streamed, 2, num_workers=2, multiprocessing_context="fork")
    found = [b["y"].tolist() for b in parts]
    assert sorted(y for batch in found for y in batch) == list(range(10)), "each row comes once"
    with pytest.warns(UserWarning, match="the dataset has 2 shards, so that of 3 workers 1 will have nothing to do"):
        data.DataLoader(streamed, num_workers=3)


class _Counting(data.IterableDataset[int]):
    def __init__(self, *numbers: int):
        self.numbers = numbers

    def __iter__(self) -> Iterator[int]:
        return iter(self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)


def test_streams_one_after_another() -> None:
    both = _Counting(1, 2) + _Counting(3)
    assert isinstance(both, data.ChainDataset) and list(both) == [1, 2, 3] and len(both) == 3
    assert [batch.tolist() for batch in data.DataLoader(both, 2)] == [[1, 2], [3]]
    with pytest.raises(TypeError, match=r"ChainDataset takes .*got TensorDataset .*ConcatDataset"):
        _Counting(1) + data.TensorDataset(pb.ones(2))


def test_datasets_side_by_side() -> None:
    x, words = data.TensorDataset(pb.arange(4)), ["a", "b", "c", "d"]
    places, names = data.StackDataset(x, words), data.StackDataset(x=x, word=words)
    assert len(places) == 4 and places[1][0][0].item() == 1 and places[1][1] == "b"
    assert names[2]["word"] == "c" and [e["word"] for e in names.__getitems__([3, 0])] == ["d", "a"]
    (batch, _) = data.DataLoader(names, 2)
    assert batch["x"][0].tolist() == [0, 1] and batch["word"] == ["a", "b"]
    with pytest.raises(ValueError, match=r"must have one length, got \[4, 3\]"):
        data.StackDataset(x, words[:3])
    for given, named in (((), {}), ((x,), {"y": x})):
        with pytest.raises(ValueError, match="by place or by name"):
            data.StackDataset(*given, **named)


def test_a_dataset_that_gives_several_at_once() -> None:
    class Together:
        def __len__(self) -> int:
            return 5

        def __getitem__(self, index: Any) -> Any:
            raise AssertionError("one by one")

        def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
            return [{"x": index, "text": str(index)} for index in indices]

        def take(self, count: int) -> Any:
            raise AssertionError("the first rows, as of a Hugging Face dataset")

    batches = list(data.DataLoader(Together(), batch_size=3))
    assert [batch["x"].tolist() for batch in batches] == [[0, 1, 2], [3, 4]]
    assert batches[1]["text"] == ["3", "4"]


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


def test_an_iterable_dataset_has_its_own_order() -> None:
    for arguments in ({"shuffle": True}, {"sampler": [1]}, {"batch_sampler": [[1]]}):
        with pytest.raises(ValueError, match="an iterable dataset has its own order"):
            data.DataLoader(Stream(3), **arguments)  # type: ignore[arg-type]
    loader = data.DataLoader(Stream(5), batch_size=2, drop_last=True)
    assert (len(loader), [b[0].tolist() for b in loader]) == (2, [[0, 1], [2, 3]])
    with pytest.raises(TypeError, match="does not take an IterableDataset"):
        data.ConcatDataset([Stream(1)])


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


def test_the_line_of_an_error_in_a_worker_is_that_of_the_loop() -> None:
    loader = data.DataLoader(Unequal(), 2, num_workers=1)  # no fork, whose stack goes on to the loop
    with pytest.raises(ShapeError, match=r"stack: shapes must be equal.*\(at .*test_data.py:\d+\)"):
        next(iter(loader))


# ---- positions


def stopped(loader: Any, batches: int) -> tuple[Any, Iterator[Any]]:
    """The position after so many batches, as a file keeps it, and the iterator."""
    iterator = iter(loader)
    for _ in range(batches):
        next(iterator)
    pb.save(loader.state_dict(), "position.safetensors")
    return pb.load("position.safetensors"), iterator


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


# ---- workers


def values(batches: Any) -> list[Any]:
    return [
        {
            key: value.tolist() if isinstance(value, pb.Tensor) else [v.tolist() for v in value]
            for key, value in b.items()
        }
        for b in batches
    ]


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


def test_what_a_worker_knows() -> None:
    loader = data.DataLoader(
        Numbers(4), 2, num_workers=2, worker_init_fn=mark, collate_fn=worker_id, multiprocessing_context="fork"
    )
    assert list(loader) == [(0, 2, 1004, 1), (1, 2, 1004, 1)]
    assert data.get_worker_info() is None


@pytest.mark.parametrize(
    ("fault", "error", "said"),
    [
        ("error", KeyError, r"Caught KeyError in DataLoader worker process 1.*in __getitem__.*sample 3 of the dataset"),
        ("stop", RuntimeError, r"StopIteration was raised while sample 3 of the dataset was read"),
        ("own error", WorkerError, r"Caught OwnError in DataLoader worker process 1.*sample 3 of the dataset"),
        ("kill", WorkerError, r"worker 1 \(process \d+\) was killed by SIGKILL.* at batch 1 \(samples 2, 3\)"),
        ("exit", WorkerError, r"worker 1 \(process \d+\) ended with exit code 3 at batch 1 \(samples 2, 3\)"),
        ("sleep", WorkerError, r"worker 1 .* took longer than timeout=2 seconds at batch 1 \(samples 2, 3\)"),
        ("lambda", (WorkerError, AttributeError), "while a batch was sent to the process that trains"),
    ],
)
def test_what_goes_wrong_in_a_worker_is_told(fault: str, error: Any, said: str) -> None:
    loader = data.DataLoader(
        Numbers(6, {3: fault}), 2, num_workers=2, timeout=2 if fault == "sleep" else 60, multiprocessing_context="fork",
        collate_fn=list if fault == "lambda" else None,
    )  # fmt: skip
    batches = iter(loader)
    next(batches)
    with pytest.raises(error) as caught:
        next(batches)
    assert re.search(said, str(caught.value), re.DOTALL), str(caught.value)
    assert not isinstance(caught.value, OwnError)


def test_what_cannot_be_sent_to_workers_is_refused_with_the_mend() -> None:
    class Local(Numbers):
        pass

    with pytest.raises(TypeError, match="define them at the top of a module"):
        next(iter(data.DataLoader(Local(3), num_workers=1)))
    weight = pb.ones(2, requires_grad=True)
    with pytest.raises(GradientError, match="a tensor with a history"):
        next(iter(data.DataLoader(data.TensorDataset(weight * 2), num_workers=1)))


def test_a_script_without_a_guard_is_told(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import pullback as pb\nloader = pb.utils.data.DataLoader(range(4), num_workers=1)\nprint(list(loader))\n"
    )
    found = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert found.returncode == 1
    assert found.stderr.rstrip().splitlines()[-1].startswith("pullback.errors.WorkerError")
    assert "if __name__ == '__main__'" in found.stderr.rstrip().splitlines()[-1]


def test_workers_end_with_their_parent() -> None:
    program = """
        import os, sys
        import pullback as pb
        if __name__ == "__main__":
            loader = pb.utils.data.DataLoader(range(100), num_workers=1, persistent_workers=True)
            batches = iter(loader)
            next(batches)
            print(loader._pool._processes[0].pid, flush=True)
            os.kill(os.getpid(), 9)
    """
    program = "\n".join(line[8:] for line in program.splitlines())
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    pid = int(found.stdout)
    for _ in range(100):
        if not os.path.exists(f"/proc/{pid}") or "\tZ" in Path(f"/proc/{pid}/status").read_text():
            break
        time.sleep(0.1)
    else:
        pytest.fail(f"the worker {pid} lives on")
