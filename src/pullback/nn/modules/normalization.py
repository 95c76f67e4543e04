"""Normalization layers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from ...errors import ShapeError
from ...graph.types import DType, int64
from ...ops.primitive import user_source
from ...tensor import Tensor
from ...tensor.creation import empty, tensor, zeros
from ...tensor.grad_modes import no_grad
from ...tensor.handle import STATE
from .. import functional as F
from .. import init
from ..parameter import Parameter
from .module import Module


class _Normalization(Module):
    """What batch and instance normalization have in common: a weight and bias, and running statistics."""

    axes: tuple[int, ...]

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
        track_running_stats: bool = True, device: str | None = None, dtype: DType | None = None, *, bias: bool = True,
    ):  # fmt: skip
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        for name, there in (("weight", affine), ("bias", affine and bias)):
            self.register_parameter(name, Parameter(empty(num_features, device=device, dtype=dtype)) if there else None)
        for name in ("running_mean", "running_var"):
            start = zeros(num_features, device=device, dtype=dtype) if track_running_stats else None
            self.register_buffer(name, start)
        self.register_buffer("num_batches_tracked", zeros((), dtype=int64) if track_running_stats else None)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Running mean 0, running variance 1, no batch counted."""
        if self.track_running_stats:
            with no_grad():
                self.running_mean.zero_()
                self.running_var.fill_(1.0)
                self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """Weight 1, bias 0, and the running statistics as they start."""
        self.reset_running_stats()
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def extra_repr(self) -> str:
        """The sizes and switches."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )


class _BatchNorm(_Normalization):
    """Normalization of each channel by the batch's mean and variance, or in evaluation by the running ones.

    `momentum` is the share of each new batch in the running statistics; None takes the plain average of all batches.
    Without `track_running_stats` there are none, and the batch's are used in evaluation too.
    """

    def forward(self, input: Tensor) -> Tensor:
        """The normalized input, in its shape."""
        if input.ndim not in self.axes or input.shape[1] != self.num_features:
            sizes = " or ".join(map(str, self.axes))
            raise ShapeError(
                f"{type(self).__name__}({self.num_features}): input must have {sizes} axes and {self.num_features} "
                f"channels along the second, got {list(input.shape)} (at {user_source()})"
            )
        tracking = self.training and self.running_mean is not None
        share: float | Tensor = 0.0
        if tracking:
            self._count_batch()
            share = self._share() if self.momentum is None else self.momentum
        return F.batch_norm(
            input,
            None if self.training and not tracking else self.running_mean,
            None if self.training and not tracking else self.running_var,
            self.weight,
            self.bias,
            self.training or self.running_mean is None,
            share,
            self.eps,
        )

    def _share(self) -> Tensor:
        """What each batch so far has in the plain average, as precise as the running statistics are."""
        assert self.running_mean is not None
        return 1.0 / self.num_batches_tracked.to(self.running_mean.dtype.compute)

    def _count_batch(self) -> None:
        """One more; at once where it is a number of its own, because nothing else would ever ask for the sum."""
        with no_grad():
            if STATE.trace is None and STATE.example is None:
                self.num_batches_tracked.copy_(tensor(np.int64(self.num_batches_tracked.item() + 1)))
            else:
                self.num_batches_tracked.add_(1)


class BatchNorm1d(_BatchNorm):
    """Batch normalization of [N, C] or [N, C, L]; see `functional.batch_norm`."""

    axes = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch normalization of [N, C, H, W]; see `functional.batch_norm`.

    >>> layer = pb.nn.BatchNorm2d(3)
    >>> layer(pb.randn(4, 3, 8, 8)).mean().abs().item() < 1e-5
    True
    """

    axes = (4,)


class BatchNorm3d(_BatchNorm):
    """Batch normalization of [N, C, D, H, W]; see `functional.batch_norm`."""

    axes = (5,)


class _InstanceNorm(_Normalization):
    """Normalization of each channel of each sample by its own mean and variance.

    With `track_running_stats` the averages are kept, and used in evaluation.
    """

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = False,
        track_running_stats: bool = False, device: str | None = None, dtype: DType | None = None, *,
        bias: bool = True,
    ):  # fmt: skip
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """The normalized input, in its shape; the batch axis may be missing."""
        if input.ndim not in self.axes:
            raise ShapeError(
                f"{type(self).__name__}: input must have {' or '.join(map(str, self.axes))} axes, got "
                f"{list(input.shape)} (at {user_source()})"
            )
        alone = input.ndim == self.axes[0]
        x = input.unsqueeze(0) if alone else input
        if x.shape[1] != self.num_features:
            self._wrong_channels(x)
        result = F.instance_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias,
            self.training or not self.track_running_stats, 0.0 if self.momentum is None else self.momentum, self.eps,
        )  # fmt: skip
        return result.squeeze(0) if alone else result

    def _wrong_channels(self, x: Tensor) -> None:
        message = (
            f"{type(self).__name__}({self.num_features}): input {list(x.shape)} has {x.shape[1]} channels "
            f"(at {user_source()})"
        )
        if self.affine or self.track_running_stats:
            raise ValueError(message)
        warnings.warn(f"{message}; num_features is not used as affine is False", stacklevel=3)


class InstanceNorm1d(_InstanceNorm):
    """Instance normalization of [N, C, L] or [C, L]; see `functional.instance_norm`."""

    axes = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    """Instance normalization of [N, C, H, W] or [C, H, W]; see `functional.instance_norm`."""

    axes = (3, 4)


class InstanceNorm3d(_InstanceNorm):
    """Instance normalization of [N, C, D, H, W] or [C, D, H, W]; see `functional.instance_norm`."""

    axes = (4, 5)


class GroupNorm(Module):
    """Normalization of each sample's groups of channels; see `functional.group_norm`. weight starts at 1, bias at 0."""

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True, device: str | None = None,
        dtype: DType | None = None, *, bias: bool = True,
    ):  # fmt: skip
        super().__init__()
        if num_channels % num_groups:
            raise ValueError(
                f"GroupNorm: num_channels={num_channels} must be divisible by num_groups={num_groups} "
                f"(at {user_source()})"
            )
        self.num_groups, self.num_channels, self.eps, self.affine = num_groups, num_channels, eps, affine
        for name, there in (("weight", affine), ("bias", affine and bias)):
            made = Parameter(empty(num_channels, device=device, dtype=dtype)) if there else None
            self.register_parameter(name, made)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weight 1, bias 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """The normalized input, in its shape."""
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """The sizes and switches."""
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )


class RMSNorm(Module):
    """Normalization of the last axes by their root mean square; see `functional.rms_norm`. weight starts at 1."""

    def __init__(
        self, normalized_shape: int | Sequence[int], eps: float | None = None, elementwise_affine: bool = True,
        device: str | None = None, dtype: DType | None = None,
    ):  # fmt: skip
        super().__init__()
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.normalized_shape, self.eps, self.elementwise_affine = shape, eps, elementwise_affine
        made = Parameter(empty(*shape, device=device, dtype=dtype)) if elementwise_affine else None
        self.register_parameter("weight", made)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weight 1."""
        if self.weight is not None:
            init.ones_(self.weight)

    def forward(self, input: Tensor) -> Tensor:
        """The normalized input, in its shape."""
        return F.rms_norm(input, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        """The sizes and what is added for stability."""
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class LocalResponseNorm(Module):
    """Normalization by neighbouring channels; see `functional.local_response_norm`."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0):
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, input: Tensor) -> Tensor:
        """The normalized input, in its shape."""
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        """The window and the constants."""
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LocalResponseNorm",
    "RMSNorm",
]
