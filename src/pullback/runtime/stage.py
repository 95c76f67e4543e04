"""A stage: the launches between two of Python's doings, as tables that the native driver runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .bundles import saved
from .jit import host_target
from .layout import Segment
from .schedule import Bundle, Entry, Schedule
from .stamps import StampedSchedule


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


__all__ = ["Stage"]
