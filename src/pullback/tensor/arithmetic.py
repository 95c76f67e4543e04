"""Elementwise methods of tensors: operators, functions of one element, comparisons, choice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

import numpy as np

from ..errors import DivisionByZero, DTypeError, ShapeError
from ..graph.node import Node
from ..graph.types import bool_
from ..ops import elementwise as e
from ..ops import pairs
from ..ops.elementwise import Builder
from ..ops.host import detach
from ..ops.indexing import require
from ..ops.primitive import complex_refused, constant, user_source
from . import promotion
from .handle import Handle
from .promotion import Number, Operand, as_node, dtype_of_number, promoted, require_float, result_type

if TYPE_CHECKING:
    from . import Tensor


builtins_bool = bool


def _is_operand(value: object) -> bool:
    return isinstance(value, (Handle, bool, int, float))


def _plain(value: object) -> object:
    """NumPy scalars as Python numbers, arrays as tensors; everything else as it is."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, complex):
        raise complex_refused(value)
    if isinstance(value, np.ndarray):
        from .creation import tensor

        return tensor(value)
    return value


def _known(result: Any, name: str, argument: str, given: object) -> Any:
    """The result of an operator; TypeError where it does not know what it was given."""
    if result is NotImplemented:
        raise TypeError(
            f"{name}(): argument {argument!r} must be a tensor or a number, not {type(given).__name__} "
            f"(at {user_source()})"
        )
    return result


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

    # ---- operators

    def __add__(self, other: Operand) -> Tensor:
        return self._binary(e.add, other)

    def __radd__(self, other: Operand) -> Tensor:
        return self._binary(e.add, other, reverse=True)

    def __sub__(self, other: Operand) -> Tensor:
        _refuse_masks(self, other)
        return self._binary(e.sub, other)

    def __rsub__(self, other: Operand) -> Tensor:
        _refuse_masks(self, other)
        return self._binary(e.sub, other, reverse=True)

    def __mul__(self, other: Operand) -> Tensor:
        return self._binary(_multiply, other)

    def __rmul__(self, other: Operand) -> Tensor:
        return self._binary(_multiply, other, reverse=True)

    def __truediv__(self, other: Operand) -> Tensor:
        return self._binary(e.div, other, floats=True)

    def __rtruediv__(self, other: Operand) -> Tensor:
        return self._binary(e.div, other, reverse=True, floats=True)

    __rdiv__ = __rtruediv__

    def __floordiv__(self, other: Operand) -> Tensor:
        return self._binary(_floor_divide, other)

    def __rfloordiv__(self, other: Operand) -> Tensor:
        return self._binary(_floor_divide, other, reverse=True)

    def __mod__(self, other: Operand) -> Tensor:
        return self._binary(_remainder, other)

    def __rmod__(self, other: Operand) -> Tensor:
        return self._binary(_remainder, other, reverse=True)

    def __pow__(self, other: Operand) -> Tensor:
        return self._to_the(other)

    def __rpow__(self, other: Operand) -> Tensor:
        return self._binary(_power, other, reverse=True)

    def __neg__(self) -> Tensor:
        if self._node.dtype is bool_:
            raise DTypeError(f"-mask of a bool tensor (at {user_source()}): the opposite of a mask is ~mask")
        return self._wrap(e.neg(self.node))

    def __pos__(self) -> Tensor:
        if self._node.dtype is bool_:
            raise DTypeError(f"+mask of a bool tensor (at {user_source()}): a mask has no sign; use .int()")
        return self  # type: ignore[return-value]

    def __abs__(self) -> Tensor:
        return self.abs()  # type: ignore[attr-defined]

    def __invert__(self) -> Tensor:
        return self._wrap(e.bit_not(self.node))

    def __and__(self, other: Operand) -> Tensor:
        return self._binary(e.bit_and, other)

    def __or__(self, other: Operand) -> Tensor:
        return self._binary(e.bit_or, other)

    def __xor__(self, other: Operand) -> Tensor:
        return self._binary(e.bit_xor, other)

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def __lshift__(self, other: Operand) -> Tensor:
        return self._binary(pairs.shift_left_by, other)

    def __rlshift__(self, other: Operand) -> Tensor:
        return self._binary(pairs.shift_left_by, other, reverse=True)

    def __rshift__(self, other: Operand) -> Tensor:
        return self._binary(pairs.shift_right_by, other)

    def __rrshift__(self, other: Operand) -> Tensor:
        return self._binary(pairs.shift_right_by, other, reverse=True)

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

    # ---- the same under their names. As functions they take a number in the first place too.

    def add(self, other: Operand, *, alpha: Number = 1) -> Tensor:
        """self + alpha * other."""
        return self + (other if alpha == 1 else _scaled("add", self, other, alpha))

    def sub(self, other: Operand, *, alpha: Number = 1) -> Tensor:
        """self - alpha * other."""
        return self - (other if alpha == 1 else _scaled("sub", self, other, alpha))

    def rsub(self, other: Operand, *, alpha: Number = 1) -> Tensor:
        """other - alpha * self."""
        return other - (self if alpha == 1 else _scaled("rsub", other, self, alpha))

    def mul(self, other: Operand) -> Tensor:
        """self * other."""
        return self * other

    def div(self, other: Operand, *, rounding_mode: str | None = None) -> Tensor:
        """self / other; `rounding_mode` None, "floor" or "trunc". Rounding integers raises where `other` is 0."""
        if rounding_mode not in (None, "floor", "trunc"):
            raise ValueError(f'div: rounding_mode must be None, "floor" or "trunc", got {rounding_mode!r}')
        if rounding_mode == "floor":
            return self // other
        if rounding_mode == "trunc":
            return _two(_truncated_quotient, self, other)
        return self / other

    def floor_divide(self, other: Operand) -> Tensor:
        """self / other rounded down. Integers raise DivisionByZero where `other` is 0."""
        return self // other

    def remainder(self, other: Operand) -> Tensor:
        """What division rounded down leaves, with the sign of `other` (Python's %). Integers raise at a zero."""
        return self % other

    def fmod(self, other: Operand) -> Tensor:
        """What division rounded toward zero leaves, with the sign of `self`. Integers raise at a zero."""
        return _two(_fmod, self, other)

    def neg(self) -> Tensor:
        """-self."""
        return -self

    def positive(self) -> Tensor:
        """The tensor itself, which is not of bool."""
        return +self

    multiply, divide, true_divide, subtract, negative = mul, div, div, sub, neg

    def eq(self, other: Operand) -> Tensor:
        """self == other, element by element."""
        return _known(self == other if _is_operand(_plain(other)) else NotImplemented, "eq", "other", other)

    def ne(self, other: Operand) -> Tensor:
        """self != other, element by element."""
        return _known(self != other if _is_operand(_plain(other)) else NotImplemented, "ne", "other", other)

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

    greater, greater_equal, less, less_equal, not_equal = gt, ge, lt, le, ne

    def logical_not(self) -> Tensor:
        """True where the element is zero."""
        return self._wrap(e.bit_not(e.convert(self.node, bool_)))

    def logical_and(self, other: Operand) -> Tensor:
        """True where both elements are not zero."""
        return self._logical(e.bit_and, other)

    def logical_or(self, other: Operand) -> Tensor:
        """True where either element is not zero."""
        return self._logical(e.bit_or, other)

    def logical_xor(self, other: Operand) -> Tensor:
        """True where one element is zero and the other is not."""
        return self._logical(e.bit_xor, other)

    def _logical(self, build: Builder, other: Operand) -> Tensor:
        x, y = (as_node(o, o.dtype if isinstance(o, Handle) else dtype_of_number(o)) for o in (self, other))
        return self._wrap(build(e.convert(x, bool_), e.convert(y, bool_)))

    def bitwise_not(self) -> Tensor:
        """Each bit inverted; of a bool the opposite."""
        return ~self

    def bitwise_and(self, other: Operand) -> Tensor:
        """The bits that both have."""
        return self & other

    def bitwise_or(self, other: Operand) -> Tensor:
        """The bits that either has."""
        return self | other

    def bitwise_xor(self, other: Operand) -> Tensor:
        """The bits that one of the two has."""
        return self ^ other

    def bitwise_left_shift(self, other: Operand) -> Tensor:
        """Integers shifted left by `other` bits; 0 where that is their width or more."""
        return self << other

    def bitwise_right_shift(self, other: Operand) -> Tensor:
        """Integers shifted right by `other` bits; the sign fills up."""
        return self >> other

    # ---- powers

    def pow(self, exponent: Operand) -> Tensor:
        """self to the power of `exponent`; small whole exponents by multiplication."""
        exponent = _plain(exponent)  # type: ignore[assignment]
        if not isinstance(self, Handle):
            return _two(_power, self, exponent)
        return _known(self._to_the(exponent), "pow", "exponent", exponent)

    def _to_the(self, exponent: Operand) -> Tensor:
        exponent = _plain(exponent)  # type: ignore[assignment]
        if isinstance(exponent, (int, float)) and not isinstance(exponent, bool):
            dtype = result_type(self, exponent)
            if exponent in (2, 3):
                x = e.convert(self.node, dtype)
                return self._wrap(e.mul(x, x) if exponent == 2 else e.mul(e.mul(x, x), x))
            if exponent == 1:
                return self._wrap(e.convert(self.node, dtype))
            if exponent == 0.5 and dtype.is_floating_point:
                return self.sqrt()  # type: ignore[attr-defined]
            if not dtype.is_floating_point and exponent < 0:
                raise DTypeError(
                    f"integers to a negative power ({exponent}) are not integers (at {user_source()}); use .float()"
                )
        if isinstance(exponent, bool) and self.dtype is bool_:
            return self | (not exponent)
        return self._binary(_power, exponent)

    # ---- choice

    def relu(self) -> Tensor:
        """The element where positive, else 0; NaN stays NaN. The gradient at 0 is 0."""
        zero = constant(0, self.dtype)
        return self._wrap(e.where(e.le(self.node, zero), zero, self.node))

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

    def clamp_min(self, min: Operand) -> Tensor:
        """Each element at least `min`."""
        return self.clamp(min=min)

    def clamp_max(self, max: Operand) -> Tensor:
        """Each element at most `max`."""
        return self.clamp(max=max)

    def where(self, condition: Tensor, other: Operand) -> Tensor:
        """self where `condition` holds, else `other`."""
        return where(condition, self, other)

    def masked_fill(self, mask: Tensor, value: Operand) -> Tensor:
        """`value` where the bool `mask` holds, else self, in self's dtype."""
        if mask.dtype is not bool_:
            raise DTypeError(f"masked_fill: the mask must be bool, got {mask.dtype.name} (at {user_source()})")
        if isinstance(value, Handle) and value.ndim:
            raise ShapeError(
                f"masked_fill: the value must be a number or a tensor without axes, got shape {list(value.shape)} "
                f"(at {user_source()}); use where() for one value an element"
            )
        if isinstance(value, complex):
            raise complex_refused(value)
        return self._wrap(e.where(mask.node, promotion.as_node(value, self.dtype), self.node))


