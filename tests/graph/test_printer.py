"""The text of a graph, which everybody debugs with."""

import pullback as pb
from pullback.autograd import grad
from pullback.graph.node import Graph
from pullback.graph.printer import format_graph


def test_a_small_network_and_its_gradient_print_as_in_the_golden_file(golden):
    x, w, b = pb.tensor([[1.0, 2.0]]), pb.tensor([[3.0], [4.0]], requires_grad=True), pb.tensor(0.5, requires_grad=True)
    loss = (x @ w + b).tanh().square().sum()
    graph = Graph.of([loss.node, *(g.node for g in grad(loss, [w, b]))])
    golden("network", format_graph(graph, sources=False) + "\n")


def test_a_line_ends_with_the_users_file_and_line():
    line = format_graph(Graph.of([(pb.tensor([1.0]) * 2).node])).splitlines()[-2]
    assert line.startswith("%2 = mul(%0, %1) : float32[1]  # test_printer.py:")


def test_a_computed_node_prints_as_the_buffer_it_has_become():
    y = pb.tensor([1.0]) + 1
    y.numpy()
    assert format_graph(Graph.of([y.node]), sources=False) == "%0 = buffer() : float32[1]\nreturn %0"
