"""The checklist: what the facts of a training say."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

from .courses import Course, course
from .facts import Facts
from .report import Finding, Report

#: what the learning rate is multiplied by where it might better be lower, and higher; 0 is with weights that stay
LOWER, HIGHER = (0.1, 0.01, 1e-3, 1e-5), (10.0, 1e3, 1e5, 1e7, 1e9)
#: a loss goes wrong, whatever the noise, that is this many times what it would be without updates; one falls well that
#: is at most this part of it
_RISEN, _WELL = 1.5, 0.98
#: the norm of a first update of weights, by that of the weights, that leaves nothing of them
_OVERWRITES = 5.0
#: and the one from which on it is too large where the loss is worse at once, as `_RISEN` has it, even if it falls later
_SHAKES = 1.0
#: inputs count as normalized up to this mean, in deviations, and from and to these deviations
_MEAN, _DEVIATIONS = 3.0, (0.02, 20.0)

#: labels from which on it is told that those of a batch are all the same, and the part of the steps at which they are
_LABELS, _ALIKE = 64, 0.8
#: what a schedule leaves of a learning rate at least in the steps that are watched, and weight decay takes at most
_RATES_LEFT, _DECAY = 1e-3, 0.05

#: the facts of a training's first steps with its learning rates multiplied by a factor
FactsAt = Callable[[float], Facts]


def judge(facts_at: FactsAt, place: str, same_batch: bool) -> Report:
    """The report of a training. `place` is where it stands; with `same_batch` each step had the same data."""
    own = facts_at(1.0)
    found = [*_error(own), *_cleared(own), *_backward(own, place), *_stepped(own, place), *_mode(own)]
    found += [*_gradients(own), *_require_grad(own), *_inputs(own), *_sign(own), *_doubled(own), *_unlike(own)]
    found += [*_mixed(own), *_left(own), *_clipped(own)]
    finite = list(_finite(own))
    is_lost_at_once = own.not_finite is not None and not own.not_finite[2]
    if own.steps > 1 and not is_lost_at_once and not (own.error or own.without_gradients or own.strangers):
        learns, is_rate = _learns(facts_at, same_batch)
        found += learns if is_rate or not finite else finite  # a loss may be lost because the rate is too high
    else:
        found += finite
    return Report(tuple(found))


def _error(facts: Facts) -> Iterator[Finding]:
    if facts.error is None:
        if facts.backwards:
            yield Finding("labels in range", True, "no index or label was out of range")
        return
    name, message, line = facts.error
    if name == "IndexOutOfRange":
        yield Finding(
            "labels in range", False, message, line,
            "labels run from 0 to the number of classes - 1: subtract 1 where they begin at 1, give the last layer as "
            "many outputs as there are classes, and an Embedding as many rows as there are words",
        )  # fmt: skip
    elif facts.severed is None:
        is_number = name == "AttributeError" and "has no attribute 'backward'" in message
        mend = "call backward() on the tensor that the loss function gave, before item() or float()"
        yield Finding("runs", False, f"{name}: {message}", line, mend if is_number else "see the message")


def _cleared(facts: Facts) -> Iterator[Finding]:
    if facts.uncleared:
        yield Finding(
            "gradients cleared", False,
            f"at {facts.uncleared} of {facts.steps} steps backward() added to the gradients of the step before",
            facts.uncleared_at, "call optimizer.zero_grad() before backward() in each step",
        )  # fmt: skip
    elif facts.cleared_too_late_at and not facts.stepped_early_at:
        yield Finding(
            "gradients cleared", False, "they were cleared between backward() and optimizer.step()",
            facts.cleared_too_late_at, "call optimizer.zero_grad() before backward(), or after step()",
        )  # fmt: skip
    elif facts.steps > 1 and facts.backwards and not facts.cleared_too_late_at:
        yield Finding("gradients cleared", True, "each step begins without gradients")


def _backward(facts: Facts, place: str) -> Iterator[Finding]:
    if facts.severed is not None:
        return
    if facts.backwards:
        yield Finding("backward called", True, "the loss was differentiated")
    elif facts.pulled:
        yield Finding("backward called", True, "a function was differentiated by pullback.func")
    elif facts.are_assigned:
        yield Finding("backward called", True, "gradients were assigned, without backward()")
    elif not facts.error:
        yield Finding(
            "backward called", False,
            f"{_count(facts.without_gradients or facts.steps, 'step')} of the optimizer found no gradients: backward() "
            "was not called" if facts.steps else "backward() was never called",
            facts.stepped_at or facts.called_at or place, "call loss.backward() before optimizer.step()",
        )  # fmt: skip


def _stepped(facts: Facts, place: str) -> Iterator[Finding]:
    if facts.stepped_early_at:
        yield Finding(
            "optimizer stepped", False, "optimizer.step() was called before backward() of the loss that was there "
            "already, and found no gradients",
            facts.stepped_early_at, "call loss.backward() before optimizer.step()",
        )  # fmt: skip
    elif facts.made_anew is not None:
        count, are_others = facts.made_anew
        told = "trained a model of its own" if are_others else "knew nothing of the steps before: its moments were new"
        yield Finding(
            "optimizer stepped", False, f"{count} optimizers made one step each, and each {told}", facts.stepped_at,
            f"make {'the model and its' if are_others else 'the'} optimizer once, before the loop over steps",
        )  # fmt: skip
    elif facts.steps:
        yield Finding("optimizer stepped", True, f"{facts.steps} steps were seen")
    elif facts.pulled and not facts.backwards:
        yield Finding(
            "optimizer stepped", True, "no optimizer stepped: what updates by hand have made cannot be told", open=True
        )
    elif facts.changed_by_hand:
        yield Finding("optimizer stepped", True, "no optimizer stepped, but the weights were changed by other means")
    elif not facts.error:
        after = f" after {_count(facts.backwards, 'call')} of backward()" if facts.backwards else ""
        yield Finding(
            "optimizer stepped", False, f"optimizer.step() was not called{after}", facts.backward_at or place,
            "call optimizer.step() after backward()",
        )  # fmt: skip


def _mode(facts: Facts) -> Iterator[Finding]:
    if facts.evaluating:
        yield Finding(
            "train mode", False,
            f"{_listed(facts.evaluating)} {'is' if len(facts.evaluating) == 1 else 'are'} in evaluation mode, which "
            "turns dropout off and fixes running averages",
            facts.called_at, "call model.train() before training, and again after each evaluation",
        )  # fmt: skip
    elif facts.calls and facts.backwards:
        yield Finding("train mode", True, "nothing that behaves otherwise in training is in evaluation mode")


def _gradients(facts: Facts) -> Iterator[Finding]:
    """Whether gradients come to the parameters, and these are those of the optimizer."""
    if facts.severed is not None and not _is_all_frozen(facts):
        line, how = facts.severed
        yield Finding(
            "parameters get gradients", False,
            f"the loss has no gradient: the way from all parameters to it is cut by {how}" if how else
            "the loss has no gradient: it does not depend on a parameter by anything that can be differentiated",
            line or (facts.error or ("", "", ""))[2],
            "take the detach(), .data, no_grad() or conversion to numbers out of the forward pass there",
        )  # fmt: skip
    if facts.strangers is not None:
        own, others = facts.strangers
        yield Finding(
            "optimizer has the parameters", False,
            f"none of the {_count(own, 'parameter')} that the optimizer has got a gradient, and "
            f"{_count(others, 'other')} did: it is the optimizer of another model",
            facts.stepped_at, "make the optimizer of the parameters of the model that is trained, after it has been "
            "made, copied or loaded",
        )  # fmt: skip
        return
    if facts.made_of_number_at:
        yield Finding(
            "parameters get gradients", False,
            "none has come to a parameter: backward() was called on a tensor that was made of a number, or anew, and "
            "knows nothing of the model", facts.made_of_number_at,
            "call backward() on what the loss function gave, without item(), float(), numpy() or tensor() between",
        )  # fmt: skip
        return
    for (kind, reason, remedy), names in _together(facts.structure):
        missing = kind.startswith("not_")
        check = "optimizer has the parameters" if missing else "parameters get gradients"
        each = ", each" if len(names) > 1 else ""
        yield Finding(check, False, f"{_listed(names)} ({kind}){each}: {reason}", facts.backward_at, remedy)
    if facts.zeroed_by is not None:
        function, line = facts.zeroed_by
        yield Finding(
            "parameters get gradients", False,
            f"{function} made zeros of all gradients between backward() and optimizer.step()", line,
            "give it a norm or a value above 0" if "clip" in function else "take out what multiplies them by 0",
        )  # fmt: skip
    if facts.zero_gradients > facts.steps // 2:
        yield Finding(
            "parameters get gradients", False,
            f"at {facts.zero_gradients} of {facts.steps} steps all gradients were exactly 0", facts.backward_at,
            "look for ReLUs that are dead, for saturation, for operations whose slope is 0 (round, argmax, "
            "comparisons) and for masks that are 0 everywhere",
        )  # fmt: skip


def _together(rows: Iterable[Sequence[str]]) -> Iterable[tuple[tuple[str, str, str], list[str]]]:
    """The parameters that something is said of, by what that is."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for kind, where, reason, remedy in rows:
        found.setdefault((kind, reason, remedy), []).append(where)
    return found.items()


