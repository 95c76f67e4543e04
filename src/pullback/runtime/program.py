"""A program: a graph made ready to be run again and again.

The launches of all kernels stand in tables that the native driver runs. Temporaries have fixed places in one arena that
belongs to the program; inputs and outputs are the caller's, and their addresses are entered where they change.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from .. import debug, forks, timeline
from ..codegen.launch import Launch, Loop, Turn
from ..codegen.text import Code
from ..compiler.costs import work
from ..compiler.groups import LOOP, Fusion, Group, elements, is_real
from ..compiler.pipeline import lower
from ..graph.interpreter import interpret
from ..graph.node import Graph, Node
from ..graph.types import to_carrier, to_storage
from ..ops.indexing import out_of_range
from .buffers import Buffer, allocate
from .bundles import Thing, saved
from .fit import BFLOAT16, Budget, Fitter
from .jit import Ahead, host_target, load
from .layout import Layout, Segment
from .schedule import Bundle, Entry, Schedule
from .stamps import StampedSchedule
from .threads import get_num_threads
from .trial import AGAIN, Calls, Trial
from .words import Words

#: the places of inputs and of outputs that may lie elsewhere than at the last run
Moved = tuple[Collection[int], Collection[int]]

#: operations (see `Launch.work`) that threads must save to be thought of; up to how many it is tried whether they do,
#: since a run pays some microseconds for them on one machine and some tens on another
_SMALL_WORK, _TRIED_WORK = 0, 20_000_000
#: what handing a bundle over must save on machines where that is dear, in the same operations
_DEAR_HAND_OVER = 400_000

UNLIMITED = Budget()


@dataclass(frozen=True)
class Memory:
    """Bytes that a run of a program needs: its arena of temporaries, its inputs, and its outputs."""

    arena: int
    inputs: int
    outputs: int

    #: of the outputs those that are written over an input
    overwriting: int = 0

    @property
    def total(self) -> int:
        """All three; an output that is written over an input is counted in both."""
        return self.arena + self.inputs + self.outputs

    @property
    def peak(self) -> int:
        """All that a run holds at once."""
        return self.total - self.overwriting


class Program:
    """The values of a graph's outputs, computed from those of its inputs."""

    def __new__(cls, *_: Any, **__: Any) -> Program:
        """A program on the backend that is switched on."""
        chosen = _Interpreted if debug.get("backend") == "reference" else Native
        return object.__new__(chosen if cls is Program else cls)

    def __init__(
        self, graph: Graph, inputs: Sequence[Node], aliases: dict[int, int] | None = None,
        resident: Collection[int] = (), budget: Budget = UNLIMITED, ready: bool = True,
        most: int | None = None,
    ):  # fmt: skip
        """`inputs` are the graph's input nodes in the order of their values in `run`.

        `aliases` maps outputs to the inputs whose memory they may be given to be written into. `budget` is what a run
        may take, which the program keeps to as far as it can: see `Memory.peak`. One that is not made `ready` allocates
        and compiles nothing before its first run; an arena of more than `most` bytes is not allocated before either, so
        that it can be refused. Outputs at the places `resident` may lie in the program's own memory
        until its next run: see `residence`.
        """
        self.inputs = list(inputs)
        self.aliases, self.resident = aliases or {}, frozenset(resident)
        self.outputs = list(graph.outputs)
        #: nodes whose values are in memory when they have been computed
        self.in_memory: set[Node] = set()

    #: what a run would need at its peak with everything kept; 0 where nothing is ever given up
    unbudgeted_bytes = 0

    def run(self, inputs: Sequence[Buffer], outputs: Sequence[Buffer], moved: Moved | None = None) -> None:
        """Compute from `inputs` (in the order of the graph's input nodes) into `outputs`.

        A caller that knows which of them may not be where they were at the last run names their places in `moved`.
        """
        raise NotImplementedError

    def residence(self, place: int) -> Buffer:
        """Where the output at `place`, a resident one, is to be written: the same memory at each run, which the values
        of the run before must have left (see `vacate`).
        """
        return Buffer.empty(elements(self.outputs[place]), self.outputs[place].dtype)

    def vacate(self, buffers: Sequence[Buffer], alone: bool) -> None:
        """Have whoever holds what was last written to these residences keep it: the next run writes elsewhere.

        `alone` tells that nobody can be reading it at this moment.
        """

    @property
    def memory(self) -> Memory:
        """What a run needs, in bytes."""
        overwriting = _nbytes([self.outputs[place] for place in self.aliases])
        own = [node for place, node in enumerate(self.outputs) if place not in self.in_arena()]
        return Memory(self._arena_bytes(), _nbytes(self.inputs), _nbytes(own), overwriting)

    @property
    def recomputed(self) -> int:
        """Floating-point operations that are done a second time to save memory."""
        return 0

    @property
    def is_plain(self) -> bool:
        """Whether nothing is computed again and nothing rounded to save memory."""
        return not self.copies() and not self.rounded()

    def rounded(self) -> Collection[Node]:
        """The activations that wait for the backward pass in bfloat16."""
        return ()

    @property
    def work(self) -> float:
        """About how long a run takes, in the operations of the compiler's cost model (see `costs.work`)."""
        return 0.0

    def kernels(self) -> list[tuple[Launch, Group]]:
        """Every launch, with the group that it was emitted for; none on the reference."""
        return []

    def nodes(self) -> Sequence[Node]:
        """What a run computes, what it computes again included."""
        raise NotImplementedError

    def copies(self) -> Mapping[Node, Node]:
        """The nodes that a run computes again, with their originals."""
        return {}

    def threads(self) -> int:
        """The threads that a run is shared by."""
        return 1

    def held_bytes(self) -> int:
        """The bytes that the last run held: each byte of the arena, of inputs and of outputs once, wherever they lay. 0
        before the first run.
        """
        raise NotImplementedError

    def _arena_bytes(self) -> int:
        return 0

    def in_arena(self) -> Collection[int]:
        """The outputs that lie in the arena."""
        return ()


