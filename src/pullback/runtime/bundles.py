"""Bundles: launches that do not depend on one another, handed over to the threads together.

Threads meet after each bundle, not after each launch, and a launch of one task runs beside others. `arrange` puts the
launches of a program into bundles, each as early as what it reads allows, and results that nobody waits for (as an
optimizer's updates) together as late as they stood. No memory is shared between what a bundle's launches use, and no
more is alive at once than in the order given: a launch that would need more stays where it was.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..codegen.launch import Launch, Turn, Workspace, owner_of
from ..compiler.groups import elements
from ..errors import VerifyError
from ..graph.node import Node
from .schedule import Bundle

#: what has memory of its own
Thing = Node | Workspace

#: how many bundles a launch is brought forward at most: what it makes lies in the caches for so long
_FARTHEST = 32
#: bytes of results from which on a launch only joins the bundle before it, since they would leave the caches
_LARGE = 1 << 18
#: operations (see `Launch.work`) that handing a bundle over must save; if it saves no more, the caller does it alone
_HAND_OVER = 25_000
#: operations in whose time a byte comes from another core's cache
_MOVE = 2


class Touched(NamedTuple):
    """The things whose memory a launch reads, and whose it writes or may use before they are final."""

    reads: frozenset[Thing]
    writes: frozenset[Thing]

    @property
    def all(self) -> frozenset[Thing]:
        """Both."""
        return self.reads | self.writes


def touched(launch: Launch, over: Mapping[Thing, Collection[Thing]]) -> Touched:
    """What `launch` touches. What it writes, it writes also to the memory of the things `over` which that lies."""
    pointed = {owner for argument in launch.arguments if (owner := owner_of(argument)) is not None}
    writes = {*launch.writes, *pointed.difference(launch.reads)}
    writes.update(*(over.get(thing, ()) for thing in writes))
    return Touched(frozenset(launch.reads), frozenset(writes))


class Stretch(NamedTuple):
    """Launches in an order in which they may run, and what is read and written from Python when they are done."""

    launches: Sequence[Launch]
    after: Iterable[Thing]


def arrange(
    stretches: Sequence[Stretch], nbytes: Callable[[Thing], int], over: Mapping[Thing, Collection[Thing]]
) -> list[list[list[Launch]]]:
    """The bundles of each stretch.

    `nbytes(thing)` is the size of what has its memory from the arena, 0 of all else; `over` see `touched`.
    """
    return _Arranger(stretches, nbytes, over).run()


def numbered(bundles: Iterable[Sequence[Launch]], cache: int) -> list[Bundle]:
    """The bundles of a stretch as they are run, in numbers of its launches in their new order; `cache` see `saved`."""
    found = []
    start = 0
    for bundle in bundles:
        longest = sorted(range(len(bundle)), key=lambda i: -_task_work(bundle[i]))
        lengths = [_task_work(bundle[i]) for i in longest]
        found.append(Bundle([start + i for i in longest], saved(bundle, cache) > _HAND_OVER, lengths))
        start += len(bundle)
    return found


def saved(bundle: Sequence[Launch], cache: int) -> float:
    """Operations that a second thread saves the first: half of them, and never the longest task, less what moving their
    data costs, if all of it fits in the `cache` (bytes) of the core that has it. Larger data comes from afar anyway.
    """
    if any(launch.tasks > 1 and not launch.work for launch in bundle):
        return math.inf  # a launch of a group whose work is noted at another
    work = sum(launch.work for launch in bundle)
    moved = sum(map(bytes_of, {thing for launch in bundle for thing in touched(launch, {}).all}))
    return min(work / 2, work - max(map(_task_work, bundle))) - (_MOVE * moved if moved <= cache else 0)


def bytes_of(thing: Thing) -> int:
    """The size of a node's value, or a workspace."""
    return thing.nbytes if isinstance(thing, Workspace) else elements(thing) * thing.dtype.itemsize


def _task_work(launch: Launch) -> float:
    return launch.work / max(launch.tasks, 1)