def _listed(names: list[str]) -> str:
    """At most three names, and how many more there are."""
    told = names if len(names) <= 3 else [*names[:3], _count(len(names) - 3, "other")]
    return " and ".join([", ".join(told[:-1]), told[-1]] if len(told) > 1 else told)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _is_all_frozen(facts: Facts) -> bool:
    return bool(facts.parameters) and len(facts.frozen) + facts.resting == facts.parameters and not facts.loose


def _require_grad(facts: Facts) -> Iterator[Finding]:
    mend = "call requires_grad_(True) on what is to be trained"
    if _is_all_frozen(facts):
        yield Finding(
            "parameters require gradients", False,
            f"all {facts.parameters} parameters have requires_grad=False", facts.called_at, mend,
        )  # fmt: skip
    elif facts.frozen:
        yield Finding(
            "parameters require gradients", False,
            f"{len(facts.frozen)} of {facts.parameters} parameters have requires_grad=False, and stand in the "
            f"optimizer all the same: {_listed(facts.frozen)}",
            facts.called_at, f"{mend}; give the optimizer only that",
        )  # fmt: skip
    elif not facts.structure and facts.parameters and facts.steps and facts.strangers is None:
        trained = facts.parameters - facts.resting + facts.loose
        kept = f"; {facts.resting} are frozen, and in no optimizer" if facts.resting else ""
        yield Finding(
            "parameters require gradients", True, f"{'' if kept else 'all '}{trained} parameters are trained{kept}"
        )


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


