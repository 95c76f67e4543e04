"""Convolution: the one primitive behind every convolution, transposed convolution and both their gradients.

Channels come last, groups have an axis of their own, and each spatial axis has a stride, padding at both ends (which
may be negative: elements are then left out), and dilations of the input and of the window. In this generality the
operation is closed: the gradient of a convolution by its input is a convolution of the cotangent with the window
turned around, the strides having become dilations of the input; by its window it is a convolution of the input, batch
and channels exchanged, with the cotangent as the window. Second derivatives follow. It is XLA's ConvGeneralDilated.
"""

from __future__ import annotations

import math

import numpy as np

from ..errors import DTypeError, ShapeError
from ..graph.node import Node, Shape
from ..graph.types import DType, round_to
from .movement import Pairs, flip, permute
from .primitive import CONTRACTION, Primitive, apply, register, user_source

Sizes = tuple[int, ...]


def reach(size: int, dilation: int) -> int:
    """How many places `size` elements take that are `dilation` apart."""
    return (size - 1) * dilation + 1 if size else 0


def output_size(
    size: int, window: int, stride: int, padding: tuple[int, int], input_dilation: int, window_dilation: int
) -> int:
    """The number of places along one axis at which the window lies within the padded input."""
    room = reach(size, input_dilation) + sum(padding) - reach(window, window_dilation)
    return room // stride + 1 if room >= 0 else 0


def _infer(
    x: Node, window: Node, *, stride: Sizes, padding: Pairs, input_dilation: Sizes, window_dilation: Sizes
) -> tuple[Shape, DType]:
    if x.dtype is not window.dtype or not x.dtype.is_floating_point:
        raise DTypeError(
            f"convolution takes an input and a weight of one floating-point dtype, got {x.dtype.name} and "
            f"{window.dtype.name} (at {user_source()}). Convert one with .to(dtype)."
        )
    rank = len(stride)
    n, *sizes, groups, channels = x.shape
    *taps, window_groups, window_channels, outputs = window.shape
    if len(sizes) != rank or len(taps) != rank or (groups, channels) != (window_groups, window_channels):
        raise ShapeError(
            f"convolution: input {list(x.shape)} [n, {rank} axes, groups, channels] does not fit the window "
            f"{list(window.shape)} [{rank} axes, groups, channels, outputs] (at {user_source()})"
        )
    out = map(output_size, sizes, taps, stride, padding, input_dilation, window_dilation)
    return (n, *out, groups, outputs), x.dtype


def _laid_out(x: np.ndarray, node: Node) -> np.ndarray:
    """The input with its elements moved apart by the input's dilation, and padded or cut."""
    rank = len(node["stride"])
    spread = tuple(map(reach, x.shape[1 : rank + 1], node["input_dilation"]))
    dilated = np.zeros((x.shape[0], *spread, *x.shape[rank + 1 :]), x.dtype)
    dilated[(slice(None), *(slice(None, None, step) for step in node["input_dilation"]))] = x
    cut = [slice(max(-low, 0), size - max(-high, 0)) for size, (low, high) in zip(spread, node["padding"], strict=True)]
    widths = [(max(low, 0), max(high, 0)) for low, high in node["padding"]]
    return np.pad(dilated[(slice(None), *cut)], [(0, 0), *widths, (0, 0), (0, 0)])


def _evaluate(node: Node, x: np.ndarray, window: np.ndarray) -> np.ndarray:
    rank = len(node["stride"])
    result = np.zeros(node.shape, x.dtype)
    if result.size == 0 or x.size == 0 or window.size == 0:
        return result
    x = _laid_out(x, node)
    steps = [s * stride for s, stride in zip(x.strides[1 : rank + 1], node["stride"], strict=True)]
    inside = [s * dilation for s, dilation in zip(x.strides[1 : rank + 1], node["window_dilation"], strict=True)]
    shape = (x.shape[0], *node.shape[1 : rank + 1], *window.shape[:rank], *x.shape[rank + 1 :])
    # every place's window, as a view: [n, places…, window…, groups, channels]
    places = np.lib.stride_tricks.as_strided(x, shape, (x.strides[0], *steps, *inside, *x.strides[rank + 1 :]))
    summed = [*range(rank + 1, 2 * rank + 1), 2 * rank + 1]
    with np.errstate(all="ignore"):
        for group in range(node.shape[-2]):
            kernel = window[..., group, :, :]
            result[..., group, :] = np.tensordot(places[..., group, :], kernel, (summed, list(range(rank + 1))))
    return round_to(result, node.dtype)


