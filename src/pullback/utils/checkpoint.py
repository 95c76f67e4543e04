"""Checkpoints: less memory for a backward pass, by computing parts of the forward pass a second time, as PyTorch's.

A checkpointed call is run once, as any other: nothing is recorded a second time and no function is called again. What
it makes is marked, and of that the program keeps for the backward pass only what is read outside of the call; the rest
is computed again right before the backward pass first needs some of it (see `compiler/rematerialize.py`). So gradients
are the same bits as without, dropout inside draws the same mask, and running statistics are updated once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from ..nn import Module
from ..nn.modules.checkpointing import check_arguments
from ..ops.primitive import checkpoint_mode, user_source


def noop_context_fn() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Two contexts in which nothing is different: the only `context_fn` that `checkpoint` takes."""
    return nullcontext(), nullcontext()


def checkpoint(
    function: Callable[..., Any],
    *args: Any,
    use_reentrant: bool | None = None,
    preserve_rng_state: bool = True,
    context_fn: Callable[[], Any] = noop_context_fn,
    determinism_check: str = "default",
    debug: bool = False,
    early_stop: bool = True,
    **kwargs: Any,
) -> Any:
    """`function(*args, **kwargs)`, of which only the results are kept for the backward pass (Chen et al., "Training
    deep nets with sublinear memory cost", 2016). Arguments and results may be anything; calls may be nested.

    It works in compiled steps and outside of them, and has no effect where no gradients are taken. In the body of
    `func.scan` the loop of the backward pass computes the call again at each step, save where its gradient is to be
    differentiated again. What the gradient of a weight that all steps share is summed from is put together in the
    backward pass for all steps, so that the sum has the same bits; that is so with the call around the scan too.

    Both values of `use_reentrant` mean the same, and so do both of `preserve_rng_state`, since a second computation of
    a random draw always gives the same numbers; there is nothing that `determinism_check`, "default" or "none", could
    find. Raises NotImplementedError for another `context_fn` (say what is kept by the `policy` of `pullback.compile`),
    for `debug`, as there is no second run to compare, and for `early_stop=False`: nothing is computed that is not read.

    >>> x = pb.ones(2, 3, requires_grad=True)
    >>> pb.utils.checkpoint.checkpoint(lambda x: x.sin().exp(), x, use_reentrant=False).sum().backward()
    >>> x.grad.shape
    pullback.Size([2, 3])
    """
    if not callable(function):
        raise TypeError(f"checkpoint takes a function first, got {function!r} (at {user_source()})")
    if context_fn is not noop_context_fn:
        raise NotImplementedError(
            f"checkpoint: context_fn is not there (at {user_source()}): the function is run once, so there is no "
            "second run to give a context to. Say which values are kept by pb.compile(step, policy=...)."
        )
    check_arguments("checkpoint", use_reentrant, preserve_rng_state, determinism_check, debug, early_stop)
    with checkpoint_mode():
        return function(*args, **kwargs)


def checkpoint_sequential(
    functions: Module | Sequence[Callable[[Any], Any]],
    segments: int,
    input: Any,
    use_reentrant: bool | None = None,
    preserve_rng_state: bool = True,
) -> Any:
    """What `functions`, an nn.Sequential or a list, make of `input` one after the other, in `segments` parts of which
    all but the last are checkpointed calls, as in PyTorch.

    >>> model = pb.nn.Sequential(*(pb.nn.Linear(3, 3) for _ in range(6)))
    >>> pb.utils.checkpoint.checkpoint_sequential(model, 3, pb.ones(2, 3), use_reentrant=False).shape
    pullback.Size([2, 3])
    """
    if isinstance(functions, Module) and not isinstance(functions, Iterable):
        raise TypeError(
            f"checkpoint_sequential takes an nn.Sequential or a list, got a {type(functions).__name__} "
            f"(at {user_source()})"
        )
    each = list(functions)  # not children(), which has a layer that comes twice once
    if not each:
        raise ValueError(
            f"checkpoint_sequential: functions are none, and segments of nothing cannot be made (at {user_source()})"
        )
    if isinstance(segments, bool) or not isinstance(segments, int) or not 1 <= segments <= len(each):
        raise ValueError(
            f"checkpoint_sequential: segments must be from 1 to the number of functions, {len(each)}, got {segments!r} "
            f"(at {user_source()})"
        )
    size = len(each) // segments
    for start in range(0, size * (segments - 1), size):
        part = each[start : start + size]
        input = checkpoint(
            _one_after_the_other, part, input, use_reentrant=use_reentrant, preserve_rng_state=preserve_rng_state
        )
    return _one_after_the_other(each[size * (segments - 1) :], input)


def _one_after_the_other(functions: Sequence[Callable[[Any], Any]], value: Any) -> Any:
    for function in functions:
        value = function(value)
    return value


__all__ = ["checkpoint", "checkpoint_sequential", "noop_context_fn"]
