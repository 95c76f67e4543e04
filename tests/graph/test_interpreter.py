"""The interpreter: any graph, node by node."""

import numpy as np
import pytest

import pullback as pb
from pullback.graph.interpreter import interpret
from pullback.graph.node import Graph
from pullback.ops.elementwise import add, mul
from pullback.ops.host import host_call
from pullback.ops.primitive import constant, input_node


def test_inputs_come_from_outside_and_outputs_in_the_order_asked_for():
    x = input_node(0, (2,), pb.float32)
    y = add(x, constant(1.0, pb.float32))
    z = mul(y, y)
    values = interpret(Graph.of([z, y, x]), lambda node: np.array([1.0, 2.0], np.float32))
    assert [v.tolist() for v in values] == [[4.0, 9.0], [2.0, 3.0], [1.0, 2.0]]


def test_sixteen_bit_floats_are_rounded_after_each_operation():
    x = input_node(0, (), pb.bfloat16)
    (value,) = interpret(Graph.of([add(x, constant(1.0, pb.bfloat16))]), lambda node: np.array(2.0**-9, np.float32))
    assert (value.dtype, float(value)) == (np.float32, 1.0)


def test_values_are_let_go_after_their_last_use():
    alive = []

    def watch(array):
        import weakref

        alive.append(weakref.ref(array))
        return array + 1

    node = input_node(0, (1000,), pb.float32)
    for _ in range(3):
        node = host_call((node,), watch, (1000,), pb.float32)
    interpret(Graph.of([node]), lambda node: np.zeros(1000, np.float32))
    assert [reference() for reference in alive] == [None] * 3


def test_a_host_call_that_breaks_its_promise_is_named():
    node = host_call((constant(1.0, pb.float32),), lambda a: np.zeros(3), (2,), pb.float32)
    with pytest.raises(pb.errors.ShapeError, match=r"returned shape \[3\], promised \[2\]"):
        interpret(Graph.of([node]), lambda node: np.zeros(0))
