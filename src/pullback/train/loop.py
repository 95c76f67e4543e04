"""The loop around a compiled training step: learning rates, evaluations, events, and an end in good order."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import pullback as pb

from ..errors import NonFiniteError, PullbackError


class NonFiniteLossError(PullbackError, ArithmeticError):
    """The loss or the gradient norm of a step was infinite or not a number."""


class HasParameterGroups(Protocol):
    """What the loop needs of an optimizer."""

    param_groups: list[dict[str, Any]]


@dataclass(frozen=True)
class Progress:
    """What is known after a step. Steps count from 1.

    `gradient_norm` is the norm before clipping. `validation_loss` is that of the last evaluation, or None before the
    first; `evaluated` says whether it is of this very step. `seconds` have passed since the start, `seconds_left` is an
    estimate, and `items_per_second` counts training alone, over the last steps, not evaluations.
    """

    step: int
    steps: int
    loss: float
    gradient_norm: float
    learning_rate: float
    validation_loss: float | None
    evaluated: bool
    seconds: float
    seconds_left: float
    items_per_second: float


def warmup_cosine(step: int, steps: int, peak: float, warmup: int, floor: float = 0.1) -> float:
    """The learning rate of the step `step` (from 0) of `steps`: up in a line for `warmup` steps, then down in half a
    cosine to the share `floor` of the peak.

    Loshchilov and Hutter, SGDR (2017), without restarts.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    share = (step - warmup) / max(1, steps - warmup)
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share)))


@dataclass
class Loop:
    """Runs `step` on one batch after another.

    `step(*batch)` does the whole training step and returns its loss and gradient norm, two tensors of one element;
    `batch()` gives the next batch, and `items` is how many characters or examples are in it.
    `learning_rate(step)`, steps counted from 0, is set in every group of `optimizer` before each step.
    `evaluate()` gives the validation loss; it is called every `evaluate_every` steps and after the last.
    `on_progress` is told of every step, and `after_step` of its number then. A run that goes on from a snapshot has
    `done` steps behind it. `stop` may be called at any time, also by a signal handler: the run ends after
    the step under way.
    """

    step: Callable[..., tuple[pb.Tensor, pb.Tensor]]
    batch: Callable[[], tuple[pb.Tensor, ...]]
    steps: int
    optimizer: HasParameterGroups
    learning_rate: Callable[[int], float]
    evaluate: Callable[[], float]
    evaluate_every: int
    items: int
    on_progress: Callable[[Progress], None]
    after_step: Callable[[int], None] | None = None
    done: int = 0
    _stopped: bool = field(default=False, init=False)

    def stop(self) -> None:
        """End the run after the step under way."""
        self._stopped = True

    @property
    def stopped(self) -> bool:
        """Whether the end was asked for by `stop`."""
        return self._stopped

    def run(self) -> None:
        """Train to the end, or until `stop`.

        Raises NonFiniteLossError after a step whose loss or gradient norm is not finite, before anyone is told of it.
        """
        pace = _Pace()
        start = time.monotonic()
        validation_loss = None
        earlier = self.done // self.evaluate_every
        for index in range(self.done, self.steps):
            if self._stopped:
                return
            rate = self.learning_rate(index)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            before = time.monotonic()
            loss, norm = self._step(index + 1, rate)
            pace.add(time.monotonic() - before)
            _check_finite(index + 1, loss, norm, rate)
            evaluated = (index + 1) % self.evaluate_every == 0 or index + 1 == self.steps
            if evaluated:
                before = time.monotonic()
                validation_loss = self.evaluate()
                pace.evaluations.append(time.monotonic() - before)
                if not math.isfinite(validation_loss):
                    raise NonFiniteLossError(
                        f"the validation loss after step {index + 1} is {validation_loss}; take a smaller learning rate"
                    )
            still = self.steps - index - 1
            evaluations = -(-self.steps // self.evaluate_every) - len(pace.evaluations) - earlier
            self.on_progress(
                Progress(
                    index + 1,
                    self.steps,
                    loss,
                    norm,
                    rate,
                    validation_loss,
                    evaluated,
                    seconds=time.monotonic() - start,
                    seconds_left=still * pace.step_seconds + evaluations * pace.evaluation_seconds,
                    items_per_second=self.items / max(pace.step_seconds, 1e-9),
                )
            )
            if self.after_step is not None:
                self.after_step(index + 1)

    def _step(self, number: int, rate: float) -> tuple[float, float]:
        """Loss and gradient norm of one step."""
        try:
            loss, norm = (value.item() for value in self.step(*self.batch()))
        except NonFiniteError as fault:
            raise NonFiniteLossError(
                f"step {number} (learning rate {rate:.3g}): {str(fault).splitlines()[0]}; take a smaller learning rate"
            ) from fault
        return loss, norm


def _check_finite(step: int, loss: float, norm: float, rate: float) -> None:
    for what, value in (("loss", loss), ("gradient norm", norm)):
        if not math.isfinite(value):
            raise NonFiniteLossError(
                f"the {what} of step {step} is {value} (learning rate {rate:.3g}); take a smaller learning rate"
            )


class _Pace:
    """How long steps and evaluations take. The first step and the first evaluation also compile: they do not count
    once there are others."""

    def __init__(self) -> None:
        self.step_seconds = 0.0
        self.evaluations: list[float] = []
        self._seen = 0

    def add(self, seconds: float) -> None:
        """Take in the time of a step: a mean that forgets, at half after about 35 steps."""
        self._seen += 1
        share = 1.0 if self._seen <= 2 else max(1 / (self._seen - 1), 0.02)
        self.step_seconds += share * (seconds - self.step_seconds)

    @property
    def evaluation_seconds(self) -> float:
        counted = self.evaluations[1:] or self.evaluations
        return sum(counted) / len(counted) if counted else 0.0
