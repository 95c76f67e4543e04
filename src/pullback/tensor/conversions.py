"""Tensors in other dtypes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..graph import types
from ..ops import elementwise as e
from ..ops.host import identity
from ..ops.primitive import complex_refused, user_source
from .handle import Handle
from .memory_format import check_memory_format, contiguous_format, preserve_format
from .spellings import dtype_of

if TYPE_CHECKING:
    from . import Tensor


builtins_bool = bool


def destination(
    args: tuple[Any, ...],
    dtype: types.DType | None,
    device: str | None,
    other: Handle | None = None,
    copy: builtins_bool = False,
    flags: int = 2,
) -> tuple[types.DType | None, builtins_bool]:
    """The dtype that `to(...)` asks for, if any, and whether for a copy: a dtype, a device or a tensor, in any order,
    and after them up to two `flags`, non_blocking and copy. Raises TypeError for anything else, ValueError for a
    device that is not there."""
    rest = list(args)
    dtype = dtype_of(dtype)
    while rest and not isinstance(rest[0], builtins_bool):
        argument = dtype_of(rest.pop(0))
        if isinstance(argument, types.DType) and dtype is None:
            dtype = argument
        elif isinstance(argument, Handle) and other is None:
            other = argument
        elif (argument is None or isinstance(argument, str)) and device is None:
            device = argument
        else:
            if "complex" in getattr(argument, "__name__", repr(argument)):
                raise complex_refused(argument)
            raise TypeError(f"to() takes a dtype, a device or a tensor, got {args!r} (at {user_source()})")
    if len(rest) > flags or not all(isinstance(flag, builtins_bool) for flag in rest):
        raise TypeError(f"to() takes the flags non_blocking and copy last, got {args!r} (at {user_source()})")
    if other is not None:
        if dtype is not None or device is not None:
            raise TypeError(f"to() takes another tensor, or a dtype and a device, got both (at {user_source()})")
        dtype = other.dtype
    if device not in (None, "cpu"):
        raise ValueError(f'to(): device {device!r} is not there; Pullback runs on "cpu" (at {user_source()})')
    return dtype, rest[1] if len(rest) == 2 else copy


class ConversionMethods(Handle):
    """Each gives a tensor of another dtype, through which gradients pass where both are floats."""

    __slots__ = ()

    def to(
        self,
        *args: Any,
        dtype: types.DType | None = None,
        device: str | None = None,
        other: Tensor | None = None,
        non_blocking: bool = False,
        copy: bool = False,
        memory_format: object = None,
    ) -> Tensor:
        """The tensor in another dtype: `to(dtype)`, `to(device, dtype)` or `to(other)`, after which `non_blocking` and
        `copy` may stand by place. There is only the CPU, and nothing to block; `copy` gives a tensor of its own always.

        >>> pb.ones(2).to(pb.float64, copy=True).dtype
        pullback.float64
        """
        check_memory_format("to", memory_format, contiguous_format, preserve_format)
        wanted, copies = destination(args, dtype, device, other, copy)
        if wanted is None or wanted is self.dtype:
            return self.clone() if copies else self  # type: ignore[return-value]
        return self._wrap(e.convert(self.node, wanted))

    def to_device(self, device: str, /, *, stream: None = None) -> Tensor:
        """The tensor itself: "cpu" is the only device, and it has no streams."""
        if stream is not None:
            raise ValueError(f"to_device: the cpu has no streams, got {stream!r} (at {user_source()})")
        return self.to(device=device)

    def clone(self, *, memory_format: object = None) -> Tensor:
        """A tensor of the same value that changes on its own; gradients pass through."""
        check_memory_format("clone", memory_format, contiguous_format, preserve_format)
        return self._wrap(identity(self.node))

    def _as(self, name: str, dtype: types.DType, memory_format: object) -> Tensor:
        check_memory_format(name, memory_format, contiguous_format, preserve_format)
        return self.to(dtype)

    def float(self, memory_format: object = None) -> Tensor:
        """As float32."""
        return self._as("float", types.float32, memory_format)

    def double(self, memory_format: object = None) -> Tensor:
        """As float64."""
        return self._as("double", types.float64, memory_format)

    def half(self, memory_format: object = None) -> Tensor:
        """As float16."""
        return self._as("half", types.float16, memory_format)

    def bfloat16(self, memory_format: object = None) -> Tensor:
        """As bfloat16."""
        return self._as("bfloat16", types.bfloat16, memory_format)

    def byte(self, memory_format: object = None) -> Tensor:
        """As uint8, cut toward zero, modulo 256."""
        return self._as("byte", types.uint8, memory_format)

    def char(self, memory_format: object = None) -> Tensor:
        """As int8, cut toward zero."""
        return self._as("char", types.int8, memory_format)

    def short(self, memory_format: object = None) -> Tensor:
        """As int16, cut toward zero."""
        return self._as("short", types.int16, memory_format)

    def int(self, memory_format: object = None) -> Tensor:
        """As int32, cut toward zero."""
        return self._as("int", types.int32, memory_format)

    def long(self, memory_format: object = None) -> Tensor:
        """As int64, cut toward zero."""
        return self._as("long", types.int64, memory_format)

    def bool(self, memory_format: object = None) -> Tensor:
        """True where not zero."""
        return self._as("bool", types.bool_, memory_format)

    def type_as(self, other: Tensor) -> Tensor:
        """In the dtype of `other`."""
        return self.to(other.dtype)

    def is_floating_point(self) -> builtins_bool:
        """Whether the dtype is a float."""
        return self.dtype.is_floating_point


__all__ = ["ConversionMethods", "destination"]
