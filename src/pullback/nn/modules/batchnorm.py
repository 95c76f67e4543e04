"""Batch normalization."""

from __future__ import annotations

import numpy as np

from ...errors import ShapeError
from ...graph.types import DType, int64
from ...ops.primitive import user_source
from ...tensor import Tensor
from ...tensor.creation import empty, tensor, zeros
from ...tensor.grad_modes import no_grad
from ...tensor.state import STATE
from .. import functional as F
from .. import init
from ..parameter import Parameter, UninitializedBuffer, UninitializedParameter
from .lazy import LazyModuleMixin
from .module import Module


class _NormBase(Module):
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


class _BatchNorm(_NormBase):
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


class _LazyNormBase(LazyModuleMixin):
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


class LazyBatchNorm1d(_LazyNormBase, BatchNorm1d):
    """BatchNorm1d whose `num_features` are the channels of its first input."""

    cls_to_become = BatchNorm1d


class LazyBatchNorm2d(_LazyNormBase, BatchNorm2d):
    """BatchNorm2d whose `num_features` are the channels of its first input."""

    cls_to_become = BatchNorm2d


class LazyBatchNorm3d(_LazyNormBase, BatchNorm3d):
    """BatchNorm3d whose `num_features` are the channels of its first input."""

    cls_to_become = BatchNorm3d


__all__ = ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "LazyBatchNorm1d", "LazyBatchNorm2d", "LazyBatchNorm3d"]
