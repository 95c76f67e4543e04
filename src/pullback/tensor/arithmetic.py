"""Elementwise methods of tensors: operators, functions of one element, comparisons, choice."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DTypeError
from ..graph import types
from ..graph.node import Node
from ..graph.types import BOOL, FLOAT, bool_
from ..ops import elementwise as e
from ..ops.elementwise import Builder
from ..ops.host import detach, identity
from ..ops.primitive import constant, user_source
from . import promotion
from .handle import Handle
from .promotion import Number, Operand, promoted, require_float, result_type

if TYPE_CHECKING:
    from . import Tensor


def _is_operand(value: object) -> bool:
    return isinstance(value, (Handle, bool, int, float))


def _plain(value: object) -> object:
    """NumPy scalars as Python numbers, arrays as tensors; everything else as it is."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        from .creation import tensor

        return tensor(value)
    return value


class ArithmeticMethods(Handle):
    """What works element by element, broadcasting and promoting dtypes as PyTorch does."""

    __slots__ = ()

    def _binary(self, build: Builder, other: object, reverse: bool = False, floats: bool = False) -> Any:
        other = _plain(other)
        if not _is_operand(other):
            return NotImplemented
        at_least = promotion.get_default_dtype() if floats else None
        x, y = promoted(self, other, at_least=at_least)  # type: ignore[arg-type]
        return self._wrap(build(y, x) if reverse else build(x, y))

    def _function(self, build: Builder) -> Tensor:
        """A function of floats; integers become the default float first."""
        (x,) = promoted(self, at_least=promotion.get_default_dtype())
        return self._wrap(build(x))

    # ---- operators

    def __add__(self, other: Operand) -> Tensor:
        return self._binary(e.add, other)

    def __radd__(self, other: Operand) -> Tensor:
        return self._binary(e.add, other, reverse=True)

    def __sub__(self, other: Operand) -> Tensor:
        return self._binary(e.sub, other)

    def __rsub__(self, other: Operand) -> Tensor:
        return self._binary(e.sub, other, reverse=True)

    def __mul__(self, other: Operand) -> Tensor:
        return self._binary(_multiply, other)

    def __rmul__(self, other: Operand) -> Tensor:
        return self._binary(_multiply, other, reverse=True)

    def __truediv__(self, other: Operand) -> Tensor:
        return self._binary(e.div, other, floats=True)

    def __rtruediv__(self, other: Operand) -> Tensor:
        return self._binary(e.div, other, reverse=True, floats=True)

    def __floordiv__(self, other: Operand) -> Tensor:
        return self._binary(e.floor_divide, other)

    def __rfloordiv__(self, other: Operand) -> Tensor:
        return self._binary(e.floor_divide, other, reverse=True)

    def __mod__(self, other: Operand) -> Tensor:
        return self._binary(e.remainder, other)

    def __rmod__(self, other: Operand) -> Tensor:
        return self._binary(e.remainder, other, reverse=True)

    def __pow__(self, other: Operand) -> Tensor:
        return self.pow(other)

    def __rpow__(self, other: Operand) -> Tensor:
        return self._binary(_power, other, reverse=True)

    def __neg__(self) -> Tensor:
        return self._wrap(e.neg(self.node))

    def __pos__(self) -> Tensor:
        return self._wrap(identity(self.node))

    def __abs__(self) -> Tensor:
        return self.abs()

    def __invert__(self) -> Tensor:
        return self._wrap(e.bit_not(self.node))

    def __and__(self, other: Operand) -> Tensor:
        return self._binary(e.bit_and, other)

    def __or__(self, other: Operand) -> Tensor:
        return self._binary(e.bit_or, other)

    def __xor__(self, other: Operand) -> Tensor:
        return self._binary(e.bit_xor, other)

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return self._binary(e.eq, other)

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return self._binary(e.ne, other)

    def __lt__(self, other: Operand) -> Tensor:
        return self._binary(e.lt, other)

    def __le__(self, other: Operand) -> Tensor:
        return self._binary(e.le, other)

    def __gt__(self, other: Operand) -> Tensor:
        return self._binary(e.lt, other, reverse=True)

    def __ge__(self, other: Operand) -> Tensor:
        return self._binary(e.le, other, reverse=True)

    __hash__ = object.__hash__

    # ---- the same under their names

    def add(self, other: Operand, *, alpha: Number = 1) -> Tensor:
        """self + alpha * other."""
        return self + (other if alpha == 1 else _scaled(other, alpha))

    def sub(self, other: Operand, *, alpha: Number = 1) -> Tensor:
        """self - alpha * other."""
        return self - (other if alpha == 1 else _scaled(other, alpha))

    def mul(self, other: Operand) -> Tensor:
        """self * other."""
        return self * other

    def div(self, other: Operand, *, rounding_mode: str | None = None) -> Tensor:
        """self / other; `rounding_mode` None, "floor" or "trunc"."""
        if rounding_mode not in (None, "floor", "trunc"):
            raise ValueError(f'div: rounding_mode must be None, "floor" or "trunc", got {rounding_mode!r}')
        if rounding_mode == "floor":
            return self // other
        quotient = self / other
        if rounding_mode is None:
            return quotient
        return quotient.trunc().to(result_type(self, other))

    def neg(self) -> Tensor:
        """-self."""
        return -self

    def eq(self, other: Operand) -> Tensor:
        """self == other, element by element."""
        return self == other

    def ne(self, other: Operand) -> Tensor:
        """self != other, element by element."""
        return self != other

    def lt(self, other: Operand) -> Tensor:
        """self < other."""
        return self < other

    def le(self, other: Operand) -> Tensor:
        """self <= other."""
        return self <= other

    def gt(self, other: Operand) -> Tensor:
        """self > other."""
        return self > other

    def ge(self, other: Operand) -> Tensor:
        """self >= other."""
        return self >= other

    def logical_not(self) -> Tensor:
        """True where the element is zero."""
        return self._wrap(e.bit_not(e.convert(self.node, bool_)))

    def logical_and(self, other: Operand) -> Tensor:
        """True where both elements are not zero."""
        return self._logical(e.bit_and, other)

    def logical_or(self, other: Operand) -> Tensor:
        """True where either element is not zero."""
        return self._logical(e.bit_or, other)

    def _logical(self, build: Builder, other: Operand) -> Tensor:
        x, y = promoted(self, other)
        return self._wrap(build(e.convert(x, bool_), e.convert(y, bool_)))

    # ---- functions of one element

    def abs(self) -> Tensor:
        """The absolute value."""
        return self._wrap(self.node if self.dtype.category == BOOL else e.absolute(self.node))

    def exp(self) -> Tensor:
        """e to the power of each element."""
        return self._function(e.exp)

    def log(self) -> Tensor:
        """The natural logarithm; NaN below 0."""
        return self._function(e.log)

    def sqrt(self) -> Tensor:
        """The square root; NaN below 0."""
        return self._function(e.sqrt)

    def rsqrt(self) -> Tensor:
        """1 / sqrt."""
        return self._function(lambda x: e.div(constant(1.0, x.dtype), e.sqrt(x)))

    def sin(self) -> Tensor:
        """The sine of radians."""
        return self._function(e.sin)

    def cos(self) -> Tensor:
        """The cosine of radians."""
        return self._function(e.cos)

    def tanh(self) -> Tensor:
        """The hyperbolic tangent."""
        return self._function(e.tanh)

    def sigmoid(self) -> Tensor:
        """1 / (1 + exp(-x))."""
        return self._function(e.sigmoid)

    def erf(self) -> Tensor:
        """The error function."""
        return self._function(e.erf)

    def reciprocal(self) -> Tensor:
        """1 / x."""
        return 1 / self

    def square(self) -> Tensor:
        """x * x."""
        return self * self

    def relu(self) -> Tensor:
        """The element where positive, else 0; NaN stays NaN. The gradient at 0 is 0."""
        zero = constant(0, self.dtype)
        return self._wrap(e.where(e.le(self.node, zero), zero, self.node))

    def sign(self) -> Tensor:
        """-1, 0 or 1."""
        return self._wrap(e.sign(self.node))

    def _rounded(self, build: Builder) -> Tensor:
        return self._wrap(build(self.node) if self.dtype.category == FLOAT else self.node)

    def floor(self) -> Tensor:
        """The greatest integer not above."""
        return self._rounded(e.floor)

    def ceil(self) -> Tensor:
        """The least integer not below."""
        return self._rounded(e.ceil)

    def trunc(self) -> Tensor:
        """The integer part."""
        return self._rounded(e.trunc)

    def round(self) -> Tensor:
        """The nearest integer, ties to even."""
        return self._rounded(e.rint)

    def isnan(self) -> Tensor:
        """True where the element is not a number."""
        return self._wrap(e.ne(self.node, self.node))

    def isinf(self) -> Tensor:
        """True where the element is an infinity."""
        if not self.dtype.is_floating_point:
            return self.isnan()
        return self.abs() == math.inf

    def isfinite(self) -> Tensor:
        """True where the element is neither an infinity nor NaN."""
        return ~(self.isnan() | self.isinf())

    def pow(self, exponent: Operand) -> Tensor:
        """self to the power of `exponent`; small whole exponents by multiplication."""
        exponent = _plain(exponent)  # type: ignore[assignment]
        if isinstance(exponent, (int, float)) and not isinstance(exponent, bool):
            dtype = result_type(self, exponent)
            if exponent in (2, 3):
                x = e.convert(self.node, dtype)
                return self._wrap(e.mul(x, x) if exponent == 2 else e.mul(e.mul(x, x), x))
            if exponent == 1:
                return self._wrap(e.convert(self.node, dtype))
            if exponent == 0.5 and dtype.is_floating_point:
                return self.sqrt()
            if not dtype.is_floating_point and exponent < 0:
                raise DTypeError(
                    f"integers to a negative power ({exponent}) are not integers (at {user_source()}); use .float()"
                )
        return self._binary(_power, exponent)

    # ---- choice

    def minimum(self, other: Tensor) -> Tensor:
        """The lesser of two elements; NaN where either is."""
        return self._binary(e.minimum, other)

    def maximum(self, other: Tensor) -> Tensor:
        """The greater of two elements; NaN where either is."""
        return self._binary(e.maximum, other)

    def clamp(self, min: Operand | None = None, max: Operand | None = None) -> Tensor:
        """Each element brought into [min, max]; the gradient passes where it was inside."""
        if min is None and max is None:
            raise ValueError(f"clamp: at least one of min and max must be given (at {user_source()})")
        result: ArithmeticMethods = self
        if min is not None:
            x, low = promoted(result, min)
            result = self._wrap(e.where(e.le(low, x), x, _unless_nan(x, low)))
        if max is not None:
            x, high = promoted(result, max)
            result = self._wrap(e.where(e.le(x, high), x, _unless_nan(x, high)))
        return result  # type: ignore[return-value]

    clip = clamp

    def where(self, condition: Tensor, other: Operand) -> Tensor:
        """self where `condition` holds, else `other`."""
        return where(condition, self, other)

    def masked_fill(self, mask: Tensor, value: Operand) -> Tensor:
        """`value` where the bool `mask` holds, else self, in self's dtype."""
        if mask.dtype is not bool_:
            raise DTypeError(f"masked_fill: the mask must be bool, got {mask.dtype.name} (at {user_source()})")
        return self._wrap(e.where(mask.node, promotion.as_node(value, self.dtype), self.node))

    # ---- types

    def to(self, *args: Any, dtype: types.DType | None = None, device: str | None = None, copy: bool = False) -> Tensor:
        """The tensor in another dtype. Devices are accepted for code written for PyTorch; there is only the CPU."""
        for argument in args:
            if isinstance(argument, types.DType):
                dtype = argument
            elif isinstance(argument, Handle):
                dtype = argument.dtype
            elif isinstance(argument, str):
                device = argument
            else:
                raise TypeError(f"to() takes a dtype, a device or a tensor, got {argument!r}")
        if device not in (None, "cpu"):
            raise ValueError(f'to(): device {device!r} is not there; Pullback runs on "cpu"')
        if dtype is None or dtype is self.dtype:
            return self.clone() if copy else self  # type: ignore[return-value]
        return self._wrap(e.convert(self.node, dtype))

    def clone(self) -> Tensor:
        """A tensor of the same value that changes on its own; gradients pass through."""
        return self._wrap(identity(self.node))

    def float(self) -> Tensor:
        """As float32."""
        return self.to(types.float32)

    def double(self) -> Tensor:
        """As float64."""
        return self.to(types.float64)

    def half(self) -> Tensor:
        """As float16."""
        return self.to(types.float16)

    def bfloat16(self) -> Tensor:
        """As bfloat16."""
        return self.to(types.bfloat16)

    def int(self) -> Tensor:
        """As int32, cut toward zero."""
        return self.to(types.int32)

    def long(self) -> Tensor:
        """As int64, cut toward zero."""
        return self.to(types.int64)

    def bool(self) -> Tensor:
        """True where not zero."""
        return self.to(types.bool_)

    def type_as(self, other: Tensor) -> Tensor:
        """In the dtype of `other`."""
        return self.to(other.dtype)

    def is_floating_point(self) -> builtins_bool:
        """Whether the dtype is a float."""
        return self.dtype.is_floating_point


