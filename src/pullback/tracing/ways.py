"""Which of the ways to record a step keeps to its budget in the least time.

What the user allows to be changed (`allow=` of `pullback.compile`) is done only where the step does not keep to its
budget by itself. Each change is in a recording of its own, whose program says what it takes and how much it computes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from time import thread_time

from ..errors import TraceError
from ..memory import LEAST, WouldHelp
from ..ops.primitive import MODE
from ..runtime.fit import BFLOAT16, BLOCKS, EARLY_UPDATE, Budget
from .divided import Untold
from .parts import WORTH_MORE, choose_parts, cost, meets
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
#: seconds of computing after which no further change is looked at
_SECONDS = 20.0


def would_help(record: Callable[[Way], Replay], budget: Budget, limit: int, refused: Replay) -> WouldHelp:
    """The peaks that changes would bring a recording to that has been refused, since it takes more than `limit`."""
    if refused.program.memory.inputs > limit:
        return WouldHelp(fixed=refused.program.memory.inputs)
    if refused.program.size() > _FEW_NODES:
        return WouldHelp(too_many=refused.program.size())
    if budget.nbytes is None:
        least = _record(record, replace(budget, nbytes=LEAST), _made(refused)).program.memory.peak
        proposals = _Proposals(record, budget, limit, refused)
        policy, lowered = proposals.without_policy(), proposals.lowered()
        parts = proposals.in_parts(proposals._told("micro-batches", proposals._unfitted))
        return WouldHelp(
            {}, parts, least if least < refused.program.memory.peak else None, None, lowered, proposals.is_cut,
            without_policy=policy, untold=proposals.untold,
        )  # fmt: skip
    return _Proposals(record, budget, limit, refused).all()


class _Proposals:
    """What changes would bring a step to that was refused, where it is to keep to `limit`. Each is recorded once."""

    def __init__(self, record: Callable[[Way], Replay], budget: Budget, limit: int, refused: Replay):
        self.budget, self.limit, self.refused = budget, limit, refused
        self.peak, self.made = refused.program.memory.peak, _made(refused)
        self._record, self._recorded = record, dict[Way, Replay]()
        self._until = thread_time() + _SECONDS
        #: seconds that recordings took in which values are computed again, and their operations
        self._spent, self._done = 0.0, 0
        #: whether something was not looked at for want of time
        self.is_cut = False
        #: of what it cannot be told what it would bring, and why not
        self.untold: dict[str, str] = {}
        #: with each change what the undivided batch takes with nothing computed again
        self._wholes: dict[str, int] = {}

    def record(self, way: Way) -> Replay:
        """The recording of this way."""
        if way not in self._recorded:
            start = thread_time()
            self._recorded[way] = found = self._record(way)
            if way.fitted and found.program.recomputed:
                self._spent, self._done = self._spent + thread_time() - start, self._done + found.program.size()
        return self._recorded[way]

    def _has_time(self, operations: int) -> bool:
        """Whether there is time to record so many operations more, with values computed again, by what was so far."""
        in_time = thread_time() + operations * self._spent / max(self._done, 1) <= self._until
        self.is_cut |= not in_time
        return in_time

    def all(self) -> WouldHelp:
        """Each change alone, and where none is enough the best that was found of several together, which are looked at
        before parts in which values are computed again: of all these take longest.
        """
        policy, allowed, lowered, together = self.without_policy(), self.allowed(), self.lowered(), None
        parts = self._told("micro-batches", self._unfitted)
        is_met = parts is not None and meets(parts, self.limit)
        found = [peak for peak in (policy, lowered, *allowed.values()) if peak is not None]
        if allowed and not is_met and min(found) > self.limit:
            together = self.together(sorted(allowed, key=allowed.__getitem__))
        if together is not None and together[-1] >= min(allowed.values()):
            together = None
        divided = self.in_parts(parts)
        if together is not None and divided is not None and together[-1] >= divided[1]:
            together = None
        return WouldHelp(
            allowed, divided, None, together, lowered, self.is_cut, without_policy=policy, untold=self.untold
        )

    def without_policy(self) -> int | None:
        """The peak without what the user says of single values; None where that is not lower."""
        if self.budget.policy is None:
            return None
        peak = _peak(choose(self.record, replace(self.budget, policy=None)))
        return peak if peak < self.peak else None

    def allowed(self) -> dict[str, int]:
        """The peaks that further changes would bring it to which `allow=` names."""
        found: dict[str, int] = {}
        for name in (EARLY_UPDATE, BLOCKS, BFLOAT16):
            if name in self.budget.allow or not self._has_time(0):
                continue
            changes = self.made | ({name} & {EARLY_UPDATE, BLOCKS})
            try:
                # without a budget nothing is searched for: what changes nothing is known at once
                plain = replace(self.budget, nbytes=None)
                if name == BLOCKS and BLOCKS not in _record(self.record, plain, changes).allowed:
                    continue
                changed = _record(self.record, self._allowing([name]), changes)
            except TraceError:  # this step cannot be changed so
                continue
            if _peak(changed) < self.peak:
                found[name] = _peak(changed)
                self._wholes[name] = changed.program.unbudgeted_bytes or _peak(changed)
        return found

    def lowered(self) -> int | None:
        """The peak of the step in a region of autocast to bfloat16; None where that is not lower, where it is in a
        region already, or its code raises there.
        """
        if MODE.autocast.dtype is not None or not self._has_time(self.refused.program.size()):
            return None
        found = self._told(
            "mixed precision", lambda: choose(lambda way: self.record(replace(way, lowered=True)), self.budget)
        )
        return _peak(found) if found is not None and _peak(found) < self.peak else None

    def _told(self, what: str, made: Callable[[], Replay | None]) -> Replay | None:
        """What is made, or None with the reason noted why that cannot be told."""
        try:
            return made()
        except Untold as untold:
            self.untold[what] = untold.why
        except TraceError as error:
            self.untold[what] = str(error)
        return None

    def _allowing(self, names: Iterable[str]) -> Budget:
        return replace(self.budget, allow=self.budget.allow | frozenset(names))

    def in_parts(self, best: Replay | None) -> tuple[int, int] | None:
        """Into how many parts `accumulate` could divide the batch to bring the step to its limit, and the peak then,
        where those with nothing computed again are known; None where it would not lower the peak.
        """
        if best is not None and not meets(best, self.limit):
            is_told = self._is_known(best.parts) or self._has_time(best.program.size())
            best = self._in(best.parts) if is_told else None  # what comes of them is with values computed again
        return (best.parts, _peak(best)) if best is not None and _peak(best) < self.peak else None

    def _unfitted(self, names: Collection[str] = ()) -> Replay:
        """The fewest parts that keep to the limit with these changes allowed and nothing computed again; where none do,
        those of least memory, but for a little that more parts save.
        """
        whole = min((self._wholes[name] for name in names), default=self.refused.program.unbudgeted_bytes or self.peak)
        # what an update that is made early saves, only values that are computed again bring down with parts
        changes = self.made | ({BLOCKS} & set(names))
        budget = replace(self._allowing(changes & set(names)), nbytes=self.limit)

        def in_parts(parts: int) -> Replay:
            return self.record(Way(budget, parts, False, changes, divided=True))

        own, best = self.refused.program.size(), in_parts(2)
        each = max(best.program.size() - own, 1)
        most = min(best.divisible, 1 + (_MANY_NODES - own) // each)
        for parts in _enough(whole, _peak(best), self.limit, most):
            if meets(best, self.limit):
                break
            found = in_parts(parts)
            if meets(found, self.limit) or _peak(found) < WORTH_MORE * _peak(best):
                best = found
        return best

    def _fitted(self, parts: int, names: Collection[str] = (), changes: Collection[str] = ()) -> Way:
        """The batch in parts, with values computed again and these changes made of those that are allowed."""
        budget = replace(self._allowing(names), nbytes=self.limit)
        return Way(budget, parts, True, self.made | frozenset(changes), divided=True)

    def _is_known(self, parts: int) -> bool:
        return self._fitted(parts) in self._recorded

    def _in(self, parts: int, names: Sequence[str] = ()) -> Replay:
        """The batch in parts, as a budget of the limit would have it done with these changes allowed."""

        def with_changes(changes: frozenset[str]) -> Replay:
            # what is allowed and not done changes no peak
            asked = () if changes <= self.made and BFLOAT16 not in names else names
            return self.record(self._fitted(parts, asked, changes))

        return _best(with_changes, self._allowing(names)) if names else with_changes(self.made)

    def together(self, names: Sequence[str]) -> tuple[Sequence[str], int, int] | None:
        """Which changes to allow along with how many parts, and the peak then. `names` are those that help alone, the
        one that helps most first.
        """
        best: tuple[Sequence[str], int, int] | None = None
        for some in (names[:1], names) if len(names) > 1 else (names,):
            found = self._told("several together", lambda some=some: self._together(some))  # type: ignore[misc]
            if found is not None and (best is None or _peak(found) < best[-1]):
                best = some, found.parts, _peak(found)
            if best is not None and best[-1] <= self.limit:
                break
        return best

    def _together(self, names: Sequence[str]) -> Replay | None:
        """The recording with these changes allowed, in parts where these are told; None where there is no time, or it
        is none of several.
        """
        made = 2 ** len({EARLY_UPDATE, BLOCKS}.intersection(names))
        if "micro-batches" in self.untold:
            several = len(names) > 1 and self._has_time(made * self.refused.program.size())
            return choose(self.record, self._allowing(names)) if several else None
        if not self._has_time(0):
            return None
        divided = self._unfitted(names)
        known = BFLOAT16 not in names and self._is_known(divided.parts)
        in_time = self._has_time((made - known) * divided.program.size())
        return self._in(divided.parts, names) if in_time else None


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
