"""Which of the ways to record a step keeps to its budget in the least time.

What the user allows to be changed (`allow=` of `pullback.compile`) is done only where the step does not keep to its
budget by itself. Each change is in a recording of its own, whose program says what it takes and how much it computes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace

from ..errors import TraceError
from ..memory import LEAST, WouldHelp
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


def choose(record: Callable[[Way], Replay], budget: Budget) -> Replay:
    """The recording that meets the budget with the least work; where none does, the one of least memory."""
    found: list[Replay] = []
    vain: set[str] = set()
    for changes in _changes(budget):
        if vain & changes:
            continue
        recording = _record(record, budget, changes)
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
_MANY_NODES = 6000
#: parts of a batch where no number of them is enough
_SOME = 8


def would_help(record: Callable[[Way], Replay], budget: Budget, limit: int, refused: Replay) -> WouldHelp:
    """The peaks that changes would bring a recording to that has been refused, since it takes more than `limit`."""
    if len(refused.program.nodes()) > _FEW_NODES:
        return WouldHelp()
    least = None
    if budget.nbytes is None:
        budget = replace(budget, nbytes=LEAST)
        found = _record(record, budget, _made(refused)).program.memory.peak
        least, allowed = found if found < refused.program.memory.peak else None, {}
    else:
        allowed = _peaks_allowed(record, budget, refused)
    return WouldHelp(allowed, _in_parts(record, replace(budget, nbytes=limit), refused), least)


def _made(refused: Replay) -> frozenset[str]:
    """The allowed changes that were made."""
    return frozenset(refused.allowed.keys() & {EARLY_UPDATE, BLOCKS})


def _peaks_allowed(record: Callable[[Way], Replay], budget: Budget, refused: Replay) -> dict[str, int]:
    """The peaks, in bytes, that further changes would bring a recording to that does not keep to its budget."""
    found: dict[str, int] = {}
    for name in sorted({EARLY_UPDATE, BLOCKS, BFLOAT16} - budget.allow):
        changes = _made(refused) | ({name} & {EARLY_UPDATE, BLOCKS})
        try:
            # without a budget nothing is searched for: what changes nothing is known at once
            if name == BLOCKS and BLOCKS not in _record(record, replace(budget, nbytes=None), changes).allowed:
                continue
            peak = _record(record, replace(budget, allow=budget.allow | {name}), changes).program.memory.peak
        except TraceError:  # this step cannot be changed so
            continue
        if peak < refused.program.memory.peak:
            found[name] = peak
    return found


def _in_parts(record: Callable[[Way], Replay], budget: Budget, refused: Replay) -> tuple[int, int] | None:
    """Into how many parts `accumulate` could divide the batch to bring a step into its budget, and the peak then; None
    where it would not lower the peak, or that cannot be told.
    """
    program, limit, changes = refused.program, int(budget.nbytes or 0), _made(refused)

    def in_parts(parts: int, fitted: bool = False) -> Replay:
        return record(Way(budget, parts, fitted, changes, divided=True))

    try:
        best = in_parts(2)
        most = min(best.divisible, _MANY_NODES // len(program.nodes()))
        for parts in _enough(program.unbudgeted_bytes or program.memory.peak, best.program.memory.peak, limit, most):
            if meets(best, limit):
                break
            best = min(best, in_parts(parts), key=lambda recording: recording.program.memory.peak)
        if not meets(best, limit):
            best = in_parts(best.parts, fitted=True)
    except Untold:
        return None
    peak = best.program.memory.peak
    return (best.parts, peak) if best.parts > 1 and peak < program.memory.peak else None


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
