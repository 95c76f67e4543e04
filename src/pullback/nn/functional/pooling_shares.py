"""Pooling to a given number of places: of equal shares (adaptive), or of windows at random places (fractional)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from ...errors import ShapeError
from ...graph.types import int64
from ...ops.indexing import take
from ...ops.primitive import user_source
from ...tensor import Tensor
from ...tensor.arithmetic import where
from ...tensor.autocast_mode import in_float32
from ...tensor.creation import tensor
from ...tensor.grad_modes import no_grad
from ...tensor.random import rand
from .activation import finished, widened
from .convolution import Sizes, batched, channels_first, channels_last, sizes_of
from .linear import class_numbers

OutputSizes = int | Sequence[int | None] | None
Ratios = float | Sequence[float]


def _adaptive(function: str, rank: int, input: Tensor, output_size: OutputSizes) -> Tensor:
    given, alone = batched(function, input, rank)
    places = _wanted(function, rank, given, output_size)
    x = widened(function, given)
    if all(size == 1 for size in places):
        x = x.mean(tuple(range(2, rank + 2)), keepdim=True)
    else:
        x = channels_first(_means(channels_last(x), places))
    return finished(x.squeeze(0) if alone else x, input)


def _means(x: Tensor, places: list[int]) -> Tensor:
    """[N, sizes…, C] to [N, places…, C]: each place the mean of its share of the elements, shares overlapping if need
    be.
    """
    for axis, wanted in enumerate(places, 1):
        size = x.shape[axis]
        if wanted and size % wanted == 0:
            if size != wanted:
                x = x.reshape(*x.shape[:axis], wanted, size // wanted, *x.shape[axis + 1 :]).mean(axis + 1)
            continue
        x = _uneven_means(x, axis, wanted)
    return x


def _uneven_means(x: Tensor, axis: int, wanted: int) -> Tensor:
    """The means of `wanted` shares of an axis that do not divide it.

    The elements of each share are looked up: a product with a matrix of shares would carry an infinity of one share
    into all the others, as 0 * inf.
    """
    size, place = x.shape[axis], np.arange(wanted)[:, np.newaxis]
    first, last = place * size // max(wanted, 1), -(-(place + 1) * size // max(wanted, 1))
    length = last - first
    number = first + np.arange(length.max(initial=1))
    rest = (1,) * (x.ndim - 1)
    inside, shares = (tensor(array.reshape(*array.shape, *rest)) for array in (number < last, length[:, 0]))
    taken = x._wrap(take(x.movedim(axis, 0).node, tensor(np.minimum(number, size - 1)).node))
    return (where(inside, taken, 0.0).sum(1) / shares.to(x.dtype)).movedim(0, axis)


def _wanted(function: str, rank: int, given: Tensor, output_size: OutputSizes) -> list[int]:
    """The sizes that are asked for; None keeps an axis as it is."""
    wanted = (output_size,) * rank if output_size is None or isinstance(output_size, int) else tuple(output_size)
    if len(wanted) != rank or not all(size is None or (isinstance(size, int) and size >= 0) for size in wanted):
        raise ValueError(
            f"{function}: output_size must be a size, or one for each of {rank} axes, None keeping an axis as it is; "
            f"got {output_size!r} (at {user_source()})"
        )
    if 0 in given.shape[2:]:
        raise ShapeError(f"{function}: there are no elements in {list(given.shape)} (at {user_source()})")
    return [have if size is None else size for have, size in zip(given.shape[2:], wanted, strict=True)]


def adaptive_avg_pool1d(input: Tensor, output_size: OutputSizes) -> Tensor:
    """The means of `output_size` equal shares of the last axis of [N, C, L] or [C, L]."""
    return _adaptive("adaptive_avg_pool1d", 1, input, output_size)


def adaptive_avg_pool2d(input: Tensor, output_size: OutputSizes) -> Tensor:
    """The means of equal shares of the last two axes of [N, C, H, W] or [C, H, W]; None keeps an axis as it is.

    >>> pb.nn.functional.adaptive_avg_pool2d(pb.arange(16.0).reshape(1, 4, 4), 1).item()
    7.5
    """
    return _adaptive("adaptive_avg_pool2d", 2, input, output_size)


def adaptive_avg_pool3d(input: Tensor, output_size: OutputSizes) -> Tensor:
    """The means of equal shares of the last three axes of [N, C, D, H, W] or [C, D, H, W]."""
    (input,) = in_float32(input)
    return _adaptive("adaptive_avg_pool3d", 3, input, output_size)


def _chosen(values: Tensor) -> Tensor:
    """Which element of the last axis is greatest: of equals the first, of NaNs the last one."""
    count = values.shape[-1]
    number = class_numbers((count,), 0)
    missing = values != values
    last = where(missing, number, -1).amax(-1)
    first = where(values == values.amax(-1, keepdim=True), number, count).amin(-1)
    return where(last >= 0, last, first)


def _share_numbers(sizes: tuple[int, ...], places: list[int]) -> np.ndarray:
    """The elements of each place's share by number, [places, elements], shares being filled up with the number -1."""
    numbers = np.zeros((1, 1), np.int64)
    for size, wanted in zip(sizes, places, strict=True):
        place = np.arange(wanted)[:, np.newaxis]
        first, last = place * size // max(wanted, 1), -(-(place + 1) * size // max(wanted, 1))
        number = first + np.arange((last - first).max(initial=1))
        own = np.where(number < last, number, -1)[np.newaxis, :, np.newaxis, :]
        before = numbers[:, np.newaxis, :, np.newaxis]
        joined = np.where((before < 0) | (own < 0), -1, before * size + own)
        numbers = joined.reshape(numbers.shape[0] * wanted, -1) if wanted else np.zeros((0, 1), np.int64)
    return numbers


