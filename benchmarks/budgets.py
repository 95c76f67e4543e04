"""Budgets: what steps cost in less memory, and how their memory grows with depth.

    python -m benchmarks budgets          networks that published work measured, in fractions of their memory
    python -m benchmarks growth           networks of 10 to 1,000 layers: all kept, memory="least", √n segments by hand

Each budgeted step runs beside the same step without a budget, in turns. What is divided is the memory that a budget can
lower: the peak less parameters, optimizer state, inputs, and the gradients that are all there at the end; that of the
step itself without a budget, and that which PyTorch takes for the same step, which is what the published figures are
parts of.
"""

from __future__ import annotations

import importlib.util
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import pullback as pb
from pullback import timeline

from . import memory, output, workloads
from .published import NETWORKS

#: layers of the networks of `growth`
LAYERS = (10, 20, 50, 100, 200, 500, 1000)
_WIDTH, _BATCH = 64, 2048
#: runs of each step in a round of turns take so long together, in seconds
_ROUND_SECONDS = 0.5


class Measured(NamedTuple):
    """A compiled step and what finding out how to run it took, in seconds."""

    step: Any
    plan: Any
    solving: float


def _planned(workload: workloads.Workload, memory: int | str | None) -> Measured:
    spans: list[timeline.Span] = []
    step = pb.compile(workload.step, memory=memory)
    with timeline.listen(spans.append):
        plan = step.plan()
    solving = sum(span.end - span.begin for span in spans if span.name == "rematerialize") * 1e-9
    return Measured(step, plan, solving)


def state_of(plan: Any) -> int:
    """Bytes that no budget lowers: parameters, optimizer state, inputs, and all gradients at the end."""
    return sum(plan.breakdown[role] for role in ("parameters", "optimizer", "inputs")) + int(
        plan.timeline["gradients"].max()
    )


def _ratios(steps: Sequence[Any], rounds: int) -> list[float]:
    """The time of each step as a multiple of the first one's: medians over rounds in which they take turns."""
    once = [_seconds(step, 2) for step in steps]
    count = max(1, round(_ROUND_SECONDS / sum(once)))
    taken = [[_seconds(step, count) for step in steps] for _ in range(rounds)]
    return [statistics.median(row[place] / row[0] for row in taken) for place in range(len(steps))]


def _seconds(step: Any, count: int) -> float:
    """The median over so many calls."""
    times = []
    for _ in range(count):
        start = time.perf_counter()
        step().item()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _row(measured: Measured, free: Measured) -> dict[str, Any]:
    """What a budgeted step's plan says beside that of the free one, and what it really held."""
    fixed, plan = state_of(free.plan), measured.plan
    return {
        "steps": plan.steps,
        "peak": plan.peak_bytes,
        "held": measured.step.memory.peak_bytes,
        "free": free.plan.peak_bytes,
        "less": (free.plan.peak_bytes - fixed) / (plan.peak_bytes - fixed),
        "recomputed": plan.recomputed_flops / (plan.flops - plan.recomputed_flops),
        "solving": measured.solving,
    }


def measure_torch(name: str) -> int:
    """Bytes that this process grows by when it trains a network in PyTorch, whose code ran before on a smaller one."""
    import torch

    network = NETWORKS[name]
    network.build(torch, **network.smaller).step().item()
    memory.forget_most()
    before = memory.resident("VmRSS")
    workload = network.build(torch)
    for _ in range(3):
        workload.step().item()
    return memory.resident("VmHWM") - before


def _beside(name: str) -> int | None:
    """`measure_torch` in a process of its own; None where PyTorch is not installed or memory cannot be measured."""
    if not memory.MEASURABLE or importlib.util.find_spec("torch") is None:
        return None
    command = [sys.executable, "-m", "benchmarks.budgets", name]
    ran = subprocess.run(command, cwd=memory.ROOT, capture_output=True, text=True, timeout=600)
    if ran.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{ran.stderr}")
    return int(json.loads(ran.stdout))


