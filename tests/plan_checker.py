"""Plans of the benchmarks' workloads, and an independent check that a plan agrees with itself."""

from __future__ import annotations

import itertools
from typing import Any

import pullback as pb
from benchmarks import workloads
from pullback.memory import ROLES, Plan

WORKLOADS: dict[str, dict[str, int]] = {
    **{name: {} for name in workloads.SMALL},
    "lstm": {},
    "gpt-char": {},
    "resnet20": {"blocks": 1, "batch": 2, "size": 16},
}


def planned(name: str, **budget: Any) -> tuple[workloads.Workload, Plan]:
    """A small form of a workload, and the plan of its step."""
    workload = workloads.build(pb, name, **WORKLOADS[name])
    return workload, pb.plan(workload.step, **budget)


def check(plan: Plan) -> None:
    """Assert that a plan agrees with itself, each buffer looked at by itself."""
    assert tuple(plan.breakdown) == ROLES and min(plan.breakdown.values()) >= 0
    assert sum(plan.breakdown.values()) == plan.peak_bytes
    held = [sum(b.nbytes for b in plan.buffers if b.first <= step <= b.last) for step in range(plan.steps)]
    assert max(held) == held[plan.peak_step] == plan.peak_bytes - plan.gap_bytes
    placed = [b for b in plan.buffers if b.offset is not None]
    arena = plan.peak_bytes - sum(b.nbytes for b in plan.buffers if b.offset is None)
    assert all(0 <= b.first <= b.last < plan.steps for b in plan.buffers)
    assert all(b.offset % 64 == 0 and b.offset + b.nbytes <= arena for b in placed)
    for step in range(plan.steps):
        alive = sorted((b.offset, b.offset + b.nbytes, b.what) for b in placed if b.first <= step <= b.last)
        for (_, end, one), (start, _, other) in itertools.pairwise(alive):
            assert end <= start, f"{one} and {other} share bytes at step {step}"
