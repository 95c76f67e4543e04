"""Parameters, tensors that a module trains; buffers, those it keeps; and both before their shapes are known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import ShapeError
from ..graph.node import Node
from ..graph.types import DType
from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.copying import leaf_copy
from ..tensor.creation import empty, tensor
from ..tensor.handle import Handle


class Parameter(Tensor):
    """A leaf tensor that becomes part of a module's parameters when it is assigned to one."""

    __slots__ = ()

    def __init__(self, data: Any = None, requires_grad: bool = True):
        source = data if isinstance(data, Tensor) else empty(0) if data is None else tensor(data)
        super().__init__(source.detach().node)
        self.requires_grad_(requires_grad)

    def __repr__(self) -> str:
        return "Parameter containing:\n" + super().__repr__()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        # as in PyTorch a parameter leaves its gradient and what users have set on it behind
        return leaf_copy(self, memo)


class Buffer(Tensor):
    """A tensor that becomes one of a module's buffers when it is assigned to it, saved with it if `persistent`.

    >>> class Counter(pb.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.count = pb.nn.Buffer(pb.zeros(1))
    >>> list(Counter().state_dict())
    ['count']
    """

    __slots__ = ("persistent",)

    def __init__(self, data: Any = None, *, persistent: bool = True):
        source = data if isinstance(data, Tensor) else empty(0) if data is None else tensor(data)
        super().__init__(source.detach().node)
        self.persistent = persistent
        if source.requires_grad:
            self.requires_grad_()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        copied = super().__deepcopy__(memo)
        copied.persistent = self.persistent
        return copied


# at run time it has no layout of its own, so that a tensor can change its class
class Uninitialized(Handle if TYPE_CHECKING else object):  # type: ignore[misc]
    """A tensor of a lazy module: it has a dtype and no shape yet, and gets one by `materialize`."""

    __slots__ = ()

    _becomes: type[Tensor]

    def _hold(self, dtype: DType | None, device: str | None, requires_grad: bool) -> None:
        Handle.__init__(self, empty(0, dtype=dtype, device=device).node)
        self.requires_grad_(requires_grad)

    def materialize(self, shape: Any, device: str | None = None, dtype: DType | None = None) -> None:
        """Become a tensor of this shape, to be filled, of the dtype that it has or that is given."""
        value = empty(tuple(shape), device=device, dtype=dtype or self.dtype)
        self.__class__ = self._becomes  # type: ignore[assignment]
        self.data = value

    def _to_dtype(self, dtype: DType) -> None:
        self._set_own_leaf(empty(0, dtype=dtype).node, self.requires_grad)

    def _refuse(self) -> Any:
        raise ShapeError(
            f"this {type(self).__name__} has no shape and no value yet (at {user_source()}): call the module once, "
            "on an input as it will get them, before its parameters are used, given to an optimizer or loaded elsewhere"
        )

    @property
    def node(self) -> Node:
        """There is none yet."""
        return self._refuse()

    @property
    def shape(self) -> Any:
        """There is none yet."""
        return self._refuse()

    @property
    def ndim(self) -> int:
        """There is none yet."""
        return self._refuse()

    data = property(lambda self: self._refuse(), Handle.data.fset)  # type: ignore[attr-defined]

    def requires_grad_(self, requires_grad: bool = True) -> Any:
        """Have the tensor take part in differentiation once it is there, or not."""
        self._set_own_leaf(self._node, requires_grad)
        return self

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class UninitializedParameter(Uninitialized, Parameter):
    """A parameter whose shape is not known yet; `materialize(shape)` makes it a Parameter."""

    __slots__ = ()
    _becomes = Parameter

    def __init__(self, requires_grad: bool = True, device: str | None = None, dtype: DType | None = None):
        self._hold(dtype, device, requires_grad)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        memo[id(self)] = copied = UninitializedParameter(self.requires_grad, dtype=self.dtype)
        return copied


class UninitializedBuffer(Uninitialized, Buffer):
    """A buffer whose shape is not known yet; `materialize(shape)` makes it a Buffer."""

    __slots__ = ()
    _becomes = Buffer

    def __init__(
        self,
        requires_grad: bool = False,
        device: str | None = None,
        dtype: DType | None = None,
        persistent: bool = True,
    ):
        self._hold(dtype, device, requires_grad)
        self.persistent = persistent

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        copied = UninitializedBuffer(self.requires_grad, dtype=self.dtype, persistent=self.persistent)
        memo[id(self)] = copied
        return copied


def is_lazy(value: object) -> bool:
    """Whether the tensor has no shape yet."""
    return isinstance(value, Uninitialized)


__all__ = ["Buffer", "Parameter", "Uninitialized", "UninitializedBuffer", "UninitializedParameter", "is_lazy"]
