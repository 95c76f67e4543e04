"""Random graphs: native code computes what the reference computes, and the same bits for any number of threads."""

import math

import numpy as np
import pytest
from hypothesis import example, given, settings

from pullback import debug
from pullback.codegen.target import is_x86
from pullback.graph import types
from pullback.graph.node import Graph, reachable
from pullback.ops.primitive import REGISTRY
from pullback.runtime import engine
from pullback.runtime.backends import made_program
from pullback.runtime.buffers import Buffer
from pullback.runtime.jit import host_target
from random_graphs import RandomGraph, random_graph, random_graphs

#: primitives of codes of 8 and of 4 bits
CODES = {
    "decode_table",
    "encode_table",
    *(f"{way}_dynamic_{kind}" for way in ("encode", "decode") for kind in ("signed", "unsigned")),
    "magnitude_bits",
    "float_of_bits",
    "decode_first_moment",
    "decode_second_moment",
    "encode_moments",
    "apart",
}


def run(graph: RandomGraph, **switches) -> list[np.ndarray]:
    """The values of the outputs, in the dtypes' carrier types, by a program made under these switches."""
    wanted = list(dict.fromkeys(output.node for output in graph.outputs if output.node.buffer is None))
    values = {k.node: k.node.buffer for k in graph.outputs}
    if wanted:
        whole = Graph.of(wanted)
        leaves = [node for node in whole.nodes if node.buffer is not None]
        results = [Buffer.empty(engine.count(node), node.dtype) for node in wanted]
        with debug.override(**switches):
            made_program(*engine.without_values(whole, leaves)).run([leaf.buffer for leaf in leaves], results)
        values.update(zip(wanted, results, strict=True))
    return [types.to_carrier(values[k.node].array, k.dtype).reshape(k.shape) for k in graph.outputs]


def assert_within_bounds(graph: RandomGraph, expected: list[np.ndarray], actual: list[np.ndarray]) -> None:
    for known, right, value in zip(graph.outputs, expected, actual, strict=True):
        # twice: the bound is of one result, and both sides round
        np.testing.assert_allclose(value, right, rtol=0, atol=2 * known.error, equal_nan=True, err_msg=repr(graph))


def same_bits(left: list[np.ndarray], right: list[np.ndarray]) -> bool:
    return all(a.tobytes() == b.tobytes() for a, b in zip(left, right, strict=True))


@pytest.fixture
def no_small_programs(monkeypatch):
    """Have programs, and the bundles of their launches, use threads however little they do."""
    monkeypatch.setattr("pullback.runtime.native._SMALL_WORK", -math.inf)
    monkeypatch.setattr("pullback.runtime.bundles._HAND_OVER", -math.inf)


@settings(max_examples=150)
@given(random_graphs())
def test_the_reference_keeps_within_the_bounds_on_size_and_finiteness(graph):
    for known, value in zip(graph.outputs, run(graph, backend="reference"), strict=True):
        finite = np.isfinite(value)
        assert finite.all() or not known.finite
        assert np.all(np.abs(value[finite].astype(np.float64)) <= known.size * (1 + 1e-5) + 1e-6)


@settings(max_examples=60)
@example(random_graph(3, 2))
@example(random_graph(9, 10))
@example(random_graph(70, 7))
@example(random_graph(82, 5))
@example(random_graph(86, 1))
@example(random_graph(92, 8))
@example(random_graph(114, 4))
@example(random_graph(118, 7))
@example(random_graph(1019, 10))
@example(random_graph(1119, 10))
@example(random_graph(1235, 8))
@given(random_graphs())
def test_native_code_computes_what_the_reference_computes(graph):
    assert_within_bounds(graph, run(graph, backend="reference"), run(graph, backend="native"))


@pytest.mark.parametrize("seed", range(20))
def test_the_bits_are_the_same_for_any_number_of_threads(seed, no_small_programs):
    graph = random_graph(seed + 1000, 12)
    one, two, three = (run(graph, backend="native", num_threads=count, verify=True) for count in (1, 2, 3))
    assert same_bits(one, two)
    assert same_bits(one, three)


@pytest.mark.skipif(not is_x86(host_target().triple), reason="x86-64-v3 is a level of x86 processors")
@pytest.mark.parametrize("seed", range(15))
def test_code_for_an_older_processor_computes_the_same(seed):
    graph = random_graph(seed + 2000, 12)
    assert_within_bounds(graph, run(graph, backend="reference"), run(graph, backend="native", cpu="x86-64-v3"))


def test_every_primitive_occurs():
    nodes = reachable([k.node for seed in range(500) for k in random_graph(seed, 12).outputs], stop_at_buffers=False)
    # codes have values at whose borders rounding decides: tests/quant/test_blockwise.py compares them
    assert set(REGISTRY) - {"input", "parameter"} - CODES <= {node.op.name for node in nodes}


def test_a_graph_of_fewer_operations_is_the_beginning_of_one_with_more():
    short, long = random_graph(5, 3), random_graph(5, 9)
    beginning = [node.op.name for node in reachable([short.outputs[0].node], stop_at_buffers=False)]
    assert beginning == [
        node.op.name for node in reachable([random_graph(5, 3).outputs[0].node], stop_at_buffers=False)
    ]
    assert len(long.pool) == 9
    assert [k.shape for k in long.pool[:3]] == [k.shape for k in short.pool]
