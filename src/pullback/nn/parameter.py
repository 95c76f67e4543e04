"""Parameters: tensors that a module trains."""

from __future__ import annotations

from typing import Any

from ..tensor import Tensor
from ..tensor.creation import tensor


class Parameter(Tensor):
    """A leaf tensor that becomes part of a module's parameters when it is assigned to one."""

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True):
        source = data if isinstance(data, Tensor) else tensor(data)
        super().__init__(source.detach().node)
        self.requires_grad_(requires_grad)

    def __repr__(self) -> str:
        return "Parameter containing:\n" + super().__repr__()


__all__ = ["Parameter"]
