"""Functions that an optimizer calls before and after what it does, under PyTorch's names."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any
from weakref import ref

from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.state import STATE
from ..tensor.store import Store

#: the kinds of hooks an optimizer keeps; those of when it has "updated" parameters are called inside the recording, and
#: those of "decided" before a step that is only made where a number says so
KINDS = ("step_pre", "step_post", "decided", "updated", "state_dict_pre", "state_dict_post", "load_pre", "load_post")


class _Held(Store):
    """A dictionary of hooks, which a handle can refer to without keeping it alive. Recordings can depend on it."""


class RemovableHandle:
    """What registering a hook gives: `remove()` takes the hook away; as a context manager it does so at the end."""

    _next = 0

    def __init__(self, hooks: _Held):
        self._hooks = ref(hooks)
        self.id = RemovableHandle._next
        RemovableHandle._next += 1

    def remove(self) -> None:
        """Take the hook away; once is enough, and more does no harm."""
        hooks = self._hooks()
        if hooks is not None:
            hooks.pop(self.id, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()


#: hooks of all optimizers, which run before an optimizer's own
GLOBAL: dict[str, _Held] = {kind: _Held() for kind in ("step_pre", "step_post")}


def _register_globally(kind: str, hook: Callable[..., Any]) -> RemovableHandle:
    handle = RemovableHandle(GLOBAL[kind])
    GLOBAL[kind][handle.id] = hook
    return handle


def register_optimizer_step_pre_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call `hook(optimizer, args, kwargs)` before each step of every optimizer; see register_step_pre_hook."""
    return _register_globally("step_pre", hook)


def register_optimizer_step_post_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call `hook(optimizer, args, kwargs)` after each step of every optimizer."""
    return _register_globally("step_post", hook)


class OptimizerHooks:
    """The registering and the calling. Inside a compiled step hooks run while the step is recorded, not at each call.

    >>> w = pb.ones(1, requires_grad=True)
    >>> optimizer = pb.optim.SGD([w], lr=0.5)
    >>> handle = optimizer.register_step_post_hook(lambda optimizer, args, kwargs: print("stepped"))
    >>> w.sum().backward()
    >>> optimizer.step()
    stepped
    >>> handle.remove()
    """

    def __init__(self) -> None:
        self._hooks: dict[str, _Held] = {kind: _Held() for kind in KINDS}
        #: whether step() has been called, which schedules look at
        self._stepped = False

    def __init_subclass__(cls, **options: Any) -> None:
        """Have every `step` that a class defines call the hooks, as PyTorch has it."""
        super().__init_subclass__(**options)
        if "step" in vars(cls):
            cls.step = _hooked(vars(cls)["step"])  # type: ignore[attr-defined]

    def _register(self, kind: str, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        if not callable(hook):
            raise TypeError(f"a hook must be callable, got {type(hook).__name__} (at {user_source()})")
        held = self._hooks[kind]
        handle = RemovableHandle(held)
        others = dict(held) if prepend else {}
        if prepend:
            held.clear()
        held[handle.id] = hook
        held.update(others)
        return handle

    def register_step_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(optimizer, args, kwargs)` before each step; it may return the arguments to use instead."""
        return self._register("step_pre", hook)

    def register_step_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(optimizer, args, kwargs)` after each step."""
        return self._register("step_post", hook)

    def register_state_dict_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call `hook(optimizer)` before state_dict() collects the state; first of all, if `prepend`."""
        return self._register("state_dict_pre", hook, prepend)

    def register_state_dict_post_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call `hook(optimizer, state_dict)` on what state_dict() is about to return; it may return another."""
        return self._register("state_dict_post", hook, prepend)

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call `hook(optimizer, state_dict)` before loading, with a shallow copy; it may return another dictionary."""
        return self._register("load_pre", hook, prepend)

    def register_load_state_dict_post_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call `hook(optimizer)` after loading."""
        return self._register("load_post", hook, prepend)

    def _decide(self, sound: Tensor) -> None:
        """Tell the hooks of the kind "decided", as `hook(optimizer, sound)`, that the step which follows is only made
        where `sound`, bool[], says so; outside a recording there may follow none.
        """
        if STATE.trace is not None:
            STATE.trace.depend_on(self._hooks["decided"])
        self._call("decided", sound)

    def _call(self, kind: str, *args: Any) -> None:
        for hook in list(self._hooks[kind].values()):
            hook(self, *args)

    def _pass_through(self, kind: str, value: Any) -> Any:
        """`value`, or what the last hook that returned something put in its place."""
        for hook in list(self._hooks[kind].values()):
            result = hook(self, value)
            value = value if result is None else result
        return value


def _hooked(plain: Callable[..., Any]) -> Callable[..., Any]:
    # the name of this function is what profiles call the operations of an update
    @functools.wraps(plain)
    def step(self: OptimizerHooks, *args: Any, **kwargs: Any) -> Any:
        self._stepped = True
        for hook in [*GLOBAL["step_pre"].values(), *self._hooks["step_pre"].values()]:
            result = hook(self, args, kwargs)
            if result is not None:
                if not (isinstance(result, tuple) and len(result) == 2):
                    raise RuntimeError(f"a hook before step() must return None or (args, kwargs), got {result!r}")
                args, kwargs = result
        loss = plain(self, *args, **kwargs)
        for hook in [*GLOBAL["step_post"].values(), *self._hooks["step_post"].values()]:
            hook(self, args, kwargs)
        return loss

    return step


__all__ = [
    "OptimizerHooks", "RemovableHandle", "register_optimizer_step_post_hook", "register_optimizer_step_pre_hook",
]  # fmt: skip
