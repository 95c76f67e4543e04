"""Ways to run a program are tried in turn; the fastest is kept, and looked at again after a while."""

import time
from collections.abc import Callable
from typing import Any

import pytest

import pullback as pb
from benchmarks import workloads
from oracle import numbers
from pullback.runtime import native as programs
from pullback.runtime import trial
from pullback.runtime.trial import Trial


class _Clock:
    """A clock that only the ways move on."""

    def __init__(self) -> None:
        self.now = 0

    def way(self, took: Callable[[int], int]) -> list[Callable[[], None]]:
        runs = iter(range(10_000))

        def call() -> None:
            self.now += took(next(runs))

        return [call]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    found = _Clock()
    monkeypatch.setattr(time, "perf_counter_ns", lambda: found.now)
    return found


def _winner(ways: list[Any]) -> int:
    tried = Trial(ways)
    for _ in range(1000):
        fastest = tried.run()
        if fastest is not None:
            return fastest
    raise AssertionError("the trial does not end")


def test_the_fastest_way_is_kept(clock: _Clock) -> None:
    assert _winner([clock.way(lambda _: 30), clock.way(lambda _: 20), clock.way(lambda _: 25)]) == 1


def test_an_interruption_decides_nothing(clock: _Clock) -> None:
    assert _winner([clock.way(lambda run: 9000 if run in (8, 14) else 20), clock.way(lambda _: 25)]) == 0


def test_the_first_runs_after_another_way_do_not_count(clock: _Clock) -> None:
    cold = clock.way(lambda run: 500 if run % (trial._WARMING + 1) == 0 else 20)
    assert _winner([cold, clock.way(lambda _: 25)]) == 0


def _losses(threads: int, count: int) -> tuple[list[bytes], Any]:
    pb.set_num_threads(threads)
    pb.manual_seed(7)
    work = workloads.build(pb, "mlp")
    step = pb.compile(work.step)
    losses = [numbers(step()).tobytes() for _ in range(count)]
    return [*losses, *(numbers(p.detach()).tobytes() for p in work.model.parameters())], step


@pytest.mark.native("the reference tries nothing")
def test_a_program_settles_tries_again_and_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "AGAIN", 50)
    before = pb.get_num_threads()
    try:
        alone, step = _losses(1, 400)
        assert step.program._trial is None and len(step.program._ways) == 1
        shared, step = _losses(2, 400)
    finally:
        pb.set_num_threads(before)
    ways = step.program._ways
    assert len(ways) > 1 and any(step.program._calls is way for way in ways)
    assert shared == alone


@pytest.mark.native("the reference tries nothing")
def test_a_profile_is_of_the_way_that_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    def last(self: Trial) -> int:
        for call in self.ways[-1]:
            call()
        return len(self.ways) - 1

    monkeypatch.setattr(Trial, "run", last)
    before = pb.get_num_threads()
    try:
        pb.set_num_threads(2)
        step = pb.compile(workloads.build(pb, "mlp").step)
        step()
        with pb.profile():
            step()
    finally:
        pb.set_num_threads(before)
    stages = [stage for stage in step.program.stages if stage.stamped is not None]
    assert stages and all(stage.schedule is stage.schedules[-1] for stage in stages)
    assert not any(bundle.sharing for stage in stages for bundle in stage.bundles)


@pytest.mark.native("the reference tries nothing")
def test_what_is_large_is_shared_without_a_trial() -> None:
    before = pb.get_num_threads()
    try:
        pb.set_num_threads(2)
        step = pb.compile(lambda x: x @ x)
        step(pb.ones(512, 512))
    finally:
        pb.set_num_threads(before)
    assert len(step.program._ways) == 1 and step.program.threads() == 2
