"""A recording whose updates are known to be finite beforehand: what is measured for that, and when it is anew."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Self
from weakref import WeakValueDictionary

import numpy as np

from ..graph.node import Node
from ..graph.types import to_carrier
from ..ops.bounds import Interval, Role, measured
from .assurance import LARGEST, WRITERS, Assurance, State
from .trace import Captured, Trace

#: what a tensor that is not computed yet starts from
_NOTHING = Interval(0.0, 0.0)


class _Ledger:
    """What is known of the states that some recordings write in the same way, such as those of a step for batches of
    several sizes.
    """

    __slots__ = ("__weakref__", "change", "known", "left", "serials")

    def __init__(self) -> None:
        #: for how many steps the bounds `known` are good
        self.left = 0
        self.known: dict[Role, Interval] = {}
        #: what WRITERS and the tensors' nodes were when that was so
        self.change = object()
        self.serials: list[int] = []


_LEDGERS: WeakValueDictionary[Hashable, _Ledger] = WeakValueDictionary()


class Assured:
    """The countdown of a recording: `goes_on` takes a tenth of a microsecond, `renew` at most a pass over the state."""

    #: what the total of squares must stay below, as float32
    limit = float(np.float32(LARGEST) ** 2)

    def __init__(
        self, assurance: Assurance, roles: Sequence[Role], numbers: Sequence[bool], captured: list[Captured],
        others: Sequence[State],
    ):  # fmt: skip
        """For each captured tensor its role, and whether it is a number that no step writes. `others` are states of
        which nothing is known beforehand.
        """
        self.assurance = assurance
        self.looked_at = {state.new for state in [*assurance.looked_at, *others]}
        written = {state.old for state in assurance.states}
        asked = assurance.bounds.roles | {assurance.roles[node] for node in written}
        #: the captured tensors whose values matter, their roles, and which of them are numbers and states
        self.asked = [place for place, role in enumerate(roles) if role in asked]
        self.roles = [roles[place] for place in self.asked]
        self.numbers = [numbers[place] for place in self.asked]
        self.states = [place for place in self.asked if captured[place].node in written]
        tensors = tuple(id(captured[place].tensor) for place in self.asked)
        self.ledger = _LEDGERS.setdefault((tensors, *assurance.bounds.structure), _Ledger())

    @classmethod
    def of(cls, states: Sequence[State], watched: Sequence[Node], trace: Trace, captured: Sequence[Captured]) -> Self:
        """The bounds of a recording's states, as far as there are any with the values that there are now."""
        written = {state.old for state in states}
        roles: dict[Node, Role] = {}
        for place, each in enumerate(captured):
            slot = trace.optimizer_state.get(id(each.tensor), ("",))[0]
            kind = (slot or "parameter", each.node.dtype.name) if each.node in written else ("input", place)
            roles[each.node] = Role(kind)
        # an argument is another tensor at each call, whose values nobody has followed
        others = [state for state in states if state.old not in roles]
        assurance = Assurance([state for state in states if state.old in roles], watched, roles)
        numbers = [each.node not in written and not each.node.shape for each in captured]
        own = [roles[each.node] for each in captured]
        start: dict[Role, Interval] = {}
        for role, each in zip(own, captured, strict=True):
            found = _NOTHING if each.original.buffer is None else _measured(each.original)
            start[role] = (found or _NOTHING).hull(start.get(role, found or _NOTHING))
        outside = {role for role, is_number in zip(own, numbers, strict=True) if is_number}
        assurance.look_at_some(start, outside, {role for role in own if role.key[0] == "parameter"})  # type: ignore[index]
        return cls(assurance, own, numbers, list(captured), others)

    @property
    def is_empty(self) -> bool:
        """Whether there are no bounds to be told: everything is looked at."""
        return not self.assurance.states

    def goes_on(self) -> bool:
        """Whether the bounds are good for another step, nobody having changed a tensor since."""
        ledger = self.ledger
        if ledger.left > 0 and WRITERS.change is ledger.change:
            ledger.left -= 1
            return True
        return False

    def renew(self, tensors: Sequence[Any]) -> bool:
        """Whether there are bounds for a step: taken anew where tensors have changed or others wrote them."""
        ledger = self.ledger
        is_ours = WRITERS.claim([tensors[place] for place in self.states], ledger)
        ledger.change = WRITERS.change
        before, ledger.serials = ledger.serials, self._serials(tensors)
        shared = any(tensors[place]._node.buffer.shared for place in self.states)
        if not (is_ours and not shared and ledger.left > 0 and self._still_hold(tensors, before)):
            ledger.left = self._measure(tensors)
        ledger.left -= 1
        return ledger.left >= 0

    def after(self, tensors: Sequence[Any]) -> None:
        """Take what a step has made of the tensors for theirs."""
        self.ledger.serials = self._serials(tensors)

    def _serials(self, tensors: Sequence[Any]) -> list[int]:
        return [tensors[place]._node.serial for place in self.asked]

    def _still_hold(self, tensors: Sequence[Any], before: Sequence[int]) -> bool:
        """Whether what has changed are numbers that have stayed in their bounds."""
        known = self.ledger.known
        for place, role, is_number, old in zip(self.asked, self.roles, self.numbers, before, strict=True):
            if tensors[place]._node.serial != old:
                found = _measured(tensors[place]._node) if is_number else None
                if found is None or not known[role].holds(found):
                    return False
        return True

    def _measure(self, tensors: Sequence[Any]) -> int:
        start: dict[Role, Interval] = {}
        for place, role in zip(self.asked, self.roles, strict=True):
            found = _measured(tensors[place]._node)
            if found is None:
                return 0
            start[role] = found.hull(start.get(role, found))
        numbers = {role for role, is_number in zip(self.roles, self.numbers, strict=True) if is_number}
        steps = self.assurance.find(start, numbers)
        self.ledger.known = self.assurance.known
        return steps


def _measured(node: Node) -> Interval | None:
    if node.buffer.is_blank:
        return _NOTHING
    return measured(to_carrier(node.buffer.array, node.dtype))


__all__ = ["Assured"]