def _adaptive_max(
    function: str, rank: int, input: Tensor, output_size: OutputSizes, return_indices: bool
) -> Tensor | tuple[Tensor, Tensor]:
    given, alone = batched(function, input, rank)
    places = _wanted(function, rank, given, output_size)
    x = widened(function, given)
    numbers = _share_numbers(given.shape[2:], places)
    flat = x.reshape(*x.shape[:2], math.prod(x.shape[2:]))
    with no_grad():
        known = tensor(np.maximum(numbers, 0))
        elements = Tensor(take(flat.detach().movedim(2, 0).node, known.node)).permute(2, 3, 0, 1)
        tap = _chosen(where(tensor(numbers >= 0), elements, -math.inf))
        # a share of nothing but -inf has its first element, which is never a filled one
        found = known.expand(*tap.shape, numbers.shape[1]).gather(3, tap.unsqueeze(3)).squeeze(3)
    return _picked(flat, found, (*x.shape[:2], *places), input, alone, return_indices)


def _picked(
    flat: Tensor, found: Tensor, shape: tuple[int, ...], input: Tensor, alone: bool, return_indices: bool
) -> Tensor | tuple[Tensor, Tensor]:
    """The elements of the rows [N, C, sizes] at the places [N, C, places] that were found."""
    pooled = finished(flat.gather(2, found).reshape(shape), input)
    pooled, indices = (t.squeeze(0) if alone else t for t in (pooled, found.reshape(shape)))
    return (pooled, indices) if return_indices else pooled


