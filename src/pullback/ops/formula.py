"""Bodies of elementwise operations written as formulas, with operators, instead of calls of the arithmetic's methods.

A formula is a function of `Number`s. `body` makes of it what a primitive's record holds: a function against the
abstract arithmetic, which emits or computes the same operations in the same order. A formula is written once for
float32 and float64; where they differ in what they need, `by_type` chooses.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from ..graph.types import DType, bool_, float32, int32, int64
from .arithmetic import Arithmetic, Value


class Number:
    """A value of an arithmetic, with operators. Python numbers beside it take its type."""

    __slots__ = ("a", "value")

    def __init__(self, a: Arithmetic, value: Value):
        self.a, self.value = a, value

    @property
    def dtype(self) -> DType:
        """The element type; of floats float32 or float64."""
        return self.a.dtype(self.value)

    def like(self, number: Number | float) -> Number:
        """`number` as a value of this type."""
        return number if isinstance(number, Number) else Number(self.a, self.a.constant(number, self.dtype))

    def _two(self, name: str, x: Number | float, y: Number | float) -> Number:
        return Number(self.a, getattr(self.a, name)(self.like(x).value, self.like(y).value))

    def _one(self, name: str) -> Number:
        return Number(self.a, getattr(self.a, name)(self.value))

    def __add__(self, other: Number | float) -> Number:
        return self._two("add", self, other)

    def __radd__(self, other: float) -> Number:
        return self._two("add", other, self)

    def __sub__(self, other: Number | float) -> Number:
        return self._two("sub", self, other)

    def __rsub__(self, other: float) -> Number:
        return self._two("sub", other, self)

    def __mul__(self, other: Number | float) -> Number:
        return self._two("mul", self, other)

    def __rmul__(self, other: float) -> Number:
        return self._two("mul", other, self)

    def __truediv__(self, other: Number | float) -> Number:
        return self._two("div", self, other)

    def __rtruediv__(self, other: float) -> Number:
        return self._two("div", other, self)

    def __neg__(self) -> Number:
        return self._one("neg")

    def __abs__(self) -> Number:
        return self._one("abs")

    def __lt__(self, other: Number | float) -> Number:
        return self._two("lt", self, other)

    def __le__(self, other: Number | float) -> Number:
        return self._two("le", self, other)

    def __gt__(self, other: Number | float) -> Number:
        return self._two("lt", other, self)

    def __ge__(self, other: Number | float) -> Number:
        return self._two("le", other, self)

    def equals(self, other: Number | float) -> Number:
        """Whether the values are equal (`==` compares Python objects)."""
        return self._two("eq", self, other)

    def differs(self, other: Number | float) -> Number:
        """Whether the values differ; NaN differs from itself."""
        return self._two("ne", self, other)

    def __and__(self, other: Number | int) -> Number:
        return self._two("bit_and", self, other)

    def __or__(self, other: Number | int) -> Number:
        return self._two("bit_or", self, other)

    def __xor__(self, other: Number | int) -> Number:
        return self._two("bit_xor", self, other)

    def __invert__(self) -> Number:
        return self._one("bit_not")

    def exp(self) -> Number:
        """e to the power of the value."""
        return self._one("exp")

    def log(self) -> Number:
        """The natural logarithm."""
        return self._one("log")

    def sqrt(self) -> Number:
        """The square root."""
        return self._one("sqrt")

    def sin(self) -> Number:
        """The sine."""
        return self._one("sin")

    def cos(self) -> Number:
        """The cosine."""
        return self._one("cos")

    def erf(self) -> Number:
        """The error function."""
        return self._one("erf")

    def floor(self) -> Number:
        """The greatest integer not above."""
        return self._one("floor")

    def rint(self) -> Number:
        """The nearest integer, ties to even."""
        return self._one("rint")

    def pow(self, exponent: Number | float) -> Number:
        """The value to the power of `exponent`."""
        return self._two("pow", self, exponent)

    def copysign(self, sign: Number) -> Number:
        """The magnitude with the sign of `sign`."""
        return self._two("copysign", self, sign)

    def remainder(self, other: Number) -> Number:
        """What division rounded down leaves, with the divisor's sign."""
        return self._two("remainder", self, other)

    def convert(self, dtype: DType) -> Number:
        """The value in another type."""
        return Number(self.a, self.a.convert(self.value, dtype))

    def bits(self) -> Number:
        """A float's bits, as int32 or int64."""
        return Number(self.a, self.a.bitcast(self.value, int32 if self.dtype is float32 else int64))

    def from_bits(self, dtype: DType) -> Number:
        """The float that has these bits."""
        return Number(self.a, self.a.bitcast(self.value, dtype))

    def shift_left(self, count: int) -> Number:
        """Shifted by a constant."""
        return Number(self.a, self.a.shift_left(self.value, count))

    def shift_right(self, count: int) -> Number:
        """Shifted by a constant; the sign fills up."""
        return Number(self.a, self.a.shift_right(self.value, count))

    def lookup(self, table: tuple[float, ...]) -> Number:
        """The float32 in this place, an int32, of a table of 2, 4, 8 or 16 numbers; only its lowest bits count."""
        return Number(self.a, self.a.lookup(self.value, table))


def where(condition: Number, x: Number | float, y: Number | float) -> Number:
    """x where the bool `condition` holds, else y; one of them at least is a Number."""
    some = x if isinstance(x, Number) else y
    assert isinstance(some, Number) and condition.dtype is bool_
    return Number(some.a, some.a.select(condition.value, some.like(x).value, some.like(y).value))


def by_type(x: Number, single: Any, double: Any) -> Any:
    """What float32 needs, or what float64 needs."""
    return single if x.dtype is float32 else double


def polynomial(x: Number, coefficients: Sequence[float]) -> Number:
    """The sum of coefficients[i] * x^i, by Horner's rule."""
    result = x.like(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = Number(x.a, x.a.fma(result.value, x.value, x.like(coefficient).value))
    return result


def body(formula: Callable[..., Number]) -> Callable[..., Value]:
    """The formula as a primitive's body."""

    @functools.wraps(formula)
    def read(a: Arithmetic, *values: Value, **attributes: Any) -> Value:
        return formula(*(Number(a, value) for value in values), **attributes).value

    return read
