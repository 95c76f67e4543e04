"""Adafactor."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..graph.types import DType
from ..ops.primitive import user_source
from ..tensor import Tensor
from .adam import bounded
from .groups import Group
from .optimizer import Optimizer, Slot

#: the distance from 1 to the next number
_EPSILON = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "float64": 2.0**-52}
#: a magnitude of gradients, by what they are computed in: a sum of squares of as many as fit into memory is finite
_GREATEST = {"float32": 2.0**50, "float64": 2.0**500}


class Adafactor(Optimizer):
    """Shazeer & Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost" (2018), as PyTorch computes it.

    The running average of g² of a matrix (the last two axes) is kept as its means over rows and over columns only. The
    rate is relative to the root mean square of the parameter: lr is the bound of 1 / sqrt(t), `eps` = (the least
    variance, by default the dtype's precision, and the least scale of a parameter), `beta2_decay` the exponent of the
    averages' decay, `d` the bound of an update's root mean square. `foreach` changes nothing. Gradients beyond ±2^50
    (1.1e15; in float64 ±2^500), whose squares and their sums overflow, count as that.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
    ):
        defaults = {
            "lr": lr,
            "beta2_decay": beta2_decay,
            "eps": tuple(eps),
            "d": d,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def _check_hyperparameters(self, group: Group) -> None:
        super()._check_hyperparameters(group)
        (least, scale), decay, bound = group["eps"], group["beta2_decay"], group["d"]
        for wrong, message in (
            (not decay <= 0.0, f"beta2_decay should be <= 0 but is: {decay}"),
            (least is not None and not least >= 0.0, f"epsilon1 should be >= 0 but is: {least}"),
            (not scale >= 0.0, f"epsilon2 should be >= 0 but is: {scale}"),
            (not bound >= 1.0, f"Clipping threshold d should be >= 1 but is: {bound}"),
        ):
            if wrong:
                raise ValueError(f"{message} (at {user_source()})")

    def _slots(self, parameter: Tensor, group: Group) -> dict[str, Slot]:
        shape = parameter.shape
        if len(shape) < 2:
            return {"variance": Slot(shape)}
        return {"row_var": Slot((*shape[:-1], 1)), "col_var": Slot((*shape[:-2], 1, shape[-1]))}

    def _update(
        self, parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: Group, rate: Tensor
    ) -> None:
        if not parameter.numel():  # the mean of no rows is NaN
            return
        value = parameter.to(parameter.dtype.compute)
        g = bounded(gradient, parameter, _GREATEST[value.dtype.name])
        step = state["step"].double()
        least, scale = group["eps"]
        least = _precision(parameter.dtype) if least is None else least
        size = parameter.numel()
        own = (value.square().sum() / size).sqrt().double().clamp(min=scale)
        alpha = own.to(rate.dtype) * rate.minimum(step.rsqrt().to(rate.dtype))
        if group["weight_decay"]:
            value = value * (1 - rate * group["weight_decay"])
        variance = self._variance(g, state, step ** group["beta2_decay"], least)
        update = variance.clamp(min=least * least).rsqrt() * g
        length = (update.square().sum() / size).sqrt().double() / group["d"]
        parameter.copy_(value - update * (alpha / length.clamp(min=1.0).to(rate.dtype)))

    @staticmethod
    def _variance(g: Tensor, state: dict[str, Tensor], share: Tensor, least: float) -> Tensor:
        """The estimate of the average of g², by rows and columns where there are any."""
        square = g * g
        if g.ndim < 2:
            return _averaged(state["variance"], square, share)
        row = _averaged(state["row_var"], square.mean(-1, keepdim=True), share)
        column = _averaged(state["col_var"], square.mean(-2, keepdim=True), share)
        # the quotient first: the product is the fourth power of a gradient
        return row / row.mean(-2, keepdim=True).clamp(min=least) * column


def _averaged(held: Tensor, new: Tensor, share: Tensor) -> Tensor:
    average = held.to(new.dtype)
    average = average + (new - average) * share
    held.copy_(average)
    return average


def _precision(dtype: DType) -> float:
    return _EPSILON[dtype.name]


__all__ = ["Adafactor"]
