"""Adam, and what its relatives share with it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..ops.elementwise import lt, scalar, where
from ..ops.primitive import user_source
from ..tensor import Tensor
from .groups import Group
from .optimizer import Optimizer, Slot, alike, power

#: a magnitude whose square is well within float32
_GREATEST = 2.0**63


class Adam(Optimizer):
    """Kingma & Ba, "Adam: A Method for Stochastic Optimization" (2015), as PyTorch computes it.

    m ← β₁ m + (1 - β₁) g, s ← β₂ s + (1 - β₂) g², p ← p - lr / (1 - β₁ᵗ) · m / (sqrt(s) / sqrt(1 - β₂ᵗ) + eps), with
    g the gradient plus weight_decay p. `amsgrad` divides by the greatest s so far (Reddi et al., 2018); `maximize` goes
    up. With `decoupled_weight_decay` it is AdamW. State of 16-bit parameters is kept in their dtype and computed in
    float32. Flags: see `Optimizer`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ):
        defaults = {
            "lr": lr,
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults)

    def _check_hyperparameters(self, group: Group) -> None:
        if isinstance(group["lr"], Tensor) and group["foreach"] and not group["capturable"]:
            raise ValueError(
                f"lr as a Tensor is not supported for capturable=False and foreach=True (at {user_source()}); "
                "leave foreach out: it changes nothing here"
            )
        super()._check_hyperparameters(group)

    def _slots(self, parameter: Tensor, group: Group) -> dict[str, Slot]:
        return alike(parameter, "exp_avg", "exp_avg_sq", *["max_exp_avg_sq"] * bool(group["amsgrad"]))

    def _update(
        self, parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: Group, rate: Tensor
    ) -> None:
        value, g = decayed(parameter, gradient, group, rate)
        mean, square = moments(g, state, group["betas"])
        if group["amsgrad"]:
            square = state["max_exp_avg_sq"].to(value.dtype).maximum(square)
            state["max_exp_avg_sq"].copy_(square)
        correction, step_size = self._once(
            state["step"], group, lambda: corrections(state["step"], group["betas"], rate)
        )
        # both sides of the quotient times the correction, so that each element is divided once
        deviation = square.sqrt() + correction * group["eps"]
        parameter.copy_(value - mean * step_size / deviation)


def corrections(count: Tensor, betas: tuple[Any, Any], rate: Tensor) -> tuple[Tensor, Tensor]:
    """The root of the correction of the second moment, and the rate with both corrections.

    They are numbers of shape () in float64: what does not depend on the element is computed once, exactly.
    """
    beta1, beta2 = betas
    step = count.double()
    correction = (1 - power(beta2, step)).sqrt()
    return correction, rate / (1 - power(beta1, step)).to(rate.dtype) * correction


def decayed(parameter: Tensor, gradient: Tensor, group: Group, rate: Tensor) -> tuple[Tensor, Tensor]:
    """The parameter and its gradient in the dtype to compute in, weight decay applied to the one or the other."""
    value = parameter.to(parameter.dtype.compute)
    g = gradient.to(value.dtype)
    if group["weight_decay"] and group.get("decoupled_weight_decay"):
        return value * (1 - rate * group["weight_decay"]), g
    if group["weight_decay"]:
        g = g + value * group["weight_decay"]
    return value, g


def moments(g: Tensor, state: dict[str, Tensor], betas: tuple[Any, Any]) -> tuple[Tensor, Tensor]:
    """The running averages of the gradient and of its square, which are written to the state."""
    beta1, beta2 = betas
    mean, square = (state[name].to(g.dtype) for name in ("exp_avg", "exp_avg_sq"))
    mean = mean + (g - mean) * (1 - beta1)
    square = squares(g, square, beta2)
    state["exp_avg"].copy_(mean)
    state["exp_avg_sq"].copy_(square)
    return mean, square


def bounded(gradient: Tensor, parameter: Tensor, bound: float = _GREATEST) -> Tensor:
    """A gradient in the dtype to compute in, each element brought into ±bound, so that float32 has its square.

    One that is infinite would be the scale of all that share it, by which zeros are NaN. A NaN stays.
    """
    x = gradient.to(parameter.dtype.compute).node
    low, high = scalar(-bound, x), scalar(bound, x)
    return gradient._wrap(where(lt(x, low), low, where(lt(high, x), high, x)))


def squares(g: Tensor, held: Tensor, beta2: Any) -> Tensor:
    """The next running average of the gradient's square."""
    return held * beta2 + g * g * (1 - beta2)


__all__ = ["Adam", "bounded", "decayed", "moments", "squares"]
