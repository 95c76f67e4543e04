"""Which dtype an operation on several operands is done in: PyTorch's rules.

Operands stand in three ranks: tensors with axes, tensors of shape (), Python numbers. A lower rank only matters where
its category (bool < integer < float) is higher than all the ranks above it have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Union

from ..errors import DTypeError
from ..graph import types
from ..graph.node import Node
from ..graph.types import DType
from ..ops.elementwise import convert
from ..ops.primitive import check_dtype, complex_refused, constant, user_source

if TYPE_CHECKING:
    from .handle import Handle

Number = bool | int | float
Operand = Union["Handle", Number]


class Default:
    """The dtype that floats get where nothing else says."""

    floating = types.float32


def get_default_dtype() -> DType:
    """The dtype of new floating-point tensors."""
    return Default.floating


def set_default_dtype(dtype: DType) -> None:
    """Make `dtype` (float32 or float64) the dtype of new floating-point tensors."""
    check_dtype(dtype)
    if dtype not in (types.float32, types.float64):
        raise DTypeError(f"the default dtype must be float32 or float64, got {dtype!r}")
    Default.floating = dtype


def dtype_of_number(value: Number) -> DType:
    """The dtype that a Python number alone becomes."""
    if isinstance(value, bool):
        return types.bool_
    return types.int64 if isinstance(value, int) else Default.floating


def result_type(*operands: Operand) -> DType:
    """The dtype in which an operation on `operands` is done."""
    ranks: list[DType | None] = [None, None, None]
    for operand in operands:
        if isinstance(operand, (bool, int, float)):
            rank, dtype = 2, dtype_of_number(operand)
        else:
            try:
                rank, dtype = (0 if operand._node.shape else 1), operand.dtype
            except AttributeError:
                raise _no_operand(operand) from None
        before = ranks[rank]
        ranks[rank] = dtype if before is None else types.promote(before, dtype)
    result: DType | None = None
    for found in ranks:
        if found is not None and (result is None or found.category > result.category):
            result = found
    assert result is not None
    return result


def _no_operand(given: object) -> TypeError:
    if isinstance(given, complex):
        return complex_refused(given)
    return TypeError(f"a tensor or a number was expected, got {type(given).__name__} {given!r} (at {user_source()})")


def as_node(operand: Operand, dtype: DType) -> Node:
    """The operand as a node of `dtype`."""
    if isinstance(operand, (bool, int, float)):
        return constant(operand, dtype)
    return convert(operand.node, dtype)


def promoted(*operands: Operand, at_least: DType | None = None) -> list[Node]:
    """The operands as nodes of their common dtype; with `at_least` a float, integers become that float."""
    dtype = result_type(*operands)
    if at_least is not None and dtype.category < at_least.category:
        dtype = at_least
    return [as_node(operand, dtype) for operand in operands]


def require_float(name: str, operand: Handle) -> None:
    """Raise DTypeError where `operand` is not floating point."""
    if not operand.dtype.is_floating_point:
        raise DTypeError(
            f"{name} takes a floating point tensor, got {operand.dtype.name} (at {user_source()}); "
            "convert with .float()"
        )
