"""What the system says a step holds: the growth of a process's resident memory, beside the plan."""

from __future__ import annotations

import pytest

from benchmarks.memory import LEAST_SLACK, MEASURABLE, SLACK, in_a_process

#: those that run in seconds; `python -m benchmarks memory` measures all
NAMES = ("mlp", "lstm", "gpt-char", "resnet20", "widths")


@pytest.mark.native("the reference has no arena")
@pytest.mark.skipif(not MEASURABLE, reason="the most that was resident is read from /proc and reset there")
@pytest.mark.parametrize("name", NAMES)
def test_resident_memory_grows_by_the_plan(name: str) -> None:
    found = in_a_process(name)
    assert found["held"] == found["plan"]
    assert abs(found["growth"] - found["plan"]) <= max(SLACK * found["plan"], LEAST_SLACK), found
