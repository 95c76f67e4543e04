"""What a program holds in memory, thing by thing: for what, from where in the user's code, and when."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..codegen.launch import Turn
from ..compiler.describe import label
from ..compiler.rematerialize import is_backward
from ..graph.node import Graph, Node, Source
from ..runtime.bundles import Thing, bytes_of
from ..runtime.layout import Layout
from ..runtime.program import Program

#: what memory is held for, in the order of tables
ROLES = ("parameters", "gradients", "optimizer", "activations", "temporaries", "inputs")
PARAMETERS, GRADIENTS, OPTIMIZER, ACTIVATIONS, TEMPORARIES, INPUTS = ROLES


class Named(NamedTuple):
    """What an input is for, what it is called ("" for nothing in particular), the line that made it, and of an
    optimizer's state the place of the parameter that it is kept for.
    """

    role: str
    name: str = ""
    source: Source | None = None
    kept_for: int | None = None


@dataclass(frozen=True)
class Roles:
    """What the inputs of a program are, by place (the others are plain inputs), and which outputs are gradients, with
    the names of the parameters that they are of.
    """

    inputs: Mapping[int, Named] = field(default_factory=dict)
    gradients: Mapping[int, str] = field(default_factory=dict)


class Held(NamedTuple):
    """Something in memory: what it is and for what, where the user's code made it, its bytes, and the first and the
    last step of the schedule at which it is there, both included. `offset` is its place in the arena, None where it
    lies in memory of its own.
    """

    what: str
    role: str
    source: Source | None
    nbytes: int
    first: int
    last: int
    offset: int | None = None


def held_by(program: Program, roles: Roles) -> list[Held]:
    """Everything that a run of the program holds. Without a layout, as on the reference, that is what it is given and
    what it makes.
    """
    layout = getattr(program, "layout", None)
    last = 0 if layout is None else layout.steps - 1
    return [*_given(program, roles, last), *(() if layout is None else _in_arena(layout, program, roles))]


def _given(program: Program, roles: Roles, last: int) -> Iterator[Held]:
    """Inputs, and outputs with memory of their own: the caller holds them throughout."""
    for place, node in enumerate(program.inputs):
        role, name, source, _ = roles.inputs.get(place, Named(INPUTS))
        what = f"{name} {_shape(node)}".strip()
        yield Held(what, role, source or node.source, bytes_of(node), 0, last)
    for place, node in enumerate(program.outputs):
        if place in program.aliases or place in program.in_arena():
            continue
        role, what = TEMPORARIES, f"result {_shape(node)}"
        if place in roles.gradients:
            role, what = GRADIENTS, _gradient(roles.gradients[place], node)
        yield Held(what, role, node.source, bytes_of(node), 0, last)


def _gradient(name: str, node: Node) -> str:
    return f"gradient{f' of {name}' if name else ''} {_shape(node)}"


def _shape(node: Node) -> str:
    return f"{node.dtype.name}{list(node.shape)}"


class _Use(NamedTuple):
    """A launch, or a call of Python, that touches something: whether it makes a value of the forward pass and one that
    depends on the backward pass, whether it writes the thing, and the node that it is named after.
    """

    forward: bool
    backward: bool
    writes: bool
    node: Node | None


def _in_arena(layout: Layout, program: Program, roles: Roles) -> Iterator[Held]:
    uses = _uses(layout)
    gradients = {layout.results[place]: name for place, name in roles.gradients.items() if place in program.in_arena()}
    copies = program.copies()
    for thing, life in layout.own_lives.items():
        offset = layout.memory_of[thing][1]
        of = uses.get(thing, [])
        node = thing if isinstance(thing, Node) else next((use.node for use in of if use.node is not None), None)
        source = None if node is None else node.source
        what = f"workspace of {label(node)}" if node is not None else "workspace"
        role = TEMPORARIES
        if isinstance(thing, Node):
            again = "again " if thing in copies else ""
            what = f"{label(thing)} {again}{_shape(thing)}"
            if thing in gradients:
                role, what = GRADIENTS, _gradient(gradients[thing], thing)
            elif thing not in copies and _is_activation(of):
                role = ACTIVATIONS
        yield Held(what, role, source, bytes_of(thing), *life, offset)


def _is_activation(uses: list[_Use]) -> bool:
    """Whether the forward pass makes it and the backward pass reads it."""
    makes = [use for use in uses if use.writes]
    return bool(makes) and makes[0].forward and any(use.backward and not use.writes for use in uses)


def _uses(layout: Layout) -> dict[Thing, list[_Use]]:
    """What touches each thing, in order."""
    found: dict[Thing, list[_Use]] = {}
    later, known = _later(layout.fusion.graph), set(layout.fusion.graph.nodes)
    loop: list[Node] = []

    def enter(reads: Iterable[Thing], writes: Iterable[Thing], nodes: Sequence[Node]) -> None:
        forward, backward = any(node not in later for node in nodes), any(node in later for node in nodes)
        for things, written in ((reads, False), (writes, True)):
            use = _Use(forward, backward, written, nodes[-1] if nodes else None)
            for thing in things:
                found.setdefault(thing, []).append(use)

    for segment in layout.segments:
        groups = dict(zip(map(id, segment.launches), segment.groups, strict=True))
        for launch in (member for bundle in segment.bundles for member in segment.members(bundle)):
            group = groups[id(launch)]
            nodes = [] if group is None else group.stored or list(group.members)
            if isinstance(launch, Turn) and launch.begins:
                loop = [thing for thing in launch.writes if isinstance(thing, Node) and thing in known]
            # what is in a loop's body stands in no graph: it is as far as what the loop makes
            enter(launch.reads, launch.writes, nodes if nodes and known.issuperset(nodes) else loop)
        enter(segment.reads, segment.writes, [] if segment.node is None else [segment.node])
    return found


def _later(graph: Graph) -> set[Node]:
    """The nodes of the backward pass, and those that depend on it, such as the optimizer's."""
    later: set[Node] = set()
    for node in graph.nodes:
        if is_backward(node) or not later.isdisjoint(node.inputs):
            later.add(node)
    return later


__all__ = [
    "ACTIVATIONS", "GRADIENTS", "INPUTS", "OPTIMIZER", "PARAMETERS", "ROLES", "TEMPORARIES",
    "Held", "Named", "Roles", "held_by",
]  # fmt: skip