def _two(build: Builder, x: Operand, y: Operand, floats: builtins_bool = False) -> Tensor:
    """`build` on two operands in their common dtype, one of them a tensor; with `floats` a float."""
    left, right = promoted(x, y, at_least=promotion.get_default_dtype() if floats else None)
    return Handle._wrap(build(left, right))


def _refuse_masks(x: Handle, y: object) -> None:
    """Raise DTypeError where a bool would be subtracted, or subtracted from, which PyTorch refuses too."""
    if isinstance(y, Handle):
        is_mask = y._node.dtype is bool_
    else:
        is_mask = isinstance(y, builtins_bool) or (isinstance(y, (np.ndarray, np.generic)) and y.dtype == builtins_bool)
    if is_mask and x._node.dtype is bool_:
        raise DTypeError(f"a bool minus a bool (at {user_source()}): where two masks differ is mask ^ other")
    if is_mask or x._node.dtype is bool_:
        raise DTypeError(
            f"a subtraction with a bool tensor (at {user_source()}): the opposite of a mask, 1 - mask, is ~mask; as "
            "numbers it is mask.to(dtype)"
        )


def _scaled(name: str, x: Operand, y: Operand, factor: Number) -> Tensor:
    """`y` times `factor`, which may not be of a higher category than the result, as PyTorch has it."""
    dtype = result_type(x, y)
    if dtype_of_number(factor).category > dtype.category:
        raise DTypeError(
            f"{name}: alpha = {factor!r} is no {dtype.name}, which the result is (at {user_source()}); convert first"
        )
    scaled = _multiply(as_node(y, dtype), constant(factor, dtype))
    # a tensor of the dtype that y counted as, so that promotion goes as without alpha
    return Handle._wrap(scaled)