def measure(names: Iterable[str], rounds: int) -> list[dict[str, Any]]:
    """The networks of `published.NETWORKS` in the fractions of their memory that were published."""
    rows = []
    for name in names:
        network = NETWORKS[name]
        free, torch = _planned(network.build(pb), None), _beside(name)
        fixed = state_of(free.plan)
        wholes = {"own": free.plan.peak_bytes, **({} if torch is None else {"PyTorch's": torch})}
        asked = [(factor, of) for factor in network.factors for of in wholes]
        limits = [fixed + int((wholes[of] - fixed) / factor) for factor, of in asked]
        found = [free if free.plan.peak_bytes <= limit else _planned(network.build(pb), limit) for limit in limits]
        able = [one for one, limit in zip(found, limits, strict=True) if one.plan.peak_bytes <= limit]
        ratios = _ratios([one.step for one in (free, *able)], rounds)
        time_of = {id(one): ratio for one, ratio in zip((free, *able), ratios, strict=True)} | {id(free): 1.0}
        for (factor, of), limit, one in zip(asked, limits, found, strict=True):
            row: dict[str, Any] = {"network": name, "factor": factor, "of": of, "published": network.published}
            row |= {"free": free.plan.peak_bytes, "torch": torch}
            if one.plan.peak_bytes <= limit:
                less = (wholes[of] - fixed) / (one.plan.peak_bytes - fixed)
                row |= {**_row(one, free), "less": less, "time": time_of[id(one)]}
            else:
                row |= {"refused": f"refused, the least is {output.megabytes(one.plan.peak_bytes)}"}
            rows.append(row)
    return rows


def table(rows: Sequence[dict[str, Any]]) -> None:
    """Print what `measure` gave."""
    columns = ("‹network", "PyTorch", "free", "asked", "peak", "less", "work", "time", "found in", "‹published")
    cells = []
    for row in rows:
        torch = "–" if row["torch"] is None else output.megabytes(row["torch"])
        begin = (row["network"], torch, output.megabytes(row["free"]), f"1/{row['factor']:g} of {row['of']}")
        if "refused" in row:
            cells.append((*begin, "", "", "", "", "", row["refused"]))
            continue
        cells.append((
            *begin, output.megabytes(row["peak"]), f"{row['less']:.2f}×", f"{row['recomputed']:+.1%}",
            f"{row['time'] - 1:+.1%}", output.seconds(row["solving"]), row["published"],
        ))  # fmt: skip
    output.table("Steps in less memory, beside the same step without a budget", columns, cells)


# ---- depth


def deep(layers: int, segments: int = 0) -> workloads.Workload:
    """`layers` × (Linear 64 + Tanh) on 2048 rows under SGD; with `segments` checkpointed by hand in so many."""
    nn, checkpoint = pb.nn, pb.utils.checkpoint.checkpoint_sequential
    pb.manual_seed(0)
    model = nn.Sequential(*[nn.Sequential(nn.Linear(_WIDTH, _WIDTH), nn.Tanh()) for _ in range(layers)])
    x = pb.randn(_BATCH, _WIDTH)
    optimizer = pb.optim.SGD(model.parameters(), lr=1e-3)
    forward: Callable[[], Any] = lambda: (checkpoint(model, segments, x) if segments else model(x)).square().mean()  # noqa: E731
    return workloads.Workload(pb, model, optimizer, forward, None)


def growth(layers: Sequence[int], rounds: int) -> list[dict[str, Any]]:
    """Memory, work and time of networks of so many layers, in each of the three ways."""
    rows = []
    for count in layers:
        ways = {
            "all kept": _planned(deep(count), None),
            "least": _planned(deep(count), "least"),
            "√n segments": _planned(deep(count, math.isqrt(count)), None),
        }
        free = ways["all kept"]
        ratios = _ratios([one.step for one in ways.values()], rounds)
        for (way, one), ratio in zip(ways.items(), ratios, strict=True):
            rows.append({"layers": count, "way": way, **_row(one, free), "state": state_of(free.plan), "time": ratio})
    return rows


def growth_table(rows: Sequence[dict[str, Any]]) -> None:
    """Print what `growth` gave, and the powers of the depth that memory grows with."""
    output.table(
        "Memory beside parameters and inputs against depth",
        ("layers", "‹way", "memory", "less", "work", "time", "found in"),
        [
            (
                f"{row['layers']:,}", row["way"], output.megabytes(row["peak"] - row["state"]), f"{row['less']:.2f}×",
                f"{row['recomputed']:+.1%}", f"{row['time'] - 1:+.1%}", output.seconds(row["solving"]),
            )
            for row in rows
        ],
    )  # fmt: skip
    for way, exponent in exponents(rows).items():
        print(f"{way}: memory grows as the depth to the power {exponent:.2f}")


def exponents(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """For each way the power of the depth that memory grows with, by least squares over the logarithms."""
    found = {}
    for way in dict.fromkeys(row["way"] for row in rows):
        points = [(math.log(r["layers"]), math.log(r["peak"] - r["state"])) for r in rows if r["way"] == way]
        if len(points) > 1:
            found[way] = statistics.linear_regression(*zip(*points, strict=True)).slope
    return found


if __name__ == "__main__":
    print(json.dumps(measure_torch(sys.argv[1])))
