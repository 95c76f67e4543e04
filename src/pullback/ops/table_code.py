"""Codes of 4 bits for numbers from -1 to 1: places in a table of 16 numbers, which may stand in any order."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from ..graph.types import FLOAT, INTEGER, float32, int32, uint8
from .elementwise import Builder, builder, elementwise
from .formula import Number, body, where


def _decode(code: Number, table: tuple[float, ...]) -> Number:
    return code.convert(int32).lookup(table)


def _encode(x: Number, table: tuple[float, ...]) -> Number:
    """By how many of the borders, halfway between neighbours, lie below; a number on a border goes to the lower.

    Borders are those of the table in float32, rounded to float32, as in bitsandbytes.
    """
    x = x.convert(float32)
    places = sorted(range(len(table)), key=lambda place: (table[place], math.copysign(1, table[place]) < 0))
    codes = [place for i, place in enumerate(places) if not i or table[place] != table[places[i - 1]]]
    below = x.like(0.0)
    for low, high in pairwise(codes):
        border = float((np.float32(table[low]) + np.float32(table[high])) / np.float32(2))
        below = below + where(x > border, x.like(1.0), 0.0)
    position = below.convert(int32)
    if codes == list(range(len(table))):
        return position.convert(uint8)
    found = position.lookup(tuple(float(code) for code in codes + codes[-1:] * (len(table) - len(codes))))
    return found.convert(int32).convert(uint8)


decode_table: Builder = builder(
    elementwise("decode_table", body(_decode), None, takes=(INTEGER,), result=float32, cost=4)
)
encode_table: Builder = builder(elementwise("encode_table", body(_encode), None, takes=(FLOAT,), result=uint8, cost=40))

__all__ = ["decode_table", "encode_table"]
