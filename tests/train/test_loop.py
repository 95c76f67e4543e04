"""The loop, on steps that do no mathematics."""

import math
from typing import Any

import pytest

import pullback as pb
from pullback.train import Loop, NonFiniteLossError, Progress, warmup_cosine


class Optimizer:
    def __init__(self) -> None:
        self.param_groups: list[dict[str, Any]] = [{"lr": 0.0}, {"lr": 0.0}]


def make(losses: list[float], norm: float = 1.0, **changes: Any) -> tuple[Loop, list[Progress], list[list[float]]]:
    """A loop whose steps give these losses, what it tells, and the learning rates that the steps found."""
    told: list[Progress] = []
    rates: list[list[float]] = []
    optimizer = Optimizer()
    given = iter(losses)

    def step() -> tuple[pb.Tensor, pb.Tensor]:
        rates.append([group["lr"] for group in optimizer.param_groups])
        return pb.tensor(next(given)), pb.tensor(norm)

    options: dict[str, Any] = {
        "step": step, "batch": lambda: (), "steps": len(losses), "optimizer": optimizer,
        "learning_rate": lambda index: 0.5 / (index + 1), "evaluate": lambda: 7.0, "evaluate_every": 2, "items": 10,
        "on_progress": told.append,
    }  # fmt: skip
    return Loop(**{**options, **changes}), told, rates


def test_every_group_has_the_rate_of_the_step() -> None:
    loop, _, rates = make([1.0, 1.0])
    loop.run()
    assert rates == [[0.5, 0.5], [0.25, 0.25]]


def test_evaluations_come_at_their_steps_and_at_the_end() -> None:
    loop, told, _ = make([5.0, 4.0, 3.0, 2.0, 1.0])
    loop.run()
    assert [progress.step for progress in told if progress.evaluated] == [2, 4, 5]
    assert [progress.validation_loss for progress in told] == [None, 7.0, 7.0, 7.0, 7.0]
    assert [progress.loss for progress in told] == [5.0, 4.0, 3.0, 2.0, 1.0]
    assert told[-1].seconds_left == 0.0


def test_a_stopped_loop_ends_after_the_step_under_way() -> None:
    loop, told, _ = make([1.0] * 5)
    loop.on_progress = lambda progress: (told.append(progress), loop.stop() if progress.step == 3 else None)[0]
    loop.run()
    assert [progress.step for progress in told] == [1, 2, 3]
    assert loop.stopped


@pytest.mark.parametrize(
    ("loss", "norm", "what"),
    [(math.nan, 1.0, "the loss of step 2 is nan"), (1.0, math.inf, "the gradient norm of step 1 is inf")],
)
def test_a_step_that_is_not_finite_ends_the_run_untold(loss: float, norm: float, what: str) -> None:
    loop, told, _ = make([1.0, loss], norm)
    with pytest.raises(NonFiniteLossError, match=what):
        loop.run()
    assert [progress.step for progress in told] == ([1] if math.isfinite(norm) else [])


def test_a_validation_loss_that_is_not_finite_ends_the_run_untold() -> None:
    loop, told, _ = make([1.0, 1.0], evaluate=lambda: math.nan)
    with pytest.raises(NonFiniteLossError, match="validation loss after step 2"):
        loop.run()
    assert len(told) == 1


def test_the_rate_rises_in_a_line_and_falls_to_its_floor() -> None:
    rates = [warmup_cosine(step, 100, 1.0, 10, floor=0.1) for step in range(101)]
    assert rates[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.55)
    assert rates[100] == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert warmup_cosine(0, 1, 1.0, 0) == 1.0
