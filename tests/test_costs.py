"""What a step costs, counted rather than timed: floating-point operations, nodes, kernels, and what is compiled."""

from __future__ import annotations

from typing import Any

import pytest

import pullback as pb
from benchmarks import workloads
from pullback.compiler.costs import operations
from pullback.compiler.pipeline import lower, prepare
from pullback.graph.node import Graph, Node
from pullback.runtime import engine
from pullback.runtime.program import Program

#: what a backward pass may cost, in forward passes: two matrix products for each one of the forward pass, and a little
BACKWARD_LIMIT = 2.2
DEPTHS = (5, 10, 20, 40)
SMALL_GPT = dict(layers=2, batch=2)


def passes(workload: workloads.Workload) -> tuple[Graph, Graph]:
    """The prepared graphs of the forward pass, and of both passes, without nodes that nobody reads."""
    for parameter in workload.model.parameters():
        parameter.tolist()  # its random initial value is no part of the passes
    loss = workload.forward()
    gradients = pb.autograd.grad(loss, list(workload.model.parameters()))
    outputs = [loss.node, *(gradient.node for gradient in gradients)]
    forward, both = prepare(_without_values([loss.node])), prepare(_without_values(outputs))
    return Graph.of(forward.outputs), Graph.of(both.outputs)


def _without_values(outputs: list[Node]) -> Graph:
    graph = Graph.of(outputs)
    return engine.without_values(graph, [node for node in graph.nodes if node.buffer is not None])[0]


@pytest.mark.parametrize("name", ["mlp", "gpt-char", "gpt-mid"])
def test_backward_costs_two_forwards(name: str) -> None:
    small = SMALL_GPT if name.startswith("gpt") else {}
    forward, both = (sum(map(operations, graph.nodes)) for graph in passes(workloads.build(pb, name, **small)))
    assert 0 < both - forward <= BACKWARD_LIMIT * forward, f"backward / forward = {(both - forward) / forward:.2f}"


def test_operations_of_a_product() -> None:
    """The count itself: a product of [3, 4] and [4, 5] is 60 multiplications and 60 additions."""
    graph = Graph.of([(pb.ones(3, 4) @ pb.ones(4, 5)).node])
    assert sum(map(operations, graph.nodes)) == 120


def step_of(layers: int) -> tuple[int, int]:
    """Nodes and kernels of a whole training step of the sigmoid network."""
    compiled = pb.compile(workloads.sigmoid_network(pb, layers).step)
    graphs: list[Graph] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "pullback.tracing.replay.made_program", lambda graph, inputs, **_: _Recorded(graph, inputs, graphs)
        )
        compiled()
    lowered, fusion = lower(graphs[0])
    return len(lowered.nodes), len(fusion.groups)


class _Recorded(Program):
    """Stands in for a program: remembers the graph and computes nothing."""

    def __init__(self, graph: Graph, inputs: list[Node], graphs: list[Graph]):
        self.graphs = graphs
        super().__init__(graph, inputs)

    def _prepare(self, graph: Graph, budget: Any, ready: bool) -> None:
        self.graphs.append(graph)

    def run(self, inputs: Any, outputs: Any, moved: Any = None) -> None:
        for buffer in outputs:
            buffer.array.fill(0)


def test_a_step_grows_linearly_with_depth() -> None:
    counted = [step_of(layers) for layers in DEPTHS]
    nodes, kernels = zip(*counted, strict=True)
    for counts, slack in ((nodes, 0), (kernels, 1)):  # a kernel holds a bounded number of nodes, so its count has steps
        a_layer = (counts[1] - counts[0]) / (DEPTHS[1] - DEPTHS[0])
        for layers, count in zip(DEPTHS, counts, strict=True):
            expected = counts[0] + a_layer * (layers - DEPTHS[0])
            assert abs(count - expected) <= slack * (1 + layers / DEPTHS[0]), (DEPTHS, counts)


