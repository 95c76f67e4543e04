"""Copies: where a value must lie in memory in its own order and would not, a `copy` node is put.

before → after: an output that is a leaf, a movement, or the same node as another output, is copied; so is an operand of
a matrix product or of attention that cannot be read by strides, and an argument of a host call that is not contiguous.
Long chains of movements are copied now and then, so that no kernel computes addresses without end.
"""

from __future__ import annotations

from collections.abc import Callable

from ..graph.node import Graph, Node, enter
from ..graph.types import DType, bfloat16, float16, float32
from ..ops.attention import weight_operands
from ..ops.elementwise import copy
from ..ops.primitive import ATTENTION, LEAF, MOVEMENT, grad_mode, source_of
from .index import View, contiguous_view, strided_view

SMALL_FLOATS = (float16, bfloat16)

#: movements in a row that are read through
_LONGEST_CHAIN = 12


def insert_copies(graph: Graph) -> Graph:
    """The graph with copies where memory must hold a value in its own order."""
    new: dict[Node, Node] = {}
    order: list[Node] = []
    entered: set[Node] = set()
    outputs: dict[Node, None] = {}
    depth: dict[Node, int] = {}
    with grad_mode(False):
        for node in graph.nodes:
            inputs = [new[i] for i in node.inputs] if node.buffer is None else []
            with source_of(node):
                if node.op.name == "matmul":
                    inputs = [i if _can_stride(i) else copy(i) for i in inputs]
                elif node.op.kind == ATTENTION:
                    computed = [new[i] for i in weight_operands(node) if i is not None]
                    inputs = [i if i in computed or _can_stride(i) else copy(i) for i in inputs]
                elif node.op.name == "host_call":
                    inputs = [i if _has_memory(_under_reshapes(i)) else copy(i) for i in inputs]
                elif node.op.name == "scan":
                    inputs = _operands_of_loop(node, inputs)
                elif node.op.kind == MOVEMENT and any(depth.get(i, 0) >= _LONGEST_CHAIN for i in inputs):
                    inputs = [copy(i) if depth.get(i, 0) >= _LONGEST_CHAIN else i for i in inputs]
                new[node] = node.with_inputs(tuple(inputs)) if node.buffer is None else node
                if node.op.kind == MOVEMENT:
                    depth[new[node]] = 1 + max((depth.get(i, 0) for i in inputs), default=0)
            enter(new[node], order, entered)
        for node in graph.outputs:
            output = new[node]
            if output in outputs or output.op.kind == LEAF or not _has_memory(output):
                with source_of(node):
                    output = copy(output)
                enter(output, order, entered)
            outputs[output] = None
    return Graph(order, list(outputs))


def _has_memory(node: Node) -> bool:
    """Whether the node is computed into memory, or given there; a check only looks at its input."""
    moved = node.op.kind == MOVEMENT and node.op.name != "concatenate"
    return not moved and node.op.name not in ("constant", "iota", "bounded")


def _operands_of_loop(loop: Node, inputs: list[Node]) -> list[Node]:
    """Initial carries in memory of their own, which the loop writes over; slices and constants as they lie."""
    carries = len(loop["body"].next)
    slices = carries + loop["slices"]
    read = [
        operand if contiguous_view(operand, _has_memory, first_axis_apart=number < slices - carries) else copy(operand)
        for number, operand in enumerate(inputs[carries:])
    ]
    return [*(copy(operand) for operand in inputs[:carries]), *read]


def _under_reshapes(node: Node) -> Node:
    while node.op.name == "reshape":
        node = node.inputs[0]
    return node


def _can_stride(operand: Node) -> bool:
    """Whether a matrix product can read the operand where it lies, contiguous along one of the last two axes."""
    return _is_contiguous(operand, strided_view(operand, _has_memory))


def _is_contiguous(operand: Node, view: View | None) -> bool:
    if view is None:
        return False
    shape = operand.shape[-2:]
    return any(stride == 1 or size == 1 for stride, size in zip(view.strides[-2:], shape, strict=True))


def product_view(operand: Node, in_memory: Callable[[Node], bool]) -> tuple[View | None, DType | None]:
    """How a matrix product reads `operand`, and to which 16-bit type it rounds what it reads, if to any."""
    node = operand
    while not in_memory(node) and node.op.kind == MOVEMENT and node.inputs:
        node = node.inputs[0]
    if not in_memory(node) and node.op.name == "convert" and node.dtype in SMALL_FLOATS:
        return strided_view(operand, in_memory, rounds=True), node.dtype
    return strided_view(operand, in_memory), None


def rounds_as_it_reads(operand: Node) -> bool:
    """Whether a matrix product does better to round `operand` itself than to find it rounded in memory.

    So it is where float32 values lie in memory before the program begins, as parameters do, and are rounded for
    products: writing the rounded values and reading them again moves as many bytes as reading the float32 values
    twice, which is what a weight's forward and backward products do, and needs the memory.
    """

    def is_given(node: Node) -> bool:
        return node.op.kind == LEAF and node.op.name not in ("constant", "iota")

    view, rounded = product_view(operand, is_given)
    return rounded is not None and view is not None and view.base.dtype is float32 and _is_contiguous(operand, view)