def adaptive_max_pool1d(
    input: Tensor, output_size: OutputSizes, return_indices: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """The greatest elements of `output_size` equal shares of the last axis of [N, C, L] or [C, L].

    Of equal elements the first has the gradient; NaN wins. With `return_indices` also the place of each (int64).
    """
    return _adaptive_max("adaptive_max_pool1d", 1, input, output_size, return_indices)


def adaptive_max_pool2d(
    input: Tensor, output_size: OutputSizes, return_indices: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """`adaptive_max_pool1d` over the last two axes; None keeps an axis as it is.

    >>> pb.nn.functional.adaptive_max_pool2d(pb.arange(16.0).reshape(1, 4, 4), (2, 1)).tolist()
    [[[7.0], [15.0]]]
    """
    return _adaptive_max("adaptive_max_pool2d", 2, input, output_size, return_indices)


def adaptive_max_pool3d(
    input: Tensor, output_size: OutputSizes, return_indices: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """`adaptive_max_pool1d` over the last three axes."""
    (input,) = in_float32(input)
    return _adaptive_max("adaptive_max_pool3d", 3, input, output_size, return_indices)


def _fractional(
    function: str, rank: int, input: Tensor, kernel_size: Sizes, output_size: Sizes | None, output_ratio: Ratios | None,
    return_indices: bool, samples: Tensor | None,
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    (input,) = in_float32(input)
    given, alone = batched(function, input, rank)
    x = widened(function, given)
    sizes = x.shape[2:]
    kernel = sizes_of(function, "kernel_size", kernel_size, rank, 1)
    places = _fractions(function, sizes, output_size, output_ratio)
    for size, taps, wanted in zip(sizes, kernel, places, strict=True):
        if wanted + taps - 1 > size:
            raise ShapeError(
                f"{function}: {list(places)} windows of {list(kernel)} do not fit into {list(sizes)} (at "
                f"{user_source()}); output_size + kernel_size - 1 must be at most the size"
            )
    draws = rand(*x.shape[:2], rank, dtype=x.dtype) if samples is None else samples
    if draws.shape[1:] != (x.shape[1], rank) or draws.shape[0] < x.shape[0]:
        raise ShapeError(
            f"{function}: _random_samples must be {[*x.shape[:2], rank]}, got {list(draws.shape)} (at {user_source()})"
        )
    draws = draws[: x.shape[0]]
    flat = x.reshape(*x.shape[:2], math.prod(x.shape[2:]))
    with no_grad():
        # of two axes the first number is for the last axis, of three for the first: as PyTorch has it
        order = range(rank) if rank == 3 else reversed(range(rank))
        numbers: Tensor | None = None
        for axis, draw in enumerate(order):
            own = _intervals(draws[:, :, draw].to(x.dtype), sizes[axis], places[axis], kernel[axis])
            if numbers is None:
                numbers = own
                continue
            joined = numbers.unsqueeze(3).unsqueeze(5) * sizes[axis] + own.unsqueeze(2).unsqueeze(4)
            numbers = joined.reshape(*x.shape[:2], numbers.shape[2] * places[axis], numbers.shape[3] * kernel[axis])
        assert numbers is not None
        elements = (
            flat.detach().gather(2, numbers.reshape(*x.shape[:2], math.prod(numbers.shape[2:]))).reshape(numbers.shape)
        )
        found = numbers.gather(3, _chosen(elements).unsqueeze(3)).squeeze(3)
    return _picked(flat, found, (*x.shape[:2], *places), input, alone, return_indices)


def _fractions(
    function: str, sizes: tuple[int, ...], output_size: Sizes | None, output_ratio: Ratios | None
) -> tuple[int, ...]:
    rank = len(sizes)
    if (output_size is None) == (output_ratio is None):
        raise ValueError(f"{function}: give one of output_size and output_ratio (at {user_source()})")
    if output_size is not None:
        return sizes_of(function, "output_size", output_size, rank, 1)
    assert output_ratio is not None
    ratios = (output_ratio,) * rank if isinstance(output_ratio, (int, float)) else tuple(output_ratio)
    if len(ratios) != rank or not all(0 < ratio < 1 for ratio in ratios):
        raise ValueError(
            f"{function}: output_ratio must lie between 0 and 1, one or {rank} of them, got {output_ratio!r} "
            f"(at {user_source()})"
        )
    return tuple(int(size * ratio) for size, ratio in zip(sizes, ratios, strict=True))


def _intervals(draw: Tensor, size: int, places: int, taps: int) -> Tensor:
    """[N, C] random numbers to the elements' numbers of each window along an axis, [N, C, places, taps]."""
    last = size - taps
    number = class_numbers((places,), 0)
    if places > 1:
        step = last / (places - 1)
        start = ((number.to(draw.dtype) + draw.unsqueeze(2)) * step).trunc() - (draw.unsqueeze(2) * step).trunc()
        first = where(number == places - 1, last, start.to(int64))
    else:
        first = (draw.unsqueeze(2) * 0).to(int64) + last
    return first.unsqueeze(3) + class_numbers((taps,), 0)


def fractional_max_pool2d(
    input: Tensor, kernel_size: Sizes, output_size: Sizes | None = None, output_ratio: Ratios | None = None,
    return_indices: bool = False, _random_samples: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """The greatest elements of windows whose places are drawn at random, in order, for each channel of [N, C, H, W].

    Graham, "Fractional Max-Pooling" (2014). `output_ratio` is the share of the size, in place of `output_size`;
    `_random_samples` [N, C, 2] in [0, 1) are drawn unless given.
    """
    return _fractional(
        "fractional_max_pool2d", 2, input, kernel_size, output_size, output_ratio, return_indices, _random_samples
    )


def fractional_max_pool3d(
    input: Tensor, kernel_size: Sizes, output_size: Sizes | None = None, output_ratio: Ratios | None = None,
    return_indices: bool = False, _random_samples: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """`fractional_max_pool2d` over three axes of [N, C, D, H, W]; `_random_samples` [N, C, 3]."""
    return _fractional(
        "fractional_max_pool3d", 3, input, kernel_size, output_size, output_ratio, return_indices, _random_samples
    )


__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "fractional_max_pool2d",
    "fractional_max_pool3d",
]


adaptive_max_pool1d_with_indices = partial(adaptive_max_pool1d, return_indices=True)
adaptive_max_pool2d_with_indices = partial(adaptive_max_pool2d, return_indices=True)
adaptive_max_pool3d_with_indices = partial(adaptive_max_pool3d, return_indices=True)
fractional_max_pool2d_with_indices = partial(fractional_max_pool2d, return_indices=True)
fractional_max_pool3d_with_indices = partial(fractional_max_pool3d, return_indices=True)
