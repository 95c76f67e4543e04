"""Products by a weight that is kept as codes, against those by the same weight in float32."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from . import output
from .timing import median

#: rows of the input, and outputs and inputs of the layer
ROWS = (1, 32, 256, 512, 2048)
SIZES = ((768, 768), (3072, 768), (4096, 4096))
KINDS = ("nf4", "int8")
#: what the rate shall be of that in float32, from so many rows on
LIMIT, FROM_ROWS = 0.7, 256


def measure(rounds: int, seconds: float = 0.02) -> list[dict[str, Any]]:
    """Time forward products and gradients by the input, in turns, `rounds` times; one dictionary a shape and kind."""
    import pullback as pb

    results = []
    for outputs, inputs in SIZES:
        layer = pb.nn.Linear(inputs, outputs, bias=False)
        layer.weight.detach().numpy()
        for kind in KINDS:
            coded = pb.nn.utils.quantize_model(pb.nn.Sequential(layer), kind)[0]
            for rows in ROWS:
                found = _raced(layer, coded, rows, rounds, seconds)
                sizes = {"outputs": outputs, "inputs": inputs, "kind": kind, "rows": rows}
                results += [{**sizes, **one} for one in found]
    return results


def _raced(layer: Any, coded: Any, rows: int, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """The times of the forward product and of the gradient by the input."""
    import pullback as pb

    held = layer.weight.detach()
    calls = {
        "forward": (layer.in_features, lambda x: x @ held.T, lambda x: x @ coded.dequantize().T),
        "input": (layer.out_features, lambda g: g @ held, lambda g: g @ coded.dequantize()),
    }
    found = []
    for way, (width, *both) in calls.items():
        x = pb.randn(rows, width)
        floats, codes = (_timed(pb.compile(one), x, seconds) for one in both)
        pairs = [(floats(), codes()) for _ in range(rounds)]
        found.append(
            {
                "way": way,
                "float32_seconds": statistics.median(a for a, _ in pairs),
                "seconds": statistics.median(b for _, b in pairs),
                "ratio": statistics.median(a / b for a, b in pairs),
            }
        )
    return found


def _timed(step: Any, x: Any, seconds: float) -> Callable[[], float]:
    return lambda: median(lambda: step(x).numpy(), seconds)


def table(results: Sequence[dict[str, Any]]) -> None:
    """Print what `measure` found."""
    output.table(
        f"Products by codes, by the same in float32 (aim: {LIMIT} of its rate from {FROM_ROWS} rows on)",
        ("‹layer", "‹codes", "‹product", "rows", "float32", "codes", "rate by float32's"),
        [
            (
                f"{r['inputs']} to {r['outputs']}", r["kind"], r["way"], str(r["rows"]),
                output.seconds(r["float32_seconds"]), output.seconds(r["seconds"]), f"{r['ratio']:.2f}",
            )
            for r in results
        ],
    )  # fmt: skip
