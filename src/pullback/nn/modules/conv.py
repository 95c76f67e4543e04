"""Convolutional layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ...errors import ShapeError
from ...graph.types import DType
from ...ops.convolution import reach
from ...ops.primitive import user_source
from ...tensor import Tensor
from ...tensor.creation import empty
from ...tensor.grad_modes import no_grad
from .. import functional as F
from .. import init
from ..functional.convolution import Sizes, padded, sizes_of
from ..parameter import Parameter, UninitializedParameter
from .lazy import LazyModuleMixin
from .module import Module

_MODES = ("zeros", "reflect", "replicate", "circular")


class _ConvNd(Module):
    """What all convolutional layers have: sizes, a weight and a bias, which start as PyTorch's."""

    rank: int
    transposed = False
    output_padding: tuple[int, ...] = ()

    def _set(
        self, in_channels: int, out_channels: int, kernel_size: Sizes, stride: Sizes, padding: str | Sizes,
        dilation: Sizes, groups: int, bias: bool, padding_mode: str, device: str | None,
        dtype: DType | None,
    ) -> None:  # fmt: skip
        name = type(self).__name__
        if not isinstance(groups, int) or groups < 1:
            raise ValueError(f"{name}: groups must be a whole number from 1 on, got {groups!r} (at {user_source()})")
        for called, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if channels % groups:
                raise ValueError(
                    f"{name}: {called}={channels} must be divisible by groups={groups} (at {user_source()})"
                )
        if padding_mode not in _MODES:
            raise ValueError(
                f"{name}: padding_mode must be one of {', '.join(_MODES)}, got {padding_mode!r} (at {user_source()})"
            )
        self.in_channels, self.out_channels, self.groups, self.padding_mode = (
            in_channels, out_channels, groups, padding_mode,
        )  # fmt: skip
        self.kernel_size = sizes_of(name, "kernel_size", kernel_size, self.rank, 1, alone=False)
        self.stride = sizes_of(name, "stride", stride, self.rank, 1)
        self.dilation = sizes_of(name, "dilation", dilation, self.rank, 1)
        self.padding: str | tuple[int, ...]
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                raise ValueError(
                    f'{name}: padding must be "same", "valid" or numbers, got {padding!r} (at {user_source()})'
                )
            if padding == "same" and any(step != 1 for step in self.stride):
                raise ValueError(
                    f'{name}: padding "same" is for stride 1, got stride {self.stride} (at {user_source()}); '
                    "give the padding as numbers"
                )
            self.padding = padding
        else:
            self.padding = sizes_of(name, "padding", padding, self.rank, 0)
        first, second = (in_channels, out_channels) if self.transposed else (out_channels, in_channels)
        self.weight = Parameter(empty(first, second // groups, *self.kernel_size, device=device, dtype=dtype))
        self.register_parameter("bias", Parameter(empty(out_channels, device=device, dtype=dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew: uniform on ±1/sqrt(n), n the elements of weight[0]."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            inputs = math.prod(self.weight.shape[1:])
            bound = 1 / math.sqrt(inputs) if inputs else 0.0
            init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        """The sizes, and what differs from the defaults."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding != (0,) * self.rank:
            text += f", padding={self.padding}"
        text += f", dilation={self.dilation}" if any(size != 1 for size in self.dilation) else ""
        text += f", output_padding={self.output_padding}" if any(self.output_padding) else ""
        text += f", groups={self.groups}" if self.groups != 1 else ""
        text += ", bias=False" if self.bias is None else ""
        return text + (f", padding_mode={self.padding_mode}" if self.padding_mode != "zeros" else "")


class _Forward(_ConvNd):
    """A convolution of `rank` axes."""

    function: Callable[..., Tensor]

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Sizes, stride: Sizes = 1, padding: str | Sizes = 0,
        dilation: Sizes = 1, groups: int = 1, bias: bool = True, padding_mode: str = "zeros",
        device: str | None = None, dtype: DType | None = None,
    ):  # fmt: skip
        super().__init__()
        self._set(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device,
            dtype,
        )  # fmt: skip

    def forward(self, input: Tensor) -> Tensor:
        """[N, in_channels, …] to [N, out_channels, …]; the batch axis may be missing."""
        padding: str | tuple[int, ...] = self.padding
        if self.padding_mode != "zeros" and padding != "valid":
            input, padding = padded(input, self._widths(), self.padding_mode), 0  # type: ignore[assignment]
        return type(self).function(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)

    def _widths(self) -> list[tuple[int, int]]:
        if not isinstance(self.padding, str):
            return [(size, size) for size in self.padding]
        totals = [reach(size, step) - 1 for size, step in zip(self.kernel_size, self.dilation, strict=True)]
        return [(total // 2, total - total // 2) for total in totals]


class Conv1d(_Forward):
    """A convolution over [N, in_channels, L]; see `functional.conv1d`. weight is [out, in / groups, K].

    `padding_mode` says how the input goes on beyond its ends: "zeros", "reflect", "replicate" or "circular".
    """

    rank, function = 1, staticmethod(F.conv1d)


class Conv2d(_Forward):
    """A convolution over [N, in_channels, H, W]; see `functional.conv2d`. weight is [out, in / groups, KH, KW].

    >>> pb.nn.Conv2d(3, 16, 3, padding="same")(pb.randn(2, 3, 8, 8)).shape
    pullback.Size([2, 16, 8, 8])
    """

    rank, function = 2, staticmethod(F.conv2d)


class Conv3d(_Forward):
    """A convolution over [N, in_channels, D, H, W]; see `functional.conv3d`."""

    rank, function = 3, staticmethod(F.conv3d)


class _ConvTransposeNd(_ConvNd):
    """A transposed convolution of `rank` axes."""

    transposed = True
    function: Callable[..., Tensor]

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Sizes, stride: Sizes = 1, padding: Sizes = 0,
        output_padding: Sizes = 0, groups: int = 1, bias: bool = True, dilation: Sizes = 1,
        padding_mode: str = "zeros", device: str | None = None, dtype: DType | None = None,
    ):  # fmt: skip
        super().__init__()
        name = type(self).__name__
        if padding_mode != "zeros" or isinstance(padding, str):
            raise ValueError(
                f'{name}: only padding_mode "zeros" and padding in numbers, got {padding_mode!r} and {padding!r} '
                f"(at {user_source()})"
            )
        self._set(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device,
            dtype,
        )  # fmt: skip
        self.output_padding = sizes_of(name, "output_padding", output_padding, self.rank, 0)

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """[N, in_channels, …] to [N, out_channels, …]; `output_size` asks for one of the sizes that stride leaves
        open.
        """
        extra = self.output_padding if output_size is None else self._extra(input, tuple(output_size))
        return type(self).function(
            input, self.weight, self.bias, self.stride, self.padding, extra, self.groups, self.dilation
        )

    def _extra(self, input: Tensor, wanted: tuple[int, ...]) -> tuple[int, ...]:
        """The output_padding that gives the size `wanted`."""
        wanted = wanted[-self.rank :]
        least: list[Any] = []
        for axis, size in enumerate(input.shape[-self.rank :]):
            pads = self.padding[axis]
            assert isinstance(pads, int)
            least.append((size - 1) * self.stride[axis] - 2 * pads + reach(self.kernel_size[axis], self.dilation[axis]))
        extra = tuple(want - low for want, low in zip(wanted, least, strict=False))
        if len(wanted) != self.rank or not all(0 <= more < step for more, step in zip(extra, self.stride, strict=True)):
            most = [low + step - 1 for low, step in zip(least, self.stride, strict=True)]
            raise ValueError(
                f"{type(self).__name__}: output_size {list(wanted)} must lie between {least} and {most} "
                f"(at {user_source()})"
            )
        return extra


class ConvTranspose1d(_ConvTransposeNd):
    """A transposed convolution over [N, in_channels, L]; see `functional.conv_transpose1d`."""

    rank, function = 1, staticmethod(F.conv_transpose1d)


class ConvTranspose2d(_ConvTransposeNd):
    """A transposed convolution over [N, in_channels, H, W]; see `functional.conv_transpose2d`.

    >>> pb.nn.ConvTranspose2d(16, 3, 4, stride=2, padding=1)(pb.randn(2, 16, 8, 8)).shape
    pullback.Size([2, 3, 16, 16])
    """

    rank, function = 2, staticmethod(F.conv_transpose2d)


class ConvTranspose3d(_ConvTransposeNd):
    """A transposed convolution over [N, in_channels, D, H, W]; see `functional.conv_transpose3d`."""

    rank, function = 3, staticmethod(F.conv_transpose3d)


class _LazyConvXdMixin(LazyModuleMixin):
    """What the lazy convolutions share; they take their channels from the input."""

    def _wait(self, out_channels: int, bias: bool, device: str | None, dtype: DType | None) -> None:
        self.weight = UninitializedParameter(device=device, dtype=dtype)
        self.out_channels = out_channels
        if out_channels % self.groups:
            raise ValueError(
                f"{type(self).__name__}: out_channels={out_channels} must be divisible by groups={self.groups} "
                f"(at {user_source()})"
            )
        if bias:
            self.bias = UninitializedParameter(device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        """Draw the parameters anew, if they are there."""
        if not self.has_uninitialized_params() and self.in_channels:
            super().reset_parameters()  # type: ignore[misc]

    def initialize_parameters(self, input: Tensor, *args: Any, **kwargs: Any) -> None:
        """Take `in_channels` from the input, and draw the parameters if no state dictionary has given them."""
        name, axes = type(self).__name__, (self.rank + 1, self.rank + 2)
        if input.ndim not in axes:
            raise ShapeError(
                f"{name}: the input must have {axes[0]} axes, or {axes[1]} with a batch, got {list(input.shape)} "
                f"(at {user_source()})"
            )
        self.in_channels = input.shape[-self.rank - 1]
        if self.in_channels % self.groups:
            raise ValueError(
                f"{name}: in_channels={self.in_channels} must be divisible by groups={self.groups} (at {user_source()})"
            )
        if self.has_uninitialized_params():
            first, second = self.out_channels, self.in_channels
            first, second = (second, first) if self.transposed else (first, second)
            with no_grad():
                self.weight.materialize((first, second // self.groups, *self.kernel_size))
                if self.bias is not None:
                    self.bias.materialize((self.out_channels,))
                self.reset_parameters()


class _LazyForward(_LazyConvXdMixin):
    def __init__(
        self, out_channels: int, kernel_size: Sizes, stride: Sizes = 1, padding: str | Sizes = 0, dilation: Sizes = 1,
        groups: int = 1, bias: bool = True, padding_mode: str = "zeros", device: str | None = None,
        dtype: DType | None = None,
    ):  # fmt: skip
        super().__init__(0, 0, kernel_size, stride, padding, dilation, groups, False, padding_mode)
        self._wait(out_channels, bias, device, dtype)


class _LazyTransposed(_LazyConvXdMixin):
    def __init__(
        self, out_channels: int, kernel_size: Sizes, stride: Sizes = 1, padding: Sizes = 0, output_padding: Sizes = 0,
        groups: int = 1, bias: bool = True, dilation: Sizes = 1, padding_mode: str = "zeros",
        device: str | None = None, dtype: DType | None = None,
    ):  # fmt: skip
        super().__init__(0, 0, kernel_size, stride, padding, output_padding, groups, False, dilation, padding_mode)
        self._wait(out_channels, bias, device, dtype)


class LazyConv1d(_LazyForward, Conv1d):
    """Conv1d whose `in_channels` are those of its first input."""

    cls_to_become = Conv1d


class LazyConv2d(_LazyForward, Conv2d):
    """Conv2d whose `in_channels` are those of its first input.

    >>> layer = pb.nn.LazyConv2d(4, kernel_size=3)
    >>> layer(pb.ones(1, 2, 5, 5)).shape, layer
    (pullback.Size([1, 4, 3, 3]), Conv2d(2, 4, kernel_size=(3, 3), stride=(1, 1)))
    """

    cls_to_become = Conv2d


class LazyConv3d(_LazyForward, Conv3d):
    """Conv3d whose `in_channels` are those of its first input."""

    cls_to_become = Conv3d


class LazyConvTranspose1d(_LazyTransposed, ConvTranspose1d):
    """ConvTranspose1d whose `in_channels` are those of its first input."""

    cls_to_become = ConvTranspose1d


class LazyConvTranspose2d(_LazyTransposed, ConvTranspose2d):
    """ConvTranspose2d whose `in_channels` are those of its first input."""

    cls_to_become = ConvTranspose2d


class LazyConvTranspose3d(_LazyTransposed, ConvTranspose3d):
    """ConvTranspose3d whose `in_channels` are those of its first input."""

    cls_to_become = ConvTranspose3d


__all__ = [
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "LazyConv1d",
    "LazyConv2d",
    "LazyConv3d",
    "LazyConvTranspose1d",
    "LazyConvTranspose2d",
    "LazyConvTranspose3d",
]
