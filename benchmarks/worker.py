"""One measured process, spoken to over standard input and output, a line of JSON at a time (see `process`).

`python -m benchmarks.worker step NAME CONTESTANT` takes one step and then, for each line "UNTIMED COUNT" read, takes so
many steps untimed and tells the times of so many others. `… chain LENGTH` traces and compiles a chain of operations and
its gradient. `… widths CONTESTANT` tells, for each line "WIDTH BATCH COUNT", the times of so many steps of a network of
that width. `… limits` tells what the machine can do at most. `… products CONTESTANT` times matrix products,
`… attention CONTESTANT` attention,
`… optimizers CONTESTANT` updates of optimizers.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import attention, limits, optimizers, products, workloads
from .contestants import CONTESTANTS, Contestant

#: how long a network of a new width runs before it is timed
_WARM_SECONDS = 0.01

#: where the answers go
_answers = sys.stdout


def peak_bytes() -> int:
    """The most memory of this process that was in use at once, shared libraries included."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss counts what the parent had before this program was loaded
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _tell(**figures: Any) -> None:
    print(json.dumps(figures), file=_answers, flush=True)


def built(name: str, contestant: Contestant) -> Callable[[], Any]:
    """The function that takes a step of workload `name` and gives its loss, as a tensor of the contestant's library."""
    network, bf16 = name.removesuffix(workloads.BF16), name.endswith(workloads.BF16)
    if contestant.library == "jax":
        return importlib.import_module("benchmarks.workloads_jax").build(network, bf16=bf16).step
    library = importlib.import_module(contestant.library)
    library.manual_seed(0)
    step = workloads.build(library, network, fused=contestant.fused, bf16=bf16).step
    return library.compile(step) if contestant.mode == "compiled" else step


def _times(run: Callable[[], Any], count: int) -> list[float]:
    times = []
    for _ in range(count):
        start = time.perf_counter()
        run().item()
        times.append(time.perf_counter() - start)
    return times


def step(name: str, contestant: str) -> None:
    """Build a workload, take its first step, and then as many as each line of the input asks for."""
    run = built(name, CONTESTANTS[contestant])
    imported = peak_bytes()
    start = time.perf_counter()
    loss = run().item()
    _tell(first_seconds=time.perf_counter() - start, imported_bytes=imported, peak_bytes=peak_bytes(), loss=loss)
    for line in sys.stdin:
        untimed, count = map(int, line.split())
        _times(run, untimed)
        _tell(seconds=_times(run, count), peak_bytes=peak_bytes())


def widths(contestant: str) -> None:
    """Time a step of the network of every width asked for."""
    run: Callable[[], Any] = lambda: None  # noqa: E731
    present = None
    for line in sys.stdin:
        width, batch, count = map(int, line.split())
        if (width, batch) != present:
            run, present = _network(width, batch, CONTESTANTS[contestant]), (width, batch)
            run().item()
            until = time.perf_counter() + _WARM_SECONDS
            while time.perf_counter() < until:
                run().item()
        _times(run, 1)
        _tell(seconds=statistics.median(_times(run, count)))


def _network(width: int, batch: int, contestant: Contestant) -> Callable[[], Any]:
    if contestant.library == "jax":
        return importlib.import_module("benchmarks.workloads_jax").width_network(width, batch).step
    library = importlib.import_module(contestant.library)
    step = workloads.width_network(library, width, batch, fused=contestant.fused).step
    return library.compile(step) if contestant.mode == "compiled" else step


def chain(length: int) -> None:
    """The time from nothing to the gradient of `length` operations on 1,000 elements, and of a second call."""
    import pullback as pb

    x = pb.linspace(0.0, 1.0, 1000).requires_grad_()

    @pb.compile
    def run() -> Any:
        x.grad = None
        y = x
        for place in range(length // 2):
            y = (y * (1 + 1 / (place + 2))).tanh()
        total = y.sum()
        total.backward()
        return total

    first, second = _times(run, 2)
    _tell(first_seconds=first, second_seconds=second, peak_bytes=peak_bytes())


def main() -> None:
    """Do what the command line says."""
    global _answers
    # what the libraries print belongs to the errors, not among the answers
    _answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    what, *arguments = sys.argv[1:]
    if what == "step":
        step(*arguments)
    elif what == "widths":
        widths(*arguments)
    elif what == "products":
        products.work(*arguments, tell=_tell)
    elif what == "attention":
        attention.work(*arguments, tell=_tell)
    elif what == "optimizers":
        optimizers.work(*arguments, tell=_tell)
    elif what == "chain":
        chain(int(arguments[0]))
    else:
        _tell(**limits.measure())


if __name__ == "__main__":
    main()
