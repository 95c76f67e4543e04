"""The elements that max pooling found, put back to their places among zeros."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...errors import ShapeError
from ...graph.types import int64
from ...ops.indexing import bounded, put
from ...ops.movement import expand, reshape
from ...ops.primitive import constant, iota, user_source
from ...tensor import Tensor
from ...tensor.autocast_mode import in_float32
from .convolution import Sizes, batched, sizes_of
from .linear import indices as whole


def _unpool(
    function: str, rank: int, input: Tensor, indices: Tensor, kernel_size: Sizes, stride: Sizes | None, padding: Sizes,
    output_size: Sequence[int] | None,
) -> Tensor:  # fmt: skip
    (input,) = in_float32(input)
    x, alone = batched(function, input, rank)
    if indices.shape != input.shape:
        raise ShapeError(
            f"{function}: indices must have input's shape {list(input.shape)}, got {list(indices.shape)} "
            f"(at {user_source()})"
        )
    kernel = sizes_of(function, "kernel_size", kernel_size, rank, 1)
    steps = kernel if stride is None else sizes_of(function, "stride", stride, rank, 1)
    pads = sizes_of(function, "padding", padding, rank, 0)
    sizes = _sizes(function, x.shape[2:], kernel, steps, pads, output_size)
    rows, each = math.prod(x.shape[:2]), math.prod(sizes)
    index = bounded(whole(function, indices), 0, each, f"{function}: index")
    # PyTorch's planes are written one by one; here all are one row of rows * each places
    start = reshape(iota((rows,), 0, int64), (rows, 1))
    places = (Tensor(reshape(index, (rows, math.prod(x.shape[2:])))) + Tensor(start) * each).reshape(-1)
    zeros = expand(constant(0.0, x.dtype), (rows * each,))
    filled = Tensor(put(zeros, places.node, x.reshape(-1).node)).reshape(*x.shape[:2], *sizes)
    return filled.squeeze(0) if alone else filled


def _sizes(
    function: str, given: tuple[int, ...], kernel: tuple[int, ...], steps: tuple[int, ...], pads: tuple[int, ...],
    output_size: Sequence[int] | None,
) -> tuple[int, ...]:  # fmt: skip
    """The sizes before pooling: those that would be asked for, or the most likely ones."""
    likely = [
        (size - 1) * step + taps - 2 * before
        for size, step, taps, before in zip(given, steps, kernel, pads, strict=True)
    ]
    if output_size is None:
        wanted = tuple(likely)
    else:
        wanted = tuple(output_size)[2:] if len(output_size) == len(given) + 2 else tuple(output_size)
    fits = len(wanted) == len(given) and all(
        low - step < size < low + step and size > 0 for low, size, step in zip(likely, wanted, steps, strict=True)
    )
    if not fits:
        raise ValueError(
            f"{function}: output_size {list(wanted)} must lie within a stride {list(steps)} of {likely} and be "
            f"positive (at {user_source()})"
        )
    return wanted


def max_unpool1d(
    input: Tensor, indices: Tensor, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:  # fmt: skip
    """The elements of [N, C, L] at the places `indices` that max_pool1d gives with return_indices; zeros elsewhere.

    `output_size` tells apart the sizes that pooling makes one of. Of several elements for one place the last stays.

    >>> F = pb.nn.functional
    >>> pooled, indices = F.max_pool1d(pb.tensor([[[1.0, 4.0, 3.0, 2.0]]]), 2, return_indices=True)
    >>> F.max_unpool1d(pooled, indices, 2).tolist()
    [[[0.0, 4.0, 3.0, 0.0]]]
    """
    return _unpool("max_unpool1d", 1, input, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(
    input: Tensor, indices: Tensor, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:  # fmt: skip
    """`max_unpool1d` over two axes."""
    return _unpool("max_unpool2d", 2, input, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(
    input: Tensor, indices: Tensor, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:  # fmt: skip
    """`max_unpool1d` over three axes."""
    return _unpool("max_unpool3d", 3, input, indices, kernel_size, stride, padding, output_size)


__all__ = ["max_unpool1d", "max_unpool2d", "max_unpool3d"]
