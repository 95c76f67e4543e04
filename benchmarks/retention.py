"""What to keep and what to compute again: ways of choosing it beside one another, on the steps of the workloads.

Each way is given the same limits, and its schedule is played through by the same rules: the most bytes that live at
once, the work that is added, and the time it took to find. CP-SAT is tried where OR-tools is installed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import pullback as pb
from pullback.compiler.rematerialize import work_of as work_of_node
from pullback.compiler.retention import segments, solve
from pullback.compiler.schedules import Life, Part, Problem, Schedule, Step, Timeline, Value
from pullback.ops.primitive import LEAF, MOVEMENT
from pullback.runtime.fit import Fitter
from pullback.runtime.layout import Layout

from . import workloads

#: limits, as parts of the memory with everything kept
LIMITS = (0.75, 0.5, 0.35, 0.25, 0.15)
#: seconds that CP-SAT may take, and the longest problem that it is given: its model grows with steps × values
_SECONDS, _LONGEST = 60.0, 260


class Case(NamedTuple):
    """A problem, and the work of all its steps."""

    name: str
    problem: Problem
    work: float


def chain(length: int) -> Case:
    """Equal layers one after the other, and their backward steps, which read their layers' inputs."""
    steps = [Step((i - 1,) if i else (), (i,)) for i in range(length)]
    values = [Value(64, 1.0, (i - 1,) if i else ()) for i in range(length)]
    for i in reversed(range(length)):
        steps.append(Step(((i - 1,) if i else ()) + (len(values) - 1,), (len(values),)))
        values.append(Value(0, None))
    return Case(f"chain of {length}", Problem(steps, values), 3.0 * length)


def step_of(name: str, **sizes: Any) -> Case:
    """The step of a workload, which is planned and neither compiled nor run."""
    workload = workloads.build(pb, name, **sizes)
    layout: Layout = pb.compile(workload.step).plan()._program.layout  # type: ignore[attr-defined]
    fitter = Fitter(layout, lambda fusion: layout, None)
    nodes = layout.fusion.graph.nodes
    work = sum(work_of_node(node, False) for node in nodes if node.op.kind not in (LEAF, MOVEMENT))
    return Case(name, fitter.known.problem, work)


# ---- ways


def chen(problem: Problem, limit: int) -> dict[int, list[int]]:
    """The best of segments of about equal bytes, by their number (Chen et al. 2016)."""
    tried = [segments(problem, n) for n in range(2, 65)]
    return min(tried, key=lambda before: _rank(problem, before, limit))


def knapsack(problem: Problem, limit: int) -> dict[int, list[int]]:
    """What PyTorch's partitioner does with a budget: of what the backward pass reads, keep what is dearest for its
    bytes until they fill the budget, and compute the rest again where it is first read. The limit is held by what is
    saved, which is not the peak.
    """
    timeline = Timeline(problem, {})
    full = timeline.bytes.index(timeline.peak)
    saved = [life for life in timeline.lives if life.made < full < timeline.end(life)]
    beside = timeline.peak - sum(problem.values[life.value].nbytes for life in saved)
    left = limit - beside
    gone: list[Life] = []
    for life in sorted(saved, key=lambda life: -_price(problem.values[life.value])):
        nbytes, work, _ = problem.values[life.value]
        if work is not None and left < nbytes:
            gone.append(life)
        else:
            left -= nbytes
    parts = []
    for life in gone:
        after = [event for event in life.read if event > full]
        if after:
            parts.append(Part(after[0], frozenset({life.value}), life.value))
    return solve(replace(problem, parts=tuple(parts)), 1 << 62).before()


def _price(value: Value) -> float:
    return float("inf") if value.work is None else value.work / max(value.nbytes, 1)


def _rank(problem: Problem, before: dict[int, list[int]], limit: int) -> tuple[float, float]:
    timeline = Timeline(problem, before)
    return max(timeline.peak - limit, 0), work_of(problem, before)


def work_of(problem: Problem, before: dict[int, list[int]]) -> float:
    """What a schedule adds."""
    return sum(problem.values[v].work or 0.0 for again in before.values() for v in again)


def pullback(problem: Problem, limit: int) -> dict[int, list[int]]:
    """The compiler's own."""
    return solve(problem, limit).before()


