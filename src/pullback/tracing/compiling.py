"""`compile`: a function as a step, and what its user may say of it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from typing import Any

from ..memory import budget_of
from .check import checked_directions
from .finite import RAISE
from .recordable import is_module, refuse
from .step import CompiledModule, CompiledStep


def compile(
    function: Callable[..., Any] | None = None,
    *,
    memory: int | float | str | None = None,
    policy: Callable[[Any], str | None] | None = None,
    allow: Collection[str] | None = None,
    on_nonfinite: str = RAISE,
    check_every: int | None = None,
    check_directions: int = 1,
    **unknown: Any,
) -> Any:
    """Make `function`, such as a whole training step, one native program; also usable as a decorator.

    The function is recorded at the first call with new shapes and dtypes of its arguments, and run as recorded after
    that. Tensors that it touches (parameters, optimizer state, random generators, `.grad`) are taken as they are at
    each call and hold their new values afterwards. Python code in it runs only while recording: values of tensors are
    not to be had there (`item()`, `if tensor:`). Arguments other than tensors and containers of them must be hashable,
    and each value makes a recording of its own.

    What the function finds outside may be bound to something else between calls, which makes a new recording:
    globals and closure variables that its code names, functions and classes among them, or that the code of functions,
    methods and properties it names; one level deep what stands in lists, dictionaries and deques, and their subclasses
    (of at most 1,000 elements), and under attributes of objects, also in `__slots__`, of classes and of Python modules
    (not those that are installed or Python's own); parameters, buffers, parts, training flags, `forward` and other
    attributes of modules; groups and state of optimizers; the default dtype. A NumPy array that is given to `tensor`
    is read anew at each call.

    Not followed is what is reached by other ways: getattr with a computed name, a container in a container, an object
    in an attribute of an object, the order of a dictionary, sets, iterators and arrays of the standard library; numbers
    that Python takes out of a NumPy array, and arrays that are computed from others; defaults of functions that are
    changed; the environment, files and clocks. Random numbers of Python's `random` and of `numpy.random` are those of
    the recording in every call: draw with Pullback's own functions, or pass them as arguments.

    Arguments may be views of one another or of tensors that the function knows: where one of these is written, all
    change along, and a recording is made for each way in which they are related. Where that cannot be, because a view
    was made a leaf, TraceError is raised.

    A place of these kinds that the function binds to a tensor it has computed holds the new tensor after each call;
    TraceError is raised if the function also uses the tensor that stood there. Other things that Python code does,
    such as counting in a variable or appending to a list, happen only while recording.

    What it returns is a value of that call: `return buffer` gives a new tensor with what the buffer held then, and not
    the buffer, nor the argument that the function was given, which go on to change. State is the tensors themselves.

    It may be a method, decorated in its class or bound (`pb.compile(trainer.step)`), and a module: each object then
    has recordings of its own, and its attributes are followed as said above. A compiled module has the attributes of
    the module. Generators, asynchronous functions and classes are refused with TypeError. A process may fork while
    other threads are in steps: the fork waits for these to end (20 seconds at most, in case they wait for it).
    A thread that reads a tensor of the step, or a `.grad`, while another records it waits for that, as long at most.

    `memory` is a budget for what a call holds in tensors at once: bytes, a text such as "1.5GiB", or "least", which is
    the least that can be had for about one more forward pass. What it has no room for is computed again when it is
    needed, with the same bits. MemoryBudgetError is raised, before anything runs, where it cannot be kept, and also
    where a call needs more than the machine has free. `policy` may say of each value that could be computed again
    whether to "keep" or to "recompute" it; None leaves it to the checkpointed call that it was made in, or to the
    compiler. It is asked about a `pullback.memory.Candidate`, with the value's operation, shape, dtype, nbytes, ….

    `allow` names what may be changed where the budget is not kept otherwise, or not as cheaply (docs/memory.md):
    "early-update" (a parameter is updated as soon as its gradient is complete, and `.grad` is None afterwards),
    "blocks" (the output layer and its cross entropy in blocks of rows) and "bfloat16" (float32 activations wait for the
    backward pass in bfloat16). Without it every budget gives the same bits as none.

    Where the function calls backward() and changes state, the state stays as it was, to the bit, at a call in which a
    loss or a gradient of a leaf is not finite. `on_nonfinite` says what then: "raise" NonFiniteError, which names the
    operation that made the NaN or infinity and its line; "skip", which returns as always, counts in `step.skipped` and
    warns once; "rollback", which returns as always and leaves the rest to the `Guard` whose batches the loop runs over
    (without one it raises); or "ignore", with which the state takes what comes, and only what `check_numerics` or an
    `error_if_nonfinite=True` asks about by name is looked at, and raised. Where a budget makes use of "early-update"
    the loss alone is looked at, since no update waits for the gradients of other parameters then.

    With `check_every=k` the first call and every k-th after it are preceded by `step.check(...)` on their arguments,
    which raises CheckError where the program does not compute what it should, before anything has changed;
    `check_directions` are the directions in which slopes are looked at, 0 where a gradient is not meant to be a slope.

    >>> w = pb.ones(3, requires_grad=True)
    >>> @pb.compile
    ... def step(x):
    ...     w.grad = None
    ...     loss = (w * x).sum()
    ...     loss.backward()
    ...     with pb.no_grad():
    ...         w.sub_(0.125 * w.grad)
    ...     return loss
    >>> step(pb.ones(3)).item(), step(pb.ones(3)).item()
    (3.0, 2.625)
    """
    if unknown:
        known = [name for name in inspect.signature(compile).parameters if name != "unknown"]
        raise TypeError(f"compile() has no argument {', '.join(unknown)}; its arguments are: {', '.join(known)}")
    if function is None:
        return functools.partial(
            compile, memory=memory, policy=policy, allow=allow, on_nonfinite=on_nonfinite, check_every=check_every,
            check_directions=check_directions,
        )  # fmt: skip
    if isinstance(function, (staticmethod, classmethod)):
        return type(function)(
            compile(
                function.__func__, memory=memory, policy=policy, allow=allow, on_nonfinite=on_nonfinite,
                check_every=check_every, check_directions=check_directions,
            )
        )  # fmt: skip
    if check_every is not None and (type(check_every) is not int or check_every < 1):
        raise ValueError(f"compile: check_every must be a number of calls from 1 on, or None, got {check_every!r}")
    checked_directions(check_directions)
    refuse(function)
    kind = CompiledModule if is_module(function) else CompiledStep
    return kind(function, budget_of(memory, policy, allow), on_nonfinite, check_every, check_directions)
