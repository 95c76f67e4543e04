"""The same operation for all steps of a loop at once: its operands gain a first axis, one place a step."""

from __future__ import annotations

from ..graph.node import Node
from .contraction import matmul
from .movement import expand, flip, pad, permute, reshape, slice_
from .primitive import ELEMENTWISE, MOVEMENT, REDUCTION, apply


def can_batch(node: Node, varying: list[bool]) -> bool:
    """Whether `batched` has a form for the operation with the operands marked in `varying` other at each step."""
    name, kind = node.op.name, node.op.kind
    if name == "take":
        return not varying[0]
    return kind in (ELEMENTWISE, MOVEMENT, REDUCTION) or name in ("matmul", "bounded")


def batched(node: Node, operands: list[Node], varying: list[bool], length: int) -> Node:
    """`node`'s operation for `length` steps.

    Operands marked in `varying` have a first axis of that size, as the result; the others are the same at each step.
    """
    if node.op.name == "matmul":
        return _product(operands[0], operands[1], varying, length)
    if node.op.kind == MOVEMENT and node.op.name != "concatenate":
        return moved(node, operands[0], length)
    if node.op.kind == REDUCTION:
        return apply(node.op, operands[0], axes=tuple(axis + 1 for axis in node["axes"]))
    if node.op.name == "concatenate":
        parts = [
            operand if varies else expand(operand, (length, *operand.shape))
            for operand, varies in zip(operands, varying, strict=True)
        ]
        return apply(node.op, *parts, axis=node["axis"] + 1)
    if node.op.kind == ELEMENTWISE:
        rank = len(node.shape)
        operands = [
            reshape(o, (length, *(1,) * (rank - len(o.shape) + 1), *o.shape[1:])) if varies else o
            for o, varies in zip(operands, varying, strict=True)
        ]
    return apply(node.op, *operands, **node.attributes)


def moved(node: Node, x: Node, length: int) -> Node:
    """The movement `node` of `x`, which has a further first axis."""
    name = node.op.name
    if name == "reshape":
        return reshape(x, (length, *node.shape))
    if name == "permute":
        return permute(x, (0, *(axis + 1 for axis in node["axes"])))
    if name == "expand":
        ones = (1,) * (len(node.shape) - len(node.inputs[0].shape))
        return expand(reshape(x, (length, *ones, *node.inputs[0].shape)), (length, *node.shape))
    if name == "slice":
        return slice_(x, ((0, length), *node["bounds"]))
    if name == "pad":
        return pad(x, ((0, 0), *node["widths"]))
    assert name == "flip", f"{node!r} does not move its input"
    return flip(x, tuple(axis + 1 for axis in node["axes"]))


def _product(a: Node, b: Node, varying: list[bool], length: int) -> Node:
    """The products of all steps; an operand that stays the same multiplies the steps' rows, or columns, in one."""
    if all(varying):
        return matmul(a, b)
    if varying[0]:
        *batch, m, n = *a.shape[1:-1], b.shape[-1]
        joined = reshape(_inwards(a, -3), (*batch, length * m, a.shape[-1]))
        return _outwards(reshape(matmul(joined, b), (*batch, length, m, n)), -3)
    *batch, m, n = *a.shape[:-1], b.shape[-1]
    joined = reshape(_inwards(b, -2), (*batch, b.shape[-2], length * n))
    return _outwards(reshape(matmul(a, joined), (*batch, m, length, n)), -2)


def _inwards(x: Node, place: int) -> Node:
    """The first axis moved to `place`, counted from the end."""
    axes = list(range(1, len(x.shape)))
    axes.insert(len(x.shape) + place, 0)
    return permute(x, tuple(axes))


def _outwards(x: Node, place: int) -> Node:
    """The axis `place`, counted from the end, moved to the front."""
    axis = len(x.shape) + place
    return permute(x, (axis, *(a for a in range(len(x.shape)) if a != axis)))


def summed_products(a: Node, b: Node) -> Node:
    """The sum over the first axis of the products a[t] @ b[t], as one product: [t, ..., m, k] @ [t, ..., k, n]."""
    length, *batch, m, k = a.shape
    left = reshape(_inwards(a, -2), (*batch, m, length * k))
    right = reshape(_inwards(b, -3), (*batch, length * k, b.shape[-1]))
    return matmul(left, right)
