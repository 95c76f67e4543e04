"""The abstract arithmetic that elementwise bodies are written against, and its reading in NumPy.

An elementwise operation's body is a function `body(a, *values, **attributes)` in which `a` is an arithmetic: it builds
the result from `a`'s methods and never looks inside a value. The same body is read by `NumPyArithmetic` (the
reference), by `codegen.arithmetic.LLVMArithmetic` (native code, scalar or vector) and later by another compiler.

A body sees values of the compute types only (bool, the integers, float32, float64): whoever runs it widens the 16-bit
floats to float32 first and rounds the result afterwards. All operands of one method have one dtype, except where
stated.
"""

from __future__ import annotations

from collections.abc import Callable
from math import erf
from typing import Any, Protocol

import numpy as np

from ..graph.types import FLOAT, DType, bool_, from_numpy, uint32, uint64

Value = Any


class Arithmetic(Protocol):
    """What a body may do. `Value` is opaque; `dtype(value)` tells its element type."""

    def dtype(self, x: Value) -> DType: ...
    def constant(self, value: float | int | bool, dtype: DType) -> Value:
        """A number of the given type, the same in every lane."""

    def convert(self, x: Value, dtype: DType) -> Value:
        """The value in another type: to bool is `x != 0`; float to integer truncates toward zero."""

    def bitcast(self, x: Value, dtype: DType) -> Value:
        """The same bits as another type of the same size."""

    # floats and integers
    def add(self, x: Value, y: Value) -> Value: ...
    def sub(self, x: Value, y: Value) -> Value: ...
    def mul(self, x: Value, y: Value) -> Value: ...
    def div(self, x: Value, y: Value) -> Value:
        """True division of floats."""

    def floor_divide(self, x: Value, y: Value) -> Value:
        """Rounds toward minus infinity, for floats and integers; an integer divided by zero gives 0."""

    def remainder(self, x: Value, y: Value) -> Value:
        """What floor_divide leaves, with the sign of the divisor (Python's %); an integer modulo zero gives 0."""

    def neg(self, x: Value) -> Value: ...
    def abs(self, x: Value) -> Value: ...
    def minimum(self, x: Value, y: Value) -> Value:
        """The lesser; NaN where either is NaN."""

    def maximum(self, x: Value, y: Value) -> Value:
        """The greater; NaN where either is NaN."""

    # floats only
    def fma(self, x: Value, y: Value, z: Value) -> Value:
        """x * y + z; native code rounds once."""

    def sqrt(self, x: Value) -> Value: ...
    def floor(self, x: Value) -> Value: ...
    def ceil(self, x: Value) -> Value: ...
    def trunc(self, x: Value) -> Value: ...
    def rint(self, x: Value) -> Value:
        """Nearest integer, ties to even."""

    def copysign(self, magnitude: Value, sign: Value) -> Value: ...
    def exp(self, x: Value) -> Value: ...
    def log(self, x: Value) -> Value: ...
    def sin(self, x: Value) -> Value: ...
    def cos(self, x: Value) -> Value: ...
    def tanh(self, x: Value) -> Value: ...
    def erf(self, x: Value) -> Value: ...
    def pow(self, x: Value, y: Value) -> Value: ...

    # comparisons, to bool; NaN compares unequal to everything
    def eq(self, x: Value, y: Value) -> Value: ...
    def ne(self, x: Value, y: Value) -> Value: ...
    def lt(self, x: Value, y: Value) -> Value: ...
    def le(self, x: Value, y: Value) -> Value: ...

    # bits: bool or integers
    def bit_and(self, x: Value, y: Value) -> Value: ...
    def bit_or(self, x: Value, y: Value) -> Value: ...
    def bit_xor(self, x: Value, y: Value) -> Value: ...
    def bit_not(self, x: Value) -> Value: ...
    def shift_left(self, x: Value, count: int) -> Value: ...
    def shift_right(self, x: Value, count: int) -> Value:
        """By a constant; fills with the sign for signed types, with zeros for unsigned ones."""

    def multiply_high(self, x: Value, y: Value) -> Value:
        """The upper 32 bits of the product of two uint32."""

    def select(self, condition: Value, x: Value, y: Value) -> Value:
        """x where the bool `condition` holds, else y."""

    def lookup(self, x: Value, table: tuple[float, ...]) -> Value:
        """The float32 in place x of a table of 2, 4, 8 or 16 numbers; x is int32, and only its lowest bits count."""


