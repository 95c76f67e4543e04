"""A module called with other parameters and buffers than its own."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ...ops.primitive import unnamed, user_source
from ...tensor import Tensor
from ...tensor.state import STATE
from ...tensor.store import structure_changed
from ..modules.module import Module

_MISSING = object()


def functional_call(
    module: Module,
    parameters_and_buffers: dict[str, Tensor],
    args: Any = None,
    kwargs: dict[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """As `pullback.func.functional_call`, under its older name, which PyTorch has deprecated."""
    warnings.warn(
        "nn.utils.stateless.functional_call is deprecated: use pullback.func.functional_call",
        FutureWarning,
        stacklevel=2,
    )
    return call_with(module, parameters_and_buffers, args, kwargs, tie_weights=tie_weights, strict=strict)


@unnamed
def call_with(
    module: Module,
    dictionaries: dict[str, Tensor] | Sequence[dict[str, Tensor]],
    args: Any,
    kwargs: dict[str, Any] | None,
    *,
    tie_weights: bool,
    strict: bool,
) -> Any:
    """The module's result with the tensors of one or several dictionaries in the places that their keys name."""
    if not isinstance(module, Module):
        raise TypeError(f"functional_call takes a module, got {type(module).__name__} (at {user_source()})")
    listed = _listed(dictionaries)
    tensors = {name: tensor for dictionary in listed for name, tensor in dictionary.items()}
    given = _with_tied(module, tensors) if tie_weights else tensors
    if strict:
        _check_keys(module, given)
    arguments = () if args is None else args if isinstance(args, tuple) else (args,)
    with _in_place_of(module, given) as swapped:
        result = module(*arguments, **(kwargs or {}))
        # a forward that binds a buffer to another tensor has changed the dictionary that the buffer came from
        for dictionary in listed:
            for name in dictionary:
                if (now := swapped[name].read()) is not dictionary[name]:
                    dictionary[name] = now
    return result


def _listed(dictionaries: Any) -> list[dict[str, Tensor]]:
    if isinstance(dictionaries, dict):
        return [dictionaries]
    if not isinstance(dictionaries, (list, tuple)) or not all(isinstance(d, dict) for d in dictionaries):
        raise ValueError(
            "functional_call takes a dictionary of tensors by name, or a tuple of them, got "
            f"{type(dictionaries).__name__} (at {user_source()})"
        )
    names = [name for dictionary in dictionaries for name in dictionary]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"functional_call: {repeated} stand in more than one dictionary (at {user_source()})")
    return list(dictionaries)


def _with_tied(module: Module, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """`given`, in which a tensor for one name of a tensor that has several stands under all of them."""
    names: dict[int, list[str]] = {}
    held = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    for name, tensor in held:
        names.setdefault(id(tensor), []).append(name)
    every = dict(given)
    for tied in names.values():
        values = [given[name] for name in tied if name in given]
        if any(value is not values[0] for value in values):
            raise ValueError(
                f"functional_call got different tensors for {sorted(tied)}, which are one tensor of the module (at "
                f"{user_source()}); give one of them, or pass tie_weights=False"
            )
        if values and len(tied) > 1:
            every.update(dict.fromkeys(tied, values[0]))
    return every


def _check_keys(module: Module, given: Mapping[str, Tensor]) -> None:
    own = {*dict(module.named_parameters(remove_duplicate=False)), *dict(module.named_buffers(remove_duplicate=False))}
    unexpected, missing = sorted(given.keys() - own), sorted(own - given.keys())
    if unexpected or missing:
        said = [f"unexpected: {unexpected}"] if unexpected else []
        said += [f"missing: {missing}"] if missing else []
        raise RuntimeError(
            f"functional_call: the names do not fit {type(module).__name__} (at {user_source()}): " + "; ".join(said)
        )


class _Place:
    """Where a tensor of a module stands: in its parameters, its buffers, or among its other attributes."""

    def __init__(self, module: Module, target: str):
        owner, _, self.name = target.rpartition(".")
        self.owner = module.get_submodule(owner)
        parameters, buffers, _ = self.owner._stores()
        self.store: dict[str, Any]
        if self.name in parameters or self.name in buffers:
            self.store = parameters if self.name in parameters else buffers
        else:
            self.store = self.owner.__dict__
            held = getattr(self.owner, self.name, None)
            if not self.name or (held is not None and not (isinstance(held, Tensor) and self.name in self.store)):
                raise TypeError(
                    f"functional_call: {target!r} is not the name of a tensor of {type(module).__name__} that could be "
                    f"replaced (at {user_source()})"
                )

    def read(self) -> Any:
        """What stands there now."""
        return self.store.get(self.name, _MISSING)

    def write(self, value: Any) -> None:
        """Put `value` there, or nothing."""
        structure_changed()
        if value is _MISSING:
            self.store.pop(self.name, None)
        else:
            self.store[self.name] = value


@contextmanager
def _in_place_of(module: Module, given: dict[str, Tensor]) -> Iterator[dict[str, _Place]]:
    """Inside, the module's tensors of these names are the given ones; after it they are its own again."""
    for name, tensor in given.items():
        if not (tensor is None or isinstance(tensor, Tensor)):
            raise TypeError(
                f"functional_call: {name!r} must be a tensor or None, got {type(tensor).__name__} (at {user_source()})"
            )
    places = {name: _Place(module, name) for name in given}
    if STATE.trace is not None:
        # what a compiled step depends on are the module's own tensors, not those that stand in for them
        for owner in (module, *(place.owner for place in places.values())):  # names are those in the outermost
            STATE.trace.enter_module(owner, *owner._stores())
    before: list[tuple[_Place, Any]] = []
    try:
        for name, place in places.items():
            before.append((place, place.read()))
            place.write(given[name])
        yield places
    finally:
        # the last first: two names may be one place
        for place, value in reversed(before):
            place.write(value)


__all__ = ["call_with", "functional_call"]
