"""PyTorch's former name of tensors that gradients are taken through."""

from __future__ import annotations

from typing import Any

from ..tensor import Tensor


class _OfTensors(type):
    """All tensors are instances."""

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, Tensor)


class Variable(metaclass=_OfTensors):
    """`Variable(x, requires_grad)` is `x.detach().requires_grad_(requires_grad)`: a tensor is all that it was for.

    >>> pb.autograd.Variable(pb.ones(1), requires_grad=True)
    tensor([1.], requires_grad=True)
    """

    def __new__(cls, data: Any = (), requires_grad: bool = False) -> Any:
        """Of data that is no tensor, `Tensor(data)`."""
        made = data.detach() if isinstance(data, Tensor) else Tensor(data)
        return made.requires_grad_() if requires_grad else made


__all__ = ["Variable"]
