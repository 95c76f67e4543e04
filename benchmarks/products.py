"""Matrix products beside those of the peers' libraries: OpenBLAS through NumPy, MKL and oneDNN through PyTorch."""

from __future__ import annotations

import importlib.util
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import numpy as np

from . import output
from .contestants import peers_environment
from .process import Worker
from .timing import median


@dataclass(frozen=True)
class Case:
    """One product C[batch, m, n] = A @ B. `layout` says of A and of B how they lie: "N" in rows, "T" in columns."""

    name: str
    m: int
    n: int
    k: int
    layout: str = "NN"
    dtype: str = "float32"
    batch: int = 1

    @property
    def operations(self) -> int:
        """Floating-point operations."""
        return 2 * self.batch * self.m * self.n * self.k


def _cases() -> list[Case]:
    """Cubes, and the products of the workloads: forward, the input's gradient, the weight's gradient."""
    found = []
    for dtype in ("float32", "bfloat16"):
        found += [Case(f"cube {size}", size, size, size, dtype=dtype) for size in (256, 512, 1024, 2048)]
        for name, rows, width in (("char", 768, 128), ("mid", 2048, 384), ("gpt2", 512, 768)):
            for wide in (3 * width, 4 * width):
                found.append(Case(f"{name} forward", rows, wide, width, "NT", dtype))
                found.append(Case(f"{name} input", rows, width, wide, "NN", dtype))
                found.append(Case(f"{name} weight", wide, width, rows, "TN", dtype))
            found.append(Case(f"{name} forward", rows, width, width, "NT", dtype))
            found.append(Case(f"{name} weight", width, width, rows, "TN", dtype))
        for name, rows, width, vocabulary in (
            ("char", 768, 128, 65),
            ("mid", 2048, 384, 512),
            ("gpt2", 512, 768, 50304),
        ):
            found.append(Case(f"{name} head", rows, vocabulary, width, "NT", dtype))
            found.append(Case(f"{name} head input", rows, width, vocabulary, "NN", dtype))
            found.append(Case(f"{name} head weight", vocabulary, width, rows, "TN", dtype))
        found.append(Case("mid scores", 256, 256, 64, "NT", dtype, 48))
        found.append(Case("mid values", 256, 64, 256, "NN", dtype, 48))
        found.append(Case("narrow weight", 64, 64, 100_000, "TN", dtype))
    found += [Case("mlp", 32, 64, 128, "NT"), Case("ppo", 64, 64, 8, "NT"), Case("one example", 1, 64, 64, "NT")]
    return found


CASES = _cases()

#: the library of each contestant and the dtypes that it is asked for
CONTESTANTS = {
    "Pullback": ("pullback", ("float32", "bfloat16")),
    "NumPy": ("numpy", ("float32",)),
    "PyTorch": ("torch", ("float32", "bfloat16")),
}


def measure(
    rounds: int, cases: Sequence[Case] | None = None, seconds: float = 0.05, timeout: float = 600.0
) -> list[dict[str, Any]]:
    """Time every case in `rounds` rounds of about `seconds` a contestant, taking turns; one dictionary a case."""
    results = []
    with ExitStack() as stack:
        cache = stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmarks-"))
        environment = peers_environment() | {"PULLBACK_CACHE_DIR": cache}
        workers = {
            name: stack.enter_context(Worker("products", name, environment=environment, timeout=timeout))
            for name, (library, _) in CONTESTANTS.items()
            if importlib.util.find_spec(library) is not None
        }
        for case in CASES if cases is None else cases:
            asked = [name for name in workers if case.dtype in CONTESTANTS[name][1]]
            times: dict[str, list[float]] = {name: [] for name in asked}
            for _ in range(rounds):
                for name in asked:
                    told = workers[name].asked(json.dumps({"case": asdict(case), "seconds": seconds}))
                    times[name].append(told["seconds"])
            results.append(_result(case, times))
    return results


def _result(case: Case, times: dict[str, list[float]]) -> dict[str, Any]:
    medians = {name: statistics.median(values) for name, values in times.items()}
    peers = {name: value for name, value in medians.items() if name != "Pullback"}
    if not peers:  # bfloat16 without PyTorch
        return {**asdict(case), "seconds": medians, "best_peer": None, "speed_to_best_peer": None}
    best = min(peers, key=lambda name: peers[name])
    # both were timed within a second of each other in each round
    speed = statistics.median(peer / own for own, peer in zip(times["Pullback"], times[best], strict=True))
    return {**asdict(case), "seconds": medians, "best_peer": best, "speed_to_best_peer": speed}


