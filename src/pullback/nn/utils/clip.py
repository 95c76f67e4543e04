"""Limiting gradients: Pascanu, Mikolov & Bengio, "On the difficulty of training recurrent neural networks" (2013)."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ...errors import GradientError
from ...ops.primitive import user_source
from ...tensor import Tensor
from ...tensor.creation import zeros
from ...tensor.grad_modes import no_grad
from ...tensor.joining import stack


def _with_gradients(parameters: Tensor | Iterable[Tensor]) -> list[tuple[Tensor, Tensor]]:
    listed = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    return [(p, gradient) for p in listed if (gradient := p.grad) is not None]


def _total(gradients: list[Tensor], norm_type: float) -> Tensor:
    """The norm of all gradients as one vector, in float32 at least."""
    wide = [g.to(g.dtype.compute) for g in gradients]
    if norm_type == math.inf:
        return stack([g.abs().amax() for g in wide if g.numel()]).amax()
    if norm_type == 2:
        total = (wide[0] * wide[0]).sum()
        for g in wide[1:]:
            total = total + (g * g).sum()
        return total.sqrt()
    total = (wide[0].abs() ** norm_type).sum()
    for g in wide[1:]:
        total = total + (g.abs() ** norm_type).sum()
    return total ** (1.0 / norm_type)


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Tensor:
    """Scale all gradients by min(1, max_norm / (norm + 1e-6)), norm being that of all of them together; returns the
    norm.

    Nothing waits for the value, unless `error_if_nonfinite`, which raises GradientError where the norm is not finite.
    """
    norm_type = float(norm_type)
    if not norm_type > 0:
        raise ValueError(f"clip_grad_norm_: norm_type must be positive, got {norm_type} (at {user_source()})")
    with no_grad():
        pairs = _with_gradients(parameters)
        if not any(g.numel() for _, g in pairs):
            return zeros(())
        total = _total([g for _, g in pairs], norm_type)
        if error_if_nonfinite and not math.isfinite(value := total.item()):
            raise GradientError(
                f"the norm of the gradients is {value} (at {user_source()}); pass error_if_nonfinite=False to "
                f"scale them "
                "nevertheless"
            )
        # NaN stays NaN, as in PyTorch: a bad step must not look like a good one
        coefficient = (max_norm / (total + 1e-6)).clamp(max=1.0)
        for parameter, gradient in pairs:
            parameter.grad = (gradient.to(gradient.dtype.compute) * coefficient).to(gradient.dtype)
    return total


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Bring every element of every gradient into ±`clip_value`."""
    with no_grad():
        for parameter, gradient in _with_gradients(parameters):
            parameter.grad = gradient.clamp(-clip_value, clip_value)


__all__ = ["clip_grad_norm_", "clip_grad_value_"]
