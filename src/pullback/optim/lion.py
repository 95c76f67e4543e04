"""Lion: steps of the sign of the momentum."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..tensor import Tensor
from .adam import decayed
from .groups import Group
from .optimizer import Optimizer, Slot, alike


class Lion(Optimizer):
    """Chen et al., "Symbolic Discovery of Optimization Algorithms" (2023). PyTorch has no Lion.

    p ← p (1 - lr weight_decay) - lr sign(β₁ m + (1 - β₁) g), then m ← β₂ m + (1 - β₂) g, with m in the state as
    "exp_avg". The authors take rates 3 to 10 times below Adam's and a weight decay as many times above. A gradient that
    is NaN or infinite makes its weight NaN, where the sign would tell of nothing.

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
        direction = mean * beta1 + g * (1 - beta1)
        # of NaN the sign is 0: its weight would never move again, and nothing tell of it
        parameter.copy_(value - (direction.sign() + direction * 0.0) * rate)
        state["exp_avg"].copy_(mean * beta2 + g * (1 - beta2))


__all__ = ["Lion"]
