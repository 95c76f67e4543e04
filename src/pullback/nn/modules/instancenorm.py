"""Instance normalization."""

from __future__ import annotations

import warnings

from ...errors import ShapeError
from ...graph.types import DType
from ...ops.primitive import user_source
from ...tensor import Tensor
from .. import functional as F
from .batchnorm import _LazyNormBase, _NormBase


class _InstanceNorm(_NormBase):
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


class LazyInstanceNorm1d(_LazyNormBase, InstanceNorm1d):
    """InstanceNorm1d whose `num_features` are the channels of its first input."""

    cls_to_become, alone = InstanceNorm1d, 2


class LazyInstanceNorm2d(_LazyNormBase, InstanceNorm2d):
    """InstanceNorm2d whose `num_features` are the channels of its first input."""

    cls_to_become, alone = InstanceNorm2d, 3


class LazyInstanceNorm3d(_LazyNormBase, InstanceNorm3d):
    """InstanceNorm3d whose `num_features` are the channels of its first input."""

    cls_to_become, alone = InstanceNorm3d, 4


__all__ = [
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LazyInstanceNorm1d",
    "LazyInstanceNorm2d",
    "LazyInstanceNorm3d",
]
