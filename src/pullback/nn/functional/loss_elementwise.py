"""Losses that compare elements: distances, likelihoods, binary cross entropy.

Where `reduction` is "none" the losses are of the operands' common shape, otherwise their mean or their sum is taken.
`size_average` and `reduce` are PyTorch's former names of it.
"""

from __future__ import annotations

import math
import warnings

from ...autograd.function import with_gradient
from ...errors import ShapeError
from ...graph.types import DType
from ...ops.elementwise import broadcast_shapes
from ...ops.primitive import user_source
from ...tensor import Tensor
from ...tensor.arguments import flag, real
from ...tensor.arithmetic import where
from ...tensor.autocast_mode import in_float32
from ...tensor.grad_modes import no_grad
from ...tensor.order import checked
from ...tensor.promotion import get_default_dtype, require_float, result_type
from ...tensor.state import STATE
from .activation import finished, logsigmoid, widened
from .linear import fitting
from .loss import chosen_reduction, reduced


def floating(*operands: Tensor) -> DType:
    """The dtype of a loss of `operands`: their common one, the default float if that is none."""
    dtype = result_type(*operands)
    return dtype if dtype.is_floating_point else get_default_dtype()


def compared(name: str, input: Tensor, target: Tensor, same_shape: bool = False) -> tuple[Tensor, Tensor, DType]:
    """Both in the dtype of their computation, and that of the loss; with `same_shape` a warning where shapes differ."""
    require_float(name, input)
    input, target = in_float32(input, target)
    dtype = result_type(input, target)
    if same_shape and input.shape != target.shape:
        warnings.warn(
            f"{name}: input {list(input.shape)} and target {list(target.shape)} have different shapes and will be "
            f"broadcast (at {user_source()}), which is seldom what is meant",
            stacklevel=3,
        )
    broadcast_shapes(name, input.shape, target.shape)
    return widened(name, input.to(dtype)), Tensor(target.to(dtype.compute).node), dtype


def _weighted(name: str, loss: Tensor, weight: Tensor | None, input: Tensor) -> Tensor:
    if weight is None:
        return loss
    if weight.shape != input.shape:
        raise ValueError(
            f"{name}: weight must have input's shape {list(input.shape)}, got {list(weight.shape)} (at {user_source()})"
        )
    return loss * weight.to(loss.dtype)


def mse_loss(
    input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
    reduction: str = "mean", weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The squared distances of `input` from `target`; their mean is weighted by `weight`, of input's shape, if given.

    >>> pb.nn.functional.mse_loss(pb.tensor([1.0, 2.0]), pb.tensor([1.0, 4.0]))
    tensor(2.)
    """
    return _distance("mse_loss", input, target, size_average, reduce, reduction, weight)


def l1_loss(
    input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
    reduction: str = "mean", weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The absolute distances of `input` from `target`; their mean is weighted by `weight`, of input's shape, if given.

    The gradient where they are equal is 0.
    """
    return _distance("l1_loss", input, target, size_average, reduce, reduction, weight)


def _distance(
    name: str, input: Tensor, target: Tensor, size_average: bool | None, reduce: bool | None, reduction: str,
    weight: Tensor | None,
) -> Tensor:  # fmt: skip
    reduction = chosen_reduction(name, size_average, reduce, reduction)
    x, y, dtype = compared(name, input, target, same_shape=True)
    distance = x - y
    loss = _weighted(name, distance * distance if name == "mse_loss" else distance.abs(), weight, input)
    if weight is not None and reduction == "mean":
        return (loss.sum() / weight.to(loss.dtype).sum()).to(dtype)
    return reduced(loss, reduction).to(dtype)


def smooth_l1_loss(
    input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
    reduction: str = "mean", beta: float = 1.0,
) -> Tensor:  # fmt: skip
    """d² / (2 beta) for distances below `beta`, else d - beta / 2. Girshick, "Fast R-CNN" (ICCV 2015)."""
    name = "smooth_l1_loss"
    reduction = chosen_reduction(name, size_average, reduce, reduction)
    if real(beta, name, "beta") < 0:
        raise ValueError(f"{name}: beta must not be negative, got {beta} (at {user_source()})")
    if beta == 0:
        return _distance(name, input, target, None, None, reduction, None)
    x, y, dtype = compared(name, input, target, same_shape=True)
    distance = x - y
    size = distance.abs()
    far = size >= beta
    loss = where(far, size - 0.5 * beta, _near_square(far, distance) * (0.5 / beta))
    return reduced(loss, reduction).to(dtype)


def _near_square(far: Tensor, distance: Tensor) -> Tensor:
    """The square of the distance, 0 where it is far: the gradient of an infinite square would be NaN, chosen or not."""
    near = where(far, 0.0, distance)
    return near * near


def huber_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0, weight: Tensor | None = None
) -> Tensor:
    """d² / 2 for distances up to `delta`, else delta (d - delta / 2). Huber (Annals of Statistics, 1964)."""
    name = "huber_loss"
    reduction = chosen_reduction(name, None, None, reduction)
    if real(delta, name, "delta") <= 0:
        raise ValueError(f"{name}: delta must be above 0, got {delta} (at {user_source()})")
    x, y, dtype = compared(name, input, target, same_shape=True)
    distance = x - y
    size = distance.abs()
    far = size > delta
    loss = where(far, (size - 0.5 * delta) * delta, _near_square(far, distance) * 0.5)
    return reduced(_weighted(name, loss, weight, input), reduction).to(dtype)


