"""The rules that every graph keeps, checked between compiler passes under the switch PULLBACK_VERIFY."""

from __future__ import annotations

from ..errors import VerifyError
from .node import Graph
from .printer import format_graph


def verify(graph: Graph, after: str) -> None:
    """Raise VerifyError naming the pass `after` which the graph was broken, and how."""
    seen = set()
    for node in graph.nodes:
        if node in seen:
            raise VerifyError(f"after {after}: {node!r} stands twice in the order")
        if type(node.shape) is not tuple or type(node.attributes.get("shape", ())) is not tuple:
            raise VerifyError(f"after {after}: the shape of {node!r} is no plain tuple but {node.shape!r}")
        if node.buffer is None:
            for operand in node.inputs:
                if operand not in seen:
                    raise VerifyError(f"after {after}: {node!r} comes before its input {operand!r}")
            if node.inputs:
                shape, dtype = node.op.infer(*node.inputs, **node.attributes)
                if (shape, dtype) != (node.shape, node.dtype):
                    raise VerifyError(
                        f"after {after}: {node!r} should be {dtype.name}{list(shape)}, made at {node.source}\n"
                        + format_graph(graph)
                    )
        seen.add(node)
    for node in graph.outputs:
        if node not in seen:
            raise VerifyError(f"after {after}: output {node!r} is not in the graph")