class _Arranger:
    def __init__(
        self, stretches: Sequence[Stretch], nbytes: Callable[[Thing], int], over: Mapping[Thing, Collection[Thing]]
    ):
        self.stretches, self.nbytes = stretches, functools.cache(nbytes)
        self.touched = [[touched(launch, over) for launch in stretch.launches] for stretch in stretches]
        self.bundles: list[list[Launch]] = []
        #: bytes of temporaries that each bundle finds, makes or leaves
        self.alive: list[int] = []
        #: the first bundle that may still be joined
        self.floor = 0
        self.written: dict[Thing, int] = {}
        self.read: dict[Thing, int] = {}
        #: the number of the last launch, or place between two, that each temporary lives to
        self.last: dict[Thing, int] = {}
        self.born: set[Thing] = set()
        self.most = self._most_alive()

    def _most_alive(self) -> int:
        """Bytes that are alive at once at most in the order given; notes when each temporary is needed last."""
        first: dict[Thing, int] = {}
        step = 0
        for stretch, all_touched in zip(self.stretches, self.touched, strict=True):
            for things in (*(each.all for each in all_touched), stretch.after):
                for thing in things:
                    if self.nbytes(thing):
                        first.setdefault(thing, step)
                        self.last[thing] = step
                step += 1
        changes, found = [0] * (step + 1), [0] * (step + 1)
        for thing, begin in first.items():
            changes[begin] += self.nbytes(thing)
            changes[self.last[thing] + 1] -= self.nbytes(thing)
            if begin < self.last[thing]:
                found[begin + 1] += self.nbytes(thing)
                found[self.last[thing] + 1] -= self.nbytes(thing)
        #: bytes that each step finds of what was made before, in the order given
        self.found = np.cumsum(found).tolist()
        return max(np.cumsum(changes).tolist(), default=0)

    def run(self) -> list[list[list[Launch]]]:
        found = []
        step = 0
        for stretch, all_touched in zip(self.stretches, self.touched, strict=True):
            begin = self.floor = len(self.bundles)
            wanted = _waited_for(all_touched)
            for launch, each, waits in zip(stretch.launches, all_touched, wanted, strict=True):
                if isinstance(launch, Turn):
                    self.floor = len(self.bundles)
                    self._put(launch, each, len(self.bundles), step)
                    self.floor = len(self.bundles)
                else:
                    self._put(launch, each, self._place(each, waits, step), step)
                step += 1
            self.born.update(thing for thing in stretch.after if self.nbytes(thing))
            step += 1
            found.append(self.bundles[begin:])
        return found

    def _place(self, each: Touched, waits: bool, step: int) -> int:
        """The bundle that a launch goes to; one more than there are where it goes to a new one."""
        end = len(self.bundles)
        after = [self.written.get(thing, -1) + 1 for thing in each.all]
        earliest = max([self.floor, *after, *(self.read.get(thing, -1) + 1 for thing in each.writes)])
        made = sum(self.nbytes(thing) for thing in each.all - self.born)
        start = max(earliest, end - _FARTHEST) if waits and made < _LARGE else max(earliest, end - 1)
        for place in range(start, end):
            if max(self.alive[place:]) + made <= self.most:
                return place
        return end

    def _put(self, launch: Launch, each: Touched, place: int, step: int) -> None:
        if place == len(self.bundles):
            self.bundles.append([])
            self.alive.append(self.found[step])
        self.bundles[place].append(launch)
        for thing in each.reads:
            self.read[thing] = max(place, self.read.get(thing, 0))
        for thing in each.writes:
            self.written[thing] = max(place, self.written.get(thing, 0))
        for thing in each.all:
            size = self.nbytes(thing)
            if not size:
                continue
            if thing not in self.born:
                self.born.add(thing)
                for later in range(place, len(self.bundles)):
                    self.alive[later] += size
            if self.last[thing] == step:
                self.born.discard(thing)
                ends = max(self.read.get(thing, 0), self.written.get(thing, 0))
                for later in range(ends + 1, len(self.bundles)):
                    self.alive[later] -= size


def _waited_for(all_touched: Sequence[Touched]) -> list[bool]:
    """For each launch of a stretch whether a later one reads what it writes."""
    later: set[Thing] = set()
    found = []
    for each in reversed(all_touched):
        found.append(not later.isdisjoint(each.writes))
        later |= each.all
    return found[::-1]


# ---- the check, which knows nothing of how bundles and places were chosen


class Extent(NamedTuple):
    """Bytes from `start` to `stop`, exclusive, of the memory called `where`."""

    where: Hashable
    start: int
    stop: int

    def overlaps(self, other: Extent) -> bool:
        """Whether some byte belongs to both."""
        return self.where == other.where and self.start < other.stop and other.start < self.stop


