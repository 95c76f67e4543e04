"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.arithmetic import where
from .optimizer import Group, Optimizer, require_fused


class SGD(Optimizer):
    """v ← momentum v + (1 - dampening) g, p ← p - lr v, with g the gradient plus weight_decay p.

    The first v is g itself. With `nesterov` the step is g + momentum v (Sutskever et al., 2013, in PyTorch's form);
    with `maximize` it goes up. Updates are always fused: `fused` may be True or None.

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
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        fused: bool | None = None,
    ):
        require_fused(fused)
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def _check_hyperparameters(self, group: Group) -> None:
        super()._check_hyperparameters(group)
        self._require("momentum", group["momentum"], 0.0)
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError(
                f"nesterov needs a momentum above 0 and dampening 0, got momentum={group['momentum']} and "
                f"dampening={group['dampening']} (at {user_source()})"
            )

    def _state_names(self, group: Group) -> tuple[str, ...]:
        return ("momentum_buffer",) if group["momentum"] else ()

    def _counts_steps(self, group: Group) -> bool:
        # only dampening tells the first step from the others: without it the buffer's zeros do the same
        return bool(group["momentum"] and group["dampening"])

    def _update(
        self, parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: Group, rate: Tensor
    ) -> None:
        wide = parameter.to(parameter.dtype.compute)
        g = gradient.to(wide.dtype)
        if group["weight_decay"]:
            g = g + wide * group["weight_decay"]
        if group["momentum"]:
            g = self._with_momentum(g, state, group)
        parameter.copy_(wide - g * rate)

    def _with_momentum(self, g: Tensor, state: dict[str, Tensor], group: Group) -> Tensor:
        share = g
        if group["dampening"]:
            share = g * where(state["step"] == 1, 1.0, 1 - group["dampening"])
        velocity = state["momentum_buffer"].to(g.dtype) * group["momentum"] + share
        state["momentum_buffer"].copy_(velocity)
        return g + velocity * group["momentum"] if group["nesterov"] else velocity


__all__ = ["SGD"]
