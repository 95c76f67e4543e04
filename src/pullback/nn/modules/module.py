"""Module: a part of a network, with its parameters, buffers and parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np

from ...errors import DTypeError, ShapeError
from ...graph import types
from ...graph.types import DType
from ...ops.primitive import MODE, check_dtype, user_source, within
from ...tensor import Tensor
from ...tensor.conversions import destination
from ...tensor.creation import zeros_like
from ...tensor.legacy import dtype_named
from ...tensor.memory_format import check_memory_format
from ...tensor.state import STATE
from ...tensor.store import Store, structure_changed
from ..parameter import Buffer, Parameter, Uninitialized
from . import hooks
from .checkpointing import CheckpointingMethods
from .hooks import (
    Hook,
    RemovableHandle,
    register_module_buffer_registration_hook,
    register_module_forward_hook,
    register_module_forward_pre_hook,
    register_module_full_backward_hook,
    register_module_full_backward_pre_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from .state import StateMethods
from .state import _IncompatibleKeys as _IncompatibleKeys

Self = TypeVar("Self", bound="Module")

#: hooks that run where a module is called, and whether it is a checkpointed call; hooks of its state dictionaries
_CALLED = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks", "_checkpointing")
_OF_STATE = ("_state_dict_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks")


def _addindent(s_: str, numSpaces: int) -> str:
    """Text whose lines but the first are moved to the right; PyTorch's name, for modules that print themselves."""
    return s_.replace("\n", "\n" + " " * numSpaces)


_NO_TENSOR = " must be a tensor, got "
#: what is given to modules in place of tensors
_NO_TENSORS = (np.ndarray, np.generic, list, set, dict, str, bytes, bool, int, float, complex, type(None))


def _no_tensor(module: Module, args: tuple[Any, ...], kwargs: dict[str, Any], error: Exception) -> str:
    """What is said where a module of the library has failed on something that is no tensor; empty for others, and
    where a module in it has said so.
    """
    if _NO_TENSOR in str(error) or not type(module).__module__.startswith(__name__.rpartition(".")[0]):
        return ""
    names = ("input", "target") if type(module).__name__.endswith("Loss") else ("input",)
    given = {**dict(zip(names, args, strict=False)), **{name: kwargs[name] for name in names if name in kwargs}}
    # a tuple with names, as a packed sequence is one, may be what is taken
    wrong = next((n for n, value in given.items() if type(value) is tuple or isinstance(value, _NO_TENSORS)), None)
    if wrong is None:
        return ""
    kind, mend = type(given[wrong]).__name__, "pullback.tensor(…) makes one of numbers or an array"
    if isinstance(given[wrong], tuple) and any(isinstance(part, Tensor) for part in given[wrong]):
        mend = "one of those in it may be meant, as the output of an LSTM beside its state"
    return f"{type(module).__name__}: the {wrong}{_NO_TENSOR}{kind} (at {user_source()}); {mend}"