def _input_pullback(node: Node, cotangent: Node) -> Node:
    """The cotangent, moved apart by the stride, under the window turned around; inputs and outputs exchanged."""
    x, window = node.inputs
    rank = len(node["stride"])
    axes = tuple(range(rank))
    turned = permute(flip(window, axes), (*axes, rank, rank + 2, rank + 1))
    padding = []
    for axis in axes:
        low = reach(window.shape[axis], node["window_dilation"][axis]) - 1 - node["padding"][axis][0]
        length = reach(x.shape[1 + axis], node["input_dilation"][axis])
        high = length + node["padding"][axis][0] - reach(node.shape[1 + axis], node["stride"][axis])
        padding.append((low, high))
    return convolution(
        cotangent, turned, node["input_dilation"], tuple(padding), node["stride"], node["window_dilation"]
    )


def _window_pullback(node: Node, cotangent: Node) -> Node:
    """Input and cotangent, batch and channels exchanged, one gliding over the other.

    Of the two that one is taken as the window whose elements then stay together: where the input is dilated, as in a
    transposed convolution, the input.
    """
    x, window = node.inputs
    rank = len(node["stride"])
    axes = tuple(range(rank))
    inside, places = (rank + 1, 0), tuple(range(1, rank + 1))
    swapped = (rank + 2, *places, *inside)
    as_window = (*places, *inside, rank + 2)
    sizes = list(zip(x.shape[1:], node.shape[1:], window.shape[:rank], strict=False))
    length = [reach(taps, step) - 1 for (_, _, taps), step in zip(sizes, node["window_dilation"], strict=True)]
    spread = [reach(size, step) for (size, _, _), step in zip(sizes, node["input_dilation"], strict=True)]
    reached = [reach(size, step) for (_, size, _), step in zip(sizes, node["stride"], strict=True)]
    if max(node["input_dilation"], default=1) > max(node["stride"], default=1):
        low = [length[a] - node["padding"][a][0] for a in axes]
        high = [length[a] + spread[a] - low[a] - reached[a] for a in axes]
        found = convolution(
            permute(cotangent, swapped), permute(x, as_window), node["window_dilation"],
            tuple(zip(low, high, strict=True)), node["stride"], node["input_dilation"],
        )  # fmt: skip
        # [outputs, taps…, groups, channels], the taps from the last to the first
        return permute(flip(found, places), (*places, rank + 1, rank + 2, 0))
    low = [node["padding"][a][0] for a in axes]
    high = [length[a] + reached[a] - low[a] - spread[a] for a in axes]
    found = convolution(
        permute(x, swapped), permute(cotangent, as_window), node["window_dilation"],
        tuple(zip(low, high, strict=True)), node["input_dilation"], node["stride"],
    )  # fmt: skip
    # [channels, taps…, groups, outputs]
    return permute(found, (*places, rank + 1, 0, rank + 2))


#: x [n, sizes…, groups, channels] and a window [taps…, groups, channels, outputs] -> [n, places…, groups, outputs]:
#: the sum over taps t and channels of x[p * stride + t * window_dilation - low] * window[t], x being dilated and padded
CONVOLUTION = register(
    Primitive("convolution", CONTRACTION, _infer, _evaluate, (_input_pullback, _window_pullback), cost=2)
)


def convolution(
    x: Node, window: Node, stride: Sizes, padding: Pairs, input_dilation: Sizes, window_dilation: Sizes
) -> Node:
    """The window's products with `x` at every place; see the record for the shapes."""
    return apply(
        CONVOLUTION,
        x,
        window,
        stride=tuple(stride),
        padding=tuple(padding),
        input_dilation=tuple(input_dilation),
        window_dilation=tuple(window_dilation),
    )


def is_by_windows(node: Node) -> bool:
    """Whether there are fewer places than taps, as in the gradient by the window, whose window is an image."""
    rank = len(node["stride"])
    return math.prod(node.inputs[1].shape[:rank]) > math.prod(node.shape[1 : rank + 1])


def multiplications(node: Node) -> int:
    """How many products of numbers a convolution node sums: those with padding, but none with zeros put between."""
    rank = len(node["stride"])
    met = (_pairs_met(node, axis) for axis in range(rank))
    *_, groups, channels, outputs = node.inputs[1].shape
    return node.shape[0] * groups * channels * outputs * math.prod(met)


def _pairs_met(node: Node, axis: int) -> int:
    """How many pairs of a place and a tap meet an element or padding along one axis."""
    stride, apart, spread = (node[name][axis] for name in ("stride", "input_dilation", "window_dilation"))
    places, low = node.shape[1 + axis], node["padding"][axis][0]
    period = apart // math.gcd(stride, apart)
    return sum(
        len(range(first, places, period))
        for tap in range(node.inputs[1].shape[axis])
        for first in range(min(period, places))
        if (first * stride + tap * spread - low) % apart == 0
    )


__all__ = ["CONVOLUTION", "convolution", "is_by_windows", "multiplications", "output_size", "reach"]
