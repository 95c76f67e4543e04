"""Convolutions of integers: a product of matrices for each tap of the window, summed.

The kernels of `codegen` multiply floats; these are exact, and wrap around as every product of integers does.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from ...graph.node import Node
from ...ops.convolution import output_size, reach
from ...tensor import Tensor
from ...tensor.creation import zeros


def convolution_of_integers(
    x: Node,
    window: Node,
    stride: Sequence[int],
    padding: Sequence[tuple[int, int]],
    input_dilation: Sequence[int],
    window_dilation: Sequence[int],
) -> Node:
    """As `ops.convolution.convolution`: x [N, sizes…, groups, in], window [taps…, groups, in, out] of one dtype."""
    rank, taps = len(stride), window.shape[: len(stride)]
    given, weight = Tensor(x), Tensor(window)
    places = [
        output_size(x.shape[1 + axis], taps[axis], stride[axis], padding[axis], input_dilation[axis], step)
        for axis, step in enumerate(window_dilation)
    ]
    for axis in range(rank):
        given = _spread(given, 1 + axis, padding[axis], input_dilation[axis])
    total: Tensor | None = None
    for tap in itertools.product(*map(range, taps)):
        starts = [at * step for at, step in zip(tap, window_dilation, strict=True)]
        cuts = [
            slice(start, start + (count - 1) * step + 1, step)
            for start, count, step in zip(starts, places, stride, strict=True)
        ]
        product = (given[(slice(None), *cuts)].unsqueeze(-2) @ weight[tap]).squeeze(-2)
        total = product if total is None else total + product
    assert total is not None
    return total.node


def _spread(x: Tensor, axis: int, padding: tuple[int, int], dilation: int) -> Tensor:
    """The elements along `axis` put `dilation` apart among zeros, with zeros at both ends, or less where negative."""
    low, high = padding
    length = reach(x.shape[axis], dilation)
    wide = zeros((*x.shape[:axis], length + max(low, 0) + max(high, 0), *x.shape[axis + 1 :]), dtype=x.dtype)
    before = (slice(None),) * axis
    wide[(*before, slice(max(low, 0), max(low, 0) + length, dilation))] = x
    return wide[(*before, slice(max(-low, 0), wide.shape[axis] - max(-high, 0)))]


__all__ = ["convolution_of_integers"]
