"""Canonicalize: what code generation has a kernel for, in the form that it takes.

before → after:
- elementwise operands of smaller shapes are expanded, so that all operands but bare numbers have the result's shape;
- sums, convolutions and scatters of 16-bit floats are done in float32, and matrix products of them give float32, which
  is rounded;
- a transposed matrix product becomes the product of the transposed operands;
- a permutation of what attention gives becomes an attribute of it, so that it is written where its reader wants it;
- integer matrix products become multiplications and a sum, and products of a column and a row (k = 1), such as the
  gradient of a layer's weight at batch 1, multiplications alone, which fuse with whatever reads them;
- squared distances from the mean are written out, for kernels that do not take them on their way (see `spread`);
- a reduction is over the last axes (rows) or over axes before the last (columns), never both; one over all axes goes
  through what is moved in the order that it has in memory;
- the sum of the squares of an outer product is the product of the sums of its vectors' squares, in float64, where
  neither overflows or vanishes that does not in the squares themselves.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from ..graph.node import Graph, Node, ancestors, enter
from ..graph.types import float32, float64
from ..ops.attention import LOG_SUM
from ..ops.contraction import matmul
from ..ops.convolution import CONVOLUTION
from ..ops.elementwise import MUL, absolute, add, convert, mul, ne, sub, where
from ..ops.indexing import scatter_add
from ..ops.movement import EXPAND, expand, permute, reshape, swap_last
from ..ops.primitive import ATTENTION, ELEMENTWISE, REDUCTION, Primitive, apply, constant, grad_mode, source_of
from ..ops.reduction import MIN, SUM, kept_shape, reduce_sum
from .copies import SMALL_FLOATS


def canonicalize(graph: Graph) -> Graph:
    """The graph in the forms that code generation takes."""
    new: dict[Node, Node] = {}
    order: list[Node] = []
    entered: set[Node] = set()
    users = graph.users()
    with grad_mode(False):
        for node in graph.nodes:
            if node.buffer is None and node.inputs:
                with source_of(node):
                    if _transposes_a_product(node) and len(users[node.inputs[0]]) == 1:
                        left, right = (new[operand] for operand in node.inputs[0].inputs)
                        new[node] = _canonical(matmul(swap_last(right), swap_last(left)))
                    elif node.op.kind == ATTENTION:
                        new[node] = _attention(node.with_inputs(tuple(new[i] for i in node.inputs)), users[node])
                    else:
                        new[node] = _canonical(node.with_inputs(tuple(new[i] for i in node.inputs)))
            else:
                new[node] = node
            enter(new[node], order, entered)
    outputs = [new[node] for node in graph.outputs]
    needed = ancestors(outputs)
    return Graph([node for node in order if node in needed], outputs)


def _transposes_a_product(node: Node) -> bool:
    """Whether the node is (A B)ᵀ, which is Bᵀ Aᵀ, written in its own order at once."""
    if node.op.name != "permute" or node.inputs[0].op.name != "matmul" or not node.dtype.is_floating_point:
        return False
    rank = len(node.shape)
    return 0 not in node.inputs[0].inputs[0].shape + node.shape and node["axes"] == (
        *range(rank - 2),
        rank - 1,
        rank - 2,
    )


def _canonical(node: Node) -> Node:
    kind, name = node.op.kind, node.op.name
    if kind == ELEMENTWISE:
        return node.with_inputs(tuple(_spread(i, node.shape) for i in node.inputs))
    if name == "spread":
        return _distances(node)
    if kind == REDUCTION:
        if node.dtype in SMALL_FLOATS:
            return convert(_reduction(node, convert(node.inputs[0], float32)), node.dtype)
        return _reduction(node, node.inputs[0])
    if name == "matmul":
        return _product(node)
    if name == "convolution":
        return _convolution(node)
    if name == "scatter_add" and node.dtype in SMALL_FLOATS:
        index, rows = node.inputs
        return convert(scatter_add(index, convert(rows, float32), node["size"]), node.dtype)
    return node


def _spread(operand: Node, shape: tuple[int, ...]) -> Node:
    if operand.shape == shape or operand.op.name == "constant":
        return operand
    return expand(reshape(operand, (1,) * (len(shape) - len(operand.shape)) + operand.shape), shape)


def _product(node: Node) -> Node:
    a, b = node.inputs
    if 0 in (*a.shape, *b.shape):
        return expand(constant(0, node.dtype), node.shape)
    if a.shape[-1] == 1:
        column, row = (expand(convert(operand, node.dtype), node.shape) for operand in (a, b))
        return mul(column, row)
    if node.dtype in SMALL_FLOATS:
        return convert(matmul(a, b, float32), node.dtype)
    if node.dtype.is_floating_point:
        return node
    batch, rows, columns, inner = a.shape[:-2], a.shape[-2], b.shape[-1], a.shape[-1]
    full = (*batch, rows, columns, inner)
    left = expand(reshape(a, (*batch, rows, 1, inner)), full)
    right = expand(reshape(swap_last(b), (*batch, 1, columns, inner)), full)
    return _canonical(reduce_sum(mul(left, right), (len(full) - 1,)))


def _attention(node: Node, users: list[Node]) -> Node:
    """The node with its axes in the order in which a permutation among its users, if there is one, puts them."""
    query, key = node.inputs[:2]
    if 0 in (*query.shape[:-1], key.shape[-2]):
        return expand(constant(math.inf if node.op is LOG_SUM else 0.0, node.dtype), node.shape)
    rank = len(node.shape)
    for user in users:
        if user.op.name == "permute" and user["axes"][-1] == rank - 1 and node.op is not LOG_SUM:
            axes = user["axes"]
            moved = apply(node.op, *node.inputs, **{**node.attributes, "axes": axes})
            return permute(moved, tuple(axes.index(axis) for axis in range(rank)))
    return node


def _convolution(node: Node) -> Node:
    if 0 in (*node.inputs[0].shape, *node.inputs[1].shape, *node.shape):
        return expand(constant(0, node.dtype), node.shape)
    if node.dtype in SMALL_FLOATS:
        x, window = (convert(i, float32) for i in node.inputs)
        return convert(apply(CONVOLUTION, x, window, **node.attributes), node.dtype)
    return node


def _distances(node: Node) -> Node:
    """A spread as the sum of squares that it is, of 16-bit floats in float32."""
    x, axes = node.inputs[0], node["axes"]
    if x.dtype in SMALL_FLOATS:
        x = convert(x, float32)
    if 0 in x.shape:
        return expand(constant(0, node.dtype), node.shape)
    total = _reduction(apply(SUM, x, axes=axes), x)
    count = math.prod(x.shape[axis] for axis in axes)
    mean = mul(reshape(total, kept_shape(x.shape, axes)), constant(1 / count, x.dtype))
    distance = sub(x, expand(mean, x.shape))
    square = mul(distance, distance)
    return convert(_reduction(apply(SUM, square, axes=axes), square), node.dtype)


def _reduction(node: Node, x: Node) -> Node:
    """`node`'s reduction of `x`, in steps that are each over rows or over columns."""
    if len(node["axes"]) == len(x.shape) and 0 not in x.shape:
        x = _unmoved(x)
        factors = _squared_outer_product(x) if node.op is SUM else None
        if factors is not None:
            return reshape(convert(_squares_of_outer_product(*factors), node.dtype), node.shape)
        node = apply(node.op, x, axes=tuple(range(len(x.shape))))
    primitive, axes = node.op, [a for a in node["axes"] if x.shape[a] != 1]
    if 0 in (x.shape[a] for a in node["axes"]):
        return expand(constant(0, node.dtype), node.shape)
    if not axes or 0 in x.shape:
        return reshape(x, node.shape)
    kept = [a for a in range(len(x.shape)) if x.shape[a] != 1]
    x = reshape(x, tuple(x.shape[a] for a in kept))
    axes = [kept.index(a) for a in axes]
    rank = len(x.shape)
    trailing = [a for a in axes if all(later in axes for later in range(a, rank))]
    leading = [a for a in axes if a not in trailing]
    for some in (trailing, leading):
        if some:
            x = apply(primitive, x, axes=tuple(some))
    return reshape(x, node.shape)


