"""Whether an update of finite gradients is finite, known before it is made.

The update writes over the old state, so that a bad one must be known of before the first element is written; to compute
it twice would cost a tenth of a small step. So it is told from bounds. The guard keeps back every step whose losses and
gradients, as one vector, are longer than `LARGEST`. Of what else goes into the update (state, learning rates) the least
and the greatest element are taken once. From these follow bounds of the new state (`bounds`), and by induction of
the state of some further steps: bounds that no step leaves or, of what is only added to, that it cannot leave in so
many. A step then only counts down. Bounds are taken anew when the steps are used up, or when somebody else has changed
the state or a rate has left its bounds.

States of which no bounds can be told (an operation without a rule; Adam with weight decay in the gradient, in which
sums of weights are divided by eps) are computed before they are written, and looked at: `looked_at`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from weakref import finalize

from ..graph.node import Node
from ..ops.bounds import Bounds, Interval, Role, Unbounded, as_lerp

#: of the losses and gradients of a step whose update is known to be finite: its square is a float32
LARGEST = 1e15
#: for how many steps bounds are sought, the most first
_STEPS = (65536, 1024, 64)
#: what a number from outside, such as a learning rate, may become before bounds are sought anew
_LESS, _MORE = 1 / 1024, 16.0
_FROM_ZERO = Interval(0.0, 1e-2)
#: how often bounds are widened before they count as endless
_TRIES = 60
_WIDER = 4.0
#: after so many times an end that comes nearer to zero each time is put there, as of a square that only decays
_NEARER = 4
#: a state that is multiplied by less than this at each step is kept in bounds by that
_SHRINKS = 0.999


class State(NamedTuple):
    """A state that a step writes: the input that holds it, and its new value."""

    old: Node
    new: Node


class _Growth(NamedTuple):
    """A new state that is old · factor + added (or - added): the entries, factor None where it is 1."""

    factor: int | None
    added: int
    sign: float


class Assurance:
    """Bounds of the new states of a recording, for some steps to come."""

    def __init__(self, states: Sequence[State], watched: Iterable[Node], roles: Mapping[Node, Role]):
        """`roles` are those of the inputs that are known before a step: all states of one role are alike."""
        self.watched, self.roles = set(watched), roles
        self.bounds = Bounds(roles.get, self.watched, LARGEST)
        self.states: list[State] = []
        #: states that have to be computed before they are written
        self.looked_at: list[State] = []
        unbounded: set[Node] = set()
        for state in states:
            behind = _behind(state.new, self.watched, self.bounds, unbounded)
            reached = unbounded.intersection(behind)
            try:
                if not reached:
                    self.bounds.add(behind)
            except Unbounded:
                reached = {next(node for node in behind if node not in self.bounds)}
            (self.looked_at if reached else self.states).append(state)
            unbounded |= _made_of(reached, behind, self.watched)
        self._growths = {state: _growth(state, self.bounds) for state in self.states}
        self.known: dict[Role, Interval] = {}

    def find(self, start: Mapping[Role, Interval], numbers: Iterable[Role]) -> int:
        """For how many steps the new states are known to be finite, 0 where that is unknown: `start` are the bounds of
        all roles now, `numbers` are the roles of what no step writes.
        """
        given = {role: _around(found) if role in numbers else found for role, found in start.items()}
        # of those that nothing bounded is made of, nothing is asked
        for role in {self.roles[state.old] for state in self.looked_at} & given.keys():
            given[role] = given[role].hull(Interval(-LARGEST, LARGEST))  # as the guard will keep it
        for steps in _STEPS:
            try:
                self.known = self._kept_for(steps, given)
            except Unbounded:
                continue
            return steps
        return 0

    def look_at_some(self, start: Mapping[Role, Interval], numbers: Iterable[Role], likely: set[Role]) -> None:
        """Choose the states that have to be `looked_at` for the others to be bounded: none more, those of the roles
        that are `likely` in the way, or all.
        """
        if self.find(start, numbers):
            return
        for chosen in ([s for s in self.states if self.roles[s.old] in likely], list(self.states)):
            self.looked_at += [state for state in chosen if state not in self.looked_at]
            self.states = [state for state in self.states if state not in chosen]
            if self.find(start, numbers):
                return

    def _kept_for(self, steps: int, start: Mapping[Role, Interval]) -> dict[Role, Interval]:
        """Bounds that hold all states for so many steps. Raises Unbounded where none are found."""
        known = dict(start)
        for tried in range(_TRIES):
            values = self.bounds.values(known)
            is_kept = True
            for state in self.states:
                role = self.roles[state.old]
                later = self._later(state, values, start[role], steps)
                if not known[role].holds(later):
                    known[role], is_kept = _widened(known[role], later, tried >= _NEARER), False
            if is_kept:
                return known
        raise Unbounded

    def _later(self, state: State, values: list[Interval], start: Interval, steps: int) -> Interval:
        """What the state is after a step or, where it only grows, after so many, if all is within `values`."""
        growth = self._growths[state]
        if growth is None:
            return values[self.bounds[state.new]]
        factor = Interval(1.0, 1.0) if growth.factor is None else values[growth.factor]
        if factor.high < _SHRINKS or factor.low < 0 or factor.high > 1 + 1e-6:
            return values[self.bounds[state.new]]
        ends = [growth.sign * end for end in values[growth.added]]
        added = Interval(steps * min(0.0, *ends), steps * max(0.0, *ends))
        if growth.factor is None:
            return Interval(start.low + added.low, start.high + added.high)
        # the factor may be above 1 by its rounding
        room = 1 + 2e-6 * steps
        return Interval(room * (min(0.0, start.low) + added.low), room * (max(0.0, start.high) + added.high))


def _behind(node: Node, watched: set[Node], known: Bounds, unbounded: set[Node]) -> list[Node]:
    """What a node is made of, down to what is watched and what is unbounded, save for what is known: a norm by which
    all gradients are clipped is gone through once and not for each state, and so are the layers before a running mean.
    """
    found: set[Node] = set()
    stack = [node]
    while stack:
        node = stack.pop()
        if node not in found and node not in known:
            found.add(node)
            if node not in watched and node.buffer is None and node not in unbounded:
                stack.extend(node.inputs)
    return sorted(found, key=lambda node: node.serial)


def _made_of(some: set[Node], nodes: Sequence[Node], watched: set[Node]) -> set[Node]:
    """Of `nodes`, each after its operands, `some` and those that are made of these, save for what is watched."""
    found = set(some)
    for node in nodes if found else ():
        if node not in watched and node.buffer is None and not found.isdisjoint(node.inputs):
            found.add(node)
    return found


def _growth(state: State, bounds: Bounds) -> _Growth | None:
    node = _changed(state)
    if node.op.name not in ("add", "sub") or as_lerp(node) is not None:
        return None
    pairs = [(node.inputs[0], node.inputs[1])]
    if node.op.name == "add":
        pairs.append((node.inputs[1], node.inputs[0]))
    for kept, added in pairs:
        sign = 1.0 if node.op.name == "add" else -1.0
        if _converted(kept) is state.old:
            return _Growth(None, bounds[added], sign)
        if kept.op.name == "mul" and kept.buffer is None:
            for old, factor in (kept.inputs, kept.inputs[::-1]):
                if _converted(old) is state.old:
                    return _Growth(bounds[factor], bounds[added], sign)
    return None


def _changed(state: State) -> Node:
    """What the new value is where it is not the old one, in steps that a condition may keep from changing anything."""
    node = _converted(state.new)
    while node.op.name == "where" and node.buffer is None and state.old in map(_converted, node.inputs[1:]):
        node = _converted(next(choice for choice in node.inputs[1:] if _converted(choice) is not state.old))
    return node


def _converted(node: Node) -> Node:
    """The value that was only converted."""
    while node.op.name in ("convert", "copy", "detach", "identity") and node.buffer is None:
        node = node.inputs[0]
    return node


def _around(found: Interval) -> Interval:
    """What a number may become."""
    if found.low <= 0 <= found.high:
        return found.hull(_FROM_ZERO)
    ends = [end * scale for end in found for scale in (_LESS, _MORE)]
    return Interval(min(ends), max(ends))


def _widened(known: Interval, later: Interval, to_zero: bool) -> Interval:
    """`known`, with the ends beyond which `later` lies further out than that; those that come nearer to zero are put
    there, if so `to_zero`.
    """
    low, high = known
    nearer = 0.0 if to_zero else 1 / _WIDER
    if later.low < low:
        low = later.low * (_WIDER if later.low < 0 else nearer)
    if later.high > high:
        high = later.high * (_WIDER if later.high > 0 else nearer)
    return Interval(low, high)


class _Writers:
    """Which recording wrote a tensor last. `change` is another object whenever another one did."""

    def __init__(self) -> None:
        self.change = object()
        self._last: dict[int, object] = {}

    def claim(self, tensors: Sequence[object], token: object) -> bool:
        """Enter the recordings with this token as the writers of tensors; whether they were that of all of them."""
        ids = [id(tensor) for tensor in tensors]
        if all(self._last.get(number) is token for number in ids):
            return True
        for tensor, number in zip(tensors, ids, strict=True):
            if number not in self._last:
                finalize(tensor, self._last.pop, number, None)
            self._last[number] = token
        self.change = object()
        return False


WRITERS = _Writers()

__all__ = ["LARGEST", "WRITERS", "Assurance", "State"]
