"""One measured process, spoken to over standard input and output, a line of JSON at a time.

`python -m benchmarks.worker step NAME CONTESTANT` takes one step and then, for each number read, tells the times of so
many steps; `python -m benchmarks.worker chain LENGTH` traces and compiles a chain of operations and its gradient.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from . import workloads

#: the library of each contestant, whether its step is compiled, and the optimizer's `fused`
CONTESTANTS: dict[str, tuple[str, bool, bool | None]] = {
    "Pullback": ("pullback", True, None),
    "PyTorch": ("torch", False, None),
    "PyTorch, fused": ("torch", False, True),
}


def peak_bytes() -> int:
    """The most memory of this process that was in use at once, shared libraries included."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss counts what the parent had before this program was loaded
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _tell(**figures: Any) -> None:
    print(json.dumps(figures), flush=True)


def step(name: str, contestant: str) -> None:
    """Build a workload, take its first step, and then as many as each line of the input asks for."""
    module, compiled, fused = CONTESTANTS[contestant]
    library = importlib.import_module(module)
    library.manual_seed(0)
    workload = workloads.build(library, name, fused=fused)
    imported = peak_bytes()
    run = library.compile(workload.step) if compiled else workload.step
    start = time.perf_counter()
    loss = run().item()
    _tell(first_seconds=time.perf_counter() - start, imported_bytes=imported, loss=loss)
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            start = time.perf_counter()
            run().item()
            times.append(time.perf_counter() - start)
        _tell(seconds=times, peak_bytes=peak_bytes())


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

    start = time.perf_counter()
    run().item()
    first = time.perf_counter() - start
    start = time.perf_counter()
    run().item()
    _tell(first_seconds=first, second_seconds=time.perf_counter() - start, peak_bytes=peak_bytes())


if __name__ == "__main__":
    if sys.argv[1] == "step":
        step(*sys.argv[2:])
    else:
        chain(int(sys.argv[2]))
