"""Losses of classification: cross entropy and what stands beside it; and what all losses share."""

from __future__ import annotations

import warnings

from ...errors import DTypeError, ShapeError
from ...graph.types import INTEGER
from ...ops.indexing import bounded
from ...ops.primitive import user_source
from ...tensor import Tensor
from ...tensor.arguments import real, whole_number
from ...tensor.arithmetic import where
from ...tensor.autocast_mode import in_float32
from ...tensor.state import STATE
from .activation import finished, log_softmax, shifted_by_maximum, widened
from .linear import class_numbers, indices


def check_reduction(name: str, reduction: str) -> None:
    """Raise ValueError where `reduction` is no word for one."""
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f'{name}: reduction must be "none", "mean" or "sum", got {reduction!r} (at {user_source()})')


def check_smoothing(name: str, label_smoothing: float) -> None:
    """Raise ValueError where the share of the target that is spread is none."""
    if not 0 <= real(label_smoothing, name, "label_smoothing") <= 1:
        raise ValueError(f"{name}: label_smoothing must lie in [0, 1], got {label_smoothing} (at {user_source()})")


def chosen_reduction(name: str, size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """The reduction, checked; from PyTorch's former arguments `size_average` and `reduce`, with a warning, if given."""
    if size_average is not None or reduce is not None:
        if reduce is not None and not reduce:
            reduction = "none"
        else:
            reduction = "mean" if size_average is None or size_average else "sum"
        warnings.warn(
            f"{name}: size_average and reduce are deprecated, write reduction={reduction!r} (at {user_source()})",
            stacklevel=3,
        )
    check_reduction(name, reduction)
    return reduction


def reduced(loss: Tensor, reduction: str) -> Tensor:
    """The loss itself, its sum or its mean."""
    if reduction == "none":
        return loss
    return loss.sum() if reduction == "sum" else loss.mean()


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
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
    reduction = chosen_reduction("cross_entropy", size_average, reduce, reduction)
    check_smoothing("cross_entropy", label_smoothing)
    given = input, target, weight
    input, target, weight = in_float32(input, target, weight)
    if target.dtype.is_floating_point:
        _refuse_ignored(ignore_index)
    else:
        check_weight("cross_entropy", input, weight)
    if STATE.trace is not None and STATE.trace.blocks:
        from .linear_cross_entropy import in_blocks

        found = in_blocks(*given, ignore_index, reduction, label_smoothing)
        if found is not None:
            return found
    if target.dtype.is_floating_point:
        return finished(reduced(soft_terms(input, target, weight, label_smoothing), reduction), input)
    loss, share = hard_terms(input, target, weight, ignore_index, label_smoothing)
    return finished(_averaged(loss, share, reduction), input)


def _refuse_ignored(ignore_index: int) -> None:
    """RuntimeError, as PyTorch's, where a class is to be ignored and the target is no class. Negative ones are none."""
    if whole_number(ignore_index, "cross_entropy", "ignore_index") >= 0:
        raise RuntimeError(
            f"cross_entropy: ignore_index is not supported for floating point targets, which are probabilities, got "
            f"{ignore_index} (at {user_source()})"
        )


def check_weight(name: str, input: Tensor, weight: Tensor | None) -> None:
    """Raise DTypeError where the weights of classes are not of the input's dtype."""
    if weight is not None and weight.dtype is not input.dtype:
        raise DTypeError(
            f"{name}: weight must have the input's dtype {input.dtype.name}, got {weight.dtype.name} "
            f"(at {user_source()}); use weight.to(pb.{input.dtype.name})"
        )


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
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
    ignore_index: int = -100, reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """-input[target], averaged: cross_entropy for an input that holds log probabilities already."""
    input, weight = in_float32(input, weight)
    reduction = chosen_reduction("nll_loss", size_average, reduce, reduction)
    x = widened("nll_loss", input)
    axis, _ = _class_axis("nll_loss", input, weight)
    check_weight("nll_loss", input, weight)
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
    ignore_index = whole_number(ignore_index, name, "ignore_index")
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
