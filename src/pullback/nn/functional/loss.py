"""Losses."""

from __future__ import annotations

import warnings

from ...errors import DTypeError, ShapeError
from ...graph.types import INTEGER, DType
from ...ops.indexing import bounded
from ...ops.primitive import user_source
from ...tensor import Tensor
from ...tensor.arithmetic import where
from ...tensor.autocast_mode import in_float32
from ...tensor.promotion import require_float, result_type
from .activation import finished, log_softmax, logsigmoid, shifted_by_maximum, widened
from .linear import class_numbers, indices


def check_reduction(name: str, reduction: str) -> None:
    """Raise ValueError where `reduction` is no word for one."""
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f'{name}: reduction must be "none", "mean" or "sum", got {reduction!r} (at {user_source()})')


def check_smoothing(name: str, label_smoothing: float) -> None:
    """Raise ValueError where the share of the target that is spread is none."""
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"{name}: label_smoothing must lie in [0, 1], got {label_smoothing} (at {user_source()})")


def _reduced(loss: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return loss
    return loss.sum() if reduction == "sum" else loss.mean()


def _compared(name: str, input: Tensor, target: Tensor, reduction: str) -> tuple[Tensor, Tensor, DType]:
    """Both in the dtype of their computation, and that of the loss, with a warning where their shapes differ."""
    check_reduction(name, reduction)
    require_float(name, input)
    input, target = in_float32(input, target)
    dtype = result_type(input, target)
    if input.shape != target.shape:
        warnings.warn(
            f"{name}: input {list(input.shape)} and target {list(target.shape)} have different shapes and will be "
            f"broadcast (at {user_source()}), which is seldom what is meant",
            stacklevel=3,
        )
    return widened(name, input.to(dtype)), target.to(dtype.compute), dtype


def mse_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """The squared distances of `input` from `target`: their mean, sum, or each ("none")."""
    x, y, dtype = _compared("mse_loss", input, target, reduction)
    distance = x - y
    return _reduced(distance * distance, reduction).to(dtype)


def l1_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """The absolute distances of `input` from `target`: their mean, sum, or each ("none")."""
    x, y, dtype = _compared("l1_loss", input, target, reduction)
    return _reduced((x - y).abs(), reduction).to(dtype)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """-(pos_weight * target * log sigmoid(x) + (1 - target) * log sigmoid(-x)) * weight, stable for any x."""
    name = "binary_cross_entropy_with_logits"
    input, target, weight, pos_weight = in_float32(input, target, weight, pos_weight)
    check_reduction(name, reduction)
    if input.shape != target.shape:
        raise ShapeError(
            f"{name}: input {list(input.shape)} and target {list(target.shape)} must have one shape (at "
            f"{user_source()})"
        )
    x, y = widened(name, input), target.to(input.dtype.compute)
    positive = y if pos_weight is None else y * pos_weight
    loss = (1 - y) * x - (1 - y + positive) * logsigmoid(x)
    if weight is not None:
        loss = loss * weight
    return finished(_reduced(loss, reduction), input)


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """-log softmax(input)[target], averaged: the loss of classification from logits.

    Shapes: input [C], [N, C] or [N, C, d…]; target without the axis C (integers from 0 to C - 1, or `ignore_index`,
    which
    counts for nothing), or of input's shape (probabilities). `weight` [C] weighs the classes; the mean is then the
    weighted
    one. `label_smoothing` is the share of the target that is spread evenly (Szegedy et al., 2016).

    >>> pb.nn.functional.cross_entropy(pb.zeros(2, 4), pb.tensor([0, 3]))
    tensor(1.3863)
    """
    input, target, weight = in_float32(input, target, weight)
    check_reduction("cross_entropy", reduction)
    check_smoothing("cross_entropy", label_smoothing)
    if target.dtype.is_floating_point:
        return finished(_reduced(soft_terms(input, target, weight, label_smoothing), reduction), input)
    loss, share = hard_terms(input, target, weight, ignore_index, label_smoothing)
    return finished(_averaged(loss, share, reduction), input)


def hard_terms(
    input: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, label_smoothing: float
) -> tuple[Tensor, Tensor]:
    """The loss against each class by number, 0 where it is ignored, and how much each counts in the mean."""
    x = widened("cross_entropy", input)
    axis, count = _class_axis("cross_entropy", input, weight)
    classes = None if weight is None else _along(weight.to(x.dtype), axis, x.ndim)
    hit, valid = _hits("cross_entropy", x, target, ignore_index, axis)
    # log softmax is `shifted - log_total`; written so that no tensor of input's shape need be kept or made
    shifted = shifted_by_maximum(x, axis)
    log_total = shifted.exp().sum(axis).log()
    share = _share(hit, valid, classes, x, axis)
    loss = (log_total - where(hit, shifted, 0.0).sum(axis)) * share
    if label_smoothing:
        if classes is None:
            spread = log_total * count - shifted.sum(axis)
        else:
            spread = ((log_total.unsqueeze(axis) - shifted) * classes).sum(axis)
        loss = loss * (1 - label_smoothing) + spread * (label_smoothing / count)
    return where(valid, loss, 0.0), share


def soft_terms(input: Tensor, target: Tensor, weight: Tensor | None, label_smoothing: float) -> Tensor:
    """The loss against each row of probabilities."""
    x = widened("cross_entropy", input)
    axis, count = _class_axis("cross_entropy", input, weight)
    if target.shape != x.shape:
        raise ShapeError(
            f"cross_entropy: probabilities must have the shape of input, {list(x.shape)}, got {list(target.shape)} "
            f"(at {user_source()}); for classes by number use integers"
        )
    wanted = target.to(x.dtype)
    if label_smoothing:
        wanted = wanted * (1 - label_smoothing) + label_smoothing / count
    if weight is not None:
        wanted = wanted * _along(weight.to(x.dtype), axis, x.ndim)
    return -(log_softmax(x, axis) * wanted).sum(axis)


def nll_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
    """-input[target], averaged: cross_entropy for an input that holds log probabilities already."""
    input, weight = in_float32(input, weight)
    check_reduction("nll_loss", reduction)
    x = widened("nll_loss", input)
    axis, _ = _class_axis("nll_loss", input, weight)
    classes = None if weight is None else _along(weight.to(x.dtype), axis, x.ndim)
    hit, valid = _hits("nll_loss", x, target, ignore_index, axis)
    share = _share(hit, valid, classes, x, axis)
    loss = -where(hit, x, 0.0).sum(axis) * share
    return finished(_averaged(where(valid, loss, 0.0), share, reduction), input)


def _class_axis(name: str, input: Tensor, weight: Tensor | None) -> tuple[int, int]:
    """The axis of the classes, and how many there are."""
    if input.ndim == 0:
        raise ShapeError(f"{name}: input must have an axis of classes, got shape [] (at {user_source()})")
    axis = 0 if input.ndim == 1 else 1
    count = input.shape[axis]
    if weight is not None and weight.shape != (count,):
        raise ShapeError(
            f"{name}: weight must have one entry a class, [{count}], got {list(weight.shape)} (at {user_source()})"
        )
    return axis, count


def _along(vector: Tensor, axis: int, rank: int) -> Tensor:
    return vector.reshape(tuple(-1 if a == axis else 1 for a in range(rank)))


def _hits(name: str, x: Tensor, target: Tensor, ignore_index: int, axis: int) -> tuple[Tensor, Tensor]:
    """Where the class is the target's (shape of x), and which targets count (shape of target)."""
    expected = x.shape[:axis] + x.shape[axis + 1 :]
    if target.dtype.category != INTEGER:
        raise DTypeError(f"{name}: target must be integers, got {target.dtype.name} (at {user_source()})")
    if target.shape != expected:
        raise ShapeError(
            f"{name}: for input {list(x.shape)} with {x.shape[axis]} classes along axis {axis}, target must be "
            f"{list(expected)}, got {list(target.shape)} (at {user_source()})"
        )
    known = Tensor(bounded(indices(name, target), 0, x.shape[axis], f"{name}: target", ignore=ignore_index))
    return class_numbers(x.shape, axis) == known.unsqueeze(axis), known != ignore_index


def _share(hit: Tensor, valid: Tensor, classes: Tensor | None, x: Tensor, axis: int) -> Tensor:
    """How much each target counts: its class's weight, 0 if it is ignored."""
    ones = valid.to(x.dtype)
    return ones if classes is None else where(hit, classes, 0.0).sum(axis) * ones


def _averaged(loss: Tensor, share: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return loss
    return loss.sum() if reduction == "sum" else loss.sum() / share.sum()
