"""Shapes as users hold them."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from typing import Any

from ..ops.primitive import user_source


class Size(tuple[int, ...]):
    """The sizes of a tensor's axes: a tuple of whole numbers, equal to any other tuple of the same ones.

    Slices, sums and multiples of it are sizes again. Graphs hold plain tuples.

    >>> pb.ones(2, 3, 4).shape[1:].numel()
    12
    """

    __slots__ = ()

    def __new__(cls, sizes: Iterable[Any] = (), /) -> Size:
        """Raises TypeError where one of `sizes` is no whole number."""
        listed = tuple(sizes)
        try:
            return tuple.__new__(cls, map(operator.index, listed))
        except TypeError:
            raise TypeError(f"Size() takes whole numbers, got {listed} (at {user_source()})") from None

    def numel(self) -> int:
        """How many elements a tensor of this shape has."""
        return math.prod(self)

    def __getitem__(self, place: Any) -> Any:
        found = tuple.__getitem__(self, place)
        return found if type(found) is int else sized(found)

    def __add__(self, other: Any) -> Size:
        return sized(tuple.__add__(self, other))

    def __radd__(self, other: tuple[int, ...]) -> Size:
        return sized(other + tuple(self))

    def __mul__(self, times: Any) -> Size:
        return sized(tuple.__mul__(self, times))

    __rmul__ = __mul__

    def __repr__(self) -> str:
        return f"pullback.Size({list(self)})"


def sized(sizes: tuple[int, ...]) -> Size:
    """`sizes`, known to be whole numbers, as a `Size`."""
    return tuple.__new__(Size, sizes)


__all__ = ["Size", "sized"]
