"""A program: a graph made ready to be run again and again.

The launches of all kernels stand in tables that the native driver runs. Temporaries have fixed places in one arena that
belongs to the program; inputs and outputs are the caller's, and their addresses are entered where they change.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from .. import debug, forks, timeline
from ..codegen.indexed import emit_check
from ..codegen.kernels import emit
from ..codegen.launch import Argument, Launch, Loop, Place, Turn, Workspace, owner_of
from ..compiler.fuse import CALL, CHECK, LOOP, STEPS, Fusion, Group, elements, is_real
from ..compiler.index import View
from ..compiler.pipeline import lower
from ..compiler.place import Request
from ..compiler.place import place as place_all
from ..graph.interpreter import interpret
from ..graph.node import Graph, Node
from ..graph.types import to_carrier, to_storage
from ..ops.indexing import out_of_range
from ..timeline import span
from .buffers import Buffer, allocate
from .bundles import Extent, Stretch, Thing, arrange, bytes_of, numbered, saved, verify_bundles
from .jit import Ahead, host_target, load, templates
from .loops import Steps, relocated
from .schedule import LAUNCH_BYTES, Bundle, Entry, Schedule
from .stamps import StampedSchedule
from .threads import get_num_threads

#: the places of inputs and of outputs that may lie elsewhere than at the last run
Moved = tuple[Collection[int], Collection[int]]

#: operations (see `Launch.work`) that a second thread must save a program: waking it, where it sleeps, takes the caller
#: some microseconds
_SMALL_WORK = 200_000


@dataclass(frozen=True)
class Memory:
    """Bytes that a run of a program needs: its arena of temporaries, its inputs, and its outputs."""

    arena: int
    inputs: int
    outputs: int

    @property
    def total(self) -> int:
        """All three; an output that is written over an input is counted in both."""
        return self.arena + self.inputs + self.outputs


class Program:
    """The values of a graph's outputs, computed from those of its inputs."""

    def __new__(cls, graph: Graph, inputs: Sequence[Node], aliases: dict[int, int] | None = None) -> Program:
        """A program on the backend that is switched on."""
        chosen = _Interpreted if debug.get("backend") == "reference" else _Native
        return object.__new__(chosen if cls is Program else cls)

    def __init__(self, graph: Graph, inputs: Sequence[Node], aliases: dict[int, int] | None = None):
        """`inputs` are the graph's input nodes in the order of their values in `run`.

        `aliases` maps outputs to the inputs whose memory they may be given to be written into.
        """
        self.inputs = list(inputs)
        self.aliases = aliases or {}
        self.outputs = list(graph.outputs)
        #: nodes whose values are in memory when they have been computed
        self.in_memory: set[Node] = set()

    def run(self, inputs: Sequence[Buffer], outputs: Sequence[Buffer], moved: Moved | None = None) -> None:
        """Compute from `inputs` (in the order of the graph's input nodes) into `outputs`.

        A caller that knows which of them may not be where they were at the last run names their places in `moved`.
        """
        raise NotImplementedError

    @property
    def memory(self) -> Memory:
        """What a run needs, in bytes."""
        return Memory(self._arena_bytes(), _nbytes(self.inputs), _nbytes(self.outputs))

    def kernels(self) -> list[tuple[Launch, Group]]:
        """Every launch, with the group that it was emitted for; none on the reference."""
        return []

    def _arena_bytes(self) -> int:
        return 0


def _nbytes(nodes: Sequence[Node]) -> int:
    return sum(elements(node) * node.dtype.itemsize for node in nodes)


