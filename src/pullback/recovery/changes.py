"""What is changed after a return, so that the same does not happen again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..ops.primitive import user_source
from ..tensor import Tensor
from ..tensor.grad_modes import no_grad

if TYPE_CHECKING:
    from .events import Event
    from .guard import Guard

#: makes a change for an event, and says what it was
Change = Callable[["Guard", "Event"], str | None]


def _skip(guard: Guard, event: Event) -> str:
    """Leave out the batch of the alert, and those around it, when the run comes to them again."""
    return guard.skip(event.epoch, range(max(0, event.batch - guard.around), event.batch + guard.around + 1))


def _lower_rate(guard: Guard, event: Event) -> str:
    """Go on with a lower learning rate."""
    guard.scale_rates(guard.lr_factor)
    return f"learning rate times {guard.lr_factor:g} ({guard.lr_scale:g} of what it was)"


def _tighten_clip(guard: Guard, event: Event) -> str:
    """Clip gradients at a lower norm."""
    assert guard.clip is not None
    guard.clip *= guard.clip_factor
    return f"gradients clipped at {guard.clip:g}"


CHANGES: dict[str, Change] = {"skip": _skip, "lower_lr": _lower_rate, "tighten_clip": _tighten_clip}


def ways_of(policy: Any, has_clip: bool) -> list[list[Change]]:
    """The changes of each try, in turn: `policy` is a change, a tuple of several at once, or a list of such."""
    tries = policy if isinstance(policy, list) else [policy]
    if not tries:
        raise ValueError(f"Guard: policy has no change in it (at {user_source()})")
    return [[_change(each, has_clip) for each in (way if isinstance(way, tuple) else (way,))] for way in tries]


def _change(what: Any, has_clip: bool) -> Change:
    if callable(what):
        return what
    if what not in CHANGES:
        known = ", ".join(map(repr, CHANGES))
        raise ValueError(f"Guard: policy must be of {known}, or a function, got {what!r} (at {user_source()})")
    if what == "tighten_clip" and not has_clip:
        raise ValueError(
            f"Guard: policy 'tighten_clip' needs clip=, the norm to begin with (at {user_source()}); the step clips at "
            "guard.clip"
        )
    return CHANGES[what]


#: numbers of a group that are learning rates, and lists of a schedule
_OF_A_GROUP = ("lr", "initial_lr", "max_lr", "min_lr")
_OF_A_SCHEDULE = ("base_lrs", "max_lrs")


def scale_rates(optimizers: Sequence[Any], schedulers: Sequence[Any], factor: float) -> None:
    """Multiply the learning rates of all groups, and those that schedules begin with."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for name in _OF_A_GROUP:
                if name in group:
                    group[name] = _times(group[name], factor)
    for scheduler in schedulers:
        for name in _OF_A_SCHEDULE:
            if hasattr(scheduler, name):
                setattr(scheduler, name, [_times(rate, factor) for rate in getattr(scheduler, name)])
        scale_rates([], getattr(scheduler, "_schedulers", []), factor)


def _times(rate: Any, factor: float) -> Any:
    if not isinstance(rate, Tensor):
        return rate * factor
    with no_grad():
        return rate.mul_(factor)


__all__ = ["Change", "scale_rates", "ways_of"]
