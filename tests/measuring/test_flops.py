"""The operations of a step that shares of the limit are computed from, against two other counts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import pullback as pb
from benchmarks import flops, workloads
from pullback.graph.node import Graph
from pullback.ops.primitive import CONTRACTION

SMALL: dict[str, dict[str, int]] = {
    "gpt2": dict(vocabulary=64, layers=2, batch=1),
    "gpt-mid": dict(layers=2, batch=1),
    "gpt-deep": dict(layers=2),
    "resnet20": dict(blocks=2, batch=2, size=16),
}


@pytest.mark.filterwarnings("ignore:TF32 acceleration")  # of switching oneDNN off
@pytest.mark.parametrize("name", [*workloads.NAMES, *workloads.BY_NAME])
def test_a_forward_pass_has_the_operations_that_pytorch_counts(name: str) -> None:
    changes: dict[str, Any] = SMALL.get(name, {})
    workload = workloads.build(torch, name, **changes)
    # only what is composed of products is counted there, not the fused attention and recurrence
    composed = (sdpa_kernel(SDPBackend.MATH), torch.backends.mkldnn.flags(enabled=False), torch.no_grad())
    with composed[0], composed[1], composed[2], FlopCounterMode(display=False) as counter:
        workload.forward()
    assert flops.of_forward(name, **changes) == counter.get_total_flops()
    assert flops.of_step(name, **changes) == 3 * flops.of_forward(name, **changes)


def test_the_graph_has_as_many_but_for_the_gradient_of_the_data() -> None:
    workload = workloads.build(pb, "mlp")
    loss = workload.forward()
    gradients = pb.autograd.grad(loss, list(workload.model.parameters()))
    graph = Graph.of([loss.node, *(gradient.node for gradient in gradients)])
    products = [node for node in graph.nodes if node.op.kind == CONTRACTION]
    counted = sum(2 * math.prod(node.shape) * node.inputs[0].shape[-1] for node in products)
    assert counted == flops.of_step("mlp") - 2 * 32 * 128 * 64


def test_an_unknown_workload_is_refused() -> None:
    with pytest.raises(KeyError, match="nothing"):
        flops.of_step("nothing")
