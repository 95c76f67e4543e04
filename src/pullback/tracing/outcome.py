"""What a recorded step leaves behind: the nodes that its program computes, and what each of them is for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..graph.node import Node, Shape
from ..graph.types import DType
from ..ops.primitive import BUFFER
from ..runtime.engine import count
from ..tensor.handle import Handle
from ..trees import flatten
from .deferred import Deferred, defer
from .freed import freed_gradients
from .settled import Memory
from .trace import Trace


class Output(NamedTuple):
    """What is known of an output beforehand."""

    shape: Shape
    dtype: DType
    elements: int


class Outcome:
    """The outputs of a recording, and at which places of them state, gradients and results stand."""

    def __init__(
        self, trace: Trace, arguments: Sequence[tuple[int, Handle, Node]], result: Any, may_free: bool, frees: bool
    ):
        """Where it `frees` gradients, as it `may`, those that nothing needs behind the update are not left in `.grad`.
        TraceError where it may and could not.
        """
        leaves, self.result_shape = flatten(result)
        # what is handed out untouched is captured too, before the captured tensors are counted
        for handed in [*leaves, *(g.tensor._grad for g in trace.grads.values() if g.is_new)]:
            if isinstance(handed, Handle):
                trace.node_of(handed)
        self.captured = list(trace.captured.values())
        self.owned = any(c.owner is not None for c in self.captured)
        freed = freed_gradients(trace) if may_free else frozenset()
        freed = freed if frees else frozenset()
        #: how many gradients are not left behind
        self.freed = len(freed)
        #: of all outputs, until they are `described`
        self.nodes: list[Node] = []

        def output(tensor: Handle) -> int:
            self.nodes.append(trace.node_of(tensor))
            return len(self.nodes) - 1

        # state first: what a step leaves behind is written last, whatever else it computes (see the compiler's order)
        self.states = [(c, output(c.tensor)) for c in self.captured if c.tensor._node is not c.node]
        self.changed_arguments = [
            (position, output(proxy)) for position, proxy, node in arguments if proxy._node is not node
        ]
        self.argument_grads = [
            (position, output(proxy._grad)) for position, proxy, _ in arguments if proxy._grad is not None
        ]
        #: the tensors that get a new gradient, with its place, and those that have none afterwards
        self.made_grads: list[tuple[Handle, int]] = []
        self.cleared: list[Handle] = []
        for g in trace.grads.values():
            if not g.is_new:
                continue
            if g.tensor._grad is None or id(g.tensor) in freed:
                self.cleared.append(g.tensor)
            else:
                self.made_grads.append((g.tensor, output(g.tensor._grad)))
        self.writes = trace.surroundings.finish(output) if trace.surroundings is not None else []
        #: how to make the gradient from the output, by its place, and the places of the numbers that it takes
        self.deferred: dict[int, Deferred] = {}
        self.numbers: dict[Node, int] = {}
        if not self.owned:  # else the next run will look at the gradients
            self._defer()
        self.results = [
            (output(leaf), leaf._node.shape) if isinstance(leaf, Handle) else (None, leaf) for leaf in leaves
        ]
        self.outputs: list[Output] = []

    def _defer(self) -> None:
        """Have the program give what gradients are made of where they can be left uncomputed."""
        for _, place in self.made_grads:
            found = defer(self.nodes[place])
            if found is None:
                continue
            self.deferred[place], self.nodes[place] = found, found.base
            for number in found.numbers:
                if number not in self.numbers:
                    self.numbers[number] = len(self.nodes)
                    self.nodes.append(number)

    def described(self) -> list[Node]:
        """Note what the outputs are, all of them being known; gives their nodes, which are not kept here: a recording
        would hold its whole graph by them.
        """
        nodes, self.nodes = self.nodes, []
        self.outputs = [Output(node.shape, node.dtype, count(node)) for node in nodes]
        return nodes

    def old(self, trace: Trace, arguments: Sequence[tuple[int, Handle, Node]]) -> dict[int, Node]:
        """The inputs that hold what the outputs at these places are new values of."""
        old = {place: captured.node for captured, place in self.states}
        nodes = {position: node for position, _, node in arguments}
        old.update((place, nodes[position]) for position, place in self.changed_arguments)
        # a gradient that is added to
        known = {id(c.owner): c.node for c in self.captured if c.owner is not None}
        for tensor, place in self.made_grads:
            if id(tensor) in known and trace.grads[id(tensor)].original is not None:
                old[place] = known[id(tensor)]
        return old

    def written(self) -> list[int]:
        """The places of what is written to the step's surroundings."""
        return [place for write in self.writes for place, _ in write.leaves if place is not None]

    def handed_out(self) -> set[int]:
        """The places of what the caller is given, which has new memory at each run."""
        results = [place for place, _ in self.results if place is not None]
        return {*results, *self.written(), *(place for _, place in [*self.changed_arguments, *self.argument_grads])}

    def leaf(self, outputs: list[Memory | None], place: int) -> Node:
        """The node of the value that a run has written at this place of its outputs."""
        shape, dtype, _ = self.outputs[place]
        return Node(BUFFER, (), {"shape": shape, "dtype": dtype}, shape, dtype, False, None, outputs[place])


__all__ = ["Outcome", "Output"]
