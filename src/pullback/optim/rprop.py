"""Rprop: steps that look at the sign of the gradient alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.arithmetic import where
from .groups import Group, plain
from .optimizer import Optimizer, Slot


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
        return {"prev": Slot(parameter.shape), "step_size": Slot(parameter.shape, float(plain(group["lr"])))}

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


__all__ = ["Rprop"]
