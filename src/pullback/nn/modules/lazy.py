"""Lazy modules, which find out from their first input how many features or channels it has: what they share.

Each layer's lazy form stands in the file of the layer.
"""

from __future__ import annotations

from typing import Any

from ...ops.primitive import user_source
from ...tensor.state import outside_trace
from ..parameter import Uninitialized
from .module import Module


class LazyModuleMixin(Module):
    """A module with parameters or buffers that get their shapes at the first call, or by loading a state dictionary.

    Make them `nn.UninitializedParameter()`, and define `initialize_parameters(*args, **kwargs)`, which is given the
    arguments of the first call and calls `materialize(shape)` of each. After it the module becomes a `cls_to_become`,
    if that is not None. Inside a compiled step this happens while the step is recorded.

    >>> class Scale(pb.nn.modules.lazy.LazyModuleMixin, pb.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.weight = pb.nn.UninitializedParameter()
    ...     def initialize_parameters(self, x):
    ...         if self.has_uninitialized_params():
    ...             self.weight.materialize(x.shape[-1:])
    ...             pb.nn.init.ones_(self.weight)
    ...     def forward(self, x):
    ...         return x * self.weight
    >>> layer = Scale()
    >>> layer.weight
    <UninitializedParameter>
    >>> layer(pb.ones(2, 3)).shape, layer.weight.shape
    (pullback.Size([2, 3]), pullback.Size([3]))
    """

    cls_to_become: type[Module] | None = None
    _is_inferred = False
    weight: Any
    bias: Any

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)  # of the layer that comes next

    def initialize_parameters(self, *args: Any, **kwargs: Any) -> None:
        """Give the parameters and buffers that have none their shapes and values, from the arguments of a call."""
        raise NotImplementedError(f"{type(self).__name__} must define initialize_parameters() (at {user_source()})")

    def has_uninitialized_params(self) -> bool:
        """Whether one of the module's own parameters or buffers has no shape yet."""
        return any(isinstance(held, Uninitialized) for held in [*self._parameters.values(), *self._buffers.values()])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self._is_inferred:
            with outside_trace():
                self._infer(args, kwargs)
        # not super(): the module may have become another class
        return Module.__call__(self, *args, **kwargs)

    def _infer(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.initialize_parameters(*args, **kwargs)
        if self.has_uninitialized_params():
            raise RuntimeError(
                f"{type(self).__name__}.initialize_parameters() has left parameters or buffers without a shape "
                f"(at {user_source()})"
            )
        if self.cls_to_become is None:
            self._is_inferred = True
        else:
            self.__class__ = self.cls_to_become  # type: ignore[assignment]


__all__ = ["LazyModuleMixin"]
