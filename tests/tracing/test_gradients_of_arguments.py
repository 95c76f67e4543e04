"""An argument's `.grad`, read or replaced inside of a compiled step, is the argument's own."""

from __future__ import annotations

import pytest

import pullback as pb


def clears(x):
    x.grad = None
    (x * x.detach() * 3).sum().backward()
    return x.grad * 1


def zeroes(x):
    if x.grad is not None:
        x.grad.zero_()
    (x * x.detach() * 3).sum().backward()
    return x.grad * 1


def adds(x):
    (x * x.detach() * 3).sum().backward()
    return x.grad * 1


def only_adds(x):
    (x * x.detach() * 3).sum().backward()
    return x * 1


@pytest.mark.parametrize("function", [clears, zeroes, adds, only_adds])
def test_a_compiled_step_does_as_the_function_does(function) -> None:
    step, seen = pb.compile(function), []
    for run in (function, step):
        x = pb.tensor([1.0, 2.0], requires_grad=True)
        seen.append([(run(x).tolist(), x.grad.tolist()) for _ in range(3)])
    assert seen[0] == seen[1]


def test_new_arguments_without_gradients_share_a_recording() -> None:
    step = pb.compile(adds)
    for _ in range(3):
        assert step(pb.tensor([1.0, 2.0], requires_grad=True)).tolist() == [3.0, 6.0]
    assert "with 1 recording>" in repr(step)
