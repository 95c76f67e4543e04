"""Adamax: Adam by the greatest gradient."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..tensor import Tensor
from .adam import decayed
from .groups import Group
from .optimizer import Optimizer, Slot, alike, power


class Adamax(Optimizer):
    """Adam by the greatest gradient: Kingma & Ba (2015), section 7.1.

    m ← β₁ m + (1 - β₁) g, u ← max(β₂ u, |g| + eps), p ← p - lr / (1 - β₁ᵗ) · m / u. Flags: see `Optimizer`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ):
        defaults = {
            "lr": lr,
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults)

    def _slots(self, parameter: Tensor, group: Group) -> dict[str, Slot]:
        return alike(parameter, "exp_avg", "exp_inf")

    def _update(
        self, parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: Group, rate: Tensor
    ) -> None:
        value, g = decayed(parameter, gradient, group, rate)
        beta1, beta2 = group["betas"]
        mean = state["exp_avg"].to(g.dtype)
        mean = mean + (g - mean) * (1 - beta1)
        greatest = (state["exp_inf"].to(g.dtype) * beta2).maximum(g.abs() + group["eps"])
        state["exp_avg"].copy_(mean)
        state["exp_inf"].copy_(greatest)
        step_size = rate / (1 - power(beta1, state["step"].double())).to(rate.dtype)
        parameter.copy_(value - mean * step_size / greatest)


__all__ = ["Adamax"]