class _Interpreted(Program):
    """The reference: every node by its record's meaning."""

    def __init__(self, graph: Graph, inputs: Sequence[Node], aliases: dict[int, int] | None = None):
        super().__init__(graph, inputs, aliases)
        self.graph = graph
        self.places = {node: place for place, node in enumerate(self.inputs)}
        self.in_memory = set(graph.nodes)
        self._groups: dict[Node, Group] = {}

    def run(self, inputs: Sequence[Buffer], outputs: Sequence[Buffer], moved: Moved | None = None) -> None:
        def value_of(node: Node) -> np.ndarray:
            return to_carrier(inputs[self.places[node]].array, node.dtype).reshape(node.shape)

        if timeline.PROFILES:
            values = self._timed(value_of)
        else:
            values = interpret(self.graph, value_of)
        stored = [to_storage(value, node.dtype).reshape(-1) for node, value in zip(self.outputs, values, strict=True)]
        for value, buffer in zip([np.array(s) for s in stored], outputs, strict=True):
            buffer.array[...] = value

    def _timed(self, value_of: Callable[[Node], np.ndarray]) -> list[np.ndarray]:
        """The values of the outputs; tells when each node was computed, as if it were a kernel of its own."""
        begin, ends = timeline.now(), []
        values = interpret(self.graph, value_of, lambda _: ends.append(timeline.now()))
        timed = [(n, s, e) for n, s, e in zip(self.graph.nodes, [begin, *ends], ends, strict=False) if is_real(n)]
        groups = [self._groups.setdefault(n, Group(LOOP, elements(n), None, {n: ""}, [n])) for n, _, _ in timed]
        stamps = np.array([[[s, e, e - s, 1]] for _, s, e in timed], np.int64).reshape(-1, 1, 4)
        times = KernelTimes(self, groups, [1] * len(timed), range(len(timed)), stamps)
        timeline.tell(timeline.Span("kernels", begin, timeline.now(), threading.get_ident(), times))
        return values


@dataclass
class _Segment:
    """Launches up to a check or a host call, and what Python does after them."""

    launches: list[Launch] = field(default_factory=list)
    #: what each launch was emitted for; None for the turns of a loop
    groups: list[Group | None] = field(default_factory=list)
    after: Callable[[], None] | None = None
    #: the check or the call that `after` is
    node: Node | None = None
    #: the launches that run together, in numbers of launches
    bundles: list[Bundle] = field(default_factory=list)
    #: (kernel, arguments, tasks) of each launch
    table: list[Entry] = field(default_factory=list)
    schedule: Schedule | None = None
    #: the same with time stamps, made when it is first profiled
    stamped: StampedSchedule | None = None

    def members(self, bundle: Bundle) -> list[Launch]:
        """The launches of a bundle."""
        return [self.launches[number] for number in bundle.members]

    def scratch_bytes(self) -> int:
        """What the launches need of each thread."""
        return max(launch.scratch_bytes for launch in self.launches)

    def make_stamped(self) -> StampedSchedule:
        """The schedule that is run while a profile is taken."""
        assert self.schedule is not None
        if self.stamped is None:
            self.stamped = StampedSchedule(self.table, self.schedule.threads, self.scratch_bytes(), self.bundles)
        return self.stamped


class KernelTimes(NamedTuple):
    """One run of some of a program's launches: for each the group it computes (None for the turns of a loop), its
    tasks, the number of the bundle in which it ran, and the stamps of each thread (see `StampedSchedule.run`).
    """

    program: Program
    groups: Sequence[Group | None]
    tasks: Sequence[int]
    bundles: Sequence[int]
    stamps: np.ndarray


