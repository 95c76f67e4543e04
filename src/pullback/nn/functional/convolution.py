"""Convolutions and transposed convolutions over one, two or three spatial axes."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import DTypeError, ShapeError
from ...graph.node import Node
from ...graph.types import INTEGER
from ...ops.convolution import convolution, output_size, reach
from ...ops.movement import concatenate, expand, flip, permute, reshape, slice_
from ...ops.primitive import user_source
from ...tensor import Tensor
from ...tensor.autocast_mode import lowered
from .convolution_integers import convolution_of_integers

Sizes = int | Sequence[int]


def sizes_of(function: str, name: str, value: Sizes, rank: int, least: int, alone: bool = True) -> tuple[int, ...]:
    """One whole number, or one for each of `rank` axes, none below `least`; one in a list stands for all if `alone`."""
    given = (value,) * rank if isinstance(value, int) else tuple(value)
    if len(given) == 1 and alone:
        given *= rank
    if len(given) != rank or not all(isinstance(size, int) and size >= least for size in given):
        raise ValueError(
            f"{function}: {name} must be a whole number of at least {least}, or {rank} of them, got {value!r} "
            f"(at {user_source()})"
        )
    return given


def conv1d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sizes = 1, padding: str | Sizes = 0,
    dilation: Sizes = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """The window `weight` [out, in / groups, K], at every place of `input` [N, in, L] or [in, L], plus `bias` [out].

    `padding` is a number of zeros at either end, "valid" (none), or "same" (as many as keep L; stride 1 only, the odd
    one at the end). The result has floor((L + 2 padding - dilation (K - 1) - 1) / stride) + 1 places. Raises ShapeError
    where the channels do not fit or the window is longer than the padded input.
    """
    return _convolve("conv1d", 1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sizes = 1, padding: str | Sizes = 0,
    dilation: Sizes = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """`conv1d` over two axes: input [N, in, H, W] or [in, H, W], weight [out, in / groups, KH, KW].

    >>> images, weight = pb.randn(2, 3, 8, 8), pb.randn(5, 3, 3, 3)
    >>> pb.nn.functional.conv2d(images, weight, stride=2, padding=1).shape
    pullback.Size([2, 5, 4, 4])
    """
    return _convolve("conv2d", 2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sizes = 1, padding: str | Sizes = 0,
    dilation: Sizes = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """`conv1d` over three axes: input [N, in, D, H, W] or [in, D, H, W], weight [out, in / groups, KD, KH, KW]."""
    return _convolve("conv3d", 3, input, weight, bias, stride, padding, dilation, groups)


def conv_transpose1d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sizes = 1, padding: Sizes = 0,
    output_padding: Sizes = 0, groups: int = 1, dilation: Sizes = 1,
) -> Tensor:  # fmt: skip
    """The gradient of conv1d by its input, as a function: each element adds a window `weight` [in, out / groups, K].

    The result has (L - 1) stride - 2 padding + dilation (K - 1) + output_padding + 1 places; `output_padding`, at the
    end, tells apart the lengths that conv1d makes one of, and must be below stride or dilation.
    """
    return _transposed("conv_transpose1d", 1, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sizes = 1, padding: Sizes = 0,
    output_padding: Sizes = 0, groups: int = 1, dilation: Sizes = 1,
) -> Tensor:  # fmt: skip
    """`conv_transpose1d` over two axes: input [N, in, H, W] or [in, H, W], weight [in, out / groups, KH, KW].

    >>> images, weight = pb.randn(2, 3, 4, 4), pb.randn(3, 5, 2, 2)
    >>> pb.nn.functional.conv_transpose2d(images, weight, stride=2).shape
    pullback.Size([2, 5, 8, 8])
    """
    return _transposed("conv_transpose2d", 2, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose3d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sizes = 1, padding: Sizes = 0,
    output_padding: Sizes = 0, groups: int = 1, dilation: Sizes = 1,
) -> Tensor:  # fmt: skip
    """`conv_transpose1d` over three axes: input [N, in, D, H, W], weight [in, out / groups, KD, KH, KW]."""
    return _transposed("conv_transpose3d", 3, input, weight, bias, stride, padding, output_padding, groups, dilation)


# ---- what all have in common


def channels_last(x: Tensor) -> Tensor:
    """[N, C, sizes…] as [N, sizes…, C]: the order in which convolution and pooling are computed."""
    return Tensor(permute(x.node, (0, *range(2, x.ndim), 1)))


def channels_first(x: Tensor) -> Tensor:
    """[N, sizes…, C] as [N, C, sizes…]."""
    return Tensor(permute(x.node, (0, x.ndim - 1, *range(1, x.ndim - 1))))


def batched(function: str, input: Tensor, rank: int, integers: bool = False) -> tuple[Tensor, bool]:
    """The input with a batch axis, and whether that was missing; raises where it has another number of axes."""
    if input.ndim not in (rank + 1, rank + 2):
        raise ShapeError(
            f"{function}: input must have {rank + 2} axes (batch, channels and {rank} more), or {rank + 1} without the "
            f"batch, got {list(input.shape)} (at {user_source()})"
        )
    if not input.is_floating_point() and not (integers and input.dtype.category == INTEGER):
        raise DTypeError(
            f"{function}: input must be of floating point, got {input.dtype.name} (at {user_source()}); use .float()"
        )
    return (input.unsqueeze(0), True) if input.ndim == rank + 1 else (input, False)


def _check(
    function: str, rank: int, input: Tensor, weight: Tensor, bias: Tensor | None, groups: int, transposed: bool
) -> None:
    """Raise where channels, groups, dtypes or the number of axes do not fit."""
    order = "[in, out / groups, …]" if transposed else "[out, in / groups, …]"
    if weight.ndim != rank + 2:
        raise ShapeError(
            f"{function}: weight must be {order} with {rank + 2} axes, got {list(weight.shape)} (at {user_source()})"
        )
    if not isinstance(groups, int) or groups < 1:
        raise ValueError(f"{function}: groups must be a whole number from 1 on, got {groups!r} (at {user_source()})")
    channels = input.shape[1]
    wanted = weight.shape[0] if transposed else weight.shape[1] * groups
    if channels != wanted:
        raise ShapeError(
            f"{function}: input {list(input.shape)} has {channels} channels and weight {list(weight.shape)} {order} "
            f"with groups={groups} takes {wanted} (at {user_source()})"
        )
    if weight.shape[0] % groups:
        raise ValueError(
            f"{function}: weight {list(weight.shape)}: its first axis ({weight.shape[0]}) must be divisible by "
            f"groups={groups} (at {user_source()})"
        )
    if 0 in weight.shape[2:] or 0 in input.shape[2:]:
        raise ShapeError(
            f"{function}: no axis that is gone over may have size 0, got input {list(input.shape)} and weight "
            f"{list(weight.shape)} (at {user_source()})"
        )
    outputs = weight.shape[1] * groups if transposed else weight.shape[0]
    if bias is not None and bias.shape != (outputs,):
        raise ShapeError(
            f"{function}: bias must be [{outputs}], one for each output channel, got {list(bias.shape)} "
            f"(at {user_source()})"
        )
    for name, other in (("weight", weight), ("bias", bias)):
        if other is not None and other.dtype is not input.dtype:
            raise DTypeError(
                f"{function}: input is {input.dtype.name} and {name} {other.dtype.name}; convert one with .to(dtype) "
                f"(at {user_source()})"
            )


def _paddings(
    function: str, padding: str | Sizes, weight: Tensor, stride: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[tuple[int, int], ...]:
    """The zeros before and after along each axis."""
    rank = weight.ndim - 2
    if not isinstance(padding, str):
        return tuple((size, size) for size in sizes_of(function, "padding", padding, rank, 0))
    if padding == "valid":
        return ((0, 0),) * rank
    if padding != "same":
        raise ValueError(
            f'{function}: padding must be "same", "valid" or numbers, got {padding!r} (at {user_source()})'
        )
    if any(step != 1 for step in stride):
        raise ValueError(f'{function}: padding "same" is for stride 1, got stride {stride} (at {user_source()})')
    totals = [reach(size, step) - 1 for size, step in zip(weight.shape[2:], dilation, strict=True)]
    return tuple((total // 2, total - total // 2) for total in totals)


def _convolve(
    function: str, rank: int, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Sizes, padding: str | Sizes,
    dilation: Sizes, groups: int,
) -> Tensor:  # fmt: skip
    input, weight, bias = lowered(input, weight, bias)
    x, alone = batched(function, input, rank, integers=True)
    _check(function, rank, x, weight, bias, groups, transposed=False)
    steps = sizes_of(function, "stride", stride, rank, 1)
    spread = sizes_of(function, "dilation", dilation, rank, 1)
    pads = _paddings(function, padding, weight, steps, spread)
    for axis in range(rank):
        size, window = x.shape[2 + axis], weight.shape[2 + axis]
        if output_size(size, window, steps[axis], pads[axis], 1, spread[axis]) < 1:
            raise ShapeError(
                f"{function}: the window of {list(weight.shape[2:])} with dilation {list(spread)} is longer than the "
                f"input {list(x.shape[2:])} with padding {[list(p) for p in pads]} (at {user_source()})"
            )
    out, inner, *taps = weight.shape
    split = reshape(weight.node, (groups, out // groups, inner, *taps))
    window_node = permute(split, (*range(3, rank + 3), 0, 2, 1))
    ones = (1,) * rank
    convolve = convolution if x.is_floating_point() else convolution_of_integers
    return _finished(convolve(_grouped(x, groups), window_node, steps, pads, ones, spread), bias, alone)


def _transposed(
    function: str, rank: int, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Sizes, padding: Sizes,
    output_padding: Sizes, groups: int, dilation: Sizes,
) -> Tensor:  # fmt: skip
    input, weight, bias = lowered(input, weight, bias)
    x, alone = batched(function, input, rank, integers=True)
    _check(function, rank, x, weight, bias, groups, transposed=True)
    steps = sizes_of(function, "stride", stride, rank, 1)
    spread = sizes_of(function, "dilation", dilation, rank, 1)
    cut = sizes_of(function, "padding", padding, rank, 0)
    extra = sizes_of(function, "output_padding", output_padding, rank, 0)
    pads = []
    for axis in range(rank):
        if x.shape[0] and extra[axis] >= max(steps[axis], spread[axis]):  # PyTorch allows any of no examples
            raise ValueError(
                f"{function}: output_padding {list(extra)} must be below stride {list(steps)} or dilation "
                f"{list(spread)} along each axis (at {user_source()})"
            )
        low = reach(weight.shape[2 + axis], spread[axis]) - 1 - cut[axis]
        pads.append((low, low + extra[axis]))
        if output_size(x.shape[2 + axis], weight.shape[2 + axis], 1, pads[axis], steps[axis], spread[axis]) < 1:
            raise ShapeError(
                f"{function}: nothing is left of input {list(x.shape)} with weight {list(weight.shape)}, stride "
                f"{list(steps)} and padding {list(cut)} (at {user_source()})"
            )
    inner, out, *taps = weight.shape
    split = flip(reshape(weight.node, (groups, inner // groups, out, *taps)), tuple(range(3, rank + 3)))
    window_node = permute(split, (*range(3, rank + 3), 0, 1, 2))
    convolve = convolution if x.is_floating_point() else convolution_of_integers
    found = convolve(_grouped(x, groups), window_node, (1,) * rank, tuple(pads), steps, spread)
    return _finished(found, bias, alone)


def _grouped(x: Tensor, groups: int) -> Node:
    """[N, C, sizes…] as [N, sizes…, groups, C / groups]."""
    last = channels_last(x).node
    return reshape(last, (*last.shape[:-1], groups, last.shape[-1] // groups))


def _finished(found: Node, bias: Tensor | None, alone: bool) -> Tensor:
    """[N, places…, groups, outputs] with the bias, as [N, out, places…]."""
    *lead, groups, outputs = found.shape
    result = Tensor(reshape(found, (*lead, groups * outputs)))
    if bias is not None:
        result = result + bias
    first = channels_first(result)
    return first.squeeze(0) if alone else first


def padded(input: Tensor, widths: Sequence[tuple[int, int]], mode: str) -> Tensor:
    """`input` with its last axes continued: "reflect" (the edge once), "replicate" (the edge) or "circular"."""
    node = input.node
    first = len(node.shape) - len(widths)
    for axis, (low, high) in enumerate(widths, first):
        node = concatenate(_continued(node, axis, low, high, mode), axis)
    return Tensor(node)


def _continued(node: Node, axis: int, low: int, high: int, mode: str) -> tuple[Node, ...]:
    size = node.shape[axis]
    longest = {"reflect": size - 1, "circular": size, "replicate": max(low, high)}[mode]
    if max(low, high) > longest or size == 0:
        raise ShapeError(
            f'padding mode "{mode}" continues an axis of size {size} by at most {longest}, got {max(low, high)} '
            f"(at {user_source()})"
        )

    def part(start: int, stop: int) -> Node:
        return slice_(node, tuple((start, stop) if a == axis else (0, s) for a, s in enumerate(node.shape)))

    def repeated(place: int, times: int) -> Node:
        edge = part(place, place + 1)
        return expand(edge, (*edge.shape[:axis], times, *edge.shape[axis + 1 :]))

    if mode == "circular":
        before, after = part(size - low, size), part(0, high)
    elif mode == "reflect":
        before, after = flip(part(1, 1 + low), (axis,)), flip(part(size - 1 - high, size - 1), (axis,))
    else:
        before, after = repeated(0, low), repeated(size - 1, high)
    return tuple(piece for piece, width in ((before, low), (node, size), (after, high)) if width)


__all__ = ["conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"]
