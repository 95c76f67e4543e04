"""Lazy modules: layers that find out from their first input how many features or channels it has."""

from __future__ import annotations

from typing import Any

from ...errors import ShapeError
from ...graph.types import DType, int64
from ...ops.primitive import user_source
from ...tensor import Tensor
from ...tensor.creation import zeros
from ...tensor.grad_modes import no_grad
from ...tensor.handle import outside_trace
from ..functional.convolution import Sizes
from ..parameter import Uninitialized, UninitializedBuffer, UninitializedParameter
from .batchnorm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from .conv import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from .instancenorm import InstanceNorm1d, InstanceNorm2d, InstanceNorm3d
from .linear import Linear
from .module import Module


class LazyModuleMixin(Module):
    """A module with parameters or buffers that get their shapes at the first call, or by loading a state dictionary.

    Make them `nn.UninitializedParameter()`, and define `initialize_parameters(*args, **kwargs)`, which is given the
    arguments of the first call and calls `materialize(shape)` of each. After it the module becomes a `cls_to_become`,
    if that is not None. Inside a compiled step this happens while the step is recorded.

    >>> class Scale(pb.nn.modules.lazy.LazyModuleMixin, pb.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.weight = pb.nn.UninitializedParameter()
    ...     def initialize_parameters(self, x):
    ...         if self.has_uninitialized_params():
    ...             self.weight.materialize(x.shape[-1:])
    ...             pb.nn.init.ones_(self.weight)
    ...     def forward(self, x):
    ...         return x * self.weight
    >>> layer = Scale()
    >>> layer.weight
    <UninitializedParameter>
    >>> layer(pb.ones(2, 3)).shape, layer.weight.shape
    (pullback.Size([2, 3]), pullback.Size([3]))
    """

    cls_to_become: type[Module] | None = None
    _is_inferred = False
    weight: Any
    bias: Any

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)  # of the layer that comes next

    def initialize_parameters(self, *args: Any, **kwargs: Any) -> None:
        """Give the parameters and buffers that have none their shapes and values, from the arguments of a call."""
        raise NotImplementedError(f"{type(self).__name__} must define initialize_parameters() (at {user_source()})")

    def has_uninitialized_params(self) -> bool:
        """Whether one of the module's own parameters or buffers has no shape yet."""
        return any(isinstance(held, Uninitialized) for held in [*self._parameters.values(), *self._buffers.values()])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self._is_inferred:
            with outside_trace():
                self._infer(args, kwargs)
        # not super(): the module may have become another class
        return Module.__call__(self, *args, **kwargs)

    def _infer(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.initialize_parameters(*args, **kwargs)
        if self.has_uninitialized_params():
            raise RuntimeError(
                f"{type(self).__name__}.initialize_parameters() has left parameters or buffers without a shape "
                f"(at {user_source()})"
            )
        if self.cls_to_become is None:
            self._is_inferred = True
        else:
            self.__class__ = self.cls_to_become  # type: ignore[assignment]


class LazyLinear(LazyModuleMixin, Linear):
    """Linear whose `in_features` are the size of the last axis of its first input.

    >>> layer = pb.nn.LazyLinear(2)
    >>> layer(pb.ones(4, 3)).shape, layer
    (pullback.Size([4, 2]), Linear(in_features=3, out_features=2, bias=True))
    """

    cls_to_become = Linear

    def __init__(self, out_features: int, bias: bool = True, device: str | None = None, dtype: DType | None = None):
        super().__init__(0, 0, False)
        self.weight = UninitializedParameter(device=device, dtype=dtype)
        self.out_features = out_features
        if bias:
            self.bias = UninitializedParameter(device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        """Draw the parameters anew, if they are there."""
        if not self.has_uninitialized_params() and self.in_features:
            super().reset_parameters()

    def initialize_parameters(self, input: Tensor) -> None:
        """Take `in_features` from the input, and draw the parameters if no state dictionary has given them."""
        self.in_features = input.shape[-1]
        if self.has_uninitialized_params():
            with no_grad():
                self.weight.materialize((self.out_features, self.in_features))
                if self.bias is not None:
                    self.bias.materialize((self.out_features,))
                self.reset_parameters()


class _LazyConvolution(LazyModuleMixin):
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


class _LazyForward(_LazyConvolution):
    def __init__(
        self, out_channels: int, kernel_size: Sizes, stride: Sizes = 1, padding: str | Sizes = 0, dilation: Sizes = 1,
        groups: int = 1, bias: bool = True, padding_mode: str = "zeros", device: str | None = None,
        dtype: DType | None = None,
    ):  # fmt: skip
        super().__init__(0, 0, kernel_size, stride, padding, dilation, groups, False, padding_mode)
        self._wait(out_channels, bias, device, dtype)


class _LazyTransposed(_LazyConvolution):
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


class _LazyNorm(LazyModuleMixin):
    """What lazy batch and instance normalization share; `num_features` are the channels of the first input."""

    #: how many axes an input of one sample, without a batch, has
    alone: int | None = None

    def __init__(
        self, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True, track_running_stats: bool = True,
        device: str | None = None, dtype: DType | None = None, *, bias: bool = True,
    ):  # fmt: skip
        super().__init__(0, eps, momentum, False, False, device, dtype, bias=False)
        self.affine, self.track_running_stats = affine, track_running_stats
        if affine:
            self.weight = UninitializedParameter(device=device, dtype=dtype)
            if bias:
                self.bias = UninitializedParameter(device=device, dtype=dtype)
        if track_running_stats:
            self.running_mean = UninitializedBuffer(device=device, dtype=dtype)
            self.running_var = UninitializedBuffer(device=device, dtype=dtype)
            self.num_batches_tracked = zeros((), dtype=int64)

    def reset_parameters(self) -> None:
        """The weight, bias and statistics as they start, if they are there."""
        if not self.has_uninitialized_params() and self.num_features:
            super().reset_parameters()  # type: ignore[misc]

    def initialize_parameters(self, input: Tensor) -> None:
        """Take `num_features` from the input; what no state dictionary has given starts as it does."""
        if input.ndim not in self.axes:
            raise ShapeError(
                f"{type(self).__name__}: the input must have {' or '.join(map(str, self.axes))} axes, got "
                f"{list(input.shape)} (at {user_source()})"
            )
        self.num_features = input.shape[0 if input.ndim == self.alone else 1]
        if self.has_uninitialized_params():
            with no_grad():
                for held in (self.weight, self.bias, self.running_mean, self.running_var):
                    if held is not None:
                        held.materialize((self.num_features,))
                self.reset_parameters()


class LazyBatchNorm1d(_LazyNorm, BatchNorm1d):
    """BatchNorm1d whose `num_features` are the channels of its first input."""

    cls_to_become = BatchNorm1d


class LazyBatchNorm2d(_LazyNorm, BatchNorm2d):
    """BatchNorm2d whose `num_features` are the channels of its first input."""

    cls_to_become = BatchNorm2d


class LazyBatchNorm3d(_LazyNorm, BatchNorm3d):
    """BatchNorm3d whose `num_features` are the channels of its first input."""

    cls_to_become = BatchNorm3d


class LazyInstanceNorm1d(_LazyNorm, InstanceNorm1d):
    """InstanceNorm1d whose `num_features` are the channels of its first input."""

    cls_to_become, alone = InstanceNorm1d, 2


class LazyInstanceNorm2d(_LazyNorm, InstanceNorm2d):
    """InstanceNorm2d whose `num_features` are the channels of its first input."""

    cls_to_become, alone = InstanceNorm2d, 3


class LazyInstanceNorm3d(_LazyNorm, InstanceNorm3d):
    """InstanceNorm3d whose `num_features` are the channels of its first input."""

    cls_to_become, alone = InstanceNorm3d, 4


__all__ = [
    "LazyBatchNorm1d",
    "LazyBatchNorm2d",
    "LazyBatchNorm3d",
    "LazyConv1d",
    "LazyConv2d",
    "LazyConv3d",
    "LazyConvTranspose1d",
    "LazyConvTranspose2d",
    "LazyConvTranspose3d",
    "LazyInstanceNorm1d",
    "LazyInstanceNorm2d",
    "LazyInstanceNorm3d",
    "LazyLinear",
    "LazyModuleMixin",
]
