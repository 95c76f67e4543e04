"""How the cost of a step grows with the width of a small network, and where it jumps.

The network is that of pytorch issue 144633, in which a step of PyTorch on 16 cores took 9 times as long, and 144 times
the processor time, at width 46 as at width 45: it begins there to share the products between threads.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from . import output
from .contestants import CONTESTANTS, Contestant
from .process import Failure, Worker

BATCH = 128
#: what a step may cost in steps of the next narrower or wider network before it counts as a jump
JUMP = 1.3
_TURNS, _TURN_SECONDS = 3, 0.01
#: how often the widths on both sides of a suspected jump are measured again
_CONFIRMATIONS = 2


#: seconds of a step by contestant and width; the width is text, as in JSON
Times = dict[str, dict[str, float]]


def run(
    contestants: Sequence[Contestant], chosen: Sequence[int], cache: str, timeout: float, batch: int = BATCH
) -> list[dict[str, Any]]:
    """Time a step at every width of `chosen`: of each contestant "seconds" by width, and "jumps" between neighbours.

    The contestants take turns at every width; the least median of its turns counts. A suspected jump is measured again.
    """
    results = []
    with ExitStack() as stack:
        workers = {}
        for contestant in contestants:
            worker = Worker("widths", contestant.key, environment=contestant.environment(cache), timeout=timeout)
            workers[contestant.key] = stack.enter_context(worker)
        seconds: Times = {key: {} for key in workers}
        failures: dict[str, str] = {}
        for width in chosen:
            _measure(workers, seconds, failures, width, batch)
        for _ in range(_CONFIRMATIONS):
            suspects = {width for times in seconds.values() for jump in jumps(times) for width in _beside(jump)}
            for width in sorted(suspects):
                _measure(workers, seconds, failures, width, batch)
        for key, times in seconds.items():
            found: dict[str, Any] = {"contestant": key, "batch": batch, "seconds": times, "jumps": jumps(times)}
            results.append(found | ({"failure": failures[key]} if key in failures else {}))
    return results


def _beside(jump: Mapping[str, Any]) -> tuple[int, int]:
    return jump["before"], jump["width"]


def _measure(
    workers: Mapping[str, Worker],
    seconds: Times,
    failures: dict[str, str],
    width: int,
    batch: int,
) -> None:
    able = [key for key in workers if key not in failures]
    counts: dict[str, int] = {}
    for _ in range(_TURNS):
        for key in able:
            if key in failures:
                continue
            try:
                taken = workers[key].asked(width, batch, counts.get(key, 3))["seconds"]
            except Failure as failure:
                failures[key] = str(failure)
                print(f"{CONTESTANTS[key].title} fails at width {width}: {failure}", file=sys.stderr)
                continue
            counts.setdefault(key, max(5, min(200, round(_TURN_SECONDS / taken))))
            seconds[key][str(width)] = min(taken, seconds[key].get(str(width), taken))


def jumps(seconds: Mapping[str, float], factor: float = JUMP) -> list[dict[str, Any]]:
    """Where the time of a step differs from that of the next narrower network measured by more than `factor`.

    Only widths that differ by one, or by less than an eighth, are neighbours: further apart the time grows by right.
    """
    widths = sorted(map(int, seconds))
    found = []
    for before, width in itertools.pairwise(widths):
        times = seconds[str(width)] / seconds[str(before)]
        if (width - before == 1 or width - before < before / 8) and (times > factor or times < 1 / factor):
            found.append({"before": before, "width": width, "times": times})
    return found


def merged(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Results of several ranges of widths put together, one for each contestant and batch."""
    together: dict[tuple[str, int], dict[str, Any]] = {}
    for result in results:
        one = together.setdefault((result["contestant"], result["batch"]), {**result, "seconds": {}})
        for width, taken in result["seconds"].items():
            one["seconds"][width] = min(taken, one["seconds"].get(width, taken))
    for one in together.values():
        one["seconds"] = dict(sorted(one["seconds"].items(), key=lambda item: int(item[0])))
        one["jumps"] = jumps(one["seconds"])
    return list(together.values())


def cost(width: int, batch: int) -> int:
    """Floating-point operations of a step, counted as in `flops`."""
    return 3 * 2 * batch * (10 * width + width * width + width * 10)


def table(results: Sequence[dict[str, Any]]) -> None:
    """Print the time and the cost of an operation at every width, and the jumps."""
    if not results:
        return
    batch = results[0]["batch"]
    columns: list[str] = ["width"]
    for result in results:
        title = CONTESTANTS[result["contestant"]].title
        columns += [title, "a GFLOP"]
    rows = []
    for width in sorted({int(width) for result in results for width in result["seconds"]}):
        row = [str(width)]
        for result in results:
            taken = result["seconds"].get(str(width))
            row += ["–", "–"] if taken is None else [output.seconds(taken), _a_gflop(taken, width, batch)]
        rows.append(row)
    output.table(f"A step of 10 → width → width → 10, batch {batch}, Adam", columns, rows)
    for result in results:
        print(_verdict(result))


def _a_gflop(taken: float, width: int, batch: int) -> str:
    return output.seconds(taken / cost(width, batch) * 1e9)


def _verdict(result: Mapping[str, Any]) -> str:
    title, found = CONTESTANTS[result["contestant"]].title, result["jumps"]
    if "failure" in result:
        return f"{title} failed: {result['failure']}"
    if not found:
        return f"{title}: no step between neighbours of more than {JUMP} times"
    told = ", ".join(f"{jump['before']}→{jump['width']} ({jump['times']:.2f}×)" for jump in found)
    return f"{title}: {len(found)} jumps of more than {JUMP} times: {told}"
