"""`plan`: what a step would hold and compute, without running it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from ..memory import Plan, budget_of
from .step import CompiledStep


def plan(
    step: Callable[..., Any],
    *args: Any,
    memory: int | float | str | None = None,
    policy: Callable[[Any], str | None] | None = None,
    allow: Collection[str] | None = None,
    **kwargs: Any,
) -> Plan:
    """The plan of a call `step(*args, **kwargs)`: its peak memory to the byte, what holds it, and what it computes.

    `step` is what `pullback.compile` gave or a plain function, which is planned as if it was compiled with `memory`,
    `policy` and `allow`; these give a compiled step another budget for this plan. Nothing is computed and no tensor
    allocated: parameters that were never used, however large, stay without values. With a budget that cannot be kept
    the plan is of the fewest bytes found.

    >>> model = pb.nn.Linear(1000, 1000)
    >>> plan = pb.plan(lambda x: model(x).sum(), pb.zeros(8, 1000))
    >>> plan.breakdown["parameters"], plan.flops
    (4004000, 16016000)
    """
    if isinstance(step, CompiledStep) and memory is None and policy is None and allow is None:
        return step.plan(*args, **kwargs)
    function = step.function if isinstance(step, CompiledStep) else step
    if not callable(function):
        raise TypeError(f"plan takes a function, got {function!r}")
    return CompiledStep(function, budget_of(memory, policy, allow)).plan(*args, **kwargs)
