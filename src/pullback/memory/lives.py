"""What a program holds in memory, thing by thing: for what, from where in the user's code, and when."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..codegen.launch import Launch, Turn, Workspace, owner_of
from ..compiler.describe import label
from ..compiler.rematerialize import is_backward
from ..graph.node import Graph, Node, Source
from ..ops.primitive import ALIAS, MOVEMENT
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
    """A launch, or a call of Python, that touches something: at which step, whether it makes a value of the forward
    pass and one that depends on the backward pass, whether it writes the thing, and the node that it is named after.
    """

    step: int
    forward: bool
    backward: bool
    writes: bool
    node: Node | None


def _in_arena(layout: Layout, program: Program, roles: Roles) -> Iterator[Held]:
    later = _later(layout.fusion.graph)
    uses = _uses(layout, later)
    gradients = {layout.results[place]: name for place, name in roles.gradients.items() if place in program.in_arena()}
    copies = program.copies()
    awaited = _awaited(layout, uses, later | set(copies))
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
            elif thing not in copies and _is_activation(of) and (thing not in later or thing in awaited):
                role = ACTIVATIONS
        yield Held(what, role, source, bytes_of(thing), *life, offset)


def _is_activation(uses: list[_Use]) -> bool:
    """Whether a kernel of the forward pass makes it and the backward pass reads it."""
    makes = [use for use in uses if use.writes]
    return bool(makes) and makes[0].forward and any(use.backward and not use.writes for use in uses)


def _awaited(layout: Layout, uses: dict[Thing, list[_Use]], later: set[Node]) -> set[Node]:
    """What waits until more of the forward pass has run: who reads it depends on values that are made after it. Of what
    kernels of the forward pass make for the gradient alone, the sums of attention are such, and the gradient by the
    logits, which is made with the loss, is not: it is on its way.
    """
    made = {thing: use.step for thing, of in uses.items() for use in of if use.writes and isinstance(thing, Node)}
    results = set(layout.results)
    #: the last step that makes a value of the forward pass that a node depends on
    latest: dict[Node, int] = {}
    awaited: set[Node] = set()
    for node in layout.fusion.graph.nodes:
        latest[node] = max((latest.get(i, -1) for i in node.inputs), default=-1)  # inputs need not stand in it
        if node not in results:  # gradients and parameters wait for checks of the loss
            stored = (_stored(operand, made) for operand in node.inputs)
            awaited |= {operand for operand in stored if made.get(operand, latest[node]) < latest[node]}
        if node not in later:
            latest[node] = max(latest[node], made.get(node, -1))
    return awaited


def _stored(node: Node, made: Mapping[Node, int]) -> Node:
    """What is read where a node is."""
    while node not in made and node.inputs and node.op.kind in (MOVEMENT, ALIAS):
        node = node.inputs[0]
    return node


def _uses(layout: Layout, later: set[Node]) -> dict[Thing, list[_Use]]:
    """What touches each thing, in order."""
    found: dict[Thing, list[_Use]] = {}
    known = set(layout.fusion.graph.nodes)
    loop: list[Node] = []
    step = 0

    def enter(reads: Iterable[Thing], writes: Iterable[Thing], nodes: Sequence[Node]) -> None:
        forward, backward = any(node not in later for node in nodes), any(node in later for node in nodes)
        for things, written in ((reads, False), (writes, True)):
            use = _Use(step, forward, backward, written, nodes[-1] if nodes else None)
            for thing in things:
                found.setdefault(thing, []).append(use)

    for segment in layout.segments:
        groups = dict(zip(map(id, segment.launches), segment.groups, strict=True))
        for bundle in segment.bundles:
            for launch in segment.members(bundle):
                group = groups[id(launch)]
                nodes = [] if group is None else group.stored or list(group.members)
                if isinstance(launch, Turn) and launch.begins:
                    loop = [thing for thing in launch.writes if isinstance(thing, Node) and thing in known]
                # what is in a loop's body stands in no graph: it is as far as what the loop makes
                nodes = nodes if nodes and known.issuperset(nodes) else loop
                enter([*launch.reads, *_scratch(launch)], launch.writes, nodes)
            step += 1
        enter(segment.reads, segment.writes, [] if segment.node is None else [segment.node])
        step += 1
    return found


def _scratch(launch: Launch) -> list[Thing]:
    """Workspaces that no other launch has to know of."""
    owners = {owner: None for owner in map(owner_of, launch.arguments) if isinstance(owner, Workspace)}
    return [owner for owner in owners if owner not in launch.reads and owner not in launch.writes]


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