builtins_bool = bool


def _scaled(operand: Operand, factor: Number) -> Operand:
    return operand._wrap(_multiply(*promoted(operand, factor))) if isinstance(operand, Handle) else operand * factor


def _multiply(x: Node, y: Node) -> Node:
    return e.bit_and(x, y) if x.dtype is bool_ else e.mul(x, y)


def _unless_nan(x: Node, bound: Node) -> Node:
    """`bound`, or where x is NaN a NaN that no gradient goes through."""
    return e.where(e.ne(x, x), detach(x), bound) if x.dtype.is_floating_point else bound


def _power(x: Node, y: Node) -> Node:
    if x.dtype.is_floating_point:
        return e.power(x, y)
    # by squaring, so that what is too large wraps around as in every other product of integers
    zero, one = constant(0, x.dtype), constant(1, x.dtype)
    result, square = one, x
    bits = x.dtype.itemsize * 8 - (x.dtype is not types.uint8)
    for bit in range(bits):
        odd = e.bit_and(e.shift_right(y, bit) if bit else y, one)
        result = e.mul(result, e.where(e.eq(odd, zero), one, square))
        square = e.mul(square, square)
    if x.dtype is types.uint8:
        return result
    # a negative power of 1 or -1 is one of them; of any other integer it is cut to 0
    unit = e.where(e.eq(e.mul(x, x), one), e.where(e.eq(e.bit_and(y, one), zero), one, x), zero)
    return e.where(e.lt(y, zero), unit, result)


def where(condition: Tensor, x: Operand, y: Operand) -> Tensor:
    """x where `condition` holds, else y; all three broadcast.

    >>> pb.where(pb.tensor([True, False]), 1.0, 2.0)
    tensor([1., 2.])
    """
    if not isinstance(condition, Handle) or condition.dtype is not bool_:
        raise DTypeError(f"where: the condition must be a bool tensor, got {condition!r} (at {user_source()})")
    left, right = promoted(x, y)
    return condition._wrap(e.where(condition.node, left, right))


__all__ = ["ArithmeticMethods", "require_float", "where"]
