"""Layers that PyTorch has directly in its namespace too, some with other arguments than `nn.functional` has."""

from __future__ import annotations

from collections.abc import Sequence

from ...tensor import Tensor
from . import activation, dropout_channels, normalization, normalization_groups
from .activation_pieces import celu, hardshrink, prelu, rrelu, selu, threshold
from .convolution import conv1d, conv2d, conv3d, conv_transpose1d, conv_transpose2d, conv_transpose3d
from .embedding import embedding as _embedding
from .linear import layer_norm as _layer_norm
from .normalization_groups import rms_norm
from .pooling import avg_pool1d, max_pool1d, max_pool2d, max_pool3d
from .pooling_shares import adaptive_avg_pool1d


def dropout(input: Tensor, p: float, train: bool) -> Tensor:
    """nn.functional.dropout."""
    return activation.dropout(input, p, train)


def alpha_dropout(input: Tensor, p: float, train: bool) -> Tensor:
    """nn.functional.alpha_dropout."""
    return dropout_channels.alpha_dropout(input, p, train)


def feature_alpha_dropout(input: Tensor, p: float, train: bool) -> Tensor:
    """nn.functional.feature_alpha_dropout."""
    return dropout_channels.feature_alpha_dropout(input, p, train)


def embedding(weight: Tensor, indices: Tensor, padding_idx: int = -1) -> Tensor:
    """The rows of `weight` that `indices` names: nn.functional.embedding with the weight first; -1 is no padding."""
    return _embedding(indices, weight, None if padding_idx == -1 else padding_idx)


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """nn.functional.layer_norm."""
    return _layer_norm(input, normalized_shape, weight, bias, eps)


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """nn.functional.group_norm."""
    return normalization_groups.group_norm(input, num_groups, weight, bias, eps)


def batch_norm(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None, running_var: Tensor | None,
    training: bool, momentum: float, eps: float,
) -> Tensor:  # fmt: skip
    """nn.functional.batch_norm with weight and bias before the statistics."""
    return normalization.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)


__all__ = [
    "adaptive_avg_pool1d",
    "alpha_dropout",
    "avg_pool1d",
    "batch_norm",
    "celu",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "dropout",
    "embedding",
    "feature_alpha_dropout",
    "group_norm",
    "hardshrink",
    "layer_norm",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "prelu",
    "rms_norm",
    "rrelu",
    "selu",
    "threshold",
]
