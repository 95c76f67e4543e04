"""The figures of a comparison as one table, for the terminal and for documentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import output
from .contestants import CONTESTANTS

TITLE = "A training step, the loss read after it (speed: the best peer is 1; limit: the part of the peak rate reached)"
COLUMNS = ("‹workload", "‹contestant", "median", "speed", "limit", "first step", "cached", "peak", "above import")


def steps(results: Sequence[dict[str, Any]]) -> None:
    """Print one table of related results (see `compare.relate`), and a line for each contestant that failed."""
    output.table(TITLE, COLUMNS, _rows(results))
    for result in results:
        if "failure" in result:
            print(f"{CONTESTANTS[result['contestant']].title} failed at {result['workload']}: {result['failure']}")
    alone = dict.fromkeys(result["workload"] for result in results if not result.get("interleaved", True))
    if alone:
        print(f"Measured one after another, not in turns, because memory does not hold all: {', '.join(alone)}")


def markdown(results: Sequence[dict[str, Any]]) -> str:
    """The same table in Markdown."""
    left = [name.startswith("‹") for name in COLUMNS]
    lines = [
        "| " + " | ".join(name.removeprefix("‹") for name in COLUMNS) + " |",
        "|" + "|".join("---" if is_left else "--:" for is_left in left) + "|",
    ]
    lines += ["| " + " | ".join(row) + " |" for row in _rows(results)]
    return "\n".join(lines) + "\n"


def _rows(results: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    rows, before = [], None
    for result in results:
        name = result["workload"]
        rows.append((name if name != before else "", CONTESTANTS[result["contestant"]].title, *_cells(result)))
        before = name
    return rows


def _cells(result: dict[str, Any]) -> tuple[str, ...]:
    if "failure" in result:
        return ("failed", *("–",) * (len(COLUMNS) - 3))
    share = result["share"]
    return (
        output.seconds(result["median_seconds"]),
        "–" if result["speed"] is None else f"{result['speed']:.2f}",
        f"{share:.1%}" if share < 0.1 else f"{share:.0%}",
        output.seconds(result["cold_seconds"]),
        output.seconds(result["warm_seconds"]),
        output.megabytes(result["peak_bytes"]),
        output.megabytes(result["peak_bytes"] - result["imported_bytes"]),
    )
