"""Tensors of one call that are views of one another, or of one tensor: what is written in one is to be seen in all.

A recording takes its arguments as separate values. That is right where they are only read. Where a step writes one of
several that share a root, it is recorded anew with the root as its argument, and these as views of it.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from ..errors import TraceError
from ..graph.node import Node
from ..ops.primitive import grad_mode
from ..tensor import Tensor
from ..tensor.handle import Handle
from ..tensor.views import Path, root_of
from ..trees import leaf_count
from .trace import Trace


def is_had(tensor: Handle, root: Handle, path: Path) -> bool:
    """Whether `tensor` is what is had from `root` along `path`."""
    found = root_of(tensor)
    return found[0] is root and found[1] == path


class Related:
    """The views among the tensors of a call, and what they are views of."""

    def __init__(self, leaves: list[Any]):
        #: the path of each leaf that is a view
        self.paths: dict[int, Path] = {}
        #: what these are views of, each once
        self.roots: list[Handle] = []
        #: for each leaf that is a view or a root the number of the root; empty where there is no view
        self.families: tuple[int | None, ...] = ()
        views = {
            place: root_of(leaf)
            for place, leaf in enumerate(leaves)
            if isinstance(leaf, Handle) and (leaf._link is not None or leaf._alias is not None)
        }
        numbers: dict[int, int] = {}
        for place, (root, path) in views.items():
            if path:
                self.paths[place] = path
                if numbers.setdefault(id(root), len(self.roots)) == len(self.roots):
                    self.roots.append(root)
        if numbers:
            self.families = tuple(
                numbers.get(id(views[place][0] if place in views else leaf)) for place, leaf in enumerate(leaves)
            )

    def members(self, number: int) -> list[int]:
        """The places of the views of a root, and of itself."""
        return [place for place, family in enumerate(self.families) if family == number]

    def are_several(self, number: int, leaves: list[Any]) -> bool:
        """Whether a root is there in more than one way."""
        return len({id(leaves[place]) for place in self.members(number)}) > 1

    def have_history(self, number: int, leaves: list[Any]) -> bool:
        """Whether gradients pass from one of the family to another."""
        return any(leaves[place].requires_grad and not leaves[place].is_leaf for place in self.members(number))

    def cut_off(self, number: int) -> int | None:
        """The place of a view that was made a leaf, or is a view of one; None where there is none."""
        return next((p for p in self.members(number) if any(way.is_leaf for way in self.paths.get(p, ()))), None)


class Findings(NamedTuple):
    """What a recording has shown of the tensors that it was given: the places that must be these very tensors; the
    roots, by number, of which views are to be linked; the tensors, by id, whose gradients must be what they are; and
    which tensors, by id, the root of other views must not be.
    """

    bound: frozenset[int]
    linked: frozenset[int]
    grads: frozenset[int]
    foreign: dict[int, frozenset[int]]


def findings(
    trace: Trace, related: Related, leaves: list[Any], arguments: list[tuple[int, Tensor, Node]],
    bound: frozenset[int], linked: frozenset[int], name: Callable[[int], str],
) -> Findings:  # fmt: skip
    """What must be otherwise for the recording to be right, or nothing else than `bound`, `linked`, and the trace's
    own `bound_grads`.

    Raises TraceError where what is written could not be seen in a view that was made a leaf.
    """
    known, written = trace.known_ids(), trace.written_ids()
    changed = {place for place, proxy, node in arguments if proxy._node is not node}
    count = len(leaves)
    own = {place for place, _, _ in arguments if place < count and id(leaves[place]) in known}
    # an argument whose gradient the function looks at or replaces is recorded as itself where it has one
    own |= {p for p, proxy, _ in arguments if p < count and id(proxy) in trace.asked and leaves[p]._grad is not None}
    grads = _shared_gradients(trace, leaves, arguments)
    shared = {id(g.original) for key, g in trace.grads.items() if key in grads}
    own |= {place for place, _, _ in arguments if place < count and id(leaves[place]) in shared}
    further, foreign = set(linked), {}
    for number, root in enumerate(related.roots):
        members = related.members(number)
        is_changed = count + number in changed or not changed.isdisjoint(members)
        passes = is_changed or related.have_history(number, leaves)
        foreign[count + number] = known if passes else written
        is_own = id(root) in foreign[count + number]
        cut_off = related.cut_off(number)
        if cut_off is not None and (is_changed or (is_own and id(root) in written)):
            others = [name(place) for place in members if place != cut_off]
            raise _cut_off(name(cut_off), " and ".join(others) or "it, or what it is a view of")
        if is_own:
            own.update(members)
        elif passes and related.are_several(number, leaves):
            further.add(number)
    for captured in trace.captured.values():
        root, path = root_of(captured.tensor)
        if path and id(root) in written:
            raise _cut_off(f"a tensor of shape {list(captured.tensor.shape)} that it uses", "what that is a view of")
    places = bound | own
    foreign = {place: ids for place, ids in foreign.items() if places.isdisjoint(related.members(place - count))}
    kept = (number for number in further if places.isdisjoint(related.members(number)))
    return Findings(places, frozenset(kept), trace.bound_grads | grads, foreign)


def _shared_gradients(trace: Trace, leaves: list[Any], arguments: list[tuple[int, Tensor, Node]]) -> frozenset[int]:
    """The tensors, by id, whose gradient the function also has by another way, where it writes it: as the gradient of
    another tensor, as an argument, as an optimizer's state, or under a name.
    """
    stand_ins = [g for g in trace.grads.values() if g.found is not g.original]
    times = Counter(id(g.original) for g in stand_ins)
    known, written = trace.known_ids(), trace.written_ids()
    given = {id(leaves[place]) for place, _, _ in arguments if place < len(leaves)}
    changed = {id(leaves[p]) for p, proxy, node in arguments if p < len(leaves) and proxy._node is not node}
    found = {id(g.original) for g in stand_ins if id(g.found) in written}
    found |= written | changed | {id(g.original) for g in stand_ins if g.tensor._grad is g.original}
    ways = known | given | {key for key, count in times.items() if count > 1}
    return frozenset(id(g.tensor) for g in stand_ins if id(g.original) in found & ways)


def along(root: Tensor, path: Path) -> list[Tensor]:
    """The views that lie on the path from `root`, the one at its end last."""
    views = [root]
    for way in path:
        if way.movement is None:
            views.append(views[-1].data)
        else:
            with grad_mode(way.grad):
                views.append(views[-1]._view(way.movement))
    return views


def _cut_off(view: str, written: str) -> TraceError:
    return TraceError(
        f"a compiled step writes {written}, and {view} is a view of the same memory that was made a leaf by "
        "requires_grad_(): inside of the step it would not change along. Make the leaf of a .clone(), or write outside "
        "of the step."
    )


def name_of(function: Any, shape: Any, place: int) -> str:
    """What to call an argument: `shape` is that of (args, kwargs) and `place` counts their leaves."""
    try:
        names = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # builtins may have none
        names = []
    positional, named = shape[1]
    parts = [(names[i] if i < len(names) else f"args[{i}]", part) for i, part in enumerate(positional[1])]
    for label, part in [*parts, *zip(named[1], named[2], strict=True)]:
        if place < leaf_count(part):
            return f"the argument {label}" if part is None else f"tensor {place} in the argument {label}"
        place -= leaf_count(part)
    raise AssertionError(place)
