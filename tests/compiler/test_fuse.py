"""Groups: every kernel reads only what kernels before it have written, and what is summed is not read again for it."""

import numpy as np
import pytest

import pullback as pb
from benchmarks import workloads
from pullback.compiler.groups import ACROSS, COLUMN, TOTAL, verify_order
from pullback.compiler.pipeline import lower
from pullback.graph.node import Graph
from pullback.ops.primitive import input_node
from random_graphs import random_graph


@pytest.mark.parametrize("seed", range(40))
def test_no_group_reads_what_a_later_one_computes(seed):
    for first in range(seed * 10, seed * 10 + 10):
        outputs = [known.node for known in random_graph(first, 30).outputs]
        verify_order(lower(Graph.of(outputs))[1])


def test_no_group_of_second_derivatives_reads_what_a_later_one_computes():
    for size in (2, 3):
        outputs = _second_derivatives(size)
        verify_order(lower(Graph.of([output.node for output in outputs]))[1])


def test_second_derivatives_through_a_stack_of_rows():
    # a loop was merged into a later one although a concatenation in between read it
    native = [t.tolist() for t in _second_derivatives(2)]
    with pb.debug.override(backend="reference"):
        reference = [t.tolist() for t in _second_derivatives(2)]
    for found, expected in zip(native, reference, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def _second_derivatives(rows):
    random = np.random.default_rng(0)
    x = pb.tensor(random.standard_normal((rows, 3)), requires_grad=True)
    factors = [pb.tensor(random.standard_normal(3), requires_grad=True) for _ in range(rows)]
    wanted = [*factors, x]
    y = pb.stack([factor * x[row] for row, factor in enumerate(factors)])
    loss = sum((factor * factor).sum() for factor in factors) + (y * y).sum()
    first = pb.autograd.grad(loss, wanted, create_graph=True)
    return pb.autograd.grad(sum((g * g).sum() for g in first), wanted)


def test_random_graphs_have_products_that_are_reduced_on_the_way():
    levels = {TOTAL: 0, COLUMN: 0, ACROSS: 0}
    for seed in range(150):
        graph = random_graph(seed, 30)
        outputs = [known.node for known in (*graph.pool, *graph.outputs)]
        for group in lower(Graph.of(outputs))[1].groups:
            for level in group.members.values():
                if level in levels:
                    levels[level] += 1
    assert min(levels.values()) >= 3, levels


@pytest.fixture(scope="module")
def gpt_step():
    with pb.debug.override(backend="native"):
        step = pb.compile(workloads.build(pb, "gpt-char", context=16, width=64, layers=2, batch=4).step)
        step()
    return step.program.kernels()


def test_the_gradient_of_a_bias_comes_out_of_the_product_that_makes_the_cotangent(gpt_step):
    """Of a block's hidden layer, and of the gains and biases of all normalizations."""
    columns = [node.shape for _, group in gpt_step for node, level in group.members.items() if level == COLUMN]
    assert set(columns) == {(64,), (256,)}
    assert len({group for _, group in gpt_step if COLUMN in group.members.values()}) == 2 + 5


def test_what_is_widened_is_kept_in_its_own_size():
    """Of two values that tell the same the one of fewer bytes is in memory, and the readers widen it."""
    weights = [pb.tensor(np.ones((64, 64), np.float32), requires_grad=True) for _ in range(2)]
    x = pb.tensor(np.ones((64, 64), np.float32))
    with pb.autocast("cpu", pb.bfloat16):
        hidden = pb.nn.functional.gelu(x @ weights[0]) @ weights[1]
    gradients = pb.autograd.grad(hidden.float().sum(), weights)
    fusion = lower(Graph.of([g.node for g in gradients]))[1]
    stored = [node for group in fusion.groups for node in group.stored]
    widened = [n for n in stored if n.op.name == "convert" and n.inputs[0].dtype.itemsize < n.dtype.itemsize]
    assert [n for n in widened if n not in fusion.graph.outputs] == []


def test_a_number_that_is_converted_late_keeps_no_reader_from_its_kernel():
    x, rate = pb.Tensor._wrap(input_node(0, (32,), pb.float32)), pb.Tensor._wrap(input_node(1, (), pb.float64))
    halves = x * 0.5
    moved, rows = x - halves * rate.float(), halves.reshape(4, 8).amax(1)
    groups = lower(Graph.of([moved.node, rows.node]))[1].groups
    assert [len(group.stored) for group in groups if group.size > 1] == [2], groups
