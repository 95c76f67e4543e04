"""The verifier names the pass that broke a graph, and how."""

import pytest

import pullback as pb
from pullback.errors import VerifyError
from pullback.graph.node import Graph, Node
from pullback.graph.types import float64
from pullback.graph.verifier import verify


def graph() -> Graph:
    x = pb.tensor([1.0, 2.0])
    return Graph.of([((x + 1) * x).node])


def test_a_graph_as_it_was_built_passes():
    verify(graph(), "building")


def test_a_node_before_its_input_is_caught():
    broken = graph()
    broken.nodes.reverse()
    with pytest.raises(VerifyError, match=r"after shuffle: <mul float32\[2\]> comes before its input"):
        verify(broken, "shuffle")


def test_a_node_that_stands_twice_is_caught():
    broken = graph()
    broken.nodes.append(broken.nodes[-1])
    with pytest.raises(VerifyError, match="stands twice"):
        verify(broken, "copying")


def test_a_wrong_shape_or_dtype_is_caught_with_the_graph_in_the_message():
    for shape, dtype in (((3,), None), (None, float64)):
        broken = graph()
        last = broken.nodes[-1]
        wrong = Node(last.op, last.inputs, last.attributes, shape or last.shape, dtype or last.dtype)
        with pytest.raises(VerifyError, match=r"should be float32\[2\](.|\n)*return %"):
            verify(Graph([*broken.nodes[:-1], wrong], [wrong]), "fusion")


def test_an_output_that_is_not_computed_is_caught():
    broken = graph()
    broken.outputs = [graph().outputs[0]]
    with pytest.raises(VerifyError, match=r"output .* is not in the graph"):
        verify(broken, "dead code elimination")
