"""Losses with a margin: what is right is to be so far above, or nearer than, what is wrong."""

from __future__ import annotations

from collections.abc import Callable

from ...errors import DTypeError, ShapeError
from ...graph.types import INTEGER
from ...ops.elementwise import broadcast_shapes
from ...ops.indexing import bounded
from ...ops.primitive import user_source
from ...tensor import Tensor
from ...tensor.arguments import real
from ...tensor.arithmetic import where
from ...tensor.autocast_mode import in_float32
from ...tensor.promotion import require_float, result_type
from .activation import finished, logsigmoid, widened
from .linear import class_numbers, indices
from .loss import check_weight, chosen_reduction, reduced
from .loss_elementwise import floating


def _above_zero(x: Tensor) -> Tensor:
    """max(x, 0); the gradient at 0 is 0."""
    return where(x > 0, x, 0.0)


def margin_ranking_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0, size_average: bool | None = None,
    reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """max(0, -target * (input1 - input2) + margin): target 1 asks for the first to be greater, -1 for the second."""
    name = "margin_ranking_loss"
    reduction = chosen_reduction(name, size_average, reduce, reduction)
    if not input1.ndim == input2.ndim == target.ndim:
        raise ShapeError(
            f"{name}: all operands must have as many axes, got {list(input1.shape)}, {list(input2.shape)} and "
            f"{list(target.shape)} (at {user_source()})"
        )
    broadcast_shapes(name, input1.shape, input2.shape, target.shape)
    input1, input2, target = in_float32(input1, input2, target)
    dtype = floating(input1, input2, target)
    if not any(operand.is_floating_point() for operand in (input1, input2, target)):
        # as in PyTorch integers are multiplied as integers, and those of uint8 wrap around
        return reduced(((-target * (input1 - input2)).to(dtype) + margin).clamp(min=0), reduction)
    x, y = widened(name, input1.to(dtype)), input2.to(dtype.compute)
    return reduced((-target.to(x.dtype) * (x - y) + margin).clamp(min=0), reduction).to(dtype)


def cosine_embedding_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0, size_average: bool | None = None,
    reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """1 - cos(input1, input2) where the target is 1, max(0, cos(input1, input2) - margin) where it is -1.

    Shapes: inputs [N, D] and target [N], or [D] and [].
    """
    name = "cosine_embedding_loss"
    reduction = chosen_reduction(name, size_average, reduce, reduction)
    axis = target.ndim
    if axis > 1 or input1.ndim != axis + 1 or input2.ndim != axis + 1:
        raise ShapeError(
            f"{name}: inputs must be [N, D] and target [N], or [D] and [], got {list(input1.shape)}, "
            f"{list(input2.shape)} and {list(target.shape)} (at {user_source()})"
        )
    broadcast_shapes(name, input1.shape, input2.shape)
    broadcast_shapes(name, input1.shape[:-1], input2.shape[:-1], target.shape)
    input1, input2, target = in_float32(input1, input2, target)
    dtype = floating(input1, input2)
    x, y = widened(name, input1.to(dtype)), widened(name, input2.to(dtype))
    squares = ((x * x).sum(axis) + 1e-12) * ((y * y).sum(axis) + 1e-12)
    cosine = (x * y).sum(axis) / squares.sqrt()
    loss = where(target == 1, 1 - cosine, 0.0) + where(target == -1, (cosine - margin).clamp(min=0), 0.0)
    return reduced(loss, reduction).to(dtype)


def _rows(name: str, input: Tensor, target: Tensor, of_classes: bool) -> tuple[Tensor, Tensor]:
    """[C] as [1, C] and [N, C] as it is; the target likewise, [N] if `of_classes`, else of input's shape."""
    require_float(name, input)
    if target.dtype.category != INTEGER:
        raise DTypeError(f"{name}: target must be integers, got {target.dtype.name} (at {user_source()})")
    x = input.reshape(1, -1) if input.ndim < 2 else input
    wanted = x.shape[:1] if of_classes else x.shape
    y = target.reshape(wanted) if target.ndim < 2 and target.numel() == (1 if of_classes else x.shape[1]) else target
    if x.ndim != 2 or y.shape != wanted or not x.shape[1]:
        kind = "target [N], or [C] and []" if of_classes else "target of its shape"
        raise ShapeError(
            f"{name}: input must be [N, C] or [C] with a {kind}, got {list(input.shape)} and {list(target.shape)} "
            f"(at {user_source()})"
        )
    return x, y