def _sign(facts: Facts) -> Iterator[Finding]:
    if facts.turned is not None:
        operation, line = facts.turned
        better = "larger" if operation in ("log_softmax", "logsigmoid", "log") else "smaller"
        done = "maximizing" if facts.maximizes else "minimizing"
        yield Finding(
            "sign of the loss", False,
            f"{operation} is the better the {better} it is, and {done} this loss does the opposite", line,
            "turn the sign of the loss",
        )  # fmt: skip


def _doubled(facts: Facts) -> Iterator[Finding]:
    if facts.doubled is not None:
        loss, made_by, line, mend = facts.doubled
        yield Finding("scores and probabilities", False, f"{loss} is given what {made_by} has made", line, mend)


def _unlike(facts: Facts) -> Iterator[Finding]:
    if facts.unlike is not None:
        loss, given, target, line = facts.unlike
        yield Finding(
            "shapes of the loss", False,
            f"{loss} is given an input of shape {given} and a target of shape {target}, which are broadcast", line,
            "give both the same shape: squeeze(-1) the model's output, or unsqueeze(-1) the target",
        )  # fmt: skip

    if facts.other_axis is not None:
        loss, function, axis, classes, line = facts.other_axis
        yield Finding(
            "shapes of the loss", False,
            f"{loss} takes the classes from axis {classes}, and {function} was taken over axis {axis}: of each class "
            "over the examples, and not of each example over the classes", line, f"take {function} with dim={classes}",
        )  # fmt: skip


