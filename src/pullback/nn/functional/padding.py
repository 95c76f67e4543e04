"""Padding, and what regroups axes: shuffles of pixels and channels, windows as columns and back."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...errors import ShapeError
from ...graph.node import Node
from ...graph.types import bool_
from ...ops import elementwise as e
from ...ops import movement as m
from ...ops.primitive import constant, user_source
from ...tensor import Tensor
from ...tensor.arguments import whole_number
from ...tensor.autocast_mode import in_float32
from ...tensor.joining import cat, stack
from ...tensor.views import Cut

_MODES = ("constant", "reflect", "replicate", "circular")
#: what autocast does in float32, by the mode and the number of axes, as PyTorch's lists have it
_IN_FLOAT32 = {("reflect", 1), ("reflect", 2), ("replicate", 1), ("replicate", 2), ("replicate", 3)}


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Elements put before and after the last axes: `pad` is (before, after) of the last axis, then of the last but one…

    `mode` "constant" puts `value` (0) there, "reflect" the elements mirrored at the edge, "replicate" the edge,
    "circular" those of the other end. Negative numbers take elements away.

    >>> pb.nn.functional.pad(pb.tensor([1.0, 2.0, 3.0]), (1, 2))
    tensor([0., 1., 2., 3., 0., 0.])
    """
    widths = [whole_number(p, "pad", "a width") for p in pad]
    if len(widths) % 2 or len(widths) // 2 > input.ndim:
        raise ShapeError(
            f"pad: {widths} must be pairs, at most one for each axis of {list(input.shape)} (at {user_source()})"
        )
    if mode not in _MODES:
        raise ValueError(f"pad: mode must be one of {', '.join(_MODES)}, got {mode!r} (at {user_source()})")
    pairs = [(0, 0)] * (input.ndim - len(widths) // 2) + [
        (widths[2 * i], widths[2 * i + 1]) for i in reversed(range(len(widths) // 2))
    ]
    if mode == "constant":
        return _constant(input, pairs, 0 if value is None else value)
    if value not in (None, 0):
        raise ValueError(f"pad: mode {mode!r} takes no value, got {value} (at {user_source()})")
    _check_padded(input, len(widths) // 2, mode)
    if (mode, len(widths) // 2) in _IN_FLOAT32:
        (input,) = in_float32(input)
    for axis, (before, after) in enumerate(pairs):
        if before or after:
            input = _extended(input, axis, before, after, mode)
    return input if any(map(any, pairs)) else input.clone()


_padded = pad


def _check_padded(input: Tensor, axes: int, mode: str) -> None:
    """PyTorch pads the last one to three axes of inputs that have one or two more, and of nothing empty."""
    if axes not in (1, 2, 3) or input.ndim not in (axes + 1, axes + 2):
        raise ShapeError(
            f"pad: mode {mode!r} pads the last 1, 2 or 3 axes of an input with one or two more, got {axes} of "
            f"{list(input.shape)} (at {user_source()})"
        )
    if 0 in input.shape[input.ndim - axes - 1 :]:
        raise ShapeError(f"pad: mode {mode!r} needs elements, got shape {list(input.shape)} (at {user_source()})")


def constant_pad_nd(input: Tensor, pad: Sequence[int], value: float = 0) -> Tensor:
    """`nn.functional.pad` with a constant."""
    return _padded(input, pad, "constant", value)


def _constant(input: Tensor, pairs: list[tuple[int, int]], value: float) -> Tensor:
    sizes = [size + low + high for size, (low, high) in zip(input.shape, pairs, strict=True)]
    if any(s < 0 for s in sizes):
        raise ShapeError(f"pad: {pairs} take more than there is of {list(input.shape)} (at {user_source()})")

    def padded(x: Node) -> Node:
        cut = m.slice_(
            x,
            tuple(
                (min(max(0, -low), size), max(size - max(0, -high), min(max(0, -low), size)))
                for size, (low, high) in zip(input.shape, pairs, strict=True)
            ),
        )
        return m.pad(cut, tuple((max(0, low), max(0, high)) for low, high in pairs))

    node = padded(input.node)
    if (value == 0 and not isinstance(value, float)) or (value == 0 and math.copysign(1, value) > 0):
        return Tensor(node) if any(map(any, pairs)) else input.clone()
    # which elements are the input's is told by ones padded alike, so that an infinity stays one
    ours = padded(m.expand(constant(True, bool_), input.shape))
    return Tensor(e.where(ours, node, constant(value, input.dtype)))


def _extended(x: Tensor, axis: int, before: int, after: int, mode: str) -> Tensor:
    """`x` with elements of its own put before and after an axis."""
    if mode == "circular" and min(before, after) < 0:  # PyTorch goes round what is left
        size = x.shape[axis]
        start, stop = max(0, -before), size - max(0, -after)
        x, before, after = x.narrow(axis, start, max(0, stop - start)), max(0, before), max(0, after)
    size = x.shape[axis]
    most = {"reflect": size - 1, "circular": size}.get(mode)
    if most is not None and max(before, after) > most:
        raise ShapeError(
            f"pad: mode {mode!r} can put at most {most} elements beside an axis of size {size}, got {(before, after)} "
            f"(at {user_source()})"
        )
    if size + before + after < 1:
        raise ShapeError(f"pad: {(before, after)} leave nothing of an axis of size {size} (at {user_source()})")

    def part(start: int, stop: int) -> Tensor:
        return x.narrow(axis, start, stop - start)

    low, high = max(0, before), max(0, after)
    if mode == "reflect":
        ends = part(1, low + 1).flip(axis), part(size - 1 - high, size - 1).flip(axis)
    elif mode == "circular":
        ends = part(size - low, size), part(0, high)
    else:
        ends = tuple(  # type: ignore[assignment]
            edge.expand([n if a == axis else s for a, s in enumerate(edge.shape)])
            for edge, n in ((part(0, 1), low), (part(size - 1, size), high))
        )
    whole = cat([t for t in (ends[0], x, ends[1]) if t.shape[axis]], axis)
    start, stop = max(0, -before), whole.shape[axis] - max(0, -after)
    return whole.narrow(axis, start, stop - start)


def _grouped(name: str, size: int, factor: int) -> int:
    if factor <= 0 or size % factor:
        raise ShapeError(f"{name}: {size} is no multiple of {factor} (at {user_source()})")
    return size // factor


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """Channels dealt out to pixels: [..., C r², H, W] to [..., C, H r, W r].

    Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural
    Network" (2016).
    """
    if input.ndim < 3:
        raise ShapeError(f"pixel_shuffle takes at least 3 axes, got {list(input.shape)} (at {user_source()})")
    r = upscale_factor
    *batch, channels, height, width = input.shape
    c = _grouped("pixel_shuffle", channels, r * r)
    n = len(batch)
    parts = input.reshape([*batch, c, r, r, height, width])
    moved = parts.permute([*range(n), n, n + 3, n + 1, n + 4, n + 2])
    return moved.reshape([*batch, c, height * r, width * r])


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """The inverse of `pixel_shuffle`: [..., C, H r, W r] to [..., C r², H, W]."""
    if input.ndim < 3:
        raise ShapeError(f"pixel_unshuffle takes at least 3 axes, got {list(input.shape)} (at {user_source()})")
    r = downscale_factor
    *batch, channels, height, width = input.shape
    h, w = _grouped("pixel_unshuffle", height, r), _grouped("pixel_unshuffle", width, r)
    n = len(batch)
    parts = input.reshape([*batch, channels, h, r, w, r])
    return parts.permute([*range(n), n, n + 2, n + 4, n + 1, n + 3]).reshape([*batch, channels * r * r, h, w])


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """Channels (axis 1) dealt out from `groups` groups in turn. Zhang et al., "ShuffleNet" (2018)."""
    if input.ndim < 3:
        raise ShapeError(f"channel_shuffle takes at least 3 axes, got {list(input.shape)} (at {user_source()})")
    batch, channels, *rest = input.shape
    each = _grouped("channel_shuffle", channels, groups)
    return input.reshape([batch, groups, each, *rest]).transpose(1, 2).reshape(input.shape)


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    listed = value if isinstance(value, Sequence) else (value, value)
    if len(listed) != 2:
        raise ValueError(f"unfold: windows of images have one size, or two, got {value!r} (at {user_source()})")
    first, second = listed
    return whole_number(first, "unfold", "a size"), whole_number(second, "unfold", "a size")


class _Windows:
    """The windows of an image: which strided cut of the padded image each place within the window takes."""

    def __init__(self, name: str, size: tuple[int, int], *given: int | Sequence[int]):
        """`given` are the window's sizes, the dilation, the padding and the stride."""
        self.kernel, self.dilation, self.padding, self.stride = map(_pair, given)
        if min(*self.kernel, *self.dilation, *self.stride) <= 0 or min(self.padding) < 0:
            raise ValueError(
                f"{name}: kernel {self.kernel}, dilation {self.dilation} and stride {self.stride} must be positive, "
                f"padding {self.padding} not negative (at {user_source()})"
            )
        self.padded = tuple(s + 2 * p for s, p in zip(size, self.padding, strict=True))
        self.counts = tuple(
            (s - d * (k - 1) - 1) // step + 1
            for s, d, k, step in zip(self.padded, self.dilation, self.kernel, self.stride, strict=True)
        )
        if min(self.counts) <= 0:
            raise ShapeError(
                f"{name}: windows {self.kernel} (dilation {self.dilation}) do not fit into {self.padded} "
                f"(at {user_source()})"
            )

    def cuts(self, batch: int, channels: int) -> list[Cut]:
        """One cut a place within the window, row by row."""
        return [
            Cut(
                (
                    (0, batch),
                    (0, channels),
                    *(
                        (at * d, at * d + (n - 1) * step + 1)
                        for at, d, n, step in zip((i, j), self.dilation, self.counts, self.stride, strict=True)
                    ),
                ),
                (1, 1, *self.stride),
            )
            for i in range(self.kernel[0])
            for j in range(self.kernel[1])
        ]


def unfold(
    input: Tensor,
    kernel_size: int | Sequence[int],
    dilation: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    stride: int | Sequence[int] = 1,
) -> Tensor:
    """The windows of images as columns: [N, C, H, W] to [N, C · window, windows]; N may be missing."""
    if input.ndim not in (3, 4):
        raise ShapeError(f"unfold takes [N, C, H, W] or [C, H, W], got {list(input.shape)} (at {user_source()})")
    x = input if input.ndim == 4 else input.unsqueeze(0)
    batch, channels, height, width = x.shape
    windows = _Windows("unfold", (height, width), kernel_size, dilation, padding, stride)
    (p, q) = windows.padding
    padded = m.pad(x.node, ((0, 0), (0, 0), (p, p), (q, q)))
    places = [Tensor(cut.read(padded)) for cut in windows.cuts(batch, channels)]
    columns = stack(places, 2).reshape(batch, channels * len(places), math.prod(windows.counts))
    return columns if input.ndim == 4 else columns.squeeze(0)


def fold(
    input: Tensor,
    output_size: int | Sequence[int],
    kernel_size: int | Sequence[int],
    dilation: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    stride: int | Sequence[int] = 1,
) -> Tensor:
    """Columns added back to the windows of images that `unfold` took them from: [N, C · window, windows] to
    [N, C, *output_size]; N may be missing."""
    if input.ndim not in (2, 3):
        raise ShapeError(f"fold takes [N, C · window, windows], got {list(input.shape)} (at {user_source()})")
    x = input if input.ndim == 3 else input.unsqueeze(0)
    size = _pair(output_size)
    windows = _Windows("fold", size, kernel_size, dilation, padding, stride)
    batch, rows, count = x.shape
    places = math.prod(windows.kernel)
    channels = _grouped("fold", rows, places)
    if count != math.prod(windows.counts):
        raise ShapeError(
            f"fold: {count} columns, but the windows of {size} are {math.prod(windows.counts)} (at {user_source()})"
        )
    columns = x.reshape(batch, channels, places, *windows.counts)
    empty = m.expand(constant(0, x.dtype), (batch, channels, *windows.padded))
    total: Node | None = None
    for place, cut in enumerate(windows.cuts(batch, channels)):
        spread = cut.write(empty, columns.select(2, place).node)
        total = spread if total is None else e.add(total, spread)
    assert total is not None
    (p, q), (height, width) = windows.padding, size
    image = Tensor(m.slice_(total, ((0, batch), (0, channels), (p, p + height), (q, q + width))))
    return image if input.ndim == 3 else image.squeeze(0)
