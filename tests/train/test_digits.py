"""The classifier of digits."""

import numpy as np

from pullback.train.digits import Batches, Digits, load_digits, split


def test_the_split_keeps_the_proportions_of_the_classes_and_loses_nothing() -> None:
    every = Digits(np.arange(100, dtype=np.float32).reshape(100, 1), np.repeat(np.arange(2), [60, 40]))
    train, test = split(every, np.random.default_rng(0))
    assert np.bincount(test.labels).tolist() == [12, 8]
    assert sorted([*train.images[:, 0], *test.images[:, 0]]) == list(range(100))


def test_the_digits_are_split_the_same_way_each_time() -> None:
    (train, test), (_, again) = load_digits(), load_digits()
    assert (len(train.labels), len(test.labels)) == (1438, 359)
    assert (train.images.min(), train.images.max(), train.images.dtype) == (0.0, 1.0, np.float32)
    np.testing.assert_array_equal(test.images, again.images)


def test_every_index_comes_once_before_any_comes_again() -> None:
    drawn = Batches(10, 4, np.random.default_rng(0))
    taken = np.concatenate([next(drawn) for _ in range(5)])
    assert sorted(taken[:10]) == sorted(taken[10:]) == list(range(10))
