"""Hooks on tensors: functions that see a gradient when it has been computed, or added to `.grad`.

Inside a compiled step a hook runs while the step is recorded: what it does with tensors becomes part of the step.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import GradientError, ShapeError
from ..graph.node import Node
from ..ops.gradient_hooks import attach, hooks_of
from ..ops.primitive import user_source
from .handle import Handle
from .store import Store

if TYPE_CHECKING:
    from . import Tensor

_numbers = itertools.count()


class RemovableHandle:
    """What registering a hook gives: `remove()` takes the hook away; also a context manager that does so at its end."""

    def __init__(self, hooks: dict[int, Any]):
        self.hooks, self.id = hooks, next(_numbers)

    def remove(self) -> None:
        """Take the hook away, if it is still there."""
        if self.id in self.hooks:
            del self.hooks[self.id]

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


class HookMethods(Handle):
    """Registering hooks."""

    __slots__ = ()

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
        """Call `hook(gradient)` when a gradient of this tensor has been computed; a tensor that it gives replaces it.

        So it is in `backward`, and in `autograd.grad`, whenever the tensor lies on the way. Hooks run in the order in
        which they were registered. Those of a leaf stay with the tensor when its value is changed.

        >>> x = pb.tensor([1.0, 2.0], requires_grad=True)
        >>> handle = x.register_hook(lambda gradient: gradient.clamp(max=1.0))
        >>> (x * pb.tensor([0.5, 3.0])).sum().backward()
        >>> x.grad
        tensor([0.5000, 1.0000])
        """
        if not self.requires_grad:
            raise GradientError(f"register_hook on a tensor that does not require grad (at {user_source()})")
        if not callable(hook):
            raise TypeError(f"register_hook takes a function, got {hook!r} (at {user_source()})")
        node = self.node
        if self.is_leaf:
            store = self._leaf_hooks()
        else:
            found = hooks_of(node)
            store = found if isinstance(found, Store) else Store()
        handle = RemovableHandle(store)
        store[handle.id] = _on_nodes(hook)
        attach(node, store)
        return handle

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], None]) -> RemovableHandle:
        """Call `hook(tensor)` each time that `backward` has added to this leaf's `.grad`.

        >>> x = pb.tensor([1.0, 2.0], requires_grad=True)
        >>> handle = x.register_post_accumulate_grad_hook(lambda x: print(x.grad))
        >>> (x * 3).sum().backward()
        tensor([3., 3.])
        """
        if not self.requires_grad or not self.is_leaf:
            raise GradientError(
                f"register_post_accumulate_grad_hook takes leaves that require grad (at {user_source()})"
            )
        if not callable(hook):
            raise TypeError(f"register_post_accumulate_grad_hook takes a function, got {hook!r} (at {user_source()})")
        store = self._accumulated_hooks()
        handle = RemovableHandle(store)
        store[handle.id] = hook
        return handle


def _on_nodes(hook: Callable[[Any], Any]) -> Callable[[Node], Node | None]:
    def run(cotangent: Node) -> Node | None:
        given = hook(Handle._wrap(cotangent))
        if given is None:
            return None
        if not isinstance(given, Handle):
            raise TypeError(f"a hook of a tensor must return a tensor or None, got {given!r} (at {user_source()})")
        if given.shape != cotangent.shape or given.dtype is not cotangent.dtype:
            raise ShapeError(
                f"a hook of a tensor returned {given.dtype.name}{list(given.shape)} in place of a gradient of "
                f"{cotangent.dtype.name}{list(cotangent.shape)} (at {user_source()})"
            )
        return given.node

    return run


__all__ = ["HookMethods", "RemovableHandle"]
