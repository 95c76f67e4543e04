"""einops on tensors: `einops.rearrange(x, "a b -> b a")`.

einops asks the subclasses of its `AbstractBackend` which of them knows a tensor. Ours is made when einops is there:
at once where it was imported before, otherwise as soon as it is, by a finder that stands aside after that. Importing
Pullback imports no einops.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_MODULE = "einops._backends"


class _Awaiting(MetaPathFinder):
    """Registers the backend after the import of einops' list of them."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec that others find, with a loader that registers at its end; of other modules None."""
        if fullname != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        loader: Any = None if spec is None else spec.loader
        if loader is not None:
            execute = loader.exec_module

            def then_register(module: ModuleType) -> None:
                execute(module)
                register(module)

            loader.exec_module = then_register
        return spec


def await_einops() -> None:
    """Register the backend now, or when einops is imported."""
    present = sys.modules.get(_MODULE)
    if present is None:
        sys.meta_path.insert(0, _Awaiting())
    else:
        register(present)


def register(backends: Any) -> type:
    """Make the backend: einops finds it among the subclasses of its base."""

    class PullbackBackend(backends.AbstractBackend):  # type: ignore[misc]
        """What einops does with tensors."""

        framework_name = "pullback"

        def __init__(self) -> None:
            import pullback

            self.pullback = pullback

        def is_appropriate_type(self, tensor: Any) -> bool:
            return isinstance(tensor, self.pullback.Tensor)

        def from_numpy(self, x: Any) -> Any:
            return self.pullback.from_numpy(x)

        def to_numpy(self, x: Any) -> Any:
            return x.numpy(force=True)

        def arange(self, start: int, stop: int) -> Any:
            return self.pullback.arange(start, stop)

        def transpose(self, x: Any, axes: Any) -> Any:
            return x.permute(axes)

        def reduce(self, x: Any, operation: str, axes: Any) -> Any:
            if operation in ("any", "all", "prod"):
                for axis in sorted(axes, reverse=True):
                    x = getattr(x, operation)(axis)
                return x
            return getattr(x, {"min": "amin", "max": "amax"}.get(operation, operation))(tuple(axes))

        def stack_on_zeroth_dimension(self, tensors: list[Any]) -> Any:
            return self.pullback.stack(tensors)

        def add_axis(self, x: Any, new_position: int) -> Any:
            return x.unsqueeze(new_position)

        def add_axes(self, x: Any, n_axes: int, pos2len: dict[int, int]) -> Any:
            for position in pos2len:
                x = x.unsqueeze(position)
            return x.expand([pos2len.get(axis, -1) for axis in range(n_axes)])

        def tile(self, x: Any, repeats: Any) -> Any:
            return x.repeat(repeats)

        def concat(self, tensors: Any, axis: int) -> Any:
            return self.pullback.cat(tensors, axis)

        def is_float_type(self, x: Any) -> bool:
            return bool(x.dtype.is_floating_point)

        def einsum(self, pattern: str, *x: Any) -> Any:
            return self.pullback.einsum(pattern, *x)

    _HELD.append(PullbackBackend)
    return PullbackBackend


#: einops keeps its backends by weak references only
_HELD: list[type] = []
