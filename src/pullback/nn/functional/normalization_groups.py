"""Normalization of each sample by itself: of groups of channels, of one channel, by the root mean square, by length."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ...autograd.function import with_gradient
from ...errors import ShapeError
from ...ops.movement import pad
from ...ops.primitive import user_source
from ...tensor import Tensor
from ...tensor.arguments import real
from ...tensor.autocast_mode import in_float32
from ...tensor.grad_modes import no_grad
from ...tensor.promotion import require_float
from ...tensor.reductions import normalize_axis
from .activation import finished, widened
from .linear import normalized, reciprocal_root
from .normalization import along_channels, batch_norm


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias, mean and variance of each sample's `num_groups` groups.

    Shapes: input [N, C, …], weight and bias [C]; C is divisible by num_groups. Wu & He, "Group Normalization" (2018).

    >>> pb.nn.functional.group_norm(pb.tensor([[1.0, 3.0, 5.0, 9.0]]), 2)
    tensor([[-1.0000,  1.0000, -1.0000,  1.0000]])
    """
    if input.ndim < 2 or not isinstance(num_groups, int) or num_groups < 1 or input.shape[1] % num_groups:
        raise ShapeError(
            f"group_norm: input must be [N, C, …] with C divisible by num_groups={num_groups!r}, got "
            f"{list(input.shape)} (at {user_source()})"
        )
    _check_channels("group_norm", input, {"weight": weight, "bias": bias})
    count = math.prod(input.shape[1:]) // num_groups
    if input.shape[0] * count == 1:
        raise ValueError(f"group_norm: one value a group is no group, got input {list(input.shape)}")
    x = widened("group_norm", input)
    hat = normalized(x.reshape(input.shape[0], num_groups, count), (2,), count, eps).reshape(input.shape)
    for tensor, combine in ((weight, Tensor.mul), (bias, Tensor.add)):
        if tensor is not None:
            hat = combine(hat, along_channels(widened("group_norm", tensor), x))
    return finished(hat, input)


def _check_channels(name: str, input: Tensor, named: dict[str, Tensor | None]) -> None:
    for called, tensor in named.items():
        if tensor is not None and tensor.shape != input.shape[1:2]:
            raise ShapeError(
                f"{name}: {called} must be {list(input.shape[1:2])}, one for each channel of input "
                f"{list(input.shape)}, got {list(tensor.shape)} (at {user_source()})"
            )


