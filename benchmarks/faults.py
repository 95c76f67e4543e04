"""Networks that are given one fault each, of a known place: is it found, and is the right operation named?

    python -m benchmarks.faults [--networks 100] [--seed 0] [--verbose]

A network of one of several kinds, of random depth and width, has a fault of one of many kinds at a random place in it.
A first step is sound; in the second the fault shows. It is run as a compiled step and, from the same start, in code
that is not compiled under `detect_anomaly`. The error must name the operation, the file and line, the path of the
module, the phase, how it came about and, in loops, the step; and the state of the compiled step must be what it was, to
the bit.

Silently wrong backward passes, detached layers and parameters that no gradient reaches make no NaN: they are looked for
by `step.check` and by a `Monitor`.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pullback as pb
from pullback.errors import NonFiniteError

from .fault_kinds import FAULTS, OUTSIDE, BadUpdate, Fault, NaNInTheData, marked
from .fault_networks import NETWORKS, PLAIN, Looped
from .fault_silent import SILENT, Silent


@dataclass
class Case:
    """A network with one fault, and what the error has to say."""

    kind: str
    network: Any
    fault: Any
    seed: int

    @property
    def name(self) -> str:
        return f"{type(self.fault).__name__} in {self.kind}"


def cases(networks: int, seed: int) -> list[Case]:
    """So many networks: every kind of fault, and every kind of network, as often as it comes round."""
    chance = random.Random(seed)
    kinds: list[Any] = [*FAULTS, *OUTSIDE, *SILENT]
    found = []
    for number in range(networks):
        if number % len(kinds) == 0:
            chance.shuffle(kinds)
        kind = kinds[number % len(kinds)]
        # some kinds have parts that are cut off or unreached on purpose, and a loop's body has no structure to look at
        own = PLAIN[number % len(PLAIN)] if kind in SILENT else NETWORKS[number % len(NETWORKS)]
        pb.manual_seed(seed + number)
        fault = kind()
        network = own(fault if isinstance(fault, Fault) else None, chance)
        found.append(Case(own.__name__, network, fault, seed + number))
    return found


def run(case: Case, compiled: bool) -> list[str]:
    """What is wrong with what is said of a case."""
    network = case.network
    pb.manual_seed(case.seed)
    x = pb.randn(*network.shape)
    optimizer = pb.optim.Adam(network.parameters(), lr=1e-3)

    def step(x: Any, gap: Any) -> Any:
        optimizer.zero_grad()
        loss = network(x, gap)
        loss.backward()
        optimizer.step()  # update
        return loss

    if isinstance(case.fault, Silent):
        return case.fault.seek(network, step, (x, pb.tensor(1.0)), optimizer, compiled)
    train = pb.compile(step) if compiled else step
    values = x.numpy().copy()
    if isinstance(case.fault, NaNInTheData):
        case.fault.spoil_data(values)
    bad, gap = pb.tensor(values), pb.tensor(0.0 if isinstance(case.fault, Fault) else 1.0)
    with pb.autograd.detect_anomaly():
        train(x, pb.tensor(1.0))
        if isinstance(case.fault, BadUpdate):
            case.fault.spoil(optimizer)
        before = _bits(network, optimizer)
        try:
            train(bad, gap)
        except NonFiniteError as error:
            wrong = _differences(case, error)
        else:
            return ["nothing was found"]
    # in code that is not compiled running averages change as they are computed
    return [*wrong, *(["state has changed"] if compiled and _bits(network, optimizer) != before else [])]


def _bits(network: Any, optimizer: Any) -> list[bytes]:
    held = [*network.parameters(), *network.buffers(), *(v for s in optimizer.state.values() for v in s.values())]
    return [tensor.detach().numpy().tobytes() for tensor in held]


def _differences(case: Case, error: NonFiniteError) -> list[str]:
    """What the error says that is not so."""
    network, fault = case.network, case.fault
    expected: dict[str, Any] = {"op": fault.op, "phase": fault.phase}
    if isinstance(fault, Fault):
        (expected["module"],) = [name for name, part in network.named_modules() if part is fault]
        expected["filename"], expected["lineno"] = fault.line()
        if isinstance(network, Looped):
            expected["time"] = network.at
    elif isinstance(fault, BadUpdate):
        expected["filename"], expected["lineno"] = marked(run, "# update")
    else:
        expected["op"] = network.first
        expected["filename"], expected["lineno"] = marked(network.reader, "# first")
    wrong = [f"{k} is {getattr(error, k)!r}, not {v!r}" for k, v in expected.items() if getattr(error, k) != v]
    return wrong + ([] if fault.how in error.how else [f"how is {error.how!r}, not {fault.how!r}"])


def main() -> int:
    """Run all networks and say what was not found; 1 where anything was not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true", help="say of each network what was found")
    options = parser.parse_args()
    missed = Counter[str]()
    for compiled in (True, False):
        for case in cases(options.networks, options.seed):
            wrong = run(case, compiled)
            missed[f"{compiled}"] += bool(wrong)
            if wrong or options.verbose:
                way = "compiled" if compiled else "anomaly "
                print(f"{way}  {case.name}: {'; '.join(wrong) or 'named'}", flush=True)
    kinds = f"{len(FAULTS) + len(OUTSIDE) + len(SILENT)} kinds of faults, {len(NETWORKS)} kinds of networks"
    found = [options.networks - missed[str(compiled)] for compiled in (True, False)]
    print(f"{options.networks} networks with one fault each ({kinds}): {found[0]} found and named in a compiled step,")
    print(f"{found[1]} under detect_anomaly in code that is not compiled")
    return int(any(missed.values()))


if __name__ == "__main__":
    sys.exit(main())
