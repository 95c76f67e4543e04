"""The operation that introduced a NaN or an infinity.

A value is *sound* unless it has a NaN, or an infinity that some operation made of finite numbers. Infinities that are
put in on purpose, as constants or as data, and those that are only handed on, are sound: a mask is no fault. From the
bad value the search goes back through operands that are not sound; where it can go no further stands an operation that
made something bad of sound operands. One that made a NaN comes before one that made an infinity, and the earlier before
the later. A loop that did it is computed once more, step by step (`unrolled`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from ..errors import NonFiniteError
from ..graph.interpreter import interpret
from ..graph.node import Graph, Node, ancestors
from ..ops.primitive import ALIAS, ELEMENTWISE, MOVEMENT, REDUCTION
from ..ops.scan import REPEAT, steps_of
from .causes import Cause, cause, cause_of_loss, rounded_to_zero
from .report import OperandStatistics, is_given, report, statistics

#: functions in which -inf becomes exp(-inf) = 0, and an infinity anew where there is nothing else
_HIDING = ("logsumexp", "ctc_loss")
#: what a root is that is looked at because it was computed: an infinity on purpose is no fault in it
VALUE = "value"
#: what a new state is: what comes behind losses and gradients is the update
UPDATE = "update"


class Root(NamedTuple):
    """A value that should be finite: the node, what it is ("loss", "gradient", "check", UPDATE, VALUE), and the user's
    message or the name of the state.
    """

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
    #: where the first of the bad elements stands
    index: tuple[int, ...] = ()
    #: of a loop: what made it in its body
    inside: Fault | None = None

    @property
    def is_sound(self) -> bool:
        return not (self.nan or self.fault)


class Fault(NamedTuple):
    """The operation that introduced a fault, and, where that is data, the one that was first to read it; `times` are
    the steps of the loops that it stands in, the outermost first.
    """

    node: Node
    finding: Finding
    reader: Node | None
    times: tuple[int, ...] = ()


class _Found(Exception):
    """A bad loss is computed: what follows it need not be."""


class Watch:
    """Looks at each value as it is computed. Values of the nodes `stops` end it where they are bad; `handed` are what
    was found of parameters that a loop's step before has made.
    """

    def __init__(self, stops: set[Node], name_of: Callable[[Node], str], handed: Mapping[Node, Finding] | None = None):
        self.name_of, self.stops, self.handed = name_of, stops, handed or {}
        self.findings: dict[Node, Finding] = {}

    def __call__(self, node: Node, values: Mapping[Node, Any]) -> None:
        value = values[node]
        if not _is_finite(value):
            self.findings[node] = self._look(node, value, values)
            if node in self.stops:
                raise _Found

    def _look(self, node: Node, value: Any, values: Mapping[Node, Any]) -> Finding:
        nan = any(bool(np.isnan(v).any()) for v in _arrays(value))
        if node in self.handed:
            return self.handed[node]
        if is_given(node):
            return Finding(nan, False, index=_first(value, nan))
        if _is_number(node):  # which is no fault by itself: what uses it may be
            return Finding(False, False)
        unsound = [i for i in dict.fromkeys(node.inputs) if i in self.findings and not self.findings[i].is_sound]
        handed = any(self.findings[i].fault for i in unsound)
        new = _makes_infinity(node, value, values)
        made = not unsound and (nan or new)
        finding = Finding(nan, new or handed, unsound, made, index=_first(value, nan))
        if made or new or cause_of_loss(node) is not None:
            finding.operands = [statistics(self.name_of(_seen_through(i)), i, values[i]) for i in node.inputs]
        if made or new:
            operands = [values[i] for i in node.inputs]
            whole = isinstance(value, np.ndarray) and all(isinstance(o, np.ndarray) for o in operands)
            finding.cause = cause(node, operands, value) if whole else None
            finding.made = made or not nan
            if node.op is REPEAT:
                finding.inside = _in_the_loop(node, [values[i] for i in node.inputs], value, self.name_of)
        return finding


def _first(value: Any, nan: bool) -> tuple[int, ...]:
    """The place of the first NaN, or else the first infinity, of an array."""
    if not isinstance(value, np.ndarray):
        return ()
    bad = np.isnan(value) if nan else np.isinf(value)
    return tuple(map(int, np.unravel_index(int(bad.argmax()), bad.shape)))


def _seen_through(node: Node) -> Node:
    """What a node shows in another form."""
    while node.op.kind in (ALIAS, MOVEMENT) and len(node.inputs) == 1 and node.buffer is None:
        node = node.inputs[0]
    return node


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
    watch = Watch({root.node for root in roots if root.what in ("loss", "check")}, name_of)
    with suppress(_Found):
        interpret(graph, value_of, watch)
    bad = [r for r in roots if r.node in watch.findings and not (r.what == VALUE and watch.findings[r.node].is_sound)]
    if not bad:
        return None
    first = bad[0]
    order = {node: place for place, node in enumerate(graph.nodes)}
    fault = _origin([(0, root.node) for root in bad if root.what == first.what], [watch.findings], order, {})
    fault = _before_the_call(_in_the_loss(fault, watch.findings, order), watch.findings, order)
    before = ancestors([root.node for root in roots if root.what != UPDATE]) if first.what == UPDATE else {fault.node}
    phase = "" if fault.node in before else UPDATE
    inner = _innermost(fault)
    is_of_infinities = inner.finding.nan and any(o.infinities for o in inner.finding.operands)
    data = _infinite_data(fault.node, watch.findings) if is_of_infinities else []
    return report(first.what, first.message, inner, name_of, step, phase, data)


def _before_the_call(fault: Fault, findings: Mapping[Node, Finding], order: Mapping[Node, int]) -> Fault:
    """Of a function that makes an infinity of nothing but -inf without handing those on: the fault that they are, if
    they are one.
    """
    if not _hides(fault.node):
        return fault
    call, stack, given = {fault.node}, [fault.node], set()
    while stack:
        for operand in stack.pop().inputs:
            if not _is_of_one_call(operand, fault.node):
                given.add(operand)
            elif operand not in call:
                call.add(operand)
                stack.append(operand)
    bad = [(0, node) for node in given if node in findings and not findings[node].is_sound]
    return _origin(bad, [dict(findings)], order, {}) if bad else fault


def _hides(node: Node) -> bool:
    return node.source is not None and node.source.operation in _HIDING


def _is_of_one_call(node: Node, other: Node) -> bool:
    a, b = node.source, other.source
    return node.op.name == "constant" or (
        a is not None and b is not None and (a.file, a.line, a.operation) == (b.file, b.line, b.operation)
    )


def _in_the_loss(fault: Fault, findings: Mapping[Node, Finding], order: Mapping[Node, int]) -> Fault:
    """Of an infinity that was put in on purpose, such as a mask: the loss that it should have had no part in."""
    if fault.finding.made or fault.finding.nan:
        return fault
    met = [n for n in findings if cause_of_loss(n) is not None and fault.node in ancestors([n])]
    if not met:
        return fault
    # the last one that is no number yet tells which example it is
    node = max(met, key=lambda n: (any(size > 1 for size in n.shape), order[n]))
    return Fault(node, replace(findings[node], made=True, cause=cause_of_loss(node)), None)


def _infinite_data(node: Node, findings: Mapping[Node, Finding]) -> list[Node]:
    """What was given with infinities in it that came as far as the operands of a node."""
    back = ancestors([node])
    return [n for n, finding in findings.items() if n in back and n is not node and is_given(n) and not finding.nan]


#: a node of the step of a loop that has this number, in the order of computation
Place = tuple[int, Node]


def _origin(
    roots: list[Place], steps: list[dict[Node, Finding]], order: Mapping[Node, int], before: Mapping[Node, Node]
) -> Fault:
    """Where the fault was made, and, where it is data or an infinity on purpose, who was first to read it.

    `steps` are what was found in each step of a loop, of which the parameters are what the nodes that `before` names
    were in the step before; outside of loops there is one.
    """

    def found(place: Place) -> Finding:
        return steps[place[0]][place[1]]

    def operands(place: Place, nodes: Iterable[Node]) -> list[Place]:
        number, node = place
        if number and node in before:
            return [(number - 1, before[node])]
        return [(number, i) for i in nodes if i in steps[number]]

    def position(place: Place) -> tuple[int, int]:
        return place[0], order[place[1]]

    readers: dict[Place, Place] = {}
    seen: set[Place] = set()
    sound = all(found(root).is_sound for root in roots)
    stack = list(roots)
    while stack:
        place = stack.pop()
        if place in seen:
            continue
        seen.add(place)
        # an infinity that was only handed on is followed to where it was put in
        back = operands(place, place[1].inputs if sound else found(place).unsound)
        for operand in back:
            if operand not in readers or position(place) < position(readers[operand]):
                readers[operand] = place
        stack.extend(back)
    own = [place for place in seen if not (place[0] and place[1] in before)]
    ends = [p for p in own if found(p).made]
    ends = ends or [p for p in own if not any(i in seen for i in operands(p, p[1].inputs))]
    ends += [p for p in own if found(p).nan and not found(p).unsound and p not in ends]
    end = min(ends, key=lambda p: (not found(p).nan, *position(p)))
    reader = readers.get(end)
    while reader is not None and _only_hands_on(reader, before) and reader in readers:
        reader = readers[reader]  # which computes something
    time = reader[0] if reader is not None and not found(end).made else end[0]
    return Fault(end[1], found(end), None if reader is None else reader[1], (time,))


def _only_hands_on(place: Place, before: Mapping[Node, Node]) -> bool:
    return place[1].op.kind in (ALIAS, MOVEMENT) or place[1] in before


def _in_the_loop(
    loop: Node, arrays: list[np.ndarray], results: Mapping[Any, Any], name_of: Callable[[Node], str]
) -> Fault | None:
    """What introduced the fault in the body of a loop whose `results` are not sound, though its operands are."""
    body = loop["body"]
    graph = Graph.of(body.values)
    names = {p: name_of(i) for p, i in zip(body.parameters, loop.inputs, strict=True)}
    before = dict(zip(body.parameters, body.next, strict=False))
    steps: list[dict[Node, Finding]] = []
    times = list(steps_of(loop))
    handed: dict[Node, Finding] = {}

    def look(number: int, given: Mapping[Node, np.ndarray]) -> Mapping[Node, np.ndarray]:
        watch = Watch(set(), lambda node: names.get(node, ""), handed if number else {})
        next_ = interpret(Graph(graph.nodes, list(body.next)), given.__getitem__, watch)
        steps.append(watch.findings)
        handed.clear()
        handed.update((p, watch.findings[n]) for p, n in before.items() if n in watch.findings)
        return dict(zip(before, next_, strict=True))

    given: dict[Node, np.ndarray] = dict(zip(body.parameters, arrays, strict=True))
    slices = body.parameters[len(body.next) : len(body.next) + loop["slices"]]
    for number, time in enumerate(times):
        sliced = {p: np.asarray(given[p][time]) for p in slices}
        given.update(look(number, {**given, **sliced}))
    roots = [place for place in _bad_results(loop, results, steps)]
    if not roots:
        return None
    order = {node: place for place, node in enumerate(graph.nodes)}
    fault = _origin(roots, steps, order, before)
    return fault._replace(times=(times[fault.times[0]],))


def _bad_results(loop: Node, results: Mapping[Any, Any], steps: list[dict[Node, Finding]]) -> Iterator[Place]:
    """The values of the body, in their steps, that results of the loop which are not finite have in them."""
    body, last = loop["body"], len(steps) - 1
    for (of, place), value in results.items():
        if _is_finite(value):
            continue
        node = body.values[place] if of == "stack" else body.next[place]
        for number in [last] if of == "final" else range(len(steps)):
            if node in steps[number]:
                yield number, node


def _innermost(fault: Fault) -> Fault:
    """The operation within the loop that a fault is, if it is one, with the steps of all loops on the way."""
    times: tuple[int, ...] = ()
    while fault.finding.inside is not None:
        fault = fault.finding.inside
        times += fault.times
    return fault._replace(times=times + _of_all_at_once(fault))


def _of_all_at_once(fault: Fault) -> tuple[int, ...]:
    """The step of a loop where the operation does all of them at once, along its first axis."""
    told = fault.node if fault.finding.made or fault.reader is None else fault.reader
    if told.source is None or not told.source.steps or not fault.finding.index:
        return ()
    is_like_it = not told.source.is_backward or told.op.kind == ELEMENTWISE
    rows, steps = fault.node.shape[0], told.source.steps
    # the axis may have been joined with the next
    return (fault.finding.index[0] // (rows // steps),) if is_like_it and rows and rows % steps == 0 else ()


#: operations that are not finite at 0, with the operand that is meant
_AT_ZERO = {"div": 1, "log": 0, "log2": 0, "log10": 0}
#: magnitudes up to which one is taken to be 0 with another rounding
_NEARLY = 1e-5


def unexplained(
    graph: Graph, roots: list[Root], value_of: Callable[[Node], Any], name_of: Callable[[Node], str], step: int
) -> NonFiniteError:
    """The error for values that are not finite in native code alone, which rounds differently: the operation is told
    whose operand is nearest to a 0 that makes it so.
    """
    nearest: dict[Node, float] = {}

    def look(node: Node, values: Mapping[Node, Any]) -> None:
        place = _AT_ZERO.get(node.op.name)
        if place is not None and not _is_number(node.inputs[place]):
            nearest[node] = float(np.abs(values[node.inputs[place]]).min(initial=np.inf))
            found[node] = [statistics(name_of(_seen_through(i)), i, values[i]) for i in node.inputs]

    found: dict[Node, list[OperandStatistics]] = {}
    interpret(graph, value_of, look)
    node = min(nearest, key=lambda n: nearest[n], default=None)
    if node is None or nearest[node] > _NEARLY:
        return report(VALUE, "", Fault(roots[0].node, Finding(False, True), None), name_of, step)
    finding = Finding(True, True, made=True, cause=rounded_to_zero(node, nearest[node]), operands=found[node])
    root = next(root for root in roots if node in ancestors([root.node]))
    before = ancestors([other.node for other in roots if other.what != UPDATE]) if root.what == UPDATE else {node}
    return report(root.what, root.message, Fault(node, finding, None), name_of, step, "" if node in before else UPDATE)


__all__ = ["Fault", "Finding", "Root", "diagnose", "unexplained"]
