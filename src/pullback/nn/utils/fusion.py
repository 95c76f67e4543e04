"""A batch normalization in evaluation made part of the convolution or linear layer before it."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from ...ops.primitive import user_source
from ...tensor import Tensor
from ..modules.module import Module
from ..parameter import Parameter

Layer = TypeVar("Layer", bound=Module)


def fuse_conv_bn_weights(
    conv_w: Tensor,
    conv_b: Tensor | None,
    bn_rm: Tensor,
    bn_rv: Tensor,
    bn_eps: float,
    bn_w: Tensor | None,
    bn_b: Tensor | None,
    transpose: bool = False,
) -> tuple[Parameter, Parameter]:
    """Weight and bias of the convolution that normalizes by itself; with `transpose` its outputs are axis 1."""
    scale = (bn_rv + bn_eps).rsqrt() if bn_w is None else bn_w * (bn_rv + bn_eps).rsqrt()
    shape = [1] * conv_w.ndim
    shape[1 if transpose else 0] = -1
    shifted = (-bn_rm if conv_b is None else conv_b - bn_rm) * scale
    bias = shifted if bn_b is None else shifted + bn_b
    return (
        Parameter((conv_w * scale.reshape(shape)).to(conv_w.dtype), conv_w.requires_grad),
        Parameter(
            bias.to(conv_w.dtype if conv_b is None else conv_b.dtype), conv_b is not None and conv_b.requires_grad
        ),
    )


def fuse_linear_bn_weights(
    linear_w: Tensor,
    linear_b: Tensor | None,
    bn_rm: Tensor,
    bn_rv: Tensor,
    bn_eps: float,
    bn_w: Tensor | None,
    bn_b: Tensor | None,
) -> tuple[Parameter, Parameter]:
    """Weight and bias of the linear layer that normalizes by itself."""
    return fuse_conv_bn_weights(linear_w, linear_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b)


def fuse_conv_bn_eval(conv: Layer, bn: Any, transpose: bool = False) -> Layer:
    """A copy of `conv` that gives what `bn` gives after it, both in evaluation."""
    return _fused("fuse_conv_bn_eval", conv, bn, transpose)


def fuse_linear_bn_eval(linear: Layer, bn: Any) -> Layer:
    """A copy of `linear` that gives what `bn` gives after it, both in evaluation."""
    if bn.num_features not in (1, linear.out_features):
        raise ValueError(
            f"fuse_linear_bn_eval: linear has {linear.out_features} outputs, the normalization {bn.num_features} "
            f"(at {user_source()})"
        )
    return _fused("fuse_linear_bn_eval", linear, bn, False)


def _fused(name: str, layer: Layer, bn: Any, transpose: bool) -> Layer:
    if layer.training or bn.training:
        raise ValueError(f"{name}: both modules must be in evaluation (at {user_source()}): call eval() first")
    if bn.running_mean is None or bn.running_var is None:
        raise ValueError(f"{name}: the normalization keeps no running statistics (at {user_source()})")
    fused = copy.deepcopy(layer)
    fused.weight, fused.bias = fuse_conv_bn_weights(
        layer.weight, layer.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias, transpose
    )
    return fused


__all__ = ["fuse_conv_bn_eval", "fuse_conv_bn_weights", "fuse_linear_bn_eval", "fuse_linear_bn_weights"]
