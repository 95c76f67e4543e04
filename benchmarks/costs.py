"""How cost grows: a backward pass against the forward pass, and time against depth."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import output, workloads
from .process import Worker

#: what a backward pass may cost, in forward passes
BACKWARD_LIMIT = 2.2
DEPTHS = (5, 10, 20, 40, 80)
CHAINS = (1000, 2000, 4000, 7000, 10000)
_SAMPLE_SECONDS = 0.2
_CHAIN_TIMEOUT = 1800.0


def backward(names: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    """Time the native program of the forward pass, and that of both passes, neither with an optimizer."""
    import pullback as pb

    results = []
    for name in names:
        workload = workloads.build(pb, name)

        def both(workload: workloads.Workload = workload) -> Any:
            workload.optimizer.zero_grad()
            loss = workload.forward()
            loss.backward()
            return loss

        calls = [_program_timer(pb.compile(workload.forward)), _program_timer(pb.compile(both))]
        forward_times, both_times = _alternate(calls, rounds)
        ratios = [(b - f) / f for f, b in zip(forward_times, both_times, strict=True)]
        results.append(
            {
                "workload": name,
                "forward_seconds": statistics.median(forward_times),
                "both_seconds": statistics.median(both_times),
                "ratio": statistics.median(ratios),
            }
        )
    return results


def backward_table(results: Sequence[dict[str, Any]]) -> None:
    """Print what `backward` measured."""
    output.table(
        f"A backward pass against the forward pass (aim: at most {BACKWARD_LIMIT})",
        ("‹workload", "forward", "forward and backward", "backward / forward"),
        [
            (
                r["workload"],
                output.seconds(r["forward_seconds"]),
                output.seconds(r["both_seconds"]),
                f"{r['ratio']:.2f}",
            )
            for r in results
        ],
    )


def _program_timer(step: Any) -> Callable[[], float]:
    """A function that runs the step once and gives the seconds that its program took, without the Python around it."""
    step()
    program = step.program
    run, taken = program.run, [0.0]

    def timed(*arguments: Any) -> None:
        start = time.perf_counter()
        run(*arguments)
        taken[0] = time.perf_counter() - start

    program.run = timed

    def call() -> float:
        step()
        return taken[0]

    return call


def _alternate(calls: Sequence[Callable[[], float]], rounds: int) -> list[list[float]]:
    """For each call the median of each round; in a round the calls come one after another."""
    counts = []
    for call in calls:
        typical = statistics.median(call() for _ in range(3))
        counts.append(max(3, min(2000, round(_SAMPLE_SECONDS / max(typical, 1e-6)))))
    medians: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, count, found in zip(calls, counts, medians, strict=True):
            found.append(statistics.median(call() for _ in range(count)))
    return medians


def depth(rounds: int) -> list[dict[str, Any]]:
    """Time of a step against layers, and of tracing and compiling against operations, with straight lines fitted."""
    import pullback as pb

    def whole(step: Any) -> Callable[[], float]:
        def call() -> float:
            start = time.perf_counter()
            step().item()
            return time.perf_counter() - start

        return call

    steps = [pb.compile(workloads.sigmoid_network(pb, layers).step) for layers in DEPTHS]
    for step in steps:
        step()
    times = [statistics.median(found) for found in _alternate([whole(step) for step in steps], rounds)]
    results = [{"layers": layers, "seconds": taken} for layers, taken in zip(DEPTHS, times, strict=True)]
    for length in CHAINS:
        environment = {**os.environ, "PULLBACK_CACHE_DIR": "off"}
        with Worker("chain", str(length), environment=environment, timeout=_CHAIN_TIMEOUT) as worker:
            told = worker.told()
        results.append({"operations": length, **told})
    return results


def depth_table(results: Sequence[dict[str, Any]]) -> None:
    """Print what `depth` measured."""
    for title, what, time_ in (
        ("A step of the sigmoid network", "layers", "seconds"),
        ("Tracing and compiling a chain and its gradient, no cache", "operations", "first_seconds"),
    ):
        found = [result for result in results if what in result]
        if len(found) > 1:
            _print_line(title, what, [result[what] for result in found], [result[time_] for result in found])


def _print_line(title: str, what: str, sizes: Sequence[int], times: Sequence[float]) -> None:
    """A table of times against sizes, and the straight line of least relative squares through them."""
    x, y = np.array(sizes, float), np.array(times)
    slope, start = np.polyfit(x, y, 1, w=1 / y)
    exponent = np.polyfit(np.log(x), np.log(y), 1)[0]
    fitted = start + slope * x
    output.table(
        title,
        (what, "time", "on the line", "off by"),
        [
            (f"{size:,}", output.seconds(taken), output.seconds(line), f"{taken / line - 1:+.0%}")
            for size, taken, line in zip(sizes, times, fitted, strict=True)
        ],
    )
    print(f"{output.seconds(slope)} for each of the {what}; time grows as {what} to the power {exponent:.2f}")
