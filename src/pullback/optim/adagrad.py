"""Rates of each element's own, from sums or averages of squared gradients: Adagrad, Adadelta and RMSprop."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..tensor import Tensor
from .adam import decayed
from .groups import Group, within
from .optimizer import Optimizer, Slot, alike, is_on


class Adagrad(Optimizer):
    """Duchi, Hazan & Singer, "Adaptive Subgradient Methods" (2011).

    s ← s + g², p ← p - lr / (1 + (t - 1) lr_decay) · g / (sqrt(s) + eps), s starting at `initial_accumulator_value`.
    Flags: see `Optimizer`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ):
        defaults = {
            "lr": lr,
            "lr_decay": lr_decay,
            "eps": eps,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults)

    def _slots(self, parameter: Tensor, group: Group) -> dict[str, Slot]:
        # the default, not the group's, as PyTorch has it
        return {"sum": Slot(parameter.shape, float(self.defaults["initial_accumulator_value"]))}

    def _update(
        self, parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: Group, rate: Tensor
    ) -> None:
        value, g = decayed(parameter, gradient, group, rate)
        total = state["sum"].to(g.dtype) + g * g
        state["sum"].copy_(total)
        if group["lr_decay"]:
            rate = rate / ((state["step"].double() - 1) * group["lr_decay"] + 1).to(rate.dtype)
        parameter.copy_(value - g * rate / (total.sqrt() + group["eps"]))


class Adadelta(Optimizer):
    """Zeiler, "ADADELTA: An Adaptive Learning Rate Method" (2012).

    s ← ρ s + (1 - ρ) g², Δ = sqrt(d + eps) / sqrt(s + eps) · g, d ← ρ d + (1 - ρ) Δ², p ← p - lr Δ.
    Flags: see `Optimizer`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
    ):
        defaults = {
            "lr": lr,
            "rho": rho,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "capturable": capturable,
            "foreach": foreach,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def _slots(self, parameter: Tensor, group: Group) -> dict[str, Slot]:
        return alike(parameter, "square_avg", "acc_delta")

    def _update(
        self, parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: Group, rate: Tensor
    ) -> None:
        value, g = decayed(parameter, gradient, group, rate)
        rho, eps = group["rho"], group["eps"]
        square, moved = (state[name].to(g.dtype) for name in ("square_avg", "acc_delta"))
        square = square * rho + g * g * (1 - rho)
        move = (moved + eps).sqrt() / (square + eps).sqrt() * g
        state["square_avg"].copy_(square)
        state["acc_delta"].copy_(moved * rho + move * move * (1 - rho))
        parameter.copy_(value - move * rate)


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


__all__ = ["Adadelta", "Adagrad", "RMSprop"]
