"""Cut: a reduction of few long rows, or of few columns, is done in two steps, so that threads can share the first.

The cuts depend on the shape alone: the order of summation is the same for any number of threads.
"""

from __future__ import annotations

import math

from ..graph.node import Node
from ..ops.movement import reshape
from ..ops.primitive import apply

#: rows longer than this are cut where there are fewer than _FEW of them
_LONG_ROW, _FEW = 8192, 32
#: elements of a block that a long row is cut into, about
_BLOCK = 4096
#: the width of what one task of a column reduction covers
_COLUMNS = 64


#: elements of a row from which on a total may be summed by such rows
_SHORTEST_ROW = 32


def cut(node: Node, row: int | None = None) -> Node:
    """The reduction `node`, over its last axes or over axes before the last, in as many steps as it wants. A total of
    what is made in rows of `row` elements is one of the totals of these.
    """
    if row is not None and _SHORTEST_ROW <= row < math.prod(node.inputs[0].shape):
        parts = reshape(node.inputs[0], (math.prod(node.inputs[0].shape) // row, row))
        return cut(apply(node.op, apply(node.op, parts, axes=(1,)), axes=(0,)))
    rows = node["axes"][-1] == len(node.inputs[0].shape) - 1
    return _rows(node) if rows else _columns(node)


def _rows(node: Node) -> Node:
    x, start = node.inputs[0], node["axes"][0]
    length, rows = math.prod(x.shape[start:]), math.prod(x.shape[:start])
    if length <= _LONG_ROW or rows >= _FEW:
        return node
    blocks = _divisor(length, min(256, length // (_BLOCK // 4)), length // _BLOCK)
    if blocks == 1:
        return node
    parts = reshape(x, (*x.shape[:start], blocks, length // blocks))
    return apply(node.op, apply(node.op, parts, axes=(start + 1,)), axes=(start,))


def _columns(node: Node) -> Node:
    x, axes = node.inputs[0], node["axes"]
    tasks = math.prod(s for a, s in enumerate(x.shape[:-1]) if a not in axes) * -(-x.shape[-1] // _COLUMNS)
    if tasks >= 16 or math.prod(x.shape[a] for a in axes) < 256:
        return node
    longest = max(axes, key=lambda a: x.shape[a])
    blocks = _divisor(x.shape[longest], x.shape[longest] // 16, 32)
    if blocks == 1:
        return node
    shape = (*x.shape[:longest], blocks, x.shape[longest] // blocks, *x.shape[longest + 1 :])
    partial = apply(node.op, reshape(x, shape), axes=tuple(sorted(a + (a >= longest) for a in axes)))
    return apply(node.op, partial, axes=(longest - sum(a < longest for a in axes),))


def _divisor(number: int, most: int, wanted: int) -> int:
    """The divisor of `number`, at most `most`, nearest to `wanted` by ratio; 1 if there is none above."""
    found = [d for d in range(1, min(number, max(most, 1)) + 1) if number % d == 0]
    return min(found, key=lambda d: abs(math.log(d / max(wanted, 1))))