class Between(NamedTuple):
    """What Python does after so many bundles: a host call, what it is given, and what it gives."""

    bundles: int
    reads: Sequence[Thing]
    writes: Sequence[Thing]


def verify_bundles(
    before: Sequence[Launch], after: Sequence[Sequence[Launch]], extent: Callable[[Thing], Extent],
    calls: Sequence[Between] = (),
) -> None:  # fmt: skip
    """Raise VerifyError unless the bundles `after` compute what the launches compute in the order `before`.

    `extent(thing)` is where a thing lies; what lies over an input must be said to lie in the memory of that input.
    `calls` are host calls, in order.
    Held are: each launch runs once; of two launches, one of which writes what the other touches, the first comes in a
    bundle before the second's, as in the order given; no launch of a bundle writes memory that another one touches; and
    nothing is written over before it is read for the last time.
    """
    bundle_of = {launch: number for number, bundle in enumerate(after) for launch in bundle}
    if len(bundle_of) != sum(map(len, after)) or bundle_of.keys() != set(before):
        raise VerifyError("after bundling: launches are missing, or run more than once")
    events: dict[Thing, list[tuple[Launch, bool]]] = {}
    for launch in before:
        reads, writes = touched(launch, {})
        for thing in reads | writes:
            events.setdefault(thing, []).append((launch, thing in writes))
    for thing, users in events.items():
        for place, (second, overwrites) in enumerate(users):
            for first, wrote in users[:place]:
                if (overwrites or wrote) and bundle_of[first] >= bundle_of[second]:
                    raise VerifyError(
                        f"after bundling: {first.code.name} and {second.code.name} both touch {thing!r}, which one of "
                        f"them writes, but stand in the bundles {bundle_of[first]} and {bundle_of[second]}"
                    )
    _verify_memory(after, extent, calls)


def _verify_memory(
    bundles: Sequence[Sequence[Launch]], extent: Callable[[Thing], Extent], calls: Sequence[Between]
) -> None:
    """Play the bundles through: does each thing still lie where it was written, or given, when somebody reads it?"""
    all_touched = {launch: touched(launch, {}) for bundle in bundles for launch in bundle}
    made = {thing for each in all_touched.values() for thing in each.writes}
    made |= {thing for call in calls for thing in call.writes}
    read = {thing for each in all_touched.values() for thing in each.reads}
    read |= {thing for call in calls for thing in call.reads}
    memory = _Played({thing: extent(thing) for thing in read - made}, extent)
    for number in range(len(bundles) + 1):
        for call in calls:
            if call.bundles == number:
                memory.read("a host call", call.reads)
                memory.write("a host call", call.writes)
        for launch in bundles[number] if number < len(bundles) else ():
            memory.read(launch.code.name, all_touched[launch].reads)
            for other in bundles[number]:
                if other is not launch:
                    _verify_apart(number, launch, all_touched[launch].writes, other, all_touched[other].all, extent)
        for launch in bundles[number] if number < len(bundles) else ():
            memory.write(launch.code.name, all_touched[launch].writes)


class _Played:
    """What lies where, so far."""

    def __init__(self, valid: dict[Thing, Extent], extent: Callable[[Thing], Extent]):
        self.valid, self.extent = valid, extent
        #: who has overwritten a thing
        self.lost: dict[Thing, str] = {}

    def read(self, who: str, things: Iterable[Thing]) -> None:
        for thing in things:
            if thing in self.lost:
                raise VerifyError(f"after bundling: {who} reads {thing!r}, which {self.lost[thing]} has overwritten")

    def write(self, who: str, things: Iterable[Thing]) -> None:
        places = {thing: self.extent(thing) for thing in things}
        for written, own in places.items():
            for thing in [one for one, place in self.valid.items() if one is not written and own.overlaps(place)]:
                self.lost[thing] = who
                del self.valid[thing]
        for thing, place in places.items():
            self.valid[thing] = place
            self.lost.pop(thing, None)


def _verify_apart(
    number: int, launch: Launch, writes: Iterable[Thing], other: Launch, touches: Iterable[Thing],
    extent: Callable[[Thing], Extent],
) -> None:  # fmt: skip
    for thing in writes:
        for touched_ in touches:
            if extent(thing).overlaps(extent(touched_)):
                raise VerifyError(
                    f"after bundling: {launch.code.name} writes {thing!r} over {touched_!r}, which {other.code.name} "
                    f"touches in the same bundle ({number})"
                )