def binary_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
    reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """-(target log x + (1 - target) log(1 - x)) * weight for probabilities x, the logarithms at least -100.

    As PyTorch's, the gradient (x - target) / (x (1 - x)) has a denominator of at least 1e-12. Computing it raises
    DomainError where a probability is outside of [0, 1]. From logits, binary_cross_entropy_with_logits is exact.
    """
    name = "binary_cross_entropy"
    reduction = chosen_reduction(name, size_average, reduce, reduction)
    input, target, weight = in_float32(input, target, weight)
    _one_shape(name, input, target)
    x, y = _probabilities(name, widened(name, input)), Tensor(target.to(input.dtype.compute).node)
    with no_grad():
        hit, miss = x.log().clamp(min=-100.0), (1 - x).log().clamp(min=-100.0)
        primal = (y - 1) * miss - y * hit

    def rule(_: Tensor, cotangent: Tensor) -> list[Tensor]:
        share = ((1 - x) * x).clamp(min=1e-12)
        difference = (1 - x).log().clamp(min=-100.0) - x.log().clamp(min=-100.0)
        return [cotangent * (x - y) / share, cotangent * difference]

    loss = with_gradient(primal, [x, y], rule)
    if weight is not None:
        loss = loss * fitting(name, "weight", weight, loss).to(loss.dtype)
    return finished(reduced(loss, reduction), input)


def _one_shape(name: str, input: Tensor, target: Tensor) -> None:
    if input.shape != target.shape:
        raise ShapeError(
            f"{name}: input {list(input.shape)} and target {list(target.shape)} must have one shape (at "
            f"{user_source()})"
        )


def _probabilities(name: str, x: Tensor) -> Tensor:
    """`x`, checked when it is computed."""
    with no_grad():
        outside = (x < 0) | (x > 1)
    return Tensor(checked(x.node, (~outside).node, f"{name}: input must lie in [0, 1]"))


