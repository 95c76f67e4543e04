"""What of a recorded step is looked at before its new state is kept, and the guard that does it in the step's graph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..graph.node import Graph, Node, ancestors
from ..graph.types import to_carrier
from ..ops.primitive import CONSTANT
from ..tensor.handle import Handle
from .assurance import State
from .assured import Assured
from .finite import IGNORE, Guard, Policy, squares, watched_of
from .naming import state_names
from .observed import Observed
from .outcome import Outcome
from .scaling import Scaling
from .skipping import left_to_scalers
from .trace import Captured, Trace, Watched


class Guarded(NamedTuple):
    """A graph with a guard as its last output, and what is known of updates beforehand; no guard where nothing is
    looked at.
    """

    graph: Graph
    guard: Guard | None
    assured: Assured | None = None


class Looks:
    """What is looked at: losses, gradients, and what is written without one. Its `nodes` stand behind the outputs of
    the graph that `guarded` is given, whose first ones are the step's own.
    """

    def __init__(
        self, trace: Trace, outcome: Outcome, own: Sequence[Node], arguments: Sequence[tuple[int, Handle, Node]],
        policy: Policy,
    ):  # fmt: skip
        self.trace, self.outcome, self.count = trace, outcome, len(own)
        #: the old values of what the step writes, by the places of the new ones
        self.old = outcome.old(trace, arguments)
        self.is_ignored = policy.on_nonfinite == IGNORE
        is_looking = not (self.is_ignored or outcome.freed)
        changes = bool(self.old or outcome.made_grads or outcome.argument_grads)
        watched = watched_of(trace, changes, policy.on_nonfinite, own)
        watched = left_to_scalers(trace, watched)
        if outcome.freed:  # an update that waits for no other gradient cannot wait for all of them to be finite
            watched = [w for w in watched if w.what != "gradient"]
        self.watched = watched
        # what writes parameters without a gradient is looked at too, but not what only writes other tensors
        is_update = is_looking and self._writes_parameters(own)
        self.any = bool(watched or is_update)
        self.bounded = trace.bounded if self.any and not self.is_ignored else []
        #: what is done about gradients that scalers look at
        self.scaling = Scaling(trace) if trace.scaled and self.any and is_looking else None
        #: what scalers have looked at
        self.scaled: Sequence[Watched] = ()

    @property
    def nodes(self) -> list[Node]:
        """All that is to be computed beside what the step gives."""
        scaled = [] if self.scaling is None else self.scaling.nodes
        return [*(w.node for w in self.watched), *self.bounded, *scaled]

    def _writes_parameters(self, own: Sequence[Node]) -> bool:
        """Whether something of floating point that has gradients, or is an optimizer's, gets a new value; or one that
        is made of a gradient, as a weight is that `func.grad` is called with.
        """
        old = self.old
        written = [place for place in old if old[place].dtype.is_floating_point and 0 not in old[place].shape]
        kept = {c.node for c, _ in self.outcome.states if id(c.tensor) in self.trace.optimizer_state}
        if any(old[place].requires_grad or old[place] in kept for place in written):
            return True
        made = ancestors([own[place] for place in written])
        return any(node.source is not None and node.source.is_backward for node in made)

    def guarded(self, graph: Graph, observed: Observed) -> Guarded:
        """The graph with the guard in it, in place of what is looked at. Updates that are made early wait for nothing,
        and so for no bound either; nor do any of a step that ignores what nobody asks about by name.
        """
        if not self.any:
            return Guarded(graph, None)
        own, rest = graph.outputs[: self.count], graph.outputs[self.count :]
        bad, bounded = rest[: len(self.watched)], rest[len(self.watched) :]
        if self.scaling is not None:
            first = len(bounded) - len(self.scaling.nodes)
            bounded, self.scaled = bounded[:first], self.scaling.enter(bounded[first:])
        old = {p: n for p, n in self.old.items() if (n.shape, n.dtype) == (own[p].shape, own[p].dtype)}
        is_new = self._new(own, bad, old)
        updates = [] if self.outcome.freed or self.is_ignored else self._updates(own, is_new)
        watched = [w._replace(node=node) for w, node in zip(self.watched, bad, strict=True)]
        if not watched and not updates:
            return Guarded(Graph.of(own), None)
        left = {place for _, place in [*self.outcome.made_grads, *self.outcome.argument_grads]}
        told = [place for place, _ in self.outcome.results if place is not None and place not in left]
        guard = Guard(watched, own, old, updates, observed.early, self.scaling, told)
        assured = None
        if updates:
            states = [State(old[p], own[p]) for p in sorted(is_new)]
            assured = Assured.of(states, [*bad, *bounded], self.trace, self.outcome.captured)
            guard.looked_at = [w for w in updates if w.node in assured.looked_at]
            if assured.is_empty:
                assured = None
            else:
                guard.limit = assured.limit
        return Guarded(guard.graph(squares), guard, assured)

    def _new(self, own: Sequence[Node], bad: Sequence[Node], old: dict[int, Node]) -> set[int]:
        """The places of new values that may be bad, and are not looked at as losses or gradients."""
        found = {p for p, node in old.items() if node.dtype.is_floating_point and own[p] not in {*bad, node}}
        found -= {place for tensor, place in self.outcome.made_grads if id(tensor) in self.trace.left}
        # an infinity that somebody put into a buffer on purpose, such as a best loss so far, is no fault in it
        return found - {place for c, place in self.outcome.states if _is_infinite_on_purpose(c, self.trace)}

    def _updates(self, own: Sequence[Node], places: set[int]) -> list[Watched]:
        names = state_names(self.trace, self.outcome.states)
        return [Watched(own[p], "update", None, names.get(p, "")) for p in sorted(places)]


def _is_infinite_on_purpose(captured: Captured, trace: Trace) -> bool:
    """Whether a tensor that is neither a parameter nor an optimizer's holds an infinity before its first step."""
    if captured.node.requires_grad or id(captured.tensor) in trace.optimizer_state:
        return False
    node = captured.original
    while node.buffer is None and len(node.inputs) == 1:  # a number that is not spread out yet
        node = node.inputs[0]
    if node.buffer is None:
        return node.op is CONSTANT and not math.isfinite(node["value"])
    return not bool(np.isfinite(to_carrier(node.buffer.array, node.dtype)).all())


__all__ = ["Guarded", "Looks"]
