"""`plan`: what a step would hold and compute, without running it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from ..errors import TraceError
from ..memory import Plan, budget_of
from ..ops.primitive import MODE
from ..runtime.fit import EARLY_UPDATE
from .divided import Untold
from .finite import RAISE
from .step import CompiledStep
from .turns import STEPS, without_collections
from .ways import Way


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


def plan_in_parts(step: Callable[..., Any], args: Sequence[Any], parts: int) -> tuple[Plan, int] | None:
    """The plan of a call, without a budget, whose batch goes through `accumulate` in so many parts, or as many as it
    has examples, though it is not written so; with that number. None where that cannot be told (see `Divided`).
    """
    return _otherwise(step, args, lambda compiled: Way(compiled.budget, parts, divided=True))


def plan_lowered(step: Callable[..., Any], args: Sequence[Any]) -> Plan | None:
    """The plan of a call, without a budget, in a region of autocast to bfloat16; None where it is in one already, or
    its code raises there.
    """
    if MODE.autocast.dtype is not None:
        return None
    found = _otherwise(step, args, lambda compiled: Way(compiled.budget, lowered=True))
    return None if found is None else found[0]


def plan_early(step: Callable[..., Any], args: Sequence[Any]) -> Plan | None:
    """The plan of a call, without a budget, that updates each parameter as soon as its gradient is there; None where an
    update waits for several.
    """
    early = frozenset({EARLY_UPDATE})
    found = _otherwise(step, args, lambda compiled: Way(replace(compiled.budget, allow=early), changes=early))
    return None if found is None else found[0]


def _otherwise(
    step: Callable[..., Any], args: Sequence[Any], way: Callable[[CompiledStep], Way]
) -> tuple[Plan, int] | None:
    """The plan of a call that is recorded in another way, and in how many parts."""
    function, on_nonfinite = step, RAISE
    if isinstance(step, CompiledStep):
        function, on_nonfinite = step.function, step.policy.on_nonfinite
    compiled = CompiledStep(function, budget_of(None, None), on_nonfinite)
    try:
        with STEPS.recording(), without_collections():
            return compiled.plan_in(way(compiled), args)
    except (TraceError, Untold):
        return None
