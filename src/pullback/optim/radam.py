"""RAdam: Adam that waits until the variance of its rate is tractable."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..tensor import Tensor
from ..tensor.arithmetic import where
from .adam import decayed, moments
from .groups import Group
from .optimizer import Optimizer, Slot, alike, power


class RAdam(Optimizer):
    """Rectified Adam: Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond" (2020).

    While the variance of the adaptive rate is intractable (ρₜ ≤ 5) the step is the plain corrected mean. With
    `decoupled_weight_decay`, p ← p (1 - lr weight_decay) first. Flags: see `Optimizer`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ):
        defaults = {
            "lr": lr,
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "decoupled_weight_decay": decoupled_weight_decay,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def _slots(self, parameter: Tensor, group: Group) -> dict[str, Slot]:
        return alike(parameter, "exp_avg", "exp_avg_sq")

    def _update(
        self, parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: Group, rate: Tensor
    ) -> None:
        value, g = decayed(parameter, gradient, group, rate)
        mean, square = moments(g, state, group["betas"])
        beta1, beta2 = group["betas"]
        step = state["step"].double()
        remaining = power(beta2, step)
        longest = 2 / (1 - beta2) - 1
        length = longest - step * 2 * remaining / (1 - remaining)
        rectified = (length - 4) * (length - 2) * longest / (length * ((longest - 4) * (longest - 2)))
        tractable = length > 5
        # not taken where it is intractable, and there no root of a negative number
        factor = where(tractable, rectified * (1 - remaining), 1.0).sqrt()
        step_size = rate / (1 - power(beta1, step))
        adaptive = factor / (square.sqrt() + group["eps"])
        parameter.copy_(value - mean * step_size * where(tractable, adaptive, 1.0))


__all__ = ["RAdam"]