def test_a_chain_has_nodes_in_proportion() -> None:
    def nodes(length: int) -> int:
        x = pb.linspace(0.0, 1.0, 10).requires_grad_()
        y = x
        for _ in range(length):
            y = y.sin()
        (gradient,) = pb.autograd.grad(y.sum(), x)
        return len(prepare(_without_values([gradient.node])).nodes)

    hundred, two_hundred, four_hundred = nodes(100), nodes(200), nodes(400)
    assert four_hundred - two_hundred == 2 * (two_hundred - hundred)


def test_a_new_learning_rate_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    w = pb.nn.Parameter(pb.ones(3))
    optimizer = pb.optim.SGD([w], lr=0.5)

    @pb.compile
    def step() -> pb.Tensor:
        optimizer.zero_grad()
        loss = w.sum()
        loss.backward()
        optimizer.step()
        return loss

    step()

    def refuse(*_: Any) -> None:
        raise AssertionError("something was compiled")

    monkeypatch.setattr("pullback.tracing.replay.made_program", refuse)
    monkeypatch.setattr("pullback.runtime.engine._program", refuse)
    step()
    assert w.tolist() == [0.0] * 3
    optimizer.param_groups[0]["lr"] = 0.25
    step()
    assert w.tolist() == [-0.25] * 3


def test_two_steps_of_one_function_take_one_rate() -> None:
    w = pb.nn.Parameter(pb.ones(1))
    optimizer = pb.optim.SGD([w], lr=0.5)

    def once() -> None:
        optimizer.zero_grad()
        w.sum().backward()
        optimizer.step()

    @pb.compile
    def twice() -> None:
        once(), once()

    @pb.compile
    def changing() -> None:
        once()
        optimizer.param_groups[0]["lr"] = 0.125
        once()

    twice()
    assert w.tolist() == [0.0]
    optimizer.param_groups[0]["lr"] = 0.25
    twice()
    assert w.tolist() == [-0.5]
    with pytest.raises(pb.errors.TraceError, match=r"changed from 0\.25 to 0\.125"):
        changing()


def _text_of_kernels(step: Any) -> int:
    launches = [launch for launch, _ in step.program.kernels()]
    return sum(len(launch.code.text) for launch in launches)


@pytest.mark.native("what native kernels look like")
def test_values_of_neighbours_are_written_where_many_ways_lead_to_them() -> None:
    def size(levels: int) -> int:
        @pb.compile
        def gradient(x: pb.Tensor) -> pb.Tensor:
            y = x
            for level in range(levels):
                y = y + y.roll(2**level)
            return pb.autograd.grad(y.sin().sum(), x)[0]

        gradient(pb.randn(256, requires_grad=True))
        return _text_of_kernels(gradient)

    sizes = [size(levels) for levels in (2, 4, 6)]
    assert sizes[2] - sizes[1] <= 1.5 * (sizes[1] - sizes[0]), sizes


def test_an_index_of_many_operations_is_followed_once_and_not_far() -> None:
    def index(rounds: int) -> pb.Tensor:
        found = pb.arange(3)
        for _ in range(rounds):  # each reads the one before twice
            found = (found + found) % 7
        return found

    x = pb.arange(7.0)
    for rounds in (40, 400):
        expected = x.tolist()[2**rounds % 7] + x.tolist()[2 ** (rounds + 1) % 7]
        assert x[index(rounds)].sum().item() == expected
        assert pb.compile(lambda x, rounds=rounds: x[index(rounds)].sum())(x).item() == expected


def test_long_chains_can_be_summed_within_a_budget() -> None:
    w = pb.nn.Parameter(pb.ones(8))
    optimizer = pb.optim.SGD([w], lr=0.1)

    @pb.compile(memory="least")
    def step() -> pb.Tensor:
        optimizer.zero_grad()
        y = w
        for _ in range(120):
            y = (y.sin() + y.cos()) * 0.5
        loss = y.sum()
        loss.backward()
        optimizer.step()
        return loss

    assert step().isfinite()
