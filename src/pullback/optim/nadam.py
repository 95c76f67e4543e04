"""NAdam: Adam with Nesterov's momentum."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..tensor import Tensor
from .adam import decayed, moments
from .groups import Group
from .optimizer import Optimizer, Slot, alike, power


class NAdam(Optimizer):
    """Adam with Nesterov's momentum: Dozat, "Incorporating Nesterov Momentum into Adam" (2016), as PyTorch computes it.

    μₜ = β₁ (1 - 0.96^(t momentum_decay) / 2), and the product of all μ so far stands in the state. With
    `decoupled_weight_decay`, p ← p (1 - lr weight_decay) first. Flags: see `Optimizer`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
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
            "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def _slots(self, parameter: Tensor, group: Group) -> dict[str, Slot]:
        return alike(parameter, "exp_avg", "exp_avg_sq")

    _growing = frozenset({"mu_product"})

    def _numbers(self, group: Group) -> dict[str, float]:
        return {"step": 0.0, "mu_product": 1.0}

    @staticmethod
    def _momentum(step: Tensor, group: Group) -> Tensor:
        return (1 - power(0.96, step * group["momentum_decay"]) * 0.5) * group["betas"][0]

    def _begin(self, numbers: dict[str, Tensor], group: Group) -> None:
        super()._begin(numbers, group)
        product = numbers["mu_product"]
        # in the product's own precision, as PyTorch: a float32 product is rounded at each step
        product.mul_(self._momentum(numbers["step"].double(), group).to(product.dtype))

    def _update(
        self, parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: Group, rate: Tensor
    ) -> None:
        value, g = decayed(parameter, gradient, group, rate)
        mean, square = moments(g, state, group["betas"])
        step, product = state["step"].double(), state["mu_product"].double()
        now, following = self._momentum(step, group), self._momentum(step + 1, group)
        deviation = (square / (1 - power(group["betas"][1], step))).sqrt() + group["eps"]
        of_gradient = rate * (1 - now).to(rate.dtype) / (1 - product).to(rate.dtype)
        of_mean = rate * following.to(rate.dtype) / (1 - product * following).to(rate.dtype)
        parameter.copy_(value - (g * of_gradient + mean * of_mean) / deviation)


__all__ = ["NAdam"]
