"""Schedules of schedules, and one that looks at how training goes."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from ...errors import StateDictError
from ...ops.primitive import user_source
from ..optimizer import Optimizer
from .schedule import LRScheduler, check_state, checked, rates_of, refuse_inside_compiled_steps, set_rate, warn_of_epoch


class _Several(LRScheduler):
    """Schedules of one optimizer."""

    _schedulers: Sequence[LRScheduler]

    def _check_all(self, schedulers: Sequence[Any], optimizer: Optimizer | None) -> Optimizer:
        """The optimizer of all, `optimizer` if given; raises where one cannot take part."""
        kind = type(self).__name__
        if len(schedulers) < 1:
            raise ValueError(f"{kind} expects at least one scheduler, but got no scheduler (at {user_source()})")
        for place, scheduler in enumerate(schedulers):
            if not hasattr(scheduler, "optimizer"):
                raise TypeError(
                    f"{kind} at index {place} should have `optimizer` as its attribute, got "
                    f"{type(scheduler).__name__} (at {user_source()})"
                )
            if isinstance(scheduler, ReduceLROnPlateau):
                raise ValueError(
                    f"{kind} does not support `ReduceLROnPlateau` scheduler as it requires additional kwargs to be "
                    f"specified when calling `step`, but got one at index {place} (at {user_source()})"
                )
            if optimizer is None:
                optimizer = scheduler.optimizer
            if optimizer is not scheduler.optimizer:
                raise ValueError(
                    f"{kind} expects all schedulers to belong to the same optimizer, but got scheduler "
                    f"{type(scheduler).__name__} of another at index {place} (at {user_source()})"
                )
        return checked(optimizer)

    def state_dict(self) -> dict[str, Any]:
        """The own state, and that of each schedule."""
        own = {key: value for key, value in super().state_dict().items() if key != "_schedulers"}
        return {**own, "_schedulers": [scheduler.state_dict() for scheduler in self._schedulers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what state_dict gave."""
        check_state(self, state_dict, "_schedulers")
        if len(state_dict["_schedulers"]) != len(self._schedulers):
            raise StateDictError(
                f"this is the state of {len(state_dict['_schedulers'])} schedules, and {type(self).__name__} has "
                f"{len(self._schedulers)} (at {user_source()})"
            )
        vars(self).update({key: value for key, value in state_dict.items() if key != "_schedulers"})
        for scheduler, saved in zip(self._schedulers, state_dict["_schedulers"], strict=True):
            scheduler.load_state_dict(saved)


class SequentialLR(_Several):
    """One schedule after the other: the next takes over at each of the `milestones`, one fewer than schedules."""

    def __init__(
        self, optimizer: Optimizer, schedulers: list[LRScheduler], milestones: list[int], last_epoch: int = -1
    ):
        self.optimizer = self._check_all(schedulers, optimizer)
        if len(milestones) != len(schedulers) - 1:
            raise ValueError(
                "Sequential Schedulers expects number of schedulers provided to be one more than the number of "
                f"milestone points, but got number of schedulers {len(schedulers)} and the number of milestones to be "
                f"equal to {len(milestones)} (at {user_source()})"
            )
        self._schedulers, self._milestones = schedulers, milestones
        self.last_epoch = last_epoch + 1
        # the schedules made their first steps when they were made: those are taken back, but for the one that begins
        for group in optimizer.param_groups:
            set_rate(group, group["initial_lr"])
        self.recursive_undo()
        first = schedulers[bisect_right(milestones, 0)]
        first._initial_step()
        self._last_lr = first.get_last_lr()

    def recursive_undo(self, sched: Any = None) -> None:
        """Take back the step that the schedules, and those in them, made when they were made."""
        found = self if sched is None else sched
        if hasattr(found, "_schedulers"):
            for scheduler in found._schedulers:
                self.recursive_undo(scheduler)
        elif hasattr(found, "last_epoch"):
            found.last_epoch -= 1

    def step(self) -> None:  # type: ignore[override]
        """Go on by one epoch."""
        refuse_inside_compiled_steps()
        self.last_epoch += 1
        place = bisect_right(self._milestones, self.last_epoch)
        scheduler = self._schedulers[place]
        if place > 0 and self._milestones[place - 1] == self.last_epoch:
            scheduler._update_lr(0)
        else:
            scheduler.step()
        self._last_lr = scheduler.get_last_lr()


