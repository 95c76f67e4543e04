"""Images read at positions that another tensor names: `grid_sample`, and the positions of affine maps."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence

import numpy as np

from ...errors import DTypeError, ShapeError
from ...graph.types import int64
from ...ops.indexing import take
from ...ops.primitive import iota, user_source
from ...tensor import Tensor
from ...tensor.arithmetic import where
from ...tensor.autocast_mode import in_float32, lowered
from ...tensor.creation import tensor
from ...tensor.shapes import as_shape
from .activation import finished, widened
from .interpolation import cubic_weights

_MODES = ("bilinear", "nearest", "bicubic")
_PADDINGS = ("zeros", "border", "reflection")


def grid_sample(
    input: Tensor, grid: Tensor, mode: str = "bilinear", padding_mode: str = "zeros", align_corners: bool | None = None
) -> Tensor:
    """The input read at the positions in `grid`: [N, C, H, W] and [N, h, w, 2] give [N, C, h, w].

    Of volumes [N, C, D, H, W] and [N, d, h, w, 3] give [N, C, d, h, w]. A position is (x, y) or (x, y, z), each from
    -1 to 1: the centres of the first and last elements with `align_corners`, else their outer edges. `mode` is
    "bilinear" (of volumes trilinear), "nearest" or, of images, "bicubic". Positions outside read 0 ("zeros"), the
    nearest edge ("border"), or the input mirrored at its edges ("reflection"). Gradients go to both tensors.

    NaN and infinite positions give NaN or an element of the edge as PyTorch's do, never an error. Jaderberg et al.,
    "Spatial Transformer Networks" (2015). Raises `ShapeError` and `DTypeError` where input and grid do not fit.

    >>> image = pb.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    >>> pb.nn.functional.grid_sample(image, pb.tensor([[[[0.0, 0.0], [1.0, -1.0]]]]), align_corners=True)
    tensor([[[[2.5000, 2.0000]]]])
    """
    for what, given, allowed in (("mode", mode, _MODES), ("padding_mode", padding_mode, _PADDINGS)):
        if given not in allowed:
            raise ValueError(
                f"grid_sample: {what} must be one of {', '.join(allowed)}, got {given!r} (at {user_source()})"
            )
    return _sampled("grid_sample", input, grid, mode, padding_mode, _corners("grid_sample", align_corners))


def grid_sampler(
    input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int, align_corners: bool
) -> Tensor:
    """`grid_sample` whose modes are numbers: 0 bilinear, 1 nearest, 2 bicubic; 0 zeros, 1 border, 2 reflection."""
    return _numbered("grid_sampler", input, grid, interpolation_mode, padding_mode, align_corners)


def grid_sampler_2d(
    input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int, align_corners: bool
) -> Tensor:
    """`grid_sampler` of images."""
    _check_rank("grid_sampler_2d", input, 4)
    return _numbered("grid_sampler_2d", input, grid, interpolation_mode, padding_mode, align_corners)


def grid_sampler_3d(
    input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int, align_corners: bool
) -> Tensor:
    """`grid_sampler` of volumes."""
    _check_rank("grid_sampler_3d", input, 5)
    return _numbered("grid_sampler_3d", input, grid, interpolation_mode, padding_mode, align_corners)


def _check_rank(name: str, input: Tensor, rank: int) -> None:
    if input.ndim != rank:
        raise ShapeError(f"{name}: input must have {rank} axes, got {list(input.shape)} (at {user_source()})")


def _numbered(name: str, input: Tensor, grid: Tensor, mode: int, padding: int, align_corners: bool) -> Tensor:
    if mode not in range(3) or padding not in range(3):
        raise ValueError(
            f"{name}: interpolation_mode and padding_mode are 0, 1 or 2, got {mode!r} and {padding!r} "
            f"(at {user_source()})"
        )
    return _sampled(name, input, grid, _MODES[mode], _PADDINGS[padding], align_corners)


def _corners(name: str, align_corners: bool | None) -> bool:
    if align_corners is None:
        warnings.warn(f"{name}: align_corners is False unless given, as in PyTorch since 1.3", stacklevel=3)
    return bool(align_corners)


def _check(name: str, input: Tensor, grid: Tensor, mode: str) -> None:
    given = f"input {list(input.shape)} and grid {list(grid.shape)}"
    if input.ndim not in (4, 5) or input.ndim != grid.ndim:
        raise ShapeError(f"{name}: {given} must both have 4 axes (images) or 5 (volumes) (at {user_source()})")
    if input.shape[0] != grid.shape[0] or grid.shape[-1] != input.ndim - 2:
        raise ShapeError(
            f"{name}: {given} must have one batch size, and the grid's last axis {input.ndim - 2} coordinates "
            f"(at {user_source()})"
        )
    if 0 in input.shape[2:]:
        raise ShapeError(f"{name}: input {list(input.shape)} has no elements to read (at {user_source()})")
    if mode == "bicubic" and input.ndim != 4:
        raise ShapeError(f"{name}: bicubic takes images of 4 axes, got input {list(input.shape)} (at {user_source()})")
    if input.dtype is not grid.dtype:
        raise DTypeError(
            f"{name}: input and grid must have one dtype, got {input.dtype.name} and {grid.dtype.name} "
            f"(at {user_source()})"
        )


def _sampled(name: str, input: Tensor, grid: Tensor, mode: str, padding: str, corners: bool) -> Tensor:
    input, grid = in_float32(input, grid)
    _check(name, input, grid, mode)
    image, places = widened(name, input), widened(name, grid)
    rows = _Rows(image)
    axes = [
        _Axis(places[..., len(rows.sizes) - 1 - axis], size, padding, corners, len(rows.sizes))
        for axis, size in enumerate(rows.sizes)
    ]
    if mode == "nearest":
        result = rows.at([axis.nearest() for axis in axes])
        # the result depends on the grid, with a gradient of zero
        result = where(tensor(False), places.sum(-1, keepdim=True), result)
    elif mode == "bilinear":
        result = _weighed(rows, [axis.neighbours() for axis in axes])
    else:
        result = _weighed(rows, [axis.cubic() for axis in axes])
    return finished(result.movedim(-1, 1), input)


class _Rows:
    """The elements of a batch of images as rows of channels, read by an index for each axis."""

    def __init__(self, image: Tensor):
        self.sizes = image.shape[2:]
        batch, channels, each = image.shape[0], image.shape[1], math.prod(self.sizes)
        self.rows = image.movedim(1, -1).reshape(batch * each, channels)
        self.start = Tensor(iota((batch, *(1,) * len(self.sizes)), 0, int64)) * each

    def at(self, index: Sequence[Tensor]) -> Tensor:
        """The rows at an index (int64, any number) for each axis; zeros outside."""
        place, inside = self.start, None
        stride = 1
        for numbers, size in reversed(list(zip(index, self.sizes, strict=True))):
            here = (numbers >= 0) & (numbers < size)
            inside = here if inside is None else inside & here
            place = place + numbers.clamp(0, size - 1) * stride
            stride *= size
        assert inside is not None
        found = Tensor(take(self.rows.node, place.node))
        return where(inside.unsqueeze(-1), found, 0.0)


class _Axis:
    """Positions along one axis, in elements: `position` 0 is the first one's centre."""

    def __init__(self, normalized: Tensor, size: int, padding: str, corners: bool, axes: int):
        self.size, self.padding, self.corners, self.axes = size, padding, corners, axes
        self.position = (normalized + 1) * ((size - 1) / 2) if corners else ((normalized + 1) * (size / 2)) - 0.5

    def _inside(self, position: Tensor) -> Tensor:
        """Positions brought into the input by its padding; of zeros as they are.

        The gradient stops where a position is held at an edge, on the edge too; NaN goes to an edge: PyTorch's.
        """
        if self.padding == "zeros":
            return position
        if self.padding == "reflection":
            position = self._reflected(position)
        last = float(self.size - 1)
        between = (position > 0) & (position < last)
        if self.axes == 2:
            return where(between, position, where(position >= last, last, tensor(0.0, dtype=position.dtype)))
        return where(between, position, where(position <= 0, 0.0, tensor(last, dtype=position.dtype)))

    def _reflected(self, position: Tensor) -> Tensor:
        low, span = (0.0, self.size - 1.0) if self.corners else (-0.5, float(self.size))
        if not span:
            return position * 0.0
        away = position - low
        away = where(away < 0, -away, away)
        rest = away - (away.detach() / (2 * span)).floor() * (2 * span)
        return where(rest > span, 2 * span - rest, rest) + low

    def _whole(self, position: Tensor) -> Tensor:
        """Whole positions as int64; NaN and those far outside become one that is outside."""
        near = (position > -4) & (position < self.size + 4)
        return where(near, position, tensor(-4.0, dtype=position.dtype)).to(int64)

    def nearest(self) -> Tensor:
        """The nearest element's number; of two the even one."""
        return self._whole(self._inside(self.position).detach().round())

    def neighbours(self) -> list[tuple[Tensor, Tensor]]:
        """The numbers and weights of the elements before and after."""
        position = self._inside(self.position)
        if self.axes == 3 and self.padding == "zeros":  # volumes read 0 at NaN and infinity, images give NaN
            near = (position > -2) & (position < self.size + 1)
            position = where(near, position, tensor(-2.0, dtype=position.dtype))
        first = position.detach().floor()
        share, number = position - first, self._whole(first)
        return [(number, 1 - share), (number + 1, share)]

    def cubic(self) -> list[tuple[Tensor, Tensor]]:
        """The numbers and weights of the four elements around, each brought into the input by itself."""
        first = self.position.detach().floor()
        numbers = [self._whole(self._inside(first + k)) for k in range(-1, 3)]
        return list(zip(numbers, cubic_weights(self.position - first), strict=True))