def binary_cross_entropy_with_logits(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
    reduce: bool | None = None, reduction: str = "mean", pos_weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """-(pos_weight * target * log sigmoid(x) + (1 - target) * log sigmoid(-x)) * weight, stable for any x."""
    name = "binary_cross_entropy_with_logits"
    reduction = chosen_reduction(name, size_average, reduce, reduction)
    input, target, weight, pos_weight = in_float32(input, target, weight, pos_weight)
    _one_shape(name, input, target)
    x, y = widened(name, input), target.to(input.dtype.compute)
    if pos_weight is None:
        loss = (1 - y) * x - logsigmoid(x)
    else:
        loss = (1 - y) * x - (1 - y + y * fitting(name, "pos_weight", pos_weight, y)) * logsigmoid(x)
    if weight is not None:
        loss = loss * fitting(name, "weight", weight, loss)
    return finished(reduced(loss, reduction), input)


def kl_div(
    input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
    reduction: str = "mean", log_target: bool = False,
) -> Tensor:  # fmt: skip
    """target * (log target - input) for log probabilities `input`; with `log_target` target is a logarithm too.

    `reduction` "batchmean" divides the sum by the first axis's size: that, not "mean", is the Kullback-Leibler
    divergence. A target of 0 counts for nothing, and its gradient there is that of -target * input.
    """
    name = "kl_div"
    by_batch = reduction == "batchmean" and size_average is None and reduce is None
    reduction = chosen_reduction(name, size_average, reduce, "sum" if by_batch else reduction)
    if reduction == "mean" and size_average is None and reduce is None:
        warnings.warn(
            f'{name}: reduction "mean" divides by the number of elements; "batchmean" is the divergence '
            f"(at {user_source()})",
            stacklevel=2,
        )
    x, y, dtype = compared(name, input, target)
    if log_target:
        loss = y.exp() * (y - x)
    else:
        known = where(y == 0, 1.0, y)
        loss = known * known.log() - y * x
    total = reduced(loss, reduction)
    return (total / input.shape[0] if by_batch and input.ndim else total).to(dtype)


def poisson_nll_loss(
    input: Tensor, target: Tensor, log_input: bool = True, full: bool = False, size_average: bool | None = None,
    eps: float = 1e-8, reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """exp(x) - target x, x the logarithm of a Poisson distribution's rate; without `log_input` x is the rate.

    `full` adds Stirling's approximation of log(target!) for targets above 1. `eps` keeps the rate's logarithm finite.
    """
    name = "poisson_nll_loss"
    full, eps = flag(full, name, "full"), real(eps, name, "eps")
    reduction = chosen_reduction(name, size_average, reduce, reduction)
    x, y, dtype = compared(name, input.to(floating(input, target)), target)
    loss = x.exp() - y * x if log_input else x - y * (x + eps).log()
    if full:
        large = where(y > 1, y, 1.0)
        loss = loss + where(y > 1, large * large.log() - large + (large * (2 * math.pi)).log() * 0.5, 0.0)
    return reduced(loss, reduction).to(dtype)


def gaussian_nll_loss(
    input: Tensor, target: Tensor, var: Tensor | float, full: bool = False, eps: float = 1e-6, reduction: str = "mean"
) -> Tensor:
    """(log var + (input - target)² / var) / 2, the variance at least `eps`, for which the gradient is not changed.

    `var` is of input's shape, of size 1 in one axis of it, without its last axis, or a number. `full` adds log(2 pi) /
    2. Nix & Weigend (ICNN 1994).

    A negative variance raises DomainError, a ValueError: at the call where `var` is given, and where it was computed
    from what requires grad, or in a compiled step, when the loss is computed.
    """
    name = "gaussian_nll_loss"
    reduction = chosen_reduction(name, None, None, reduction)
    if isinstance(var, (int, float)):
        if var < 0:
            raise ValueError(f"{name}: var must not be negative, got {var} (at {user_source()})")
        var = input.detach() * 0 + float(var)
    if var.shape != input.shape:
        mismatched = [a for a, b in zip(var.shape, input.shape, strict=False) if a != b]
        if input.shape[:-1] == var.shape:
            var = var.unsqueeze(-1)
        elif var.ndim != input.ndim or mismatched != [1]:
            raise ShapeError(
                f"{name}: var {list(var.shape)} must have input's shape {list(input.shape)}, or 1 in one axis of it, "
                f"or lack its last axis (at {user_source()})"
            )
    x, y, _ = compared(name, input, target)
    given = _not_negative(name, var, x.dtype)
    safe = with_gradient(given.detach().clamp(min=eps), [given], lambda _, cotangent: [cotangent])
    distance = x - y
    loss = (safe.log() + distance * distance / safe) * 0.5
    if full:
        loss = loss + 0.5 * math.log(2 * math.pi)
    return reduced(loss, reduction).to(result_type(input, target, var))


def _not_negative(name: str, var: Tensor, dtype: DType) -> Tensor:
    """`var` in `dtype`, checked now where that does not cut the computation of a model in two, else when computed."""
    with no_grad():
        negative = var < 0
    held = Tensor(checked(var.node, (~negative).node, f"{name}: var has negative entries"))
    is_recorded = STATE.trace is not None or STATE.journal is not None or STATE.example is not None
    if var.is_leaf and not is_recorded:
        held._buffer()
    return held.to(dtype)


def soft_margin_loss(
    input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean"
) -> Tensor:
    """log(1 + exp(-target * input)), stable for any input; targets are 1 and -1."""
    reduction = chosen_reduction("soft_margin_loss", size_average, reduce, reduction)
    x, y, dtype = compared("soft_margin_loss", input, target)
    return reduced(-logsigmoid(x * y), reduction).to(dtype)


def hinge_embedding_loss(
    input: Tensor, target: Tensor, margin: float = 1.0, size_average: bool | None = None, reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """`input` where the target is 1, max(0, margin - input) where it is -1."""
    reduction = chosen_reduction("hinge_embedding_loss", size_average, reduce, reduction)
    x, y, dtype = compared("hinge_embedding_loss", input, target)
    far = where(y == 1, 0.0, (margin - x).clamp(min=0))
    return reduced(far + where(y == -1, 0.0, x), reduction).to(dtype)


__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "gaussian_nll_loss",
    "hinge_embedding_loss",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "mse_loss",
    "poisson_nll_loss",
    "smooth_l1_loss",
    "soft_margin_loss",
]
