"""What a module saves and loads: state dictionaries, as PyTorch's."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, NamedTuple

from ...errors import StateDictError
from ...ops.primitive import user_source
from ...tensor import Tensor
from ...tensor.creation import tensor
from ...tensor.grad_modes import no_grad
from ..parameter import Parameter, Uninitialized
from .hooks import RemovableHandle, register

_EXTRA = "_extra_state"


class _IncompatibleKeys(NamedTuple):
    """What load_state_dict(strict=False) left out: keys the module has and the dictionary lacks, and the reverse."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"


class StateMethods:
    """The methods of a module by which it is saved and loaded."""

    _parameters: dict[str, Any]
    _buffers: dict[str, Any]
    _modules: dict[str, Any]
    _not_saved: set[str]
    _state_dict_hooks: dict[int, Any]
    _state_dict_pre_hooks: dict[int, Any]
    _load_state_dict_pre_hooks: dict[int, Any]
    _load_state_dict_post_hooks: dict[int, Any]
    #: kept in the dictionary's `_metadata`, for modules that load what earlier versions of them saved
    _version: int | None = 1

    def get_extra_state(self) -> Any:
        """What a module that overrides it (and set_extra_state) saves beside tensors."""
        raise RuntimeError(f"{type(self).__name__} must define get_extra_state() (at {user_source()})")

    def set_extra_state(self, state: Any) -> None:
        """Take what get_extra_state gave when the module was saved."""
        raise RuntimeError(f"{type(self).__name__} must define set_extra_state() to load it (at {user_source()})")

    def _own_state(self) -> dict[str, Tensor]:
        """The module's own parameters and persistent buffers by name."""
        held = {**self._parameters, **{n: b for n, b in self._buffers.items() if n not in self._not_saved}}
        return {name: value for name, value in held.items() if value is not None}

    # ---- saving

    def state_dict(
        self, *, destination: dict[str, Any] | None = None, prefix: str = "", keep_vars: bool = False
    ) -> dict[str, Any]:
        """The parameters and persistent buffers as they are now, by dotted name; detached unless `keep_vars`.

        They are added to `destination` if one is given, with `prefix` before their names.
        """
        if destination is None:
            destination = OrderedDict()
            destination._metadata = OrderedDict()  # type: ignore[attr-defined]
        metadata = {"version": self._version}
        if hasattr(destination, "_metadata"):
            destination._metadata[prefix[:-1]] = metadata
        for hook in list(self._state_dict_pre_hooks.values()):
            hook(self, prefix, keep_vars)
        self._save_to_state_dict(destination, prefix, keep_vars)
        for name, part in self._modules.items():
            if part is not None:
                part.state_dict(destination=destination, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
        for hook, is_public in list(self._state_dict_hooks.values()):
            given = hook(self, destination, prefix, metadata)
            if given is not None:
                if is_public:
                    raise RuntimeError(f"a state_dict post-hook must return None, got {type(given).__name__}")
                destination = given
        return destination

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """Add the module's own state, without that of its parts."""
        for name, value in self._own_state().items():
            whole = keep_vars or isinstance(value, Uninitialized)
            # a buffer has no history that a dictionary would keep alive with it
            destination[prefix + name] = value if whole else value._detached(keeps=not value.requires_grad)
        if type(self).get_extra_state is not StateMethods.get_extra_state:
            destination[prefix + _EXTRA] = self.get_extra_state()

    # ---- loading

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> _IncompatibleKeys:
        """Take the values of `state_dict` (tensors or NumPy arrays), converted to the dtypes that are here.

        With `assign` its tensors themselves take the places of the module's, with their dtypes. Raises StateDictError,
        with no parameter or buffer changed, where a shape differs or, if `strict`, a key is missing or unknown.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"load_state_dict takes a dictionary, got {type(state_dict).__name__} (at {user_source()})")
        given = OrderedDict(state_dict)
        metadata = getattr(state_dict, "_metadata", {})
        given._metadata = metadata  # type: ignore[attr-defined]
        missing: list[str] = []
        unexpected: list[str] = []
        faults: list[str] = []
        give_back = self._kept_values()
        self._load(given, "", metadata, assign, (missing, unexpected, faults))
        if strict:
            faults += [f"  missing: {key}{self._shape_of(key)}" for key in missing]
            faults += [f"  unexpected: {key}{_shape(state_dict.get(key))}" for key in unexpected]
        if faults:
            give_back()
            raise StateDictError(
                "\n".join([f"the state dictionary does not fit {type(self).__name__} (at {user_source()}):", *faults])
                + ("\nPass strict=False to leave out missing and unexpected keys." if missing or unexpected else "")
            )
        return _IncompatibleKeys(missing, unexpected)

    def _kept_values(self) -> Callable[[], None]:
        """What gives all parameters and buffers back the values that they have now, and extra states."""
        before = [
            (part, name, held, type(held), held._node if isinstance(held, Uninitialized) else held.node)
            for part in self.modules()  # type: ignore[attr-defined]
            for name, held in part._own_state().items()
        ]

        extra = [
            (part, deepcopy(part.get_extra_state()))
            for part in self.modules()  # type: ignore[attr-defined]
            if type(part).get_extra_state is not StateMethods.get_extra_state
        ]

        def give_back() -> None:
            for part, state in extra:
                part.set_extra_state(state)
            for part, name, held, kind, node in before:
                (part._parameters if name in part._parameters else part._buffers)[name] = held
                if type(held) is kind:
                    held._overwrite(node)
                else:
                    held._set_own_leaf(node, held.requires_grad)
                    held.__class__ = kind

        return give_back

    def _load(
        self, given: Any, prefix: str, metadata: Any, assign: bool, said: tuple[list[str], list[str], list[str]]
    ) -> None:
        """Load the module and then its parts from the keys that begin with `prefix`."""
        local = dict(metadata.get(prefix[:-1], {}))
        if assign:
            local["assign_to_params_buffers"] = True
        self._load_from_state_dict(given, prefix, local, True, *said)
        for name, part in self._modules.items():
            if part is not None:
                inner = f"{prefix}{name}."
                part._load({k: v for k, v in given.items() if k.startswith(inner)}, inner, metadata, assign, said)
        for hook in list(self._load_state_dict_post_hooks.values()):
            if hook(self, _IncompatibleKeys(*said[:2])) is not None:
                raise RuntimeError("a load_state_dict post-hook must return None, and may change the lists it gets")

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Load the module's own state, without that of its parts; what is wrong is added to the three lists."""
        for hook in list(self._load_state_dict_pre_hooks.values()):
            hook(state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        own = self._own_state()
        for name, held in own.items():
            if prefix + name in state_dict:
                assign = local_metadata.get("assign_to_params_buffers", False)
                self._take(name, held, prefix + name, state_dict[prefix + name], assign, error_msgs)
            elif strict:
                missing_keys.append(prefix + name)
        extra = prefix + _EXTRA
        if type(self).set_extra_state is not StateMethods.set_extra_state:
            if extra in state_dict:
                self.set_extra_state(state_dict[extra])
            elif strict:
                missing_keys.append(extra)
        elif strict and extra in state_dict:
            unexpected_keys.append(extra)
        if strict:
            for key in state_dict:
                if key.startswith(prefix) and key != extra:
                    first, dot, _ = key[len(prefix) :].partition(".")
                    if first not in (self._modules if dot else own):
                        unexpected_keys.append(key)

    def _take(self, name: str, held: Tensor, key: str, value: Any, assign: bool, error_msgs: list[str]) -> None:
        """Load one parameter or buffer."""
        loaded = as_tensor(value)
        if isinstance(loaded, Uninitialized):
            if not isinstance(held, Uninitialized):
                error_msgs.append(f"  no value: {key} has no shape and no value yet in the dictionary")
            return
        if isinstance(held, Uninitialized):
            if not assign:
                held.materialize(loaded.shape)
        elif held.shape == () and loaded.shape == (1,):
            loaded = loaded[0]
        if not isinstance(held, Uninitialized) and loaded.shape != held.shape:
            error_msgs.append(
                f"  wrong shape: {key}: {list(loaded.shape)} in the dictionary, {list(held.shape)} in the module"
            )
        elif assign:
            if isinstance(held, Parameter):
                if not isinstance(loaded, Parameter):
                    loaded = Parameter(loaded, held.requires_grad)
                loaded.requires_grad_(held.requires_grad)
            setattr(self, name, loaded)
        else:
            with no_grad():
                held.copy_(loaded)

    def _shape_of(self, key: str) -> str:
        owner, _, name = key.rpartition(".")
        return _shape(self.get_submodule(owner)._own_state().get(name))  # type: ignore[attr-defined]

    # ---- hooks

    def register_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(module, prefix, keep_vars)` before state_dict collects the module."""
        return register(self._state_dict_pre_hooks, hook)

    def register_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(module, state_dict, prefix, local_metadata)` after state_dict has collected the module and its
        parts; it changes the dictionary in place.
        """
        return register(self._state_dict_hooks, (hook, True))

    def _register_state_dict_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """As register_state_dict_post_hook, of a hook that may return another dictionary."""
        return register(self._state_dict_hooks, (hook, False))

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(module, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)`
        before the module is loaded; it may change the dictionary and the lists in place.
        """
        return register(self._load_state_dict_pre_hooks, _WithModule(self, hook))

    def _register_load_state_dict_pre_hook(
        self, hook: Callable[..., Any], with_module: bool = False
    ) -> RemovableHandle:
        """As register_load_state_dict_pre_hook; the hook gets the module only `with_module`."""
        return register(self._load_state_dict_pre_hooks, _WithModule(self, hook) if with_module else hook)

    def register_load_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(module, incompatible_keys)` after the module and its parts are loaded; it may change the lists
        `missing_keys` and `unexpected_keys` in place, before they are looked at.
        """
        return register(self._load_state_dict_post_hooks, hook)


class _WithModule:
    """A hook that gets its module first; a copy of the module has a copy of it."""

    def __init__(self, module: Any, hook: Callable[..., Any]):
        self.module, self.hook = module, hook

    def __call__(self, *args: Any) -> Any:
        return self.hook(self.module, *args)


def as_tensor(value: Any) -> Tensor:
    """A value of a state dictionary, of whichever library, as a tensor."""
    return value if isinstance(value, Tensor) else tensor(value)


def _shape(value: Any) -> str:
    return "" if isinstance(value, Uninitialized) or not hasattr(value, "shape") else f" {list(value.shape)}"


__all__ = ["StateMethods", "as_tensor"]
