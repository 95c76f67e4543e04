"""Adadelta: the rate of each element from averages of squared gradients and of squared moves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..tensor import Tensor
from .adam import decayed
from .groups import Group
from .optimizer import Optimizer, Slot, alike


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


__all__ = ["Adadelta"]
