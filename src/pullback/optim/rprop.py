"""Steps that look at the sign or at the average: Rprop and ASGD."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.arithmetic import where
from .adam import decayed
from .groups import Group, plain
from .optimizer import Optimizer, Slot, alike


class Rprop(Optimizer):
    """Riedmiller & Braun, "A Direct Adaptive Method for Faster Backpropagation Learning: The RPROP Algorithm" (1993).

    Each element has a step of its own, which starts as lr and is multiplied by etas[1] where the gradient keeps its
    sign and by etas[0] where it turns, within `step_sizes`; where it turned the element stays for once. Meant for whole
    data sets, not batches. Flags: see `Optimizer`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
        *,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ):
        defaults = {
            "lr": lr,
            "etas": tuple(etas),
            "step_sizes": tuple(step_sizes),
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults)

    def _check_hyperparameters(self, group: Group) -> None:
        super()._check_hyperparameters(group)
        low, high = group["etas"]
        if not 0.0 < low < 1.0 < high:
            raise ValueError(
                f"Invalid eta values: {low}, {high}; the first must lie between 0 and 1, the second above 1 "
                f"(at {user_source()})"
            )

    def _slots(self, parameter: Tensor, group: Group) -> dict[str, Slot]:
        return {"prev": Slot(parameter.shape), "step_size": Slot(parameter.shape, _starting_rate(group))}

    def _update(
        self, parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: Group, rate: Tensor
    ) -> None:
        value = parameter.to(parameter.dtype.compute)
        g = gradient.to(value.dtype)
        (down, up), (least, greatest) = group["etas"], group["step_sizes"]
        agreement = g * state["prev"].to(g.dtype)
        factor = where(agreement > 0, up, where(agreement < 0, down, agreement * 0 + 1))
        size = (state["step_size"].to(g.dtype) * factor).clamp(least, greatest)
        kept = where(agreement < 0, g * 0, g)
        state["step_size"].copy_(size)
        state["prev"].copy_(kept)
        parameter.copy_(value - kept.sign() * size)


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
        return {"step": 0.0, "eta": _starting_rate(group), "mu": 1.0}

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


def _starting_rate(group: Group) -> float:
    return float(plain(group["lr"]))


__all__ = ["ASGD", "Rprop"]