def cp_sat(problem: Problem, limit: int) -> dict[int, list[int]] | None:
    """Checkmate's program (Jain et al. 2020) for CP-SAT, with one computation of each value before each step: what is
    in memory before each step, and what is made again there. None where OR-tools is not installed, finds nothing in
    time, or the problem is too long.
    """
    try:
        from ortools.sat.python import cp_model
    except ImportError:
        return None
    if len(problem.steps) > _LONGEST:
        return None
    model = cp_model.CpModel()
    steps, values = problem.steps, problem.values
    made = {v: number for number, step in enumerate(steps) for v in step.makes}
    again = {
        (t, v): model.new_bool_var("")
        for t in range(len(steps))
        for v, value in enumerate(values)
        if value.work is not None and made[v] < t
    }
    held = {(t, v): model.new_bool_var("") for t in range(1, len(steps) + 1) for v in range(len(values)) if made[v] < t}
    for t, step in enumerate(steps):
        here = [v for v in range(len(values)) if made[v] < t]
        for v in here:
            model.add_bool_or([held[t, v], *([again[t, v]] if (t, v) in again else []), held[t + 1, v].negated()])
            if (t, v) in again:
                for needed in values[v].needs:
                    there = [held[t, needed], *([again[t, needed]] if (t, needed) in again else [])]
                    model.add_bool_or([again[t, v].negated(), *there])
        for v in step.reads:
            model.add_bool_or([held[t, v], *([again[t, v]] if (t, v) in again else [])])
        # what is made again for others alone may be let go right after: counted as there until the step, as Checkmate's
        # bound without its variables for freeing, so that what is found can be a little dear, never too large
        nbytes = [values[v].nbytes * held[t, v] for v in here]
        nbytes += [values[v].nbytes * again[t, v] for v in here if (t, v) in again]
        model.add(sum(nbytes) + sum(values[v].nbytes for v in step.makes) + step.extra <= limit)
        for v in here:
            if (t, v) in again:
                model.add_bool_or([again[t, v].negated(), held[t, v].negated()])
    for v in problem.wanted:
        model.add(held[len(steps), v] == 1)
    model.minimize(sum(int(values[v].work or 0) * again[t, v] for t, v in again))
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = _SECONDS
    solver.parameters.num_workers = 2
    if solver.solve(model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    found: dict[int, list[int]] = {}
    for t, v in sorted(again, key=lambda pair: (pair[0], made[pair[1]])):
        if solver.value(again[t, v]):
            found.setdefault(t, []).append(v)
    return found


WAYS: dict[str, Callable[[Problem, int], dict[int, list[int]] | None]] = {
    "Chen": chen, "knapsack": knapsack, "CP-SAT": cp_sat, "Pullback": pullback,
}  # fmt: skip


# ---- measuring


def measure(names: Iterable[str], limits: Sequence[float] = LIMITS) -> list[dict[str, Any]]:
    """For each workload, limit and way: the peak as a part of the one with everything kept, the added work as a part of
    the work of all steps, and the seconds to find it.
    """
    found = []
    for name in names:
        case = chain(int(name.removeprefix("chain"))) if name.startswith("chain") else step_of(name)
        peak = Timeline(case.problem, {}).peak
        for share in limits:
            for way, choose in WAYS.items():
                begin = time.perf_counter()
                before = choose(case.problem, int(share * peak))
                seconds = time.perf_counter() - begin
                if before is None:
                    continue
                held = Timeline(case.problem, before).peak / peak
                added = work_of(case.problem, before) / case.work
                row = {"name": case.name, "steps": len(case.problem.steps), "limit": share, "way": way}
                found.append({**row, "peak": held, "added": added, "seconds": seconds})
    return found


def table(rows: Sequence[dict[str, Any]]) -> None:
    """Print what `measure` gave."""
    print(f"{'step':<14}{'kernels':>8}{'limit':>7}  {'way':<10}{'peak':>7}{'added work':>12}{'seconds':>9}")
    for row in rows:
        over = " over the limit" if row["peak"] > row["limit"] + 1e-6 else ""
        print(
            f"{row['name']:<14}{row['steps']:>8}{row['limit']:>7.2f}  {row['way']:<10}{row['peak']:>7.3f}"
            f"{row['added']:>11.1%}{row['seconds']:>9.2f}{over}"
        )


__all__ = ["LIMITS", "WAYS", "Schedule", "measure", "table"]
