"""The passes in order: read this first. Each is a pure function of a graph."""

from __future__ import annotations

import sys

from .. import debug
from ..graph.node import Graph
from ..graph.printer import format_graph
from ..graph.verifier import verify
from ..timeline import span
from .canonicalize import canonicalize
from .copies import insert_copies
from .fuse import fuse
from .groups import Fusion, verify_order
from .layout import channels_last
from .loops import tighten_loops
from .simplify import simplify

PASSES = (simplify, tighten_loops, channels_last, canonicalize, insert_copies)


def prepare(graph: Graph) -> Graph:
    """The graph after all passes that give a graph again, verified after each where PULLBACK_VERIFY is on."""
    for transform in PASSES:
        with span(transform.__name__):
            graph = transform(graph)
        if debug.get("verify"):
            verify(graph, transform.__name__)
        if "graph" in debug.get("debug"):
            print(f"# after {transform.__name__}\n{format_graph(graph)}", file=sys.stderr)
    return graph


def lower(graph: Graph) -> tuple[Graph, Fusion]:
    """The graph after all passes and the groups of its nodes that become kernels."""
    graph = prepare(graph)
    with span("fuse"):
        fusion = fuse(graph)
    if debug.get("verify"):
        verify(fusion.graph, "fuse")
        verify_order(fusion)
    return fusion.graph, fusion
