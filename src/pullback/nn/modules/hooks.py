"""Hooks: functions that are called before and after modules, forward and backward.

Inside a compiled step a hook runs while the step is recorded: what it does with tensors becomes part of the step; it is
called again where the step is recorded anew, and a hook that asks for a value gets a TraceError.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

from ...autograd.function import with_gradients
from ...errors import GradientError
from ...ops.primitive import checkpoint_mode, user_source
from ...tensor import Tensor
from ...tensor.grad_modes import is_grad_enabled
from ...tensor.hooks import RemovableHandle
from ...tensor.store import Store


class Hook(NamedTuple):
    """A function and how it is to be called."""

    function: Callable[..., Any]
    with_kwargs: bool = False
    always_call: bool = False


def register(hooks: dict[int, Any], hook: Any, prepend: bool = False) -> RemovableHandle:
    """Enter a hook, behind those that are there or in front of them."""
    handle = RemovableHandle(hooks)
    if prepend:
        others = dict(hooks)
        hooks.clear()
        hooks[handle.id] = hook
        hooks.update(others)
    else:
        hooks[handle.id] = hook
    return handle


#: hooks of all modules, which run before a module's own
FORWARD_PRE, FORWARD, BACKWARD_PRE, BACKWARD = Store(), Store(), Store(), Store()
GLOBAL = (FORWARD_PRE, FORWARD, BACKWARD_PRE, BACKWARD)
#: hooks of all modules that see parameters, buffers and parts as they are registered
PARAMETERS, BUFFERS, MODULES = Store(), Store(), Store()


def register_module_forward_pre_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call `hook(module, args)` before every module's forward; a result that is not None replaces the arguments."""
    return register(FORWARD_PRE, Hook(hook))


def register_module_forward_hook(
    hook: Callable[..., Any], *, with_kwargs: bool = False, always_call: bool = False
) -> RemovableHandle:
    """Call `hook(module, args, output)` after every module's forward; a result that is not None replaces the output."""
    return register(FORWARD, Hook(hook, with_kwargs, always_call))


def register_module_full_backward_pre_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call `hook(module, grad_output)` for every module, as Module.register_full_backward_pre_hook."""
    return register(BACKWARD_PRE, Hook(hook))


def register_module_full_backward_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call `hook(module, grad_input, grad_output)` for every module, as Module.register_full_backward_hook."""
    return register(BACKWARD, Hook(hook))


def register_module_parameter_registration_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call `hook(module, name, parameter)` when a parameter is registered; a result that is not None replaces it."""
    return register(PARAMETERS, hook)


def register_module_buffer_registration_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call `hook(module, name, buffer)` when a buffer is registered; a result that is not None replaces it."""
    return register(BUFFERS, hook)


def register_module_module_registration_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call `hook(module, name, part)` when a part is registered; a result that is not None replaces it."""
    return register(MODULES, hook)


def registered(hooks: dict[int, Any], module: Any, name: str, value: Any) -> Any:
    """What the hooks make of a parameter, buffer or part that is registered."""
    for hook in list(hooks.values()):
        replaced = hook(module, name, value)
        value = value if replaced is None else replaced
    return value


def called(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The module's result, with every hook run."""
    run: set[int] = set()
    try:
        return _called(module, args, kwargs, run)
    except Exception:
        _call_what_is_always_called(module, args, kwargs, run)
        raise


def _called(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], run: set[int]) -> Any:
    for hook in [*FORWARD_PRE.values(), *module._forward_pre_hooks.values()]:
        args, kwargs = _prepared(hook, module, args, kwargs)
    backward = _Backward(module)
    if backward.is_needed:
        args = backward.around_inputs(args)
    with checkpoint_mode() if module._checkpointing else nullcontext():
        result = module.forward(*args, **kwargs)
    for number, hook in [*FORWARD.items(), *module._forward_hooks.items()]:
        run.add(number)
        replaced = _after(hook, module, args, kwargs, result)
        result = result if replaced is None else replaced
    return backward.around_outputs(result) if backward.is_needed else result


