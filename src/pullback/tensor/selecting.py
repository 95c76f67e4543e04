"""Order statistics of NumPy arrays without sorting all: the places of the least elements, of the k-th, of the middle.

What host calls run. The places are those that the stable order has: of equal elements the first comes first. NaN counts
as greatest.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np


def ordered_keys(array: np.ndarray) -> np.ndarray:
    """Unsigned numbers in the order of the values; equal where the values are, NaN greatest.

    uint32 for values of at most 32 bits, else uint64.
    """
    wide = array.itemsize > 4
    unsigned, signed, real = ("u8", "i8", "f8") if wide else ("u4", "i4", "f4")
    if array.dtype.kind in "bu":
        return array.astype(unsigned)
    top: np.ndarray = np.array(2**63 if wide else 2**31, unsigned)
    if array.dtype.kind != "f":
        return array.astype(signed).view(unsigned) ^ top
    bits = (array.astype(real) + np.zeros((), real)).view(signed)  # adding 0 makes -0 the same as 0
    pattern: np.ndarray = bits.view(unsigned)
    return np.where(np.isnan(array), np.invert(np.zeros((), unsigned)), np.where(bits < 0, ~pattern, pattern | top))


def _rows(array: np.ndarray, axis: int) -> np.ndarray:
    """`array` as a matrix whose rows run along `axis`."""
    moved = np.moveaxis(array, axis, -1)
    return np.ascontiguousarray(moved).reshape(-1, array.shape[axis])


def _back(places: np.ndarray, shape: tuple[int, ...], axis: int) -> np.ndarray:
    """A matrix of places, one row for each row of an array of `shape`, as that array with another size of `axis`."""
    others = shape[:axis] + shape[axis + 1 :]
    return np.ascontiguousarray(np.moveaxis(places.reshape(*others, places.shape[1]), -1, axis))


def _kth(keys: np.ndarray, k: int) -> np.ndarray:
    """Where element `k` (from 0) in the stable order of each row stands, [rows]."""
    value = np.partition(keys, k, axis=1)[:, k : k + 1]
    equal = keys == value
    if np.count_nonzero(equal) == len(keys):
        return equal.argmax(axis=1)
    before = k - np.count_nonzero(keys < value, axis=1)
    return (equal & (np.cumsum(equal, axis=1) == before[:, None] + 1)).argmax(axis=1)


@cache
def least(k: int, axis: int, descending: bool) -> Callable[[np.ndarray], np.ndarray]:
    """The function that gives where the `k` (at least 1) first elements of the stable order along an axis stand."""

    def places(array: np.ndarray) -> np.ndarray:
        keys = ordered_keys(_rows(array, axis))
        if descending:
            keys = ~keys
        last = np.partition(keys, k - 1, axis=1)[:, k - 1 : k]
        chosen = keys <= last
        if np.count_nonzero(chosen) > k * len(keys):  # more equal the last than there is room for: the first of them
            equal = keys == last
            room = k - np.count_nonzero(keys < last, axis=1)
            chosen &= ~equal | (np.cumsum(equal, axis=1) <= room[:, None])
        found = np.nonzero(chosen)[1].reshape(len(keys), k)
        order = np.argsort(np.take_along_axis(keys, found, 1), axis=1, kind="stable")
        return _back(np.take_along_axis(found, order, 1), array.shape, axis)

    return places


@cache
def kth(k: int, axis: int) -> Callable[[np.ndarray], np.ndarray]:
    """The function that gives where element `k` (from 0) of the stable order along an axis stands; of size 1 there."""

    def places(array: np.ndarray) -> np.ndarray:
        return _back(_kth(ordered_keys(_rows(array, axis)), k)[:, None], array.shape, axis)

    return places


@cache
def middle(axis: int, skips_nan: bool) -> Callable[[np.ndarray], np.ndarray]:
    """The function that gives where the middle element along an axis stands, of two the lesser.

    If there is a NaN it is the first NaN, or with `skips_nan` the middle of the others.
    """

    def places(array: np.ndarray) -> np.ndarray:
        rows = _rows(array, axis)
        size = rows.shape[1]
        keys = ordered_keys(rows)
        numbers = size - np.count_nonzero(rows != rows, axis=1)
        wanted = np.maximum(numbers - 1, 0) // 2
        if not skips_nan:  # NaNs stand behind the numbers
            wanted = np.where(numbers < size, numbers, wanted)
        found = np.empty(len(rows), np.int64)
        different = np.unique(wanted)
        for k in different:
            those = slice(None) if len(different) == 1 else wanted == k
            found[those] = _kth(keys[those], int(k))
        return _back(found[:, None], array.shape, axis)

    return places


__all__ = ["kth", "least", "middle", "ordered_keys"]