class _Native(Program):
    """The graph compiled to kernels."""

    def __init__(self, graph: Graph, inputs: Sequence[Node], aliases: dict[int, int] | None = None):
        super().__init__(graph, inputs, aliases)
        forks.register(self)
        lowered, fusion = lower(graph)
        self.results = lowered.outputs
        self._memory_of: dict[Node | Workspace, tuple[str, int]] = {}
        with Ahead() as ahead:
            with span("emit"):
                self._segments = self._emit(fusion, ahead)
            with span("place"):
                self._stage_aliases()
                self._assign_given()
                before = self._launches()
                self._bundle()
                self._place()
            if debug.get("verify"):
                self._verify(before)
            self._link(ahead)
        if "kernels" in debug.get("debug"):
            self._describe()

    # ---- kernels

    def _emit(self, fusion: Fusion, ahead: Ahead) -> list[_Segment]:
        target, store = host_target(), templates()
        known = set(self.inputs) | fusion.materialized
        segments = [_Segment()]
        #: where checks note what they find
        self._findings: list[Workspace] = []
        starts: dict[Node, Argument] = {}
        within: set[Node] = set()
        early, rest = _checks_first(fusion.groups, set(self.inputs))
        for group in early + rest:
            launches: list[Launch] = []
            if group.kind == CHECK:
                # what an early check depends on is not computed yet, so the check computes it itself
                in_memory = set(self.inputs).__contains__ if group in early else known.__contains__
                launch, found = emit_check(group, in_memory, target)
                self._findings.append(found)
                launches = [launch]
                segments[-1].launches.append(launch)
                segments[-1].groups.append(group)
                segments[-1].node = next(iter(group.members))
                segments[-1].after = self._raiser(segments[-1].node, found)
                segments.append(_Segment())
            elif group.kind == CALL:
                segments[-1].node = next(iter(group.members))
                segments[-1].after = self._caller(segments[-1].node)
                segments.append(_Segment())
            elif group.kind == STEPS:
                steps = Steps(group, known.__contains__, target)
                emitted = steps.launches()
                launches = [launch for launch, _ in emitted]
                segments[-1].launches.extend(launches)
                segments[-1].groups.extend(of for _, of in emitted)
                starts.update(steps.starts())
                within |= steps.in_memory
            else:
                launches = emit(group, known.__contains__, target, store)
                segments[-1].launches.extend(launches)
                segments[-1].groups.extend([group] * len(launches))
            for launch in launches:
                ahead.start(launch.code)
        for segment in segments:
            segment.launches = [relocated(launch, starts) for launch in segment.launches]
        self.in_memory = known | within
        return segments

    def _raiser(self, node: Node, found: Workspace) -> Callable[[], None]:
        def look() -> None:
            position = self._found[found].item(0)
            if position:
                raise out_of_range(node, position - 1, self._found[found].item(1))

        return look

    def _caller(self, node: Node) -> Callable[[], None]:
        operands = [_under_reshapes(operand) for operand in node.inputs]

        def call() -> None:
            arrays = [
                to_carrier(self._array(base, elements(base), base.dtype.storage), base.dtype).reshape(operand.shape)
                for base, operand in zip(operands, node.inputs, strict=True)
            ]
            value = node.op.evaluate(node, *arrays)
            self._array(node, elements(node), node.dtype.storage)[...] = to_storage(value, node.dtype).reshape(-1)

        call.reads, call.writes = operands, [node]  # type: ignore[attr-defined]
        return call

    def kernels(self) -> list[tuple[Launch, Group]]:
        """The launches, each with the group that it was emitted for; the turns of loops are left out."""
        pairs = [pair for s in self._segments for pair in zip(s.launches, s.groups, strict=True)]
        return [(launch, group) for launch, group in pairs if group is not None]

    def _launches(self) -> list[Launch]:
        return [launch for segment in self._segments for launch in segment.launches]

    # ---- memory

    def _stage_aliases(self) -> None:
        """Outputs that must not be written where an input lies, because it is still read then, are written aside.

        `safe` outputs are written by the last launch that reads the input, which reads each element only where it
        writes it. The others get memory in the arena and are copied to their place when everything else is done.
        """
        launches = self._launches()
        writing: dict[Node | Workspace, list[int]] = {}
        reading: dict[Node | Workspace, list[int]] = {}
        for number, launch in enumerate(launches):
            for thing in launch.writes:
                writing.setdefault(thing, []).append(number)
            for thing in launch.reads:
                reading.setdefault(thing, []).append(number)
        called = {node for s in self._segments for node in getattr(s.after, "reads", ())}
        # what may still stop the run (a check, a host call) must come before anything is overwritten
        stops, seen = 0, 0
        for segment in self._segments:
            seen += len(segment.launches)
            stops = seen if segment.after is not None else stops
        self._aside: list[tuple[int, Node]] = []
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
                self._aside.append((place, node))

    def _assign_given(self) -> None:
        """Give the memory of inputs and outputs to their nodes."""
        for place, node in enumerate(self.inputs):
            self._memory_of[node] = ("input", place)
        aside = {place for place, _ in self._aside}
        for place, node in enumerate(self.results):
            if place not in aside:
                self._memory_of[node] = ("output", place)

    def _bundle(self) -> None:
        """Put the launches in an order in which those that do not depend on one another stand together."""
        stretches = [
            Stretch(s.launches, {*getattr(s.after, "reads", ()), *getattr(s.after, "writes", ())})
            for s in self._segments
        ]
        over: dict[Thing, set[Thing]] = {}
        aside = {place for place, _ in self._aside}
        for place in set(self.aliases) - aside:
            over.setdefault(self.results[place], set()).add(self.inputs[self.aliases[place]])
        arranged = arrange(stretches, lambda thing: 0 if thing in self._memory_of else bytes_of(thing), over)
        for segment, bundles in zip(self._segments, arranged, strict=True):
            of = dict(zip(segment.launches, segment.groups, strict=True))
            segment.launches = [launch for bundle in bundles for launch in bundle]
            segment.groups = [of[launch] for launch in segment.launches]
            segment.bundles = numbered(bundles, host_target().l2)

    def _place(self) -> None:
        """Give every other node and workspace a place in the arena."""
        lives: dict[Node | Workspace, list[int]] = {}
        step = 0
        for segment in self._segments:
            for bundle in segment.bundles:
                for launch in segment.members(bundle):
                    for thing in (*launch.reads, *launch.writes, *launch.arguments):
                        owner = owner_of(thing)
                        if owner is not None and owner not in self._memory_of:
                            lives.setdefault(owner, [step, step])[1] = step
                step += 1
            for node in (*getattr(segment.after, "reads", ()), *getattr(segment.after, "writes", ())):
                if node not in self._memory_of:
                    lives.setdefault(node, [step, step])[1] = step
            step += 1
        for found in self._findings:
            lives[found][0] = 0  # cleared before the run
        for _, node in self._aside:
            lives.setdefault(node, [0, step])[1] = step
        heirs = self._inherit(lives)
        things = [thing for thing in lives if thing not in heirs]
        placement = place_all([Request(max(bytes_of(thing), 1), *lives[thing]) for thing in things])
        self._arena = allocate(max(placement.nbytes, 64))
        self._arena_size = placement.nbytes
        for thing, offset in zip(things, placement.offsets, strict=True):
            self._memory_of[thing] = ("arena", offset)
        for heir, before in heirs.items():
            self._memory_of[heir] = self._memory_of[before]

    def _inherit(self, lives: dict[Node | Workspace, list[int]]) -> dict[Node, Node]:
        """Which temporaries are written over which: over one of their size that the same launch is the last to read,
        each element only where it is written, and no other of its bundle reads. The lives of those written over are
        extended accordingly.
        """
        heirs: dict[Node, Node] = {}
        step = 0
        for segment in self._segments:
            for bundle in segment.bundles:
                members = segment.members(bundle)
                for launch in members:
                    others = {owner_of(a) for other in members if other is not launch for a in other.arguments}
                    if launch.in_place:
                        self._inherit_in(launch, step, lives, heirs, others)
                step += 1
            step += 1
        return heirs

    @staticmethod
    def _inherit_in(
        launch: Launch, step: int, lives: dict[Node | Workspace, list[int]], heirs: dict[Node, Node],
        others: Collection[object],
    ) -> None:  # fmt: skip
        nodes = [a for a in dict.fromkeys(launch.arguments) if isinstance(a, Node) and a in lives]
        ending = [n for n in nodes if n in launch.exact and n not in others and lives[n][0] < step == lives[n][1]]
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

    def _arena_bytes(self) -> int:
        return self._arena_size

    def _address(self, thing: Node | Workspace) -> int | None:
        where, place = self._memory_of[thing]
        return self._arena.ctypes.data + place if where == "arena" else None

    def _array(self, thing: Node | Workspace, count: int, dtype: np.dtype | type) -> np.ndarray:
        """The memory of a node or workspace as an array, during a run."""
        where, place = self._memory_of[thing]
        if where == "arena":
            nbytes = count * np.dtype(dtype).itemsize
            return self._arena[place : place + nbytes].view(dtype)
        return (self._given_inputs if where == "input" else self._given_outputs)[place].array

    def _verify(self, before: list[Launch]) -> None:
        """Check bundles and places; `before` are the launches in the order in which they were made."""
        aside = {place for place, _ in self._aside}
        over = {("output", place): ("input", source) for place, source in self.aliases.items() if place not in aside}

        def extent(thing: Thing) -> Extent:
            where, place = self._memory_of[thing]
            if where == "arena":
                return Extent(where, place, place + bytes_of(thing))
            return Extent(over.get((where, place), (where, place)), 0, bytes_of(thing))

        after = [segment.members(bundle) for segment in self._segments for bundle in segment.bundles]
        verify_bundles(before, after, extent)

    # ---- tables

    def _link(self, ahead: Ahead) -> None:
        """Load the kernels and fill the tables, save for the addresses that change from run to run."""
        launches = self._launches()
        addresses = load([launch.code for launch in launches], ahead)
        threads = get_num_threads()  # asked for in any case, so that a wrong setting is found at once
        if self._saved() <= _SMALL_WORK:
            threads = 1
        words = _Words(self._memory_of, self._address)
        places = iter([words.enter_all(launch.arguments) for launch in launches])
        words.enter_homes()
        for segment in self._segments:
            if threads == 1:
                segment.bundles = [Bundle([number]) for number in range(len(segment.launches))]
            segment.table = self._table(segment, places, words, addresses)
        self._slots = words.array()
        base = self._slots.ctypes.data
        for segment in self._segments:
            segment.table = [(function, base + place * 8, tasks) for function, place, tasks in segment.table]
            if segment.table:
                segment.schedule = Schedule(segment.table, threads, segment.scratch_bytes(), segment.bundles)
        self._input_slots = [words.patches.get(("input", i), []) for i in range(len(self.inputs))]
        self._output_slots = [words.patches.get(("output", i), []) for i in range(len(self.outputs))]
        self._last_inputs, self._last_outputs = [0] * len(self.inputs), [0] * len(self.outputs)
        self._found = {found: self._array(found, 2, np.int64) for found in self._findings}
        self._calls = [call for s in self._segments for call in (s.schedule and s.schedule.run, s.after) if call]

    def _saved(self) -> float:
        """Operations that a second thread saves the caller in a run."""
        cache = host_target().l2
        shared = [s.members(bundle) for s in self._segments for bundle in s.bundles if bundle.sharing]
        return sum(max(launch.times for launch in members) * saved(members, cache) for members in shared)

    @staticmethod
    def _table(segment: _Segment, places: Iterator[int], words: _Words, addresses: dict[str, int]) -> list[Entry]:
        """(function, place of its arguments among the words, tasks) of each launch."""
        table: list[Entry] = []
        begun: dict[Loop, int] = {}
        bundle_of = {member: number for number, bundle in enumerate(segment.bundles) for member in bundle.members}
        for number, launch in enumerate(segment.launches):
            place = next(places)
            if not isinstance(launch, Turn):
                table.append((addresses[launch.code.name], place, launch.tasks))
            elif launch.begins:
                begun[launch.loop] = bundle_of[number]
                table.append((addresses[launch.code.name], words.of_loop(launch.loop), 1))
            else:
                words.go_back(launch.loop, bundle_of[number] - begun[launch.loop])
                table.append((0, words.of_loop(launch.loop), 0))
        return table

    def renew_locks(self) -> None:
        """In a forked child another thread of the parent may have held the lock."""
        self._lock = threading.Lock()

    def run(self, inputs: Sequence[Buffer], outputs: Sequence[Buffer], moved: Moved | None = None) -> None:
        with self._lock:
            self._given_inputs, self._given_outputs = inputs, outputs
            moved_inputs, moved_outputs = moved or (range(len(inputs)), range(len(outputs)))
            if moved_inputs:
                self._enter_addresses(self._input_slots, inputs, self._last_inputs, moved_inputs)
            if moved_outputs:
                self._enter_addresses(self._output_slots, outputs, self._last_outputs, moved_outputs)
            for found in self._found.values():
                found[0] = 0
            if timeline.PROFILES:
                self._run_stamped()
            else:
                for call in self._calls:
                    call()
            for place, node in self._aside:
                outputs[place].array[...] = self._array(node, elements(node), node.dtype.storage)
            self._given_inputs = self._given_outputs = ()

    def _run_stamped(self) -> None:
        """Run with time stamps, and tell them."""
        for segment in self._segments:
            if segment.schedule is not None:
                schedule, tasks = segment.make_stamped(), [tasks for _, _, tasks in segment.table]
                begin = timeline.now()
                stamps = schedule.run()
                bundles = [number for number, bundle in enumerate(segment.bundles) for _ in bundle.members]
                times = KernelTimes(self, segment.groups, tasks, bundles, stamps)
                timeline.tell(timeline.Span("kernels", begin, timeline.now(), threading.get_ident(), times))
            if segment.after is not None and segment.node is not None:
                name = "host_call" if segment.node.op.name == "host_call" else "check"
                with timeline.span(name, source=segment.node.source):
                    segment.after()

    def _enter_addresses(
        self, slots: list[list[tuple[int, int]]], buffers: Sequence[Buffer], last: list[int], places: Iterable[int]
    ) -> None:
        """Enter the addresses of the buffers at `places` where they are not the `last` ones."""
        for place in places:
            address = buffers[place].address
            if address != last[place]:
                last[place] = address
                for slot, offset in slots[place]:
                    self._slots[slot] = address + offset

    def _describe(self) -> None:
        for launch in self._launches():
            nodes = [n for n in launch.writes if isinstance(n, Node)]
            written = ", ".join(f"{n.op.name} {n.dtype.name}{list(n.shape)} at {n.source}" for n in nodes)
            if isinstance(launch, Turn):
                print(f"step of {launch.loop.length}" if launch.begins else "end of step", file=sys.stderr)
            else:
                print(f"{launch.code.name}: {launch.tasks} tasks -> {written}", file=sys.stderr)


