"""The command: `python -m benchmarks [names]`, `… backward [names]`, `… depth`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from . import compare, costs, workloads


def main() -> None:
    """Measure what the command line asks for, print it, and write it to a file where one is named."""
    arguments = _arguments()
    if arguments.what == "backward":
        results = costs.backward(arguments.names or ["mlp", "gpt-char"], arguments.rounds)
    elif arguments.what == "depth":
        results = costs.depth(arguments.rounds)
    else:
        results = compare.run(arguments.names or list(workloads.NAMES), arguments.steps, arguments.rounds)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"machine": compare.machine(), "results": results}, indent=1) + "\n")


def _arguments() -> Any:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Time training steps in Pullback and PyTorch, alternately, each in a process of its own. "
        "`backward` compares a backward pass with the forward pass; `depth` shows how time grows with depth.",
    )
    names = ("backward", "depth", *workloads.NAMES)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(names)} (default: all workloads)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures to this file")
    parser.add_argument("--steps", type=int, metavar="N", help="steps a round (default: as many as take half a second)")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="rounds of alternation (default: 7)")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in names]
    if unknown:
        parser.error(f"there is no workload {', '.join(map(repr, unknown))}; there are {', '.join(names)}")
    arguments.what = None
    if arguments.names and arguments.names[0] in ("backward", "depth"):
        arguments.what = arguments.names.pop(0)
    if (arguments.what == "depth" and arguments.names) or {"backward", "depth"} & set(arguments.names):
        parser.error("`backward` comes first, with workloads after it; `depth` stands alone")
    if arguments.what and arguments.steps is not None:
        parser.error(f"`{arguments.what}` chooses the number of steps itself; --rounds makes it longer")
    if arguments.rounds < 1 or (arguments.steps is not None and arguments.steps < 1):
        parser.error("--rounds and --steps must be at least 1")
    return arguments


if __name__ == "__main__":
    main()