def _nbytes(nodes: Sequence[Node]) -> int:
    return sum(elements(node) * node.dtype.itemsize for node in nodes)


def covered(extents: Iterable[tuple[int, int]]) -> int:
    """The bytes that lie in any of the extents (first address, address behind the last)."""
    total = reached = 0
    for start, end in sorted(extents):
        total += max(end - max(start, reached), 0)
        reached = max(reached, end)
    return total


class _Interpreted(Program):
    """The reference: every node by its record's meaning."""

    def __init__(
        self, graph: Graph, inputs: Sequence[Node], aliases: dict[int, int] | None = None,
        resident: Collection[int] = (), budget: Budget = UNLIMITED, ready: bool = True,
        most: int | None = None,
    ):  # fmt: skip
        super().__init__(graph, inputs, aliases, resident, budget, ready, most)
        self.graph = graph
        self.places = {node: place for place, node in enumerate(self.inputs)}
        self.in_memory = set(graph.nodes)
        self._groups: dict[Node, Group] = {}
        self._held = 0

    def run(self, inputs: Sequence[Buffer], outputs: Sequence[Buffer], moved: Moved | None = None) -> None:
        def value_of(node: Node) -> np.ndarray:
            return to_carrier(inputs[self.places[node]].array, node.dtype).reshape(node.shape)

        if timeline.PROFILES:
            values = self._timed(value_of)
        else:
            values = interpret(self.graph, value_of)
        self._held = covered([(b.address, b.address + b.array.nbytes) for b in (*inputs, *outputs)])
        stored = [to_storage(value, node.dtype).reshape(-1) for node, value in zip(self.outputs, values, strict=True)]
        for value, buffer in zip([np.array(s) for s in stored], outputs, strict=True):
            buffer.array[...] = value

    def nodes(self) -> Sequence[Node]:
        return self.graph.nodes

    def held_bytes(self) -> int:
        return self._held

    def _timed(self, value_of: Callable[[Node], np.ndarray]) -> list[np.ndarray]:
        """The values of the outputs; tells when each node was computed, as if it were a kernel of its own."""
        begin, ends = timeline.now(), []
        values = interpret(self.graph, value_of, lambda *_: ends.append(timeline.now()))
        timed = [(n, s, e) for n, s, e in zip(self.graph.nodes, [begin, *ends], ends, strict=False) if is_real(n)]
        groups = [self._groups.setdefault(n, Group(LOOP, elements(n), None, {n: ""}, [n])) for n, _, _ in timed]
        stamps = np.array([[[s, e, e - s, 1]] for _, s, e in timed], np.int64).reshape(-1, 1, 4)
        times = KernelTimes(self, groups, [1] * len(timed), range(len(timed)), stamps)
        timeline.tell(timeline.Span("kernels", begin, timeline.now(), threading.get_ident(), times))
        return values


