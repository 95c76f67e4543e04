"""How large the values of a graph can be, given how large those are that it starts from: intervals for all elements.

The nodes of an optimizer's update are the same for every parameter but for their shapes, so equal ones are one entry:
`Bounds` has some dozens of entries, whatever the size of the network. Moore, "Interval Analysis" (1966); each result is
widened by more than the rounding of its dtype, and one that comes near the end of the range counts as unbounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from typing import NamedTuple

import numpy as np

from ..graph.node import Node, ancestors
from ..graph.types import DType, bfloat16, float16, float32, float64, to_carrier
from .primitive import ALIAS, MOVEMENT


class Interval(NamedTuple):
    """Every element lies between these, and is a number."""

    low: float
    high: float

    def hull(self, other: Interval) -> Interval:
        """What holds both."""
        return Interval(min(self.low, other.low), max(self.high, other.high))

    def holds(self, other: Interval) -> bool:
        """Whether all of `other` is in it."""
        return self.low <= other.low and other.high <= self.high


class Unbounded(Exception):
    """Nothing can be said of a value."""


#: by how much a result may be larger than computed without rounding, relative to it
_ROUNDING = {float16: 2.0**-9, bfloat16: 2.0**-6, float32: 2.0**-22, float64: 1e-12}
#: functions that are not exactly rounded
_FUNCTION = 1e-5
#: what is beyond this may overflow when it is rounded
_LARGEST = {float16: 3e4, bfloat16: 1e37, float32: 1e37, float64: 1e300}

Rule = Callable[..., Interval]


def _product(x: Interval, y: Interval) -> Interval:
    ends = [a * b for a in x for b in y]
    return Interval(min(ends), max(ends))


def _square(x: Interval) -> Interval:
    top = max(abs(x.low), abs(x.high)) ** 2
    return Interval(0.0 if x.low <= 0 <= x.high else min(x.low**2, x.high**2), top)


def _quotient(x: Interval, y: Interval) -> Interval:
    if y.low <= 0 <= y.high:
        raise Unbounded
    return _product(x, Interval(1 / y.high, 1 / y.low))


def _lerp(x: Interval, y: Interval, share: Interval) -> Interval:
    """x + (y - x) share: it is linear in the share, and x counts once."""
    ends = []
    for s in share:
        of_x, of_y = _product(x, Interval(1 - s, 1 - s)), _product(y, Interval(s, s))
        ends.append(Interval(of_x.low + of_y.low, of_x.high + of_y.high))
    return ends[0].hull(ends[1])


def _total(x: Interval, count: int) -> Interval:
    return Interval(min(count * x.low, x.low), max(count * x.high, x.high))


def _sqrt(x: Interval) -> Interval:
    if x.low < 0:
        raise Unbounded
    return Interval(math.sqrt(x.low), math.sqrt(x.high))


def _exp(x: Interval) -> Interval:
    if x.high > 600:
        raise Unbounded
    return Interval(math.exp(x.low), math.exp(x.high))


def _log(x: Interval) -> Interval:
    if x.low <= 0:
        raise Unbounded
    return Interval(math.log(x.low), math.log(x.high))


def _pow(x: Interval, y: Interval) -> Interval:
    """Of bases that are positive, or not negative where no exponent is: it is monotone in either then."""
    if x.low < 0 or (x.low == 0 and y.low < 0):
        raise Unbounded
    try:
        ends = [float(a**b) for a in x for b in y]
    except OverflowError:
        raise Unbounded from None
    return Interval(min(ends), max(ends))


def _shifted(x: Interval, count: int) -> Interval:
    return Interval(float(math.floor(x.low / 2**count)), float(math.floor(x.high / 2**count)))


def _abs(x: Interval) -> Interval:
    return Interval(0.0 if x.low <= 0 <= x.high else min(abs(x.low), abs(x.high)), max(abs(x.low), abs(x.high)))


def _chosen(true_is: int, false_is: int) -> Rule:
    """Of where(p <= q, true, false), if these are p (0) or q (1) themselves: what is chosen is known to be so."""

    def rule(p: Interval, q: Interval, true: Interval, false: Interval) -> Interval:
        if true_is == 0:
            true = Interval(true.low, min(true.high, q.high))
        if true_is == 1:
            true = Interval(max(true.low, p.low), true.high)
        if false_is == 0:
            false = Interval(max(false.low, q.low), false.high)
        if false_is == 1:
            false = Interval(false.low, min(false.high, p.high))
        found = [part for part in (true, false) if part.low <= part.high]
        return found[0].hull(found[-1]) if found else true.hull(false)

    return rule


_EXACT: dict[str, Rule] = {
    "add": lambda x, y: Interval(x.low + y.low, x.high + y.high),
    "sub": lambda x, y: Interval(x.low - y.high, x.high - y.low),
    "mul": _product,
    "square": _square,
    "lerp": _lerp,
    "neg": lambda x: Interval(-x.high, -x.low),
    "abs": _abs,
    "minimum": lambda x, y: Interval(min(x.low, y.low), min(x.high, y.high)),
    "maximum": lambda x, y: Interval(max(x.low, y.low), max(x.high, y.high)),
    "where": lambda _, x, y: x.hull(y),
    "sign": lambda _: Interval(-1.0, 1.0),
    "convert": lambda x: x,
    "max": lambda x: x,
    "min": lambda x: x,
    "pad": lambda x: x.hull(Interval(0.0, 0.0)),
    "concatenate": lambda *parts: Interval(min(p.low for p in parts), max(p.high for p in parts)),
    # the bits of a magnitude stand for it: they are in the same order
    "magnitude_bits": _abs,
    "float_of_bits": lambda x: x,
    "philox": lambda *_: Interval(0.0, 2.0**32 - 1),
    "decode_dynamic_signed": lambda _: Interval(-1.0, 1.0),
    "decode_dynamic_unsigned": lambda _: Interval(0.0, 1.0),
    "decode_first_moment": lambda _: Interval(-1.0, 1.0),
    "decode_second_moment": lambda _: Interval(0.0, 1.0),
    **{name: lambda *_: Interval(0.0, 1.0) for name in ("eq", "ne", "lt", "le", "bit_and", "bit_or", "bit_not")},
}
_ROUGH: dict[str, Rule] = {
    "div": _quotient,
    "sqrt": _sqrt,
    "exp": _exp,
    "log": _log,
    "pow": _pow,
    "tanh": lambda _: Interval(-1.0, 1.0),
    "sigmoid": lambda _: Interval(0.0, 1.0),
    "erf": lambda _: Interval(-1.0, 1.0),
    "sin": lambda _: Interval(-1.0, 1.0),
    "cos": lambda _: Interval(-1.0, 1.0),
}


_UNROUNDED = {
    "neg",
    "abs",
    "minimum",
    "maximum",
    "where",
    "sign",
    "max",
    "min",
    "pad",
    "concatenate",
    "magnitude_bits",
    "float_of_bits",
}


class Role(NamedTuple):
    """What is known from outside: the same for all leaves of one role."""

    key: Hashable


class _Entry(NamedTuple):
    rule: Rule
    operands: tuple[int, ...]
    slack: float
    largest: float


class Bounds:
    """The intervals of nodes, one entry for all nodes that are made alike.

    `role_of` gives the role of a leaf from outside; one without is unbounded.
    The nodes `watched` lie within ±`largest`, and so does the root of the sum of their squares.
    """

    def __init__(self, role_of: Callable[[Node], Role | None], watched: set[Node], largest: float):
        self.role_of, self.watched, self.largest = role_of, watched, largest
        self.entries: list[_Entry | Interval | Role] = []
        self._by_key: dict[Hashable, int] = {}
        self._of_node: dict[Node, int] = {}

    def add(self, nodes: list[Node]) -> None:
        """Enter nodes, each after its operands. Raises Unbounded where one is of an operation without a rule."""
        for node in nodes:
            if node not in self._of_node:
                self._of_node[node] = self._enter(node)

    def __getitem__(self, node: Node) -> int:
        return self._of_node[node]

    def __contains__(self, node: Node) -> bool:
        return node in self._of_node

    def _entry(self, key: Hashable, made: Callable[[], _Entry | Interval | Role]) -> int:
        if key not in self._by_key:
            self._by_key[key] = len(self.entries)
            self.entries.append(made())
        return self._by_key[key]

    def _enter(self, node: Node) -> int:
        name, kind = node.op.name, node.op.kind
        if node in self.watched:
            return self._entry("watched", lambda: Interval(-self.largest, self.largest))
        if node.buffer is not None or name in ("input", "iota", "constant"):
            return self._leaf(node)
        operands = tuple(self._of_node[i] for i in node.inputs)
        if name in ("copy", "apart") or (kind == ALIAS and name in ("detach", "identity")):
            return operands[0]
        if kind == MOVEMENT and name not in ("pad", "concatenate"):
            return operands[0]
        if name == "sum":
            return self._sum(node, operands[0])
        if name == "mul" and node.inputs[0] is node.inputs[1]:
            name, operands = "square", operands[:1]
        if name == "add" and (found := as_lerp(node)) is not None:
            name, operands = "lerp", tuple(self._of_node[i] for i in found)
        if name == "where" and node.inputs[0].buffer is None:
            condition, (true, false) = node.inputs[0], node.inputs[1:]
            if condition.op.name == "ne" and condition.inputs[0] is condition.inputs[1]:
                return operands[2]  # where it is a number
            if condition.op.name in ("le", "lt"):
                sides = [next((i for i, side in enumerate(condition.inputs) if side is x), -1) for x in (true, false)]
                both = tuple(self._of_node[i] for i in condition.inputs)
                return self._made(("chosen", *sides), _chosen(*sides), (*both, *operands[1:]), 0.0, node.dtype)
        if name == "shift_right":
            count = node["count"]
            return self._made((name, count), lambda x: _shifted(x, count), operands, 0.0, node.dtype)
        rule = _EXACT.get(name) or _ROUGH.get(name)
        if rule is None:
            raise Unbounded
        slack = 0.0 if name in _UNROUNDED else _ROUNDING.get(node.dtype, 0.0)
        slack += _FUNCTION if name in _ROUGH else 0.0
        return self._made(name, rule, operands, slack, node.dtype)

    def _made(self, name: Hashable, rule: Rule, operands: tuple[int, ...], slack: float, dtype: DType) -> int:
        largest = _LARGEST.get(dtype, math.inf)
        return self._entry((name, dtype, operands), lambda: _Entry(rule, operands, slack, largest))

    def _leaf(self, node: Node) -> int:
        if node.op.name == "constant":
            value = float(node["value"])
            return self._entry(("number", value), lambda: Interval(value, value))
        if node.op.name == "iota":
            top = float(max(0, node.shape[node["axis"]] - 1))
            return self._entry(("number", 0, top), lambda: Interval(0.0, top))
        if node.buffer is not None:
            found = measured(to_carrier(node.buffer.array, node.dtype))
            if found is None:
                raise Unbounded
            return self._entry(("data", node), lambda: found)
        role = self.role_of(node)
        if role is None:
            raise Unbounded
        return self._entry(role, lambda: role)

    def _sum(self, node: Node, operand: int) -> int:
        squared = node.inputs[0]
        if squared.op.name == "mul" and squared.inputs[0] is squared.inputs[1]:
            x = squared.inputs[0]
            while x.op.name == "convert" and x not in self.watched:
                x = x.inputs[0]
            if x in self.watched:
                return self._entry("squares", lambda: Interval(0.0, 1.001 * self.largest**2))
        count = max(1, math.prod(node.inputs[0].shape) // max(1, math.prod(node.shape)))
        slack = _ROUNDING.get(node.dtype, 0.0) * math.log2(2 * count)
        return self._made(("sum", count), lambda x: _total(x, count), (operand,), slack, node.dtype)

    @property
    def roles(self) -> set[Role]:
        """The roles that something is made of."""
        return {entry for entry in self.entries if isinstance(entry, Role)}

    @property
    def structure(self) -> tuple[Hashable, ...]:
        """Equal for bounds that say the same."""
        return tuple(self._by_key)

    def values(self, known: Mapping[Role, Interval]) -> list[Interval]:
        """The intervals of all entries, `known` being those of roles. Raises Unbounded."""
        found: list[Interval] = []
        for entry in self.entries:
            if isinstance(entry, _Entry):
                try:
                    low, high = entry.rule(*(found[i] for i in entry.operands))
                except (OverflowError, ZeroDivisionError):  # of Python's own floats
                    raise Unbounded from None
                wider = Interval(low - abs(low) * entry.slack, high + abs(high) * entry.slack)
                if not -entry.largest <= wider.low <= wider.high <= entry.largest:
                    raise Unbounded
                found.append(wider)
            else:
                found.append(entry if isinstance(entry, Interval) else known[entry])
        return found


def bounds_of(node: Node) -> Interval | None:
    """Where all elements of a value lie that is yet to be computed, as a draw is; None where that cannot be told."""
    bounds = Bounds(lambda leaf: None, set(), 0.0)
    try:
        bounds.add(sorted(ancestors([node]), key=lambda each: each.serial))
        return bounds.values({})[bounds[node]]
    except Unbounded:
        return None


def as_lerp(node: Node) -> tuple[Node, Node, Node] | None:
    """x, y and share of x + (y - x) share."""
    for x, product in (node.inputs, node.inputs[::-1]):
        if product.op.name == "mul" and product.buffer is None:
            for difference, share in (product.inputs, product.inputs[::-1]):
                if difference.op.name == "sub" and difference.buffer is None and difference.inputs[1] is x:
                    return x, difference.inputs[0], share
    return None


def measured(array: np.ndarray) -> Interval | None:
    """The interval of an array's elements; None where one is no finite number."""
    if not array.size:
        return Interval(0.0, 0.0)
    low, high = float(array.min()), float(array.max())
    return Interval(low, high) if math.isfinite(low) and math.isfinite(high) else None


__all__ = ["Bounds", "Interval", "Role", "Unbounded", "as_lerp", "bounds_of", "measured"]
