"""The same operation for all steps of a loop, or all examples of a batch, at once: its operands gain a first axis.

Every primitive but those that stand for a graph of their own has its form here; `vectorize` has those others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..graph.node import Node
from ..graph.types import int64
from .contraction import matmul
from .convolution import convolution
from .elementwise import add, mul
from .host import host_call
from .indexing import put, scatter_add, take
from .movement import expand, flip, pad, permute, reshape, slice_
from .primitive import ALIAS, ATTENTION, ELEMENTWISE, HOST, MOVEMENT, RECURRENCE, REDUCTION, apply, constant, iota


def can_batch(node: Node, varying: list[bool]) -> bool:
    """Whether a loop may do the operation for all steps at once, before it or after it.

    Those that are left out would take more memory or time so than one by one.
    """
    name, kind = node.op.name, node.op.kind
    if name == "take":
        return not varying[0]
    return kind in (ELEMENTWISE, MOVEMENT, REDUCTION) or name in ("matmul", "bounded")


def batched(node: Node, operands: list[Node], varying: list[bool], length: int) -> Node:
    """`node`'s operation `length` times.

    Operands marked in `varying` have a first axis of that size, as the result; the others are the same each time.
    """
    kind = node.op.kind
    if node.op.name in _OF_ONE_OPERATION:
        return _OF_ONE_OPERATION[node.op.name](node, operands, varying, length)
    if kind == MOVEMENT:
        return moved(node, operands[0], length)
    if kind == REDUCTION:
        return apply(node.op, operands[0], axes=tuple(axis + 1 for axis in node["axes"]))
    if kind == ELEMENTWISE:
        rank = len(node.shape)
        operands = [
            reshape(o, (length, *(1,) * (rank - len(o.shape) + 1), *o.shape[1:])) if varies else o
            for o, varies in zip(operands, varying, strict=True)
        ]
        return apply(node.op, *operands, **node.attributes)
    if kind == RECURRENCE:
        outer, *rest = node.shape
        joined = [reshape(o, (length * outer, *rest)) for o in _all_varying(operands, varying, length)]
        return reshape(apply(node.op, *joined, **node.attributes), (length, *node.shape))
    if kind == ATTENTION:
        return _attention(node, _all_varying(operands, varying, length))
    if kind == ALIAS:
        (x,) = operands
        return Node(node.op, (x,), node.attributes, x.shape, x.dtype, node.requires_grad, node.source)
    assert kind == HOST, f"{node!r} has no form for many at once"
    function = Repeated(node["function"], tuple(varying), length)
    return host_call(tuple(operands), function, (length, *node.shape), node.dtype)


def repeated(x: Node, length: int) -> Node:
    """`x`, the same each time, along a new first axis."""
    return expand(reshape(x, (1, *x.shape)), (length, *x.shape))


def _all_varying(operands: list[Node], varying: list[bool], length: int) -> list[Node]:
    return [o if varies else repeated(o, length) for o, varies in zip(operands, varying, strict=True)]


@dataclass(frozen=True)
class Repeated:
    """A function of arrays called once for each place of the first axis of the arrays marked in `varying`."""

    function: Callable[..., np.ndarray]
    varying: tuple[bool, ...]
    length: int

    def __call__(self, *arrays: np.ndarray) -> np.ndarray:
        """The results, stacked."""
        pairs = list(zip(arrays, self.varying, strict=True))
        every = [self.function(*(a[i] if v else a for a, v in pairs)) for i in range(self.length)]
        return np.stack(every)


def _concatenate(node: Node, operands: list[Node], varying: list[bool], length: int) -> Node:
    return apply(node.op, *_all_varying(operands, varying, length), axis=node["axis"] + 1)


def _offset(index: Node, rows: int, length: int) -> Node:
    """Indices into each of `length` tables of `rows` rows, as indices into the tables one after the other."""
    first = mul(iota((length,), 0, int64), constant(rows, int64))
    return add(index, reshape(first, (length, *(1,) * (len(index.shape) - 1))))


def _take(node: Node, operands: list[Node], varying: list[bool], length: int) -> Node:
    x, index = operands
    if not varying[0]:
        return take(x, index)
    if not varying[1]:
        index = repeated(index, length)
    rows = x.shape[1]
    return take(reshape(x, (length * rows, *x.shape[2:])), _offset(index, rows, length))


def _scatter_add(node: Node, operands: list[Node], varying: list[bool], length: int) -> Node:
    index, rows = _all_varying(operands, varying, length)
    flat = scatter_add(_offset(index, node["size"], length), rows, length * node["size"])
    return reshape(flat, (length, *node.shape))


def _put(node: Node, operands: list[Node], varying: list[bool], length: int) -> Node:
    x, index, rows = _all_varying(operands, varying, length)
    size = node.shape[0]
    flat = put(reshape(x, (length * size, *node.shape[1:])), _offset(index, size, length), rows)
    return reshape(flat, (length, *node.shape))


def _bounded(node: Node, operands: list[Node], varying: list[bool], length: int) -> Node:
    return apply(node.op, *operands, **node.attributes)


def _convolution(node: Node, operands: list[Node], varying: list[bool], length: int) -> Node:
    """One convolution: the places of the new axis are further images, further outputs, or further groups."""
    x, window = operands
    rank = len(node["stride"])
    n, *places, groups, outputs = node.shape
    if not varying[1]:
        joined = reshape(x, (length * n, *x.shape[2:]))
        return reshape(convolution(joined, window, **node.attributes), (length, *node.shape))
    if not varying[0]:
        taps, channels = window.shape[1 : rank + 1], window.shape[-2]
        window = reshape(_inwards(window, -2), (*taps, groups, channels, length * outputs))
        found = convolution(x, window, **node.attributes)
        return _outwards(reshape(found, (n, *places, groups, length, outputs)), -2)
    sizes, taps, channels = x.shape[2 : rank + 2], window.shape[1 : rank + 1], window.shape[-2]
    x = reshape(_inwards(x, -3), (n, *sizes, length * groups, channels))
    window = reshape(_inwards(window, -4), (*taps, length * groups, channels, outputs))
    found = convolution(x, window, **node.attributes)
    return _outwards(reshape(found, (n, *places, length, groups, outputs)), -3)


def _attention(node: Node, operands: list[Node]) -> Node:
    """One more batch axis."""
    attributes = dict(node.attributes)
    if attributes.get("axes") is not None:
        attributes["axes"] = (0, *(axis + 1 for axis in attributes["axes"]))
    return apply(node.op, *operands, **attributes)


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


def _product(node: Node, operands: list[Node], varying: list[bool], length: int) -> Node:
    """All products; an operand that stays the same multiplies the others' rows, or columns, in one."""
    a, b = operands
    dtype = node.attributes.get("dtype")
    if all(varying):
        return matmul(a, b, dtype)
    if varying[0]:
        *batch, m, n = *a.shape[1:-1], b.shape[-1]
        joined = reshape(_inwards(a, -3), (*batch, length * m, a.shape[-1]))
        return _outwards(reshape(matmul(joined, b, dtype), (*batch, length, m, n)), -3)
    *batch, m, n = *a.shape[:-1], b.shape[-1]
    joined = reshape(_inwards(b, -2), (*batch, b.shape[-2], length * n))
    return _outwards(reshape(matmul(a, joined, dtype), (*batch, m, length, n)), -2)


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


_OF_ONE_OPERATION: dict[str, Callable[[Node, list[Node], list[bool], int], Node]] = {
    "matmul": _product,
    "convolution": _convolution,
    "concatenate": _concatenate,
    "take": _take,
    "scatter_add": _scatter_add,
    "put": _put,
    "bounded": _bounded,
}
