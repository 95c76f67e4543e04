"""The reference: any graph, computed node by node by the meaning that each operation's record gives in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .node import Graph, Node


def interpret(
    graph: Graph, value_of: Callable[[Node], np.ndarray], done: Callable[[Node, Mapping[Node, Any]], None] | None = None
) -> list[np.ndarray]:
    """The values of `graph.outputs`, in the dtypes' carrier types.

    `value_of(node)` gives the value of the leaves that come from outside (buffers and inputs). A value is dropped after
    its last use. `done`, if given, is told of each node when its value has been computed, with the values that
    are there then, the operands' among them.
    """
    last_use: dict[Node, int] = {}
    for position, node in enumerate(graph.nodes):
        for operand in node.inputs:
            last_use[operand] = position
    kept = set(graph.outputs)
    #: which results of each loop are asked for
    wanted: dict[Node, list[tuple[str, int]]] = {}
    for node in graph.nodes:
        if node.op.name == "part" and node.buffer is None:
            wanted.setdefault(node.inputs[0], []).append((node["of"], node["place"]))
    values: dict[Node, Any] = {}
    for position, node in enumerate(graph.nodes):
        if node in wanted:
            values[node] = node.op.evaluate(node, *(values[operand] for operand in node.inputs), wanted=wanted[node])
        else:
            values[node] = _value(node, values, value_of)
        if done is not None:
            done(node, values)
        for operand in node.inputs:
            if last_use[operand] == position and operand not in kept:
                values.pop(operand, None)
    return [values[node] for node in graph.outputs]


def _value(node: Node, values: Mapping[Node, Any], value_of: Callable[[Node], np.ndarray]) -> np.ndarray:
    if node.buffer is not None or node.op.name in ("buffer", "input", "parameter"):
        return value_of(node)
    result = np.asarray(node.op.evaluate(node, *(values[operand] for operand in node.inputs)))
    assert result.shape == node.shape, f"{node!r}: the reference gave shape {result.shape} (made at {node.source})"
    assert result.dtype == node.dtype.carrier, f"{node!r}: the reference gave {result.dtype} (made at {node.source})"
    return result
