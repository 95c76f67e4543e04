"""Updates of optimizers, by themselves: Pullback's beside PyTorch's fused ones and bitsandbytes' on the CPU.

Gradients are given, and one call of `step()` is timed: in 32 bits, and with the state in 8 and in 4.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np

from . import output
from .contestants import peers_environment
from .process import Worker


class Case(NamedTuple):
    """An optimizer by its name in the libraries that have it, and its arguments."""

    name: str
    arguments: tuple[tuple[str, float], ...] = (("lr", 1e-3),)


_MOMENTUM = (("lr", 1e-3), ("momentum", 0.9))
CASES = (
    Case("AdamW"), Case("AdamW8bit"), Case("AdamW4bit"), Case("Lion"), Case("Lion8bit"),
    Case("SGD", _MOMENTUM), Case("SGD8bit", _MOMENTUM),
)  # fmt: skip
#: the module of each contestant's optimizers, and what of it is asked for
CONTESTANTS = {
    "Pullback": ("pullback", tuple(case.name for case in CASES)),
    "PyTorch": ("torch", ("AdamW", "SGD")),
    "bitsandbytes": ("bitsandbytes", ("AdamW8bit", "Lion8bit", "SGD8bit")),
}
#: of the parameter, a matrix of 33.6 MB
SHAPE = (2048, 4096)


def missing() -> dict[str, str]:
    """Why a contestant cannot run here, by its name."""
    return {
        name: f"{library} is not installed"
        for name, (library, _) in CONTESTANTS.items()
        if importlib.util.find_spec(library) is None
    }


def measure(
    rounds: int, names: Sequence[str] = (), shape: tuple[int, int] = SHAPE, seconds: float = 0.1, timeout: float = 600.0
) -> dict[str, Any]:
    """Time the update of every case, or of those named, in rounds of about `seconds` each, contestants in turns."""
    absent, chosen = missing(), [case for case in CASES if not names or case.name in names]
    times: dict[str, dict[str, list[float]]] = {case.name: {} for case in chosen}
    with ExitStack() as stack:
        cache = stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmarks-"))
        environment = peers_environment() | {"PULLBACK_CACHE_DIR": cache}
        workers = {
            name: stack.enter_context(Worker("optimizers", name, environment=environment, timeout=timeout))
            for name in CONTESTANTS
            if name not in absent
        }
        for _ in range(rounds):
            for case in chosen:
                for name, worker in workers.items():
                    if case.name in CONTESTANTS[name][1]:
                        told = worker.asked(json.dumps({"case": case, "shape": shape, "seconds": seconds}))
                        times[case.name].setdefault(name, []).append(told["seconds"])
    medians = {
        case: {name: statistics.median(values) for name, values in found.items()} for case, found in times.items()
    }
    return {"elements": shape[0] * shape[1], "missing": absent, "seconds": medians, "of_fp32": _of_fp32(times)}


def _of_fp32(times: dict[str, dict[str, list[float]]]) -> dict[str, float]:
    """The time of an update with its state in codes as a part of that in 32 bits, round by round."""
    found = {}
    for case, by_contestant in times.items():
        plain = times.get(case.removesuffix("8bit").removesuffix("4bit"), {}).get("Pullback")
        if plain is not None and plain is not by_contestant["Pullback"]:
            found[case] = statistics.median(a / b for a, b in zip(by_contestant["Pullback"], plain, strict=True))
    return found


def table(result: dict[str, Any]) -> None:
    """Print the nanoseconds an element of every update, a row each."""
    rows = []
    for case, seconds in result["seconds"].items():
        cells = [f"{seconds[n] / result['elements'] * 1e9:.2f}" if n in seconds else "–" for n in CONTESTANTS]
        part, other = result["of_fp32"].get(case), seconds.get("bitsandbytes")
        faster = f"{other / seconds['Pullback']:.0f}" if other else "–"
        rows.append((case, *cells, "–" if part is None else f"{part:.2f}", faster))
    columns = ("‹optimizer", *CONTESTANTS, "of that in fp32", "times bitsandbytes' speed")
    output.table(f"An update of {result['elements']:,} elements, gradients given, ns an element", columns, rows)
    for name, why in result["missing"].items():
        print(f"without {name}: {why}")


def work(contestant: str, tell: Callable[..., None]) -> None:
    """Answer each line of the input: a case, a shape and the seconds to spend on it, in JSON."""
    prepared: dict[str, Callable[[], Any]] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        case = Case(*asked["case"])
        if case.name not in prepared:
            prepared[case.name] = _prepared(contestant, case, asked["shape"])
            prepared[case.name]()
        tell(seconds=_median(prepared[case.name], asked["seconds"]))


def _median(step: Callable[[], Any], seconds: float) -> float:
    """The median time of a call; one that takes longer than that alone is called once."""
    times: list[float] = []
    start = time.perf_counter()
    while not times or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        step()
        times.append(time.perf_counter() - before)
    return statistics.median(times)


def _prepared(contestant: str, case: Case, shape: Sequence[int]) -> Callable[[], Any]:
    """The step of an optimizer of one parameter that has its gradient."""
    random = np.random.default_rng(0)
    value, gradient = (random.standard_normal(tuple(shape), np.float32) for _ in range(2))
    library = importlib.import_module(CONTESTANTS[contestant][0])
    tensors = library if contestant != "bitsandbytes" else importlib.import_module("torch")
    parameter = tensors.nn.Parameter(tensors.from_numpy(value))
    parameter.grad = tensors.from_numpy(gradient)
    fused = {"fused": True} if contestant == "PyTorch" else {}
    step: Callable[[], Any] = getattr(library.optim, case.name)([parameter], **dict(case.arguments), **fused).step
    return step
