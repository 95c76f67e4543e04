"""The reference backend: a program whose values are those that the records of the primitives say."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np

from .. import timeline
from ..compiler.groups import LOOP, Group, elements, is_real
from ..graph.interpreter import interpret
from ..graph.node import Graph, Node
from ..graph.types import to_carrier, to_storage
from .buffers import Buffer
from .fit import Budget
from .program import KernelTimes, Moved, Program, covered


class Interpreted(Program):
    """The reference: every node by its record's meaning."""

    def _prepare(self, graph: Graph, budget: Budget, ready: bool) -> None:
        self.graph = graph
        self.places = {node: place for place, node in enumerate(self.inputs)}
        self.in_memory = set(graph.nodes)
        self._groups: dict[Node, Group] = {}
        self._held = 0

    def run(self, inputs: Sequence[Buffer], outputs: Sequence[Buffer], moved: Moved | None = None) -> None:
        def value_of(node: Node) -> np.ndarray:
            return to_carrier(inputs[self.places[node]].array, node.dtype).reshape(node.shape)

        if timeline.PROFILES:
            values = self._timed(value_of)
        else:
            values = interpret(self.graph, value_of)
        self._held = covered([(b.address, b.address + b.array.nbytes) for b in (*inputs, *outputs)])
        stored = [to_storage(value, node.dtype).reshape(-1) for node, value in zip(self.outputs, values, strict=True)]
        for value, buffer in zip([np.array(s) for s in stored], outputs, strict=True):
            buffer.array[...] = value

    def nodes(self) -> Sequence[Node]:
        return self.graph.nodes

    def held_bytes(self) -> int:
        return self._held

    def _timed(self, value_of: Callable[[Node], np.ndarray]) -> list[np.ndarray]:
        """The values of the outputs; tells when each node was computed, as if it were a kernel of its own."""
        begin, ends = timeline.now(), []
        values = interpret(self.graph, value_of, lambda *_: ends.append(timeline.now()))
        timed = [(n, s, e) for n, s, e in zip(self.graph.nodes, [begin, *ends], ends, strict=False) if is_real(n)]
        groups = [self._groups.setdefault(n, Group(LOOP, elements(n), None, {n: ""}, [n])) for n, _, _ in timed]
        stamps = np.array([[[s, e, e - s, 1]] for _, s, e in timed], np.int64).reshape(-1, 1, 4)
        times = KernelTimes(self, groups, [1] * len(timed), range(len(timed)), stamps)
        timeline.tell(timeline.Span("kernels", begin, timeline.now(), threading.get_ident(), times))
        return values


__all__ = ["Interpreted"]
