"""Muon."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..graph.types import bfloat16
from ..ops.primitive import user_source
from ..tensor import Tensor
from .groups import Group
from .optimizer import Optimizer, Slot, alike


class Muon(Optimizer):
    """Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024), as PyTorch computes it.

    The averaged gradient of a matrix is made nearly orthogonal by `ns_steps` steps of Newton and Schulz, X ← a X +
    (b A + c A²) X with A = X Xᵀ, in bfloat16. For the weights of hidden layers only: give embeddings, heads and vectors
    to another optimizer. `adjust_lr_fn`: "original" (the default) takes the rate times sqrt(max(1, rows / columns)),
    "match_rms_adamw" times 0.2 sqrt(max(rows, columns)), for rates that are tuned for AdamW (Liu et al., 2025).
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
    ):
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "ns_coefficients": tuple(ns_coefficients),
            "eps": eps,
            "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Add matrices with hyperparameters of their own; those not given are the defaults."""
        super().add_param_group(param_group)
        for parameter in self.param_groups[-1]["params"]:
            if parameter.ndim != 2:
                self._withdraw_group()
                raise ValueError(
                    "Muon only supports 2D parameters whereas we found a parameter with size: "
                    f"{list(parameter.shape)} (at {user_source()})"
                )

    def _check_hyperparameters(self, group: Group) -> None:
        super()._check_hyperparameters(group)
        if group["adjust_lr_fn"] not in (None, "original", "match_rms_adamw"):
            raise ValueError(
                f"Adjust learning rate function {group['adjust_lr_fn']} is not supported (at {user_source()}); it may "
                'be "original" or "match_rms_adamw"'
            )
        if len(group["ns_coefficients"]) != 3:
            raise ValueError(f"Coefficients must be a tuple of exactly 3 values (at {user_source()})")
        if group["ns_steps"] >= 100:
            raise ValueError(
                f"Number of steps must be less than 100 for computational efficiency, got {group['ns_steps']} "
                f"(at {user_source()})"
            )

    def _slots(self, parameter: Tensor, group: Group) -> dict[str, Slot]:
        return alike(parameter, "momentum_buffer")

    def _numbers(self, group: Group) -> dict[str, float]:
        return {}

    def _update(
        self, parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: Group, rate: Tensor
    ) -> None:
        value = parameter.to(parameter.dtype.compute)
        g = gradient.to(value.dtype)
        momentum = group["momentum"]
        average = state["momentum_buffer"].to(g.dtype)
        average = average + (g - average) * (1 - momentum)
        state["momentum_buffer"].copy_(average)
        direction = g + (average - g) * momentum if group["nesterov"] else average
        direction = _orthogonal(direction, group["ns_coefficients"], group["ns_steps"], group["eps"])
        rows, columns = parameter.shape
        if group["adjust_lr_fn"] == "match_rms_adamw":
            factor = 0.2 * math.sqrt(max(rows, columns))
        else:
            factor = math.sqrt(max(1.0, rows / columns)) if columns else 1.0
        value = value * (1 - rate * group["weight_decay"])
        parameter.copy_(value - direction.to(value.dtype) * (rate * factor))


def _orthogonal(matrix: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """The matrix with its singular values brought near 1, in bfloat16: [rows, columns]."""
    a, b, c = coefficients
    wide = matrix.shape[0] <= matrix.shape[1]
    x = (matrix if wide else matrix.T).to(bfloat16)
    norm = x.float().square().sum().sqrt().to(bfloat16).clamp(min=eps)
    x = x / norm
    for _ in range(steps):
        gram = x @ x.T
        polynomial = _sum_with_product(gram, b, gram, gram, c)
        x = _sum_with_product(x, a, polynomial, x, 1.0)
    return x if wide else x.T


def _sum_with_product(term: Tensor, beta: float, left: Tensor, right: Tensor, alpha: float) -> Tensor:
    """beta term + alpha left @ right of bfloat16 matrices as PyTorch's addmm rounds it: products are summed in float32,
    `term` is added by a fused multiplication, and the sum is rounded once.
    """
    product = (left.float() @ right.float()) * alpha
    # float64 holds the product of two float32 numbers exactly: this is the fused multiplication, on any processor
    return (term.double() * float(np.float32(beta)) + product.double()).float().to(bfloat16)


__all__ = ["Muon"]
