"""Adagrad: the rate of each element falls with the sum of its squared gradients."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..tensor import Tensor
from .adam import decayed
from .groups import Group
from .optimizer import Optimizer, Slot


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


__all__ = ["Adagrad"]
