"""The solver of what to keep: schedules held against a checker of their own, and their work against exact optima."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pullback.compiler.repeats import Repeats, repeats
from pullback.compiler.retention import Solver, segments, solve
from pullback.compiler.schedules import Again, Part, Problem, Step, Timeline, Value
from pullback.compiler.stages import GRAINS, Plan, Stages
from retention_checker import chain, optimum, problems, replay, revolve


def kept(problem: Problem) -> int:
    """The peak with everything kept."""
    return replay(problem, ())[0]


@settings(max_examples=150)
@given(problems(), st.floats(0.0, 1.0))
def test_schedules_are_sound_and_say_what_they_hold_and_add(problem: Problem, fraction: float) -> None:
    limit = int(fraction * kept(problem))
    found = solve(problem, limit)
    assert replay(problem, found.again) == (found.peak, found.work)
    assert found.peak <= kept(problem)


@settings(max_examples=40)
@given(problems(steps=24), st.floats(0.2, 1.0))
def test_larger_problems(problem: Problem, fraction: float) -> None:
    found = solve(problem, int(fraction * kept(problem)))
    assert replay(problem, found.again) == (found.peak, found.work)
    lowest = Solver(problem).least(work=10.0)
    assert replay(problem, lowest.again) == (lowest.peak, lowest.work)
    assert lowest.work <= 10.0 and lowest.peak <= kept(problem)


@settings(max_examples=40, deadline=None)
@given(problems(steps=5), st.floats(0.4, 1.0))
def test_no_schedule_is_better_than_the_optimum_and_few_are_far_from_it(problem: Problem, fraction: float) -> None:
    limit = int(fraction * kept(problem))
    best, found = optimum(problem, limit), solve(problem, limit)
    if best is None:
        assert found.peak > limit
    elif found.peak <= limit:
        assert best <= found.work <= 3 * best + 9


def test_the_optimum_is_found_for_short_chains() -> None:
    for length in (4, 6, 7):
        problem = chain(length)
        for limit in range(3, length + 1):
            found = solve(problem, limit)
            assert found.peak <= limit
            assert found.work == optimum(problem, limit)


@pytest.mark.parametrize(("length", "limit"), [(100, 50), (100, 20), (100, 10), (200, 40), (200, 20)])
def test_long_chains_come_near_to_revolve(length: int, limit: int) -> None:
    problem = chain(length)
    found = solve(problem, limit)
    assert replay(problem, found.again) == (found.peak, found.work)
    assert found.peak <= limit
    assert found.work <= 1.15 * revolve(length, limit - 2)


def test_revolve_by_its_closed_form() -> None:
    """beta(s, r) = C(s + r, s) steps take at most r runs each (Griewank & Walther 2000, proposition 1): the total is
    r n - beta(s + 1, r - 1).
    """
    for slots in range(1, 6):  # besides the first input, so that s = slots + 1
        for length in range(2, 40):
            s = slots + 1
            runs = next(r for r in range(1, 99) if math.comb(s + r, s) >= length)
            assert revolve(length, slots) == runs * length - math.comb(s + runs, s + 1) - (length - 1)


def test_stages_keep_to_the_memory_that_they_are_given() -> None:
    problem = chain(60)
    stages = Stages.of(problem, Timeline(problem, {}))
    assert stages is not None
    plan = Plan(stages, 20)
    assert (plan.works[1:] <= plan.works[:-1]).all() and math.isinf(plan.works[0])
    assert set(plan.works[plan.levels()]) == set(plan.works) - {math.inf}
    parts = plan.parts(GRAINS)
    again = {v for part in parts for v in part.values}
    assert 60 - len(again) <= 20


def test_repeated_layers_are_found() -> None:
    assert repeats("abcde") is None
    assert repeats("") is None
    assert repeats("xabcabcabcabcyz") == Repeats(1, 3, 4)
    assert repeats("aaabcdbcdbcdbcd") == Repeats(3, 3, 4)
    assert repeats("aaaaaaab") == Repeats(0, 1, 7)


def blocks(count: int) -> Problem:
    """`count` blocks of a large value that is cheap to make again, a dear one, and the block's result; between a first
    and a last kernel of their own. Each backward step reads all three.
    """
    steps, values = [Step((), (0,))], [Value(5, 2.0)]
    for _ in range(count):
        last = len(values) - 1
        values += [Value(6, 1.0, (last,)), Value(4, 9.0, (last + 1,)), Value(2, 2.0, (last, last + 2))]
        steps += [Step(values[v].needs, (v,)) for v in range(last + 1, last + 4)]
    last = len(values) - 1
    steps.append(Step((last,), (last + 1,)))
    values.append(Value(1, None))
    for block in reversed(range(count)):
        own = range(3 * block, 3 * block + 4)
        steps.append(Step((*own, len(values) - 1), (len(values),)))
        values.append(Value(1, None))
    return Problem(steps, values)


def test_blocks_of_one_kind_are_solved_once() -> None:
    """A sequence of stages has a row of tables of its own only where no other is of the same kinds: the rows grow with
    the number of layers, and not with its square; and a budget is met by what is cheapest in each block.
    """
    rows = {}
    for count in (16, 32, 64):
        problem = blocks(count)
        stages = Stages.of(problem, Timeline(problem, {}))
        assert stages is not None and len(set(stages.kinds)) < 12
        rows[count] = len(Plan(stages, stages.beside()).least) / len(stages.kinds)
    assert rows[64] < 1.5 * rows[16]
    found = solve(problem, kept(problem) - 6 * 32)
    assert replay(problem, found.again) == (found.peak, found.work)
    assert found.work <= 34
    assert {again.value % 3 for again in found.again} == {1}


def residual(count: int) -> Problem:
    """`count` blocks that add to what goes through them, of which the backward pass reads what each has made of it, and
    not itself.
    """
    steps, values = [Step((), (0,))], [Value(8, 1.0)]
    for _ in range(count):
        through, made = len(values) - 1, len(values)
        values += [Value(8, 1.0, (through,)), Value(8, 1.0, (made,)), Value(8, 1.0, (through, made + 1))]
        steps += [Step(values[v].needs, (v,)) for v in range(made, made + 3)]
    for block in reversed(range(count)):
        steps.append(Step((3 * block + 1, 3 * block + 2, len(values) - 1), (len(values),)))
        values.append(Value(8, None))
    return Problem(steps, values)


def test_what_goes_through_residual_blocks_is_kept_for_making_them_again() -> None:
    problem = residual(64)
    found = solve(problem, kept(problem) // 5)
    assert replay(problem, found.again) == (found.peak, found.work)
    assert found.peak <= kept(problem) // 5
    assert found.work <= 3 * 64 + 1  # once more all that the forward pass makes


def test_segments_of_a_chain_are_chens() -> None:
    """n/k values of one segment and the k - 1 borders."""
    problem = chain(64)
    again = segments(problem, 8)
    schedule = tuple(Again(step, v) for step in sorted(again) for v in again[step])
    peak, work = replay(problem, schedule)
    assert peak <= 8 + 8 + 1
    assert work <= 64


def test_what_may_not_be_made_again_is_kept() -> None:
    fixed = Problem(
        [Step((), (0,)), Step((0,), (1,)), Step((1,), (2,)), Step((0, 2), (3,))],
        [Value(5, None), Value(3, 1.0, (0,)), Value(3, 1.0, (1,)), Value(1, None)],
    )
    assert solve(fixed, 0).again == ()


def test_a_part_is_made_again_in_one_go_and_an_inner_one_by_itself() -> None:
    """Four layers: the outer part is the second, third and fourth value, of which the third is an inner part's."""
    problem = chain(5)
    outer = Part(6, frozenset({1, 3}), "outer")
    inner = Part(7, frozenset({2}), "inner", frozenset({"outer"}))
    found = solve(Problem(problem.steps, problem.values, problem.wanted, (outer, inner)), 99)
    assert replay(problem, found.again) == (found.peak, found.work)
    # 2 is made for 3, let go, and made once more
    assert [again.value for again in found.again] == [1, 2, 3, 2]


def test_the_checker_finds_faults() -> None:
    problem = chain(4)
    assert replay(problem, ()) == (4, 0.0)
    for wrong in ([Again(2, 3)], [Again(9, 0)], [Again(6, 0), Again(5, 0)], [Again(5, 4)]):
        with pytest.raises(AssertionError):
            replay(problem, wrong)


@given(problems())
@settings(max_examples=30, deadline=None)
def test_no_schedule_stays_below_the_floor(problem: Problem) -> None:
    solver = Solver(problem)
    assert solver.floor <= solver.solve(solver.floor).peak
    assert solver.floor <= solver.solve(0).peak
