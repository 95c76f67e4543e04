"""A graph as text, one node a line: what is read when something is debugged."""

from __future__ import annotations

import os
from typing import Any

from .node import Graph, Node


def format_graph(graph: Graph, sources: bool = True) -> str:
    """One line a node: `%3 = add(%1, %2) : float32[4, 8]  # train.py:12`; the outputs last."""
    names = {node: f"%{position}" for position, node in enumerate(graph.nodes)}
    lines = [_line(node, names, sources) for node in graph.nodes]
    lines.append(f"return {', '.join(names[node] for node in graph.outputs)}")
    return "\n".join(lines)


def _line(node: Node, names: dict[Node, str], sources: bool) -> str:
    known = node.buffer is not None
    operands = [] if known else [names[operand] for operand in node.inputs]
    attributes = (
        [] if known else [f"{k}={_attribute(v)}" for k, v in node.attributes.items() if k not in ("dtype", "shape")]
    )
    place = f"  # {os.path.basename(node.source.file)}:{node.source.line}" if sources and node.source else ""
    name = "buffer" if known else node.op.name
    return f"{names[node]} = {name}({', '.join(operands + attributes)}) : {node.dtype.name}{list(node.shape)}{place}"


def _attribute(value: Any) -> str:
    return getattr(value, "__name__", None) or str(value)
