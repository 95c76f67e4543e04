"""Budgets of memory: how they are written, what a policy is asked, and the errors where one cannot be kept."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from ..compiler.rematerialize import KEEP, RECOMPUTE, Policy
from ..errors import MemoryBudgetError
from ..graph.node import Node, Source
from ..graph.types import DType
from ..ops.primitive import path_of
from ..runtime.bundles import bytes_of
from ..runtime.fit import BFLOAT16, BLOCKS, EARLY_UPDATE, LEAST, Budget
from .lives import ACTIVATIONS, INPUTS, OPTIMIZER, TEMPORARIES
from .plan import Plan
from .sizes import format_bytes, parse_bytes


@dataclass(frozen=True)
class Candidate:
    """A value that a policy is asked about: the operation that makes it, such as "matmul", the line and the name of
    what the user called, its shape, dtype and bytes, the numbers of the checkpointed calls that it was made in, the
    outermost first, and the path of the module whose forward was running, such as "blocks.3.norm1" ("" outside of
    modules).
    """

    operation: str
    source: Source | None
    shape: tuple[int, ...]
    dtype: DType
    nbytes: int
    checkpoint: tuple[int, ...] = ()
    module: str = ""


#: the state that optimizers in 8 bits keep as codes
_MOMENTS = ("exp_avg ", "exp_avg_sq ", "max_exp_avg_sq ", "momentum_buffer ")
#: the one that Adam has and the others have not
_SECOND_MOMENTS = ("exp_avg_sq ",)
_FLOATS = re.compile(r"float32\[([0-9, ]*)\]$")
#: what `allow=` may name, and what the user gives up by it
ALLOWED = {
    EARLY_UPDATE: "a parameter is updated as soon as its gradient is complete, whose memory is then freed; afterwards "
    ".grad is None",
    BLOCKS: "the output layer and its cross entropy go through blocks of rows, which adds up in another order",
    BFLOAT16: "float32 activations that wait for the backward pass may be rounded to bfloat16 there",
}


def budget_of(
    memory: int | float | str | None,
    policy: Callable[[Candidate], str | None] | None,
    allow: Collection[str] | None = None,
) -> Budget:
    """The budget that the arguments of `pullback.compile` ask for."""
    if policy is not None and not callable(policy):
        raise TypeError(
            f"policy must be a function of a Candidate that gives 'keep', 'recompute' or None, got {policy!r}"
        )
    nbytes = memory if memory is None or memory == LEAST else parse_bytes(memory)
    return Budget(nbytes, None if policy is None else _asked(policy), _allowed(allow, nbytes))


def _allowed(allow: Collection[str] | None, nbytes: int | str | None) -> frozenset[str]:
    if allow is None:
        return frozenset()
    if isinstance(allow, str) or not isinstance(allow, Collection):
        raise TypeError(f"allow must be a collection of names, such as [{allow!r}], got {allow!r}")
    unknown = [name for name in allow if name not in ALLOWED]
    if unknown:
        known = "".join(f"\n  - {name!r}: {what}" for name, what in ALLOWED.items())
        raise ValueError(f"allow has no {', '.join(map(repr, unknown))}; what may be allowed:{known}")
    if allow and nbytes is None:
        raise ValueError("allow= says what may be changed to keep to a budget, and there is none: give memory= too")
    return frozenset(allow)


def _asked(policy: Callable[[Candidate], str | None]) -> Policy:
    def of(node: Node) -> str | None:
        checkpoint = node.source.checkpoint if node.source is not None else ()
        word = policy(
            Candidate(
                node.op.name, node.source, node.shape, node.dtype, bytes_of(node), checkpoint, path_of(node.source)
            )
        )
        if word not in (KEEP, RECOMPUTE, None):
            raise ValueError(f"a policy gives 'keep', 'recompute' or None, got {word!r}")
        return word

    return of


def over_budget(plan: Plan, budget: int, allowed: Mapping[str, int]) -> MemoryBudgetError:
    """The error for a step whose least memory is above its budget. `allowed` are the peaks that changes would bring it
    to which the user does not allow.
    """
    changes = [
        f"allow=[{name!r}]: {peak} bytes ({format_bytes(peak)}), "
        f"{'in' if peak <= budget else f'{format_bytes(peak - budget)} above'} the budget; {ALLOWED[name]}"
        for name, peak in sorted(allowed.items(), key=lambda item: item[1])
    ]
    least = plan.peak_bytes
    return MemoryBudgetError(
        f"{plan.name} cannot be run in {format_bytes(budget)}: the fewest that were found are {format_bytes(least)} "
        f"({least} bytes).\n{plan}\n{_advice(plan, changes)}",
        least,
        plan.unbudgeted_bytes,
    )


def too_large(plan: Plan, needed: int, available: int) -> MemoryBudgetError:
    """The error for a step that there is not enough memory for."""
    kept = plan.breakdown[ACTIVATIONS]
    again = f'memory="least", or a number of bytes: of the activations, {format_bytes(kept)}, most are computed again'
    return MemoryBudgetError(
        f"{plan.name} needs {format_bytes(needed)} more than the program holds now, and {format_bytes(available)} are "
        f"free.\n{plan}\n{_advice(plan, [again])}",
        0,
        plan.unbudgeted_bytes,
    )


def _moments(plan: Plan, names: tuple[str, ...]) -> list[tuple[int, ...]]:
    """The shapes of the moments of these names that the plan holds in float32."""
    found = []
    for held in plan.buffers:
        if held.role == OPTIMIZER and held.what.startswith(names) and (shape := re.search(_FLOATS, held.what)):
            found.append(tuple(int(size) for size in shape[1].split(",") if size.strip()))
    return found


def _bytes_less_in_8_bits(plan: Plan) -> int:
    """What the moments would take less as codes of a byte and a float32 for each block of 256, as `optim.blockwise`
    keeps those of 4,096 elements and more."""
    sizes = [math.prod(shape) for shape in _moments(plan, _MOMENTS)]
    return sum(4 * size - size - 4 * -(-size // 256) for size in sizes if size >= 4096)


def _bytes_less_in_4_bits(plan: Plan) -> int:
    """What Adam's two moments would take less as `optim.four_bits` keeps those of more than 4,096 elements: a byte for
    both, and a float32 for each block of 128 and for each place of an axis, or of vectors for each block again."""
    saved = 0
    for shape in _moments(plan, _SECOND_MOMENTS):
        size = math.prod(shape)
        blocks = -(-size // 128)
        if size > 4096:
            saved += 8 * size - size - 4 * (blocks + (sum(shape) if len(shape) > 1 else blocks))
    return saved


def _advice(plan: Plan, first: list[str]) -> str:
    """What would bring the memory down, the changes that the user can make."""
    held = plan.breakdown
    # what is as large as there are rows in a batch: half the rows take half of it
    rows = held[ACTIVATIONS] + held[TEMPORARIES] + held[INPUTS] - plan.gap_bytes
    less = format_bytes(rows // 2)
    changes = list(first)
    if plan.divides:
        changes.append(f"micro-batches: two parts of the batch, one after the other, hold up to {less} less")
    if coded := _bytes_less_in_8_bits(plan):
        changes.append(
            f"an optimizer that keeps its moments in 8 bits (AdamW8bit, Adam8bit, Lion8bit, SGD8bit): "
            f"{format_bytes(coded)} less"
        )
    if coded := _bytes_less_in_4_bits(plan):
        changes.append(f"Adam with both moments in one byte (AdamW4bit, Adam4bit): {format_bytes(coded)} less")
    if held[OPTIMIZER]:
        state = format_bytes(held[OPTIMIZER])
        changes.append(f"an optimizer that keeps less: its state is {state}, next to nothing with Adafactor")
    return "what would bring it down:" + "".join(f"\n  - {change}" for change in changes)
