"""What a dataset is: tensors, arrays, files, tables, streams, and parts and joins of them."""

import pickle  # noqa: TID251 (what multiprocessing does with a dataset)
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pullback as pb

data = pb.utils.data


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
