"""Batch normalization."""

from __future__ import annotations

import math

from ...autograd.function import with_gradient
from ...errors import ShapeError
from ...ops.primitive import user_source
from ...tensor import Tensor
from ...tensor.arguments import real
from ...tensor.grad_modes import no_grad
from .activation import finished, widened
from .linear import reciprocal_root


def batch_norm(
    input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
    bias: Tensor | None = None, training: bool = False, momentum: float | Tensor = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """(x - mean) / sqrt(variance + eps) * weight + bias for each channel of `input` [N, C, …].

    In training mean and (population) variance are those of the batch over all axes but the channels', and the running
    statistics [C], if given, move towards mean and unbiased variance: r = (1 - momentum) r + momentum x, in place;
    otherwise the running statistics are used. Ioffe & Szegedy, "Batch Normalization" (2015). The gradient is the
    three-term formula rstd * (g - mean(g) - x̂ mean(g x̂)), with the sums that weight's and bias's gradients are.
    """
    momentum = real(momentum, "batch_norm", "momentum")
    _check_eps(eps, training)
    if not input.numel():
        return _of_nothing(input, weight, bias)
    if input.ndim < 2:
        raise ShapeError(f"batch_norm: input must be [N, C, …], got {list(input.shape)} (at {user_source()})")
    channels = input.shape[1]
    named = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
    for name, tensor in named.items():
        if tensor is not None and tensor.shape != (channels,):
            raise ShapeError(
                f"batch_norm: {name} must be [{channels}], one for each channel of input {list(input.shape)}, got "
                f"{list(tensor.shape)} (at {user_source()})"
            )
    x = widened("batch_norm", input)
    scale = None if weight is None else along_channels(widened("batch_norm", weight), x)
    shift = None if bias is None else along_channels(widened("batch_norm", bias), x)
    if training:
        return finished(_trained(x, scale, shift, running_mean, running_var, momentum, eps), input)
    if running_mean is None or running_var is None:
        raise ValueError(
            f"batch_norm: running_mean and running_var are needed unless training=True (at {user_source()})"
        )
    mean = along_channels(widened("batch_norm", running_mean), x)
    reciprocal = reciprocal_root(along_channels(widened("batch_norm", running_var), x), eps)
    return finished(_affine((x - mean) * reciprocal, scale, shift), input)


def _check_eps(eps: float, training: bool) -> None:
    """As PyTorch: a channel of one value would be divided by zero, or by the root of a negative number."""
    if real(eps, "batch_norm", "eps") < 0 or (training and eps == 0):
        wanted = "positive during training" if training else "0 or more"
        raise ValueError(f"batch_norm: eps must be {wanted}, got {eps} (at {user_source()})")


def _of_nothing(input: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """No elements, in any shape; the running statistics stay, and the gradients of weight and bias are zeros."""
    result = widened("batch_norm", input)
    result = result if weight is None else result * weight.to(result.dtype).sum()
    return finished(result if bias is None else result + bias.to(result.dtype).sum(), input)


def along_channels(values: Tensor, x: Tensor) -> Tensor:
    """[C] as [1, C, 1, …], to go with `x`."""
    return values.to(x.dtype).reshape(1, values.numel(), *(1 for _ in range(x.ndim - 2)))


def _affine(hat: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    scaled = hat if scale is None else hat * scale
    return scaled if shift is None else scaled + shift


def _trained(
    x: Tensor, scale: Tensor | None, shift: Tensor | None, running_mean: Tensor | None, running_var: Tensor | None,
    momentum: float | Tensor, eps: float,
) -> Tensor:  # fmt: skip
    axes = (0, *range(2, x.ndim))
    count = math.prod(x.shape[axis] for axis in axes)
    if count <= 1:
        raise ValueError(
            f"batch_norm: training needs more than one value for each channel, got input {list(x.shape)} "
            f"(at {user_source()}). Use a larger batch, or .eval()."
        )
    mean = x.sum(axes, keepdim=True) * (1 / count)
    distance = x - mean
    variance = (distance * distance).sum(axes, keepdim=True) * (1 / count)
    with no_grad():
        for running, value in ((running_mean, mean), (running_var, variance * (count / (count - 1)))):
            if running is not None:
                new = value.detach().reshape(value.numel()).to(running.dtype)
                running.copy_(running * (1 - momentum) + new * momentum)
    reciprocal = reciprocal_root(variance, eps)
    hat = distance * reciprocal
    given = [tensor for tensor in (x, scale, shift) if tensor is not None]

    def rule(_: Tensor, cotangent: Tensor) -> list[Tensor]:
        total = cotangent.sum(axes, keepdim=True)
        along = (cotangent * hat).sum(axes, keepdim=True)
        factor = reciprocal if scale is None else reciprocal * scale
        found = [factor * (cotangent - total * (1 / count) - hat * (along * (1 / count)))]
        found += [] if scale is None else [along]
        return found + ([] if shift is None else [total])

    return with_gradient(_affine(hat, scale, shift), given, rule)


__all__ = ["batch_norm"]
