"""Which of the ways to record a step keeps to its budget in the least time.

What the user allows to be changed (`allow=` of `pullback.compile`) is done only where the step does not keep to its
budget by itself. Each change is in a recording of its own, whose program says what it takes and how much it computes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

from ..errors import TraceError
from ..memory import LEAST, WouldHelp
from ..ops.primitive import MODE
from ..runtime.fit import BFLOAT16, BLOCKS, EARLY_UPDATE, Budget
from .divided import Untold
from .parts import choose_parts, cost, meets
from .replay import Replay


@dataclass(frozen=True)
class Way:
    """How a step is recorded: with what budget, in how many parts `accumulate` divides what is left to it, whether it
    is made to keep to the budget by computing values again, and which allowed changes are made.
    """

    budget: Budget
    parts: int = 1
    fitted: bool = True
    changes: frozenset[str] = frozenset()
    #: whether what comes before backward() is done for parts of the batch, as `accumulate` would (see `Divided`)
    divided: bool = False
    #: whether the function is called in a region of autocast to bfloat16
    lowered: bool = False


def choose(record: Callable[[Way], Replay], budget: Budget) -> Replay:
    """The recording that meets the budget with the least work; where none does, the one of least memory."""
    return _best(lambda changes: _record(record, budget, changes), budget)


def _best(made: Callable[[frozenset[str]], Replay], budget: Budget) -> Replay:
    """The same of what is made with each set of changes that the budget allows."""
    found: list[Replay] = []
    vain: set[str] = set()
    for changes in _changes(budget):
        if vain & changes:
            continue
        recording = made(changes)
        if len(changes) == 1 and not recording.allowed:
            vain |= changes
            continue
        found.append(recording)
        if meets(recording, budget.nbytes) and recording.program.is_plain:
            break
    return found[0] if len(found) == 1 else min(found, key=lambda recording: cost(recording, budget.nbytes))


def _record(record: Callable[[Way], Replay], budget: Budget, changes: Collection[str]) -> Replay:
    """The recording with these changes, in as many parts as the budget asks for where that is left open."""
    made = frozenset(changes)
    return choose_parts(lambda parts, fitted: record(Way(budget, parts, fitted, made)), budget.nbytes)


#: nodes of a step up to which it is recorded anew to tell what would bring it into its budget
_FEW_NODES = 4000
#: nodes of all parts of a batch together up to which more of them are looked at
_MANY_NODES = 10_000
#: parts of a batch where no number of them is enough
_SOME = 8
#: seconds after which no further change is looked at
_SECONDS = 20.0


def would_help(record: Callable[[Way], Replay], budget: Budget, limit: int, refused: Replay) -> WouldHelp:
    """The peaks that changes would bring a recording to that has been refused, since it takes more than `limit`."""
    if refused.program.size() > _FEW_NODES:
        return WouldHelp(too_many=refused.program.size())
    if budget.nbytes is None:
        least = _record(record, replace(budget, nbytes=LEAST), _made(refused)).program.memory.peak
        proposals = _Proposals(record, budget, limit, refused)
        lowered, parts = proposals.lowered(), proposals.in_parts()
        least_of_all = least if least < refused.program.memory.peak else None
        return WouldHelp({}, parts, least_of_all, lowered=lowered, is_cut=proposals.is_cut)
    return _Proposals(record, budget, limit, refused).all()


class _Proposals:
    """What changes would bring a step to that was refused, where it is to keep to `limit`. Each is recorded once."""

    def __init__(self, record: Callable[[Way], Replay], budget: Budget, limit: int, refused: Replay):
        self.budget, self.limit, self.refused = budget, limit, refused
        self.peak = refused.program.memory.peak
        self._until, self._longest = perf_counter() + _SECONDS, 0.0
        #: whether something was not looked at for want of time
        self.is_cut = False

        def timed(way: Way) -> Replay:
            start = perf_counter()
            try:
                return record(way)
            finally:
                self._longest = max(self._longest, perf_counter() - start)

        self.record = functools.cache(timed)

    def _has_time(self, recordings: int) -> bool:
        """Whether there is time for so many recordings more, each as long as the longest so far."""
        in_time = perf_counter() + recordings * self._longest <= self._until
        self.is_cut |= not in_time
        return in_time

    def all(self) -> WouldHelp:
        """Each change alone, and where none is enough the best that was found of several together."""
        allowed, lowered, parts, together = self.allowed(), self.lowered(), self.in_parts(), None
        alone = [*allowed.values(), *([parts[1]] if parts else [])]
        is_enough = lowered is not None and lowered <= self.limit
        if len(alone) > 1 and min(alone) > self.limit and not is_enough:
            names = sorted(allowed, key=allowed.__getitem__)
            together = self.together(names, parts[0] if parts else 1, min(alone))
        return WouldHelp(allowed, parts, together=together, lowered=lowered, is_cut=self.is_cut)

    def allowed(self) -> dict[str, int]:
        """The peaks that further changes would bring it to which `allow=` names."""
        found: dict[str, int] = {}
        for name in (EARLY_UPDATE, BLOCKS, BFLOAT16):
            if name in self.budget.allow or not self._has_time(0):
                continue
            changes = _made(self.refused) | ({name} & {EARLY_UPDATE, BLOCKS})
            try:
                # without a budget nothing is searched for: what changes nothing is known at once
                plain = replace(self.budget, nbytes=None)
                if name == BLOCKS and BLOCKS not in _record(self.record, plain, changes).allowed:
                    continue
                peak = _peak(_record(self.record, self._allowing([name]), changes))
            except TraceError:  # this step cannot be changed so
                continue
            if peak < self.peak:
                found[name] = peak
        return found

    def lowered(self) -> int | None:
        """The peak of the step in a region of autocast to bfloat16; None where that is not lower, where it is in a
        region already, or its code raises there.
        """
        if MODE.autocast.dtype is not None or not self._has_time(1):
            return None
        try:
            peak = _peak(choose(lambda way: self.record(replace(way, lowered=True)), self.budget))
        except (TraceError, Untold):
            return None
        return peak if peak < self.peak else None

    def _allowing(self, names: Iterable[str]) -> Budget:
        return replace(self.budget, allow=self.budget.allow | frozenset(names))

    def in_parts(self) -> tuple[int, int] | None:
        """Into how many parts `accumulate` could divide the batch to bring the step to its limit, and the peak then;
        None where it would not lower the peak, or that cannot be told.
        """
        try:
            best = self._unfitted()
            if not meets(best, self.limit) and self._has_time(0):
                best = self._in(best.parts)
        except Untold:
            return None
        return (best.parts, _peak(best)) if best.parts > 1 and _peak(best) < self.peak else None

    def _unfitted(self) -> Replay:
        """The fewest parts that keep to the limit with nothing computed again; those of least memory where none do."""
        own, unbudgeted = self.refused.program.size(), self.refused.program.unbudgeted_bytes
        best = self._in(2, fitted=False)
        each = max(best.program.size() - own, 1)
        most = min(best.divisible, 1 + (_MANY_NODES - own) // each)
        for parts in _enough(unbudgeted or self.peak, _peak(best), self.limit, most):
            if meets(best, self.limit):
                break
            best = min(best, self._in(parts, fitted=False), key=_peak)
        return best

    def _in(self, parts: int, fitted: bool = True, names: Sequence[str] = ()) -> Replay:
        """The batch in parts, as a budget of the limit would have it done with these changes allowed."""
        budget, made = replace(self._allowing(names), nbytes=self.limit), _made(self.refused)

        def with_changes(changes: frozenset[str]) -> Replay:
            if names and changes == made and BFLOAT16 not in names:  # what is allowed and not done changes no peak
                return self._in(parts)
            return self.record(Way(budget, parts, fitted, changes, divided=True))

        return _best(with_changes, budget) if names else with_changes(made)

    def together(self, names: Sequence[str], parts: int, alone: int) -> tuple[Sequence[str], int, int] | None:
        """Which changes to allow along with how many parts, and the peak then; None where that is not below `alone`.
        `names` are those that help alone, the one that helps most first.
        """
        best: tuple[Sequence[str], int, int] | None = None
        for some in (names[:1], names) if len(names) > 1 else (names,):
            if len(some) + (parts > 1) < 2 or not self._has_time(self._new_ones(some, parts)):
                continue
            try:
                peak = _peak(self._in(parts, names=some) if parts > 1 else choose(self.record, self._allowing(some)))
            except (TraceError, Untold):
                continue
            if peak < (alone if best is None else best[-1]):
                best = some, parts, peak
            if peak <= self.limit:
                break
        return best

    @staticmethod
    def _new_ones(names: Sequence[str], parts: int) -> int:
        """How many recordings it takes to tell what these changes do together."""
        recordings: int = 2 ** len({EARLY_UPDATE, BLOCKS}.intersection(names))
        return recordings - 1 if parts > 1 and BFLOAT16 not in names else recordings


def _peak(recording: Replay) -> int:
    return recording.program.memory.peak


def _made(refused: Replay) -> frozenset[str]:
    """The allowed changes that were made."""
    return frozenset(refused.allowed.keys() & {EARLY_UPDATE, BLOCKS})


def _enough(whole: int, halves: int, limit: int, most: int) -> list[int]:
    """Numbers of parts to try, at `most` that many: those with which a step would keep to the limit that holds so much
    with one part and with two, if what is held for examples goes by the number of these; and half as many again. Where
    no number is enough, what is held for examples is little beside the rest in _SOME of them.
    """
    of_examples = 2 * (whole - halves)
    left = limit - (whole - of_examples)
    parts = _SOME if left <= 0 else -(-of_examples // left)
    return [n for n in dict.fromkeys((min(parts, most), min(parts + parts // 2, most))) if n > 2]


def _changes(budget: Budget) -> Iterator[frozenset[str]]:
    """The sets of changes to try, what costs nothing first."""
    yield frozenset()
    allowed = [name for name in (EARLY_UPDATE, BLOCKS) if name in budget.allow]
    yield from (frozenset({name}) for name in allowed)
    if len(allowed) > 1:
        yield frozenset(allowed)


__all__ = ["Way", "choose", "would_help"]
