"""`pullback plan`: what training a model would take, from plans of its step."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pullback as pb

from ..memory import Plan, format_bytes, parse_bytes
from ..train import models

DTYPES = {"float32": pb.float32, "bfloat16": pb.bfloat16}
#: what the rows of the table are called, by role
_COMPONENTS = {
    "parameters": "Model parameters",
    "optimizer": "Optimizer state",
    "gradients": "Gradients",
    "activations": "Activations",
}


class Training(NamedTuple):
    """A model to plan: one of `models.SIZES`, an optimizer, the size of a batch, whether blocks are checkpointed."""

    model: str
    optimizer: str
    batch: int
    tokens: int
    dtype: str
    checkpoint: bool = False

    def plan(self, **budget: Any) -> Plan:
        """The plan of a step, with the arguments of `pullback.plan`."""
        model = models.language_model(self.model, DTYPES[self.dtype])
        if self.checkpoint:
            model.gradient_checkpointing_enable()
        optimizer = models.OPTIMIZERS[self.optimizer](model.parameters())
        step, arguments = models.training_step(model, optimizer, self.batch, self.tokens)
        plan = pb.plan(step, *arguments, **budget)
        plan.name = f"{self.model} ({self.dtype}, {self.optimizer}, {self.batch} × {self.tokens} tokens)"
        return plan


class Reduction(NamedTuple):
    """What brings a component down: in words, and the plan where it is done."""

    role: str
    technique: str
    plan: Plan


def reductions(training: Training, plan: Plan) -> Iterator[Reduction]:
    """Plans of the training with what each component could be reduced by, as far as it is not done already."""
    if training.dtype == "float32":
        lower = training._replace(dtype="bfloat16").plan()
        yield Reduction("parameters", "--dtype bfloat16", lower)
        yield Reduction("gradients", "--dtype bfloat16", lower)
    small = "adafactor" if training.optimizer != "adafactor" else "sgd"
    other = training if training.optimizer == "sgd" else training._replace(optimizer=small)
    again = other._replace(checkpoint=True).plan()
    if other is not training:
        yield Reduction("optimizer", f"--optimizer {small}", again)
    if not training.checkpoint:
        share = again.recomputed_flops / (again.flops - again.recomputed_flops)
        yield Reduction("activations", f"--checkpoint, +{share:.0%} FLOP", again)


def table(plan: Plan, found: list[Reduction]) -> str:
    """A row for each component: the most that the step ever holds of it, and what a plan with a reduction holds."""
    rows = [("Training component", "Memory", "Reduction technique", "Memory with it")]
    for role, name in _COMPONENTS.items():
        held = _most(plan, role)
        techniques = [r for r in found if r.role == role]
        with_it = [f"{format_bytes(_most(r.plan, role))} ({_less(held - _most(r.plan, role))})" for r in techniques]
        technique, less = (techniques[0].technique, with_it[0]) if techniques else ("", "")
        rows.append((name, format_bytes(held), technique, less))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _most(plan: Plan, role: str) -> int:
    return int(plan.timeline[role].max())


def _less(nbytes: int) -> str:
    return f"{format_bytes(nbytes)} less" if nbytes >= 0 else f"{format_bytes(-nbytes)} more"


def fits(plan: Plan, memory: str, replan: Callable[[int], Plan]) -> tuple[bool, str]:
    """Whether a step can be run in `memory`, as it is or with values computed again, and that in words."""
    budget = parse_bytes(memory)
    if plan.peak_bytes <= budget:
        return True, f"it fits in {format_bytes(budget)}"
    state = max(
        sum(int(plan.timeline[role][step]) for role in ("parameters", "optimizer", "gradients", "inputs"))
        for step in (0, plan.steps - 1)
    )
    if state > budget:
        return False, (
            f"it cannot be run in {format_bytes(budget)}: parameters, optimizer state and gradients alone take "
            f"{format_bytes(state)}"
        )
    least = replan(budget)
    if least.peak_bytes <= budget:
        share = least.recomputed_flops / (least.flops - least.recomputed_flops)
        return True, f"it fits in {format_bytes(budget)} with memory={memory!r}, at {share:.0%} more FLOP"
    return False, f"it cannot be run in {format_bytes(budget)}: the least is {format_bytes(least.peak_bytes)}"


def load(name: str) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The step and its arguments that the function named "module:function" gives.

    Raises ValueError where there is none or it gives something else.
    """
    module_name, _, function_name = name.partition(":")
    sys.path.insert(0, os.getcwd())  # as `python -m` finds modules
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ValueError(f"--model: there is no module {module_name!r} here or among what is installed") from None
    finally:
        sys.path.remove(os.getcwd())
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ValueError(f"--model: {module_name} has no function {function_name!r}")
    given = function()
    if not (
        isinstance(given, tuple) and len(given) == 2 and callable(given[0]) and isinstance(given[1], (tuple, list))
    ):
        raise ValueError(f"--model: {name} must give a step and a tuple of its arguments, it gave {_kind(given)}")
    return given[0], tuple(given[1])


def _kind(given: object) -> str:
    """What somebody gave, in words that stay short however large it is."""
    kind = f"something of type {type(given).__name__}"
    return f"{kind} with {len(given)} elements" if isinstance(given, (tuple, list)) else kind


def check_path(path: Path | None) -> None:
    """Raise ValueError for a name that a plan cannot be saved to, before any time is spent."""
    if path is not None and path.suffix not in (".html", ".htm", ".json"):
        raise ValueError(f"--save: a plan is saved to a name that ends in .html or .json, got {path.name!r}")
