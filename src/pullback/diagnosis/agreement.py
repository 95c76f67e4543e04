"""Whether a value that native code computed is the one that was to be computed.

Three things tell how far it may be from the value in float64: the width of its dtype; what the reference loses by
rounding where native code may round, too; and, where neither explains it, how much the value in float64 itself changes
when what it is made of is changed by a few units in its last place. So a comparison that falls the other way, or a
difference of nearly equal numbers, is no disagreement, and a wrong number is one in any element.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from ..graph.node import Node
from ..graph.types import DType, bfloat16, float16

#: how many units in the last place, of the element and of the value's typical size, are always allowed; of 16 bits
_UNITS, _UNITS_OF_16 = 64, 4
#: how many times what the reference loses by rounding, and what a change of the operands makes of it
_TIMES = 8
#: units in the last place by which what a value is made of is changed, the same of 16 bits, and how often that is tried
_SHAKEN, _SHAKEN_OF_16, TRIES = 4, 0.25, 8
#: units from which on a float has 16 bits
_COARSE = 1e-4


def epsilon(dtype: DType) -> float:
    """The distance from 1 to the next number of a float type."""
    if dtype is bfloat16:
        return 2.0**-7
    return float(np.finfo(np.float16 if dtype is float16 else dtype.storage).eps)


class Disagreement(NamedTuple):
    """The element of a value that is furthest off what is allowed: its place, what it is and should be, and how many of
    the `elements` are `off`.
    """

    place: tuple[int, ...]
    actual: float
    expected: float
    allowed: float
    off: int
    elements: int


def disagreement(
    node: Node, actual: np.ndarray, exact: np.ndarray, rounded: np.ndarray, shaken: Callable[[], Iterable[np.ndarray]]
) -> Disagreement | None:
    """Where the `actual` value of `node` is not what it should be: `exact` in float64, `rounded` on the reference.

    `shaken` gives the value for operands that differ a little; it is asked where that may explain what is off.
    """
    actual, exact, rounded = actual.reshape(-1), exact.reshape(-1), rounded.reshape(-1)
    if not node.dtype.is_floating_point:
        return _of_whole_numbers(node, actual, exact, rounded, shaken)
    actual = actual.astype(np.float64)
    with np.errstate(all="ignore"):
        off, allowed = _compared(actual, exact, rounded.astype(np.float64), epsilon(node.dtype))
        if off.any():
            for other in shaken():
                other = other.reshape(-1)
                moved = np.abs(other - exact)
                allowed += _TIMES * np.where(np.isnan(moved), np.inf, moved)
                off &= ~(np.abs(actual - exact) <= allowed) & ~_both_bad(actual, other)
                if not off.any():
                    break
        if not off.any():
            return None
        excess = np.where(off, np.nan_to_num(np.abs(actual - exact) / allowed, nan=np.inf, posinf=np.inf), -1.0)
    return _worst(node, excess, off, actual, exact, allowed)


def _compared(actual: np.ndarray, exact: np.ndarray, rounded: np.ndarray, unit: float) -> tuple[np.ndarray, np.ndarray]:
    """Which elements are further off than rounding explains, and how far they may be."""
    sound = np.isfinite(exact)
    size = _typical(exact[sound])
    lost = np.abs(rounded - exact)
    lost[~np.isfinite(lost)] = 0.0
    units = _UNITS if unit < _COARSE else _UNITS_OF_16
    allowed = units * unit * (np.abs(exact) + size) + _TIMES * (lost + _typical(lost))
    allowed += float(np.finfo(np.float32).tiny)
    allowed[~sound] = 0.0
    agrees = (np.abs(actual - exact) <= allowed) | (actual == exact) | _both_bad(actual, exact)
    # beyond the largest number of its type a value is infinite, for the reference too
    return ~(agrees | _both_bad(actual, rounded)), allowed


def _both_bad(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (np.isnan(a) & np.isnan(b)) | (np.isinf(a) & (a == b))


def _typical(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0


def _of_whole_numbers(
    node: Node, actual: np.ndarray, exact: np.ndarray, rounded: np.ndarray, shaken: Callable[[], Iterable[np.ndarray]]
) -> Disagreement | None:
    off = (actual != exact) & (actual != rounded)
    if off.any():
        for other in shaken():
            other = other.reshape(-1)
            off &= (actual != other) & (other == exact)
            if not off.any():
                break
    if not off.any():
        return None
    return _worst(node, off.astype(float), off, actual, exact, np.zeros(off.shape))


def _worst(
    node: Node, excess: np.ndarray, off: np.ndarray, actual: np.ndarray, exact: np.ndarray, allowed: np.ndarray
) -> Disagreement:
    worst = int(excess.argmax())
    place = tuple(map(int, np.unravel_index(worst, node.shape)))
    told = float(actual[worst]), float(exact[worst]), float(allowed[worst])
    return Disagreement(place, *told, int(off.sum()), off.size)


def shaken_by(nodes: Iterable[Node]) -> float:
    """By what part of itself what these nodes are made of is changed: some units of the coarsest float among them."""
    unit = max((epsilon(node.dtype) for node in nodes if node.dtype.is_floating_point), default=0.0)
    return unit * (_SHAKEN if unit < _COARSE else _SHAKEN_OF_16)


def shake(value: np.ndarray, amount: float, generator: np.random.Generator) -> np.ndarray:
    """The value with each element changed by that part of itself, up or down; whole numbers as they are."""
    if value.dtype.kind != "f":
        return value
    sign = generator.choice((-1.0, 1.0), value.shape)
    with np.errstate(all="ignore"):
        return np.where(np.isfinite(value), value * (1.0 + amount * sign), value)


__all__ = ["TRIES", "Disagreement", "disagreement", "epsilon", "shake", "shaken_by"]
