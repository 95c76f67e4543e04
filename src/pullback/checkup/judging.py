"""The checklist: what the facts of a training say."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from statistics import mean

from .report import Finding, Report
from .watching import Facts

#: a loss has fallen that is at most this part of what it was; it has risen that is this many times it
_FALLEN, _RISEN = 0.98, 1.5
#: how much further a loss falls with another learning rate for that to be better by far
_BY_FAR = 4.0
#: a loss has hardly fallen that is at least this part of what it was
_HARDLY = 0.97
#: inputs count as normalized up to this mean, in deviations, and from and to these deviations
_MEAN, _DEVIATIONS = 3.0, (0.02, 20.0)


def judge(facts: Mapping[float, Facts], place: str, same_batch: bool) -> Report:
    """The report of a training: by the factor on its learning rate, the facts of its first steps. `place` is where it
    stands; with `same_batch` each step had the same data.
    """
    own = facts[1.0]
    found = [*_error(own), *_cleared(own, place), *_backward(own, place), *_stepped(own, place), *_mode(own)]
    found += [*_require_grad(own), *_inputs(own)]
    if own.steps > 1 and own.error is None and not own.without_gradients:
        found += [*_falls(own, same_batch), *_rate(facts)]
    return Report(tuple(found))


def _error(facts: Facts) -> Iterator[Finding]:
    if facts.error is None:
        yield Finding("labels in range", True, "no index or label was out of range")
        return
    name, message, line = facts.error
    if name in ("IndexOutOfRange", "IndexError"):
        yield Finding(
            "labels in range", False, message, line,
            "labels run from 0 to the number of classes - 1: subtract 1 where they begin at 1, give the last layer as "
            "many outputs as there are classes, and an Embedding as many rows as there are words",
        )  # fmt: skip
    else:
        yield Finding("runs", False, f"{name}: {message}", line, "see the message")


def _cleared(facts: Facts, place: str) -> Iterator[Finding]:
    if facts.uncleared:
        yield Finding(
            "gradients cleared", False,
            f"at {facts.uncleared} of {facts.steps} steps backward() added to the gradients of the step before",
            facts.backward_at or place, "call optimizer.zero_grad() before backward() in each step",
        )  # fmt: skip
    elif facts.cleared_too_late:
        yield Finding(
            "gradients cleared", False, "they were cleared between backward() and optimizer.step()",
            facts.stepped_at, "call optimizer.zero_grad() before backward(), or after step()",
        )  # fmt: skip
    elif facts.steps > 1:
        yield Finding("gradients cleared", True, "each step begins without gradients")


def _backward(facts: Facts, place: str) -> Iterator[Finding]:
    if facts.backwards and not (facts.without_gradients and not facts.cleared_too_late):
        yield Finding("backward called", True, "the loss was differentiated")
    elif not facts.error:
        yield Finding(
            "backward called", False, f"{facts.without_gradients or facts.steps} steps of the optimizer found no "
            "gradients: backward() was not called" if facts.steps else "backward() was never called",
            facts.stepped_at or facts.called_at or place, "call loss.backward() before optimizer.step()",
        )  # fmt: skip


def _stepped(facts: Facts, place: str) -> Iterator[Finding]:
    if facts.steps:
        yield Finding("optimizer stepped", True, f"{facts.steps} steps were seen")
    elif not facts.error:
        yield Finding(
            "optimizer stepped", False, f"optimizer.step() was not called after {facts.backwards} backward()",
            facts.backward_at or place, "call optimizer.step() after backward()",
        )  # fmt: skip


def _mode(facts: Facts) -> Iterator[Finding]:
    if facts.evaluating:
        named = ", ".join(facts.evaluating[:3]) + (" and others" if len(facts.evaluating) > 3 else "")
        yield Finding(
            "train mode", False, f"{named} is in evaluation mode, which turns dropout off and fixes running averages",
            facts.called_at, "call model.train() before training, and again after each evaluation",
        )  # fmt: skip
    else:
        yield Finding("train mode", True, "nothing that behaves otherwise in training is in evaluation mode")


def _require_grad(facts: Facts) -> Iterator[Finding]:
    faults = [row for row in facts.structure if row[0] != "frozen"]
    for kind, where, reason, remedy in faults[:5]:
        yield Finding("parameters get gradients", False, f"{where} ({kind}): {reason}", facts.backward_at, remedy)
    if facts.frozen:
        count, named = len(facts.frozen), ", ".join(facts.frozen[:3])
        yield Finding(
            "parameters require gradients", False,
            f"{count} of {facts.parameters} parameters have requires_grad=False: {named}{', …' if count > 3 else ''}",
            facts.called_at, "call requires_grad_(True) on what is to be trained; where they are frozen on purpose, "
            "this is as it should be",
        )  # fmt: skip
    elif not faults and facts.parameters:
        yield Finding("parameters require gradients", True, f"all {facts.parameters} parameters are trained")


def _inputs(facts: Facts) -> Iterator[Finding]:
    if facts.inputs is None:
        return
    middle, deviation, largest = facts.inputs
    told = f"mean {middle:.3g}, deviation {deviation:.3g}, largest {largest:.3g}"
    small, great = _DEVIATIONS
    if not math.isfinite(largest):
        told, fine = "they hold NaN or infinities", False
    else:
        fine = small <= deviation <= great and abs(middle) <= _MEAN * deviation
    yield Finding(
        "inputs normalized", fine, told, facts.called_at,
        "subtract the mean of the training data and divide by its deviation",
    )  # fmt: skip


def _ends(losses: list[float]) -> tuple[float, float]:
    """The loss at the beginning and at the end: of many, the mean of a few."""
    few = max(1, len(losses) // 10)
    return mean(losses[:few]), mean(losses[-few:])


def _change(facts: Facts) -> float:
    """The loss after as a part of the loss before; infinite where it diverges."""
    if not facts.losses or facts.error is not None or not all(map(math.isfinite, facts.losses)):
        return math.inf
    before, after = _ends(facts.losses)
    return after / before if before > 0 else 1 - (before - after) / (abs(before) + 1e-12)


def _falls(facts: Facts, same_batch: bool) -> Iterator[Finding]:
    before, after = _ends(facts.losses)
    where = "on one batch" if same_batch else "over the first steps"
    fine = _change(facts) <= _FALLEN
    yield Finding(
        f"loss falls {where}", fine, f"from {before:.4g} to {after:.4g} in {facts.steps} steps", facts.backward_at,
        "a model that cannot learn one batch has a fault in its loss, its graph or its learning rate: see the other "
        "findings, and compare labels with inputs",
    )  # fmt: skip


def _rate(facts: Mapping[float, Facts]) -> Iterator[Finding]:
    changes = {factor: _change(one) for factor, one in facts.items()}
    own, rates, line = changes[1.0], facts[1.0].rates, facts[1.0].stepped_at
    told = f"at {' and '.join(f'{rate:.3g}' for rate in rates)} the loss {_told(own)}"
    lower = [f for f in sorted(changes, reverse=True) if f < 1 and changes[f] < 1]
    higher = [f for f in sorted(changes) if f > 1 and _is_far_better(changes[f], own)]
    if own > _RISEN and lower:
        told += f"; at {lower[0]:g} times that it {_told(changes[lower[0]])}"
        yield Finding("learning rate sane", False, told, line, f"lower it, to {lower[0] * rates[0]:.2g} or so")
    elif higher:
        told += f"; at {higher[0]:g} times that it {_told(changes[higher[0]])}"
        yield Finding("learning rate sane", False, told, line, f"raise it, to {higher[0] * rates[0]:.2g} or so")
    else:
        yield Finding("learning rate sane", own < math.inf, told, line, "see the other findings")


def _is_far_better(change: float, own: float) -> bool:
    return own > _HARDLY and change < _FALLEN and 1 - change > _BY_FAR * max(1 - own, 0.0)


def _told(change: float) -> str:
    if not math.isfinite(change):
        return "diverges"
    return f"falls to {change:.1%} of what it was" if change < 1 else f"rises to {change:.3g} times what it was"


__all__ = ["judge"]
