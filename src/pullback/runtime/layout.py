"""Layout: a graph as launches in order, and where in memory everything lies that they touch; nothing is allocated.

What a layout says of memory is what a program of it uses: each thing has its fixed place in the arena, or the memory
of an input or an output.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import NamedTuple

from ..codegen.indexed import emit_check
from ..codegen.kernels import emit
from ..codegen.launch import Argument, Launch, Workspace, owner_of
from ..codegen.text import Code
from ..compiler.groups import CALL, CHECK, STEPS, Fusion, Group, elements
from ..compiler.place import Request
from ..compiler.place import place as place_all
from ..graph.node import Node
from ..timeline import span
from .bundles import Between, Extent, Stretch, Thing, arrange, bytes_of, numbered, verify_bundles
from .jit import host_target, templates
from .loops import Steps, relocated
from .schedule import Bundle

#: operations from what a program is given to an index that is looked at before all else
_FARTHEST = 48


@dataclass
class Segment:
    """Launches up to a check or a host call, which Python does after them."""

    launches: list[Launch] = field(default_factory=list)
    #: what each launch was emitted for; None for the turns of a loop
    groups: list[Group | None] = field(default_factory=list)
    #: the check or the call
    node: Node | None = None
    #: where a check notes what it finds
    found: Workspace | None = None
    #: the launches that run together, in numbers of launches
    bundles: list[Bundle] = field(default_factory=list)

    def members(self, bundle: Bundle) -> list[Launch]:
        """The launches of a bundle."""
        return [self.launches[number] for number in bundle.members]

    def scratch_bytes(self) -> int:
        """What the launches need of each thread."""
        return max(launch.scratch_bytes for launch in self.launches)

    @property
    def reads(self) -> list[Node]:
        """What a host call is given."""
        return [] if self.node is None or self.found is not None else [under_reshapes(n) for n in self.node.inputs]

    @property
    def writes(self) -> list[Node]:
        """What a host call gives."""
        return [] if self.node is None or self.found is not None else [self.node]


class Life(NamedTuple):
    """The first and the last step, both included, at which something is in memory; steps are bundles, and what Python
    does between them.
    """

    first: int
    last: int


class Layout:
    """The launches of a fused graph and the place of everything that they touch."""

    def __init__(
        self, fusion: Fusion, inputs: Sequence[Node], aliases: dict[int, int], resident: Collection[int],
        started: Callable[[Code], None], verify: bool, emitted: dict[Group, list[Launch]] | None = None,
    ):  # fmt: skip
        """`aliases` see `Program`. The outputs at the places `resident` lie in the arena, from where they are made to
        the end. `started` is told each kernel's code as soon as there is one. `emitted` are the launches of groups in
        layouts of the same program, to which those of this one are added.
        """
        self.fusion, self.inputs, self.aliases, self.resident = fusion, inputs, aliases, frozenset(resident)
        self.results = fusion.graph.outputs
        #: for everything that the launches touch: "input" or "output" and its place among them, "arena" and the offset
        self.memory_of: dict[Thing, tuple[str, int]] = {}
        with span("emit"):
            self.segments = self._emit(fusion, started, {} if emitted is None else emitted)
        with span("place"):
            self._stage_aliases()
            self._assign_given()
            before = self.launches()
            self._bundle()
            self._place()
        if verify:
            self._verify(before)

    def launches(self) -> list[Launch]:
        """All launches, in order."""
        return [launch for segment in self.segments for launch in segment.launches]

    def written_over(self) -> dict[Node, Node]:
        """The outputs that may be written into the memory of an input, with that input."""
        return {self.results[place]: self.inputs[source] for place, source in self.aliases.items()}

    def early_checks(self) -> list[Group]:
        """The checks of what the program is given, which come before all else."""
        return _checks_first(self.fusion.groups, set(self.inputs))[0]

    # ---- launches

    def _emit(
        self, fusion: Fusion, started: Callable[[Code], None], emitted: dict[Group, list[Launch]]
    ) -> list[Segment]:
        target, store = host_target(), templates()
        known = set(self.inputs) | fusion.materialized
        segments = [Segment()]
        #: where checks note what they find
        self.findings: list[Workspace] = []
        starts: dict[Node, Argument] = {}
        within: set[Node] = set()
        early, rest = _checks_first(fusion.groups, set(self.inputs))
        for group in early + rest:
            launches: list[Launch] = []
            if group.kind == CHECK:
                # what an early check depends on is not computed yet, so the check computes it itself
                in_memory = set(self.inputs).__contains__ if group in early else known.__contains__
                launch, found = emit_check(group, in_memory, target)
                self.findings.append(found)
                launches = [launch]
                segments[-1].launches.append(launch)
                segments[-1].groups.append(group)
                segments[-1].node = next(iter(group.members))
                segments[-1].found = found
                segments.append(Segment())
            elif group.kind == CALL:
                segments[-1].node = next(iter(group.members))
                segments.append(Segment())
            elif group.kind == STEPS:
                steps = Steps(group, known.__contains__, target)
                turns = steps.launches()
                launches = [launch for launch, _ in turns]
                segments[-1].launches.extend(launches)
                segments[-1].groups.extend(of for _, of in turns)
                starts.update(steps.starts())
                within |= steps.in_memory
            else:
                if group not in emitted:  # what was in memory for an earlier layout, is so for this one
                    emitted[group] = emit(group, known.__contains__, target, store)
                launches = emitted[group]
                segments[-1].launches.extend(launches)
                segments[-1].groups.extend([group] * len(launches))
            for launch in launches:
                started(launch.code)
        for segment in segments:
            segment.launches = [relocated(launch, starts) for launch in segment.launches]
        self.in_memory = known | within
        return segments

    # ---- memory

    def _stage_aliases(self) -> None:
        """Outputs that must not be written where an input lies, because it is still read then, are written aside.

        `safe` outputs are written by the last launch that reads the input, which reads each element only where it
        writes it. The others get memory in the arena and are copied to their place when everything else is done.
        """
        launches = self.launches()
        writing: dict[Node | Workspace, list[int]] = {}
        reading: dict[Node | Workspace, list[int]] = {}
        for number, launch in enumerate(launches):
            for thing in launch.writes:
                writing.setdefault(thing, []).append(number)
            for thing in launch.reads:
                reading.setdefault(thing, []).append(number)
        called = {node for s in self.segments for node in s.reads}
        # what may still stop the run (a check, a host call) must come before anything is overwritten
        stops, seen = 0, 0
        for segment in self.segments:
            seen += len(segment.launches)
            stops = seen if segment.node is not None else stops
        #: outputs, by place, that are written to the arena and copied when all else is done
        self.aside: list[tuple[int, Node]] = []
        for place, source in self.aliases.items():
            node, base = self.results[place], self.inputs[source]
            writers, readers, calls = writing.get(node, []), reading.get(base, []), base in called
            if not writers:
                safe = not readers and not calls and not stops
            else:
                first = writers[0]
                safe = (
                    first >= stops
                    and len(writers) == 1
                    and not calls
                    and all(r < first or (r == first and base in launches[r].exact) for r in readers)
                )
            if not safe:
                self.aside.append((place, node))

    def _assign_given(self) -> None:
        """Give the memory of inputs and outputs to their nodes."""
        for place, node in enumerate(self.inputs):
            self.memory_of[node] = ("input", place)
        arena = {place for place, _ in self.aside} | self.resident
        for place, node in enumerate(self.results):
            if place not in arena:
                self.memory_of[node] = ("output", place)

    def _bundle(self) -> None:
        """Put the launches in an order in which those that do not depend on one another stand together."""
        stretches = [Stretch(s.launches, {*s.reads, *s.writes}) for s in self.segments]
        over: dict[Thing, set[Thing]] = {}
        aside = {place for place, _ in self.aside}
        for place in set(self.aliases) - aside:
            over.setdefault(self.results[place], set()).add(self.inputs[self.aliases[place]])
        arranged = arrange(stretches, lambda thing: 0 if thing in self.memory_of else bytes_of(thing), over)
        for segment, bundles in zip(self.segments, arranged, strict=True):
            of = dict(zip(segment.launches, segment.groups, strict=True))
            segment.launches = [launch for bundle in bundles for launch in bundle]
            segment.groups = [of[launch] for launch in segment.launches]
            segment.bundles = numbered(bundles, host_target().l2)

    def _place(self) -> None:
        """Give every other node and workspace a place in the arena."""
        lives: dict[Thing, list[int]] = {}
        step = 0
        for segment in self.segments:
            for bundle in segment.bundles:
                for launch in segment.members(bundle):
                    # sets of nodes have another order in each process, on which places must not depend
                    rest = sorted(launch.reads | launch.writes, key=_number)
                    self._live((*launch.arguments, *rest), step, lives)
                step += 1
            self._live((*segment.reads, *segment.writes), step, lives)
            step += 1
        for found in self.findings:
            lives[found][0] = 0  # cleared before the run
        for _, node in self.aside:
            lives.setdefault(node, [0, step])[1] = step
        for number in self.resident:
            lives.setdefault(self.results[number], [step, step])[1] = step
        own = {thing: Life(*life) for thing, life in lives.items()}
        heirs = self._inherit(lives)
        #: what is written over something that ends where it begins
        self.heirs = frozenset(heirs)
        things = [thing for thing in lives if thing not in heirs]
        placement = place_all([Request(max(bytes_of(thing), 1), *lives[thing]) for thing in things])
        #: bytes of the arena, its steps, and when each thing in it is there; one that is written over another counts as
        #: it
        self.arena_bytes, self.steps = placement.nbytes, step + 1
        self.lives = {thing: Life(*lives[thing]) for thing in things}
        #: the same of each value by itself: what is written over another takes its place at the step that makes it
        self.own_lives = _apart(own, heirs)
        for thing, offset in zip(things, placement.offsets, strict=True):
            self.memory_of[thing] = ("arena", offset)
        for heir, before in heirs.items():
            self.memory_of[heir] = self.memory_of[before]

    def _live(self, things: Iterable[Argument], step: int, lives: dict[Thing, list[int]]) -> None:
        for thing in things:
            owner = owner_of(thing)
            if owner is not None and owner not in self.memory_of:
                lives.setdefault(owner, [step, step])[1] = step

    def _inherit(self, lives: dict[Thing, list[int]]) -> dict[Node, Node]:
        """Which temporaries are written over which: over one of their size that the same launch is the last to read,
        each element only where it is written, and no other of its bundle reads. The lives of those written over are
        extended accordingly.
        """
        heirs: dict[Node, Node] = {}
        step = 0
        for segment in self.segments:
            for bundle in segment.bundles:
                members = segment.members(bundle)
                touched = Counter(owner for launch in members for owner in set(map(owner_of, launch.arguments)))
                for launch in members:
                    if launch.in_place:
                        self._inherit_in(launch, step, lives, heirs, touched)
                step += 1
            step += 1
        return heirs

    @staticmethod
    def _inherit_in(
        launch: Launch, step: int, lives: dict[Thing, list[int]], heirs: dict[Node, Node],
        touched: Mapping[Thing | None, int],
    ) -> None:  # fmt: skip
        """`touched` says of each thing how many launches of the bundle read or write it."""
        nodes = [a for a in dict.fromkeys(launch.arguments) if isinstance(a, Node) and a in lives]
        ending = [n for n in nodes if n in launch.exact and touched[n] == 1 and lives[n][0] < step == lives[n][1]]
        for new in nodes:
            if new not in launch.writes or lives[new][0] != step:
                continue
            size = elements(new) * new.dtype.itemsize
            old = next((n for n in ending if elements(n) * n.dtype.itemsize == size), None)
            if old is not None:
                ending.remove(old)
                first = heirs.get(old, old)
                heirs[new] = first
                lives[first][1] = max(lives[first][1], lives[new][1])

    def _verify(self, before: list[Launch]) -> None:
        """Check bundles and places; `before` are the launches in the order in which they were made."""
        aside = {place for place, _ in self.aside}
        over = {("output", place): ("input", source) for place, source in self.aliases.items() if place not in aside}

        def extent(thing: Thing) -> Extent:
            where, place = self.memory_of[thing]
            if where == "arena":
                return Extent(where, place, place + bytes_of(thing))
            return Extent(over.get((where, place), (where, place)), 0, bytes_of(thing))

        after = [segment.members(bundle) for segment in self.segments for bundle in segment.bundles]
        ends = accumulate(len(segment.bundles) for segment in self.segments)
        called = [Between(end, s.reads, s.writes) for end, s in zip(ends, self.segments, strict=True) if s.writes]
        verify_bundles(before, after, extent, called)


def _apart(lives: dict[Thing, Life], heirs: dict[Node, Node]) -> dict[Thing, Life]:
    """The lives where what is written over another begins when that one ends; `heirs` say in whose place they lie."""
    chains: dict[Thing, list[Thing]] = {}
    for heir, first in heirs.items():
        chains.setdefault(first, [first]).append(heir)
    apart = dict(lives)
    for chain in chains.values():
        for before, after in pairwise(sorted(chain, key=lambda thing: lives[thing].first)):
            apart[before] = Life(lives[before].first, min(lives[before].last, lives[after].first - 1))
    return apart


def _number(thing: Thing) -> int:
    return thing.serial if isinstance(thing, Node) else -1


def under_reshapes(node: Node) -> Node:
    """What a host call is given as it lies in memory."""
    while node.op.name == "reshape":
        node = node.inputs[0]
    return node


def _checks_first(groups: list[Group], given: set[Node]) -> tuple[list[Group], list[Group]]:
    """Checks of what the program is given, which come first so that a wrong index stops it at once; and the rest. A
    check that comes first computes its index itself, which must therefore not be far from what is given.
    """

    def early(group: Group) -> bool:
        if group.kind != CHECK:
            return False
        stack, seen = list(next(iter(group.members)).inputs), set(given)
        while stack:
            node = stack.pop()
            if node in seen:
                continue
            seen.add(node)
            if (
                len(seen) - len(given) > _FARTHEST
                or node.op.kind not in ("movement", "elementwise", "leaf")
                or node.op.name == "concatenate"
            ):
                return False
            stack.extend(node.inputs)
        return True

    return [g for g in groups if early(g)], [g for g in groups if not early(g)]
