"""Simplify: the same values from fewer nodes.

before → after: what only differentiation sees (detach, identity, custom …) disappears; arithmetic on numbers is done;
movement of movement is one movement; equal nodes are one node; what no output needs is gone. Rules are data (`RULES`):
each takes a node whose inputs are simplified and gives its replacement, or None where it does not apply. No rule
changes a bit of any value, save that x * 1 keeps a signaling NaN as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import numpy as np

from ..graph.node import Graph, Node, ancestors, enter, exact
from ..ops.movement import concatenate, expand, pad, permute, reshape, slice_
from ..ops.primitive import ELEMENTWISE, constant, grad_mode, source_of

Rule = Callable[[Node], Node | None]


def simplify(graph: Graph) -> Graph:
    """The simplified graph; outputs keep their number and order."""
    new: dict[Node, Node] = {}
    known: dict[Hashable, Node] = {}
    with grad_mode(False):
        for node in graph.nodes:
            current = node if node.buffer is not None else node.with_inputs(tuple(new[i] for i in node.inputs))
            with source_of(node):
                current = _rewrite(current)
            new[node] = known.setdefault(_key(current), current)
    outputs = [new[node] for node in graph.outputs]
    needed = ancestors(outputs)
    order: list[Node] = []
    entered: set[Node] = set()
    for node in graph.nodes:
        if new[node] in needed:
            enter(new[node], order, entered)
    return Graph(order, outputs)


def _rewrite(node: Node) -> Node:
    """`node` after every rule that applies to it, and to what they make of it."""
    while True:
        for rule in RULES.get(node.op.name, ()) + (_GENERAL if node.op.kind == ELEMENTWISE else ()):
            replaced = rule(node)
            if replaced is not None and replaced is not node:
                node = replaced
                break
        else:
            return node


def _key(node: Node) -> Hashable:
    if node.buffer is not None or node.op.name == "host_call":
        return node
    return (node.op, node.shape, node.dtype, tuple(map(exact, node.attributes.values())), node.inputs)


def number_of(node: Node) -> float | int | bool | None:
    """The one number that all elements of `node` are known to be, or None."""
    while node.op.name in ("expand", "reshape", "permute") and node.buffer is None:
        node = node.inputs[0]
    return node["value"] if node.op.name == "constant" else None


def _is(node: Node, value: float) -> bool:
    number = number_of(node)
    return number is not None and number == value and not (value == 0 and np.signbit(float(number)))


def _first(node: Node) -> Node:
    return node.inputs[0]


def _unit(place: int, value: float) -> Rule:
    """The other operand, where operand `place` is `value` and the other has the result's shape."""

    def rule(node: Node) -> Node | None:
        other = node.inputs[1 - place]
        return other if _is(node.inputs[place], value) and other.shape == node.shape else None

    return rule


def _same_dtype(node: Node) -> Node | None:
    return node.inputs[0] if node.inputs[0].dtype is node.dtype else None


def _bare_numbers(node: Node) -> Node | None:
    """Operands that are repeated numbers become bare numbers, where another operand still gives the shape."""
    if not any(i.shape and number_of(i) is not None for i in node.inputs):
        return None
    bare = [
        i if number_of(i) is None else constant(number_of(i), i.dtype)  # type: ignore[arg-type]
        for i in node.inputs
    ]
    if all(number_of(i) is not None for i in node.inputs):
        scalar = Node(node.op, tuple(bare), node.attributes, (), node.dtype, False, node.source)
        return expand(scalar, node.shape) if node.shape else None
    shapes = [i.shape for i in bare]
    return node.copy(tuple(bare)) if np.broadcast_shapes(*shapes) == node.shape else None


def _fold(node: Node) -> Node | None:
    """Arithmetic on numbers, done by the reference."""
    if node.shape or not all(i.op.name == "constant" for i in node.inputs) or not node.inputs:
        return None
    arrays = [np.asarray(i.op.evaluate(i)) for i in node.inputs]
    return constant(node.op.evaluate(node, *arrays).item(), node.dtype)


def _reshape_of_reshape(node: Node) -> Node | None:
    inner = node.inputs[0]
    if node.shape == inner.shape:
        return inner
    if inner.op.name == "reshape":
        return reshape(inner.inputs[0], node.shape)
    number = number_of(inner)
    return None if number is None or inner.op.name == "constant" else expand(constant(number, node.dtype), node.shape)


def _permute_of_permute(node: Node) -> Node | None:
    inner = node.inputs[0]
    if inner.op.name == "permute":
        return permute(inner.inputs[0], tuple(inner["axes"][a] for a in node["axes"]))
    number = number_of(inner)
    return None if number is None else expand(constant(number, node.dtype), node.shape)


def _expand_of_expand(node: Node) -> Node | None:
    inner = node.inputs[0]
    return expand(inner.inputs[0], node.shape) if inner.op.name == "expand" else None


def _slice_of_slice(node: Node) -> Node | None:
    inner = node.inputs[0]
    if inner.op.name != "slice":
        number = number_of(inner)
        return None if number is None else expand(constant(number, node.dtype), node.shape)
    pairs = zip(inner["bounds"], node["bounds"], strict=True)
    return slice_(inner.inputs[0], tuple((a + start, a + stop) for (a, _), (start, stop) in pairs))


def _padded_axis(node: Node) -> int | None:
    """The one axis that `node` pads, if it is a pad of one axis."""
    if node.op.name != "pad":
        return None
    axes = [axis for axis, widths in enumerate(node["widths"]) if any(widths)]
    return axes[0] if len(axes) == 1 else None


def _join_pads(node: Node) -> Node | None:
    """The sum of two pieces padded to neighbouring places, as the gradient of a split is, is the pieces joined.

    pad(a) + pad(b) → pad(cat(a, b)): where a piece stands the other is 0, and x + 0 is x save for the sign of zero.
    """
    left, right = node.inputs
    axis = _padded_axis(left)
    if axis is None or axis != _padded_axis(right) or not node.dtype.is_floating_point:
        return None
    if left["widths"][axis][0] > right["widths"][axis][0]:
        left, right = right, left
    (low, _), (start, high) = left["widths"][axis], right["widths"][axis]
    if low + left.inputs[0].shape[axis] != start:
        return None
    joined = concatenate((*_pieces(left.inputs[0], axis), *_pieces(right.inputs[0], axis)), axis)
    return pad(joined, tuple((low, high) if i == axis else (0, 0) for i in range(len(node.shape))))


def _pieces(node: Node, axis: int) -> tuple[Node, ...]:
    return node.inputs if node.op.name == "concatenate" and node["axis"] == axis else (node,)


_GENERAL: tuple[Rule, ...] = (_bare_numbers, _fold)
RULES: dict[str, tuple[Rule, ...]] = {
    "detach": (_first,),
    "identity": (_first,),
    "custom": (_first,),
    "several": (_first,),
    "result": (_first,),
    "mul": (_unit(0, 1), _unit(1, 1)),
    "div": (_unit(1, 1),),
    "sub": (_unit(1, 0),),
    "add": (_join_pads,),
    "convert": (_same_dtype,),
    "reshape": (_reshape_of_reshape,),
    "permute": (_permute_of_permute,),
    "expand": (_expand_of_expand,),
    "slice": (_slice_of_slice,),
}
