"""Budgets of memory: how they are written, what a policy is asked, and the errors where one cannot be kept."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ..compiler.rematerialize import KEEP, RECOMPUTE, Policy
from ..errors import MemoryBudgetError
from ..graph.node import Node, Source
from ..graph.types import DType
from ..ops.primitive import path_of
from ..runtime.bundles import bytes_of
from ..runtime.fit import BFLOAT16, BLOCKS, EARLY_UPDATE, LEAST, Budget
from .plan import Plan
from .savings import savings
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
        such = allow if isinstance(allow, str) else BFLOAT16
        raise TypeError(f"allow must be a collection of names, such as [{such!r}], got {allow!r}")
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


#: characters of a line of which an explanation is shown
_LINE = 160


@dataclass(frozen=True)
class WouldHelp:
    """What changes that a user can make would bring a step's peak to, in bytes, from plans of the step with them."""

    #: those that `allow=` may name
    allowed: Mapping[str, int] = field(default_factory=dict)
    #: into how many parts `accumulate` would divide the batch, and the peak then
    parts: tuple[int, int] | None = None
    #: with `memory="least"`, where there is no budget
    least: int | None = None
    #: changes to allow along with how many parts, and the peak then; where none alone is enough
    together: tuple[Sequence[str], int, int] | None = None
    #: in a region of autocast to bfloat16
    lowered: int | None = None
    #: whether there was no time to look at all of them
    is_cut: bool = False
    #: the operations of a step that has so many that none of them was looked at
    too_many: int = 0
    #: bytes of parameters, state and other inputs where these alone are too much, so that none of them was looked at
    fixed: int = 0
    #: without the policy that the user has given
    without_policy: int | None = None
    #: of what it could not be told what it would bring, and why not
    untold: Mapping[str, str] = field(default_factory=dict)


def over_budget(plan: Plan, budget: int, would_help: WouldHelp) -> MemoryBudgetError:
    """The error for a step whose least memory is above its budget."""
    least = plan.peak_bytes
    return MemoryBudgetError(
        f"{plan.name} cannot be run in {format_bytes(budget)}: the fewest that were found are {format_bytes(least)} "
        f"({least} bytes).\n{plan}\n{_advice(plan, budget, would_help)}",
        least,
        plan.unbudgeted_bytes,
    )


def too_large(plan: Plan, needed: int, available: int, would_help: WouldHelp, of: str = "") -> MemoryBudgetError:
    """The error for a step that there is not enough memory for, or `of` what else there is not enough."""
    limit = plan.peak_bytes - needed + available
    return MemoryBudgetError(
        f"{plan.name} needs {format_bytes(needed)} more{of} than the program holds now, and {format_bytes(available)} "
        f"are free.\n{plan}\n{_advice(plan, limit, would_help, 'what there is')}",
        0,
        plan.unbudgeted_bytes,
    )


def _advice(plan: Plan, limit: int, would_help: WouldHelp, what: str = "the budget") -> str:
    """What would bring the memory down, the changes that the user can make; `what` the limit is."""

    def leads_to(peak: int) -> str:
        where = f"in {what}" if peak <= limit else f"{format_bytes(peak - limit)} above {what}"
        return f"{peak} bytes ({format_bytes(peak)}), {where}"

    changes = []
    if would_help.without_policy is not None:
        changes.append(
            f"without the policy: {leads_to(would_help.without_policy)}; it keeps, or has made again, too much"
        )
    if would_help.least is not None:
        changes.append(f'memory="least": {leads_to(would_help.least)}; values are computed again')
    for name, peak in sorted(would_help.allowed.items(), key=lambda item: item[1]):
        changes.append(f"allow=[{name!r}]: {leads_to(peak)}; {ALLOWED[name]}")
    if would_help.parts is not None:
        parts, peak = would_help.parts
        changes.append(
            f"micro-batches: pullback.accumulate(loss_fn, batch, parts={parts}): {leads_to(peak)}; the same gradient "
            "to rounding"
        )
    if would_help.lowered is not None:
        changes.append(
            f'mixed precision: the call in a region of pullback.autocast("cpu", dtype=pullback.bfloat16): '
            f"{leads_to(would_help.lowered)}; products, and what is made of them, in 16 bits"
        )
    if would_help.together is not None:
        names, parts, peak = would_help.together
        divided = f", with pullback.accumulate(loss_fn, batch, parts={parts})" if parts > 1 else ""
        changes.append(f"together: allow={list(names)}{divided}: {leads_to(peak)}")
    if would_help.is_cut:
        changes.append("further of these, or several together, were not looked at, which takes longer")
    changes += savings(plan)
    unseen = [f"what {name} would bring cannot be told: {_shortened(why)}" for name, why in would_help.untold.items()]
    if would_help.too_many:
        unseen.append(
            "what allow=, micro-batches and mixed precision would bring was not looked at: the step has "
            f"{would_help.too_many} operations"
        )
    if would_help.fixed:
        unseen.append(
            f"parameters, state and inputs alone are {format_bytes(would_help.fixed)}: what allow=, micro-batches and "
            "mixed precision would bring lies beside them, and was not looked at"
        )
    if not changes and not unseen:
        return "of what is known here, nothing else would bring it down"
    heading = "what would bring it down:" if changes else "nothing is known that would bring it down, but:"
    return "\n  - ".join([heading, *changes, *unseen])


def _shortened(words: str) -> str:
    """The first line of an explanation, and of that what fits a line of a terminal."""
    first = words.partition("\n")[0]
    return first if len(first) <= _LINE else f"{first[: _LINE - 1]}…"