def _squared_outer_product(x: Node) -> tuple[Node, Node] | None:
    """The vectors of which x is the outer product, squared; in float32, whose squares float64 has room for."""
    if x.op is not MUL or x.inputs[0] is not x.inputs[1] or x.dtype is not float32:
        return None
    product = x.inputs[0]
    if product.op is not MUL or any(operand.op is not EXPAND for operand in product.inputs):
        return None
    left, right = (operand.inputs[0] for operand in product.inputs)
    sides = [[size != 1 for size in factor.shape] for factor in (left, right)]
    apart = all(a != b or size == 1 for a, b, size in zip(*sides, product.shape, strict=True))
    return (left, right) if len(left.shape) == len(right.shape) == len(product.shape) and apart else None


def _squares_of_outer_product(left: Node, right: Node) -> Node:
    """The sum of the squares of all products of two vectors' elements. It is NaN where there is an infinity in one and
    a zero in the other, which the sums of squares of the two do not tell.
    """
    wide = [convert(x, float64) for x in (left, right)]
    sums = [_over_all(SUM, mul(x, x)) for x in wide]
    least = [_over_all(MIN, absolute(x)) for x in wide]
    total, extremes = mul(*sums), add(mul(least[0], sums[1]), mul(least[1], sums[0]))
    return where(ne(extremes, extremes), extremes, total)