def instance_norm(
    input: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None, weight: Tensor | None = None,
    bias: Tensor | None = None, use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Normalization of each channel of each sample of `input` [N, C, …] by its own mean and variance.

    The running statistics [C], if given, move towards the samples' averages, in place; without `use_input_stats` they
    are what is normalized by. Ulyanov, Vedaldi & Lempitsky, "Instance Normalization" (2016).
    """
    name = "instance_norm"
    momentum = real(momentum, name, "momentum")
    if input.ndim < 2:
        raise ShapeError(f"{name}: input must be [N, C, …], got {list(input.shape)} (at {user_source()})")
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    statistics = {"running_mean": running_mean, "running_var": running_var}
    _check_channels(name, input, {"weight": weight, "bias": bias, **statistics})
    count = math.prod(input.shape[2:])
    if count == 1:
        raise ValueError(
            f"{name}: training needs more than one value for each channel of a sample, got {list(input.shape)} "
            f"(at {user_source()})"
        )
    x = widened(name, input)
    if running_mean is not None or running_var is not None:
        _track(x, running_mean, running_var, momentum)
    hat = normalized(x, tuple(range(2, x.ndim)), count, eps)
    for tensor, combine in ((weight, Tensor.mul), (bias, Tensor.add)):
        if tensor is not None:
            hat = combine(hat, along_channels(widened(name, tensor), x))
    return finished(hat, input)


def _track(x: Tensor, running_mean: Tensor | None, running_var: Tensor | None, momentum: float) -> None:
    """Move the running statistics towards the samples' averages."""
    axes = tuple(range(2, x.ndim))
    with no_grad():
        mean, variance = x.mean(axes).mean(0), x.var(axes).mean(0)
        for running, value in ((running_mean, mean), (running_var, variance)):
            if running is not None:
                running.copy_(running * (1 - momentum) + value.detach().to(running.dtype) * momentum)


def rms_norm(
    input: Tensor, normalized_shape: int | Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """x / sqrt(mean(x²) + eps) * weight over the last axes, whose sizes are `normalized_shape`.

    `eps` is the distance of 1 from the next greater number of the dtype of the computation unless given. Zhang &
    Sennrich, "Root Mean Square Layer Normalization" (NeurIPS 2019).

    >>> pb.nn.functional.rms_norm(pb.tensor([3.0, 4.0, 5.0, 0.0]), 4)
    tensor([0.8485, 1.1314, 1.4142, 0.0000])
    """
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not shape or input.shape[-len(shape) :] != shape or (weight is not None and weight.shape != shape):
        given = "" if weight is None else f", and weight {list(weight.shape)}"
        raise ShapeError(
            f"rms_norm: the last axes of input {list(input.shape)}{given} must be normalized_shape {list(shape)} "
            f"(at {user_source()})"
        )
    x = widened("rms_norm", input)
    axes, count = tuple(range(-len(shape), 0)), max(math.prod(shape), 1)
    small = float(np.finfo(x.dtype.carrier).eps) if eps is None else eps

    def mean(t: Tensor) -> Tensor:
        return t.sum(axes, keepdim=True) * (1 / count)

    reciprocal = reciprocal_root(mean(x * x), small)
    hat = x * reciprocal

    def rule(_: Tensor, cotangent: Tensor) -> list[Tensor]:
        return [reciprocal * (cotangent - hat * mean(cotangent * hat))]

    result = with_gradient(hat, [x], rule)
    return finished(result if weight is None else result * widened("rms_norm", weight), input)


def local_response_norm(
    input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:  # fmt: skip
    """x / (k + alpha mean(x²))^beta, the mean over `size` neighbouring channels of `input` [N, C, …], zeros beyond.

    Krizhevsky, Sutskever & Hinton, "ImageNet classification with deep convolutional neural networks" (NIPS 2012).
    """
    if input.ndim < 3:
        raise ShapeError(
            f"local_response_norm: input must have at least 3 axes, [N, C, …], got {list(input.shape)} "
            f"(at {user_source()})"
        )
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"local_response_norm: size must be a whole number from 1 on, got {size!r}")
    if not input.numel():
        return input.clone()
    if input.ndim > 3:  # PyTorch pools over three axes then
        (input,) = in_float32(input)
    x = widened("local_response_norm", input) if input.is_floating_point() else input
    widths = tuple((size // 2, (size - 1) // 2) if axis == 1 else (0, 0) for axis in range(x.ndim))
    squares = Tensor(pad((x * x).node, widths))
    total = squares.narrow(1, 0, x.shape[1])
    for place in range(1, size):
        total = total + squares.narrow(1, place, x.shape[1])
    if not input.is_floating_point():
        return input / ((total // size) * float(alpha) + k) ** beta  # PyTorch's mean of integers is a whole number
    return finished(x / (total * (alpha / size) + k) ** beta, input)


def normalize(
    input: Tensor, p: float = 2.0, dim: int | tuple[int, ...] = 1, eps: float = 1e-12, out: None = None
) -> Tensor:
    """x / max(norm of order `p` along `dim`, eps).

    >>> pb.nn.functional.normalize(pb.tensor([3.0, 4.0]), dim=0)
    tensor([0.6000, 0.8000])
    """
    if out is not None:
        raise ValueError(f"normalize: out= is not supported, assign the result (at {user_source()})")
    require_float("normalize", input)
    for axis in (dim,) if isinstance(dim, int) else dim:
        normalize_axis(axis, input.ndim, "normalize")
    x = widened("normalize", input)
    return finished(x / x.norm(p, dim, keepdim=True).clamp(min=eps), input)


__all__ = ["group_norm", "instance_norm", "local_response_norm", "normalize", "rms_norm"]