def _divisor(name: str, x: Node, y: Node) -> Node:
    """`y`, by which `x` is divided: where they are integers, computing it raises DivisionByZero for a zero in it."""
    if y.dtype.is_floating_point or 0 in e.broadcast_shapes(name, x.shape, y.shape):
        return y
    zero, one = constant(0, y.dtype), constant(1, y.dtype)
    said = f"{name}: an integer is divided by 0"
    if y.op.name == "constant":
        if not y["value"]:
            raise DivisionByZero(f"{said} (at {user_source()})")
        return y
    mark = require(e.ne(y, zero), DivisionByZero, f"{said}, which the divisor {y.dtype.name}{list(y.shape)} holds")
    return e.where(e.eq(mark, constant(0, mark.dtype)), y, one)


def _floor_divide(x: Node, y: Node) -> Node:
    return e.floor_divide(x, _divisor("floor_divide", x, y))


def _remainder(x: Node, y: Node) -> Node:
    return e.remainder(x, _divisor("remainder", x, y))


def _fmod(x: Node, y: Node) -> Node:
    return pairs.fmod(x, _divisor("fmod", x, y))


def _truncated_quotient(x: Node, y: Node) -> Node:
    if x.dtype.is_floating_point:
        return e.trunc(e.div(x, y))
    y = _divisor("div", x, y)
    quotient, zero = e.floor_divide(x, y), constant(0, x.dtype)
    rest = e.remainder(x, y)
    below = e.bit_and(e.ne(rest, zero), e.bit_xor(e.lt(x, zero), e.lt(y, zero)))
    return e.where(below, e.add(quotient, constant(1, x.dtype)), quotient)


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
    bits = x.dtype.itemsize * 8 - (not x.dtype.is_unsigned)
    for bit in range(bits):
        odd = e.bit_and(e.shift_right(y, bit) if bit else y, one)
        result = e.mul(result, e.where(e.eq(odd, zero), one, square))
        square = e.mul(square, square)
    if x.dtype.is_unsigned:
        return result
    # a negative power of 1 or -1 is one of them; of any other integer it is cut to 0
    unit = e.where(e.eq(e.mul(x, x), one), e.where(e.eq(e.bit_and(y, one), zero), one, x), zero)
    return e.where(e.lt(y, zero), unit, result)


@overload
def where(condition: Tensor) -> tuple[Tensor, ...]: ...
@overload
def where(condition: Tensor, input: Operand, other: Operand) -> Tensor: ...
def where(condition: Tensor, input: Operand | None = None, other: Operand | None = None) -> Tensor | tuple[Tensor, ...]:
    """`input` where `condition` holds, else `other`; all three broadcast.

    Of a condition alone, `nonzero(as_tuple=True)`.

    >>> pb.where(pb.tensor([True, False]), 1.0, 2.0)
    tensor([1., 2.])
    """
    if input is None and other is None and isinstance(condition, Handle):
        return condition.nonzero(as_tuple=True)
    if input is None or other is None:
        raise TypeError(f"where takes a condition alone or with both input and other (at {user_source()})")
    if not isinstance(condition, Handle) or condition.dtype is not bool_:
        raise DTypeError(f"where: the condition must be a bool tensor, got {condition!r} (at {user_source()})")
    left, right = promoted(input, other)
    return condition._wrap(e.where(condition.node, left, right))


__all__ = ["ArithmeticMethods", "require_float", "where"]
