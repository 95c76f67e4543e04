"""`plan`: what a step would hold and compute, without running it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from ..memory import Plan, budget_of
from .finite import RAISE
from .step import CompiledStep


def plan(
    step: Callable[..., Any],
    *args: Any,
    memory: int | float | str | None = None,
    policy: Callable[[Any], str | None] | None = None,
    allow: Collection[str] | None = None,
    on_nonfinite: str | None = None,
    **kwargs: Any,
) -> Plan:
    """The plan of a call `step(*args, **kwargs)`: its peak memory to the byte, what holds it, and what it computes.

    `step` is what `pullback.compile` gave or a plain function, which is planned as if it was compiled with `memory`,
    `policy`, `allow` and `on_nonfinite` (None: "raise"); these give a compiled step another budget for this plan, which
    is else made as that was compiled. Nothing is computed and no tensor
    allocated: parameters that were never used, however large, stay without values. With a budget that cannot be kept
    the plan is of the fewest bytes found.

    >>> model = pb.nn.Linear(1000, 1000)
    >>> plan = pb.plan(lambda x: model(x).sum(), pb.zeros(8, 1000))
    >>> plan.breakdown["parameters"], plan.flops
    (4004000, 16016000)
    """
    compiled = step if isinstance(step, CompiledStep) else None
    if compiled is not None and all(given is None for given in (memory, policy, allow, on_nonfinite)):
        return compiled.plan(*args, **kwargs)
    function = step if compiled is None else compiled.function
    if not callable(function):
        raise TypeError(f"plan takes a function, got {function!r}")
    if on_nonfinite is None:
        on_nonfinite = RAISE if compiled is None else compiled.policy.on_nonfinite
    return CompiledStep(function, budget_of(memory, policy, allow), on_nonfinite).plan(*args, **kwargs)
