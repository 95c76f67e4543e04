"""The order of groups: every kernel reads only what kernels before it have written."""

import numpy as np
import pytest

import pullback as pb
from pullback.compiler.fuse import verify_order
from pullback.compiler.pipeline import lower
from pullback.graph.node import Graph
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