class Module(StateMethods, CheckpointingMethods):
    """The base of networks and their parts, as PyTorch's: assign parameters and parts as attributes, define `forward`.

    >>> class Twice(pb.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.layer = pb.nn.Linear(3, 3)
    ...     def forward(self, x):
    ...         return self.layer(self.layer(x))
    >>> Twice()(pb.ones(2, 3)).shape
    pullback.Size([2, 3])
    """

    #: buffers of this class that stay in their dtype whatever the module is converted to
    _keep_dtype: tuple[str, ...] = ()

    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module | None]
    _not_saved: set[str]

    def __init__(self) -> None:
        for store in ("_parameters", "_buffers", "_modules", *_CALLED):
            object.__setattr__(self, store, Store())
        for name in _OF_STATE:
            object.__setattr__(self, name, {})
        object.__setattr__(self, "_not_saved", set())
        object.__setattr__(self, "_training", True)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes."""
        raise NotImplementedError(f"{type(self).__name__} must define forward()")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if STATE.trace is not None:
            STATE.trace.enter_module(self, *self._stores(), *(self.__dict__[name] for name in _CALLED), *hooks.GLOBAL)
        before, MODE.modules = MODE.modules, within(self)
        try:
            if any(map(self.__dict__.get, _CALLED)) or any(hooks.GLOBAL):
                return hooks.called(self, args, kwargs)
            return self.forward(*args, **kwargs)
        except (AttributeError, TypeError, DTypeError, ShapeError) as error:
            if told := _no_tensor(self, args, kwargs, error):
                raise TypeError(told) from error
            raise
        finally:
            MODE.modules = before

    # ---- attributes

    @property
    def training(self) -> bool:
        """Whether the module is being trained (see train and eval). A compiled step that reads it follows its
        changes.
        """
        if STATE.trace is not None:
            return bool(STATE.trace.guard(lambda: self._training, about=self))
        return self._training

    @training.setter
    def training(self, mode: bool) -> None:
        if STATE.trace is not None:
            STATE.trace.decide(self)
        object.__setattr__(self, "_training", bool(mode))

    def _stores(self) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        try:
            return self.__dict__["_parameters"], self.__dict__["_buffers"], self.__dict__["_modules"]
        except KeyError:
            raise AttributeError(
                f"{type(self).__name__}: call super().__init__() at the start of __init__, before assigning parameters "
                f"or modules (at {user_source()})"
            ) from None

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__"):
            for store in self._stores():
                if name in store:
                    return store[name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r} (at {user_source()})")

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Parameter):
            self._release(name, self._stores()[0])
            self.register_parameter(name, value)
        elif isinstance(value, Module):
            self._release(name, self._stores()[2])
            self.add_module(name, value)
        elif isinstance(value, Buffer):
            self._release(name, self._stores()[1])
            self.register_buffer(name, value, value.persistent)
        else:
            self._set_other(name, value)

    def _set_other(self, name: str, value: Any) -> None:
        """Assign what is neither a parameter nor a module: maybe to a registered name, which takes only its kind."""
        parameters, buffers, modules = (self.__dict__.get(s, {}) for s in ("_parameters", "_buffers", "_modules"))
        if name in parameters:
            self._check_kind(name, value, Parameter, "parameter")
            parameters[name] = None
        elif name in modules:
            self._check_kind(name, value, Module, "module")
            modules[name] = None
        elif name in buffers:
            if not (value is None or isinstance(value, Tensor)):
                self._check_kind(name, value, Tensor, "buffer")
            buffers[name] = value
        else:
            if self.__dict__.get(name, self) is not value:
                structure_changed()
            object.__setattr__(self, name, value)

    def _check_kind(self, name: str, value: Any, kind: type, called: str) -> None:
        if value is not None:
            raise TypeError(
                f"{type(self).__name__}.{name} is a {called} and takes a {kind.__name__} or None, got "
                f"{type(value).__name__} (at {user_source()})"
            )

    def __delattr__(self, name: str) -> None:
        for store in self._stores():
            if name in store:
                del store[name]
                self._not_saved.discard(name)
                return
        structure_changed()
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        names = {*super().__dir__(), *(name for store in self._stores() for name in store)}
        return sorted(name for name in names if not name[0].isdigit())

    def _release(self, name: str, store: dict[str, Any]) -> None:
        """Make `name` free for `store`, into which an assignment puts it."""
        self.__dict__.pop(name, None)
        for other in self._stores():
            if other is not store:
                other.pop(name, None)

    def _claim(self, name: str, store: dict[str, Any]) -> None:
        """Check that `name` can be one level of a dotted key, and is nothing else's."""
        if not isinstance(name, str):
            raise TypeError(f"a name must be a string, got {name!r} (at {user_source()})")
        if not name or "." in name:
            raise KeyError(f"a name must not be empty and be without dots, got {name!r} (at {user_source()})")
        if name not in store and (
            name in self.__dict__
            or any(name in other for other in self._stores())
            or any(name in vars(parent) for parent in type(self).__mro__)
        ):
            raise KeyError(f"{type(self).__name__} has an attribute {name!r} already (at {user_source()})")

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter under `name`; None holds the place of one that is left out."""
        parameters, _, _ = self._stores()
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(
                f"parameter {name!r} must be an nn.Parameter or None, got {type(param).__name__} (at {user_source()})"
            )
        self._claim(name, parameters)
        parameters[name] = hooks.registered(hooks.PARAMETERS, self, name, param)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that is part of the module's state but not trained; in state_dict only if `persistent`."""
        _, buffers, _ = self._stores()
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(
                f"buffer {name!r} must be a tensor or None, got {type(tensor).__name__} (at {user_source()})"
            )
        self._claim(name, buffers)
        buffers[name] = hooks.registered(hooks.BUFFERS, self, name, tensor)
        (self._not_saved.discard if persistent else self._not_saved.add)(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a part under `name`."""
        _, _, modules = self._stores()
        if module is not None and not isinstance(module, Module):
            raise TypeError(
                f"module {name!r} must be an nn.Module or None, got {type(module).__name__} (at {user_source()})"
            )
        self._claim(name, modules)
        modules[name] = hooks.registered(hooks.MODULES, self, name, module)

    def register_module(self, name: str, module: Module | None) -> None:
        """As add_module."""
        self.add_module(name, module)

    # ---- walking

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """The module and all parts at any depth, each once, with dotted names; its own name is `prefix`."""
        seen = set() if memo is None else memo
        if self in seen:
            return
        if remove_duplicate:
            seen.add(self)
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                yield from module.named_modules(seen, f"{prefix}.{name}" if prefix else name, remove_duplicate)

    def modules(self) -> Iterator[Module]:
        """The module and all parts at any depth, each once."""
        return (module for _, module in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The direct parts with their names, each once."""
        seen: set[Module] = set()
        for name, module in self._modules.items():
            if module is not None and module not in seen:
                seen.add(module)
                yield name, module

    def children(self) -> Iterator[Module]:
        """The direct parts, each once."""
        return (module for _, module in self.named_children())

    def _named(self, store: str, prefix: str, recurse: bool, remove_duplicate: bool) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        owners = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate) if recurse else [(prefix, self)]
        for owner_name, owner in owners:
            for name, value in owner.__dict__[store].items():
                if value is not None and id(value) not in seen:
                    if remove_duplicate:
                        seen.add(id(value))
                    yield f"{owner_name}.{name}" if owner_name else name, value

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Parameters with dotted names; one that is used in several places comes once, under its first name."""
        return self._named("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """The parameters, each once."""
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Buffers with dotted names, each once."""
        return self._named("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """The buffers, each once."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def get_submodule(self, target: str) -> Module:
        """The part of the dotted name `target`; the module itself for ""."""
        found: Any = self
        for name in target.split(".") if target else ():
            found = found._modules.get(name) if isinstance(found, Module) else None
            if found is None:
                raise AttributeError(
                    f"{type(self).__name__} has no module {target!r}: there is no {name!r} (at {user_source()})"
                )
        return found

    def get_parameter(self, target: str) -> Parameter:
        """The parameter of the dotted name `target`."""
        owner, _, name = target.rpartition(".")
        found = self.get_submodule(owner)._parameters.get(name)
        if found is None:
            raise AttributeError(f"{type(self).__name__} has no parameter {target!r} (at {user_source()})")
        return found

    def get_buffer(self, target: str) -> Tensor:
        """The buffer of the dotted name `target`."""
        owner, _, name = target.rpartition(".")
        found = self.get_submodule(owner)._buffers.get(name)
        if found is None:
            raise AttributeError(f"{type(self).__name__} has no buffer {target!r} (at {user_source()})")
        return found

    def set_submodule(self, target: str, module: Module, strict: bool = False) -> None:
        """Put `module` at the dotted name `target`, whose owner must be there; with `strict` it must be there too."""
        owner, _, name = target.rpartition(".")
        if not name:
            raise ValueError(f"set_submodule takes the name of a part, got {target!r} (at {user_source()})")
        parent = self.get_submodule(owner)
        if strict and parent._modules.get(name) is None:
            raise AttributeError(f"{type(self).__name__} has no module {target!r} (at {user_source()})")
        parent.add_module(name, module)

    # ---- hooks

    def _take_hooks(self, other: Module) -> None:
        """Have the hooks of calls of another module, whose place this one takes; they are removed as before."""
        for name in _CALLED:
            object.__setattr__(self, name, other.__dict__[name])

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call `hook(module, args)` before forward; what it returns, if not None, are the arguments instead.

        With `with_kwargs` it is `hook(module, args, kwargs)`, which returns None or a pair. Inside a compiled step
        hooks run while the step is recorded (see register_forward_hook).
        """
        return hooks.register(self._forward_pre_hooks, Hook(hook, with_kwargs), prepend)

    def register_forward_hook(
        self,
        hook: Callable[..., Any],
        *,
        prepend: bool = False,
        with_kwargs: bool = False,
        always_call: bool = False,
    ) -> RemovableHandle:
        """Call `hook(module, args, output)` after forward; what it returns, if not None, is the output instead.

        With `with_kwargs` it is `hook(module, args, kwargs, output)`. With `always_call` it is called, with None for
        the output, where forward fails too. Inside a compiled step hooks run while the step is recorded: what they
        compute is part of the step, and asking for a value raises a TraceError.

        >>> layer = pb.nn.Linear(3, 2)
        >>> handle = layer.register_forward_hook(lambda module, args, output: output.relu() * 0)
        >>> layer(pb.ones(1, 3)).tolist()
        [[0.0, 0.0]]
        >>> handle.remove()
        """
        return hooks.register(self._forward_hooks, Hook(hook, with_kwargs, always_call), prepend)

    def register_full_backward_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call `hook(module, grad_output)` when the gradients of the outputs are there, before they are passed on;
        what it returns, if not None, takes their place. `grad_output` is a tuple.
        """
        return hooks.register(self._backward_pre_hooks, Hook(hook), prepend)

    def register_full_backward_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call `hook(module, grad_input, grad_output)` when the gradients of the inputs are there; what it returns, if
        not None, takes the place of `grad_input`.

        Both are tuples, with None for what is no tensor or needs no gradient. Arguments by name are not seen.

        >>> layer = pb.nn.Linear(3, 2)
        >>> handle = layer.register_full_backward_hook(lambda module, into, out: (into[0].abs() * 0,))
        >>> x = pb.ones(1, 3, requires_grad=True)
        >>> layer(x).sum().backward()
        >>> x.grad.tolist()
        [[0.0, 0.0, 0.0]]
        """
        return hooks.register(self._backward_hooks, Hook(hook), prepend)

    def register_backward_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """PyTorch's former hook, whose gradients are those of the last operation; it is not there."""
        raise NotImplementedError(
            f"register_backward_hook is not there (at {user_source()}): its gradients are not those of the module. "
            "Use register_full_backward_hook."
        )

    # ---- changing all

    def train(self: Self, mode: bool = True) -> Self:
        """Set the module and its parts to training, or evaluation with False."""
        if not isinstance(mode, bool):
            raise ValueError(f"training mode is expected to be boolean, got {mode!r} (at {user_source()})")
        for module in self.modules():
            module.training = mode
        return self

    def eval(self: Self) -> Self:
        """Set the module and its parts to evaluation."""
        return self.train(False)

    def apply(self: Self, fn: Callable[[Module], object]) -> Self:
        """Call `fn` on every part, then on the module itself."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or make them zeros."""
        for parameter in self.parameters():
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad = zeros_like(parameter.grad)

    def requires_grad_(self: Self, requires_grad: bool = True) -> Self:
        """Make all parameters take part in differentiation, or not."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def to(
        self: Self,
        *args: Any,
        dtype: DType | None = None,
        device: str | None = None,
        tensor: Tensor | None = None,
        non_blocking: bool = False,
        memory_format: object = None,
    ) -> Self:
        """All floating-point parameters and buffers in another dtype: `to(dtype)`, `to(device, dtype)` or `to(tensor)`.
        The only device is "cpu", and there is nothing to block.
        """
        check_memory_format("to", memory_format)
        dtype, _ = destination(args, dtype, device, tensor, flags=1)
        if dtype is None:
            return self
        check_dtype(dtype)
        if not dtype.is_floating_point:
            raise DTypeError(f"a module can only be given a floating point dtype, got {dtype!r} (at {user_source()})")
        for module in self.modules():
            module._take_dtype(dtype)
        fixed = {id(module._buffers.get(name)) for module in self.modules() for name in module._keep_dtype}
        for held in [*self.parameters(), *self.buffers()]:
            if isinstance(held, Uninitialized):
                held._to_dtype(dtype)
            elif id(held) not in fixed and held.is_floating_point() and held.dtype is not dtype:
                gradient, held.grad = held.grad, None
                held.data = held.data.to(dtype)
                held.grad = None if gradient is None else gradient.detach().to(dtype)
        return self

    def to_empty(self: Self, *, device: str | None, recurse: bool = True) -> Self:
        """All parameters and buffers, without `recurse` only the module's own, as tensors to be filled: zeros."""
        if device not in (None, "cpu"):
            raise ValueError(f'to_empty(): device {device!r} is not there (at {user_source()}); Pullback runs on "cpu"')
        for held in [*self.parameters(recurse), *self.buffers(recurse)]:
            held.data = zeros_like(held)
            gradient = held.grad
            held.grad = None if gradient is None else zeros_like(gradient)
        return self

    def float(self: Self) -> Self:
        """All floating-point parameters and buffers as float32."""
        return self.to(types.float32)

    def double(self: Self) -> Self:
        """All floating-point parameters and buffers as float64."""
        return self.to(types.float64)

    def type(self: Self, dst_type: DType | str) -> Self:
        """All floating-point parameters and buffers in another dtype, also by its name in `Tensor.type()`."""
        return self.to(dtype_named(dst_type))

    def cpu(self: Self) -> Self:
        """The module itself: the only device is "cpu"."""
        return self

    def cuda(self, device: object = None) -> Any:
        """There are no GPUs."""
        raise ValueError(f'cuda() is not there (at {user_source()}); Pullback runs on "cpu"')

    def share_memory(self) -> Any:
        """There is no memory shared between processes."""
        raise NotImplementedError(f"share_memory() is not there (at {user_source()}): threads share a module as it is")

    def compile(self) -> None:
        """Not there: a compiled forward alone would have no gradients outside. Compile the whole step."""
        raise NotImplementedError(
            f"Module.compile() is not there (at {user_source()}): compile the training step that "
            "calls the module, pb.compile(step)"
        )

    def _take_dtype(self, dtype: DType) -> None:
        """Note the dtype that floats are brought to, where something but parameters and buffers has one."""

    def half(self: Self) -> Self:
        """All floating-point parameters and buffers as float16."""
        return self.to(types.float16)

    def bfloat16(self: Self) -> Self:
        """All floating-point parameters and buffers as bfloat16."""
        return self.to(types.bfloat16)

    # ---- printing

    def extra_repr(self) -> str:
        """What stands between the parentheses when the module is printed."""
        return ""

    def _get_name(self) -> str:
        """What the module is printed as."""
        return type(self).__name__

    def __repr__(self) -> str:
        extra = self.extra_repr()
        lines = extra.split("\n") if extra else []
        parts = [f"({name}): " + _addindent(repr(part), 2) for name, part in self._modules.items()]
        if not parts and len(lines) <= 1:
            return f"{self._get_name()}({extra})"
        return f"{self._get_name()}(\n  " + "\n  ".join(lines + parts) + "\n)"


__all__ = [
    "Module",
    "register_module_buffer_registration_hook",
    "register_module_forward_hook",
    "register_module_forward_pre_hook",
    "register_module_full_backward_hook",
    "register_module_full_backward_pre_hook",
    "register_module_module_registration_hook",
    "register_module_parameter_registration_hook",
]
