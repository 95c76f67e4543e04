"""Scans as launches: the body's, once, between two turns, with places that move from step to step.

Where a step's kernels keep the rows of what they compute apart, all steps are one launch, whose tasks take a few rows
each through all of them (see `compiler.rows` and `codegen.steps`).

A carry whose history is asked for is read and written in the history itself, one place further at each step. Any other
is carried in a ring of two places. What the loop begins with is computed right into the first place. Launches that do
the same at each step, as packing a weight for a matrix product, are taken out of the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from ..codegen.kernels import emit
from ..codegen.launch import Argument, Launch, Loop, Place, Turn, Workspace, owner_of
from ..codegen.steps import steps_launch
from ..codegen.target import Target
from ..compiler.groups import CALL, CHECK, LOOP, STEPS, Group, elements
from ..compiler.index import View, contiguous_view
from ..compiler.pipeline import lower
from ..compiler.rows import keeps_apart
from ..compiler.share import Share, share_of
from ..errors import CompileError
from ..graph.node import Graph, Node
from ..ops.body import Body
from ..ops.elementwise import copy
from ..ops.primitive import parameter, source_of
from .driver import move_on
from .jit import templates

#: where nodes lie that have no memory of their own
Places = Mapping[Node, Argument]


def relocated(launch: Launch, places: Places) -> Launch:
    """The launch with the nodes that `places` names where it says."""
    if not places:
        return launch
    sets = ({_owner(node, places) for node in some} for some in (launch.reads, launch.writes, launch.exact))
    reads, writes, exact = sets
    arguments = [_at(argument, places) for argument in launch.arguments]
    return replace(launch, arguments=arguments, reads=reads, writes=writes, exact=exact)


def _at(argument: Argument, places: Places) -> Argument:
    if isinstance(argument, Node):
        return places.get(argument, argument)
    if isinstance(argument, View):
        home = places.get(argument.base)
        return argument if home is None else _further(home, argument.offset * argument.base.dtype.itemsize)
    if isinstance(argument, Place):
        home = _at(argument.home, places)
        assert isinstance(home, (Node, Workspace, Place))
        if isinstance(home, Place) and home.loop is None:
            return replace(argument, home=home.home, offset=home.offset + argument.offset)
        if isinstance(home, Place) and argument.loop is None:
            # what stands still in this loop moves with the loop around it
            return _further(home, argument.offset)
        return replace(argument, home=home)
    return argument


def _further(place: Argument, nbytes: int) -> Place:
    """`nbytes` behind a place."""
    if isinstance(place, Place):
        return replace(place, offset=place.offset + nbytes)
    assert isinstance(place, (Node, Workspace))
    return Place(place, nbytes)


def _owner(node: Any, places: Places) -> Any:
    return owner_of(places[node]) if node in places else node


class Steps:
    """A group of kind STEPS: its loop's body lowered, and where everything in it lies."""

    def __init__(self, group: Group, in_memory: Callable[[Node], bool], target: Target):
        loop, *parts = group.members
        self.node, self.given, self.target = loop, in_memory, target
        self.length, self.reverse = loop["length"], loop["reverse"]
        self.turns = Loop(self.length)
        body: Body = loop["body"].copied()
        count = len(body.next)
        self.carries, self.given_nodes = body.parameters[:count], body.parameters[count:]
        self.histories = {part["place"]: part for part in parts if part["of"] == "history" and part in group.stored}
        self.finals = [part for part in parts if part["of"] == "final" and part in group.stored]
        stacks = [part for part in parts if part["of"] == "stack"]
        self.rings = {i: Workspace(2 * _spacing(c)) for i, c in enumerate(self.carries) if i not in self.histories}
        graph, self.fusion = lower(Graph.of([*body.next, *(body.values[part["place"]] for part in stacks)]))
        self.places = self._given_places(body)
        for number, output in enumerate(graph.outputs[:count]):
            self.places[output] = self._carried(number, after=True)
        for part, output in zip(stacks, graph.outputs[count:], strict=True):
            # what is not stored is computed all the same, into one slice: the body's kernels, and so the bits, are
            # those of the loop of which this one computes a part again
            stored = part in group.stored
            home, stride = (part, _nbytes(output)) if stored else (Workspace(_spacing(output)), 0)
            self.places[output] = self._slice(home, stride)
        #: the values of the body that are in memory when a step is done
        self.in_memory = self.fusion.materialized.union(self.places)

    # ---- places

    def _slice(self, home: Node | Workspace | Place, stride: int, skipped: int = 0) -> Place:
        """The slice of the step, of slices that lie `stride` bytes apart, after `skipped` ones."""
        first = (self.length - 1 if self.reverse else 0) + skipped
        return Place(home, first * stride, self.turns, -stride if self.reverse else stride)

    def _carried(self, number: int, after: bool) -> Place:
        """Where a carry lies before the step, or is written by it."""
        carry = self.carries[number]
        if number in self.histories:
            return self._slice(self.histories[number], _nbytes(carry), int(after != self.reverse))
        spacing = _spacing(carry)
        return Place(self.rings[number], spacing * after, self.turns, -spacing if after else spacing, mask=1)

    def _given_places(self, body: Body) -> dict[Node, Argument]:
        """Where the body finds what it is given."""
        places: dict[Node, Argument] = {}
        count = len(self.carries)
        for number, (given, operand) in enumerate(zip(body.parameters, self.node.inputs, strict=True)):
            if number < count:
                places[given] = self._carried(number, after=False)
                continue
            is_slice = number < count + self.node["slices"]
            view = contiguous_view(operand, self.given, first_axis_apart=is_slice)
            assert view is not None, f"{operand!r} cannot be read by the steps of a loop"
            size = given.dtype.itemsize
            lying = Place(view.base, view.offset * size)
            if is_slice:
                moving = self._slice(view.base, view.strides[0] * size)
                places[given] = replace(moving, offset=moving.offset + lying.offset)
            else:
                places[given] = lying
        return places

    def starts(self) -> dict[Node, Argument]:
        """Where the initial carries are to be computed."""
        found: dict[Node, Argument] = {}
        for number, carry in enumerate(self.carries):
            if number in self.histories:
                skipped = self.length if self.reverse else 0
                found[self.node.inputs[number]] = Place(self.histories[number], skipped * _nbytes(carry))
            else:
                found[self.node.inputs[number]] = self.rings[number]
        return found

    # ---- launches

    def launches(self) -> list[tuple[Launch, Group | None]]:
        """All launches with what they were emitted for, those of the loop between its turns."""
        once, repeated = self._emitted()
        own = {owner for launch, _ in repeated for owner in _owners(launch)}.difference(
            self.places, *(_owners(launch) for launch, _ in once)
        )
        once, repeated = (
            [(relocated(launch, self.places), group) for launch, group in some] for some in (once, repeated)
        )
        around = {owner for launch, _ in repeated for owner in _owners(launch)} - own
        written = {owner for launch, _ in repeated for owner in launch.writes} - own
        if self.share is not None:
            return [*once, self._together(repeated), *self._last()]
        for launch, _ in repeated:
            launch.times *= self.length
        first, last = (
            Turn(move_on(), 1, [], 0, set(around), set(written), set(), loop=self.turns, begins=begins)
            for begins in (True, False)
        )
        return [*once, (first, None), *repeated, (last, None), *self._last()]

    def _together(self, repeated: list[tuple[Launch, Group | None]]) -> tuple[Launch, Group | None]:
        """One launch of all steps, and the group that stands for what it computes."""
        groups = [group for group in self.fusion.groups if group.stored]
        members = {node: level for group in groups for node, level in group.members.items()}
        stored = [node for group in groups for node in group.stored]
        whole = Group(STEPS, max(group.size for group in groups), members=members, stored=stored, times=self.length)
        return steps_launch([launch for launch, _ in repeated], self.length), whole

    def _emitted(self) -> tuple[list[tuple[Launch, Group | None]], list[tuple[Launch, Group | None]]]:
        """The launches that are the same at each step, and the others."""
        constants = frozenset(n for n, place in self.places.items() if isinstance(place, Place) and place.loop is None)
        self.share = self._share(constants)
        once: list[tuple[Launch, Group | None]] = []
        repeated: list[tuple[Launch, Group | None]] = []
        starts: dict[Node, Argument] = {}
        for group in self.fusion.groups:
            if group.kind in (CHECK, CALL):
                raise _cannot_stop(group)
            if group.kind == STEPS:
                inner = Steps(group, self.in_memory.__contains__, self.target)
                repeated += inner.launches()
                starts.update(inner.starts())
                self.in_memory |= inner.in_memory
                continue
            group.constants, group.share = constants, self.share
            for launch in emit(group, self.in_memory.__contains__, self.target, templates()):
                read = {a for argument in launch.arguments if isinstance(a := owner_of(argument), Node)}
                same = not launch.writes and read <= constants
                if same:
                    once.append((launch, self._packing(group)))
                else:
                    repeated.append((launch, group))
        return once, [(relocated(launch, starts), group) for launch, group in repeated]

    def _packing(self, group: Group) -> Group:
        """What stands for the launch that packs the matrix of a product: it copies it, and multiplies nothing."""
        product = next(iter(group.members))
        with source_of(product):
            copied = copy(product.inputs[1])
        return Group(LOOP, elements(copied), members={copied: "full"}, stored=[copied])

    def _share(self, constants: frozenset[Node]) -> Share | None:
        """How tasks share the rows of all steps; None where steps do not keep rows apart."""
        share = share_of(self.carries)
        given = frozenset(self.given_nodes)
        if share is None or not self.fusion.groups:
            return None
        apart = keeps_apart(self.fusion.groups, share, given, constants, self.in_memory.__contains__)
        return share if apart else None

    def _last(self) -> list[tuple[Launch, Group | None]]:
        """The final carries copied from where the last step has left them."""
        launches: list[tuple[Launch, Group | None]] = []
        for part in self.finals:
            left = Place(self.rings[part["place"]], self.length % 2 * _spacing(part))
            given = parameter(0, part.shape, part.dtype)
            copied = copy(given)
            group = Group(LOOP, elements(copied), members={copied: "full"}, stored=[copied], cost=1)
            self.in_memory |= {given, copied}
            places: dict[Node, Argument] = {given: left, copied: part}
            emitted = emit(group, places.__contains__, self.target, templates())
            launches += [(relocated(launch, places), group) for launch in emitted]
        return launches


def _owners(launch: Launch) -> Iterable[Node | Workspace]:
    """Everything whose memory the launch has to do with."""
    found = [owner_of(argument) for argument in launch.arguments]
    return {owner for owner in (*found, *launch.reads, *launch.writes) if owner is not None}


def _nbytes(node: Node) -> int:
    return elements(node) * node.dtype.itemsize


def _spacing(node: Node) -> int:
    """Bytes from one place of a ring to the next: whole cache lines."""
    return -(-max(_nbytes(node), 1) // 64) * 64


def _cannot_stop(group: Group) -> CompileError:
    node = next(iter(group.members))
    what = "calls Python" if group.kind == CALL else f"checks an index ({node['what']})"
    return CompileError(
        f"the body of a scan {what} in a way that depends on the carry (made at {node.source}), which native loops "
        "cannot stop for yet. Write this loop in Python, or run it with PULLBACK_BACKEND=reference."
    )
