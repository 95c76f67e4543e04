"""Steps that an optimizer makes only where its gradients are finite, chosen inside the program.

A recording cannot branch on a value. So the gradients are read as zeros where one of them is not finite, and all that
the optimizer writes is chosen between new and old, in the passes that compute it: the same as the guard of a recording
does (`finite.py`), for a part of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

from ..graph.node import Node, ancestors
from ..graph.types import float32
from ..ops.elementwise import add, convert, copy, lt, where
from ..ops.primitive import constant, grad_mode
from ..tensor import Tensor
from ..tensor.state import STATE
from .assurance import LARGEST
from .finite import Part, exactly, squares
from .scaling import made_of
from .trace import Scaled, Trace, Watched

#: what the sum of the squares of gradients must stay below, so that there are bounds for what an update makes of them
_LIMIT = LARGEST**2


def sound_gradients(parameters: Sequence[Tensor], given: Sequence[Tensor], scale: Tensor) -> Tensor:
    """Whether the gradients of all parameters are finite, bool[]; in a recording, whether they are shorter than 1e15 as
    one vector. The recording looks at what they were made from, `given`, only where no other `scale` makes them so, and
    only at what is made of the scale in it: what comes from elsewhere is the same at any scale.
    """
    found = [parameter.grad.node for parameter in parameters if parameter.grad is not None]
    part, limit = (exactly, math.inf) if STATE.trace is None else (squares, _LIMIT)
    sound = _are_finite(found, limit, part)
    if STATE.trace is not None:
        nodes = [tensor.node for tensor in given]
        popped = [STATE.trace.watched.pop(node, None) for node in (*nodes, *found)]
        if STATE.loop is None and STATE.example is None:
            STATE.trace.left.update(map(id, parameters))
            made = made_of([scale.node], nodes)
            watched = [
                each for each, node in zip(popped, [*nodes, *nodes], strict=True) if each is not None and node in made
            ]
            STATE.trace.leave_to_scaler(Scaled(scale, sound, watched))
    return Tensor._wrap(sound)


def left_to_scalers(trace: Trace, watched: Sequence[Watched]) -> list[Watched]:
    """What of the watched is not a scaler's: gradients made of a scale go to who divides by it later, unless the
    recording makes updates of them. Such are also what a second loss leaves in parameters that have been updated, as a
    generator's does in the discriminator.
    """
    rest = {each.node: each for each in watched}
    used = ancestors(trace.new_values()) if trace.scales else set()
    for key, scale in trace.scales.items():
        left = [w for w in rest.values() if w.what == "gradient" and w.node not in used]
        made = made_of([trace.captured[key].node], [w.node for w in left]) if key in trace.captured else ()
        own = [rest.pop(w.node) for w in left if w.node in made]
        trace.left.update(id(w.owner) for w in own)
        trace.leave_to_scaler(Scaled(scale, _are_finite([w.node for w in own], math.inf), own))
    return list(rest.values())


def _are_finite(nodes: Sequence[Node], limit: float, part: Part = squares) -> Node:
    """Whether the sum of what `part` makes of the nodes is below the limit, bool[]."""
    with grad_mode(False):
        total = constant(0.0, float32)
        for node in nodes:
            total = add(total, convert(part(node), float32))
        # a copy, so that what depends on it is computed behind the gradients and not where they are made
        return copy(lt(total, constant(limit, float32)))


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
