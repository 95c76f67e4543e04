"""A program: a graph made ready to be run again and again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..graph.interpreter import interpret
from ..graph.node import Graph, Node
from ..graph.types import to_carrier, to_storage
from .buffers import Buffer


class Program:
    """The values of a graph's outputs, computed from those of its inputs."""

    def __init__(self, graph: Graph, inputs: Sequence[Node], aliases: dict[int, int] | None = None):
        """`inputs` are the graph's input nodes in the order of their values in `run`.

        `aliases` maps outputs to the inputs whose memory they may be given to be written into.
        """
        self.graph, self.inputs, self.aliases = graph, inputs, aliases or {}

    def run(self, inputs: Sequence[Buffer], outputs: Sequence[Buffer]) -> None:
        """Compute from `inputs` (in the order of the graph's input nodes' indices) into `outputs`."""

        def value_of(node: Node) -> np.ndarray:
            return to_carrier(inputs[node["index"]].array, node.dtype).reshape(node.shape)

        values = interpret(self.graph, value_of)
        for node, value, buffer in zip(self.graph.outputs, values, outputs, strict=True):
            buffer.array[...] = to_storage(value, node.dtype).reshape(-1)
