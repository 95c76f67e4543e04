"""The kinds of dropout beyond that of single elements: of whole channels, and those that keep mean and variance."""

from __future__ import annotations

from ...errors import ShapeError
from ...graph.types import float32
from ...ops.elementwise import lt
from ...ops.primitive import constant, user_source
from ...tensor import Tensor
from ...tensor.arguments import real
from ...tensor.arithmetic import where
from ...tensor.random import Generator, uniform_nodes
from .activation import finished, widened

#: what a self-normalizing unit saturates at: -scale * alpha of SELU
_SATURATED = -1.7580993408473766


def _keep(name: str, shape: tuple[int, ...], p: float, generator: Generator | None) -> Tensor:
    if not 0 <= real(p, name, "p") <= 1:
        raise ValueError(f"{name}: p must lie between 0 and 1, got {p} (at {user_source()})")
    return Tensor(lt(uniform_nodes(shape, float32, generator), constant(1 - p, float32)))


def _channels(input: Tensor, axes: int) -> tuple[int, ...]:
    """The shape of a mask of one element a channel: `axes` axes behind the channels are dropped as one."""
    return (*input.shape[: input.ndim - axes], *(1 for _ in range(axes)))


def _of_channels(
    name: str, input: Tensor, p: float, training: bool, inplace: bool, axes: int, generator: Generator | None
) -> Tensor:
    x = widened(name, input)
    if input.ndim not in (axes + 1, axes + 2):
        raise ShapeError(f"{name} takes {axes + 1} or {axes + 2} axes, got {list(input.shape)} (at {user_source()})")
    keep = _keep(name, _channels(input, axes), p, generator)
    if not training or p == 0:
        return input
    return finished(where(keep, x * (1 / (1 - p)) if p < 1 else x, 0.0), input, inplace)


def dropout1d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, generator: Generator | None = None
) -> Tensor:
    """Whole channels, of shape (…, C, L), 0 with probability `p`, else divided by 1 - p."""
    return _of_channels("dropout1d", input, p, training, inplace, 1, generator)


def dropout2d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, generator: Generator | None = None
) -> Tensor:
    """Whole channels, of shape (N, C, H, W), 0 with probability `p`, else divided by 1 - p; Tompson et al. (2015).

    Of (N, C, L) PyTorch takes the first axis as examples, and so does this.
    """
    return _of_examples("dropout2d", input, p, training, inplace, generator)


def dropout3d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, generator: Generator | None = None
) -> Tensor:
    """Whole channels, of shape (N, C, D, H, W), 0 with probability `p`, else divided by 1 - p."""
    return _of_examples("dropout3d", input, p, training, inplace, generator)


def _of_examples(
    name: str, input: Tensor, p: float, training: bool, inplace: bool, generator: Generator | None
) -> Tensor:
    x = widened(name, input)
    if input.ndim < 2:
        raise ShapeError(f"{name} takes examples and channels first, got {list(input.shape)} (at {user_source()})")
    keep = _keep(name, _channels(input, input.ndim - 2), p, generator)
    if not training or p == 0:
        return input
    return finished(where(keep, x * (1 / (1 - p)) if p < 1 else x, 0.0), input, inplace)


def _alpha(
    name: str, input: Tensor, p: float, training: bool, inplace: bool, shape: tuple[int, ...], g: Generator | None
) -> Tensor:
    """Dropped elements saturate, and all are scaled and shifted so that mean 0 and variance 1 stay."""
    x = widened(name, input)
    keep = _keep(name, shape, p, g)
    if not training or p == 0:
        return input
    if p == 1:
        return finished(x * 0.0, input, inplace)
    scale = ((1 - p) * (1 + p * _SATURATED**2)) ** -0.5
    return finished(where(keep, x, _SATURATED) * scale - scale * _SATURATED * p, input, inplace)


def alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False, generator: Generator | None = None
) -> Tensor:
    """Dropout that keeps mean 0 and variance 1, for SELU networks; Klambauer et al. (NeurIPS 2017)."""
    return _alpha("alpha_dropout", input, p, training, inplace, input.shape, generator)


def feature_alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False, generator: Generator | None = None
) -> Tensor:
    """alpha_dropout of whole channels, of shape (N, C, …)."""
    if (not training or p == 0) and 0 <= p <= 1:
        return input
    if input.ndim < 2:
        raise ShapeError(f"feature_alpha_dropout takes examples and channels first, got {list(input.shape)}")
    shape = _channels(input, input.ndim - 2)
    return _alpha("feature_alpha_dropout", input, p, training, inplace, shape, generator)
