"""Steps that train and write into an argument as well: the same as steps that are not compiled, and all or nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pullback as pb


def keeps_its_result(model: Any, x: pb.Tensor, given: pb.Tensor) -> pb.Tensor:
    y = (model(x) + given).tanh()
    given.copy_(y.detach().mean(0).expand(given.shape))
    return y


def clamps(model: Any, x: pb.Tensor, given: pb.Tensor) -> pb.Tensor:
    given.clamp_(-0.5, 0.5)
    return model(x + given.sum())


def averages(model: Any, x: pb.Tensor, given: pb.Tensor) -> pb.Tensor:
    with pb.no_grad():
        given.mul_(0.9).add_(model.weight.detach().mean(0), alpha=0.1)
    return model(x) * 2


def counts(model: Any, x: pb.Tensor, given: pb.Tensor) -> pb.Tensor:
    given.add_(1)
    return model(x) / given.mean()


WRITING = [keeps_its_result, clamps, averages, counts]


@pytest.mark.parametrize("write", WRITING)
@pytest.mark.parametrize("policy", ["raise", "skip", "ignore"])
@pytest.mark.parametrize("nested", [False, True])
def test_values_are_those_of_the_function(write: Any, policy: str, nested: bool) -> None:
    seen = []
    for compiled in (False, True):
        pb.manual_seed(0)
        model = pb.nn.Linear(3, 3)
        optimizer = pb.optim.Adam(model.parameters(), lr=0.1)

        def step(
            x: pb.Tensor, given: Any, optimizer: Any = optimizer, model: Any = model, write: Any = write
        ) -> pb.Tensor:
            optimizer.zero_grad()
            loss = write(model, x, given["h"] if nested else given).square().mean()
            loss.backward()
            optimizer.step()
            return loss

        run = pb.compile(step, on_nonfinite=policy) if compiled else step
        given, others, values = pb.full((3,), 0.7), pb.full((3,), 0.1), []
        for turn in range(6):
            one = others if turn == 4 else given
            x = pb.ones(4, 3) * (turn + 1)
            values += [run(x, {"h": one} if nested else one).item(), one.tolist(), model.weight.detach().tolist()]
        seen.append(values)
    for ours, wanted in zip(seen[1], seen[0], strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("policy", ["raise", "skip"])
def test_an_argument_stays_as_it_was_where_the_step_is_not_taken(policy: str) -> None:
    model = pb.nn.Linear(3, 3)
    optimizer = pb.optim.SGD(model.parameters(), lr=0.1)

    @pb.compile(on_nonfinite=policy)
    def step(x: pb.Tensor, given: pb.Tensor) -> pb.Tensor:
        optimizer.zero_grad()
        loss = keeps_its_result(model, x, given).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    given = pb.zeros(4, 3)
    step(pb.ones(4, 3), given)
    before = given.tolist(), model.weight.tolist()
    bad = pb.ones(4, 3)
    bad[1, 2] = float("nan")
    if policy == "raise":
        with pytest.raises(pb.errors.NonFiniteError):
            step(bad, given)
    else:
        step(bad, given)
        assert step.skipped == 1
    assert (given.tolist(), model.weight.tolist()) == before


def test_an_argument_that_becomes_infinite_by_itself_is_told() -> None:
    model = pb.nn.Linear(3, 3)

    @pb.compile
    def step(x: pb.Tensor, given: pb.Tensor) -> pb.Tensor:
        loss = model(x).square().mean()
        loss.backward()
        given.div_(x.sum() - x.sum())
        return loss

    given = pb.ones(3)
    with pytest.raises(pb.errors.NonFiniteError, match="div_"):
        step(pb.ones(2, 3), given)
    assert given.tolist() == [1, 1, 1]


def test_a_gradient_that_would_have_to_go_on_to_what_an_argument_is_made_of_is_refused() -> None:
    weight, root = pb.ones(3, requires_grad=True), pb.ones(3, requires_grad=True)

    @pb.compile
    def step(x: pb.Tensor) -> pb.Tensor:
        loss = (weight * x).sum()
        loss.backward()
        return loss

    leaf = pb.ones(3, requires_grad=True)
    step(leaf)  # which the recording is for, and not for the next one
    for _ in range(2):
        with pytest.raises(
            pb.errors.TraceError, match=r"the argument x was computed from something else that requires"
        ):
            step(root * 2)
    assert weight.grad.tolist() == [1, 1, 1] and root.grad is None  # type: ignore[union-attr]
    step(leaf), step((root * 2).detach())
    assert weight.grad.tolist() == [4, 4, 4] and leaf.grad.tolist() == [2, 2, 2]  # type: ignore[union-attr]
    assert pb.compile(lambda x: weight * x)(root * 2).tolist() == [2, 2, 2]
