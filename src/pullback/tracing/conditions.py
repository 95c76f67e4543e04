"""What a recording depended on beside the shapes of its tensors, asked before each run of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..graph.node import Node
from ..tensor.handle import Handle
from ..tensor.store import STRUCTURE_CHANGES
from ..tensor.views import root_of
from .relations import Findings, Related, is_had
from .trace import Trace


class Conditions:
    """What must be as it was when a step was recorded: which arguments are which tensors, what the step has looked at
    of its surroundings, and whether there were gradients where it looked for them.
    """

    def __init__(
        self, trace: Trace, arguments: Sequence[tuple[int, Handle, Node]], leaves: list[Any], related: Related,
        found: Findings,
    ):  # fmt: skip
        """`leaves` are the arguments that were recorded, and `related` which of them are views of one tensor."""
        self.arguments = [position for position, _, _ in arguments]
        self.bound = {p: leaves[p] for p in found.bound if p not in related.paths}
        self.bound_views = {p: root_of(leaves[p]) for p in found.bound if p in related.paths}
        self.paths = {p: path for p, path in related.paths.items() if related.families[p] in found.linked}
        self.foreign = {place: ids for place, ids in found.foreign.items() if ids}
        #: the tensors that the recording has itself: none of them may be an argument as well
        self.captured_ids = trace.known_ids()
        #: the places of arguments that must have no gradient, since the function has looked at it
        self.without_grads = [p for p, proxy, _ in arguments if p < len(leaves) and id(proxy) in trace.asked]
        #: the tensors whose gradients are looked up at each run: which of these are written where they lie, and which
        #: not; and what else is written
        self.written_grads: list[Handle] = []
        self.read_grads: list[Handle] = []
        written = trace.written_ids()
        for captured in trace.captured.values():
            if captured.owner is not None:
                (self.written_grads if id(captured.tensor) in written else self.read_grads).append(captured.owner)
        self.written_ids = written
        self.changed_arguments = [p for p, proxy, node in arguments if proxy._node is not node]
        self.grad_reads = [(g.tensor, g.original is None) for g in trace.grads.values() if g.read]
        self.stores, self.changes, self.guards = trace.stores, STRUCTURE_CHANGES[0], trace.guards
        always, self.attributes = trace.surroundings.guards() if trace.surroundings is not None else ([], [])
        self.still_hold = [guard.holds for guard in always]

    def hold(self, arguments: list[Any], calm: bool) -> bool:
        """Whether all of it is still so.

        Where it is `calm`, no tensor has another gradient than after the last run.
        """
        # what is empty in most recordings is not gone through
        if self.bound and any(arguments[place] is not tensor for place, tensor in self.bound.items()):
            return False
        if self.arguments and any(id(arguments[place]) in self.captured_ids for place in self.arguments):
            return False
        if self.bound_views and not all(is_had(arguments[p], *way) for p, way in self.bound_views.items()):
            return False
        if self.paths and any(root_of(arguments[p])[1] != path for p, path in self.paths.items()):
            return False
        if self.foreign and any(id(arguments[p]) in ids for p, ids in self.foreign.items()):
            return False
        if self.without_grads and any(arguments[p]._grad is not None for p in self.without_grads):
            return False
        if (self.written_grads or self.read_grads) and not self._are_apart(arguments):
            return False
        if STRUCTURE_CHANGES[0] != self.changes:
            if not all(_is_unchanged(store, kept) for store, kept in self.stores):
                return False
            if not all(holder.holds() for holder in self.attributes):
                return False
            self.changes = STRUCTURE_CHANGES[0]
        for holds in self.still_hold:
            if not holds():
                return False
        for read, value in self.guards:
            if read() != value:
                return False
        return (
            calm
            or not self.grad_reads
            or all((tensor._grad is None) is was_none for tensor, was_none in self.grad_reads)
        )

    def _are_apart(self, arguments: list[Any]) -> bool:
        """Whether no gradient that is looked up is also another of them, an argument, or what the recording has itself,
        where one of the two is written: the other would not change along.
        """
        written, read = ([id(tensor._grad) for tensor in some] for some in (self.written_grads, self.read_grads))
        if written:
            others = {*read, *self.captured_ids, *(id(arguments[place]) for place in self.arguments)}
            if len({*written}) < len(written) or not others.isdisjoint(written):
                return False
        changed = (id(arguments[place]) for place in self.changed_arguments)
        return self.written_ids.isdisjoint(read) and not any(each in read for each in changed)


def _is_unchanged(store: dict[Any, Any], kept: dict[Any, Any]) -> bool:
    """Whether what stands in a store are the objects that they were."""
    return store.keys() == kept.keys() and all(store[name] is value for name, value in kept.items())
