"""Attention beside PyTorch's: the forward pass, and both passes, in each library's own way of computing them.

Pullback's is a program run into memory that is there, as in a training step; PyTorch's takes its results from memory
that it keeps.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from . import output
from .contestants import peers_environment
from .process import Worker
from .timing import median


@dataclass(frozen=True)
class Case:
    """Self-attention of `batch` x `heads` heads over `length` positions of `features` each."""

    batch: int
    heads: int
    length: int
    features: int
    dtype: str = "float32"
    causal: bool = True
    backward: bool = False

    @property
    def operations(self) -> int:
        """Floating-point operations: two products forward, five more backward; half of them where it is causal."""
        pairs = self.length * (self.length + 1) // 2 if self.causal else self.length**2
        return 2 * (7 if self.backward else 2) * self.batch * self.heads * pairs * self.features


_SHAPES = ((12, 4, 64, 32), (8, 6, 256, 64), (4, 8, 512, 64), (1, 8, 1024, 64), (1, 4, 2048, 64), (1, 2, 4096, 64))
CASES = [
    Case(*shape, dtype, causal, backward)
    for dtype in ("float32", "bfloat16")
    for shape in _SHAPES
    for causal in (True, False)
    for backward in (False, True)
]
CONTESTANTS = {"Pullback": "pullback", "PyTorch": "torch"}


def measure(
    rounds: int, cases: Sequence[Case] | None = None, seconds: float = 0.1, timeout: float = 600.0
) -> list[dict[str, Any]]:
    """Time every case in `rounds` rounds of about `seconds` a contestant, taking turns; one dictionary a case."""
    results = []
    with ExitStack() as stack:
        cache = stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmarks-"))
        environment = peers_environment() | {"PULLBACK_CACHE_DIR": cache}
        workers = {
            name: stack.enter_context(Worker("attention", name, environment=environment, timeout=timeout))
            for name, library in CONTESTANTS.items()
            if importlib.util.find_spec(library) is not None
        }
        for case in CASES if cases is None else cases:
            times: dict[str, list[float]] = {name: [] for name in workers}
            for _ in range(rounds):
                for name, worker in workers.items():
                    told = worker.asked(json.dumps({"case": asdict(case), "seconds": seconds}))
                    times[name].append(told["seconds"])
            results.append(_result(case, times))
    return results


def _result(case: Case, times: dict[str, list[float]]) -> dict[str, Any]:
    medians = {name: statistics.median(values) for name, values in times.items()}
    speed = None
    if "PyTorch" in times:
        speed = statistics.median(p / own for own, p in zip(times["Pullback"], times["PyTorch"], strict=True))
    return {**asdict(case), "operations": case.operations, "seconds": medians, "speed_to_pytorch": speed}


def table(results: Sequence[dict[str, Any]]) -> None:
    """Print times and rates of every case, a row each."""
    columns = (
        "‹heads x length x features",
        "‹dtype",
        "‹mask",
        "‹passes",
        *CONTESTANTS,
        "GFLOP/s",
        "times PyTorch's speed",
    )
    rows = []
    for result in results:
        times = [output.seconds(result["seconds"][n]) if n in result["seconds"] else "–" for n in CONTESTANTS]
        rate = f"{result['operations'] / result['seconds']['Pullback'] / 1e9:.0f}"
        speed = "–" if result["speed_to_pytorch"] is None else f"{result['speed_to_pytorch']:.2f}"
        shape = f"{result['batch'] * result['heads']} x {result['length']} x {result['features']}"
        mask, passes = "causal" if result["causal"] else "none", "both" if result["backward"] else "forward"
        rows.append((shape, result["dtype"], mask, passes, *times, rate, speed))
    output.table("Attention; the rate is Pullback's, and counts what a causal mask leaves", columns, rows)


def work(contestant: str, tell: Callable[..., None]) -> None:
    """Answer each line of the input: a case and the seconds to spend on it, in JSON."""
    prepared: dict[Case, Callable[[], Any]] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        case = Case(**asked["case"])
        if case not in prepared:
            prepared.clear()
            prepared[case] = (_program if contestant == "Pullback" else _in_torch)(case)
            prepared[case]()
        tell(seconds=median(prepared[case], asked["seconds"]))


def _values(case: Case) -> list[np.ndarray]:
    """query, key, value and the cotangent of the result, in float32."""
    random = np.random.default_rng(0)
    shape = (case.batch, case.heads, case.length, case.features)
    return [random.standard_normal(shape, np.float32) for _ in range(4)]


def _in_torch(case: Case) -> Callable[[], Any]:
    torch = importlib.import_module("torch")
    attend = torch.nn.functional.scaled_dot_product_attention
    *operands, cotangent = (torch.from_numpy(x).to(getattr(torch, case.dtype)) for x in _values(case))
    if not case.backward:
        return lambda: attend(*operands, is_causal=case.causal)
    for operand in operands:
        operand.requires_grad_()
    return lambda: torch.autograd.grad(attend(*operands, is_causal=case.causal), operands, cotangent)


def _program(case: Case) -> Callable[[], Any]:
    from pullback.differentiate import gradients
    from pullback.graph.node import Graph
    from pullback.graph.types import from_name, to_storage
    from pullback.ops.attention import attention
    from pullback.ops.primitive import input_node
    from pullback.runtime.backends import made_program
    from pullback.runtime.buffers import Buffer

    dtype = from_name(case.dtype)
    arrays = _values(case)
    nodes = [input_node(place, array.shape, dtype, requires_grad=place < 3) for place, array in enumerate(arrays)]
    buffers = [Buffer.of(to_storage(array, dtype).reshape(-1), copy=True) for array in arrays]
    query, key, value, cotangent = nodes
    outputs = [attention(query, key, value, case.features**-0.5, case.causal)]
    if case.backward:
        outputs = [node for node in gradients(outputs, [cotangent], nodes[:3]) if node is not None]
    results = [Buffer.empty(arrays[0].size, dtype) for _ in outputs]
    program = made_program(Graph.of(outputs), nodes)
    return lambda: program.run(buffers, results)
