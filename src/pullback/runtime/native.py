"""The native backend: a program of compiled kernels.

The launches of all kernels stand in tables that the native driver runs. Temporaries have fixed places in one arena that
belongs to the program; inputs and outputs are the caller's, and their addresses are entered where they change.
"""

from __future__ import annotations

import ctypes
import math
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from .. import debug, forks, timeline
from ..codegen.launch import Launch, Loop, Turn, Workspace
from ..codegen.text import Code
from ..compiler.costs import work
from ..compiler.groups import Fusion, Group, elements
from ..compiler.pipeline import lower
from ..errors import TraceError
from ..graph.node import Graph, Node
from ..graph.types import to_carrier, to_storage
from ..ops.indexing import out_of_range
from ..ops.primitive import user_source
from .arena import SHARED_FROM, Arena
from .buffers import Buffer
from .bundles import Thing, saved
from .fit import BFLOAT16, Budget, Fitter
from .jit import Ahead, host_target, load
from .layout import Layout, Segment
from .program import KernelTimes, Moved, Program, bytes_of, covered
from .schedule import Bundle, Entry
from .stage import Stage
from .threads import get_num_threads
from .trial import AGAIN, Calls, Trial
from .words import Words

#: operations (see `Launch.work`) that threads must save to be thought of; up to how many it is tried whether they do,
#: since a run pays some microseconds for them on one machine and some tens on another
_SMALL_WORK, _TRIED_WORK = 0, 20_000_000
#: what handing a bundle over must save on machines where that is dear, in the same operations
_DEAR_HAND_OVER = 400_000


def _asked_inside() -> TraceError:
    return TraceError(
        f"a value is asked for inside of a host call of the program that computes it (at {user_source()}): pass what "
        "the host function needs to it as tensors"
    )


#: what a check notes: the place of the first fault and one more (0: none), and the index there
_Finding = ctypes.c_int64 * 2
#: where a program is that has not been run
_NOWHERE = Arena()


