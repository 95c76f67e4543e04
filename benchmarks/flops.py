"""Floating-point operations of a training step, counted from the shapes of its products and convolutions.

A multiplication and an addition are two operations. A backward pass makes two products for each one of the forward
pass, so a step counts three forward passes; the first layer's gradient for its input, which nobody needs, is counted
too, and so is causal attention in full although half of its scores are thrown away. All that is not a product
(activations, normalization, softmax, optimizer) counts nothing. The count is the same for every contestant: a
contestant that does less than it counts as faster, never as nearer to a limit of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from .workloads import GPT

#: products of a step, in forward passes
PASSES = 3


def of_step(name: str, **changes: int) -> int:
    """Operations of one step of workload `name`; `changes` are of a GPT's sizes or resnet20's.

    Raises KeyError where `name` is no workload.
    """
    return PASSES * of_forward(name, **changes)


def of_forward(name: str, **changes: int) -> int:
    """Operations of the forward pass of workload `name`; `changes` are of a GPT's sizes or resnet20's."""
    if name in GPT:
        return _gpt(**{**GPT[name], **changes})
    if name == "resnet20":
        return _resnet20(**changes)
    counts = {
        "mlp": 32 * _layers((128, 64, 10)),
        "sigmoid20": _layers((64,) * 21),
        "ppo": 64 * (_layers((8, 64, 64, 4)) + _layers((8, 64, 64, 1))),
        "lstm": 32 * (50 * (_layers((32 + 128, 4 * 128)) + _layers((128 + 128, 4 * 128))) + _layers((128, 1))),
    }
    return counts[name]


def _layers(widths: Iterable[int]) -> int:
    """Operations of one row of a chain of linear layers."""
    return sum(2 * inputs * outputs for inputs, outputs in itertools.pairwise(widths))


def _gpt(vocabulary: int, context: int, width: int, heads: int, layers: int, batch: int) -> int:
    block = _layers((width, 3 * width)) + _layers((width, width)) + _layers((width, 4 * width, width))
    attention = 2 * 2 * context * width  # scores and their products with the values, for all heads of one token
    return batch * context * (layers * (block + attention) + _layers((width, vocabulary)))


def _resnet20(blocks: int = 3, batch: int = 64, size: int = 32) -> int:
    count = _convolution(3, 16, 3, size)
    for inputs, outputs, smaller in ((16, 16, 1), (16, 32, 2), (32, 64, 4)):
        side = size // smaller
        count += _convolution(inputs, outputs, 3, side)
        count += (2 * blocks - 1) * _convolution(outputs, outputs, 3, side)
        if inputs != outputs:
            count += _convolution(inputs, outputs, 1, side)
    return batch * (count + _layers((64, 10)))


def _convolution(inputs: int, outputs: int, window: int, size: int) -> int:
    """Operations of a square window over inputs channels, for size × size results."""
    return 2 * inputs * outputs * window**2 * size**2
