"""What native code is compared with: parts of a graph on the reference, in their own dtypes or in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from ..graph.interpreter import interpret
from ..graph.node import Graph, Node
from ..graph.types import float64
from ..ops.body import Body
from ..ops.primitive import BUFFER, INPUT, PARAMETER, input_node

ValueOf = Callable[[Node], np.ndarray]


def is_given(node: Node) -> bool:
    """Whether the value of a node comes from outside of its graph, or of its body."""
    return node.buffer is not None or node.op in (INPUT, BUFFER, PARAMETER)


class Reference:
    """The values of some nodes, computed from those of the nodes that are `given`.

    If `wide`, every float is a float64, in the bodies of loops too: what rounding does is not in it.
    """

    def __init__(self, outputs: Sequence[Node], wide: bool, given: Callable[[Node], bool] = is_given):
        nodes = _between(outputs, given)
        #: what each node is here
        became: dict[Node, Node] = {}
        #: the nodes that values are asked for, by what they are here
        self.given: dict[Node, Node] = {}
        for place, node in enumerate(nodes):
            if given(node):
                dtype = float64 if wide and node.dtype.is_floating_point else node.dtype
                became[node] = input_node(place, node.shape, dtype)
                self.given[became[node]] = node
            else:
                became[node] = _copied(node, became, wide)
        self.graph = Graph([became[node] for node in nodes], [became[node] for node in outputs])

    def values(self, value_of: ValueOf) -> list[np.ndarray]:
        """The values of the outputs; `value_of` gives those of the nodes that are given, in any float type."""

        def carried(node: Node) -> np.ndarray:
            return np.asarray(value_of(self.given[node])).astype(node.dtype.carrier, copy=False)

        with np.errstate(all="ignore"):
            return interpret(self.graph, carried)


def _between(outputs: Sequence[Node], given: Callable[[Node], bool]) -> list[Node]:
    """The outputs, what is given, and what stands between them, each after its operands."""
    found: set[Node] = set()
    stack = list(outputs)
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            stack.extend(() if given(node) else node.inputs)
    return sorted(found, key=lambda node: node.serial)


def _copied(node: Node, became: dict[Node, Node], wide: bool) -> Node:
    attributes, dtype = node.attributes, node.dtype
    if wide:
        dtype = float64 if dtype.is_floating_point else dtype
        if isinstance(attributes.get("body"), Body):
            attributes = {**attributes, "body": _wide_body(attributes["body"])}
    inputs = tuple(became[operand] for operand in node.inputs)
    return Node(node.op, inputs, attributes, node.shape, dtype, False, node.source)


def _wide_body(body: Body) -> Body:
    became = _all_copied(body.values)
    values = [became[node] for node in body.values]
    return Body([became[p] for p in body.parameters], [became[n] for n in body.next], values)


def _all_copied(nodes: Iterable[Node]) -> dict[Node, Node]:
    became: dict[Node, Node] = {}
    for node in dict.fromkeys(nodes):
        assert node.op is PARAMETER or node.buffer is None, f"{node!r} is in the body of a loop, and has a value"
        became[node] = _copied(node, became, wide=True)
    return became


__all__ = ["Reference", "ValueOf", "is_given"]