def table(results: Sequence[dict[str, Any]]) -> None:
    """Print the rates of every case, a row each."""
    columns = ("‹product", "‹dtype", "‹layout", "batch", "m", "n", "k", *CONTESTANTS, "to the best peer")
    rows = []
    for result in results:
        rates = [_rate(result, name) for name in CONTESTANTS]
        sizes = [str(result[key]) for key in ("batch", "m", "n", "k")]
        found = result["speed_to_best_peer"]
        speed = "–" if found is None else f"{found:.2f}"
        rows.append((result["name"], result["dtype"], result["layout"], *sizes, *rates, speed))
    output.table("Matrix products, GFLOP/s; the last column is the speed against the best peer", columns, rows)


def _rate(result: dict[str, Any], contestant: str) -> str:
    if contestant not in result["seconds"]:
        return "–"
    operations = 2 * result["batch"] * result["m"] * result["n"] * result["k"]
    return f"{operations / result['seconds'][contestant] / 1e9:.1f}"


def _operands(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """float32 values of both operands, laid out in memory as the case says; the batch axis only where there is one."""
    random = np.random.default_rng(0)
    batch = (case.batch,) if case.batch > 1 else ()

    def operand(rows: int, columns: int, layout: str) -> np.ndarray:
        shape = (rows, columns) if layout == "N" else (columns, rows)
        values = random.standard_normal((*batch, *shape), np.float32)
        return values if layout == "N" else values.swapaxes(-1, -2)

    return operand(case.m, case.k, case.layout[0]), operand(case.k, case.n, case.layout[1])


def _prepared(library: str, case: Case) -> Callable[[], Any]:
    """A function that computes the product once."""
    a, b = _operands(case)
    if library == "numpy":
        result = np.empty((*a.shape[:-1], b.shape[-1]), np.float32)
        return lambda: np.matmul(a, b, out=result)
    if library == "torch":
        torch = importlib.import_module("torch")
        left, right = (torch.from_numpy(x).to(getattr(torch, case.dtype)) for x in (a, b))
        made = torch.empty((*a.shape[:-1], b.shape[-1]), dtype=left.dtype)
        assert (left.stride(-1) == 1) == (case.layout[0] == "N")
        return lambda: torch.matmul(left, right, out=made)
    return _program(case, a, b)


def _program(case: Case, a: np.ndarray, b: np.ndarray) -> Callable[[], Any]:
    """The product as a program of Pullback, as it stands in a training step: without Python between the products."""
    from pullback.graph.node import Graph
    from pullback.graph.types import from_name, to_storage
    from pullback.ops.contraction import matmul
    from pullback.ops.movement import swap_last
    from pullback.ops.primitive import input_node
    from pullback.runtime.backends import made_program
    from pullback.runtime.buffers import Buffer

    dtype = from_name(case.dtype)
    nodes, operands, buffers = [], [], []
    for place, (array, layout) in enumerate(zip((a, b), case.layout, strict=True)):
        stored = array if layout == "N" else array.swapaxes(-1, -2)
        nodes.append(input_node(place, stored.shape, dtype))
        operands.append(nodes[-1] if layout == "N" else swap_last(nodes[-1]))
        buffers.append(Buffer.of(to_storage(stored, dtype).reshape(-1), copy=True))
    product = matmul(*operands)
    result = Buffer.empty(prod(product.shape), dtype)
    program = made_program(Graph.of([product]), nodes)
    return lambda: program.run(buffers, [result])


def work(contestant: str, tell: Callable[..., None]) -> None:
    """Answer each line of the input: a case and the seconds to spend on it, in JSON."""
    library, _ = CONTESTANTS[contestant]
    prepared: dict[Case, Callable[[], Any]] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        case = Case(**asked["case"])
        if case not in prepared:
            prepared.clear()
            prepared[case] = _prepared(library, case)
            prepared[case]()
        tell(seconds=median(prepared[case], asked["seconds"]))
