"""Schedules of the learning rate against PyTorch's."""

import pytest
import torch

import pullback as pb

KINDS = {
    "lambda": lambda s, o: s.LambdaLR(o, lambda epoch: 0.9**epoch),
    "lambdas": lambda s, o: s.LambdaLR(o, [lambda epoch: 1 / (1 + epoch), lambda epoch: 1.0]),
    "step": lambda s, o: s.StepLR(o, 3, gamma=0.5),
    "cosine": lambda s, o: s.CosineAnnealingLR(o, T_max=8, eta_min=0.01),
    "linear": lambda s, o: s.LinearLR(o, 0.25, 0.75, total_iters=5),
}


def make(library, kind: str):
    a, b = (library.nn.Parameter(library.ones(1)) for _ in range(2))
    optimizer = library.optim.SGD([{"params": [a]}, {"params": [b], "lr": 0.7}], lr=0.2)
    return optimizer, KINDS[kind](library.optim.lr_scheduler, optimizer)


def rates(optimizer, scheduler, count: int) -> list[list[float]]:
    found = []
    for _ in range(count):
        found.append([group["lr"] for group in optimizer.param_groups])
        assert scheduler.get_last_lr() == found[-1]
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_rates(kind: str) -> None:
    ours, theirs = rates(*make(pb, kind), 12), rates(*make(torch, kind), 12)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(other, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_going_on(kind: str) -> None:
    whole = rates(*make(pb, kind), 8)
    optimizer, scheduler = make(pb, kind)
    rates(optimizer, scheduler, 4)
    later, its = make(pb, kind)
    later.load_state_dict(optimizer.state_dict())
    its.load_state_dict(scheduler.state_dict())
    assert rates(later, its, 4) == whole[4:]


def test_errors() -> None:
    with pytest.raises(TypeError, match="StepLR takes an optimizer, got float"):
        pb.optim.lr_scheduler.StepLR(0.1, 3)
    optimizer, _ = make(pb, "step")
    with pytest.raises(ValueError, match="3 functions for 2 groups"):
        pb.optim.lr_scheduler.LambdaLR(optimizer, [abs] * 3)
    with pytest.raises(KeyError, match="initial_lr"):
        pb.optim.lr_scheduler.StepLR(pb.optim.SGD([pb.nn.Parameter(pb.ones(1))], lr=0.1), 3, last_epoch=4)
