"""How many parts a step divides its batch into, so that it keeps to its budget in the least time.

More parts hold fewer activations, at the price of adding to the gradients and reading the parameters once more each;
computing values again holds fewer too, at the price of computing them. Both prices are in a recording's program, and
the compiler's cost model compares them. `docs/decisions/micro-batches.md` has the measurements.
"""

from __future__ import annotations

from collections.abc import Callable

from ..runtime.fit import LEAST
from .replay import Replay

#: to what part of a peak twice as many parts have to bring it to be worth their time
WORTH_MORE = 31 / 32

#: records the step in so many parts; made to keep to the budget by computing values again, or not
Record = Callable[[int, bool], Replay]


def choose_parts(record: Record, budget: int | str | None) -> Replay:
    """The recording that meets the budget with the least work; where none does, the one of least memory.

    Chosen between the undivided batch with values computed again and the fewest parts that need nothing computed again;
    where neither is enough, values are computed again in the number of parts that holds least.
    """
    first = record(1, False)
    if budget is None or not first.divisible or meets(first, budget):
        return first
    divided = _fewest(record, first, budget)
    candidates = [record(1, True), divided]
    if not any(meets(recording, budget) for recording in candidates) and divided.parts > 1:
        candidates.append(record(divided.parts, True))
    return min(candidates, key=lambda recording: cost(recording, budget))


def _fewest(record: Record, first: Replay, budget: int | str) -> Replay:
    """The fewest parts that meet the budget by themselves, or those of least memory where none do.

    The number is doubled until it is enough or memory grows, and then looked for between the last two by bisection.
    Where the least is wanted, the last is that which twice as many parts lower by little.
    """
    best, parts = first, 1
    worth = WORTH_MORE if budget == LEAST else 1.0
    while parts < first.divisible and not meets(best, budget):
        parts = min(2 * parts, first.divisible)
        found = record(parts, False)
        if found.program.memory.peak >= worth * best.program.memory.peak:
            return best
        low, best = best.parts, found
    while meets(best, budget) and best.parts - low > 1:
        found = record((low + best.parts) // 2, False)
        low, best = (low, found) if meets(found, budget) else (found.parts, best)
    return best


def meets(recording: Replay, budget: int | str | None) -> bool:
    """Whether a recording keeps to a budget; none does to LEAST."""
    return budget is None or (budget != LEAST and recording.program.memory.peak <= int(budget))


def cost(recording: Replay, budget: int | str | None) -> tuple[bool, float]:
    """What is to be least: the work of recordings that meet the budget; the memory of others, which come after them."""
    if meets(recording, budget):
        return False, recording.program.work
    return True, recording.program.memory.peak
