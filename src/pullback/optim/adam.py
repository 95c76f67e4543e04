"""Adam and AdamW."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ..ops.primitive import user_source
from ..tensor import Tensor
from .optimizer import Group, Optimizer, require_fused


class Adam(Optimizer):
    """Kingma & Ba, "Adam: A Method for Stochastic Optimization" (2015), as PyTorch computes it.

    m ← β₁ m + (1 - β₁) g, s ← β₂ s + (1 - β₂) g², p ← p - lr / (1 - β₁ᵗ) · m / (sqrt(s) / sqrt(1 - β₂ᵗ) + eps), with
    g the
    gradient plus weight_decay p. `amsgrad` divides by the greatest s so far (Reddi et al., 2018); `maximize` goes up.
    State of 16-bit parameters is kept in their dtype and computed in float32. Updates are always fused: `fused` may be
    True or None.
    """

    #: whether weight_decay is taken from the parameter itself and not added to the gradient
    _decoupled = False

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        fused: bool | None = None,
    ):
        require_fused(fused)
        defaults = {
            "lr": lr,
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def _check_hyperparameters(self, group: Group) -> None:
        super()._check_hyperparameters(group)
        group["betas"] = tuple(group["betas"])
        if len(group["betas"]) != 2:
            raise ValueError(f"betas must be two numbers, got {group['betas']!r} (at {user_source()})")
        for position, beta in enumerate(group["betas"]):
            self._require(f"betas[{position}]", beta, 0.0, 1.0)
        self._require("eps", group["eps"], 0.0)

    def _state_names(self, group: Group) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq", "max_exp_avg_sq") if group["amsgrad"] else ("exp_avg", "exp_avg_sq")

    def _update(
        self, parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: Group, rate: Tensor
    ) -> None:
        beta1, beta2 = group["betas"]
        value = parameter.to(parameter.dtype.compute)
        g = gradient.to(value.dtype)
        if group["weight_decay"] and self._decoupled:
            value = value * (1 - rate * group["weight_decay"])
        elif group["weight_decay"]:
            g = g + value * group["weight_decay"]
        mean, square = (state[name].to(value.dtype) for name in ("exp_avg", "exp_avg_sq"))
        mean = mean + (g - mean) * (1 - beta1)
        square = square * beta2 + g * g * (1 - beta2)
        state["exp_avg"].copy_(mean)
        state["exp_avg_sq"].copy_(square)
        if group["amsgrad"]:
            square = state["max_exp_avg_sq"].to(value.dtype).maximum(square)
            state["max_exp_avg_sq"].copy_(square)
        # numbers of shape () in float64: what does not depend on the element is computed once, exactly
        step = state["step"].double()
        step_size = rate / _correction(beta1, step)
        deviation = square.sqrt() / _correction(beta2, step).sqrt() + group["eps"]
        parameter.copy_(value - mean * step_size / deviation)


def _correction(beta: float, step: Tensor) -> Tensor:
    """1 - beta**step: how far an average that started at zero has come."""
    return 1 - (step * math.log(beta)).exp() if beta else step * 0 + 1


class AdamW(Adam):
    """Adam with decoupled weight decay: p ← p (1 - lr weight_decay) first (Loshchilov & Hutter, 2019)."""

    _decoupled = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        fused: bool | None = None,
    ):
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, fused=fused)


__all__ = ["Adam", "AdamW"]
