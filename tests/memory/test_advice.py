"""What an error says of changes that no step keeps to its budget with, and that it is not searched for twice."""

import re
from collections.abc import Callable

import pytest

import pullback as pb
from pullback import debug, nn
from pullback.compiler.retention import Solver
from pullback.errors import MemoryBudgetError
from pullback.tracing import ways

pytestmark = pytest.mark.skipif(debug.get("backend") == "reference", reason="the reference has no arena")


def steps() -> tuple[Callable[[int], Callable[[pb.Tensor], pb.Tensor]], pb.Tensor]:
    """Steps by how many parts the batch is divided into, and a batch."""
    model = nn.Sequential(*[layer for _ in range(2) for layer in (nn.Linear(24, 24), nn.Tanh())])

    def in_parts(parts: int) -> Callable[[pb.Tensor], pb.Tensor]:
        optimizer = pb.optim.SGD(model.parameters(), lr=0.1)

        def step(x: pb.Tensor) -> pb.Tensor:
            optimizer.zero_grad()
            if parts > 1:
                loss = pb.accumulate(lambda part: model(part).square().mean(), x, parts=parts)
            else:
                loss = model(x).square().mean()
                loss.backward()
            optimizer.step()
            return loss

        return step

    return in_parts, pb.zeros(64, 24)


def test_where_no_change_is_enough_the_best_together_are_told() -> None:
    """Each with its bytes, as plans under the same budget have them; parts with what is computed again in them."""
    in_parts, x = steps()
    budget = 12_000
    with pytest.raises(MemoryBudgetError) as caught:
        pb.compile(in_parts(1), memory=budget)(x)
    words = str(caught.value)
    divided = re.search(r"micro-batches: .*parts=(\d+)\): (\d+) bytes", words)
    together = re.search(r"together: allow=\[(.*)\], with .*parts=(\d+)\): (\d+) bytes", words)
    assert divided is not None and together is not None and "not looked at" not in words
    parts, peak = map(int, divided.groups())
    assert pb.plan(in_parts(parts), x, memory=budget).peak_bytes == peak > budget
    assert peak <= pb.plan(in_parts(2), x, memory=budget).peak_bytes
    allow = [name.strip("'") for name in together[1].split(", ")]
    assert pb.plan(in_parts(int(together[2])), x, memory=budget, allow=allow).peak_bytes == int(together[3]) < peak
    alone = re.search(r"allow=\['early-update'\]: (\d+) bytes", words)
    assert alone is not None and int(together[3]) < int(alone[1])


def test_changes_for_which_there_is_no_time_are_said_not_to_be_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    in_parts, x = steps()
    monkeypatch.setattr(ways, "_SECONDS", 0.0)
    with pytest.raises(MemoryBudgetError, match="were not looked at") as caught:
        pb.compile(in_parts(1), memory=12_000)(x)
    assert "allow=" not in str(caught.value) and "an optimizer" not in str(caught.value)


def test_a_problem_is_solved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a plan, for the step that follows."""
    in_parts, x = steps()
    planned = pb.plan(in_parts(1), x, memory="least").peak_bytes

    def solve(*args: object) -> None:
        raise AssertionError("searched for once more")

    monkeypatch.setattr(Solver, "_solve", solve)
    assert pb.plan(in_parts(1), x, memory="least").peak_bytes == planned
