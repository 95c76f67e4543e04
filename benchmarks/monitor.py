"""What a monitor adds to a step: `python -m benchmarks.monitor [workload] [pairs]`.

A step without a monitor, one that records each step and one that records every tenth are run in turns; told are the
medians and the medians of the ratios of neighbours, of steps that the tenth does not fall on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import pullback as pb

from . import workloads


def _step(name: str, every: int | None) -> tuple[Callable[[], object], pb.Monitor | None]:
    pb.manual_seed(0)
    workload = workloads.build(pb, name)
    monitor = None if every is None else pb.Monitor(workload.model, workload.optimizer, every=every)
    step = pb.compile(workload.step)
    for _ in range(3):
        step()
    return step, monitor


def _skip_recorded(step: Callable[[], object], monitor: pb.Monitor | None) -> None:
    """Make the step that is recorded, and the one behind it, which finds its memory anew."""
    if monitor is not None and monitor.every > 1 and (monitor.steps + 1) % monitor.every < 2:
        step(), step()


def _seconds(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def measure(name: str = "gpt-mid", pairs: int = 10) -> dict[str, list[float]]:
    """Seconds of steps in turns: without a monitor, with one at every step, and between the recorded ones of ten."""
    runs = {"without": _step(name, None), "every=1": _step(name, 1), "every=10": _step(name, 10)}
    found: dict[str, list[float]] = {key: [] for key in runs}
    for pair in range(pairs):
        for key in list(runs) if pair % 2 else reversed(list(runs)):
            _skip_recorded(*runs[key])
            found[key].append(_seconds(runs[key][0]))
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.monitor", description=__doc__)
    parser.add_argument(
        "workload",
        nargs="?",
        default="gpt-mid",
        choices=(*workloads.NAMES, *workloads.BY_NAME),
        help="default: gpt-mid",
    )
    parser.add_argument("pairs", nargs="?", type=int, default=10, help="steps of each kind (default: 10)")
    given = parser.parse_args()
    found = measure(given.workload, given.pairs)
    for key, times in found.items():
        ratio = median(own / base for own, base in zip(times, found["without"], strict=True))
        print(f"{given.workload} {key}: {median(times) * 1e3:.2f} ms, {ratio:.4f} of a step without")


if __name__ == "__main__":
    main()
