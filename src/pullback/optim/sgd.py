"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.arithmetic import where
from .adam import decayed
from .groups import Group
from .optimizer import Optimizer, Slot, alike, is_on


class SGD(Optimizer):
    """v ← momentum v + (1 - dampening) g, p ← p - lr v, with g the gradient plus weight_decay p.

    The first v is g itself. With `nesterov` the step is g + momentum v (Sutskever et al., 2013, in PyTorch's form);
    with `maximize` it goes up. Flags: see `Optimizer`.

    >>> w = pb.ones(2, requires_grad=True)
    >>> optimizer = pb.optim.SGD([w], lr=0.5)
    >>> w.sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([0.5000, 0.5000], requires_grad=True)
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float | Tensor = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ):
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "foreach": foreach,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults)

    def _check_hyperparameters(self, group: Group) -> None:
        super()._check_hyperparameters(group)
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError(
                "Nesterov momentum requires a momentum and zero dampening: nesterov needs a momentum above 0 and "
                f"dampening 0, got momentum={group['momentum']} and "
                f"dampening={group['dampening']} (at {user_source()})"
            )

    def _slots(self, parameter: Tensor, group: Group) -> dict[str, Slot]:
        return alike(parameter, "momentum_buffer") if group["momentum"] else {}

    def _numbers(self, group: Group) -> dict[str, float]:
        # only dampening tells the first step from the others: without it the buffer's zeros do the same
        return {"step": 0.0} if group["momentum"] and group["dampening"] else {}

    def _update(
        self, parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: Group, rate: Tensor
    ) -> None:
        value, g = decayed(parameter, gradient, group, rate)
        if is_on(group["momentum"]):
            g = self._with_momentum(g, state, group)
        parameter.copy_(value - g * rate)

    def _with_momentum(self, g: Tensor, state: dict[str, Tensor], group: Group) -> Tensor:
        share = g
        if group["dampening"]:
            share = where(state["step"] == 1, g, g * (1 - group["dampening"]))
        velocity = state["momentum_buffer"].to(g.dtype) * group["momentum"] + share
        state["momentum_buffer"].copy_(velocity)
        return g + velocity * group["momentum"] if group["nesterov"] else velocity


__all__ = ["SGD"]