class _Words:
    """The words that launches are given, as they are entered: addresses, numbers, and the moving places of loops."""

    def __init__(self, memory_of: dict[Node | Workspace, tuple[str, int]], address: Callable[[Any], int | None]):
        self._memory_of, self._address = memory_of, address
        self._words: list[int] = []
        #: for each input and output the words that its address goes to, and how far behind it they point
        self.patches: dict[tuple[str, int], list[tuple[int, int]]] = {}
        #: words that are the addresses of other words
        self._pointers: list[tuple[int, int]] = []
        self._moving: list[tuple[int, Place]] = []
        self._homes: dict[Node | Workspace | Place, int] = {}
        self._loops: dict[Loop, list[tuple[int, int, Place]]] = {}
        self._blocks: dict[Loop, int] = {}

    def enter_all(self, arguments: Sequence[Argument]) -> int:
        """Where the arguments, one after the other, begin."""
        start = len(self._words)
        for argument in arguments:
            self._enter(argument)
        return start

    def _enter(self, argument: Argument) -> None:
        slot, offset = len(self._words), 0
        self._words.append(argument if isinstance(argument, int) else 0)
        if isinstance(argument, int):
            return
        if isinstance(argument, Place) and argument.loop is not None:
            self._moving.append((slot, argument))
            return
        if isinstance(argument, View):
            offset = argument.offset * argument.base.dtype.itemsize
        while isinstance(argument, Place):
            offset, argument = offset + argument.offset, argument.home
        owner = owner_of(argument)
        address = self._address(owner)
        if address is None:
            self.patches.setdefault(self._memory_of[owner], []).append((slot, offset))  # type: ignore[index]
        else:
            self._words[slot] = address + offset

    def enter_homes(self) -> None:
        """Words for the homes of all moving places."""
        for slot, place in self._moving:  # grows while it is gone through: a home may move itself
            home = place.home
            if home not in self._homes:
                self._homes[home] = len(self._words)
                self._enter(home)
            self._loops.setdefault(place.loop, []).append((slot, self._homes[home], place))  # type: ignore[arg-type]

    def of_loop(self, loop: Loop) -> int:
        """Where the words of a loop stand, see `schedule.move_on`."""
        if loop not in self._blocks:
            self._blocks[loop] = len(self._words)
            moving = self._loops.get(loop, [])
            self._words += [0, loop.length, 0, len(moving)]
            for slot, home, place in moving:
                self._pointers += [(len(self._words), slot), (len(self._words) + 1, home)]
                self._words += [0, 0, place.offset, place.stride, place.mask]
        return self._blocks[loop]

    def go_back(self, loop: Loop, entries: int) -> None:
        """Note how many entries of the table the end of the loop lies behind its beginning."""
        self._words[self.of_loop(loop) + 2] = entries * LAUNCH_BYTES

    def array(self) -> np.ndarray:
        """All words, in memory where they stay."""
        words = np.array(self._words or [0], np.int64)
        for place, pointed in self._pointers:
            words[place] = words.ctypes.data + pointed * 8
        return words


def _under_reshapes(node: Node) -> Node:
    while node.op.name == "reshape":
        node = node.inputs[0]
    return node


def _checks_first(groups: list[Group], given: set[Node]) -> tuple[list[Group], list[Group]]:
    """Checks of what the program is given, which come first so that a wrong index stops it at once; and the rest."""

    def early(group: Group) -> bool:
        if group.kind != CHECK:
            return False
        stack = list(next(iter(group.members)).inputs)
        while stack:
            node = stack.pop()
            if node in given:
                continue
            if node.op.kind not in ("movement", "elementwise", "leaf") or node.op.name == "concatenate":
                return False
            stack.extend(node.inputs)
        return True

    return [g for g in groups if early(g)], [g for g in groups if not early(g)]
