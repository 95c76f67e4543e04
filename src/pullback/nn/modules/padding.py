"""Layers that pad, one class for each mode and number of axes, as PyTorch has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from ...tensor import Tensor
from ..functional.padding import pad
from .module import Module


class _Pad(Module):
    """The last `axes` axes padded by `padding`: one number, or (before, after) from the last axis on."""

    axes: ClassVar[int]
    mode: ClassVar[str] = "constant"

    def __init__(self, padding: int | Sequence[int]):
        super().__init__()
        self.padding = (padding,) * (2 * self.axes) if isinstance(padding, int) else tuple(padding)

    def forward(self, input: Tensor) -> Tensor:
        """The padded input."""
        return pad(input, self.padding, self.mode)

    def extra_repr(self) -> str:
        """The widths."""
        return f"{self.padding}"


class _ConstantPad(_Pad):
    """Padding with a number."""

    def __init__(self, padding: int | Sequence[int], value: float):
        super().__init__(padding)
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        """The padded input."""
        return pad(input, self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        """The widths and the number."""
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPad):
    """The last axis padded with a number."""

    axes = 1


class ConstantPad2d(_ConstantPad):
    """The last two axes padded with a number."""

    axes = 2


class ConstantPad3d(_ConstantPad):
    """The last three axes padded with a number."""

    axes = 3


class ZeroPad1d(_Pad):
    """The last axis padded with zeros."""

    axes = 1


class ZeroPad2d(_Pad):
    """The last two axes padded with zeros."""

    axes = 2


class ZeroPad3d(_Pad):
    """The last three axes padded with zeros."""

    axes = 3


class ReflectionPad1d(_Pad):
    """The last axis padded with elements mirrored at the edge."""

    axes = 1
    mode = "reflect"


class ReflectionPad2d(_Pad):
    """The last two axes padded with elements mirrored at the edge."""

    axes = 2
    mode = "reflect"


class ReflectionPad3d(_Pad):
    """The last three axes padded with elements mirrored at the edge."""

    axes = 3
    mode = "reflect"


class ReplicationPad1d(_Pad):
    """The last axis padded with the edge."""

    axes = 1
    mode = "replicate"


class ReplicationPad2d(_Pad):
    """The last two axes padded with the edge."""

    axes = 2
    mode = "replicate"


class ReplicationPad3d(_Pad):
    """The last three axes padded with the edge."""

    axes = 3
    mode = "replicate"


class CircularPad1d(_Pad):
    """The last axis padded with the elements of the other end."""

    axes = 1
    mode = "circular"


class CircularPad2d(_Pad):
    """The last two axes padded with the elements of the other end."""

    axes = 2
    mode = "circular"


class CircularPad3d(_Pad):
    """The last three axes padded with the elements of the other end."""

    axes = 3
    mode = "circular"


__all__ = [
    "CircularPad1d",
    "CircularPad2d",
    "CircularPad3d",
    "ConstantPad1d",
    "ConstantPad2d",
    "ConstantPad3d",
    "ReflectionPad1d",
    "ReflectionPad2d",
    "ReflectionPad3d",
    "ReplicationPad1d",
    "ReplicationPad2d",
    "ReplicationPad3d",
    "ZeroPad1d",
    "ZeroPad2d",
    "ZeroPad3d",
]