def _mixed(facts: Facts) -> Iterator[Finding]:
    """Whether batches have several classes in them."""
    if facts.optimizers == 1 and facts.labels >= _LABELS and facts.alike > _ALIKE * facts.labelled:
        # of one label alone it cannot be told: others may be rare
        told = f"all labels of a batch were the same at {facts.alike} of {facts.labelled} steps"
        is_sorted = facts.alone > 1
        yield Finding(
            "batches mixed", not is_sorted, told if is_sorted else f"{told}, and in all of these: they are sorted, or "
            "others are rare",
            facts.backward_at, "shuffle the data, as DataLoader(…, shuffle=True) does, and see where labels come from",
            open=not is_sorted,
        )  # fmt: skip


def _left(facts: Facts) -> Iterator[Finding]:
    """What schedules, weight decay and dropout leave of rates, weights and values."""
    if facts.rates_left < _RATES_LEFT and not facts.rates_rise:  # a schedule that has come to its end
        now = facts.rates_left * facts.rates[0]
        yield Finding(
            "learning rate sane", False,
            f"a schedule has lowered it from {facts.rates[0]:.3g} to {now:.3g} in {_count(facts.steps, 'step')}",
            facts.stepped_at, "call scheduler.step() once an epoch, or give the schedule its lengths in steps",
        )  # fmt: skip
    if facts.decay > _DECAY:
        yield Finding(
            "weight decay sane", False, f"it takes {facts.decay:.0%} of each weight away in each step",
            facts.stepped_at, "lower it: learning rate times weight_decay is usually below 0.001",
        )  # fmt: skip
    if facts.dropped:
        yield Finding(
            "dropout sane", False, f"{_listed(facts.dropped)} with p=1: nothing comes through in training",
            facts.called_at, "give it a p below 1",
        )  # fmt: skip


def _clipped(facts: Facts) -> Iterator[Finding]:
    if facts.clipped_scaled:
        yield Finding(
            "gradients unscaled", False,
            "gradients were clipped while they were still multiplied by the scale of a GradScaler, and then divided by "
            "it: next to nothing is left of them", facts.clipped_scaled,
            "call scaler.unscale_(optimizer) before the clip",
        )  # fmt: skip


def _finite(facts: Facts) -> Iterator[Finding]:
    if facts.not_finite is not None:
        message, line, steps = facts.not_finite
        told, _, mend = message.partition("To mend it: ")
        after = f"after {_count(steps, 'step')} " if steps else ""
        yield Finding("loss is finite", False, after + told.strip(), line, mend.rstrip("."))


# ---- what the updates do


def _learns(facts_at: FactsAt, same_batch: bool) -> tuple[list[Finding], bool]:
    """What the updates do to the loss, and whether something is wrong that is known to be the rate's."""
    own, still = facts_at(1.0), facts_at(0.0)
    if not own.losses:
        return [], False
    mine, jump = course(own, still), _jump(own, still)
    better = _better(facts_at, mine, jump is not None)
    rate = _rate(own, mine, better, jump)
    is_rate = better is not None or jump is not None
    is_told = is_rate or (not rate.ok and mine.change < math.inf)  # where it diverges at any rate it is something else
    return [_falls(own, mine, same_batch, is_told), rate], is_rate


