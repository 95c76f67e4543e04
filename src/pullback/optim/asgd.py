"""ASGD: gradient descent that keeps the average of the parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..tensor import Tensor
from ..tensor.arithmetic import where
from .adam import decayed
from .groups import Group, plain
from .optimizer import Optimizer, Slot, alike


class ASGD(Optimizer):
    """Averaged gradient descent: Polyak & Juditsky, "Acceleration of Stochastic Approximation by Averaging" (1992).

    p ← (1 - lambd η) p - η g with η = lr / (1 + lambd lr t)^alpha; from step `t0` on the state's "ax" is the average of
    the parameters. As in PyTorch, η is kept in float32 (float64 where that is the default dtype), and the state's η is
    that of the step to come. Flags: see `Optimizer`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ):
        defaults = {
            "lr": lr,
            "lambd": lambd,
            "alpha": alpha,
            "t0": t0,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults)

    def _slots(self, parameter: Tensor, group: Group) -> dict[str, Slot]:
        return alike(parameter, "ax")

    def _numbers(self, group: Group) -> dict[str, float]:
        return {"step": 0.0, "eta": float(plain(group["lr"])), "mu": 1.0}

    def _update(
        self, parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: Group, rate: Tensor
    ) -> None:
        value, g = decayed(parameter, gradient, group, rate)
        eta, mu = state["eta"].double(), state["mu"].double()
        value = value * (1 - eta * group["lambd"]) - g * eta
        average = state["ax"].to(g.dtype)
        state["ax"].copy_(where(mu == 1, value, average + (value - average) * mu))
        parameter.copy_(value)

    def _end(self, numbers: dict[str, Tensor], group: Group, rate: Tensor) -> None:
        step, eta, mu = numbers["step"].double(), numbers["eta"], numbers["mu"]
        eta.copy_((rate / (rate * group["lambd"] * step.to(rate.dtype) + 1) ** group["alpha"]).to(eta.dtype))
        mu.copy_((1 / (step - group["t0"]).clamp(min=1.0)).to(mu.dtype))


__all__ = ["ASGD"]