class ChainedScheduler(_Several):
    """Several schedules at once: each changes the rate that the one before it left."""

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None):
        self.optimizer = self._check_all(schedulers, optimizer)
        self._schedulers = schedulers
        self._last_lr = rates_of(self.optimizer)

    def step(self) -> None:  # type: ignore[override]
        """Go on by one epoch."""
        refuse_inside_compiled_steps()
        for scheduler in self._schedulers:
            scheduler.step()
        self._last_lr = rates_of(self.optimizer)


class ReduceLROnPlateau(LRScheduler):
    """The rate times `factor` (not below `min_lr`) once `metrics` has not become better for more than `patience` calls.

    Better is lower (`mode` "min") or higher ("max") than the best so far by `threshold`, a share of it
    (`threshold_mode` "rel") or a distance ("abs"). After a reduction `cooldown` calls do not count; changes below `eps`
    are not made. Call step(metrics) with a number or a computed tensor, outside of compiled steps.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: list[float] | float = 0,
        eps: float = 1e-8,
    ):
        if factor >= 1.0:
            raise ValueError(f"Factor should be < 1.0. ReduceLROnPlateau: factor is {factor} (at {user_source()})")
        if mode not in ("min", "max"):
            raise ValueError(f'mode {mode} is unknown! It may be "min" or "max" (at {user_source()})')
        if threshold_mode not in ("rel", "abs"):
            raise ValueError(f'threshold mode {threshold_mode} is unknown! "rel" or "abs" are (at {user_source()})')
        self.optimizer, self.factor = checked(optimizer), factor
        count = len(optimizer.param_groups)
        one_each = isinstance(min_lr, list | tuple)
        if one_each and len(min_lr) != count:  # type: ignore[arg-type]
            raise ValueError(f"expected {count} min_lrs, got {len(min_lr)} (at {user_source()})")  # type: ignore[arg-type]
        self.default_min_lr = None if one_each else min_lr
        self.min_lrs: list[Any] = list(min_lr) if one_each else [min_lr] * count  # type: ignore[arg-type]
        self.patience, self.cooldown, self.eps = patience, cooldown, eps
        self.mode, self.threshold, self.threshold_mode = mode, threshold, threshold_mode
        self.last_epoch = 0
        self._last_lr = rates_of(optimizer)
        self._reset()

    @property
    def mode_worse(self) -> float:
        """What everything is better than."""
        return math.inf if self.mode == "min" else -math.inf

    def _reset(self) -> None:
        self.best = self.mode_worse
        self.cooldown_counter = self.num_bad_epochs = 0

    @property
    def in_cooldown(self) -> bool:
        """Whether calls do not count now."""
        return self.cooldown_counter > 0

    def step(self, metrics: Any, epoch: int | None = None) -> None:  # type: ignore[override]
        """Look at the newest value of what is watched."""
        refuse_inside_compiled_steps()
        current = float(metrics)
        if epoch is None:
            epoch = self.last_epoch + 1
        else:
            warn_of_epoch()
        self.last_epoch = epoch
        if self._is_better(current, self.best):
            self.best, self.num_bad_epochs = current, 0
        else:
            self.num_bad_epochs += 1
        if self.in_cooldown:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._reduce()
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
        self._last_lr = rates_of(self.optimizer)

    def _reduce(self) -> None:
        groups = self.optimizer.param_groups
        if len(groups) != len(self.min_lrs):
            if self.default_min_lr is None:
                raise RuntimeError(
                    f"The number of param groups in the `optimizer` ({len(groups)}) differs from when "
                    f"`ReduceLROnPlateau` was initialized ({len(self.min_lrs)}): make the `min_lrs` field as long "
                    f"(at {user_source()})"
                )
            self.min_lrs = [self.default_min_lr] * len(groups)
        for group, before, least in zip(groups, rates_of(self.optimizer), self.min_lrs, strict=True):
            after = max(before * self.factor, least)
            if before - after > self.eps:
                set_rate(group, after)

    def _is_better(self, value: float, best: float) -> bool:
        margin = self.threshold if self.mode == "max" else -self.threshold
        bound = best * (1.0 + margin) if self.threshold_mode == "rel" else best + margin
        return value > bound if self.mode == "max" else value < bound

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what state_dict gave, here or in PyTorch."""
        check_state(self, state_dict, "last_epoch")
        super().load_state_dict({key: value for key, value in state_dict.items() if key != "mode_worse"})


__all__ = ["ChainedScheduler", "ReduceLROnPlateau", "SequentialLR"]