def _over_all(primitive: Primitive, x: Node) -> Node:
    return _reduction(apply(primitive, x, axes=tuple(range(len(x.shape)))), x)


#: operations an element that are done anew in another order, at most, for a reduction that does not ask for one
_MOST_AGAIN = 8


def _unmoved(x: Node) -> Node:
    """The elements of `x` in the order in which they lie, if that is known: f(permute(y)) → f(y)."""
    while True:
        below = _Below().of(x)
        if below is None:
            return x
        x = below.node


class _Moved(NamedTuple):
    """What is moved, elementwise operations included, and how."""

    node: Node
    movement: tuple[str, tuple[int, ...]]


class _Below:
    """Elementwise operations done before the one movement that all their operands come from."""

    def __init__(self) -> None:
        self.known: dict[Node, _Moved | None] = {}
        self.cost = 0

    def of(self, node: Node) -> _Moved | None:
        """None where the operands are moved in several ways, or not at all, or there is too much to be done anew."""
        if node not in self.known:
            self.known[node] = self._of(node)
        return self.known[node]

    def _of(self, node: Node) -> _Moved | None:
        movement = _movement(node)
        if movement is not None:
            return _Moved(node.inputs[0], movement)
        if node.op.kind != ELEMENTWISE or "shape" in node.attributes:
            return None
        self.cost += node.op.cost
        if self.cost > _MOST_AGAIN:
            return None
        found = [self.of(operand) if operand.shape else _Moved(operand, ("", ())) for operand in node.inputs]
        moved = [one for one in found if one is not None]
        ways = {(one.movement, one.node.shape) for one in moved if one.node.shape}
        if len(moved) < len(found) or len(ways) != 1:
            return None
        ((movement, _),) = ways
        return _Moved(apply(node.op, *(one.node for one in moved), **node.attributes), movement)


def _movement(node: Node) -> tuple[str, tuple[int, ...]] | None:
    """How a node gives the same elements in another order or shape, if it does nothing else."""
    if node.op.name == "permute":
        return "permute", node["axes"]
    return ("reshape", node.shape) if node.op.name == "reshape" else None
