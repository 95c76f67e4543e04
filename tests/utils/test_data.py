"""Datasets and batches."""

import numpy as np
import pytest

import pullback as pb
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


def test_shuffling_repeats_with_the_seed_and_covers_all() -> None:
    def order(seed: int) -> list[list[int]]:
        generator = pb.Generator(seed)
        loader = data.DataLoader(data.TensorDataset(pb.arange(20)), batch_size=6, shuffle=True, generator=generator)
        return [[i for (batch,) in loader for i in batch.tolist()] for _ in range(2)]

    first, second = order(1)
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second
    assert order(1) == [first, second]


def test_collating() -> None:
    examples = [{"x": np.float32([i, i]), "y": (i, [pb.tensor(i)]), "name": str(i)} for i in range(4)]
    batch = next(iter(data.DataLoader(examples, batch_size=3)))
    assert batch["x"].tolist() == [[0, 0], [1, 1], [2, 2]]
    assert batch["y"][0].tolist() == [0, 1, 2]
    assert batch["y"][1][0].tolist() == [0, 1, 2]
    assert batch["name"] == ["0", "1", "2"]
    assert next(iter(data.DataLoader([1, 2, 3], batch_size=3, collate_fn=sum))) == 6


def test_errors() -> None:
    with pytest.raises(ShapeError, match=r"one size, got shapes \[\[3\], \[4\]\]"):
        data.TensorDataset(pb.zeros(3), pb.zeros(4))
    with pytest.raises(ValueError, match="positive int, got 0"):
        data.DataLoader([1], batch_size=0)
    with pytest.raises(TypeError, match="does not take set"):
        data.default_collate([{1}])
