"""What distributions share: parameters of one shape, probabilities and their logarithms."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import update_wrapper
from typing import Any

from ..errors import DTypeError
from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.creation import tensor, tril_indices, zeros
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


def sum_rightmost(value: Tensor, dim: int) -> Tensor:
    """The sum over the last `dim` axes."""
    return value.sum(tuple(range(-dim, 0))) if dim else value


def tril_matrix_to_vec(mat: Tensor, diag: int = 0) -> Tensor:
    """The elements of [..., n, n] at and below the diagonal `diag`, row by row, as a vector."""
    size = mat.shape[-1]
    if not -size <= diag < size:
        raise ValueError(f"diag ({diag}) provided is outside [{-size}, {size - 1}] (at {user_source()})")
    rows, columns = tril_indices(size, size, diag)
    return mat[..., rows, columns]


def vec_to_tril_matrix(vec: Tensor, diag: int = 0) -> Tensor:
    """The matrix [..., n, n] of the elements at and below the diagonal `diag`, row by row, and zeros above."""
    # n (n + 1) / 2 + diag n - |diag| (|diag| + 1) / 2 elements
    count, edge = vec.shape[-1], 1 + 2 * diag
    size = round((math.sqrt(edge**2 + 8 * count + 4 * abs(diag) * (diag + 1)) - edge) / 2)
    rows, columns = tril_indices(size, size, diag)
    if len(rows) != count:
        raise ValueError(
            f"The size of last dimension is {count} which cannot be expressed as the lower triangular part of a square "
            f"D x D matrix (at {user_source()})"
        )
    matrix = zeros((*vec.shape[:-1], size, size), dtype=vec.dtype)
    matrix[..., rows, columns] = vec
    return matrix


class lazy_property:
    """A parameter told from another where it was not given itself: an attribute of the object under the same name goes
    before it.

    Unlike PyTorch's it is computed anew each time: what is computed while a step is recorded belongs to that step.
    """

    def __init__(self, wrapped: Callable[[Any], Any]):
        self.wrapped = wrapped
        update_wrapper(self, wrapped)  # type: ignore[arg-type]

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else self.wrapped(instance)


__all__ = [
    "broadcast_all",
    "clamp_probs",
    "lazy_property",
    "logits_to_probs",
    "probs_to_logits",
    "sum_rightmost",
    "tril_matrix_to_vec",
    "vec_to_tril_matrix",
]
