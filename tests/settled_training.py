"""A compiled step that has run often enough to write its state in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import pullback as pb
from oracle import numbers


class Training(NamedTuple):
    """A step that has run a few times, what it trains, and with which optimizer."""

    step: Callable[[], pb.Tensor]
    model: Any
    weight: pb.Tensor
    optimizer: Any

    @property
    def momentum(self) -> pb.Tensor:
        return self.optimizer.state[self.weight]["momentum_buffer"]


def training(clip: bool = False, steps: int = 5) -> Training:
    pb.manual_seed(0)
    model = pb.nn.Sequential(pb.nn.Linear(3, 4), pb.nn.Tanh(), pb.nn.Linear(4, 2))
    optimizer = pb.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x, y = pb.randn(5, 3), pb.randn(5, 2)

    @pb.compile
    def step() -> pb.Tensor:
        optimizer.zero_grad()
        loss = ((model(x) - y) ** 2).mean() * 10
        loss.backward()
        if clip:
            pb.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        return loss

    for _ in range(steps):
        step().item()
    return Training(step, model, model[0].weight, optimizer)


def is_settled(step: Any) -> bool:
    return step._last.settled is not None


def is_calm(step: Any) -> bool:
    return is_settled(step) and step._last.settled.is_calm()


def read(held: Any) -> np.ndarray:
    return numbers(held) if isinstance(held, pb.Tensor) else np.array(held)
