"""What dtypes hold: the extremes and the precision of their numbers, and which becomes which without loss."""

from __future__ import annotations

import numpy as np

from ..errors import DTypeError
from ..graph import types
from ..graph.types import BOOL, FLOAT, INTEGER, DType
from ..ops.primitive import user_source
from .promotion import get_default_dtype
from .spellings import dtype_of


class finfo:
    """The limits of a float's numbers, by default of the default dtype's.

    `bits` is its width; `min` and `max` are its finite extremes, `tiny` (also `smallest_normal`) the least positive
    normal number, `eps` the distance from 1 to the next number, `resolution` the decimal digits that always hold.

    >>> pb.finfo(pb.bfloat16).eps
    0.0078125
    """

    def __init__(self, type: DType | None = None):
        dtype = get_default_dtype() if type is None else dtype_of(type)
        if not isinstance(dtype, DType) or dtype.category != FLOAT:
            raise DTypeError(f"finfo takes a floating point dtype, got {dtype!r} (at {user_source()}); see iinfo")
        self.dtype, self.bits = dtype.name, 8 * dtype.itemsize
        if dtype is types.bfloat16:
            self.eps, self.max, self.tiny, self.resolution = 2.0**-7, (2 - 2.0**-7) * 2.0**127, 2.0**-126, 0.01
        else:
            known = np.finfo(dtype.storage)
            self.eps, self.max, self.tiny = float(known.eps), float(known.max), float(known.tiny)
            self.resolution = float(f"1e-{known.precision}")
        self.min, self.smallest_normal = -self.max, self.tiny

    def __repr__(self) -> str:
        return (
            f"finfo(resolution={self.resolution:g}, min={self.min:g}, max={self.max:g}, eps={self.eps:g}, "
            f"smallest_normal={self.smallest_normal:g}, tiny={self.tiny:g}, dtype={self.dtype})"
        )


class iinfo:
    """The limits of an integer's numbers: `min`, `max`, and its width `bits`.

    >>> pb.iinfo(pb.int16).max
    32767
    """

    def __init__(self, type: DType):
        type = dtype_of(type)
        if not isinstance(type, DType) or type.category != INTEGER:
            raise DTypeError(f"iinfo takes an integer dtype, got {type!r} (at {user_source()}); see finfo")
        self.dtype, self.bits = type.name, 8 * type.itemsize
        known = np.iinfo(type.storage)
        self.min, self.max = int(known.min), int(known.max)

    def __repr__(self) -> str:
        return f"iinfo(min={self.min}, max={self.max}, dtype={self.dtype})"


def promote_types(type1: DType, type2: DType) -> DType:
    """The dtype in which tensors of these two are worked on together.

    >>> pb.promote_types(pb.uint8, pb.int8)
    pullback.int16
    """
    return types.promote(type1, type2)


def can_cast(from_: DType, to: DType) -> bool:
    """Whether an in-place operation may store `from_` as `to`: no float as an integer, nothing else as a bool.

    The names follow PyTorch's, where `from` cannot be spelt as a keyword in Python either.
    """
    return not (from_.category == FLOAT and to.category != FLOAT) and not (
        from_.category != BOOL and to.category == BOOL
    )


__all__ = ["can_cast", "finfo", "iinfo", "promote_types"]
