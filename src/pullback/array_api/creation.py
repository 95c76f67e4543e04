"""Arrays made of numbers, of other arrays, of ranges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import DTypeError
from ..graph import types
from ..graph.types import FLOAT, DType
from ..ops.primitive import complex_refused, user_source
from ..tensor import Tensor, joining
from ..tensor import creation as torch_names
from ..tensor.promotion import Number, dtype_of_number, get_default_dtype
from .dtypes import astype, check_device, result_type

Shape = int | Sequence[int]


def asarray(obj: Any, /, *, dtype: DType | None = None, device: Any = None, copy: bool | None = None) -> Tensor:
    """An array of numbers, nested lists of numbers or arrays, or anything that has `__array__`, a buffer or DLPack.

    `copy` True always copies, False never does and raises ValueError where it would have to; None copies what must be.
    Arrays of NumPy are read where they lie, if they are contiguous.
    """
    check_device(device)
    if isinstance(obj, Tensor):
        if copy is False and dtype not in (None, obj.dtype):
            raise ValueError(f"asarray: from {obj.dtype.name} to {dtype!r} without a copy (at {user_source()})")
        return astype(obj, dtype or obj.dtype, copy=bool(copy))
    if isinstance(obj, complex):
        raise complex_refused(obj)
    if isinstance(obj, (list, tuple)) and _holds_arrays(obj):
        obj = _stacked(obj)
        return asarray(obj, dtype=dtype, copy=False if copy is False and dtype is None else None)
    if isinstance(obj, (bool, int, float, list, tuple)):
        if copy is False:
            raise ValueError(f"asarray: {type(obj).__name__} is always copied, but copy=False (at {user_source()})")
        return torch_names.tensor(obj, dtype)
    if not isinstance(obj, np.ndarray) and hasattr(obj, "__dlpack__"):
        made = torch_names.from_dlpack(obj, copy=copy)
        return astype(made, dtype or made.dtype, copy=False)
    return _of_numpy(np.asarray(obj), dtype, copy)


def _holds_arrays(obj: Any) -> bool:
    return any(isinstance(item, Tensor) or (isinstance(item, (list, tuple)) and _holds_arrays(item)) for item in obj)


def _stacked(obj: Any) -> Tensor:
    """Nested lists with arrays in them as one array, through which gradients pass."""
    parts = [_stacked(item) if isinstance(item, (list, tuple)) else item for item in obj]
    dtype = result_type(*parts)
    return joining.stack([astype(asarray(part), dtype, copy=False) for part in parts])


def _of_numpy(array: np.ndarray, dtype: DType | None, copy: bool | None) -> Tensor:
    wanted = dtype or types.from_numpy(array.dtype)
    readable = array.flags.c_contiguous and array.flags.aligned and types.from_numpy(array.dtype) is wanted
    if copy is False and not (readable and wanted is not None):
        raise ValueError(f"asarray: {array.dtype}{list(array.shape)} cannot be read in place (at {user_source()})")
    return torch_names.tensor(array, dtype) if copy or not readable else torch_names.from_numpy(array)


def from_dlpack(x: Any, /, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """An array on the memory of any object that has `__dlpack__`."""
    return torch_names.from_dlpack(x, device=device, copy=copy)


def arange(
    start: Number,
    /,
    stop: Number | None = None,
    step: Number = 1,
    *,
    dtype: DType | None = None,
    device: Any = None,
) -> Tensor:
    """start, start + step, … up to but without `stop`; nothing where that lies the other way."""
    first, last = (0, start) if stop is None else (start, stop)
    if step != 0 and (last - first) / step < 0:
        last = first
    if dtype is None:
        whole = all(isinstance(value, int) for value in (first, last, step))
        dtype = types.int64 if whole else get_default_dtype()
    return torch_names.arange(first, last, step, dtype=dtype, device=device)


def linspace(
    start: Number,
    stop: Number,
    /,
    num: int,
    *,
    dtype: DType | None = None,
    device: Any = None,
    endpoint: bool = True,
) -> Tensor:
    """`num` numbers at equal distances from `start` to `stop`, which is one of them unless `endpoint` is False."""
    if dtype is not None and dtype.category != FLOAT:
        raise DTypeError(f"linspace gives floats, not {dtype.name} (at {user_source()})")
    if endpoint:
        return torch_names.linspace(start, stop, num, dtype=dtype, device=device)
    return torch_names.linspace(start, stop, num + 1, dtype=dtype, device=device)[:-1]


def eye(
    n_rows: int, n_cols: int | None = None, /, *, k: int = 0, dtype: DType | None = None, device: Any = None
) -> Tensor:
    """Ones on diagonal `k` of a matrix of zeros."""
    check_device(device)
    n_cols = n_rows if n_cols is None else n_cols
    row = torch_names.arange(n_rows, dtype=types.int64).reshape(n_rows, 1)
    column = torch_names.arange(n_cols, dtype=types.int64)
    return (row + k == column).to(dtype or get_default_dtype())


def zeros(shape: Shape, *, dtype: DType | None = None, device: Any = None) -> Tensor:
    """An array of zeros."""
    return torch_names.zeros(_sizes(shape), dtype=dtype, device=device)


def ones(shape: Shape, *, dtype: DType | None = None, device: Any = None) -> Tensor:
    """An array of ones."""
    return torch_names.ones(_sizes(shape), dtype=dtype, device=device)


def empty(shape: Shape, *, dtype: DType | None = None, device: Any = None) -> Tensor:
    """An array to be filled; it holds zeros."""
    return torch_names.zeros(_sizes(shape), dtype=dtype, device=device)


def full(shape: Shape, fill_value: Number, *, dtype: DType | None = None, device: Any = None) -> Tensor:
    """An array of one number."""
    if isinstance(fill_value, Tensor):
        return astype(fill_value, dtype or fill_value.dtype, copy=False).expand(*_sizes(shape)).clone()
    if not isinstance(fill_value, (bool, int, float)):
        raise DTypeError(f"full takes a real number, got {fill_value!r} (at {user_source()})")
    return torch_names.full(_sizes(shape), fill_value, dtype=dtype or dtype_of_number(fill_value), device=device)


def _sizes(shape: Shape) -> tuple[int, ...]:
    return (shape,) if isinstance(shape, int) else tuple(shape)


def zeros_like(x: Tensor, /, *, dtype: DType | None = None, device: Any = None) -> Tensor:
    """Zeros of the shape and dtype of `x`."""
    return torch_names.zeros_like(x, dtype=dtype, device=device)


def ones_like(x: Tensor, /, *, dtype: DType | None = None, device: Any = None) -> Tensor:
    """Ones of the shape and dtype of `x`."""
    return torch_names.ones_like(x, dtype=dtype, device=device)


def empty_like(x: Tensor, /, *, dtype: DType | None = None, device: Any = None) -> Tensor:
    """An array to be filled, of the shape and dtype of `x`; it holds zeros."""
    return torch_names.zeros_like(x, dtype=dtype, device=device)


def full_like(x: Tensor, /, fill_value: Number, *, dtype: DType | None = None, device: Any = None) -> Tensor:
    """One number in the shape and dtype of `x`."""
    return full(x.shape, fill_value, dtype=dtype or x.dtype, device=device)


def tril(x: Tensor, /, *, k: int = 0) -> Tensor:
    """The elements on and below diagonal `k` of each matrix, zeros above."""
    return x.tril(k)


def triu(x: Tensor, /, *, k: int = 0) -> Tensor:
    """The elements on and above diagonal `k` of each matrix, zeros below."""
    return x.triu(k)


def meshgrid(*arrays: Tensor, indexing: str = "xy") -> tuple[Tensor, ...]:
    """The coordinates of all points of a grid; with "xy" the first array runs along the second axis."""
    return tuple(joining.meshgrid(*arrays, indexing=indexing))


#: the constants of the namespace
e, inf, nan, pi, newaxis = math.e, math.inf, math.nan, math.pi, None
