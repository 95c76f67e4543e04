"""What small trainings are made of: a network, data, and the usual step."""

from collections.abc import Callable
from typing import Any

import pullback as pb

nn, F, optim = pb.nn, pb.nn.functional, pb.optim
Step = Callable[[], Any]


def net(*more: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), *more, nn.Linear(16, 3))


def data() -> tuple[pb.Tensor, pb.Tensor]:
    return pb.randn(64, 6), pb.randint(0, 3, (64,))


def plain(model: nn.Module, optimizer: Any, loss_of: Callable[..., Any] = F.cross_entropy, x: Any = None) -> Step:
    """The usual step; its lines are not marked."""
    given, y = data()
    x = given if x is None else x

    def step() -> None:
        optimizer.zero_grad()
        loss = loss_of(model(x), y)
        loss.backward()
        optimizer.step()

    return step