class KernelTimes(NamedTuple):
    """One run of some of a program's launches: for each the group it computes (None for the turns of a loop), its
    tasks, the number of the bundle in which it ran, and the stamps of each thread (see `StampedSchedule.run`).
    """

    program: Program
    groups: Sequence[Group | None]
    tasks: Sequence[int]
    bundles: Sequence[int]
    stamps: np.ndarray


@dataclass
class Stage:
    """A segment of the layout, ready to run: its launches as a table, and what Python does after them."""

    segment: Segment
    #: (kernel, arguments, tasks) of each launch
    table: list[Entry]
    bundles: list[Bundle]
    #: for each way in which the program may be run; none where there are no launches
    schedules: list[Schedule] = field(default_factory=list)
    shares: list[list[Bundle]] = field(default_factory=list)
    #: the way that was found to be the fastest
    way: int = 0
    after: Callable[[], None] | None = None
    #: the same with time stamps, made when it is first profiled
    stamped: StampedSchedule | None = None

    @property
    def schedule(self) -> Schedule | None:
        """The one of the way that is taken."""
        return self.schedules[self.way] if self.schedules else None

    def choose(self, way: int) -> None:
        """Take a way from now on, in profiles too."""
        if self.schedules and way != self.way:
            self.way, self.bundles, self.stamped = way, self.shares[way], None

    def make_schedules(self, threads: int, hand_overs: Sequence[float]) -> None:
        """A schedule for each of the ways; `hand_overs` say what handing a bundle over must save in it."""
        for least in hand_overs if self.table else ():
            bundles = self.bundles if len(hand_overs) == 1 else [self._shared(bundle, least) for bundle in self.bundles]
            sharing = threads if least < math.inf else 1
            self.schedules.append(Schedule(self.table, sharing, self.segment.scratch_bytes(), bundles))
            self.shares.append(bundles)

    def _shared(self, bundle: Bundle, least: float) -> Bundle:
        """The bundle, shared only where that saves more than `least`."""
        gain = saved(self.segment.members(bundle), host_target().l2) if bundle.sharing else 0.0
        return bundle._replace(sharing=gain > least)  # infinite where it is not known: shared in all ways but one

    def calls(self, way: int) -> list[Callable[[], None]]:
        """What is called to run it in one of the ways."""
        run = [self.schedules[way].run] if self.schedules else []
        return [*run, self.after] if self.after is not None else run

    def make_stamped(self) -> StampedSchedule:
        """The schedule that is run while a profile is taken."""
        assert self.schedule is not None
        if self.stamped is None:
            scratch = self.segment.scratch_bytes()
            self.stamped = StampedSchedule(self.table, self.schedule.threads, scratch, self.bundles)
        return self.stamped


