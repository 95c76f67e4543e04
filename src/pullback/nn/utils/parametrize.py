"""Parametrizations: parameters and buffers of modules that are functions of others, under PyTorch's names and keys.

A parametrized tensor `weight` is computed each time that it is read, from `parametrizations.weight.original` (or
`original0`, `original1` … where the parametrization's `right_inverse` gives several). Writing it goes through
`right_inverse`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ...ops.primitive import user_source
from ...tensor import Tensor
from ...tensor.grad_modes import no_grad
from ...tensor.state import STATE
from ...tensor.store import structure_changed
from ..modules.container import ModuleDict, ModuleList
from ..modules.module import Module
from ..parameter import Parameter

#: while a region of `cached` is open, the tensors computed in it, by module and name
_CACHE: dict[tuple[int, str], Any] = {}
_depth = [0]


@contextmanager
def cached() -> Iterator[None]:
    """Inside, each parametrized tensor is computed once."""
    _depth[0] += 1
    try:
        yield
    finally:
        _depth[0] -= 1
        if not _depth[0]:
            _CACHE.clear()


class ParametrizationList(ModuleList):
    """The parametrizations of one tensor, applied in order to what they begin with."""

    def __init__(self, modules: Sequence[Module], original: Tensor, unsafe: bool = False):
        if not modules:
            raise ValueError(f"ParametrizationList takes one parametrization at least (at {user_source()})")
        super().__init__(modules)
        self.unsafe = unsafe
        given: Any = original.detach()
        with no_grad():
            for module in reversed(modules):
                given = _inverted(module, given)
        self.is_tensor = isinstance(given, Tensor)
        if self.is_tensor:
            self._check_first(given, original)
            self._hold("original", given, original)
            self.ntensors = 1
        else:
            if not isinstance(given, (tuple, list)) or not all(isinstance(t, Tensor) for t in given):
                raise ValueError(
                    f"right_inverse must give a tensor or a sequence of tensors, got {type(given).__name__} "
                    f"(at {user_source()})"
                )
            self.ntensors = len(given)
            for place, tensor in enumerate(given):
                self._hold(f"original{place}", tensor, original)
        if not unsafe:
            self._check_result(original)

    def _hold(self, name: str, tensor: Tensor, original: Tensor) -> None:
        if isinstance(original, Parameter):
            self.register_parameter(name, Parameter(tensor, requires_grad=original.requires_grad))
        else:
            self.register_buffer(name, tensor)

    def _check_first(self, given: Tensor, original: Tensor) -> None:
        if not self.unsafe and given.dtype is not original.dtype:
            raise ValueError(
                f"right_inverse gave {given.dtype.name} for a tensor of {original.dtype.name} (at {user_source()}); "
                "unsafe=True allows it"
            )

    def _check_result(self, original: Tensor) -> None:
        with no_grad():
            found = self()
        kinds = [(tuple(t.shape), t.dtype.name) if isinstance(t, Tensor) else t for t in (found, original)]
        if kinds[0] != kinds[1]:
            raise ValueError(
                f"a parametrization must keep shape and dtype {kinds[1]}, and gives {kinds[0]} (at {user_source()}); "
                "unsafe=True allows it"
            )

    def originals(self) -> list[Tensor]:
        """What the parametrized tensor is computed from."""
        names = ["original"] if self.is_tensor else [f"original{place}" for place in range(self.ntensors)]
        return [getattr(self, name) for name in names]

    def right_inverse(self, value: Tensor) -> None:
        """Have the parametrized tensor be `value`, as far as the parametrizations' `right_inverse` finds the way."""
        with no_grad():
            given: Any = value.detach()
            for module in reversed(list(self)):
                if not hasattr(module, "right_inverse"):
                    raise RuntimeError(
                        f"{type(module).__name__} has no right_inverse, so that the tensor cannot be written "
                        f"(at {user_source()})"
                    )
                given = module.right_inverse(given)
            listed = [given] if self.is_tensor else list(given)
            for original, tensor in zip(self.originals(), listed, strict=True):
                if tensor.shape == original.shape:
                    original.copy_(tensor)
                else:
                    original.data = tensor

    def forward(self) -> Tensor:
        """The parametrized tensor."""
        value: Any = self[0](*self.originals())
        for module in list(self)[1:]:
            value = module(value)
        return value


def _inverted(module: Any, value: Any) -> Any:
    if not hasattr(module, "right_inverse"):
        return value
    try:
        return module.right_inverse(value)
    except NotImplementedError:
        return value


