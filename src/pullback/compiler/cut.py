"""Cut: a reduction of few long rows, or of few columns, is done in two steps, so that threads can share the first, and
so that no accumulator takes in more than some thousands of numbers.

The cuts depend on the shape alone: the order of summation is the same for any number of threads. What has no divisor
of the size that is wanted is filled up with zeros, which are read as such and lie nowhere.
"""

from __future__ import annotations

import functools
import math

from ..graph.node import Node
from ..ops.elementwise import ABS
from ..ops.movement import pad, reshape
from ..ops.primitive import apply
from ..ops.reduction import MAX, SUM

#: rows longer than this are cut where there are fewer than _FEW of them
_LONG_ROW, _FEW = 8192, 32
#: longer ones are cut however many there are, as are columns of more than _LONG_COLUMN: one accumulator would round off
#: digits
_LONGEST_ROW, _LONG_COLUMN = 65_536, 8192
#: elements of a block that a long row is cut into, about
_BLOCK = 4096
#: blocks at most: their results are summed in one go
_MOST_BLOCKS = 8192
#: the width of what one task of a column reduction covers
_COLUMNS = 64


#: by how much there may be fewer blocks than wanted
_UNEVEN = 2
#: elements that fill the vectors of all processors
_VECTOR = 32
#: elements of a row from which on a total may be summed by such rows
_SHORTEST_ROW = 32


def cut(node: Node, row: int | None = None) -> Node:
    """The reduction `node`, over its last axes or over axes before the last, in as many steps as it wants. A total of
    what is made in rows of `row` elements is one of the totals of these.
    """
    length = math.prod(node.inputs[0].shape)
    if row is not None and _SHORTEST_ROW <= row < length and (length % row == 0 or _takes_zeros(node)):
        rows = -(-length // row)
        filled = pad(reshape(node.inputs[0], (length,)), ((0, rows * row - length),))
        parts = reshape(filled, (rows, row))
        return cut(apply(node.op, apply(node.op, parts, axes=(1,)), axes=(0,)))
    rows = node["axes"][-1] == len(node.inputs[0].shape) - 1
    return _rows(node) if rows else _columns(node)


def _takes_zeros(node: Node) -> bool:
    """Whether zeros among what is reduced change nothing: in a sum, and in the maximum of magnitudes."""
    operand = node.inputs[0]
    while operand.op.name == "reshape":
        operand = operand.inputs[0]
    return node.op is SUM or (node.op is MAX and operand.op is ABS)


def _rows(node: Node) -> Node:
    x, start = node.inputs[0], node["axes"][0]
    length, rows = math.prod(x.shape[start:]), math.prod(x.shape[:start])
    if length <= (_LONG_ROW if rows < _FEW else _LONGEST_ROW):
        return node
    wanted = min(length // _BLOCK, _MOST_BLOCKS)
    blocks = _divisor(length, min(_MOST_BLOCKS, length // (_BLOCK // 4)), wanted)
    if node.op is SUM and blocks * _UNEVEN < wanted:
        x = reshape(x, (*x.shape[:start], length))
        x, length, blocks = _filled(x, start, wanted)
    if blocks == 1:
        return node
    parts = reshape(x, (*x.shape[:start], blocks, length // blocks))
    return apply(node.op, apply(node.op, parts, axes=(start + 1,)), axes=(start,))


def _columns(node: Node) -> Node:
    x, axes = node.inputs[0], node["axes"]
    tasks = math.prod(s for a, s in enumerate(x.shape[:-1]) if a not in axes) * -(-x.shape[-1] // _COLUMNS)
    count = math.prod(x.shape[a] for a in axes)
    if count < 256 or (tasks >= 16 and count <= _LONG_COLUMN):
        return node
    longest = max(axes, key=lambda a: x.shape[a])
    length = x.shape[longest]
    wanted = max(32 if tasks < 16 else 1, min(count // _BLOCK, _MOST_BLOCKS))
    blocks = _divisor(length, length // 16, wanted)
    if node.op is SUM and length >= _BLOCK and blocks * _UNEVEN < wanted:
        x, length, blocks = _filled(x, longest, wanted)
    if blocks == 1:
        return node
    shape = (*x.shape[:longest], blocks, length // blocks, *x.shape[longest + 1 :])
    partial = apply(node.op, reshape(x, shape), axes=tuple(sorted(a + (a >= longest) for a in axes)))
    return apply(node.op, partial, axes=(longest - sum(a < longest for a in axes),))


def _filled(x: Node, axis: int, blocks: int) -> tuple[Node, int, int]:
    """`x` with zeros behind it along an axis, so that it has equal blocks of whole vectors there; its new length and
    how many blocks it has.
    """
    length = x.shape[axis]
    each = -(-length // (blocks * _VECTOR)) * _VECTOR
    blocks = -(-length // each)
    widths = [(0, each * blocks - length if a == axis else 0) for a in range(len(x.shape))]
    return pad(x, tuple(widths)), each * blocks, blocks


@functools.lru_cache(4096)
def _divisor(number: int, most: int, wanted: int) -> int:
    """The divisor of `number`, at most `most`, nearest to `wanted` by ratio; 1 if there is none above."""
    found = [d for d in range(1, min(number, max(most, 1)) + 1) if number % d == 0]
    return min(found, key=lambda d: abs(math.log(d / max(wanted, 1))))
