"""Python functions of single elements. Slow, as in PyTorch: for what no operation says."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import GradientError, ShapeError
from ..ops.primitive import user_source
from .handle import Handle
from .order import realized

if TYPE_CHECKING:
    from . import Tensor


class CallMethods(Handle):
    """In place, of values that are known."""

    __slots__ = ()

    def apply_(self, callable: Callable[[Any], Any]) -> Tensor:
        """Put `callable(element)` in the place of each element: in Python, one after the other, without a gradient."""
        return _called(self, "apply_", callable, ())

    def map_(self, tensor: Tensor, callable: Callable[[Any, Any], Any]) -> Tensor:
        """Put `callable(element, other)` in the place of each element, with those of `tensor` beside, which is spread
        to this one's shape."""
        return _called(self, "map_", callable, (tensor,))

    def map2_(self, x: Tensor, y: Tensor, callable: Callable[[Any, Any, Any], Any]) -> Tensor:
        """As `map_`, with the elements of two tensors beside."""
        return _called(self, "map2_", callable, (x, y))


def _called(target: Handle, name: str, function: Callable[..., Any], others: tuple[Handle, ...]) -> Tensor:
    from .creation import tensor

    if any(operand.requires_grad for operand in (target, *others)):
        raise GradientError(
            f"Can't call {name}() on a tensor that requires grad (at {user_source()}): a Python function has no "
            f"gradient. Use .detach().{name}()"
        )
    operands = [realized(operand, name) for operand in (target, *others)]
    try:
        spread = [operands[0], *(np.broadcast_to(operand, operands[0].shape) for operand in operands[1:])]
    except ValueError:
        raise ShapeError(
            f"{name}: shapes {[list(operand.shape) for operand in operands[1:]]} do not broadcast to "
            f"{list(target.shape)} (at {user_source()})"
        ) from None
    found = [function(*elements) for elements in zip(*(part.reshape(-1).tolist() for part in spread), strict=True)]
    made = tensor(found, dtype=target.dtype) if found else target
    return target._assign(made.reshape(target.shape).node)  # type: ignore[attr-defined]


__all__ = ["CallMethods"]
