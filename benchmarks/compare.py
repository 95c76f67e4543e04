"""Pullback beside its peers on whole training steps: alternating rounds, each contestant in a process of its own."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from . import flops, limits, workloads
from .contestants import CONTESTANTS, Contestant
from .process import Failure, Worker

#: what a round takes, in seconds, where the number of steps is not given
_ROUND_SECONDS = 0.5
#: a turn of a contestant begins with an untimed step, unless a step takes this long and hides what is left of others
_LONG_STEP = 0.2
#: the part of the free memory that contestants may fill together
_MEMORY_SHARE = 0.8
_LIMIT_TRIES = 3


def machine() -> dict[str, Any]:
    """The kind of machine, and the versions of what is measured."""
    description = Path("/proc/cpuinfo")
    lines = description.read_text().splitlines() if description.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    versions = {}
    for name in ("pullback", "numpy", "llvmlite", "torch", "jax", "optax"):
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


def available(contestants: Iterable[Contestant]) -> list[Contestant]:
    """Those that this machine can run; a line on standard error says of each other one why not."""
    able = []
    for contestant in contestants:
        missing = contestant.missing()
        if missing is None:
            able.append(contestant)
        else:
            print(f"{contestant.title} is left out: {missing}", file=sys.stderr)
    return able


class Interrupted(KeyboardInterrupt):
    """A run that somebody has ended: `results` are those of the workloads that were done."""

    def __init__(self, results: list[dict[str, Any]]):
        super().__init__()
        self.results = results


def machine_limits(timeout: float) -> dict[str, Any]:
    """The best of what `limits.measure` finds in a few processes of its own. Raises Failure where one ends early."""
    tries = []
    for _ in range(_LIMIT_TRIES):
        with Worker("limits", environment=os.environ, timeout=timeout) as worker:
            tries.append(worker.told())
    return limits.best(tries)


def run(
    races: Mapping[str, Sequence[Contestant]], steps: int | None, rounds: int, timeout: float
) -> list[dict[str, Any]]:
    """Measure each workload of `races` in its contestants: one dictionary of figures for each of both.

    A contestant that ends, or does not answer within `timeout` seconds, has "failure" in place of times. Raises
    Interrupted, with the figures of the workloads that are done, at a KeyboardInterrupt.
    """
    results: list[dict[str, Any]] = []
    for place, (name, contestants) in enumerate(races.items(), 1):
        print(f"[{place}/{len(races)}] {name} …", file=sys.stderr, flush=True)
        try:
            results += _Race(name, contestants, timeout).run(steps, rounds)
        except KeyboardInterrupt:
            raise Interrupted(results) from None
    return results


class _Race:
    """One workload in all its contestants. Who fails drops out, and the others go on."""

    def __init__(self, name: str, contestants: Sequence[Contestant], timeout: float):
        self.name, self.timeout = name, timeout
        self.figures: dict[str, dict[str, Any]] = {
            contestant.key: {"workload": name, "contestant": contestant.key, "flops": _flops(name)}
            for contestant in contestants
        }

    def run(self, steps: int | None, rounds: int) -> list[dict[str, Any]]:
        with tempfile.TemporaryDirectory(prefix="benchmarks-") as cache:
            for key in self.figures:
                self._guarded(key, lambda key=key: self._first_step(key, cache))
            able = [key for key, figures in self.figures.items() if "failure" not in figures]
            together = self._fit_together(able)
            for group in [able] if together else [[key] for key in able]:
                self._measure(group, cache, steps, rounds)
        for figures in self.figures.values():
            figures["interleaved"] = together
        return list(self.figures.values())

    def _guarded(self, key: str, action: Callable[[], Any]) -> Any:
        """The result of `action`; None where it fails, which is noted and said."""
        try:
            return action()
        except Failure as failure:
            self.figures[key]["failure"] = str(failure)
            print(f"{CONTESTANTS[key].title} fails at {self.name}: {failure}", file=sys.stderr, flush=True)
            return None

    def _worker(self, key: str, cache: str) -> Worker:
        return Worker(
            "step", self.name, key, environment=CONTESTANTS[key].environment(cache), timeout=self.timeout
        )  # fmt: skip

    def _first_step(self, key: str, cache: str) -> None:
        """Take the first step with nothing compiled before; what is compiled stays in `cache`."""
        # contestants of one library would find each other's work in a cache that they shared
        with self._worker(key, str(Path(cache, key))) as worker:
            told = worker.told()
        self.figures[key] |= {"cold_seconds": told["first_seconds"], "peak_bytes": told["peak_bytes"]}

    def _fit_together(self, keys: Sequence[str]) -> bool:
        """Whether memory holds all of `keys` at once. Where it does not, they run one after another, not in turns."""
        together, free = sum(self.figures[key]["peak_bytes"] for key in keys), _free_bytes()
        if free is None or len(keys) < 2 or together <= _MEMORY_SHARE * free:
            return True
        print(
            f"{self.name}: {together / 1e9:.1f} GB for all contestants, {free / 1e9:.1f} GB free: one after another",
            file=sys.stderr,
        )
        return False

    def _measure(self, keys: Sequence[str], cache: str, steps: int | None, rounds: int) -> None:
        with ExitStack() as stack:
            workers: dict[str, Worker] = {}
            turns: dict[str, tuple[int, int]] = {}
            for key in keys:
                workers[key] = stack.enter_context(self._worker(key, str(Path(cache, key))))
                told = self._guarded(key, workers[key].told)
                if told is not None:
                    self.figures[key] |= {"warm_seconds": told["first_seconds"], "rounds": [], "seconds": []}
                    self.figures[key]["imported_bytes"] = told["imported_bytes"]
                    turns[key] = self._guarded(key, lambda key=key: _turn(workers[key], steps))
            for _ in range(rounds):
                for key in keys:
                    if "failure" not in self.figures[key]:
                        self._guarded(key, lambda key=key: self._take_turn(key, workers[key], turns[key]))
        for key in keys:
            times = self.figures[key].pop("seconds", [])
            if "failure" not in self.figures[key]:
                self.figures[key] |= {"median_seconds": statistics.median(times), "steps_a_round": turns[key][1]}

    def _take_turn(self, key: str, worker: Worker, turn: tuple[int, int]) -> None:
        told, figures = worker.asked(*turn), self.figures[key]
        figures["seconds"] += told["seconds"]
        # every round has one median a contestant, taken within seconds of each other
        figures["rounds"].append(statistics.median(told["seconds"]))
        figures["peak_bytes"] = told["peak_bytes"]


def _turn(worker: Worker, steps: int | None) -> tuple[int, int]:
    """The untimed and the timed steps of a turn; the steps that tell also warm the worker up."""
    typical = statistics.median(worker.asked(1, 2)["seconds"])
    if typical < _LONG_STEP:
        typical = statistics.median(worker.asked(0, max(2, min(100, round(_LONG_STEP / typical))))["seconds"])
    return int(typical < _LONG_STEP), steps or max(1, round(_ROUND_SECONDS / typical))


def _flops(name: str) -> int:
    return flops.of_step(name.removesuffix(workloads.BF16))


def _free_bytes() -> int | None:
    """Memory that programs can have without swapping; None where the system does not tell."""
    information = Path("/proc/meminfo")
    if not information.exists():
        return None
    (line,) = (line for line in information.read_text().splitlines() if line.startswith("MemAvailable"))
    return int(line.split()[1]) * 1024


def relate(results: Sequence[dict[str, Any]], found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The results with "speed" and "share" where they have times.

    "speed" is how many times faster than the best peer of the same workload a contestant is: the median over rounds of
    the quotient of the two medians of one round, None where no peer ran. "share" is the part of the limits' rate that
    the floating-point operations of a step reach in the time that it takes.
    """
    related = []
    for result in results:
        if "failure" in result:
            related.append(dict(result))
            continue
        best = best_peer(results, result["workload"])
        pairs = zip(result["rounds"], best["rounds"], strict=False) if best else []
        speeds = [theirs / own for own, theirs in pairs]
        dtype = "bfloat16" if result["workload"].endswith(workloads.BF16) else "float32"
        share = result["flops"] / limits.rate(dict(found), dtype) / result["median_seconds"]
        related.append(result | {"speed": statistics.median(speeds) if speeds else None, "share": share})
    return related


def best_peer(results: Iterable[dict[str, Any]], workload: str) -> dict[str, Any] | None:
    """The result of the fastest contestant of another library on `workload`; None where there is none."""
    peers = [
        result
        for result in results
        if result["workload"] == workload and "failure" not in result and CONTESTANTS[result["contestant"]].is_peer
    ]
    return min(peers, key=lambda result: result["median_seconds"], default=None)