def _weighed(rows: _Rows, axes: list[list[tuple[Tensor, Tensor]]]) -> Tensor:
    """The sum over all combinations of the axes' elements, weighed with the products of their weights."""
    total: Tensor | None = None
    for choice in itertools.product(*axes[:-1]):
        line: Tensor | None = None
        for number, weight in axes[-1]:
            term = rows.at([*(n for n, _ in choice), number]) * weight.unsqueeze(-1)
            line = term if line is None else line + term
        assert line is not None
        for _, weight in choice:
            line = line * weight.unsqueeze(-1)
        total = line if total is None else total + line
    assert total is not None
    return total


def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """The positions, for `grid_sample`, that affine maps take those of the result from.

    theta [N, 2, 3] and size (N, C, H, W) give [N, H, W, 2]; [N, 3, 4] and (N, C, D, H, W) give [N, D, H, W, 3].
    `align_corners` as in `grid_sample`.

    >>> turned = pb.tensor([[[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]]])
    >>> pb.nn.functional.affine_grid(turned, (1, 1, 1, 2), align_corners=True).tolist()
    [[[[0.0, 1.0], [0.0, -1.0]]]]
    """
    return affine_grid_generator(theta, size, _corners("affine_grid", align_corners))


def affine_grid_generator(theta: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """`affine_grid`, `align_corners` to be given."""
    sizes = as_shape((size,))
    axes = len(sizes) - 2
    if axes not in (2, 3):
        raise ShapeError(
            f"affine_grid: size must be (N, C, H, W) or (N, C, D, H, W), got {list(sizes)} (at {user_source()})"
        )
    if any(s <= 0 for s in sizes):
        raise ShapeError(f"affine_grid: the sizes {list(sizes)} must be positive (at {user_source()})")
    if theta.shape != (sizes[0], axes, axes + 1):
        raise ShapeError(
            f"affine_grid: theta for size {list(sizes)} must be {[sizes[0], axes, axes + 1]}, got {list(theta.shape)} "
            f"(at {user_source()})"
        )
    (theta,) = lowered(theta)
    wide = widened("affine_grid", theta)
    exact = wide.dtype.carrier
    result: Tensor | None = None
    for axis, places in enumerate(sizes[2:]):
        line = np.linspace(-1.0, 1.0, places) if places > 1 else np.zeros(1)
        if not align_corners:
            line = line * (places - 1) / places
        shape = (1, *(places if a == axis else 1 for a in range(axes)), 1)
        column = wide[:, :, axes - 1 - axis].reshape(sizes[0], *(1,) * axes, axes)
        term = tensor(line.astype(exact).reshape(shape)) * column
        result = term if result is None else result + term
    assert result is not None
    return finished(result + wide[:, :, axes].reshape(sizes[0], *(1,) * axes, axes), theta)


__all__ = ["affine_grid", "affine_grid_generator", "grid_sample", "grid_sampler", "grid_sampler_2d", "grid_sampler_3d"]
