"""The passes in order: read this first. Each is a pure function of a graph."""

from __future__ import annotations

import sys

from .. import debug
from ..graph.node import Graph
from ..graph.printer import format_graph
from ..graph.verifier import verify
from .canonicalize import canonicalize
from .copies import insert_copies
from .fuse import Fusion, fuse
from .layout import channels_last
from .simplify import simplify

PASSES = (simplify, channels_last, canonicalize, insert_copies)


def prepare(graph: Graph) -> Graph:
    """The graph after all passes that give a graph again, verified after each where PULLBACK_VERIFY is on."""
    for transform in PASSES:
        graph = transform(graph)
        if debug.get("verify"):
            verify(graph, transform.__name__)
        if "graph" in debug.get("debug"):
            print(f"# after {transform.__name__}\n{format_graph(graph)}", file=sys.stderr)
    return graph


def lower(graph: Graph) -> tuple[Graph, Fusion]:
    """The prepared graph and the groups of nodes that become kernels."""
    graph = prepare(graph)
    return graph, fuse(graph)
