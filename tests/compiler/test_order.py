"""The order of kernels: everything is there when it is read, and nothing is passed that must come first."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pullback.compiler.order import Constraints, forwarded
from pullback.compiler.schedules import Problem, Step, Timeline, Value
from retention_checker import problems


@settings(max_examples=60)
@given(problems(steps=14), st.data())
def test_an_order_keeps_to_what_holds_kernels_back(problem: Problem, data: st.DataObject) -> None:
    count = len(problem.steps)
    after = [data.draw(st.sets(st.integers(0, number - 1), max_size=2)) if number else set() for number in range(count)]
    fixed = data.draw(st.sets(st.integers(0, count - 1), max_size=2))
    order = forwarded(problem, Constraints(after, fixed))
    assert sorted(order) == list(range(count))
    place = {step: position for position, step in enumerate(order)}
    maker = {value: number for number, step in enumerate(problem.steps) for value in step.makes}
    for number, step in enumerate(problem.steps):
        assert all(place[maker[value]] < place[number] for value in step.reads)
        assert all(place[other] < place[number] for other in after[number])
    assert sorted(place[number] for number in fixed) == [place[number] for number in sorted(fixed)]


def test_updates_come_behind_their_gradients() -> None:
    """Gradients of 8, a number that all updates read, and updates that free what they read."""
    gradients = [Step((), (value,)) for value in range(6)]
    numbers = Step((), (6,))
    updates = [Step((value, 6), (7 + value,)) for value in range(6)]
    values = [*(Value(8 * 64, None) for _ in range(6)), Value(4, None), *(Value(0, None) for _ in range(6))]
    problem = Problem([*gradients, numbers, *updates], values)
    free = Constraints([()] * 13, ())
    order = forwarded(problem, free)
    assert order == [0, 6, 7, 1, 8, 2, 9, 3, 10, 4, 11, 5, 12]
    moved = Problem([problem.steps[number] for number in order], values)
    assert Timeline(problem, {}).peak == 6 * 512 + 4 and Timeline(moved, {}).peak == 512 + 4
    # the last gradient reads what the first update writes over
    held = Constraints([(), (), (), (), (), (), (), (5,), (), (), (), (), ()], ())
    assert forwarded(problem, held) == [0, 1, 6, 8, 2, 9, 3, 10, 4, 11, 5, 7, 12]