class Native(Program):
    """The graph compiled to kernels."""

    def _prepare(self, graph: Graph, budget: Budget, ready: bool) -> None:
        forks.register(self)
        self._calls: Calls | None = None
        #: the arena that the tables are made for, and the address that stands in them; one that is nobody else's, where
        #: it does not take turns with others
        self._arena, self._address = _NOWHERE, 0
        self._own: Arena | None = None
        #: the way in which the program is run, and for how many runs still before the ways are tried again
        self._way, self._left = 0, 0
        _, fusion = lower(graph)
        if ready:
            with Ahead() as ahead:
                self._fit(fusion, budget, ahead.start)
                self._link(ahead)
        else:
            self._fit(fusion, budget, lambda _: None)
        if "kernels" in debug.get("debug"):
            self._describe()

    def _fit(self, fusion: Fusion, budget: Budget, started: Callable[[Code], None]) -> None:
        """Lay the program out within the budget."""
        self._size = len(fusion.graph.nodes)
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

    # ---- the arena

    @property
    def is_home(self) -> bool:
        arena = self._arena
        return arena is self._own or (arena is not _NOWHERE and arena is self._home() and arena.tenant is self)

    def _home(self) -> Arena:
        """The arena that it would run in."""
        if self._own is None and (self.arenas is None or self.layout.arena_bytes < SHARED_FROM):
            self._own = Arena()
        return self._own or self.arenas.arena  # type: ignore[union-attr]

    def _can_share(self, arena: Arena) -> bool:
        """Whether it may take an arena: nobody is at work there, and what has to be moved out for it is less than
        memory of its own would be.
        """
        return arena is self._own or (not arena.is_running and arena.left() < self.layout.arena_bytes)

    def predecessor(self) -> Program | None:
        other = self._home().tenant
        return other if other is not self else None

    def come_home(self, alone: bool) -> None:
        if self._calls is None:
            self._link(None)
        arena = self._home()
        if arena.tenant is not self and not self._can_share(arena):
            arena = self._own = Arena()
        arena.take(self, self.layout.arena_bytes, alone)
        self._arena = arena
        self._enter_arena()

    def _enter_arena(self) -> None:
        """Enter the address of the arena where it goes."""
        self._address = self._arena.memory.ctypes.data
        self._slots[self._arena_slots] = self._address + self._arena_offsets
        #: where checks note what they find. Not as arrays: these would keep the arena's memory when it has another
        self._found = {found: self._address + self.layout.memory_of[found][1] for found in self.layout.findings}

    def missing_bytes(self) -> int:
        arena, nbytes = self._home(), self.layout.arena_bytes
        if arena.tenant is self or self._can_share(arena):
            return max(nbytes - arena.memory.nbytes, 0)
        return nbytes

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

    def size(self) -> int:
        return self._size

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
        extents = [(address, address + bytes_of([node])) for address, node in places]
        return covered([(self._address, self._address + self.layout.arena_bytes), *extents])

    def residence(self, place: int) -> Buffer:
        assert self._arena is not _NOWHERE, "a program is at home before it is asked where its results are to lie"
        _, offset = self.layout.memory_of[self.layout.results[place]]
        node = self.outputs[place]
        return self._arena.lend(offset, elements(node) * node.dtype.itemsize, node.dtype)

    def vacate(self, free: Collection[Buffer], alone: bool) -> None:
        unseen = set(map(id, free))
        seen = [buffer for buffer in self._arena.lent() if id(buffer) not in unseen]
        if alone:
            for buffer in seen:
                buffer.move()
        elif seen:  # somebody may be reading this memory at this moment: it is left to him
            self.come_home(alone=False)

    def array_of(self, thing: Thing, count: int, dtype: np.dtype | type) -> np.ndarray:
        """The memory of a node or workspace as an array, during a run."""
        where, place = self.layout.memory_of[thing]
        if where == "arena":
            nbytes = count * np.dtype(dtype).itemsize
            return self._arena.memory[place : place + nbytes].view(dtype)
        return (self._given_inputs if where == "input" else self._given_outputs)[place].array

    # ---- what Python does between launches

    def _after(self, segment: Segment) -> Callable[[], None] | None:
        if segment.node is None:
            return None
        if segment.found is not None:
            return self._raiser(segment.node, segment.found)
        return self._caller(segment.node, segment.reads)

    def _raiser(self, node: Node, of: Workspace) -> Callable[[], None]:
        def look() -> None:
            position, index = _Finding.from_address(self._found[of])
            if position:
                raise out_of_range(node, position - 1, index)

        return look

    def _caller(self, node: Node, operands: Sequence[Node]) -> Callable[[], None]:
        def call() -> None:
            arrays = [
                to_carrier(self.array_of(base, elements(base), base.dtype.storage), base.dtype).reshape(operand.shape)
                for base, operand in zip(operands, node.inputs, strict=True)
            ]
            with self._arena.calling():
                value = node.op.evaluate(node, *arrays)
            self.array_of(node, elements(node), node.dtype.storage)[...] = to_storage(value, node.dtype).reshape(-1)

        return call

    # ---- tables

    def _link(self, ahead: Ahead | None) -> None:
        """Load the kernels and fill the tables, save for addresses."""
        launches = self.layout.launches()
        addresses = load([launch.code for launch in launches], ahead)
        threads = self.threads()
        words = Words(self.layout.memory_of)
        places = iter([words.enter_all(launch.arguments) for launch in launches])
        words.enter_homes()
        self.stages = []
        for segment in self.layout.segments:
            alone = [Bundle([number]) for number in range(len(segment.launches))]
            bundles = alone if threads == 1 else segment.bundles
            self.stages.append(Stage(segment, self._table(segment, bundles, places, words, addresses), bundles))
        self._slots = words.array()
        base = self._slots.ctypes.data
        slots, offsets = zip(*words.within_arena, strict=True) if words.within_arena else ((), ())
        self._arena_slots, self._arena_offsets = np.array(slots, np.int64), np.array(offsets, np.int64)
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
        self._lock, self._is_running = threading.RLock(), False

    def run(self, inputs: Sequence[Buffer], outputs: Sequence[Buffer], moved: Moved | None = None) -> None:
        with self._lock:
            if self._is_running:
                raise _asked_inside()
            self._is_running = True
            try:
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
                self._finish(outputs)
            finally:
                self._end()

    def _try(self) -> None:
        """Run in the way whose turn it is, and from now on in the fastest one where it is known."""
        assert self._trial is not None
        fastest = self._trial.run()
        if fastest is not None:
            self._way, self._calls, self._trial, self._left = fastest, self._ways[fastest], None, AGAIN
            for stage in self.stages:
                stage.choose(fastest)

    def prepare(self) -> None:
        """Load the kernels, where that was left to the first run."""
        with self._lock:
            if self._calls is None:
                self._link(None)

    @contextmanager
    def running(self, inputs: Sequence[Buffer], outputs: Sequence[Buffer]) -> Iterator[None]:
        """Have whoever enters run the stages himself: see `probe`."""
        with self._lock:
            if self._is_running:
                raise _asked_inside()
            self._is_running = True
            try:
                self._begin(inputs, outputs, None)
                yield
                self._finish(outputs)
            finally:
                self._end()

    def _begin(self, inputs: Sequence[Buffer], outputs: Sequence[Buffer], moved: Moved | None) -> None:
        if self._arena is not self._own and not self.is_home:
            self.come_home(alone=False)
        self._given_inputs, self._given_outputs = inputs, outputs
        moved_inputs, moved_outputs = moved or (range(len(inputs)), range(len(outputs)))
        if moved_inputs:
            self._enter_addresses(self._input_slots, inputs, self._last_inputs, moved_inputs)
        if moved_outputs:
            self._enter_addresses(self._output_slots, outputs, self._last_outputs, moved_outputs)
        for address in self._found.values():
            ctypes.memset(address, 0, 8)
        self._arena.is_running = True

    def _finish(self, outputs: Sequence[Buffer]) -> None:
        for place, node in self.layout.aside:
            outputs[place].array[...] = self.array_of(node, elements(node), node.dtype.storage)

    def _end(self) -> None:
        """Hold nothing of a run, however it ended: who holds old values is counted."""
        self._is_running = self._arena.is_running = False
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


__all__ = ["Native"]
