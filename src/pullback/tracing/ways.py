"""Which of the ways to record a step keeps to its budget in the least time.

What the user allows to be changed (`allow=` of `pullback.compile`) is done only where the step does not keep to its
budget by itself. Each change is in a recording of its own, whose program says what it takes and how much it computes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace

from ..errors import TraceError
from ..runtime.fit import BFLOAT16, BLOCKS, EARLY_UPDATE, Budget
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


def peaks_allowed(record: Callable[[Way], Replay], budget: Budget, refused: Replay) -> dict[str, int]:
    """The peaks, in bytes, that further changes would bring a recording to that does not keep to its budget."""
    found: dict[str, int] = {}
    if len(refused.program.nodes()) > _FEW_NODES:
        return found
    for name in sorted({EARLY_UPDATE, BLOCKS, BFLOAT16} - budget.allow):
        changes = (refused.allowed.keys() | {name}) & {EARLY_UPDATE, BLOCKS}
        try:
            peak = _record(record, replace(budget, allow=budget.allow | {name}), changes).program.memory.peak
        except TraceError:  # this step cannot be changed so
            continue
        if peak < refused.program.memory.peak:
            found[name] = peak
    return found


def _changes(budget: Budget) -> Iterator[frozenset[str]]:
    """The sets of changes to try, what costs nothing first."""
    yield frozenset()
    allowed = [name for name in (EARLY_UPDATE, BLOCKS) if name in budget.allow]
    yield from (frozenset({name}) for name in allowed)
    if len(allowed) > 1:
        yield frozenset(allowed)


__all__ = ["Way", "choose", "peaks_allowed"]
