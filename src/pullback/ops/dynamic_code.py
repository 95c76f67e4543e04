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

from ..graph.types import FLOAT, INTEGER, float32, int32, uint8
from .elementwise import Builder, builder, elementwise
from .formula import Number, body, where

#: decades of magnitudes, the smallest of which begins at 1e-7
DECADES = 7
#: the signed code of zero
SIGNED_ZERO = 2**DECADES - 1
#: entries of a table
_ENTRIES = 16
_ONE_BITS, _FRACTION_BITS, _FRACTION, _BIAS = 0x3F800000, 23, 0x7FFFFF, 127
#: a line below the number of borders that lie below a magnitude, and less than one below, by the float's bits as a
#: number: their upper part is the exponent, the rest nearly the logarithm of what is left
_SLOPE, _INTERCEPT = 0.301 / 2**_FRACTION_BITS, 7.3 - 0.301 * _BIAS


class _Tables(NamedTuple):
    """Numbers by decade. By the exponent of a position, or by how many borders lie below a magnitude."""

    #: of decoding: value = factor * the way through the decade + offset
    factors: tuple[float, ...]
    offsets: tuple[float, ...]
    #: of encoding: position = factor * magnitude + offset, at most the last one of the decade
    borders: tuple[float, ...]
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
    # positions and a half, of which that of zero has the exponent before that of the first decade
    way_of_one = 0.5 / (2 * parts[-1])
    one = 1 / (way_of_one + 1 / 9)
    factors = [0.0, *(0.9 * unit for unit in units), one]
    zero, top = float(parts[0] - 1), 2.0 * parts[-1]
    return _Tables(
        _by_exponent(factors, parts[0]),
        _by_exponent([factor / 9 for factor in factors], parts[0]),
        _filled([(low + high) / 2 for low, high in zip(lasts, firsts, strict=True)]),
        _filled([0.0, *(count / (0.9 * unit) for unit, count in both), 0.0]),
        _filled([zero, *(count * (1 - 1 / 9) for count in parts), top]),
        _filled([zero, *(2.0 * count - 1 for count in parts), top]),
    )


def _filled(numbers: list[float]) -> tuple[float, ...]:
    return (*numbers, *[numbers[-1]] * (_ENTRIES - len(numbers)))


def _by_exponent(numbers: list[float], first: int) -> tuple[float, ...]:
    """The numbers of zero, the decades and 1, in the places that the lowest bits of an exponent name."""
    lowest = _BIAS + first.bit_length() - 2
    table = [0.0] * _ENTRIES
    for place, number in enumerate(numbers, lowest):
        table[place % _ENTRIES] = number
    return tuple(table)


def _fma(x: Number, y: Number, z: Number) -> Number:
    return Number(x.a, x.a.fma(x.value, y.value, z.value))


# ---- decoding


def _value_at(middle: Number, tables: _Tables) -> Number:
    """The magnitude of a position, given as that and a half: the leading bit says the decade, the rest the way."""
    bits = middle.bits()
    way = ((bits & _FRACTION) | _ONE_BITS).from_bits(float32) - 1.0
    decade = bits.shift_right(_FRACTION_BITS)
    return _fma(way, decade.lookup(tables.factors), decade.lookup(tables.offsets))


def _decode_signed(code: Number) -> Number:
    distance = code.convert(int32).convert(float32) - float(SIGNED_ZERO)
    return _value_at(abs(distance) + 0.5, _tables(True)).copysign(distance)


def _decode_unsigned(code: Number) -> Number:
    return _value_at(code.convert(int32).convert(float32) + 1.5, _tables(False))


# ---- encoding


def _position(magnitude: Number, tables: _Tables) -> Number:
    """The position of the code nearest to a magnitude from 0 to 1, as a float."""
    bits = magnitude.bits().convert(float32)
    line = _fma(bits, bits.like(_SLOPE), bits.like(_INTERCEPT))
    below = where(line > 0.0, line, 0.0).convert(int32)
    decade = where(magnitude > below.lookup(tables.borders), below + 1, below)
    found = _fma(magnitude, decade.lookup(tables.scales), decade.lookup(tables.starts)).floor()
    last = decade.lookup(tables.ends)
    return where(found > last, last, found)


def _encode_signed(x: Number) -> Number:
    x = x.convert(float32)
    place = _position(abs(x), _tables(True)).copysign(x) + float(SIGNED_ZERO)
    return where(place > 0.0, place, 0.0).convert(int32).convert(uint8)  # -1 has no code


def _encode_unsigned(x: Number) -> Number:
    return (_position(abs(x.convert(float32)), _tables(False)) - 1.0).convert(int32).convert(uint8)


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
