"""Steps that an optimizer makes only where its gradients are finite, chosen inside the program.

A recording cannot branch on a value. So the gradients are read as zeros where one of them is not finite, and all that
the optimizer writes is chosen between new and old, in the passes that compute it: the same as the guard of a recording
does (`finite.py`), for a part of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

from ..graph.types import float32
from ..ops.elementwise import add, convert, copy, lt, where
from ..ops.primitive import constant, grad_mode
from ..tensor import Tensor
from ..tensor.state import STATE
from .assurance import LARGEST
from .finite import exactly, squares
from .trace import Scaled

#: what the sum of the squares of gradients must stay below, so that there are bounds for what an update makes of them
_LIMIT = LARGEST**2


def sound_gradients(parameters: Sequence[Tensor], given: Sequence[Tensor], scale: Tensor) -> Tensor:
    """Whether the gradients of all parameters are finite, bool[]; in a recording, whether they are shorter than 1e15 as
    one vector. The recording looks at what they were made from, `given`, only where no other `scale` makes them so.
    """
    found = [parameter.grad.node for parameter in parameters if parameter.grad is not None]
    part, limit = (exactly, math.inf) if STATE.trace is None else (squares, _LIMIT)
    with grad_mode(False):
        total = constant(0.0, float32)
        for node in found:
            total = add(total, convert(part(node), float32))
        # a copy, so that what depends on it is computed behind the gradients and not where they are made
        sound = copy(lt(total, constant(limit, float32)))
    if STATE.trace is not None:
        popped = [STATE.trace.watched.pop(node, None) for node in (*(tensor.node for tensor in given), *found)]
        if STATE.loop is None and STATE.example is None:
            watched = [each._replace(message="with a loss scale of 1") for each in popped if each is not None]
            STATE.trace.scaled.append(Scaled(scale, sound, watched))
    return Tensor._wrap(sound)


def changing_only_where(sound: Tensor, parameters: Sequence[Tensor], step: Callable[[], Any]) -> Any:
    """Inside a recording, the result of `step`, which reads gradients as zeros, and changes nothing that comes from
    outside, where `sound` is false."""
    trace = STATE.trace
    assert trace is not None
    before = {key: captured.tensor._node for key, captured in trace.captured.items()}
    gradients = [(parameter, parameter.grad) for parameter in parameters if parameter.grad is not None]
    condition = sound.node
    # what is chosen by the condition is bounded without it, and whatever that depends on
    trace.bounded.append(condition)
    with grad_mode(False):
        for parameter, gradient in gradients:
            safe = where(condition, gradient.node, constant(0.0, gradient.dtype))
            trace.bounded.append(safe)
            parameter._collect(Tensor._wrap(safe))
    result = step()
    for parameter, gradient in gradients:
        parameter._collect(gradient)
    with grad_mode(False):
        for key, captured in list(trace.captured.items()):
            old, new = before.get(key, captured.node), captured.tensor._node
            if new is not old:
                cast(Tensor, captured.tensor).copy_(Tensor._wrap(where(condition, new, old)))
    return result