def _quiet(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` without NumPy's warnings: infinities and NaN are values here, not faults."""

    def run(_: NumPyArithmetic, *args: Value) -> Value:
        with np.errstate(all="ignore"):
            return function(*args)

    return run


class NumPyArithmetic:
    """The reference reading: every method is NumPy's own function of the same meaning."""

    def dtype(self, x: np.ndarray) -> DType:
        found = from_numpy(np.asarray(x).dtype)
        assert found is not None, f"no dtype for {np.asarray(x).dtype}"
        return found

    def constant(self, value: float | int | bool, dtype: DType) -> Value:
        return np.asarray(value).astype(dtype.carrier)

    def convert(self, x: Value, dtype: DType) -> Value:
        with np.errstate(all="ignore"):
            if dtype is not bool_ and dtype.category != FLOAT and np.asarray(x).dtype.kind == "f":
                # through int64, so that -1.0 to uint8 is 255 on every machine
                whole = np.asarray(x).astype(np.int64).astype(dtype.carrier)
                if dtype is not uint64:
                    return whole
                return np.where(np.asarray(x) >= 2.0**63, np.asarray(x).astype(np.uint64), whole)
            return np.asarray(x).astype(dtype.carrier)

    def bitcast(self, x: Value, dtype: DType) -> Value:
        return np.ascontiguousarray(x).view(dtype.carrier).reshape(np.shape(x))

    add = _quiet(lambda x, y: np.logical_or(x, y) if np.asarray(x).dtype == bool else np.add(x, y))
    sub = _quiet(np.subtract)
    mul = _quiet(np.multiply)
    div = _quiet(np.divide)
    floor_divide = _quiet(np.floor_divide)
    remainder = _quiet(np.remainder)
    neg = _quiet(np.negative)
    abs = _quiet(np.abs)
    minimum = _quiet(np.minimum)
    maximum = _quiet(np.maximum)
    fma = _quiet(lambda x, y, z: x * y + z)
    sqrt = _quiet(np.sqrt)
    floor = _quiet(np.floor)
    ceil = _quiet(np.ceil)
    trunc = _quiet(np.trunc)
    rint = _quiet(np.rint)
    copysign = _quiet(np.copysign)
    exp = _quiet(np.exp)
    log = _quiet(np.log)
    sin = _quiet(np.sin)
    cos = _quiet(np.cos)
    tanh = _quiet(np.tanh)
    pow = _quiet(np.power)
    eq = _quiet(np.equal)
    ne = _quiet(np.not_equal)
    lt = _quiet(np.less)
    le = _quiet(np.less_equal)
    bit_and = _quiet(np.bitwise_and)
    bit_or = _quiet(np.bitwise_or)
    bit_xor = _quiet(np.bitwise_xor)
    bit_not = _quiet(np.invert)
    select = _quiet(np.where)

    def erf(self, x: Value) -> Value:
        return _erf(np.asarray(x, np.float64)).astype(np.asarray(x).dtype)

    def shift_left(self, x: Value, count: int) -> Value:
        return np.left_shift(x, np.asarray(x).dtype.type(count))

    def shift_right(self, x: Value, count: int) -> Value:
        return np.right_shift(x, np.asarray(x).dtype.type(count))

    def lookup(self, x: Value, table: tuple[float, ...]) -> Value:
        return np.asarray(table, np.float32)[np.bitwise_and(x, len(table) - 1)]

    def multiply_high(self, x: Value, y: Value) -> Value:
        return ((np.asarray(x, np.uint64) * np.asarray(y, np.uint64)) >> np.uint64(32)).astype(uint32.carrier)


def _erf(x: np.ndarray) -> np.ndarray:
    """The error function in float64; NumPy has none, so Python's, element by element."""
    return np.vectorize(erf, otypes=[np.float64])(x)