def _prepared(hook: Hook, module: Any, args: Any, kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if not hook.with_kwargs:
        given = hook.function(module, args)
        return (args if given is None else given if isinstance(given, tuple) else (given,)), kwargs
    given = hook.function(module, args, kwargs)
    if given is None:
        return args, kwargs
    if not isinstance(given, tuple) or len(given) != 2:
        raise RuntimeError(
            f"a forward pre-hook with kwargs must return None or (args, kwargs), got {given!r} (at {user_source()})"
        )
    return given


def _after(hook: Hook, module: Any, args: Any, kwargs: Any, result: Any) -> Any:
    return hook.function(module, args, kwargs, result) if hook.with_kwargs else hook.function(module, args, result)


def _call_what_is_always_called(module: Any, args: Any, kwargs: Any, run: set[int]) -> None:
    for number, hook in [*FORWARD.items(), *module._forward_hooks.items()]:
        if hook.always_call and number not in run:
            try:
                _after(hook, module, args, kwargs, None)
            except Exception as error:
                warnings.warn(
                    f"a forward hook with always_call=True failed after forward had failed: {error}", stacklevel=4
                )


class _Backward:
    """The backward hooks of one call of a module, which see the gradients of its outputs and then of its inputs.

    All gradients of a call have to be there at once.
    """

    def __init__(self, module: Any):
        self.module = module
        self.before = [hook.function for hook in [*BACKWARD_PRE.values(), *module._backward_pre_hooks.values()]]
        self.after = [hook.function for hook in [*BACKWARD.values(), *module._backward_hooks.values()]]
        self.is_needed = bool(self.before or self.after)
        self.grad_outputs: tuple[Any, ...] | None = None
        self.inputs = 0
        self.sees_inputs = False

    def around_inputs(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments, whose gradients pass by here."""
        self.inputs = len(args)
        wrapped, self.sees_inputs = _around(args, self._inputs_arrived)
        return wrapped

    def around_outputs(self, result: Any) -> Any:
        """The result, whose gradients pass by here."""
        if not isinstance(result, (Tensor, tuple)):
            warnings.warn(
                f"backward hooks need a result that is a tensor or a tuple of tensors, and {type(self.module).__name__}"
                f" gave {type(result).__name__}: they will not be called",
                stacklevel=4,
            )
            return result
        wrapped, _ = _around(result if isinstance(result, tuple) else (result,), self._outputs_arrived)
        return wrapped if isinstance(result, tuple) else wrapped[0]

    def _outputs_arrived(self, gradients: tuple[Any, ...]) -> tuple[Any, ...]:
        for hook in self.before:
            gradients = _replaced("a backward pre-hook", "grad_output", gradients, hook(self.module, gradients))
        self.grad_outputs = gradients
        if not self.sees_inputs:
            nothing = (None,) * self.inputs
            for hook in self.after:
                given = hook(self.module, nothing, gradients)
                if given is not None and any(g is not None for g in given):
                    raise GradientError(
                        f"a backward hook returned gradients of inputs of {type(self.module).__name__}, none of which "
                        "requires them"
                    )
        return gradients

    def _inputs_arrived(self, gradients: tuple[Any, ...]) -> tuple[Any, ...]:
        if self.grad_outputs is None:
            return gradients
        for hook in self.after:
            given = hook(self.module, gradients, self.grad_outputs)
            gradients = _replaced("a backward hook", "grad_input", gradients, given)
        self.grad_outputs = None
        return gradients


def _replaced(who: str, what: str, before: tuple[Any, ...], given: Any) -> tuple[Any, ...]:
    if given is None:
        return before
    given = given if isinstance(given, tuple) else (given,)
    if len(given) != len(before):
        raise GradientError(f"{who} must return as many {what} as it gets, {len(before)}, got {len(given)}")
    return given


def _around(values: tuple[Any, ...], arrived: Callable[[tuple[Any, ...]], tuple[Any, ...]]) -> tuple[Any, bool]:
    """The values, of which the tensors that require grad have their gradients passed through `arrived`, and whether
    there is one.
    """
    places = [i for i, v in enumerate(values) if isinstance(v, Tensor) and v.requires_grad] if is_grad_enabled() else []
    if not places:
        return values, False

    def on(cotangents: Sequence[Tensor]) -> list[Tensor]:
        known = dict(zip(places, cotangents, strict=True))
        given = arrived(tuple(known.get(i) for i in range(len(values))))
        return [_zeros_for(given[i], known[i]) for i in places]

    wrapped = list(values)
    tensors = [values[i] for i in places]
    for place, tensor in zip(places, with_gradients(tensors, tensors, on), strict=True):
        wrapped[place] = tensor
    # named tuples take their fields one by one
    return (type(values)(*wrapped) if hasattr(values, "_fields") else tuple(wrapped)), True


def _zeros_for(given: Any, like: Tensor) -> Tensor:
    if given is None:
        return like.detach() * 0
    if given.shape != like.shape:
        raise GradientError(f"a backward hook returned a gradient of shape {list(given.shape)} for {list(like.shape)}")
    return given


__all__ = [
    "Hook",
    "RemovableHandle",
    "register_module_buffer_registration_hook",
    "register_module_forward_hook",
    "register_module_forward_pre_hook",
    "register_module_full_backward_hook",
    "register_module_full_backward_pre_hook",
    "register_module_module_registration_hook",
    "register_module_parameter_registration_hook",
]
