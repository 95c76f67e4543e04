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


class _ConstantPadNd(_Pad):
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


class ConstantPad1d(_ConstantPadNd):
    """The last axis padded with a number."""

    axes = 1


class ConstantPad2d(_ConstantPadNd):
    """The last two axes padded with a number."""

    axes = 2


class ConstantPad3d(_ConstantPadNd):
    """The last three axes padded with a number."""

    axes = 3


class _ZeroPad(_ConstantPadNd):
    """Padding with zeros."""

    def __init__(self, padding: int | Sequence[int]):
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        """The widths."""
        return f"{self.padding}"


class ZeroPad1d(_ZeroPad, ConstantPad1d):
    """The last axis padded with zeros."""


class ZeroPad2d(_ZeroPad, ConstantPad2d):
    """The last two axes padded with zeros."""


class ZeroPad3d(_ZeroPad, ConstantPad3d):
    """The last three axes padded with zeros."""


class _ReflectionPadNd(_Pad):
    """Padding with elements mirrored at the edge."""

    mode = "reflect"


class ReflectionPad1d(_ReflectionPadNd):
    """The last axis padded with elements mirrored at the edge."""

    axes = 1


class ReflectionPad2d(_ReflectionPadNd):
    """The last two axes padded with elements mirrored at the edge."""

    axes = 2


class ReflectionPad3d(_ReflectionPadNd):
    """The last three axes padded with elements mirrored at the edge."""

    axes = 3


class _ReplicationPadNd(_Pad):
    """Padding with the edge."""

    mode = "replicate"


class ReplicationPad1d(_ReplicationPadNd):
    """The last axis padded with the edge."""

    axes = 1


class ReplicationPad2d(_ReplicationPadNd):
    """The last two axes padded with the edge."""

    axes = 2


class ReplicationPad3d(_ReplicationPadNd):
    """The last three axes padded with the edge."""

    axes = 3


class _CircularPadNd(_Pad):
    """Padding with the elements of the other end."""

    mode = "circular"


class CircularPad1d(_CircularPadNd):
    """The last axis padded with the elements of the other end."""

    axes = 1


class CircularPad2d(_CircularPadNd):
    """The last two axes padded with the elements of the other end."""

    axes = 2


class CircularPad3d(_CircularPadNd):
    """The last three axes padded with the elements of the other end."""

    axes = 3


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
