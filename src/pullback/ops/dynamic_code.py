"""Codes of 8 bits with a dynamic exponent, for numbers from -1 to 1: Dettmers et al., "8-bit Optimizers via Block-wise
Quantization" (2022).

A magnitude lies in one of seven decades, from 1e-7 to 1. The smallest has the fewest codes, and each further one twice
as many, which stand in the middles of equal parts of it; besides there are 0 and 1. So the leading bit of a code's
position says the decade, and what follows it the place there: to decode is a product and a sum, with numbers looked up
by the decade. A signed code has 127 positions on either side of 0, and 1; an unsigned one twice as many in each decade.

Codes are in ascending order of what they stand for, as in bitsandbytes' maps. NaN and infinities cannot be told by a
code: the scale of their block tells of them, see `quant.blockwise`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..graph.types import FLOAT, INTEGER, float32, int32, uint8
from .elementwise import Builder, builder, elementwise
from .formula import Number, body, where

#: decades of magnitudes, the smallest of which begins at 1e-7
DECADES = 7
#: the signed code of zero
SIGNED_ZERO = 2**DECADES - 1
#: entries of a table
_ENTRIES = 16
_ONE_BITS, _FRACTION_BITS, _FRACTION = 0x3F800000, 23, 0x7FFFFF
#: the distance from 1 to the next float: a small integer in the lowest bits of 1's is 1 and so many of them
_STEP = 2.0**-_FRACTION_BITS
#: from here on to twice that floats are integers, whose lowest bits are the number itself
_INTEGERS = 2.0**_FRACTION_BITS
#: a cell of magnitudes has two exponents, so that there are 16 from here to 1 and at most one border in each
_LEAST, _CELL_BITS = 2.0**-30, _FRACTION_BITS + 1


class _Tables(NamedTuple):
    """Numbers by decade, of which 0 and 1 are further ones."""

    #: of decoding, by the exponent of a position: value = factor * the way through its power of two + offset
    factors: tuple[float, ...]
    offsets: tuple[float, ...]
    #: of encoding, by cell: what a magnitude's bits and these bits add up to has the decade in its upper bits
    decades: tuple[float, ...]
    #: by decade: position = factor * magnitude + offset to the nearest integer, at most the last one of the decade
    scales: tuple[float, ...]
    starts: tuple[float, ...]
    ends: tuple[float, ...]


@functools.cache
def _tables(signed: bool) -> _Tables:
    parts = [2 ** (decade if signed else decade + 1) for decade in range(DECADES)]
    units = [10.0 ** (decade - DECADES + 1) for decade in range(DECADES)]
    both = list(zip(units, parts, strict=True))
    firsts = [*(unit * (0.1 + 0.45 / count) for unit, count in both), 1.0]
    lasts = [0.0, *(unit * (1 - 0.45 / count) for unit, count in both)]
    zero, top = float(parts[0] - 1), 2.0 * parts[-1]
    return _Tables(
        _by_exponent([0.0, *(0.9 * unit * _STEP for unit in units), 0.0], parts[0]),
        _by_exponent([0.0, *firsts], parts[0]),
        _by_cell([(low + high) / 2 for low, high in zip(lasts, firsts, strict=True)]),
        _filled([0.0, *(count / (0.9 * unit) for unit, count in both), 0.0]),
        _filled([zero, *(count * (1 - 1 / 9) - 0.5 for count in parts), top]),
        _filled([zero, *(2.0 * count - 1 for count in parts), top]),
    )


def _filled(numbers: list[float]) -> tuple[float, ...]:
    return (*numbers, *[numbers[-1]] * (_ENTRIES - len(numbers)))


def _by_exponent(numbers: list[float], first: int) -> tuple[float, ...]:
    """The numbers of zero, the decades and 1, in the places that the lowest bits of an exponent name: of positions,
    from that of the first decade on, in units of `_STEP`. Zero's is one below, or that of no position at all.
    """
    table = [numbers[0]] * _ENTRIES
    for power, number in enumerate(numbers[1:], first.bit_length() - 1):
        table[_place(2.0**power * _STEP, _FRACTION_BITS)] = number
    return tuple(table)


def _by_cell(borders: list[float]) -> tuple[float, ...]:
    """For each cell the number whose bits carry those of a magnitude that is above the cell's border, or where it has
    none those of all its magnitudes, into the cell's count of borders below.
    """
    bits = [int(np.float32(border).view(np.int32)) for border in borders]
    cells = [border >> _CELL_BITS for border in bits]
    assert cells == sorted(set(cells)), "two borders in a cell"
    own, table = dict(zip(cells, bits, strict=True)), [0.0] * _ENTRIES
    lowest = int(np.float32(_LEAST).view(np.int32)) >> _CELL_BITS
    for cell in range(lowest, lowest + _ENTRIES):
        below = sum(other < cell for other in cells)
        first, decade = (own[cell] + 1, below + 1) if cell in own else (cell << _CELL_BITS, below)
        table[cell % _ENTRIES] = float(np.int32((decade << _CELL_BITS) - first).view(np.float32))
    return tuple(table)


def _place(number: float, bits: int) -> int:
    """Where a number is in a table that is read by its bits from that one on."""
    return int(np.float32(number).view(np.int32)) >> bits & _ENTRIES - 1


def _fma(x: Number, y: Number, z: Number) -> Number:
    return Number(x.a, x.a.fma(x.value, y.value, z.value))


# ---- decoding


def _positions(code: Number, zero: int) -> Number:
    """How far a code is from that of `zero`, in units of `_STEP`: exact."""
    return (code.convert(int32) | _ONE_BITS).from_bits(float32) - (1 + zero * _STEP)


def _value_at(position: Number, tables: _Tables) -> Number:
    """The magnitude of a position of either sign: the leading bit says the decade, the rest the way through it."""
    bits = position.bits()
    decade = bits.shift_right(_FRACTION_BITS)  # the lowest bits, without the sign
    return _fma((bits & _FRACTION).convert(float32), decade.lookup(tables.factors), decade.lookup(tables.offsets))


def _decode_signed(code: Number) -> Number:
    position = _positions(code, SIGNED_ZERO)
    return _value_at(position, _tables(True)).copysign(position)


def _decode_unsigned(code: Number) -> Number:
    return _value_at(_positions(code, -1), _tables(False))


# ---- encoding


def _position(magnitude: Number, tables: _Tables) -> Number:
    """The position of the code nearest to a magnitude from 0 to 1, as a float that is to be rounded."""
    magnitude = where(magnitude > _LEAST, magnitude, _LEAST)  # also of NaN
    bits = magnitude.bits()
    decade = (bits + bits.shift_right(_CELL_BITS).lookup(tables.decades).bits()).shift_right(_CELL_BITS)
    found = _fma(magnitude, decade.lookup(tables.scales), decade.lookup(tables.starts))
    last = decade.lookup(tables.ends)
    return where(found > last, last, found)


def _rounded(position: Number, zero: int) -> Number:
    """The nearest integer to a position as a code, counted from that of `zero`."""
    return ((position + (_INTEGERS + zero)).bits() & 0xFF).convert(uint8)


def _encode_signed(x: Number) -> Number:
    x = x.convert(float32)
    place = _position(abs(x), _tables(True)).copysign(x)
    return _rounded(where(place > -SIGNED_ZERO, place, -SIGNED_ZERO), SIGNED_ZERO)  # -1 has no code


def _encode_unsigned(x: Number) -> Number:
    return _rounded(_position(x.convert(float32), _tables(False)), -1)


# ---- magnitudes as integers, of which a NaN is the greatest: one instruction finds the greatest


def _magnitude_bits(x: Number) -> Number:
    return abs(x.convert(float32)).bits()


def _float_of_bits(bits: Number) -> Number:
    return bits.convert(int32).from_bits(float32)


magnitude_bits: Builder = builder(
    elementwise("magnitude_bits", body(_magnitude_bits), None, takes=(FLOAT,), result=int32)
)
float_of_bits: Builder = builder(
    elementwise("float_of_bits", body(_float_of_bits), None, takes=(INTEGER,), result=float32)
)


def _decoder(name: str, formula: Callable[[Number], Number]) -> Builder:
    return builder(elementwise(name, body(formula), None, takes=(INTEGER,), result=float32, cost=10))


def _encoder(name: str, formula: Callable[[Number], Number]) -> Builder:
    return builder(elementwise(name, body(formula), None, takes=(FLOAT,), result=uint8, cost=20))


decode_signed: Builder = _decoder("decode_dynamic_signed", _decode_signed)
decode_unsigned: Builder = _decoder("decode_dynamic_unsigned", _decode_unsigned)
encode_signed: Builder = _encoder("encode_dynamic_signed", _encode_signed)
encode_unsigned: Builder = _encoder("encode_dynamic_unsigned", _encode_unsigned)

__all__ = [
    "DECADES", "SIGNED_ZERO", "decode_signed", "decode_unsigned", "encode_signed", "encode_unsigned", "float_of_bits",
    "magnitude_bits",
]  # fmt: skip
