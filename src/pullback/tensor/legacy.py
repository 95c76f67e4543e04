"""PyTorch's former constructors, `LongTensor` and its like: `Tensor` of one dtype each, whatever the default is."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..errors import DTypeError
from ..graph import types
from ..graph.types import DType
from ..ops.primitive import user_source
from .constructor import one_of
from .creation import _check_device, tensor
from .handle import Handle
from .promotion import get_default_dtype, set_default_dtype
from .size import Size

if TYPE_CHECKING:
    from . import Tensor


class _Kind(type):
    """Of which all tensors of its dtype are instances."""

    dtype: DType

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, Handle) and value.dtype is cls.dtype


class _Constructor(metaclass=_Kind):
    """Makes tensors of `dtype`: zeros of sizes, or the elements of one list or array, copied, as `Tensor` does.

    `tensor(data, dtype=)` and `zeros(sizes, dtype=)` say the same without guessing what is meant.
    """

    dtype: ClassVar[DType]

    def __new__(cls, *elements: Any, device: Any = None, data: Any = ()) -> Any:
        """Raises DTypeError for a tensor of another dtype, which PyTorch refuses too."""
        data = one_of(cls.__name__, elements, data)
        if len(data) == 1 and isinstance(data[0], Handle):
            if data[0].dtype is not cls.dtype:
                raise DTypeError(
                    f"{cls.__name__}() of a {data[0].dtype.name} tensor (at {user_source()}); use .to({cls.dtype!r})"
                )
            return Handle._result(data[0], device=device)
        _check_device(device)
        if len(data) == 1 and not isinstance(data[0], (int, np.integer, Size)):
            return _of_elements(data[0], cls.dtype)
        made: Tensor = Handle._result(*data, device=device)
        return made.to(cls.dtype)


def _of_elements(data: Any, dtype: DType) -> Tensor:
    made: Tensor = Handle._result(data) if isinstance(data, (str, float)) else tensor(data, dtype)
    return made


class FloatTensor(_Constructor):
    """Of float32."""

    dtype = types.float32


class DoubleTensor(_Constructor):
    """Of float64."""

    dtype = types.float64


class HalfTensor(_Constructor):
    """Of float16."""

    dtype = types.float16


class BFloat16Tensor(_Constructor):
    """Of bfloat16."""

    dtype = types.bfloat16


class ByteTensor(_Constructor):
    """Of uint8."""

    dtype = types.uint8


class CharTensor(_Constructor):
    """Of int8."""

    dtype = types.int8


class ShortTensor(_Constructor):
    """Of int16."""

    dtype = types.int16


class IntTensor(_Constructor):
    """Of int32."""

    dtype = types.int32


class LongTensor(_Constructor):
    """Of int64.

    >>> pb.LongTensor([1, 2]), pb.LongTensor(1, 2)
    (tensor([1, 2]), tensor([[0, 0]]))
    """

    dtype = types.int64


class BoolTensor(_Constructor):
    """Of bool."""

    dtype = types.bool_


_KINDS = (
    FloatTensor, DoubleTensor, HalfTensor, BFloat16Tensor, ByteTensor, CharTensor, ShortTensor, IntTensor, LongTensor,
    BoolTensor,
)  # fmt: skip
_BY_NAME = {f"torch.{kind.__name__}": kind.dtype for kind in _KINDS}


def name_of(dtype: DType) -> str:
    """What `Tensor.type()` says of a dtype: PyTorch's name of its constructor."""
    found = [name for name, held in _BY_NAME.items() if held is dtype]
    return found[0] if found else f"torch.{dtype.name.capitalize()}Tensor"


def set_default_tensor_type(t: Any) -> None:
    """Make FloatTensor or DoubleTensor, or what `Tensor.type()` calls them, what new floating-point tensors are."""
    warnings.warn("set_default_tensor_type() is deprecated; use set_default_dtype()", UserWarning, stacklevel=2)
    if not isinstance(t, (str, _Kind)):
        raise TypeError(f"invalid type object: set_default_tensor_type of {t!r} (at {user_source()})")
    set_default_dtype(dtype_named(t))


def dtype_named(given: Any) -> Any:
    """The dtype of a constructor, or of the name that `Tensor.type()` gives; anything else as it is."""
    if isinstance(given, _Kind):
        return given.dtype
    if given is Handle._result:
        return get_default_dtype()
    if isinstance(given, str):
        if given not in _BY_NAME:
            raise ValueError(f"invalid type: {given!r} (at {user_source()}); the names are {', '.join(_BY_NAME)}")
        return _BY_NAME[given]
    return given


__all__ = [
    "BFloat16Tensor",
    "BoolTensor",
    "ByteTensor",
    "CharTensor",
    "DoubleTensor",
    "FloatTensor",
    "HalfTensor",
    "IntTensor",
    "LongTensor",
    "ShortTensor",
    "set_default_tensor_type",
]