def _jump(own: Facts, still: Facts) -> tuple[float, float] | None:
    """The loss at the second step as it would be without the first, and as it is, where it is much worse for an update
    as large as the weights: what these knew is gone, though a loss may fall from there.
    """
    if own.first_update <= _SHAKES or own.optimizers > 1 or own.maximizes:
        return None
    for line, moved in own.losses.items():
        each = max(1, len(moved) // own.steps)
        before, after = still.losses.get(line, [])[each : 2 * each], moved[each : 2 * each]
        if before and len(before) == len(after) and sum(after) > _RISEN * sum(before) > 0:
            return sum(before) / each, sum(after) / each
    return None


def _better(facts_at: FactsAt, mine: Course, jumps: bool) -> tuple[float, Course] | None:
    """The factor on the learning rate with which the loss falls most, and how, where it does not fall as it is, or has
    jumped first. A rate that a schedule is raising is not told to be too low.
    """
    own = facts_at(1.0)
    if (mine.has_fallen and not jumps) or _cannot_be_told(mine) or own.optimizers > 1 or _stands_still(own):
        return None  # where several optimizers pull on a loss it is not a rate that keeps it up
    rises = mine.rises or jumps
    factors = LOWER if rises else () if own.rates_rise else HIGHER
    still = facts_at(0.0)
    # one that shakes the weights would be called too high in turn
    calm = [factor for factor in factors if _jump(facts_at(factor), still) is None]
    tried = [(factor, course(facts_at(factor), still)) for factor in calm]
    fallen = [(f, one) for f, one in tried if one.is_clear and one.change < (1 if rises else _WELL) and one.has_fallen]
    return min(fallen, key=lambda pair: pair[1].change, default=None)


def _cannot_be_told(one: Course) -> bool:
    """Whether what the updates have done is lost in noise."""
    return not one.is_clear and one.change < _RISEN


def _is_open(one: Course) -> bool:
    """Whether it has not fallen, and nothing can be said about that."""
    return _cannot_be_told(one) and not one.has_fallen


def _falls(facts: Facts, mine: Course, same_batch: bool, is_rate: bool) -> Finding:
    goal = "objective rises" if facts.maximizes else "loss falls"
    check = f"{goal} {'on one batch' if same_batch else 'over the first steps'}"
    told = f"from {mine.before:.4g} to {mine.after:.4g} in {facts.steps} steps"
    if _is_open(mine):
        told += (
            ": more than without updates, but the steps differ by more than that. Watch more steps, or larger batches"
        )
        return Finding(check, True, told, open=True)
    if _cannot_be_told(mine):
        return Finding(check, True, f"{told}, as far as the noise of the steps lets it be told")
    if facts.rates_rise and not mine.rises:
        return Finding(check, True, f"{told}, while the learning rate is being raised")
    if facts.optimizers > 1 and not mine.has_fallen and math.isfinite(mine.change):
        return Finding(check, True, f"{told}, where {facts.optimizers} optimizers may pull against each other")
    mend = (
        "change the learning rate, see there"
        if is_rate
        else "a model that cannot learn one batch has a fault in its loss, its graph or its data: see the other "
        "findings, and compare labels with inputs"
    )
    return Finding(check, mine.has_fallen, told, facts.backward_at, mend)


def _rate(facts: Facts, mine: Course, better: tuple[float, Course] | None, jump: tuple[float, float] | None) -> Finding:
    check, rates, line = "learning rate sane", facts.rates, facts.stepped_at
    if _stands_still(facts):
        return Finding(check, False, "the learning rate is 0: no step changes anything", line, "set one above 0")
    told = f"at {' and '.join(f'{rate:.3g}' for rate in rates)} the loss {_told(mine)}"
    if jump is not None:
        told += (
            f"; the first step changes the weights by {facts.first_update:.2g} times their norm, and the loss is "
            f"{jump[1]:.4g} then in place of {jump[0]:.4g}"
        )
    if better is not None and rates:
        factor, course = better
        told += f"; at {factor:g} times that it {_told(course)}"
        return Finding(
            check, False, told, line, f"{'lower' if factor < 1 else 'raise'} it, to {factor * rates[0]:.2g} or so"
        )
    if jump is not None or facts.first_update > _OVERWRITES:
        if jump is None:
            told += f", and the first step changes the weights by {facts.first_update:.2g} times their norm"
        return Finding(check, False, told, line, "lower it (about 0.001 of the weights' norm a step is usual)")
    return Finding(
        check, mine.change < math.inf, told, line, "no lower one that was tried helps: look at loss and data",
        open=_is_open(mine),
    )  # fmt: skip


def _stands_still(facts: Facts) -> bool:
    return bool(facts.rates) and not any(facts.rates) and not facts.rates_rise


def _told(one: Course) -> str:
    if not math.isfinite(one.change):
        return "diverges"
    return f"comes to {one.after:.6g}, and without updates to {one.before:.6g}"


__all__ = ["HIGHER", "LOWER", "FactsAt", "judge"]
