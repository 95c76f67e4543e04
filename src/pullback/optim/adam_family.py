"""Relatives of Adam: Adamax, NAdam, RAdam and Lion."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..tensor import Tensor
from ..tensor.arithmetic import where
from .adam import decayed, moments
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


class Lion(Optimizer):
    """Chen et al., "Symbolic Discovery of Optimization Algorithms" (2023). PyTorch has no Lion.

    p ← p (1 - lr weight_decay) - lr sign(β₁ m + (1 - β₁) g), then m ← β₂ m + (1 - β₂) g, with m in the state as
    "exp_avg". The authors take rates 3 to 10 times below Adam's and a weight decay as many times above.

    >>> w = pb.tensor([1.0, -2.0], requires_grad=True)
    >>> optimizer = pb.optim.Lion([w], lr=0.25)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([ 0.7500, -1.7500], requires_grad=True)
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ):
        defaults = {
            "lr": lr,
            "betas": tuple(betas),
            "weight_decay": weight_decay,
            "maximize": maximize,
            "decoupled_weight_decay": True,
        }
        super().__init__(params, defaults)

    def _slots(self, parameter: Tensor, group: Group) -> dict[str, Slot]:
        return alike(parameter, "exp_avg")

    def _numbers(self, group: Group) -> dict[str, float]:
        return {}

    def _update(
        self, parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: Group, rate: Tensor
    ) -> None:
        value, g = decayed(parameter, gradient, group, rate)
        beta1, beta2 = group["betas"]
        mean = state["exp_avg"].to(g.dtype)
        parameter.copy_(value - (mean * beta1 + g * (1 - beta1)).sign() * rate)
        state["exp_avg"].copy_(mean * beta2 + g * (1 - beta2))


__all__ = ["Adamax", "Lion", "NAdam", "RAdam"]
