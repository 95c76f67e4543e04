"""The operation that introduced a NaN or an infinity.

A value is *sound* unless it has a NaN, or an infinity that some operation made of finite numbers. Infinities that are
put in on purpose, as constants or as data, and those that are only handed on, are sound: a mask is no fault. From the
bad value the search goes back through operands that are not sound; where it can go no further stands an operation that
made something bad of sound operands. One that made a NaN comes before one that made an infinity, and the earlier before
the later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..errors import NonFiniteError
from ..graph.interpreter import interpret
from ..graph.node import Graph, Node
from ..ops.primitive import ALIAS, ELEMENTWISE, MOVEMENT, REDUCTION
from .causes import Cause, cause
from .report import OperandStatistics, report, statistics

#: what may have a NaN in it from the beginning: it is data
_DATA = ("buffer", "input", "parameter")


#: what a root is that is looked at because it was computed: an infinity on purpose is no fault in it
VALUE = "value"


class Root(NamedTuple):
    """A value that should be finite: the node, what it is ("loss", "gradient", "check", VALUE), the user's message."""

    node: Node
    what: str
    message: str = ""


@dataclass
class Finding:
    """What is known of a value that is not finite: whether it has a NaN, whether it has an infinity that is a fault,
    the operands that are not sound, and, of what was made here, how, with the operands.
    """

    nan: bool
    fault: bool
    unsound: list[Node] = field(default_factory=list)
    made: bool = False
    cause: Cause | None = None
    operands: list[OperandStatistics] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        return not (self.nan or self.fault)


class _Found(Exception):
    """A bad loss is computed: what follows it need not be."""


class _Watch:
    """Looks at each value as it is computed."""

    def __init__(self, roots: list[Root], name_of: Callable[[Node], str]):
        self.name_of = name_of
        self.stops = {root.node for root in roots if root.what in ("loss", "check")}
        self.findings: dict[Node, Finding] = {}

    def __call__(self, node: Node, values: Mapping[Node, Any]) -> None:
        value = values[node]
        if not _is_finite(value):
            self.findings[node] = self._look(node, value, values)
            if node in self.stops:
                raise _Found

    def _look(self, node: Node, value: Any, values: Mapping[Node, Any]) -> Finding:
        nan = any(bool(np.isnan(v).any()) for v in _arrays(value))
        if node.buffer is not None or node.op.name in _DATA:
            return Finding(nan, False)
        if _is_number(node):  # which is no fault by itself: what uses it may be
            return Finding(False, False)
        unsound = [i for i in dict.fromkeys(node.inputs) if i in self.findings and not self.findings[i].is_sound]
        handed = any(self.findings[i].fault for i in unsound)
        new = _makes_infinity(node, value, values)
        made = not unsound and (nan or new)
        finding = Finding(nan, new or handed, unsound, made)
        if made or new:
            operands = [values[i] for i in node.inputs]
            whole = isinstance(value, np.ndarray) and all(isinstance(o, np.ndarray) for o in operands)
            finding.cause = cause(node, operands, value) if whole else None
            finding.operands = [statistics(self.name_of(i), i, values[i]) for i in node.inputs]
            finding.made = made or not nan
        return finding


def _is_number(node: Node) -> bool:
    """Whether the node only spreads out a number that was written down."""
    while node.op.name in ("expand", "reshape", "permute", "convert") and node.buffer is None:
        node = node.inputs[0]
    return node.op.name == "constant"


def _arrays(value: Any) -> list[np.ndarray]:
    """The arrays of floating-point numbers in a value; loops have several results."""
    if isinstance(value, np.ndarray):
        return [value] if value.dtype.kind == "f" else []
    if isinstance(value, Mapping):
        return [array for each in value.values() for array in _arrays(each)]
    return [array for each in value for array in _arrays(each)] if isinstance(value, (tuple, list)) else []


def _is_finite(value: Any) -> bool:
    return all(bool(np.isfinite(array).all()) for array in _arrays(value))


def _makes_infinity(node: Node, value: Any, values: Mapping[Node, Any]) -> bool:
    """Whether the value has an infinity that comes from finite elements; told by element where the operation allows."""
    operands = [values[i] for i in node.inputs]
    if not any(np.isinf(array).any() for array in _arrays(value)):
        return False
    if node.op.kind == ELEMENTWISE:
        bad = [~np.isfinite(o) for o in operands if isinstance(o, np.ndarray) and o.dtype.kind == "f"]
        reached = np.zeros(value.shape, bool)
        for each in bad:
            reached |= each
        return bool((np.isinf(value) & ~reached).any())
    if node.op.kind == REDUCTION:
        return bool((np.isinf(value) & ~(~np.isfinite(operands[0])).any(axis=node["axes"])).any())
    return all(_is_finite(operand) for operand in operands)


def diagnose(
    graph: Graph, roots: list[Root], value_of: Callable[[Node], Any], name_of: Callable[[Node], str], step: int
) -> NonFiniteError | None:
    """The error that names the operation, or None where every root is finite on the reference. `value_of` gives the
    values of leaves, `name_of` what they are called; `step` is told along.
    """
    watch = _Watch(roots, name_of)
    with suppress(_Found):
        interpret(graph, value_of, watch)
    bad = [r for r in roots if r.node in watch.findings and not (r.what == VALUE and watch.findings[r.node].is_sound)]
    if not bad:
        return None
    first = bad[0]
    bad = [root for root in bad if root.what == first.what]
    order = {node: place for place, node in enumerate(graph.nodes)}
    node, finding, reader = _origin([root.node for root in bad], watch.findings, order)
    return report(first.what, first.message, node, finding, reader, name_of, step)


def _origin(
    roots: list[Node], findings: Mapping[Node, Finding], order: Mapping[Node, int]
) -> tuple[Node, Finding, Node | None]:
    """Where the fault was made, and, where it is data or an infinity on purpose, who was first to read it."""
    readers: dict[Node, Node] = {}
    seen: set[Node] = set()
    sound = all(findings[root].is_sound for root in roots)
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        # an infinity that was only handed on is followed to where it was put in
        back = [i for i in node.inputs if i in findings] if sound else findings[node].unsound
        for operand in back:
            if operand not in readers or order[node] < order[readers[operand]]:
                readers[operand] = node
        stack.extend(back)
    ends = [n for n in seen if findings[n].made] or [n for n in seen if not any(i in seen for i in n.inputs)]
    ends += [n for n in seen if findings[n].nan and not findings[n].unsound and n not in ends]
    node = min(ends, key=lambda n: (not findings[n].nan, order[n]))
    reader = readers.get(node)
    while reader is not None and reader.op.kind in (ALIAS, MOVEMENT) and reader in readers:
        reader = readers[reader]  # which computes something
    return node, findings[node], reader


def unexplained(roots: list[Root], step: int) -> NonFiniteError:
    """The error for values that are not finite in native code alone."""
    return report(roots[0].what, "", roots[0].node, Finding(False, True), None, lambda _: "", step)


__all__ = ["Finding", "Root", "diagnose", "unexplained"]
