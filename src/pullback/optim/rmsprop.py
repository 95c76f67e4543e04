"""RMSprop: the rate of each element from an average of its squared gradients."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..tensor import Tensor
from .adam import decayed
from .groups import Group, within
from .optimizer import Optimizer, Slot, alike, is_on


class RMSprop(Optimizer):
    """Tieleman & Hinton, Lecture 6.5 of "Neural Networks for Machine Learning" (2012).

    s ← α s + (1 - α) g², p ← p - lr g / (sqrt(s) + eps). `centered` takes the square of the average gradient from s
    (Graves, 2013); with `momentum` the quotient is added up, b ← momentum b + g / (…), and lr b is the step.
    Flags: see `Optimizer`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ):
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "alpha": alpha,
            "eps": eps,
            "centered": centered,
            "weight_decay": weight_decay,
            "capturable": capturable,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def _check_hyperparameters(self, group: Group) -> None:
        super()._check_hyperparameters(group)
        within("alpha value", group["alpha"], 0.0)

    def _slots(self, parameter: Tensor, group: Group) -> dict[str, Slot]:
        names = ["momentum_buffer"] * bool(group["momentum"]) + ["grad_avg"] * bool(group["centered"])
        return alike(parameter, "square_avg", *names)

    def _update(
        self, parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: Group, rate: Tensor
    ) -> None:
        value, g = decayed(parameter, gradient, group, rate)
        alpha = group["alpha"]
        square = state["square_avg"].to(g.dtype) * alpha + g * g * (1 - alpha)
        state["square_avg"].copy_(square)
        if group["centered"]:
            mean = state["grad_avg"].to(g.dtype)
            mean = mean + (g - mean) * (1 - alpha)
            state["grad_avg"].copy_(mean)
            square = square - mean * mean
        quotient = g / (square.sqrt() + group["eps"])
        if is_on(group["momentum"]):
            quotient = state["momentum_buffer"].to(g.dtype) * group["momentum"] + quotient
            state["momentum_buffer"].copy_(quotient)
        parameter.copy_(value - quotient * rate)


__all__ = ["RMSprop"]
