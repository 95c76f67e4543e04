"""All parameters as one vector, and back."""

from __future__ import annotations

from collections.abc import Iterable

from ...errors import ShapeError
from ...ops.primitive import user_source
from ...tensor import Tensor
from ...tensor.grad_modes import no_grad
from ...tensor.joining import cat


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """The elements of all parameters, one after the other."""
    return cat([parameter.reshape(-1) for parameter in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Write the elements of `vec` into the parameters, in order."""
    listed = list(parameters)
    total = sum(p.numel() for p in listed)
    if vec.shape != (total,):
        raise ShapeError(
            f"vector_to_parameters: the parameters have {total} elements, the vector's shape is {list(vec.shape)} "
            f"(at {user_source()})"
        )
    with no_grad():
        start = 0
        for parameter in listed:
            stop = start + parameter.numel()
            parameter.copy_(vec[start:stop].reshape(parameter.shape))
            start = stop


__all__ = ["parameters_to_vector", "vector_to_parameters"]
