"""What a tensor's value is outside of graphs: Python's numbers and lists, NumPy's arrays, others' arrays by DLPack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DTypeError, GradientError
from ..graph.types import bfloat16
from ..ops.primitive import user_source
from ..runtime.dlpack import exported
from .handle import Handle
from .state import STATE

if TYPE_CHECKING:
    from . import Tensor


class ValueMethods(Handle):
    """Each has the value computed; TraceError inside a compiled step, where there is none."""

    __slots__ = ()

    def numpy(self, *, force: bool = False) -> np.ndarray:
        """The value as a NumPy array that shares memory with the tensor where the layout allows. It is read-only.

        `force` takes it of a tensor that requires grad too, as `.detach().numpy()` does.
        """
        if self.requires_grad and not force:
            raise GradientError(f"numpy() on a tensor that requires grad (at {user_source()}); use .detach().numpy()")
        return self.__array__()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if self.dtype is bfloat16:
            raise DTypeError(f"NumPy has no bfloat16 (at {user_source()}); use .float().numpy()")
        buffer = self._buffer()
        array = buffer.array.reshape(self.shape)
        if dtype is not None and np.dtype(dtype) != array.dtype:
            return array.astype(dtype)
        if copy:
            return array.copy()
        buffer.share()
        array = buffer.array.reshape(self.shape)
        array.flags.writeable = False
        return array

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        if self.requires_grad:
            raise BufferError(f"a tensor that requires grad cannot be exported (at {user_source()}); use .detach()")
        buffer = self._buffer()
        buffer.share()
        options = {"stream": stream, "max_version": max_version, "dl_device": dl_device, "copy": copy}
        return exported(buffer.array.reshape(self.shape), self.dtype is bfloat16, **options)

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        """The functions of the Array API standard on tensors: `pullback.array_api`."""
        from .. import array_api

        known = ("2021.12", "2022.12", "2023.12", array_api.__array_api_version__)
        if api_version not in (None, *known):
            raise ValueError(f"the Array API in version {api_version!r} is not there; it is in {', '.join(known)}")
        return array_api

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def __bool__(self) -> bool:
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __complex__(self) -> complex:
        return complex(self.item())

    def __index__(self) -> int:
        if self.dtype.is_floating_point:
            raise DTypeError(f"a {self.dtype.name} tensor cannot be an index (at {user_source()})")
        return int(self.item())

    def __format__(self, spec: str) -> str:
        is_number = not self.shape if not spec else self.numel() == 1
        if is_number and STATE.trace is None:
            return format(self.item(), spec)
        if spec:
            raise TypeError(
                f"unsupported format string {spec!r} passed to Tensor.__format__: a tensor of shape {list(self.shape)} "
                f"is no number (at {user_source()})"
            )
        return str(self)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError(f"len() of a 0-d tensor (at {user_source()})")
        return self.shape[0]

    def __contains__(self, element: Any) -> bool:
        if not isinstance(element, (Handle, int, float, np.number, np.bool_)):
            raise DTypeError(
                f"Tensor.__contains__ only supports Tensor or scalar, but you passed in a {type(element)} (at "
                f"{user_source()})"
            )
        return bool((self == element).any())  # type: ignore[attr-defined]

    def __reversed__(self) -> Tensor:
        return self.flip(0) if self.shape else self  # type: ignore[attr-defined,return-value]


__all__ = ["ValueMethods"]
