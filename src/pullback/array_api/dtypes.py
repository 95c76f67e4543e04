"""Dtypes and their rules: promotion, casting, kinds and limits, as the standard has them."""

from __future__ import annotations

from typing import Any

from ..graph import types
from ..graph.types import BOOL, FLOAT, INTEGER, DType
from ..ops.primitive import complex_refused, user_source
from ..tensor import Tensor, limits
from ..tensor.promotion import get_default_dtype

_CATEGORIES = {"bool": (BOOL,), "integral": (INTEGER,), "real floating": (FLOAT,), "numeric": (INTEGER, FLOAT)}
_SIGNED, _UNSIGNED, _COMPLEX = "signed integer", "unsigned integer", "complex floating"
KINDS = (*_CATEGORIES, _SIGNED, _UNSIGNED, _COMPLEX)


def isdtype(dtype: DType, kind: Any) -> bool:
    """Whether `dtype` is of `kind`: a dtype, the name of a kind, or a tuple of these.

    >>> pb.array_api.isdtype(pb.int16, "integral")
    True
    """
    if isinstance(kind, tuple):
        return any(isdtype(dtype, one) for one in kind)
    if isinstance(kind, DType):
        return dtype is kind
    if kind in _CATEGORIES:
        return dtype.category in _CATEGORIES[kind]
    if kind in (_SIGNED, _UNSIGNED):
        return dtype.category == INTEGER and dtype.is_unsigned == (kind == _UNSIGNED)
    if kind == _COMPLEX:
        return False
    raise ValueError(f"isdtype: a kind is a dtype or one of {', '.join(KINDS)}, got {kind!r} (at {user_source()})")


def result_type(*arrays_and_dtypes: Any) -> DType:
    """The dtype in which these are worked on together: arrays of any rank count alike, Python numbers weakly."""
    strong = [_dtype_of(value) for value in arrays_and_dtypes if not isinstance(value, (bool, int, float))]
    if not strong:
        raise ValueError(f"result_type: at least one argument must be an array or a dtype (at {user_source()})")
    result = strong[0]
    for dtype in strong[1:]:
        result = types.promote(result, dtype)
    weak = [value for value in arrays_and_dtypes if isinstance(value, (bool, int, float))]
    for value in weak:
        category = BOOL if isinstance(value, bool) else INTEGER if isinstance(value, int) else FLOAT
        if category > result.category:
            result = get_default_dtype() if category == FLOAT else types.int64
    return result


def _dtype_of(value: Any) -> DType:
    if isinstance(value, DType):
        return value
    if isinstance(value, Tensor):
        return value.dtype
    if isinstance(value, complex):
        raise complex_refused(value)
    raise TypeError(f"an array or a dtype was expected, got {value!r} (at {user_source()})")


def can_cast(from_: Any, to: DType, /) -> bool:
    """Whether promotion leads from a dtype (or an array's) to `to`: `to` holds every number of it.

    >>> pb.array_api.can_cast(pb.int8, pb.int16)
    True
    """
    given = _dtype_of(from_)
    if (given.category == FLOAT) != (to.category == FLOAT) or (given.category == BOOL) != (to.category == BOOL):
        return False
    if types.uint64 in (given, to) and given.is_unsigned != to.is_unsigned:
        return False
    return types.promote(given, to) is to


class finfo(limits.finfo):
    """The limits of a float dtype, or an array's: `bits`, `eps`, `max`, `min`, `smallest_normal`, `dtype`."""

    dtype: DType  # type: ignore[assignment]

    def __init__(self, type: Any, /):
        dtype = _dtype_of(type)
        super().__init__(dtype)
        self.dtype = dtype


class iinfo(limits.iinfo):
    """The limits of an integer dtype, or an array's: `bits`, `max`, `min`, `dtype`."""

    dtype: DType  # type: ignore[assignment]

    def __init__(self, type: Any, /):
        dtype = _dtype_of(type)
        super().__init__(dtype)
        self.dtype = dtype


def astype(x: Tensor, dtype: DType, /, *, copy: bool = True, device: str | None = None) -> Tensor:
    """The array in another dtype; `copy` False may give `x` itself."""
    check_device(device)
    if dtype is x.dtype:
        return x.clone() if copy else x
    return x.to(dtype)


def check_device(device: Any) -> None:
    """Raise unless the device is None or "cpu"."""
    if device not in (None, "cpu"):
        raise ValueError(f'device {device!r} is not there (at {user_source()}); Pullback runs on "cpu"')


def promoted(*operands: Any) -> list[Tensor]:
    """The operands as arrays of one dtype, in which those of rank 0 count like any other."""
    from .creation import asarray

    dtype = result_type(*operands)
    return [o.to(dtype) if isinstance(o, Tensor) else asarray(o, dtype=dtype) for o in operands]
