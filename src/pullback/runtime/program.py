"""A program: a graph made ready to be run again and again. What all backends have in common."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..codegen.launch import Launch
from ..compiler.groups import Group, elements
from ..graph.node import Graph, Node
from .arena import Arenas
from .buffers import Buffer
from .fit import Budget

#: the places of inputs and of outputs that may lie elsewhere than at the last run
Moved = tuple[Collection[int], Collection[int]]

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

    def __init__(
        self, graph: Graph, inputs: Sequence[Node], aliases: dict[int, int] | None = None,
        resident: Collection[int] = (), budget: Budget = UNLIMITED, ready: bool = True,
        arenas: Arenas | None = None,
    ):  # fmt: skip
        """`inputs` are the graph's input nodes in the order of their values in `run`.

        `aliases` maps outputs to the inputs whose memory they may be given to be written into. `budget` is what a run
        may take, which the program keeps to as far as it can: see `Memory.peak`. One that is not made `ready` compiles
        nothing before its first run, and none allocates anything before. Outputs at the places `resident` may lie in
        the arena until the program's next run: see `residence`. Programs with the same `arenas` take turns in these.
        """
        self.inputs = list(inputs)
        self.aliases, self.resident = aliases or {}, frozenset(resident)
        self.arenas = arenas
        #: whose program it is, for the next in its arena
        self.user: Callable[[], Any] = lambda: None
        self.outputs = list(graph.outputs)
        #: nodes whose values are in memory when they have been computed
        self.in_memory: set[Node] = set()
        self._prepare(graph, budget, ready)

    def _prepare(self, graph: Graph, budget: Budget, ready: bool) -> None:
        """Make the graph ready to be run, within the budget."""
        raise NotImplementedError

    #: what a run would need at its peak with everything kept; 0 where nothing is ever given up
    unbudgeted_bytes = 0

    def run(self, inputs: Sequence[Buffer], outputs: Sequence[Buffer], moved: Moved | None = None) -> None:
        """Compute from `inputs` (in the order of the graph's input nodes) into `outputs`.

        A caller that knows which of them may not be where they were at the last run names their places in `moved`.
        """
        raise NotImplementedError

    @property
    def is_home(self) -> bool:
        """Whether its arena is as it left it. Where it is not, somebody has to `come_home` before a run."""
        return True

    def predecessor(self) -> Program | None:
        """The program that has the arena which this one would come into."""
        return None

    def come_home(self, alone: bool) -> None:
        """Take the arena. Whoever holds what another program has left in it keeps that, in memory of its own.

        `alone` tells that nobody can be reading it at this moment.
        """

    def residence(self, place: int) -> Buffer:
        """Where the output at `place`, a resident one, is to be written: the same memory at each run, which the values
        of the run before must have left (see `vacate`).
        """
        return Buffer.empty(elements(self.outputs[place]), self.outputs[place].dtype)

    def vacate(self, free: Collection[Buffer], alone: bool) -> None:
        """Have whoever holds what was last written to residences keep it, save for what is `free`: the next run writes
        elsewhere.

        `alone` tells that nobody can be reading it at this moment.
        """

    @property
    def memory(self) -> Memory:
        """What a run needs, in bytes."""
        overwriting = bytes_of([self.outputs[place] for place in self.aliases])
        own = [node for place, node in enumerate(self.outputs) if place not in self.in_arena()]
        return Memory(self._arena_bytes(), bytes_of(self.inputs), bytes_of(own), overwriting)

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

    def size(self) -> int:
        """How many nodes the step has where nothing is computed again."""
        return len(self.nodes())

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

    def missing_bytes(self) -> int:
        """The bytes that a run would have to allocate for its arena."""
        return 0

    def _arena_bytes(self) -> int:
        return 0

    def in_arena(self) -> Collection[int]:
        """The outputs that lie in the arena."""
        return ()


class KernelTimes(NamedTuple):
    """One run of some of a program's launches: for each the group it computes (None for the turns of a loop), its
    tasks, the number of the bundle in which it ran, and the stamps of each thread (see `StampedSchedule.run`).
    """

    program: Program
    groups: Sequence[Group | None]
    tasks: Sequence[int]
    bundles: Sequence[int]
    stamps: np.ndarray


def bytes_of(nodes: Sequence[Node]) -> int:
    """The bytes of the values of nodes."""
    return sum(elements(node) * node.dtype.itemsize for node in nodes)


def covered(extents: Iterable[tuple[int, int]]) -> int:
    """The bytes that lie in any of the extents (first address, address behind the last)."""
    total = reached = 0
    for start, end in sorted(extents):
        total += max(end - max(start, reached), 0)
        reached = max(reached, end)
    return total
