"""What the machine can do at most, against which a step's time is held: multiply-adds and bytes of memory a second."""

from __future__ import annotations

from typing import Any

from . import output

_DTYPES = ("float32", "bfloat16")


def measure() -> dict[str, Any]:
    """Operations a second by dtype, and bytes a second of memory written anew beyond the caches, on one thread and all.

    Each is the best of several tries (see `pullback.runtime.limits`). "bfloat16" is the rate of the processor's own
    products of bfloat16 where it has them, otherwise that of float32, in which such products are made then.
    """
    from pullback.codegen.target import is_x86
    from pullback.runtime import jit, limits, threads

    target, counts = jit.host_target(), sorted({1, threads.get_num_threads()})
    return {
        "cpu": target.cpu,
        "has_bf16": target.has_bf16 and is_x86(target.triple),  # what `peak_operations` knows how to measure
        "threads": counts[-1],
        "operations_a_second": {
            dtype: {str(count): limits.peak_operations(dtype, count) for count in counts} for dtype in _DTYPES
        },
        "bytes_a_second": {str(count): limits.bandwidth(4, count) for count in counts},
    }


def best(tries: list[dict[str, Any]]) -> dict[str, Any]:
    """The highest rates of several measurements of one machine: nothing can raise a rate, and much can lower it."""
    rates = {dtype: _highest([one["operations_a_second"][dtype] for one in tries]) for dtype in _DTYPES}
    moved = _highest([one["bytes_a_second"] for one in tries])
    return {**tries[0], "operations_a_second": rates, "bytes_a_second": moved}


def _highest(tries: list[dict[str, float]]) -> dict[str, float]:
    return {count: max(one[count] for one in tries) for count in tries[0]}


def rate(limits: dict[str, Any], dtype: str) -> float:
    """Operations a second in `dtype` on all threads."""
    found: float = limits["operations_a_second"][dtype][str(limits["threads"])]
    return found


def table(limits: dict[str, Any]) -> None:
    """Print the rates, a row each, on one thread and on all of them."""
    counts = sorted(limits["bytes_a_second"], key=int)
    names = {"float32": "float32 multiply-adds", "bfloat16": "bfloat16 multiply-adds"}
    if not limits["has_bf16"]:
        names["bfloat16"] += " (made in float32)"
    rows = [
        (names[dtype], *(f"{rates[count] / 1e9:.0f} GFLOP/s" for count in counts))
        for dtype, rates in limits["operations_a_second"].items()
    ]
    rewritten = [f"{limits['bytes_a_second'][count] / 1e9:.1f} GB/s" for count in counts]
    rows.append(("memory written anew, read and written", *rewritten))
    columns = [f"{count} thread{'s' if count != '1' else ''}" for count in counts]
    output.table(f"The machine's limits ({limits['cpu']})", ("‹what", *columns), rows)
