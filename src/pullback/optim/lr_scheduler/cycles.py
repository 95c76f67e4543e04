"""Schedules that rise and fall: CyclicLR, OneCycleLR and CosineAnnealingWarmRestarts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ...ops.primitive import user_source
from ..optimizer import Optimizer
from .schedule import (
    LRScheduler,
    ScheduleEnded,
    check_state,
    checked,
    for_each_group,
    refuse_inside_compiled_steps,
    saved_function,
    set_rate,
)


class _WithMomentum(LRScheduler):
    """A schedule that may set momenta too: "momentum", or the first of "betas"."""

    cycle_momentum: bool
    use_beta1: bool

    def _start_momentum(self, base: Any, greatest: Any, last_epoch: int) -> tuple[list[float], list[float]]:
        """Find what to set, have compiled steps follow it, and start from the greatest; the two ends by group."""
        optimizer = self.optimizer
        if "momentum" not in optimizer.defaults and "betas" not in optimizer.defaults:
            raise ValueError(
                "optimizer must support momentum or beta1 with `cycle_momentum` option enabled: "
                f"{type(optimizer).__name__} has neither (at {user_source()}); pass cycle_momentum=False"
            )
        self.use_beta1 = "betas" in optimizer.defaults
        optimizer.follow("betas" if self.use_beta1 else "momentum")
        bases = for_each_group("base_momentum", optimizer, base)
        greatests = for_each_group("max_momentum", optimizer, greatest)
        if last_epoch == -1:
            for group, low, high in zip(optimizer.param_groups, bases, greatests, strict=True):
                group["max_momentum"], group["base_momentum"] = high, low
            self._set_momentum(greatests)
        return bases, greatests

    def _set_momentum(self, values: list[float]) -> None:
        for group, value in zip(self.optimizer.param_groups, values, strict=True):
            if self.use_beta1:
                group["betas"] = (value, *group["betas"][1:])
            else:
                group["momentum"] = value


class CyclicLR(_WithMomentum):
    """Up from `base_lr` to `max_lr` in `step_size_up` steps and down again in `step_size_down` (the same), over and
    over: Smith, "Cyclical Learning Rates for Training Neural Networks" (2017).

    Later cycles are as high ("triangular"), half as high each ("triangular2") or gamma^step as high ("exp_range"); or
    `scale_fn` says, of the number of the cycle or of the step (`scale_mode` "cycle" or "iterations"). Momenta go the
    other way, from `max_momentum` to `base_momentum`, if `cycle_momentum`.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: float | list[float],
        max_lr: float | list[float],
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None,
        scale_mode: str = "cycle",
        cycle_momentum: bool = True,
        base_momentum: float = 0.8,
        max_momentum: float = 0.9,
        last_epoch: int = -1,
    ):
        self.optimizer = checked(optimizer)
        base_lrs = for_each_group("base_lr", optimizer, base_lr)
        self.max_lrs = for_each_group("max_lr", optimizer, max_lr)
        if mode not in ("triangular", "triangular2", "exp_range") and scale_fn is None:
            raise ValueError(
                f'mode is invalid and scale_fn is None: mode must be "triangular", "triangular2" or "exp_range", got '
                f"{mode!r} (at {user_source()})"
            )
        if last_epoch == -1:
            for value, group in zip(base_lrs, optimizer.param_groups, strict=True):
                set_rate(group, value)
        up = float(step_size_up)
        self.total_size = up + (up if step_size_down is None else float(step_size_down))
        self.step_ratio = up / self.total_size
        self.mode, self.gamma, self.scale_mode = mode, gamma, scale_mode
        self._scale_fn_custom = scale_fn
        if scale_fn is None:
            self.scale_mode = "iterations" if mode == "exp_range" else "cycle"
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            self.base_momentums, self.max_momentums = self._start_momentum(base_momentum, max_momentum, last_epoch)
        super().__init__(optimizer, last_epoch)
        self.base_lrs = base_lrs

    def scale_fn(self, x: float) -> float:
        """How high the cycle, or step, number `x` is."""
        if self._scale_fn_custom is not None:
            return self._scale_fn_custom(x)
        if self.mode == "triangular":
            return 1.0
        return 1 / (2.0 ** (x - 1)) if self.mode == "triangular2" else self.gamma**x

    def get_lr(self) -> list[Any]:
        """The next rate of each group; sets the momenta."""
        cycle = math.floor(1 + self.last_epoch / self.total_size)
        x = 1.0 + self.last_epoch / self.total_size - cycle
        share = x / self.step_ratio if x <= self.step_ratio else (x - 1) / (self.step_ratio - 1)
        scale = self.scale_fn(cycle if self.scale_mode == "cycle" else self.last_epoch)
        if self.cycle_momentum:
            ends = zip(self.base_momentums, self.max_momentums, strict=True)
            self._set_momentum([high - (high - low) * share * scale for low, high in ends])
        return [low + (high - low) * share * scale for low, high in zip(self.base_lrs, self.max_lrs, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer; of `scale_fn` only the attributes of a callable object."""
        function = self._scale_fn_custom
        return {**super().state_dict(), "_scale_fn_custom": None if function is None else saved_function(function)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what state_dict gave."""
        check_state(self, state_dict, "_scale_fn_custom")
        super().load_state_dict({key: value for key, value in state_dict.items() if key != "_scale_fn_custom"})
        if state_dict["_scale_fn_custom"] is not None:
            vars(self._scale_fn_custom).update(state_dict["_scale_fn_custom"])


class OneCycleLR(_WithMomentum):
    """One rise to `max_lr` and one fall far below the start, in `total_steps` steps (or `epochs` × `steps_per_epoch`):
    Smith & Topin, "Super-Convergence" (2018).

    The start is max_lr / div_factor, the end start / final_div_factor; `pct_start` is the share of the rise, and
    `three_phase` first falls back to the start as fast as it rose. `anneal_strategy` is "cos" or "linear". Momenta go
    the other way, between `max_momentum` and `base_momentum`, if `cycle_momentum`. Call step() after each batch.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | list[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.85,
        max_momentum: float | list[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ):
        self.optimizer = checked(optimizer)
        self.total_steps = _total_steps(total_steps, epochs, steps_per_epoch)
        if not isinstance(pct_start, float) or not 0 <= pct_start <= 1:
            raise ValueError(f"Expected float between 0 and 1 pct_start, but got {pct_start} (at {user_source()})")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(
                f"anneal_strategy must be one of 'cos' or 'linear', instead got {anneal_strategy} (at {user_source()})"
            )
        self._schedule_phases = _phases(pct_start * self.total_steps, self.total_steps - 1, three_phase)
        self._anneal_func_type = anneal_strategy
        max_lrs = for_each_group("max_lr", optimizer, max_lr)
        if last_epoch == -1:
            for group, greatest in zip(optimizer.param_groups, max_lrs, strict=True):
                group["initial_lr"], group["max_lr"] = greatest / div_factor, greatest
                group["min_lr"] = group["initial_lr"] / final_div_factor
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            self._start_momentum(base_momentum, max_momentum, last_epoch)
        super().__init__(optimizer, last_epoch)

    def _between(self, start: float, end: float, share: float) -> float:
        if self._anneal_func_type == "linear":
            return (end - start) * share + start
        return end + (start - end) / 2.0 * (math.cos(math.pi * share) + 1)

    def get_lr(self) -> list[Any]:
        """The next rate of each group; sets the momenta."""
        step = self.last_epoch
        if step > self.total_steps:
            raise ScheduleEnded(
                f"Tried to step {step} times. The specified number of total steps is {self.total_steps} "
                f"(at {user_source()})"
            )
        start = 0.0
        for phase in self._schedule_phases:
            if step <= phase["end_step"]:
                break
            start = phase["end_step"]
        else:
            phase = self._schedule_phases[-1]
            start = self._schedule_phases[-2]["end_step"]
        share = (step - start) / (phase["end_step"] - start)
        groups = self.optimizer.param_groups
        if self.cycle_momentum:
            ends = [(group[phase["start_momentum"]], group[phase["end_momentum"]]) for group in groups]
            self._set_momentum([self._between(*pair, share) for pair in ends])
        return [self._between(group[phase["start_lr"]], group[phase["end_lr"]], share) for group in groups]


def _total_steps(total_steps: int | None, epochs: int | None, steps_per_epoch: int | None) -> int:
    if total_steps is None and (epochs is None or steps_per_epoch is None):
        raise ValueError(f"You must define either total_steps OR (epochs AND steps_per_epoch) (at {user_source()})")
    given = (
        {"epochs": epochs, "steps_per_epoch": steps_per_epoch} if total_steps is None else {"total_steps": total_steps}
    )
    for name, value in given.items():
        if not isinstance(value, int) or value <= 0:
            raise ValueError(f"Expected positive integer {name}, but got {value} (at {user_source()})")
    return math.prod(given.values())  # type: ignore[arg-type]


def _phases(rise: float, last: int, three: bool) -> list[dict[str, Any]]:
    """Where each phase ends, and between which of a group's values it goes; `rise` steps lead to the top."""

    def phase(end: float, rates: tuple[str, str], momenta: tuple[str, str]) -> dict[str, Any]:
        names = ("end_step", "start_lr", "end_lr", "start_momentum", "end_momentum")
        return dict(zip(names, (end, *rates, *momenta), strict=True))

    top, bottom = "max_momentum", "base_momentum"
    first = phase(float(rise) - 1, ("initial_lr", "max_lr"), (top, bottom))
    if not three:
        return [first, phase(last, ("max_lr", "min_lr"), (bottom, top))]
    back = phase(float(2 * rise) - 2, ("max_lr", "initial_lr"), (bottom, top))
    return [first, back, phase(last, ("initial_lr", "min_lr"), (top, top))]


class CosineAnnealingWarmRestarts(LRScheduler):
    """Half a cosine from the initial rate to `eta_min` in `T_0` epochs, again in `T_mult` times as many, and so on:
    Loshchilov & Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts" (2017). step(epoch) takes fractions.
    """

    def __init__(self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0, last_epoch: int = -1):
        if not isinstance(T_0, int) or T_0 <= 0:
            raise ValueError(f"Expected positive integer T_0, but got {T_0} (at {user_source()})")
        if not isinstance(T_mult, int) or T_mult < 1:
            raise ValueError(f"Expected integer T_mult >= 1, but got {T_mult} (at {user_source()})")
        if not isinstance(eta_min, float | int):
            raise ValueError(
                f"Expected float or int eta_min, but got {eta_min} of type {type(eta_min)} (at {user_source()})"
            )
        self.T_0 = self.T_i = T_0
        self.T_mult, self.eta_min = T_mult, eta_min
        self.T_cur: float = last_epoch
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[Any]:
        """The next rate of each group."""
        share = 1 + math.cos(math.pi * self.T_cur / self.T_i)
        return [self.eta_min + (base - self.eta_min) * share / 2 for base in self.base_lrs]

    def step(self, epoch: float | None = None) -> None:
        """Go on by one epoch, or to `epoch`, which may be a fraction: step(epoch + batch / batches)."""
        refuse_inside_compiled_steps()
        if epoch is None and self.last_epoch < 0:
            epoch = 0
        if epoch is None:
            epoch = self.last_epoch + 1
            self.T_cur += 1
            if self.T_cur >= self.T_i:
                self.T_cur %= self.T_i
                self.T_i *= self.T_mult
        else:
            if epoch < 0:
                raise ValueError(f"Expected non-negative epoch, but got {epoch} (at {user_source()})")
            self._go_to(epoch)
        self.last_epoch = math.floor(epoch)
        self._set(self.get_lr())

    def _go_to(self, epoch: float) -> None:
        if epoch < self.T_0:
            self.T_i, self.T_cur = self.T_0, epoch
        elif self.T_mult == 1:
            self.T_cur = epoch % self.T_0
        else:
            restarts = int(math.log(epoch / self.T_0 * (self.T_mult - 1) + 1, self.T_mult))
            self.T_cur = epoch - self.T_0 * (self.T_mult**restarts - 1) / (self.T_mult - 1)
            self.T_i = self.T_0 * self.T_mult**restarts


__all__ = ["CosineAnnealingWarmRestarts", "CyclicLR", "OneCycleLR"]
