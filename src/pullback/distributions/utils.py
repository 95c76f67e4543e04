"""What distributions share: parameters of one shape, probabilities and their logarithms."""

from __future__ import annotations

from typing import Any

from ..errors import DTypeError
from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.creation import tensor
from ..tensor.joining import broadcast_tensors
from ..tensor.limits import finfo
from ..tensor.promotion import get_default_dtype, result_type


def broadcast_all(*values: Any) -> tuple[Tensor, ...]:
    """Numbers and tensors as tensors of one shape and one dtype of floats."""
    for value in values:
        if not isinstance(value, (Tensor, int, float)):
            raise DTypeError(
                f"a parameter of a distribution is a number or a tensor, got {type(value).__name__} (at "
                f"{user_source()})"
            )
    given = [v for v in values if isinstance(v, Tensor)]
    dtype = result_type(*given) if len(given) > 1 else given[0].dtype if given else get_default_dtype()
    dtype = dtype if dtype.is_floating_point else get_default_dtype()
    made = [v.to(dtype) if isinstance(v, Tensor) else tensor(v, dtype=dtype) for v in values]
    return tuple(broadcast_tensors(*made))


def clamp_probs(probs: Tensor) -> Tensor:
    """Probabilities away from 0 and 1 by the distance of neighbouring floats at 1."""
    eps = finfo(probs.dtype).eps
    return probs.clamp(min=eps, max=1 - eps)


def probs_to_logits(probs: Tensor, is_binary: bool = False) -> Tensor:
    """Log-odds of probabilities, or with more than two classes their logarithms."""
    inside = clamp_probs(probs)
    return inside.log() - (-inside).log1p() if is_binary else inside.log()


def logits_to_probs(logits: Tensor, is_binary: bool = False) -> Tensor:
    """The probabilities of log-odds, or of logarithms up to a constant."""
    return logits.sigmoid() if is_binary else logits.softmax(-1)


__all__ = ["broadcast_all", "clamp_probs", "logits_to_probs", "probs_to_logits"]