def register_parametrization(
    module: Module, tensor_name: str, parametrization: Module, *, unsafe: bool = False
) -> Module:
    """Have the parameter or buffer `tensor_name` computed by `parametrization`, a module; on top of those it has.

    Without `unsafe` it must keep the tensor's shape and dtype, which is tried. As in PyTorch the class of `module`
    becomes one of its own, that reads the tensor as a property.

    >>> class Symmetric(pb.nn.Module):
    ...     def forward(self, x):
    ...         return x.triu() + x.triu(1).mT
    >>> layer = pb.nn.utils.parametrize.register_parametrization(pb.nn.Linear(2, 2), "weight", Symmetric())
    >>> bool((layer.weight == layer.weight.mT).all())
    True
    """
    parametrization.train(module.training)
    if is_parametrized(module, tensor_name):
        _append(module, tensor_name, parametrization, unsafe)
        return module
    parameters, buffers, _ = module._stores()
    store: dict[str, Any] = parameters if tensor_name in parameters else buffers
    original = store.get(tensor_name)
    if original is None:
        raise ValueError(
            f"{type(module).__name__} has no parameter, buffer or parametrized tensor {tensor_name!r} "
            f"(at {user_source()})"
        )
    held = ParametrizationList([parametrization], original, unsafe)
    delattr(module, tensor_name)
    if not is_parametrized(module):
        _give_class(module)
        module.parametrizations = ModuleDict()
    setattr(type(module), tensor_name, property(_reader(tensor_name), _writer(tensor_name)))
    module.parametrizations[tensor_name] = held
    return module


def _append(module: Any, name: str, parametrization: Any, unsafe: bool) -> None:
    held = module.parametrizations[name]
    if not unsafe:
        with no_grad():
            value = getattr(module, name)
            found = parametrization(value)
            if (found.shape, found.dtype) != (value.shape, value.dtype):
                raise ValueError(
                    f"a parametrization must keep shape and dtype {value.dtype.name}{list(value.shape)}, and gives "
                    f"{found.dtype.name}{list(found.shape)} (at {user_source()}); unsafe=True allows it"
                )
    if hasattr(parametrization, "right_inverse"):
        with no_grad():
            for original in held.originals():
                original.copy_(_inverted(parametrization, original.detach()))
    held.append(parametrization)
    held.unsafe |= unsafe


def _give_class(module: Any) -> None:
    """A class of the module's own, on which properties can stand."""
    before = type(module)
    made = type(f"Parametrized{before.__name__}", (before,), {"__module__": before.__module__})
    structure_changed()
    module.__class__ = made


def _reader(name: str) -> Any:
    def _read(self: Any) -> Any:
        if not _depth[0] or STATE.trace is not None:
            return self.parametrizations[name]()
        key = (id(self), name)
        if key not in _CACHE:
            _CACHE[key] = self.parametrizations[name]()
        return _CACHE[key]

    return _read


def _writer(name: str) -> Any:
    def _write(self: Any, value: Tensor) -> None:
        self.parametrizations[name].right_inverse(value)

    return _write


def is_parametrized(module: Any, tensor_name: str | None = None) -> bool:
    """Whether the module has parametrized tensors, or this one is."""
    held = module.__dict__.get("_modules", {}).get("parametrizations")
    if not isinstance(held, ModuleDict):
        return False
    return len(held) > 0 if tensor_name is None else tensor_name in held


def remove_parametrizations(module: Any, tensor_name: str, leave_parametrized: bool = True) -> Any:
    """Make the tensor a parameter or buffer again: of the value that it has, or of `original` otherwise."""
    if not is_parametrized(module, tensor_name):
        raise ValueError(f"{type(module).__name__} has no parametrized tensor {tensor_name!r} (at {user_source()})")
    held = module.parametrizations[tensor_name]
    if not leave_parametrized and not held.is_tensor:
        raise ValueError(
            f"{tensor_name!r} is computed from several tensors, so that leave_parametrized=False leaves none "
            f"(at {user_source()})"
        )
    first = held.originals()[0]
    with no_grad():
        value = getattr(module, tensor_name).detach() if leave_parametrized else first.detach()
    kept: Any = value.clone()
    if isinstance(first, Parameter):
        kept = first
        kept.data = value.clone()
    delattr(type(module), tensor_name)
    del module.parametrizations[tensor_name]
    if not is_parametrized(module):
        del module.parametrizations
        structure_changed()
        module.__class__ = type_before_parametrizations(module)
    if isinstance(kept, Parameter):
        module.register_parameter(tensor_name, kept)
    else:
        module.register_buffer(tensor_name, kept)
    return module


def type_before_parametrizations(module: Any) -> type:
    """The class that the module had before it was parametrized."""
    cls = type(module)
    return cls.__mro__[1] if cls.__name__.startswith("Parametrized") and len(cls.__bases__) == 1 else cls


def transfer_parametrizations_and_params(from_module: Any, to_module: Any, tensor_name: str | None = None) -> Any:
    """Give `to_module` the parametrizations of `from_module`, all or those of one tensor, and what they begin with."""
    names = list(from_module.parametrizations) if tensor_name is None else [tensor_name]
    for name in names:
        source = from_module.parametrizations[name]
        if not hasattr(to_module, name):
            setattr(to_module, name, Parameter(getattr(from_module, name).detach().clone()))
        for parametrization in source:
            register_parametrization(to_module, name, parametrization, unsafe=True)
        target = to_module.parametrizations[name]
        with no_grad():
            for mine, theirs in zip(target.originals(), source.originals(), strict=True):
                mine.data = theirs.detach().clone()
    return to_module


__all__ = [
    "ParametrizationList",
    "cached",
    "is_parametrized",
    "register_parametrization",
    "remove_parametrizations",
    "transfer_parametrizations_and_params",
    "type_before_parametrizations",
]
