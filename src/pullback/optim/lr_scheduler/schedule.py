"""LRScheduler: what all schedules have in common."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

from ...errors import StateDictError, TraceError
from ...ops.primitive import user_source
from ...tensor import Tensor
from ...tensor.state import STATE
from ..groups import Group, number
from ..optimizer import Optimizer


class LRScheduler:
    """The base: sets every group's "lr" to `get_lr()`, once when made and then at each step().

    `last_epoch` counts the steps from 0; pass the count to go on from, with "initial_lr" in the groups. Call step()
    after the optimizer's. A subclass gives `get_lr`, from the rates there are to the next, and where there is one
    `_get_closed_form_lr`, from `last_epoch` alone.

    >>> optimizer = pb.optim.SGD([pb.ones(1, requires_grad=True)], lr=1.0)
    >>> scheduler = pb.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    >>> rates = []
    >>> for _ in range(4):
    ...     optimizer.step()
    ...     scheduler.step()
    ...     rates += scheduler.get_last_lr()
    >>> rates
    [1.0, 0.5, 0.5, 0.25]
    """

    _get_closed_form_lr: Callable[[], list[Any]]
    _is_initial = False

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1):
        self.optimizer = checked(optimizer)
        for place, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", number(group["lr"]))
            elif "initial_lr" not in group:
                raise KeyError(
                    f"param 'initial_lr' is not specified in param_groups[{place}] when resuming scheduler with "
                    f"last_epoch={last_epoch} (at {user_source()}): load the optimizer's state first"
                )
        self.base_lrs: list[Any] = [rate(group, "initial_lr") for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._initial_step()

    def _initial_step(self) -> None:
        self._step_count = 0
        self._is_initial = True
        try:
            self.step()
        finally:
            self._is_initial = False

    def get_lr(self) -> list[Any]:
        """The next rate of each group, from those that there are. To look at the rates, use `get_last_lr`."""
        raise NotImplementedError(f"{type(self).__name__} must define get_lr()")

    def get_last_lr(self) -> list[float]:
        """The rates that were set last."""
        return self._last_lr

    def step(self, epoch: int | None = None) -> None:
        """Go on by one epoch; or to `epoch`, of which PyTorch warns."""
        refuse_inside_compiled_steps()
        if self._step_count == 1 and not self.optimizer._stepped:
            warnings.warn(
                "Detected call of `lr_scheduler.step()` before `optimizer.step()`. You should call them in the "
                "opposite order: otherwise the first value of the schedule is skipped.",
                UserWarning,
                stacklevel=2,
            )
        self._step_count += 1
        if epoch is not None:
            warn_of_epoch()
        self._update_lr(epoch)

    def _update_lr(self, epoch: int | None = None) -> None:
        if epoch is None:
            self.last_epoch += 1
            values = self.get_lr()
        else:
            self.last_epoch = epoch
            values = self._get_closed_form_lr() if hasattr(self, "_get_closed_form_lr") else self.get_lr()
        self._set(values)

    def _set(self, values: list[Any]) -> None:
        for group, value in zip(self.optimizer.param_groups, values, strict=True):
            set_rate(group, value)
        self._last_lr: list[float] = rates_of(self.optimizer)

    def _current(self) -> list[Any]:
        """The rate that each group has now."""
        return [rate(group) for group in self.optimizer.param_groups]

    def _times(self, factor: float) -> list[Any]:
        return [value * factor for value in self._current()]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer; of functions only the attributes of callable objects."""
        return {key: value for key, value in vars(self).items() if key != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what state_dict gave, here or in PyTorch; StateDictError where it is no such state."""
        check_state(self, state_dict, "last_epoch")
        vars(self).update(state_dict)


def check_state(scheduler: LRScheduler, state_dict: object, *needed: str) -> None:
    """Raise StateDictError where a saved state is none of this kind of schedule."""
    known = state_dict if isinstance(state_dict, Mapping) else {}
    missing = [name for name in needed if name not in known]
    if missing:
        kind = type(scheduler).__name__
        raise StateDictError(f"this is not the state of a {kind}: it has no {', '.join(missing)} (at {user_source()})")


def refuse_inside_compiled_steps() -> None:
    """Raise TraceError where a step is being recorded."""
    if STATE.trace is not None:
        raise TraceError(
            f"a scheduler's step() in a compiled step (at {user_source()}) would be taken only while the step is "
            "recorded: the rate would never change again. Call it after each call of the compiled function."
        )


def checked(optimizer: Any) -> Optimizer:
    """The optimizer; raises TypeError where it is something else."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{type(optimizer).__name__} is not an Optimizer (at {user_source()})")
    return optimizer


def rate(group: Group, key: str = "lr") -> Any:
    """A rate of a group as a number; where the group's is a tensor, in its dtype, so that it is computed as there."""
    value = number(group[key])
    return group["lr"].dtype.carrier.type(value) if isinstance(group["lr"], Tensor) else value


def set_rate(group: Group, value: Any) -> None:
    """Give a group a rate: its tensor a value, where it has a tensor."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(float(value))
    else:
        group["lr"] = value


def rates_of(optimizer: Optimizer) -> list[float]:
    """The rates of all groups as Python's numbers."""
    return [number(group["lr"]) for group in optimizer.param_groups]


def for_each_group(name: str, optimizer: Optimizer, value: Any) -> list[Any]:
    """One value a group, from a list of them or from one for all."""
    count = len(optimizer.param_groups)
    if not isinstance(value, list | tuple):
        return [number(value)] * count
    if len(value) != count:
        raise ValueError(
            f"{name} must have the same length as optimizer.param_groups: {name} has {len(value)} values, "
            f"param_groups has {count} (at {user_source()})"
        )
    return [number(item) for item in value]


class ScheduleEnded(ValueError):
    """A schedule is asked for more steps than it was made for."""


def warn_of_epoch() -> None:
    """PyTorch's warning of the argument `epoch`."""
    warnings.warn(
        "The epoch parameter in `scheduler.step()` was not necessary and is being deprecated where possible. With it "
        "the closed form is used instead of the chainable form, where there is one.",
        UserWarning,
        stacklevel=3,
    )


def saved_function(function: Any) -> dict[str, Any] | None:
    """What of a function can be saved: the attributes of a callable object."""
    return None if isinstance(function, FunctionType) else dict(vars(function))


__all__ = [
    "LRScheduler",
    "ScheduleEnded",
    "check_state",
    "checked",
    "for_each_group",
    "rate",
    "rates_of",
    "refuse_inside_compiled_steps",
    "saved_function",
    "set_rate",
    "warn_of_epoch",
]