class Native(Program):
    """The graph compiled to kernels."""

    def __init__(
        self, graph: Graph, inputs: Sequence[Node], aliases: dict[int, int] | None = None,
        resident: Collection[int] = (), budget: Budget = UNLIMITED, ready: bool = True,
        most: int | None = None,
    ):  # fmt: skip
        super().__init__(graph, inputs, aliases, resident, budget, ready, most)
        forks.register(self)
        self._calls: Calls | None = None
        #: the way in which the program is run, and for how many runs still before the ways are tried again
        self._way, self._left = 0, 0
        _, fusion = lower(graph)
        if ready:
            with Ahead() as ahead:
                self._fit(fusion, budget, ahead.start)
                if most is None or self.layout.arena_bytes <= most:
                    self._load(ahead)
        else:
            self._fit(fusion, budget, lambda _: None)
        if "kernels" in debug.get("debug"):
            self._describe()

    def _fit(self, fusion: Fusion, budget: Budget, started: Callable[[Code], None]) -> None:
        """Lay the program out within the budget."""
        emitted: dict[Group, list[Launch]] = {}

        def lay_out(fused: Fusion) -> Layout:
            verify = bool(debug.get("verify"))
            return Layout(fused, self.inputs, self.aliases, self.resident, started, verify, emitted)

        fitter = Fitter(lay_out(fusion), lay_out, budget.policy, BFLOAT16 in budget.allow)
        self.layout = fitter.first
        self.unbudgeted_bytes = self.memory.peak
        beside = self.unbudgeted_bytes - self.layout.arena_bytes
        limit = budget.nbytes if budget.nbytes is None or isinstance(budget.nbytes, str) else budget.nbytes - beside
        #: what is laid out, and what of it is computed again
        self.fitted = fitter.fit(limit)
        self.layout = self.fitted.layout
        self.in_memory = self.layout.in_memory

    def _load(self, ahead: Ahead | None = None) -> None:
        """Allocate the arena, and load the kernels."""
        self._arena = allocate(self.layout.arena_bytes)
        self._link(ahead)

    @property
    def recomputed(self) -> int:
        return self.fitted.recomputed

    @property
    def work(self) -> float:
        return work(self.layout.fusion.groups, self.in_memory)

    def kernels(self) -> list[tuple[Launch, Group]]:
        """The launches, each with the group that it was emitted for; the turns of loops are left out."""
        pairs = [pair for s in self.layout.segments for pair in zip(s.launches, s.groups, strict=True)]
        return [(launch, group) for launch, group in pairs if group is not None]

    def _arena_bytes(self) -> int:
        return self.layout.arena_bytes

    def in_arena(self) -> Collection[int]:
        return self.resident

    def nodes(self) -> Sequence[Node]:
        return self.layout.fusion.graph.nodes

    def copies(self) -> Mapping[Node, Node]:
        return self.fitted.copies

    def rounded(self) -> Collection[Node]:
        return self.fitted.rounded

    def threads(self) -> int:
        threads = get_num_threads()  # asked for in any case, so that a wrong setting is found at once
        return 1 if self._saved() <= _SMALL_WORK else threads

    def held_bytes(self) -> int:
        if self._calls is None or not any((*self._last_inputs, *self._last_outputs, not self.inputs)):
            return 0
        places = [
            *zip(self._last_inputs, self.inputs, strict=True),
            *zip(self._last_outputs, self.outputs, strict=True),
        ]
        arena = self._arena.ctypes.data
        extents = [(address, address + _nbytes([node])) for address, node in places]
        return covered([(arena, arena + self._arena.nbytes), *extents])

    def residence(self, place: int) -> Buffer:
        if self._calls is None:
            self._load()
        _, offset = self.layout.memory_of[self.layout.results[place]]
        node = self.outputs[place]
        return Buffer.within(self._arena[offset : offset + elements(node) * node.dtype.itemsize], node.dtype)

    def vacate(self, buffers: Sequence[Buffer], alone: bool) -> None:
        lent = [buffer for buffer in buffers if buffer.lent]
        if alone:
            for buffer in lent:
                buffer.move()
        elif lent:  # somebody may be reading this memory at this moment: it is left to him
            with self._lock:
                self._load()
            for buffer in lent:
                buffer.lent = False

    def _address(self, thing: Thing) -> int | None:
        where, place = self.layout.memory_of[thing]
        return self._arena.ctypes.data + place if where == "arena" else None

    def array_of(self, thing: Thing, count: int, dtype: np.dtype | type) -> np.ndarray:
        """The memory of a node or workspace as an array, during a run."""
        where, place = self.layout.memory_of[thing]
        if where == "arena":
            nbytes = count * np.dtype(dtype).itemsize
            return self._arena[place : place + nbytes].view(dtype)
        return (self._given_inputs if where == "input" else self._given_outputs)[place].array

    # ---- what Python does between launches

    def _after(self, segment: Segment) -> Callable[[], None] | None:
        if segment.node is None:
            return None
        if segment.found is not None:
            return self._raiser(segment.node, self._found[segment.found])
        return self._caller(segment.node, segment.reads)

    @staticmethod
    def _raiser(node: Node, found: np.ndarray) -> Callable[[], None]:
        def look() -> None:
            position = found.item(0)
            if position:
                raise out_of_range(node, position - 1, found.item(1))

        return look

    def _caller(self, node: Node, operands: Sequence[Node]) -> Callable[[], None]:
        def call() -> None:
            arrays = [
                to_carrier(self.array_of(base, elements(base), base.dtype.storage), base.dtype).reshape(operand.shape)
                for base, operand in zip(operands, node.inputs, strict=True)
            ]
            value = node.op.evaluate(node, *arrays)
            self.array_of(node, elements(node), node.dtype.storage)[...] = to_storage(value, node.dtype).reshape(-1)

        return call

    # ---- tables

    def _link(self, ahead: Ahead | None) -> None:
        """Load the kernels and fill the tables, save for the addresses that change from run to run."""
        launches = self.layout.launches()
        addresses = load([launch.code for launch in launches], ahead)
        threads = self.threads()
        words = Words(self.layout.memory_of, self._address)
        places = iter([words.enter_all(launch.arguments) for launch in launches])
        words.enter_homes()
        self.stages = []
        for segment in self.layout.segments:
            alone = [Bundle([number]) for number in range(len(segment.launches))]
            bundles = alone if threads == 1 else segment.bundles
            self.stages.append(Stage(segment, self._table(segment, bundles, places, words, addresses), bundles))
        self._slots = words.array()
        base = self._slots.ctypes.data
        self._found = {found: self.array_of(found, 2, np.int64) for found in self.layout.findings}
        for stage in self.stages:
            stage.table = [(function, base + place * 8, tasks) for function, place, tasks in stage.table]
            stage.after = self._after(stage.segment)
            stage.make_schedules(threads, self._hand_overs(threads))
        self._input_slots = [words.patches.get(("input", i), []) for i in range(len(self.inputs))]
        self._output_slots = [words.patches.get(("output", i), []) for i in range(len(self.outputs))]
        self._last_inputs, self._last_outputs = [0] * len(self.inputs), [0] * len(self.outputs)
        count = len(self._hand_overs(threads))
        #: the ways in which the program can be run, to be tried
        self._ways = [[call for stage in self.stages for call in stage.calls(way)] for way in range(count)]
        known = min(self._way, count - 1)
        for stage in self.stages:
            stage.choose(known)
        self._calls = self._ways[known]
        self._trial = Trial(self._ways) if count > 1 and not self._left else None

    def _hand_overs(self, threads: int) -> list[float]:
        """What handing a bundle over must save, in each of the ways in which the program may be run."""
        if threads == 1:
            return [math.inf]
        if self._saved() > _TRIED_WORK:
            return [0.0]
        cache = host_target().l2
        gains = [saved(s.members(b), cache) for s in self.layout.segments for b in s.bundles if b.sharing]
        some = min(gains, default=0.0) <= _DEAR_HAND_OVER < max(gains, default=0.0)
        return [0.0, *[_DEAR_HAND_OVER] * some, math.inf]

    def _saved(self) -> float:
        """Operations that a second thread saves the caller in a run."""
        cache = host_target().l2
        shared = [s.members(bundle) for s in self.layout.segments for bundle in s.bundles if bundle.sharing]
        return sum(max(launch.times for launch in members) * saved(members, cache) for members in shared)

    @staticmethod
    def _table(
        segment: Segment, bundles: Sequence[Bundle], places: Iterator[int], words: Words, addresses: dict[str, int]
    ) -> list[Entry]:
        """(function, place of its arguments among the words, tasks) of each launch."""
        table: list[Entry] = []
        begun: dict[Loop, int] = {}
        bundle_of = {member: number for number, bundle in enumerate(bundles) for member in bundle.members}
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
            self._begin(inputs, outputs, moved)
            if timeline.PROFILES:
                self._run_stamped()
            elif self._trial is not None:
                self._try()
            else:
                for call in self._calls or ():
                    call()
                if self._left:
                    self._left -= 1
                    self._trial = None if self._left else Trial(self._ways)
            self._end(outputs)

    def _try(self) -> None:
        """Run in the way whose turn it is, and from now on in the fastest one where it is known."""
        assert self._trial is not None
        fastest = self._trial.run()
        if fastest is not None:
            self._way, self._calls, self._trial, self._left = fastest, self._ways[fastest], None, AGAIN
            for stage in self.stages:
                stage.choose(fastest)

    def prepare(self) -> None:
        """Load the kernels and allocate the arena, where that was left to the first run."""
        with self._lock:
            if self._calls is None:
                self._load()

    @contextmanager
    def running(self, inputs: Sequence[Buffer], outputs: Sequence[Buffer]) -> Iterator[None]:
        """Have whoever enters run the stages himself: see `probe`."""
        with self._lock:
            self._begin(inputs, outputs, None)
            try:
                yield
            finally:
                self._end(outputs)

    def _begin(self, inputs: Sequence[Buffer], outputs: Sequence[Buffer], moved: Moved | None) -> None:
        if self._calls is None:
            self._load()
        self._given_inputs, self._given_outputs = inputs, outputs
        moved_inputs, moved_outputs = moved or (range(len(inputs)), range(len(outputs)))
        if moved_inputs:
            self._enter_addresses(self._input_slots, inputs, self._last_inputs, moved_inputs)
        if moved_outputs:
            self._enter_addresses(self._output_slots, outputs, self._last_outputs, moved_outputs)
        for found in self._found.values():
            found[0] = 0

    def _end(self, outputs: Sequence[Buffer]) -> None:
        for place, node in self.layout.aside:
            outputs[place].array[...] = self.array_of(node, elements(node), node.dtype.storage)
        self._given_inputs = self._given_outputs = ()

    def _run_stamped(self) -> None:
        """Run with time stamps, and tell them."""
        for stage in self.stages:
            if stage.schedule is not None:
                schedule, tasks = stage.make_stamped(), [tasks for _, _, tasks in stage.table]
                begin = timeline.now()
                stamps = schedule.run()
                bundles = [number for number, bundle in enumerate(stage.bundles) for _ in bundle.members]
                times = KernelTimes(self, stage.segment.groups, tasks, bundles, stamps)
                timeline.tell(timeline.Span("kernels", begin, timeline.now(), threading.get_ident(), times))
            node = stage.segment.node
            if stage.after is not None and node is not None:
                name = "host_call" if node.op.name == "host_call" else "check"
                with timeline.span(name, source=node.source):
                    stage.after()

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
        for launch in self.layout.launches():
            nodes = [n for n in launch.writes if isinstance(n, Node)]
            written = ", ".join(f"{n.op.name} {n.dtype.name}{list(n.shape)} at {n.source}" for n in nodes)
            if isinstance(launch, Turn):
                print(f"step of {launch.loop.length}" if launch.begins else "end of step", file=sys.stderr)
            else:
                print(f"{launch.code.name}: {launch.tasks} tasks -> {written}", file=sys.stderr)
