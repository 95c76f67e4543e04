"""Pullback beside PyTorch on whole training steps: alternating rounds, each contestant in a process of its own."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from . import output
from .worker import CONTESTANTS

ROOT = Path(__file__).parents[1]
#: what a round takes, in seconds, where the number of steps is not given
_ROUND_SECONDS = 0.5
#: settings of NumPy's matrix products that some installations make; they are not meant for a peer's own libraries
_NUMPY_ONLY = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


class Worker:
    """A process that measures (see `worker`); ends with the `with` block."""

    def __init__(self, *arguments: str, cache: str, peer: bool = False):
        environment = {k: v for k, v in os.environ.items() if not (peer and k in _NUMPY_ONLY)}
        environment["PULLBACK_CACHE_DIR"] = cache
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment,
        )  # fmt: skip

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.communicate()

    def told(self) -> dict[str, Any]:
        """What the worker tells next. Raises RuntimeError where it has ended; its error is on standard error."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(self._process.args)} ended with status {self._process.wait()}")  # type: ignore[arg-type]
        told: dict[str, Any] = json.loads(line)
        return told

    def steps(self, count: int) -> dict[str, Any]:
        """The seconds of `count` steps, and the peak of memory so far."""
        assert self._process.stdin is not None
        print(count, file=self._process.stdin, flush=True)
        return self.told()


def machine() -> dict[str, Any]:
    """The kind of machine, and the versions of what is measured."""
    description = Path("/proc/cpuinfo")
    lines = description.read_text().splitlines() if description.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    versions = {}
    for name in ("pullback", "numpy", "llvmlite", "torch"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": versions,
    }


def run(names: list[str], steps: int | None, rounds: int) -> list[dict[str, Any]]:
    """Measure the workloads `names`, a table each; one dictionary of figures a workload and contestant."""
    columns = ("‹library", "median", "to best peer", "first step", "with cache", "peak", "above import")
    results = []
    for name in names:
        found = _measure(name, steps, rounds)
        results += found
        rows = [
            (
                r["contestant"],
                output.seconds(r["median_seconds"]),
                f"{r['ratio']:.2f}",
                output.seconds(r["cold_seconds"]),
                output.seconds(r["warm_seconds"]),
                output.megabytes(r["peak_bytes"]),
                output.megabytes(r["peak_bytes"] - r["imported_bytes"]),
            )
            for r in found
        ]
        output.table(f"{name}: a training step, the loss read after it", columns, rows)
    return results


def _measure(name: str, steps: int | None, rounds: int) -> list[dict[str, Any]]:
    figures: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        cache = stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmarks-"))
        workers = {}
        for contestant, (library, _, _) in CONTESTANTS.items():
            arguments = ("step", name, contestant)
            with Worker(*arguments, cache=cache, peer=library != "pullback") as cold:
                cold_seconds = cold.told()["first_seconds"]
            workers[contestant] = worker = Worker(*arguments, cache=cache, peer=library != "pullback")
            stack.enter_context(worker)
            told = worker.told()
            figures[contestant] = {
                "workload": name,
                "contestant": contestant,
                "cold_seconds": cold_seconds,
                "warm_seconds": told["first_seconds"],
                "imported_bytes": told["imported_bytes"],
                "rounds": [],
            }
        counts = {contestant: steps or _count(worker) for contestant, worker in workers.items()}
        for _ in range(rounds):
            for contestant, worker in workers.items():
                told = worker.steps(counts[contestant])
                figures[contestant]["rounds"].append(told["seconds"])
                figures[contestant]["peak_bytes"] = told["peak_bytes"]
    for found in figures.values():
        found["median_seconds"] = statistics.median(s for times in found["rounds"] for s in times)
        # every round has one median a contestant, taken within seconds of each other
        found["rounds"] = [statistics.median(times) for times in found["rounds"]]
        found["steps_a_round"] = counts[found["contestant"]]
    peers = [found for contestant, found in figures.items() if CONTESTANTS[contestant][0] != "pullback"]
    best = min(peers, key=lambda found: found["median_seconds"])
    for found in figures.values():
        found["ratio"] = statistics.median(a / b for a, b in zip(found["rounds"], best["rounds"], strict=True))
    return list(figures.values())


def _count(worker: Worker) -> int:
    """How many steps make a round; the steps that tell also warm the worker up."""
    typical = statistics.median(worker.steps(3)["seconds"])
    typical = statistics.median(worker.steps(max(3, min(100, round(0.2 / typical))))["seconds"])
    return max(3, round(_ROUND_SECONDS / typical))
