"""Pooling: the greatest element or the mean of each window.

All are composed of the windows' elements, tap by tap: slices of the padded input that are read where it lies.
"""

from __future__ import annotations

import math
from functools import partial
from itertools import product

import numpy as np

from ...autograd.function import with_gradient
from ...errors import ShapeError
from ...graph.node import Node
from ...graph.types import bool_, int32, int64
from ...ops import elementwise as e
from ...ops.convolution import reach
from ...ops.movement import expand, pad, reshape, slice_
from ...ops.primitive import constant, iota, user_source
from ...tensor import Tensor
from ...tensor.arguments import whole_number
from ...tensor.autocast_mode import in_float32
from ...tensor.creation import tensor
from .activation import finished, widened
from .convolution import Sizes, batched, channels_first, channels_last, sizes_of


class _Windows:
    """Windows over the axes 1 to rank of a value [N, sizes…, C], which is padded so that every window is whole.

    `counts` windows along each axis, `stride` apart, of `kernel` taps each `dilation` apart, the first one beginning
    `padding` before the value.
    """

    def __init__(
        self, function: str, sizes: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...],
        padding: tuple[int, ...], dilation: tuple[int, ...], ceil_mode: bool,
    ):  # fmt: skip
        self.sizes, self.kernel, self.stride, self.padding, self.dilation = sizes, kernel, stride, padding, dilation
        counts = []
        for size, taps, step, before, spread in zip(sizes, kernel, stride, padding, dilation, strict=True):
            if 2 * before > taps:
                raise ValueError(
                    f"{function}: padding {list(padding)} must be at most half of kernel_size {list(kernel)} "
                    f"(at {user_source()})"
                )
            room = size + 2 * before - reach(taps, spread)
            count = (-(-room // step) if ceil_mode else room // step) + 1
            # a window must begin within the value or the padding before it
            if ceil_mode and (count - 1) * step >= size + before:
                count -= 1
            if count < 1 or size == 0:
                raise ShapeError(
                    f"{function}: windows of {list(kernel)} with dilation {list(dilation)} do not fit into "
                    f"{list(sizes)} with padding {list(padding)} (at {user_source()})"
                )
            counts.append(count)
        self.counts = tuple(counts)
        self.taps = list(product(*map(range, kernel)))

    def _ends(self) -> list[int]:
        """How far along each axis the slices reach, a whole stride for every window."""
        ends = zip(self.counts, self.kernel, self.stride, self.dilation, strict=True)
        return [reach(taps, spread) - 1 + count * step for count, taps, step, spread in ends]

    def laid_out(self, x: Node) -> Node:
        """`x` padded with zeros, or cut, to what the windows cover."""
        pairs = zip(self.sizes, self.padding, self._ends(), strict=True)
        widths = [(before, end - size - before) for size, before, end in pairs]
        cut = slice_(x, ((0, x.shape[0]), *((0, s + min(h, 0)) for s, (_, h) in zip(self.sizes, widths, strict=True)),
                         (0, x.shape[-1])))  # fmt: skip
        return pad(cut, ((0, 0), *((low, max(high, 0)) for low, high in widths), (0, 0)))

    def at(self, laid_out: Node, tap: tuple[int, ...]) -> Node:
        """That element of every window: [N, counts…, C]."""
        n, *_, channels = laid_out.shape
        lows = [place * spread for place, spread in zip(tap, self.dilation, strict=True)]
        lengths = [count * step for count, step in zip(self.counts, self.stride, strict=True)]
        run = slice_(
            laid_out, ((0, n), *((a, a + length) for a, length in zip(lows, lengths, strict=True)), (0, channels))
        )
        pairs = [size for pair in zip(self.counts, self.stride, strict=True) for size in pair]
        apart = reshape(run, (n, *pairs, channels))
        bounds = [bound for count in self.counts for bound in ((0, count), (0, 1))]
        return reshape(slice_(apart, ((0, n), *bounds, (0, channels))), (n, *self.counts, channels))

    def back(self, values: Node, tap: tuple[int, ...]) -> Node:
        """What `at` took, put back to its place among zeros, in the shape of the value."""
        n, *_, channels = values.shape
        ones = [size for count in self.counts for size in (count, 1)]
        apart = reshape(values, (n, *ones, channels))
        widths = [w for step in self.stride for w in ((0, 0), (0, step - 1))]
        lengths = [count * step for count, step in zip(self.counts, self.stride, strict=True)]
        run = reshape(pad(apart, ((0, 0), *widths, (0, 0))), (n, *lengths, channels))
        lows = [place * spread for place, spread in zip(tap, self.dilation, strict=True)]
        ends = [max(end, size + low) for end, size, low in zip(self._ends(), self.sizes, self.padding, strict=True)]
        full = pad(
            run,
            ((0, 0), *((a, end - a - length) for a, end, length in zip(lows, ends, lengths, strict=True)), (0, 0)),
        )
        pairs = zip(self.padding, self.sizes, strict=True)
        return slice_(full, ((0, n), *((low, low + size) for low, size in pairs), (0, channels)))

    @property
    def leaves_the_value(self) -> bool:
        """Whether some window has elements outside of the value."""
        reached = zip(self.counts, self.kernel, self.stride, self.dilation, strict=True)
        lasts = [(count - 1) * step + reach(taps, spread) for count, taps, step, spread in reached]
        ends = zip(lasts, self.sizes, self.padding, strict=True)
        return any(self.padding) or any(last > size + low for last, size, low in ends)


def _windows(
    function: str, x: Tensor, kernel_size: Sizes, stride: Sizes | None, padding: Sizes, dilation: Sizes, ceil_mode: bool
) -> _Windows:
    rank = x.ndim - 2
    kernel = sizes_of(function, "kernel_size", kernel_size, rank, 1)
    steps = (
        kernel
        if stride is None or (not isinstance(stride, int) and not len(stride))
        else sizes_of(function, "stride", stride, rank, 1)
    )
    pads = sizes_of(function, "padding", padding, rank, 0)
    return _Windows(
        function, x.shape[2:], kernel, steps, pads, sizes_of(function, "dilation", dilation, rank, 1), ceil_mode
    )


def _wide(function: str, given: Tensor) -> Tensor:
    return widened(function, given) if given.is_floating_point() else given


def _max_pool(
    function: str, rank: int, input: Tensor, kernel_size: Sizes, stride: Sizes | None, padding: Sizes, dilation: Sizes,
    ceil_mode: bool, return_indices: bool,
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    given, alone = batched(function, input, rank, integers=True)
    if 0 in given.shape[1:]:
        raise ShapeError(
            f"{function}: only the batch may be empty, got an input of shape {list(input.shape)} (at {user_source()})"
        )
    windows = _windows(function, given, kernel_size, stride, padding, dilation, ceil_mode)
    x = channels_last(_wide(function, given))
    value, tap = _greatest(windows, x.detach().node)

    def rule(_: Tensor, cotangent: Tensor) -> list[Tensor]:
        total: Node | None = None
        zero = constant(0.0, cotangent.dtype)
        for number, place in enumerate(windows.taps):
            passed = e.where(e.eq(tap, constant(number, int32)), cotangent.node, zero)
            moved = windows.back(passed, place)
            total = moved if total is None else e.add(total, moved)
        assert total is not None
        return [Tensor(total)]

    pooled = channels_first(with_gradient(Tensor(value), [x], rule))
    result = finished(pooled.squeeze(0) if alone else pooled, input)
    if not return_indices:
        return result
    indices = channels_first(Tensor(_flat_places(windows, tap)))
    return result, indices.squeeze(0) if alone else indices


def _greatest(windows: _Windows, x: Node) -> tuple[Node, Node]:
    """Of each window the greatest element and the number of its tap: of equals the first, of NaNs the last one."""
    laid_out = windows.laid_out(x)
    inside = windows.laid_out(expand(constant(True, bool_), x.shape)) if windows.leaves_the_value else None
    best = tap = None
    lowest = -math.inf if x.dtype.is_floating_point else 0  # what tap -1 stands for is never compared
    for number, place in enumerate(windows.taps):
        value = windows.at(laid_out, place)
        here = expand(constant(number, int32), value.shape)
        if best is None or tap is None:
            best, tap = value, here
            if inside is not None:
                within = windows.at(inside, place)
                best = e.where(within, value, constant(lowest, x.dtype))
                tap = e.where(within, here, constant(-1, int32))
            continue
        better = e.bit_or(e.lt(best, value), e.ne(value, value))
        if inside is not None:
            better = e.bit_or(better, e.lt(tap, constant(0, int32)))
            better = e.bit_and(better, windows.at(inside, place))
        best, tap = e.where(better, value, best), e.where(better, here, tap)
    assert best is not None and tap is not None
    return best, tap


def _flat_places(windows: _Windows, tap: Node) -> Node:
    """The number of the element, within its channel, that each tap number stands for."""
    rank = len(windows.sizes)
    flat: Node = constant(0, int64)
    tap = e.convert(tap, int64)
    for axis in range(rank):
        inner = math.prod(windows.kernel[axis + 1 :])
        of_axis = e.remainder(e.floor_divide(tap, constant(inner, int64)), constant(windows.kernel[axis], int64))
        first = e.add(
            e.mul(iota(tap.shape, 1 + axis, int64), constant(windows.stride[axis], int64)),
            constant(-windows.padding[axis], int64),
        )
        place = e.add(first, e.mul(of_axis, constant(windows.dilation[axis], int64)))
        flat = e.add(e.mul(flat, constant(windows.sizes[axis], int64)), place)
    return flat


def max_pool1d(
    input: Tensor, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, dilation: Sizes = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """The greatest element of each window along the last axis of [N, C, L] or [C, L]; `stride` None is kernel_size.

    Of equal elements the first has the gradient; NaN wins. With `ceil_mode` a last window may reach beyond the end.
    With `return_indices` also the place of each (int64).
    """
    return _max_pool("max_pool1d", 1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(
    input: Tensor, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, dilation: Sizes = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """`max_pool1d` over the last two axes of [N, C, H, W] or [C, H, W]; places are numbered within H * W.

    >>> pb.nn.functional.max_pool2d(pb.arange(16.0).reshape(1, 4, 4), 2).tolist()
    [[[5.0, 7.0], [13.0, 15.0]]]
    """
    return _max_pool("max_pool2d", 2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(
    input: Tensor, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, dilation: Sizes = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """`max_pool1d` over the last three axes of [N, C, D, H, W] or [C, D, H, W]; places count within D * H * W."""
    if not return_indices:  # PyTorch's lists have the function that gives no places alone
        (input,) = in_float32(input)
    return _max_pool("max_pool3d", 3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def _avg_pool(
    function: str, rank: int, input: Tensor, kernel_size: Sizes, stride: Sizes | None, padding: Sizes, ceil_mode: bool,
    count_include_pad: bool, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    given, alone = batched(function, input, rank, integers=True)
    windows = _windows(function, given, kernel_size, stride, padding, 1, ceil_mode)
    if divisor_override is not None and not whole_number(divisor_override, function, "divisor_override"):
        raise ValueError(f"{function}: divisor_override must not be 0 (at {user_source()})")
    x = channels_last(_wide(function, given))
    laid_out = windows.laid_out(x.node)
    total = windows.at(laid_out, windows.taps[0])
    for place in windows.taps[1:]:
        total = e.add(total, windows.at(laid_out, place))
    pooled = channels_first(_divided(Tensor(total), windows, count_include_pad, divisor_override))
    return finished(pooled.squeeze(0) if alone else pooled, input)


def _divided(total: Tensor, windows: _Windows, count_include_pad: bool, divisor_override: int | None) -> Tensor:
    """The sums of windows divided by how many elements count: one number if all windows are whole."""
    if divisor_override is not None:
        return _quotient(total, divisor_override)
    if not windows.leaves_the_value:
        return _quotient(total, math.prod(windows.kernel))
    counts = np.ones((), np.float64)
    axes = zip(windows.sizes, windows.kernel, windows.stride, windows.padding, windows.counts, strict=True)
    for size, taps, step, before, count in axes:
        first = np.arange(count) * step - before
        last = np.minimum(first + taps, size + before)
        if not count_include_pad:
            first, last = np.maximum(first, 0), np.minimum(last, size)
        counts = np.multiply.outer(counts, last - first)
    return _quotient(total, tensor(counts[..., np.newaxis].astype(total.dtype.carrier)))


def _quotient(total: Tensor, count: Tensor | int) -> Tensor:
    """total / count; of integers the integer part."""
    if total.is_floating_point():
        return total / count
    if isinstance(count, int):
        count, total = (count, total) if count > 0 else (-count, -total)
    return (total.abs() // count) * total.sign()


def avg_pool1d(
    input: Tensor, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:  # fmt: skip
    """The mean of each window along the last axis of [N, C, L] or [C, L]; `stride` None is kernel_size.

    Padding counts as zeros, or not at all with `count_include_pad` False. With `ceil_mode` a last window may reach
    beyond the end; what lies beyond the padding never counts.
    """
    return _avg_pool("avg_pool1d", 1, input, kernel_size, stride, padding, ceil_mode, count_include_pad)


def avg_pool2d(
    input: Tensor, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    """`avg_pool1d` over the last two axes of [N, C, H, W] or [C, H, W]; `divisor_override` replaces the count."""
    return _avg_pool(
        "avg_pool2d", 2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


def avg_pool3d(
    input: Tensor, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    """`avg_pool1d` over the last three axes of [N, C, D, H, W] or [C, D, H, W]."""
    (input,) = in_float32(input)
    return _avg_pool(
        "avg_pool3d", 3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


def _lp_pool(
    function: str, rank: int, input: Tensor, norm_type: float, kernel_size: Sizes, stride: Sizes | None, ceil_mode: bool
) -> Tensor:
    def greatest(x: Tensor) -> Tensor:
        pooled = _max_pool(function, rank, x, kernel_size, stride, 0, 1, ceil_mode, False)
        assert isinstance(pooled, Tensor)
        return pooled

    if math.isinf(norm_type):
        return greatest(input.abs()) if norm_type > 0 else -greatest(-input.abs())
    count = math.prod(sizes_of(function, "kernel_size", kernel_size, rank, 1))
    mean = _avg_pool(function, rank, input**norm_type, kernel_size, stride, 0, ceil_mode, True)
    return (mean.sign() * mean.abs().relu() * count) ** (1.0 / norm_type)


def lp_pool1d(
    input: Tensor, norm_type: float, kernel_size: Sizes, stride: Sizes | None = None, ceil_mode: bool = False
) -> Tensor:
    """The norm of order `norm_type` of each window, (sum of x^p)^(1/p), without absolute values as PyTorch has it."""
    return _lp_pool("lp_pool1d", 1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(
    input: Tensor, norm_type: float, kernel_size: Sizes, stride: Sizes | None = None, ceil_mode: bool = False
) -> Tensor:
    """`lp_pool1d` over the last two axes."""
    return _lp_pool("lp_pool2d", 2, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(
    input: Tensor, norm_type: float, kernel_size: Sizes, stride: Sizes | None = None, ceil_mode: bool = False
) -> Tensor:
    """`lp_pool1d` over the last three axes."""
    (input,) = in_float32(input)
    return _lp_pool("lp_pool3d", 3, input, norm_type, kernel_size, stride, ceil_mode)


__all__ = [
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
]


max_pool1d_with_indices = partial(max_pool1d, return_indices=True)
max_pool2d_with_indices = partial(max_pool2d, return_indices=True)
max_pool3d_with_indices = partial(max_pool3d, return_indices=True)