def multi_margin_loss(
    input: Tensor, target: Tensor, p: int = 1, margin: float = 1.0, weight: Tensor | None = None,
    size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """The sum over the other classes i of max(0, margin - x[target] + x[i])^p * weight[target], divided by C.

    Shapes: input [N, C] with target [N], or [C] with []; weight [C]. `p` is 1 or 2. Crammer & Singer (JMLR 2, 2001).
    """
    name = "multi_margin_loss"
    reduction = chosen_reduction(name, size_average, reduce, reduction)
    if p not in (1, 2):
        raise ValueError(f"{name}: p must be 1 or 2, got {p!r} (at {user_source()})")
    input, weight = in_float32(input, weight)
    x, y = _rows(name, widened(name, input), target, True)
    classes = x.shape[1]
    if weight is not None and weight.shape != (classes,):
        raise ShapeError(f"{name}: weight must be [{classes}], got {list(weight.shape)} (at {user_source()})")
    check_weight(name, input, weight)
    known = Tensor(bounded(indices(name, y), 0, classes, f"{name}: target"))
    hit = class_numbers(x.shape, 1) == known.unsqueeze(1)
    own = where(hit, x, 0.0).sum(1, keepdim=True)
    short = where(hit, 0.0, _above_zero(margin - own + x))
    loss = short if p == 1 else short * short
    if weight is not None:
        loss = loss * where(hit, weight.to(x.dtype), 0.0).sum(1, keepdim=True)
    each = loss.sum(1) / classes
    return finished(reduced(each.reshape(target.shape) if reduction == "none" else each, reduction), input)


def multilabel_margin_loss(
    input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean"
) -> Tensor:
    """The sum over a row's classes j and all others i of max(0, 1 - x[j] + x[i]), divided by C.

    Shapes: input and target [N, C] or [C]; a row of the target holds its classes, and -1 after the last one. Takes
    memory in proportion to N C² where it is not fused.
    """
    name = "multilabel_margin_loss"
    reduction = chosen_reduction(name, size_average, reduce, reduction)
    (input,) = in_float32(input)
    x, y = _rows(name, widened(name, input), target, False)
    classes = x.shape[1]
    known = Tensor(bounded(indices(name, y), -1, classes, f"{name}: target"))
    order = class_numbers((classes, classes), 0) >= class_numbers((classes, classes), 1)
    ended = ((known < 0).unsqueeze(1) & order).any(2)
    place = where(ended, 0, known)
    own = where(ended.unsqueeze(2), 0.0, where(place.unsqueeze(2) == class_numbers((1, 1, classes), 2),
                                               x.unsqueeze(1), 0.0)).sum(2, keepdim=True)  # fmt: skip
    is_own = ((place.unsqueeze(2) == class_numbers((1, 1, classes), 2)) & ~ended.unsqueeze(2)).any(1)
    counts = ~ended.unsqueeze(2) & ~is_own.unsqueeze(1)
    each = where(counts, _above_zero(1 - own + x.unsqueeze(1)), 0.0).sum((1, 2)) / classes
    return finished(reduced(each.reshape(input.shape[:-1]), reduction), input)


def multilabel_soft_margin_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
    reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """-(target log sigmoid(x) + (1 - target) log sigmoid(-x)) * weight, its mean over the last axis."""
    name = "multilabel_soft_margin_loss"
    reduction = chosen_reduction(name, size_average, reduce, reduction)
    require_float(name, input)
    broadcast_shapes(name, input.shape, target.shape, *([] if weight is None else [weight.shape]))
    dtype = result_type(input, target)
    x, y = widened(name, input.to(dtype)), target.to(dtype.compute)
    loss = -(y * logsigmoid(x) + (1 - y) * logsigmoid(-x))
    if weight is not None:
        loss = loss * weight.to(loss.dtype)
    return reduced(loss.sum(-1) / (input.shape[-1] if input.ndim else 1), reduction).to(dtype)


def _distance(x: Tensor, y: Tensor, p: float, eps: float) -> Tensor:
    return (x - y + eps).norm(p, -1)


def triplet_margin_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0, p: float = 2, eps: float = 1e-6,
    swap: bool = False, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """max(0, d(anchor, positive) - d(anchor, negative) + margin), d the norm of order `p` of x - y + eps.

    With `swap` the lesser of d(anchor, negative) and d(positive, negative) counts. Balntas et al. (BMVC 2016).
    """
    name = "triplet_margin_loss"
    reduction = chosen_reduction(name, size_average, reduce, reduction)
    broadcast_shapes(name, anchor.shape, positive.shape, negative.shape)
    anchor, positive, negative = in_float32(anchor, positive, negative)
    dtype = floating(anchor, positive, negative)
    wide = [anchor, positive, negative]
    if any(t.is_floating_point() for t in wide):  # as in PyTorch differences of integers are integers
        wide = [widened(name, t.to(dtype)) for t in wide]
    return _triplet(name, wide, lambda x, y: _distance(x, y, p, eps), margin, swap, reduction).to(dtype)


def triplet_margin_with_distance_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, *,
    distance_function: Callable[[Tensor, Tensor], Tensor] | None = None, margin: float = 1.0, swap: bool = False,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """`triplet_margin_loss` with any distance; the Euclidean one unless given.

    >>> F, far = pb.nn.functional, lambda x, y: (x - y).abs().amax(-1)
    >>> F.triplet_margin_with_distance_loss(pb.zeros(1, 2), pb.ones(1, 2), pb.ones(1, 2) * 3, distance_function=far)
    tensor(0.)
    """
    name = "triplet_margin_with_distance_loss"
    reduction = chosen_reduction(name, None, None, reduction)
    if distance_function is None:
        broadcast_shapes(name, anchor.shape, positive.shape, negative.shape)
    distance = distance_function or (lambda x, y: _distance(x, y, 2.0, 1e-6))
    return _triplet(name, [anchor, positive, negative], distance, margin, swap, reduction)


def _triplet(
    name: str, operands: list[Tensor], distance: Callable[[Tensor, Tensor], Tensor], margin: float, swap: bool,
    reduction: str,
) -> Tensor:  # fmt: skip
    anchor, positive, negative = operands
    if not anchor.ndim == positive.ndim == negative.ndim:
        raise ShapeError(
            f"{name}: all operands must have as many axes, got {[list(t.shape) for t in operands]} (at {user_source()})"
        )
    if real(margin, name, "margin") <= 0:
        raise ValueError(f"{name}: margin must be above 0, got {margin} (at {user_source()})")
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = far.minimum(distance(positive, negative))
    return reduced((near - far + margin).clamp(min=0), reduction)


__all__ = [
    "cosine_embedding_loss",
    "margin_ranking_loss",
    "multi_margin_loss",
    "multilabel_margin_loss",
    "multilabel_soft_margin_loss",
    "triplet_margin_loss",
    "triplet_margin_with_distance_loss",
]
