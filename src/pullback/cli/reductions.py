"""What each component of a step's memory could be reduced by, and by how much."""

from __future__ import annotations

import contextlib
import functools
import io
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..memory import LEAST, Plan, format_bytes
from ..memory.savings import ADAPTED, FACTORED, IN_BFLOAT16, RANK, forms
from ..memory.table import terminal_width
from ..tracing.plan import plan_early, plan_in_parts, plan_lowered
from .meanwhile import meanwhile
from .planning import Own, Training

#: what the rows of the table are called, by role
_COMPONENTS = {
    "parameters": "Model parameters",
    "optimizer": "Optimizer state",
    "gradients": "Gradients",
    "activations": "Activations",
}
#: optimizers whose state for adapters is told by its sizes
_BY_ELEMENT = {"sgd", "momentum", "adam", "adamw", "lion"}
#: into how many parts the batch of a step of the user's own is divided, where it has not too many nodes
_PARTS = 8
#: nodes of a step, and of all parts of its batch together, up to which other ways to run it are looked at
MANY_NODES = 40_000


class Outline(NamedTuple):
    """Of a plan the most bytes that the step ever holds of each component, and its operations that are done again, as a
    part of the others.
    """

    most: dict[str, int]
    again: float

    @classmethod
    def of(cls, plan: Plan) -> Outline:
        """That of a plan."""
        most = {role: int(plan.timeline[role].max()) for role in _COMPONENTS}
        return cls(most, plan.recomputed_flops / max(plan.flops - plan.recomputed_flops, 1))


class Reduction(NamedTuple):
    """What brings a component down: in words, and the most bytes of it then."""

    role: str
    technique: str
    nbytes: int


def of_training(training: Training) -> Callable[[Plan], list[Reduction]]:
    """What each component could be reduced by, as far as it is not done already: what is there throughout from its
    sizes in the plan of the training, which is given then, and what is not from plans of the training so changed. These
    are made on another core meanwhile, where there is one; what is returned waits for them.
    """
    again = None if training.checkpoint else _outlined(training._replace(checkpoint=True))
    is_whole = training.quantize is None and not training.lora_r
    adapted = training._replace(quantize="nf4", lora_r=RANK)
    coded = _outlined(adapted) if is_whole and training.optimizer not in _BY_ELEMENT else None
    words = {} if training.dtype == "bfloat16" else {IN_BFLOAT16: "--dtype bfloat16"}
    words |= {FACTORED: "--optimizer adafactor"}
    words |= {ADAPTED: f"--quantize nf4 --lora-r {RANK}"} if is_whole else {}

    def found(plan: Plan) -> list[Reduction]:
        known = forms(plan, wide_adapters=training.quantize is not None)  # those beside codes are in float32
        rows = [Reduction(f.role, words[t], f.nbytes) for t in words for f in known if f.technique == t]
        if training.optimizer == "adafactor":
            rows.append(Reduction("optimizer", "--optimizer sgd", 0))
        if again is not None:
            outline = Outline(*again())
            technique = f"--checkpoint, +{outline.again:.0%} FLOP"
            rows.append(Reduction("activations", technique, outline.most["activations"]))
        if coded is not None:
            rows.append(Reduction("optimizer", words[ADAPTED], Outline(*coded()).most["optimizer"]))
        return _less_than(plan, rows)

    return found


def _less_than(plan: Plan, rows: list[Reduction]) -> list[Reduction]:
    """Those that reduce anything."""
    held = Outline.of(plan).most
    return [row for row in rows if row.nbytes < held[row.role]]


def _outlined(training: Training) -> Callable[[], Any]:
    return meanwhile(lambda: Outline.of(training.plan()))


def of_own(own: Own, plan: Plan) -> Callable[[Plan], list[Reduction]]:
    """The same of a step of the user's own, of which `plan` is the plan: other ways to run it, from plans
    that are made meanwhile, and other ways to keep what is there throughout, from the sizes of it. What is no less is
    left out, and so is what cannot be told.
    """
    parts = min(_PARTS, MANY_NODES // max(len(plan.nodes()), 1))
    ways: list[Callable[[Own], tuple[str, str, Plan] | None]] = [_early, _least, _lowered] if parts else []
    ways += [functools.partial(_in_parts, parts=parts)] if parts > 1 else []
    tried = [meanwhile(functools.partial(_quietly, way, own)) for way in ways]

    def found(plan: Plan) -> list[Reduction]:
        rows = [Reduction(*form) for form in forms(plan)]
        return _less_than(plan, [*rows, *(Reduction(*row) for way in tried for row in way())])

    return found


def _quietly(way: Callable[[Own], tuple[str, str, Plan] | None], own: Own) -> list[Reduction]:
    """What a way to run the step brings a component to; what the user's code prints was printed before."""
    with contextlib.redirect_stdout(io.StringIO()):
        found = way(own)
    if found is None:
        return []
    role, technique, plan = found
    return [Reduction(role, technique, Outline.of(plan).most[role])]


def _early(own: Own) -> tuple[str, str, Plan] | None:
    plan = plan_early(own.step, own.arguments)
    return None if plan is None else ("gradients", 'allow=["early-update"], temporary then', plan)


def _least(own: Own) -> tuple[str, str, Plan]:
    plan = own.plan(memory=LEAST)
    return "activations", f'memory="{LEAST}", +{Outline.of(plan).again:.0%} FLOP', plan


def _lowered(own: Own) -> tuple[str, str, Plan] | None:
    plan = plan_lowered(own.step, own.arguments)
    return None if plan is None else ("activations", "autocast to bfloat16", plan)


def _in_parts(own: Own, parts: int) -> tuple[str, str, Plan] | None:
    found = plan_in_parts(own.step, own.arguments, parts)
    if found is None:
        return None
    plan, parts = found
    return "activations", f"accumulate(…, parts={parts})", plan


def table(plan: Plan, found: Sequence[Reduction]) -> str:
    """Of each component the most that the step ever holds of it, and what plans with reductions hold, a row each; as
    wide as the terminal.
    """
    rows = [("Component", "Memory", "Reduction technique", "Memory with it")]
    for role, held in Outline.of(plan).most.items():
        of_role = [(r.technique, r.nbytes) for r in found if r.role == role]
        techniques = [(what, f"{format_bytes(then)} ({format_bytes(held - then)} less)") for what, then in of_role]
        first, *others = techniques or [("", "")]
        rows.append((_COMPONENTS[role], format_bytes(held), *first))
        rows += [("", "", *other) for other in others]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    widths[2] = min(widths[2], terminal_width() - sum(widths) + widths[2] - 2 * 3)
    lines = [line for row in rows for line in _lines(row, widths)]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _lines(row: tuple[str, ...], widths: Sequence[int]) -> list[str]:
    """A row, a technique of many words in several lines."""
    component, memory, technique, then = row
    first, *others = textwrap.wrap(technique, widths[2], break_on_hyphens=False) or [""]
    cells = [(component, memory, first, then), *(("", "", f"  {other}", "") for other in others)]
    return ["  ".join(c.ljust(width) for c, width in zip(line, widths, strict=True)).rstrip() for line in cells]


__all__ = ["MANY_NODES", "Outline", "Reduction", "of_own", "of_training", "table"]
