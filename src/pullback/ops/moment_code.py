"""Codes of 4 bits for Adam's two moments, both of an element in one byte: Li, Chen & Zhu, "Memory Efficient Optimizers
with 4-bit States" (2023).

The lower half of a byte is the code of the first moment, a share of its scale from -1 to 1 on the dynamic map with
three decades; the upper half that of the second, on the map of the 16 equal steps from 1/16 to 1, which has no zero:
what is divided by must not become one. A share gets the code of the nearest number, halfway between two the lower one,
as published. Both moments of an element in one byte, and not two elements of one moment: no value is then needed beside
its neighbour's, and all of it is elementwise.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

from ..graph.node import Node
from ..graph.types import FLOAT, INTEGER, float32, int32, uint8
from .elementwise import Builder, builder, elementwise
from .formula import Number, body, where
from .primitive import apply

#: what the codes of the first moment stand for: 0, 1, and on both sides of 0 the middles of 1, 2 and 4 equal parts of
#: the decades above 0.001, 0.01 and 0.1
_POSITIVE = (0.0055, 0.0325, 0.0775, 0.2125, 0.4375, 0.6625, 0.8875)
FIRST_MAP = (*(-number for number in reversed(_POSITIVE)), 0.0, *_POSITIVE, 1.0)
#: and those of the second
SECOND_MAP = tuple((code + 1) / 16 for code in range(16))
#: a byte of two zeros; the second is the least number of the map, times a scale of 0
ZEROS = FIRST_MAP.index(0.0)
_HALF_A_BYTE = 4
_LAST = 15
#: from here on to twice that floats are integers, whose lowest bits are the number itself
_INTEGERS = 2.0**23


class _Level(NamedTuple):
    """A step of the search for a code: of which width, and the border above each place that it may stand at."""

    width: int
    borders: tuple[float, ...]


def _levels() -> tuple[_Level, ...]:
    """The borders between the first moment's codes for a search by halves: places are multiples of twice the width."""
    borders = [(low + high) / 2 for low, high in pairwise(FIRST_MAP)]
    found = []
    for width in (8, 4, 2, 1):
        table = [borders[place // (2 * width) * (2 * width) + width - 1] for place in range(_LAST + 1)]
        found.append(_Level(width, tuple(table)))
    return tuple(found)


_LEVELS = _levels()


def _decode_first(code: Number) -> Number:
    return code.convert(int32).lookup(FIRST_MAP)


def _decode_second(code: Number) -> Number:
    return code.convert(int32).shift_right(_HALF_A_BYTE).lookup(SECOND_MAP)


def _first_code(share: Number) -> Number:
    place = where(share > _LEVELS[0].borders[0], 8, share.bits().like(0))
    for width, borders in _LEVELS[1:]:
        place = where(share > place.lookup(borders), place + width, place)
    return place


def _second_code(share: Number) -> Number:
    place = _ceiling(_fma(share, share.like(_LAST + 1), share.like(-1.5)))  # steps' borders are halfway between them
    place = where(place > 0.0, place, 0.0)  # also of NaN
    return (where(place < _LAST, place, _LAST) + _INTEGERS).bits() & _LAST


def _ceiling(x: Number) -> Number:
    return Number(x.a, x.a.ceil(x.value))


def _fma(x: Number, y: Number, z: Number) -> Number:
    return Number(x.a, x.a.fma(x.value, y.value, z.value))


def _encode(first: Number, second: Number) -> Number:
    first, second = first.convert(float32), second.convert(float32)
    return ((_first_code(first) + _second_code(second).shift_left(_HALF_A_BYTE)) & 0xFF).convert(uint8)


def _decoder(name: str, formula: Callable[[Number], Number], cost: int) -> Builder:
    return builder(elementwise(name, body(formula), None, takes=(INTEGER,), result=float32, cost=cost))


_APART = elementwise("apart", lambda a, x, number: x, lambda n, g: g, cost=0, linear=True)


def apart(x: Node, number: int) -> Node:
    """`x`, of which kernels compute what is made of it by themselves: the compiler sees another value in each `number`,
    and does not find that they share what it would otherwise keep in memory for all of them.
    """
    return apply(_APART, x, number=number)


decode_first: Builder = _decoder("decode_first_moment", _decode_first, 2)
decode_second: Builder = _decoder("decode_second_moment", _decode_second, 3)
encode_moments: Builder = builder(
    elementwise("encode_moments", body(_encode), None, None, takes=(FLOAT,), result=uint8, cost=20)
)

__all__ = ["FIRST_MAP", "SECOND_MAP", "ZEROS", "apart", "decode_first", "decode_second", "encode_moments"]
