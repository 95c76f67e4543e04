"""Which class the result of an operation has, from those of its operands: one rule a kind of operation.

A rule sees the node for the whole batch and the one for a probe, a batch of another size. Where it answers None the
operation mixes examples, or it is not known not to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from ..graph.node import Node, exact
from ..ops.primitive import ALIAS, ATTENTION, ELEMENTWISE, LEAF, MOVEMENT, RECURRENCE, REDUCTION
from .classes import EVEN, SAME, TOTAL, Class, Numbers, Place, Rows, place_of, rows_at

#: elementwise operations that a sum goes through, and which of their operands, all but these the same, may be sums
_LINEAR: dict[str, tuple[int, ...]] = {
    "add": (0, 1), "sub": (0, 1), "where": (1, 2), "neg": (0,), "convert": (0,), "copy": (0,), "div": (0,),
}  # fmt: skip

#: the least and the greatest integer that something may be; None where that is not known
Bounds = tuple[int, int] | None
#: operations that are gone through to find them
_MOST_BOUNDS = 256


class Pair:
    """An operation for the whole batch and for the probe, and the classes of its operands.

    `examples` and `probed` are how many examples these are.
    """

    def __init__(self, node: Node, probe: Node, operands: Sequence[Class], examples: int, probed: int):
        self.node, self.probe, self.operands = node, probe, list(operands)
        self.examples, self.probed = examples, probed
        #: operands that are the same for each part, where they are added to what is a sum: one part has them
        self.once: list[int] = []

    @property
    def keeps_shape(self) -> bool:
        """Whether the result has the same shape for any batch."""
        return self.node.shape == self.probe.shape

    @property
    def is_proportional(self) -> bool:
        """Whether the result has as many elements for an example of the batch as for one of the probe."""
        return math.prod(self.node.shape) * self.probed == math.prod(self.probe.shape) * self.examples

    def place(self, index: int) -> Place | None:
        """Where the examples of operand `index` lie; None where it is not of rows, or they lie nowhere."""
        operand = self.operands[index]
        if not isinstance(operand, Rows):
            return None
        return place_of(self.node.inputs[index].shape, operand, self.examples)

    def only(self, *classes: str) -> bool:
        """Whether all operands are of these classes."""
        return all(operand in classes for operand in self.operands)

    def same_attributes(self, *but: str) -> bool:
        """Whether all attributes, save those named, are the same for both."""
        ours, theirs = self.node.attributes, self.probe.attributes
        return ours.keys() == theirs.keys() and all(ours[k] == theirs[k] for k in ours if k not in but)

    def grown(self) -> Place | None:
        """The axis in which the result differs from the probe's, as if the batch lay in it outermost."""
        pairs = list(zip(self.node.shape, self.probe.shape, strict=True))
        differing = [axis - len(pairs) for axis, (a, b) in enumerate(pairs) if a != b]
        if len(differing) != 1 or self.node.shape[differing[0]] % self.examples:
            return None
        return Place(differing[0], self.node.shape[differing[0]] // self.examples)

    def rows(self, place: Place | None, numbers: Numbers | None = None) -> Rows | None:
        """The class of a result whose examples lie at `place`, if its shapes are such."""
        if place is None or len(self.node.shape) != len(self.probe.shape):
            return None
        expected = list(self.node.shape)
        if not -len(expected) <= place.axis < 0 or expected[place.axis] % (self.examples * place.inner):
            return None
        expected[place.axis] = expected[place.axis] // self.examples * self.probed
        return rows_at(self.node.shape, place, numbers) if tuple(expected) == self.probe.shape else None

    def common_place(self, indices: Sequence[int]) -> Place | None:
        """Where the examples of those operands that are of rows lie, if it is one place from the end."""
        found = {self.place(index) for index in indices if isinstance(self.operands[index], Rows)}
        return found.pop() if len(found) == 1 else None


def class_of(pair: Pair) -> Class | None:
    """The class of the result."""
    if len(pair.node.shape) != len(pair.probe.shape):
        return None
    if pair.node.op.name == "philox":
        return SAME if pair.keeps_shape else EVEN
    if pair.node.op.kind == LEAF:
        return _leaf(pair)
    if pair.only(SAME) and pair.keeps_shape and pair.same_attributes("rule"):
        return SAME
    rule = _KINDS.get(pair.node.op.kind) or _OPERATIONS.get(pair.node.op.name)
    found = None if rule is None else rule(pair)
    return found if found != EVEN or pair.is_proportional else None


def _leaf(pair: Pair) -> Class | None:
    node, probe = pair.node, pair.probe
    if node.op.name == "constant":
        return SAME if exact(node["value"]) == exact(probe["value"]) else None
    if node.op.name == "buffer":
        known = node.buffer is not None and probe.buffer is not None and pair.keeps_shape
        return SAME if known and (node.buffer.array == probe.buffer.array).all() else None
    if node.op.name != "iota":
        return None
    if pair.keeps_shape:
        return SAME
    place = pair.grown()
    if place is None:
        return None
    if node["axis"] - len(node.shape) != place.axis:
        return pair.rows(place)
    return pair.rows(place, Numbers(place.inner, 0, place.inner - 1))


def _elementwise(pair: Pair) -> Class | None:
    if not pair.same_attributes():
        return None
    if TOTAL in pair.operands:
        return _of_sums(pair)
    if not any(isinstance(operand, Rows) for operand in pair.operands):
        alike = all(c == EVEN or math.prod(n.shape) == 1 for c, n in zip(pair.operands, pair.node.inputs, strict=True))
        return EVEN if alike else pair.rows(pair.grown())
    place = pair.common_place(range(len(pair.operands)))
    if _plain(pair):
        return pair.rows(place)
    numbers = _counted(pair)
    return None if numbers is None else pair.rows(place, numbers)


def _of_sums(pair: Pair) -> Class | None:
    """A linear function of sums over the batch."""
    if not pair.only(SAME, TOTAL) or not pair.keeps_shape:
        return None
    name, sums = pair.node.op.name, [i for i, c in enumerate(pair.operands) if c == TOTAL]
    if name == "mul":
        return TOTAL if len(sums) == 1 else None
    if name not in _LINEAR or any(index not in _LINEAR[name] for index in sums):
        return None
    if name == "convert" and not pair.node.dtype.is_floating_point and pair.node.inputs[0].dtype.is_floating_point:
        return None
    if not pair.node.dtype.is_floating_point and pair.node.dtype.itemsize < 4:
        return None  # bool, and integers that overflow
    pair.once = [index for index in _LINEAR[name] if pair.operands[index] == SAME] if name != "div" else []
    return TOTAL


def _counted(pair: Pair) -> Numbers | None:
    """What numbers of rows arithmetic gives of such numbers; None where it may be none."""
    name = pair.node.op.name
    if pair.node.dtype.is_floating_point or pair.node.dtype.itemsize < 8 or name not in ("add", "mul", "convert"):
        return None
    parts = [_numbers(c, node) for c, node in zip(pair.operands, pair.node.inputs, strict=True)]
    if any(part is None for part in parts):
        return None
    first, *others = cast("list[Numbers]", parts)
    for other in others:
        if name == "add":
            first = Numbers(first.scale + other.scale, first.low + other.low, first.high + other.high)
        elif min(first.low, other.low) < 0 or (first.scale and (other.scale or other.low != other.high)):
            return None
        elif first.scale:
            first = Numbers(first.scale * other.low, first.low * other.low, first.high * other.low)
        elif first.low == first.high:
            first = Numbers(other.scale * first.low, other.low * first.low, other.high * first.low)
        else:
            return None
    return first


def _numbers(operand: Class, node: Node) -> Numbers | None:
    """The operand as numbers of rows: those of one, or its own bounds."""
    if isinstance(operand, Rows) and operand.numbers is not None:
        return operand.numbers
    bounds = _bounds(node)
    return None if bounds is None else Numbers(0, *bounds)


def wrapped_index(node: Node) -> Node | None:
    """The index that `node` is with negative ones counted from the end; None where it is something else."""
    if node.op.name != "where" or node.inputs[0].op.name != "lt":
        return None
    index, zero = node.inputs[0].inputs
    return index if index is node.inputs[2] and zero.op.name == "constant" and zero["value"] == 0 else None


def exactly(node: Node, index: Node, size: int) -> bool:
    """Whether `node` is `index` and `size` added."""
    if node.op.name != "add" or node.inputs[0] is not index:
        return False
    return node.inputs[1].op.name == "constant" and bool(node.inputs[1]["value"] == size)


def _bounds(node: Node) -> Bounds:
    """Between which integers, included, the values of a node are known to lie; None where it is not seen."""
    known: dict[Node, Bounds] = {}
    stack = [node]
    while stack and len(known) < _MOST_BOUNDS:
        current = stack[-1]
        missing = [operand for operand in _bounding(current) if operand not in known]
        stack += missing
        if not missing:
            known[stack.pop()] = _bounds_by(current, known)
    return known.get(node)


def _moved(node: Node) -> Node:
    """What a node moves without adding anything to it."""
    while node.op.kind in (MOVEMENT, ALIAS) and len(node.inputs) == 1 and node.op.name != "pad":
        (node,) = node.inputs
    return node


def _bounding(node: Node) -> Sequence[Node]:
    """The operands that bound a node."""
    node = _moved(node)
    return node.inputs if node.op.name in ("add", "mul") else ()


def _bounds_by(node: Node, known: Mapping[Node, Bounds]) -> Bounds:
    """The bounds of a node, by those of its operands."""
    node = _moved(node)
    if node.op.name == "constant" and isinstance(node["value"], int):
        return node["value"], node["value"]
    if node.op.name == "iota" and not node.dtype.is_floating_point:
        return 0, max(node.shape[node["axis"]] - 1, 0)
    if node.op.name == "bounded" and node["ignore"] is None:
        return node["low"], node["high"] - 1
    wrapped = wrapped_index(node)
    if wrapped is not None and wrapped.op.name == "bounded" and wrapped["ignore"] is None:
        size = wrapped["high"]
        return (0, size - 1) if wrapped["low"] == -size and exactly(node.inputs[1], wrapped, size) else None
    if node.op.name in ("add", "mul"):
        sides = [known.get(operand) for operand in node.inputs]
        if None in sides:
            return None
        (low, high), (other_low, other_high) = cast("list[tuple[int, int]]", sides)
        if node.op.name == "add":
            return low + other_low, high + other_high
        return (low * other_low, high * other_high) if min(low, other_low) >= 0 else None
    return None


def _plain(pair: Pair) -> bool:
    """Whether no operand is a number of a row."""
    return not any(isinstance(c, Rows) and c.numbers for c in pair.operands)


def _reduction(pair: Pair) -> Class | None:
    (operand,), axes = pair.operands, pair.node["axes"]
    adds = pair.node.op.name == "sum"
    if not _plain(pair) or axes != pair.probe["axes"]:
        return None
    if operand == TOTAL:
        return TOTAL if adds else None
    if operand == EVEN:
        return EVEN if not pair.keeps_shape else TOTAL if adds else None
    place = pair.place(0)
    if place is None:
        return None
    axis, rank = len(pair.node.inputs[0].shape) + place.axis, len(pair.node.inputs[0].shape)
    if axis in axes:
        return TOTAL if adds and pair.keeps_shape else None
    behind = sum(a > axis for a in axes)
    return pair.rows(Place(axis - rank + behind, place.inner))


def _movement(pair: Pair) -> Class | None:
    name = pair.node.op.name
    if name == "concatenate":
        return _concatenate(pair)
    if name == "expand" and pair.only(SAME):
        return EVEN if math.prod(pair.node.inputs[0].shape) == 1 else pair.rows(pair.grown())
    (operand,) = pair.operands
    if operand == EVEN and name != "pad":
        return SAME if pair.keeps_shape else EVEN
    if operand == TOTAL:
        return TOTAL if pair.keeps_shape and pair.same_attributes() else None
    place = pair.grown() if operand == EVEN else pair.place(0)
    if place is None:
        return None
    return _MOVES[name](pair, place, operand.numbers if isinstance(operand, Rows) else None)


def _reshape(pair: Pair, place: Place, numbers: Numbers | None) -> Class | None:
    (operand,) = pair.operands
    assert isinstance(operand, Rows)
    return pair.rows(place_of(pair.node.shape, operand, pair.examples), numbers)


def _permute(pair: Pair, place: Place, numbers: Numbers | None) -> Class | None:
    rank = len(pair.node.shape)
    return pair.rows(Place(pair.node["axes"].index(rank + place.axis) - rank, place.inner), numbers)


def _expand(pair: Pair, place: Place, numbers: Numbers | None) -> Class | None:
    return pair.rows(place, numbers)


def _slice(pair: Pair, place: Place, numbers: Numbers | None) -> Class | None:
    ours, theirs = list(pair.node["bounds"]), list(pair.probe["bounds"])
    if ours.pop(place.axis) != (0, pair.node.inputs[0].shape[place.axis]):
        return None
    theirs.pop(place.axis)
    return pair.rows(place, numbers) if ours == theirs else None


def _pad(pair: Pair, place: Place, numbers: Numbers | None) -> Class | None:
    widths = pair.node["widths"]
    if numbers or widths != pair.probe["widths"] or widths[place.axis] != (0, 0):
        return None
    return pair.rows(place)


def _flip(pair: Pair, place: Place, numbers: Numbers | None) -> Class | None:
    return None if len(pair.node.shape) + place.axis in pair.node["axes"] else pair.rows(place, numbers)


_MOVES: dict[str, Callable[[Pair, Place, Numbers | None], Class | None]] = {
    "reshape": _reshape, "permute": _permute, "expand": _expand, "slice": _slice, "pad": _pad, "flip": _flip,
}  # fmt: skip


def _concatenate(pair: Pair) -> Class | None:
    if pair.only(TOTAL, SAME):
        pair.once = [index for index, operand in enumerate(pair.operands) if operand == SAME]
        return TOTAL if pair.keeps_shape and TOTAL in pair.operands else None
    if SAME in pair.operands or TOTAL in pair.operands or not _plain(pair):
        return None
    indices = range(len(pair.operands))
    place = pair.grown() if pair.only(EVEN) else pair.common_place(indices)
    if place is None or pair.node["axis"] == len(pair.node.shape) + place.axis:
        return None
    return pair.rows(place)


def _matmul(pair: Pair) -> Class | None:
    left, right = pair.operands
    if not _plain(pair):
        return None
    if TOTAL in (left, right):
        return TOTAL if pair.keeps_shape and SAME in (left, right) else None
    a, b = pair.place(0), pair.place(1)
    if (isinstance(left, Rows) and a is None) or (isinstance(right, Rows) and b is None):
        return None
    if pair.keeps_shape:  # the examples are what is summed over
        contracted = (a is None or a.axis == -1) and (b is None or b.axis == -2) and SAME not in (left, right)
        return TOTAL if contracted and (a is None or b is None or a.inner == b.inner) else None
    if (a is not None and a.axis == -1) or (b is not None and b.axis == -2):
        return None
    if a is not None and b is not None and (a != b or a.axis == -2):
        return None
    return pair.rows(a or b or pair.grown())


def _convolution(pair: Pair) -> Class | None:
    x, window = pair.operands
    if window != SAME or not pair.same_attributes():
        return None
    if x == TOTAL:
        return TOTAL
    place = pair.grown() if x == EVEN else pair.place(0)
    if place is None or place.axis != -len(pair.node.shape) or not _plain(pair):
        return None
    return pair.rows(place)


def _attention(pair: Pair) -> Class | None:
    if TOTAL in pair.operands or SAME in pair.operands or not pair.same_attributes() or not _plain(pair):
        return None
    fronts = set()
    for index, operand in enumerate(pair.operands):
        place = pair.place(index)
        if isinstance(operand, Rows):
            rank = len(pair.node.inputs[index].shape)
            is_log_sum = rank < len(pair.node.inputs[0].shape)
            if place is None or (place.axis >= -1 - (not is_log_sum)):
                return None
            fronts.add(Place(rank + place.axis, place.inner))
    if len(fronts) != 1:
        return None
    front = fronts.pop()
    axes = pair.node.attributes.get("axes")
    axis = front.axis if axes is None else axes.index(front.axis)
    return pair.rows(Place(axis - len(pair.node.shape), front.inner))


def _recurrence(pair: Pair) -> Class | None:
    place = pair.common_place(range(len(pair.operands)))
    if not all(c == EVEN or isinstance(c, Rows) for c in pair.operands) or not _plain(pair):
        return None
    return None if place is None or place.axis == -2 else pair.rows(place)


def _alias(pair: Pair) -> Class | None:
    return pair.operands[0]


def _bounded(pair: Pair) -> Class | None:
    (operand,) = pair.operands
    if not isinstance(operand, Rows):
        return operand if operand == EVEN else None
    return operand if operand.numbers or pair.same_attributes() else None


def _own_rows(pair: Pair, table: int, index: int) -> bool:
    """Whether the index names, for each example, rows of the table that are the example's own."""
    place, named = pair.place(table), pair.operands[index]
    if place is None or not isinstance(named, Rows) or place.axis != -len(pair.node.inputs[table].shape):
        return False
    owned = pair.node.inputs[table].shape[0] == pair.examples * place.inner
    return owned and _within(named.numbers, place.inner)


def _within(numbers: Numbers | None, inner: int) -> bool:
    """Whether the numbers are, for each example, of rows among the `inner` that are its own."""
    return numbers is not None and numbers.scale == inner and 0 <= numbers.low <= numbers.high < inner


def _indexed(pair: Pair, index: int, behind: int) -> Class | None:
    """The class of what has the index's axes and `behind` further ones, examples where the index's are."""
    place = pair.place(index)
    return None if place is None else pair.rows(Place(place.axis - behind, place.inner))


def _take(pair: Pair) -> Class | None:
    table, index = pair.operands
    behind = len(pair.node.inputs[0].shape) - 1
    if isinstance(table, Rows) and table.numbers:
        return None
    if table == EVEN:
        return EVEN
    if index == SAME:
        if table == TOTAL:
            return TOTAL
        place = pair.place(0)
        return None if place is None or place.axis == -behind - 1 else pair.rows(place)
    if not isinstance(index, Rows):
        return None
    if (table == SAME and not index.numbers) or _own_rows(pair, 0, 1):
        return _indexed(pair, 1, behind)
    return None


def _scatter_add(pair: Pair) -> Class | None:
    index, rows = pair.operands
    if isinstance(rows, Rows) and rows.numbers:
        return None
    behind = len(pair.node.inputs[1].shape) - len(pair.node.inputs[0].shape)
    place = pair.place(1)
    if index == SAME:
        inner = place is not None and place.axis >= -behind
        return TOTAL if rows == TOTAL else pair.rows(place) if inner else None
    if not isinstance(index, Rows) or rows in (SAME, TOTAL):
        return None
    of_index = pair.place(0)
    if of_index is None or (isinstance(rows, Rows) and place != Place(of_index.axis - behind, of_index.inner)):
        return None
    if index.numbers is None:
        return TOTAL if pair.keeps_shape else None
    inner = pair.node["size"] // pair.examples
    return pair.rows(Place(-len(pair.node.shape), inner)) if _within(index.numbers, inner) else None


_KINDS: dict[str, Callable[[Pair], Class | None]] = {
    ELEMENTWISE: _elementwise, REDUCTION: _reduction, MOVEMENT: _movement, ATTENTION: _attention,
    RECURRENCE: _recurrence, ALIAS: _alias,
}  # fmt: skip
_OPERATIONS: dict[str, Callable[[Pair], Class | None]] = {
    "matmul": _matmul, "convolution": _convolution, "bounded": _bounded, "take": _take, "scatter_add": _scatter_add,
}  # fmt: skip
