"""Limiting gradients: Pascanu, Mikolov & Bengio, "On the difficulty of training recurrent neural networks" (2013)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable

from ...errors import GradientError, ShapeError
from ...ops.primitive import user_source
from ...tensor import Tensor
from ...tensor.anomaly import check_numerics
from ...tensor.creation import zeros
from ...tensor.grad_modes import no_grad
from ...tensor.joining import stack
from ...tensor.state import STATE


def _with_gradients(parameters: Tensor | Iterable[Tensor]) -> list[tuple[Tensor, Tensor]]:
    listed = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    return [(p, gradient) for p in listed if (gradient := p.grad) is not None]


def _require_foreach(name: str, foreach: bool | None) -> None:
    """PyTorch's choice between one call for all gradients and one for each: the compiler makes it, both are taken."""
    if not (foreach is None or isinstance(foreach, bool)):
        raise TypeError(f"{name}: foreach must be None or a bool, got {foreach!r} (at {user_source()})")


def _total(gradients: list[Tensor], norm_type: float) -> Tensor:
    """The norm of the norms of all tensors, in float32 at least: for positive norms that of all as one vector."""
    if (norm_type < 0 or norm_type == math.inf) and not all(g.numel() for g in gradients):
        raise ShapeError(
            f"the norm of order {norm_type} of a tensor without elements is not defined (at {user_source()})"
        )
    wide = [g.to(g.dtype.compute) for g in gradients]
    if norm_type != 2:
        return stack([g.norm(norm_type) for g in wide]).norm(norm_type)
    # of squares, without a root between: one pass over all
    total = (wide[0] * wide[0]).sum()
    for g in wide[1:]:
        total = total + (g * g).sum()
    return total.sqrt()


def get_total_norm(
    tensors: Tensor | Iterable[Tensor],
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """The norm of all tensors together, as one vector: for a `norm_type` of 0 or below, the norm of their norms.

    Nothing waits for the value, unless `error_if_nonfinite`, which raises GradientError where the norm is not finite;
    in a compiled step it is NonFiniteError, as of `check_numerics`, and nothing waits either.
    """
    _require_foreach("get_total_norm", foreach)
    listed = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    norm_type = float(norm_type)
    if not listed:
        return zeros(())
    with no_grad():
        total = _total(listed, norm_type)
        if error_if_nonfinite and STATE.trace is not None:
            check_numerics(total, "the norm of the gradients")
        elif error_if_nonfinite and not math.isfinite(value := total.item()):
            raise GradientError(
                f"the norm of the gradients is {value} (at {user_source()}); pass error_if_nonfinite=False to "
                "scale them nevertheless"
            )
    return total


def clip_grads_with_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, total_norm: Tensor, foreach: bool | None = None
) -> None:
    """Scale all gradients by min(1, max_norm / (total_norm + 1e-6)), with a norm that was found before."""
    _require_foreach("clip_grads_with_norm_", foreach)
    with no_grad():
        # NaN stays NaN, as in PyTorch: a bad step must not look like a good one
        coefficient = (float(max_norm) / (total_norm + 1e-6)).clamp(max=1.0)
        for parameter, gradient in _with_gradients(parameters):
            parameter.grad = (gradient.to(gradient.dtype.compute) * coefficient).to(gradient.dtype)


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scale all gradients by min(1, max_norm / (norm + 1e-6)), norm being that of all of them together; returns the
    norm.

    Nothing waits for the value, unless `error_if_nonfinite`, which raises GradientError where the norm is not finite.
    """
    listed = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    total = get_total_norm([g for _, g in _with_gradients(listed)], norm_type, error_if_nonfinite, foreach)
    clip_grads_with_norm_(listed, max_norm, total, foreach)
    return total


def clip_grad_norm(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """`clip_grad_norm_` under its former name, which PyTorch warns of."""
    warnings.warn("clip_grad_norm is deprecated; use clip_grad_norm_", FutureWarning, stacklevel=2)
    return clip_grad_norm_(parameters, max_norm, norm_type, error_if_nonfinite, foreach)


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: bool | None = None) -> None:
    """Bring every element of every gradient into ±`clip_value`."""
    _require_foreach("clip_grad_value_", foreach)
    clip_value = float(clip_value)
    with no_grad():
        for parameter, gradient in _with_gradients(parameters):
            parameter.grad = gradient.clamp(-clip_value, clip_value)


__all__ = ["clip_grad_norm", "clip_grad_norm_", "clip_grad_value_", "clip_grads_with_norm_", "get_total_norm"]
