"""Layout: what comes from convolutions is computed in their order, channels last, for as long as it can be.

before → after: an elementwise operation, reduction, slice, padding or concatenation of values that are permutations of
what a convolution made is done before the permutation: f(permute(x)) → permute(f(x)). Two permutations that meet
cancel, so between convolutions nothing is transposed, and the sums over a batch normalization's channels are sums over
columns. Values that lie in memory in another order stop it: an optimizer's update is done in the parameter's order.
"""

from __future__ import annotations

import math

from ..graph.node import Graph, Node, ancestors, enter
from ..ops.movement import concatenate, expand, pad, permute, reshape, slice_
from ..ops.primitive import ELEMENTWISE, MOVEMENT, REDUCTION, apply, grad_mode, source_of


def channels_last(graph: Graph) -> Graph:
    """The graph with permutations of convolutions' results put off."""
    if not any(node.op.name == "convolution" for node in graph.nodes):
        return graph
    layout = _Layout()
    order: list[Node] = []
    entered: set[Node] = set()
    with grad_mode(False):
        for node in graph.nodes:
            if node.buffer is None and node.inputs:
                with source_of(node):
                    layout.new[node] = layout.moved(node)
            else:
                layout.new[node] = node
            layout.note(node)
            enter(layout.new[node], order, entered)
    outputs = [layout.new[node] for node in graph.outputs]
    needed = ancestors(outputs)
    return Graph([node for node in order if node in needed], outputs)


class _Layout:
    """The replaced nodes so far, and what is known of them."""

    def __init__(self) -> None:
        self.new: dict[Node, Node] = {}
        #: replaced nodes in the order that a convolution gave them
        self.laid: set[Node] = set()
        #: nodes that no memory of their size holds, so that they can be computed in any order
        self.free: set[Node] = set()

    def note(self, node: Node) -> None:
        """Enter what is known of the node and of what it has become."""
        new = self.new[node]
        moves = new.op.kind == MOVEMENT and new.op.name != "permute"
        along = new.op.kind == ELEMENTWISE and any(i in self.laid and i.shape == new.shape for i in new.inputs)
        if node.op.name == "convolution" or along or (moves and any(i in self.laid for i in new.inputs)):
            self.laid.add(new)
        size = math.prod(new.shape)
        if new.op.name in ("constant", "iota") or (
            new.op.kind in (ELEMENTWISE, MOVEMENT)
            and new.inputs
            and all(i in self.free or math.prod(i.shape) < size for i in new.inputs)
        ):
            self.free.add(new)

    def order_of(self, node: Node) -> tuple[int, ...] | None:
        """By which permutation `node` is made of a value in a convolution's order."""
        return node["axes"] if node.op.name == "permute" and node.inputs[0] in self.laid else None

    def moved(self, node: Node) -> Node:
        """The replacement of `node`."""
        inputs = tuple(self.new[i] for i in node.inputs)
        name = node.op.name
        if name == "permute" and inputs[0].op.name == "permute":
            return permute(inputs[0].inputs[0], tuple(inputs[0]["axes"][a] for a in node["axes"]))
        if node.op.kind == ELEMENTWISE:
            return self._elementwise(node, inputs)
        axes = self.order_of(inputs[0])
        if axes is not None and node.op.kind == REDUCTION:
            return self._reduction(node, inputs[0].inputs[0], axes)
        if axes is not None and name in ("slice", "pad", "concatenate"):
            return self._cut(node, inputs, axes)
        return node.with_inputs(inputs)

    def _elementwise(self, node: Node, inputs: tuple[Node, ...]) -> Node:
        plain = node.with_inputs(inputs)
        found = [self.order_of(i) for i in inputs if i.shape == node.shape]
        axes = next((order for order in found if order is not None), None)
        if axes is None:
            return plain
        inner = [self._in_order(i, axes, node.shape) for i in inputs]
        if any(i is None for i in inner):
            return plain
        result = apply(node.op, *inner, **node.attributes)  # type: ignore[arg-type]
        self.laid.add(result)
        return permute(result, axes)

    def _in_order(self, operand: Node, axes: tuple[int, ...], shape: tuple[int, ...]) -> Node | None:
        """The operand of an operation of `shape` as it is before the permutation; None where memory holds it so."""
        if not operand.shape:
            return operand
        if operand.op.name == "permute" and operand["axes"] == axes:
            return operand.inputs[0]
        if operand.shape == shape and operand not in self.free:
            return None
        return _before(operand, axes)

    def _reduction(self, node: Node, inner: Node, axes: tuple[int, ...]) -> Node:
        reduced = tuple(sorted(axes[a] for a in node["axes"]))
        kept = [axis for axis in range(len(axes)) if axis not in reduced]
        result = apply(node.op, inner, axes=reduced)
        self.laid.add(result)
        return permute(result, tuple(kept.index(axes[a]) for a in range(len(axes)) if a not in node["axes"]))

    def _cut(self, node: Node, inputs: tuple[Node, ...], axes: tuple[int, ...]) -> Node:
        if any(self.order_of(i) != axes for i in inputs):
            return node.with_inputs(inputs)
        inner = tuple(i.inputs[0] for i in inputs)
        back = _inverse(axes)
        if node.op.name == "slice":
            result = slice_(inner[0], tuple(node["bounds"][a] for a in back))
        elif node.op.name == "pad":
            result = pad(inner[0], tuple(node["widths"][a] for a in back))
        else:
            result = concatenate(inner, axes[node["axis"]])
        self.laid.add(result)
        return permute(result, axes)


def _inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(range(len(axes)), key=lambda place: axes[place]))


def _before(operand: Node, axes: tuple[int, ...]) -> Node:
    """The value of which `operand`, with axes of size 1 in front, is the permutation by `axes`."""
    if operand.op.name == "expand":
        shape = (1,) * (len(axes) - len(operand.shape)) + operand.shape
        return expand(_before(operand.inputs[0], axes), tuple(shape[a] for a in _inverse(axes)))
    full = reshape(operand, (1,) * (len(axes) - len(operand.shape)) + operand.shape)
    back = _inverse(axes)
    long = [a for a in back if full.shape[a] != 1]
    if long == sorted(long):  # only axes of size 1 change their places
        return reshape(full, tuple(full.shape[a] for a in back))
    return permute(full, back)
