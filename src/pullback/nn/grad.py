"""The gradients of convolutions as functions, from the sizes of what they are gradients of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..autograd.backward import grad
from ..tensor import Tensor
from ..tensor.creation import zeros
from ..tensor.grad_modes import enable_grad, is_grad_enabled
from .functional.convolution import Sizes, conv1d, conv2d, conv3d


def _gradient(
    convolution: Callable[..., Tensor], operands: list[Tensor], place: int, size: Sequence[int], grad_output: Tensor,
    options: tuple[Any, ...],
) -> Tensor:  # fmt: skip
    """The gradient of the operand at `place`. Its value does not matter to it: a convolution is linear in each."""
    asked = zeros(tuple(size), dtype=grad_output.dtype, requires_grad=True)
    operands.insert(place, asked)
    with enable_grad():
        result = convolution(*operands, None, *options)
    found: Tensor = grad(result, asked, grad_output, create_graph=is_grad_enabled())[0]
    return found


def conv1d_input(
    input_size: Sequence[int], weight: Tensor, grad_output: Tensor, stride: Sizes = 1, padding: Sizes = 0,
    dilation: Sizes = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """The gradient of conv1d with respect to an input of `input_size`, from that of its result."""
    return _gradient(conv1d, [weight], 0, input_size, grad_output, (stride, padding, dilation, groups))


def conv1d_weight(
    input: Tensor, weight_size: Sequence[int], grad_output: Tensor, stride: Sizes = 1, padding: Sizes = 0,
    dilation: Sizes = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """The gradient of conv1d with respect to a weight of `weight_size`, from that of its result."""
    return _gradient(conv1d, [input], 1, weight_size, grad_output, (stride, padding, dilation, groups))


def conv2d_input(
    input_size: Sequence[int], weight: Tensor, grad_output: Tensor, stride: Sizes = 1, padding: Sizes = 0,
    dilation: Sizes = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """The gradient of conv2d with respect to an input of `input_size`, from that of its result."""
    return _gradient(conv2d, [weight], 0, input_size, grad_output, (stride, padding, dilation, groups))


def conv2d_weight(
    input: Tensor, weight_size: Sequence[int], grad_output: Tensor, stride: Sizes = 1, padding: Sizes = 0,
    dilation: Sizes = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """The gradient of conv2d with respect to a weight of `weight_size`, from that of its result."""
    return _gradient(conv2d, [input], 1, weight_size, grad_output, (stride, padding, dilation, groups))


def conv3d_input(
    input_size: Sequence[int], weight: Tensor, grad_output: Tensor, stride: Sizes = 1, padding: Sizes = 0,
    dilation: Sizes = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """The gradient of conv3d with respect to an input of `input_size`, from that of its result."""
    return _gradient(conv3d, [weight], 0, input_size, grad_output, (stride, padding, dilation, groups))


def conv3d_weight(
    input: Tensor, weight_size: Sequence[int], grad_output: Tensor, stride: Sizes = 1, padding: Sizes = 0,
    dilation: Sizes = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """The gradient of conv3d with respect to a weight of `weight_size`, from that of its result."""
    return _gradient(conv3d, [input], 1, weight_size, grad_output, (stride, padding, dilation, groups))


__all__ = ["conv1d_input", "conv1d_weight", "conv2d_input", "conv2d_weight", "conv3d_input", "conv3d_weight"]
