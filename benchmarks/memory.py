"""Memory: what a step holds by its plan, what the process grows by, and what PyTorch takes for the same step.

    python -m benchmarks memory                  every workload, beside PyTorch: one table
    python -m benchmarks.memory gpt-deep         one workload in this process, as a line of JSON

Two growths are measured. That over the state after the plan was made, when the model is built and the step recorded but
nothing allocated, is what the plan promises: it must come within 2% or 8 MiB of it. That over the state after importing
the library has the recording, the compiled code and the compiler's own memory in it too: it is what PyTorch's figure is
compared with.
"""

from __future__ import annotations

import gc
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import workloads

#: how far the growth may be from the plan: a share of it, and at least so many bytes
SLACK, LEAST_SLACK = 0.02, 8 << 20
MEASURABLE = Path("/proc/self/clear_refs").exists() and Path("/proc/self/status").exists()
#: a network in which no two layers are of one shape, so that each has kernels of its own; and how many layers
WIDTHS, _LAYERS = "widths", 30
NAMES = (*workloads.NAMES, *workloads.BY_NAME, WIDTHS)
ROOT = Path(__file__).parents[1]
_STEPS = 3
#: what is aimed at for the growth over the state after import
TARGETS = {"gpt-deep": "at most 0.6 of PyTorch's", "gpt2": "at most 2,003 MiB"}


def resident(kind: str) -> int:
    """Bytes of this process that are resident now ("VmRSS"), or at most since the last `forget_most` ("VmHWM")."""
    match = re.search(rf"{kind}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match is not None
    return int(match[1]) * 1024


def forget_most() -> None:
    """Have "VmHWM" begin anew."""
    Path("/proc/self/clear_refs").write_text("5")


def measure(name: str) -> dict[str, int]:
    """The plan of a workload, what its step really held, and what this process grew by, in bytes."""
    import pullback as pb
    from pullback.runtime.buffers import return_free

    imported = resident("VmRSS")
    _warm(pb)
    workload = _build(pb, name)
    step = pb.compile(workload.step)
    plan = step.plan()
    gc.collect()
    return_free()  # what is only left over is no state to grow from
    forget_most()
    before = resident("VmRSS")
    for _ in range(_STEPS):
        step().item()
    most = resident("VmHWM")
    held = step.memory.peak_bytes
    return {"plan": plan.peak_bytes, "held": held, "growth": most - before, "over import": most - imported}


def _build(library: Any, name: str, **options: Any) -> workloads.Workload:
    if name != WIDTHS:
        return workloads.build(library, name, **options)
    nn, widths = library.nn, [64 + 8 * i for i in range(_LAYERS + 1)]
    layers = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
    model, x = nn.Sequential(*layers), library.ones(64, 64)
    optimizer = library.optim.Adam(model.parameters(), lr=1e-3, fused=options.get("fused"))
    return workloads.Workload(library, model, optimizer, lambda: model(x).square().mean(), None)


def _warm(library: Any) -> None:
    """A small step, after which the compiler and the threads are there."""
    workload = workloads.build(library, "mlp")
    library.compile(workload.step)().item()
    gc.collect()


def measure_torch(name: str) -> dict[str, int]:
    """What a process grows by that trains a workload in PyTorch, eager with its fused optimizer."""
    import torch

    imported = resident("VmRSS")
    forget_most()
    workload = _build(torch, name, fused=True)
    for _ in range(_STEPS):
        workload.step().item()
    return {"over import": resident("VmHWM") - imported}


def in_a_process(name: str, library: str = "pullback", timeout: float = 600) -> dict[str, int]:
    """`measure` in a new process, after another one has filled the cache of compiled code."""
    command = [sys.executable, "-m", "benchmarks.memory", name, library]
    for _ in range(2 if library == "pullback" else 1):
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
        if ran.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{ran.stderr}")
    return json.loads(ran.stdout.splitlines()[-1])


def run(names: Sequence[str], timeout: float) -> list[dict[str, Any]]:
    """All measurements of some workloads, PyTorch's too where it is installed."""
    rows = []
    for name in names:
        row: dict[str, Any] = {"name": name, **in_a_process(name, timeout=timeout)}
        try:
            row["torch"] = in_a_process(name, "torch", timeout)["over import"]
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            row["failed"] = str(error).splitlines()[-1]
        rows.append(row)
        print(table([row]).splitlines()[-1], file=sys.stderr, flush=True)
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The measurements as a table in Markdown, in MiB."""
    head = "| workload | plan | held | growth | of the plan | over import | PyTorch over import | quotient | target |"
    lines = [head, "|---|--:|--:|--:|--:|--:|--:|--:|---|"]
    for row in rows:
        cells = [f"{row[key] / 2**20:,.1f}" for key in ("plan", "held", "growth")]
        off = abs(row["growth"] - row["plan"])
        within = "kept" if off <= max(SLACK * row["plan"], LEAST_SLACK) else "missed"
        cells.append(f"{within}: {(row['growth'] - row['plan']) / 2**20:+.1f}")
        cells.append(f"{row['over import'] / 2**20:,.0f}")
        torch = row.get("torch")
        cells += [f"{torch / 2**20:,.0f}", f"{row['over import'] / torch:.2f}"] if torch else [row["failed"], ""]
        lines.append(f"| {row['name']} | {' | '.join(cells)} | {TARGETS.get(row['name'], '')} |")
    return "\n".join(lines)


if __name__ == "__main__":
    library = sys.argv[2] if len(sys.argv) > 2 else "pullback"
    print(json.dumps((measure if library == "pullback" else measure_torch)(sys.argv[1])))
