"""Gradients that need not outlive the update of their parameter, where the user allows that they do not."""

from __future__ import annotations

from ..errors import TraceError
from ..graph.node import Graph, Node
from .trace import Trace


def freed_gradients(trace: Trace) -> frozenset[int]:
    """The tensors, by id, whose gradient was made in this recording and has been used to update them: nothing but
    `.grad` needs it after that.

    Raises TraceError where an update waits for the gradients of other parameters too, as with a global norm: then all
    gradients are there at once whatever is freed afterwards.
    """
    changed = {id(c.tensor): c.tensor for c in trace.captured.values() if c.tensor._node is not c.node}
    # a gradient that is added to what `.grad` was is wanted by the next step
    made = {
        key: tensor
        for key, tensor in changed.items()
        if key in trace.first_gradients
        and not trace.grads[key].read
        and tensor._grad is not None
        and trace.grads[key].is_new
    }
    firsts = dict.fromkeys(trace.first_gradients[key] for key in made)
    bits = {node: 1 << place for place, node in enumerate(firsts)}
    graph = Graph.of([tensor._node for tensor in made.values()])
    #: of each node the gradients that it is made of; a gradient is made of itself
    of: dict[Node, int] = {}
    for node in graph.nodes:
        of[node] = bits.get(node, 0)
        if not of[node] and node.buffer is None:
            for operand in node.inputs:
                of[node] |= of[operand]
    own = {key: bits[trace.first_gradients[key]] for key in made}
    if any(of[tensor._node] & ~own[key] for key, tensor in made.items()):
        _refuse(graph, of)
    return frozenset(key for key, tensor in made.items() if of[tensor._node])


def _refuse(graph: Graph, of: dict[Node, int]) -> None:
    first = next(node for node in graph.nodes if of[node] & (of[node] - 1))
    raise TraceError(
        f'allow="early-update" cannot be: an update waits for the gradients of several parameters (they meet at '
        f"{first.source}), as where they are clipped by their global norm or looked at for infinities, so that all of "
        "them are in memory at once. Leave it out of allow, or clip each parameter by itself (clip_grad_value_)."
    )
