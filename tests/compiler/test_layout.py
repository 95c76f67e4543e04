"""Between convolutions nothing is transposed, and what stands between them is computed as they read it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import pullback as pb
from benchmarks import flops, workloads
from pullback.compiler.costs import operations
from pullback.compiler.groups import CONVOLUTION, TOTAL
from pullback.compiler.pipeline import lower, prepare
from pullback.graph.node import Graph, Node
from pullback.runtime import engine

F = pb.nn.functional


def graph_of(*outputs: pb.Tensor) -> Graph:
    graph = Graph.of([output.node for output in outputs])
    return engine.without_values(graph, [node for node in graph.nodes if node.buffer is not None])[0]


def given(*shape: int) -> pb.Tensor:
    """A tensor that has a value, and so is no part of a graph."""
    return pb.tensor(np.random.default_rng(0).normal(size=shape).astype(np.float32))


def permutations(graph: Graph, elements: int) -> list[Node]:
    """The permutations of at least so many elements, save those that say how a convolution reads its operands."""
    return [n for n in graph.nodes if n.op.name == "permute" and len(n.shape) == 4 and np.prod(n.shape) >= elements]


BETWEEN: dict[str, Callable[[pb.Tensor, pb.Tensor], pb.Tensor]] = {
    "activation": lambda y, bias: F.gelu(y),
    "bias": lambda y, bias: y + bias.reshape(-1, 1, 1),
    "normalization": lambda y, bias: F.batch_norm(y, None, None, bias, bias, training=True),
    "residual": lambda y, bias: (y.relu() + y).clamp(0.0, 6.0),
    "dropout": lambda y, bias: F.dropout(y, 0.5),
    "slices joined": lambda y, bias: pb.cat([y[:, 2:], y[:, :2]], 1),
    "pooling": lambda y, bias: F.max_pool2d(y, 2),
    "gate of channels": lambda y, bias: y * y.mean((2, 3), keepdim=True).sigmoid(),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_what_stands_between_convolutions_is_not_transposed(name: str) -> None:
    x, first, second, bias = given(2, 3, 8, 8), given(4, 3, 3, 3), given(5, 4, 3, 3), given(4)
    y = F.conv2d(BETWEEN[name](F.conv2d(x, first, padding=1), bias), second, padding=1)
    graph = prepare(graph_of(y))
    # the image comes in, and the result goes out, in the user's order; a mask is drawn in any; weights are small
    moved = [n.inputs[0].op.name for n in permutations(graph, 384)]
    assert [name for name in moved if name != "lt"] in (["input", "reshape"], ["input"])


def test_a_resnets_step_transposes_the_images_alone_and_multiplies_no_zeros() -> None:
    workload = workloads.build(pb, "resnet20")
    for held in [*workload.model.parameters(), *workload.model.buffers()]:
        held.tolist()  # how it was drawn is no part of the step
    loss = workload.forward()
    gradients = pb.autograd.grad(loss, list(workload.model.parameters()))
    graph = prepare(graph_of(loss, *gradients))
    images = 64 * 32 * 32 * 3
    assert {n.inputs[0].op.name for n in permutations(graph, images)} == {"input"}
    counted = sum(operations(n) for n in graph.nodes if n.op.name in ("convolution", "matmul"))
    gradient_of_images = 2 * 9 * 16 * images
    assert counted == flops.of_step("resnet20") - gradient_of_images


def test_batch_norm_and_relu_are_computed_while_a_convolution_reads() -> None:
    x, first, second, scale = given(4, 8, 8, 8), given(16, 8, 3, 3), given(8, 16, 3, 3), given(16)
    y = F.batch_norm(F.conv2d(x, first, padding=1), None, None, scale, scale, training=True).relu()
    _, fusion = lower(graph_of(F.conv2d(y, second, padding=1)))
    stored = [n for group in fusion.groups for n in group.stored]
    large = [n.op.name for n in stored if np.prod(n.shape) >= 4 * 8 * 8 * 8]
    assert y.node.op.name not in large
    assert large.count("copy") == 1, "the result in the user's order"
    assert "add" in {n.op.name for n in stored if n.shape and np.prod(n.shape) == 16}, "1 / deviation is computed once"


def test_the_norm_of_a_weights_gradient_comes_out_of_its_kernel() -> None:
    """A sum over everything goes through the gradient in the order in which the convolution makes it."""
    x, weight = given(3, 4, 8, 8), given(6, 4, 3, 3).requires_grad_()
    (gradient,) = pb.autograd.grad(F.conv2d(x, weight).square().sum(), [weight])
    _, fusion = lower(graph_of((gradient * gradient).sum(), gradient.abs().amax(), gradient.to(pb.float64).sum()))
    levels = [level for group in fusion.groups if group.kind == CONVOLUTION for level in group.members.values()]
    assert levels.count(TOTAL) == 3
    assert max(len(group.stored) for group in fusion.groups if group.kind == CONVOLUTION) == 3


def test_a_parameter_keeps_its_order() -> None:
    """What is added to a value in memory is read across, and not the value."""
    x, weight = given(3, 4, 8, 8), given(6, 4, 3, 3).requires_grad_()
    (gradient,) = pb.autograd.grad(F.conv2d(x, weight).square().sum(), [weight])
    graph = prepare(graph_of(weight.detach() * 0.9 - gradient * 0.1))
    assert graph.outputs[0].op.name == "sub"
    assert graph.outputs[0].shape == (6, 4, 3, 3)
