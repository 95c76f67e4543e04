"""The command: `python -m benchmarks` and what else it measures; `--help` lists it."""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import (
    attention,
    budgets,
    compare,
    costs,
    files,
    limits,
    memory,
    optimizers,
    plot,
    products,
    quantized,
    report,
    retention,
    widths,
    workloads,
)
from .contestants import CONTESTANTS, Contestant

_EPILOG = """\
what can be measured:
  steps      training steps of Pullback, PyTorch and JAX, in turns, each in a process of its own (the default)
  limits     the machine's peak rates and memory bandwidth
  products   matrix products beside OpenBLAS, MKL and oneDNN; --only takes the beginnings of their names
  quantized  products by weights of 4 and 8 bits against those in float32
  attention  attention beside PyTorch's, forward and both passes
  optimizers  updates of optimizers in 32, 8 and 4 bits beside PyTorch's and bitsandbytes'; --only takes their names
  widths     the time of a step of a small network at every width from 1 to 512
  backward   a backward pass against the forward pass, in Pullback
  depth      how time grows with layers and operations, in Pullback
  memory     what a step holds by its plan, and what processes grow by, beside PyTorch
  retention  ways to choose what is kept and what is computed again, by peak, added work and time; --only takes
             workloads, and chain100 and the like
  budgets    steps in the parts of their memory that others published figures for; --only takes {networks}
  growth     memory, work and time against depth, 10 to 1,000 layers, with and without a budget
  show       nothing: the tables and plots of files that --json wrote

workloads:   {workloads}
             (gpt2 takes minutes; {by_name} and the bfloat16 ones run by name, those also with --bf16)
contestants: {contestants}

examples:
  python -m benchmarks --only mlp,gpt-char --plot steps.png
  python -m benchmarks --only gpt-mid-bf16,pullback,jax --json figures.json
  python -m benchmarks show one.json other.json --plot all.svg
"""
_BF16_NAMES = tuple(name + workloads.BF16 for name in workloads.GPT)
_COMMANDS = ("steps", "limits", "products", "quantized", "attention", "optimizers", "widths", "backward", "depth",
             "memory", "retention", "budgets", "growth", "show")  # fmt: skip
#: which options each command has
_OPTIONS = {
    "steps": {"only", "bf16", "steps", "rounds", "timeout", "plot", "markdown", "json"},
    "limits": {"timeout", "json"},
    "products": {"only", "rounds", "timeout", "json"},
    "quantized": {"rounds", "json"},
    "attention": {"rounds", "timeout", "json"},
    "optimizers": {"only", "rounds", "timeout", "json"},
    "widths": {"only", "timeout", "plot", "widths", "batch", "json"},
    "backward": {"only", "rounds", "json"},
    "depth": {"rounds", "json"},
    "memory": {"only", "timeout", "markdown", "json"},
    "retention": {"only", "json"},
    "budgets": {"only", "rounds", "json"},
    "growth": {"rounds", "plot", "json"},
    "show": {"plot", "markdown"},
}
_DEFAULTS = {"rounds": 7, "timeout": 600.0, "widths": "1:512", "batch": widths.BATCH}


def main(line: Sequence[str] | None = None) -> None:
    """Measure what the command line asks for, print it, and write it to files where they are named."""
    arguments = _arguments(line)
    if arguments.what == "show":
        _show(_merged(arguments.held), arguments)
        return
    try:
        measured = _measured(arguments)
    except KeyboardInterrupt:
        sys.exit("interrupted before anything was measured whole")
    is_whole = measured.pop("whole", True)
    written = {"machine": compare.machine(), **measured}
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(written, indent=1) + "\n")
    _show(written, arguments)
    if not is_whole:
        done = dict.fromkeys(result["workload"] for result in written["steps"])
        sys.exit(f"interrupted: only {', '.join(done)} of {', '.join(arguments.names)} measured")


def _show(written: dict[str, Any], arguments: Any) -> None:
    """Print and draw what was measured."""
    if "limits" in written:
        limits.table(written["limits"])
    if "steps" in written:
        _show_steps(written, arguments)
    if "products" in written:
        products.table(written["products"])
    if "quantized" in written:
        quantized.table(written["quantized"])
    if "memory" in written:
        print(memory.table(written["memory"]))
        if arguments.markdown is not None:
            arguments.markdown.write_text(memory.table(written["memory"]) + "\n")
    if "attention" in written:
        attention.table(written["attention"])
    if "optimizers" in written:
        for found in written["optimizers"]:
            optimizers.table(found)
    if "retention" in written:
        retention.table(written["retention"])
    if "budgets" in written:
        budgets.table(written["budgets"])
    if "growth" in written:
        budgets.growth_table(written["growth"])
        if arguments.plot is not None:
            plot.growth(written["growth"], arguments.plot)
    if "backward" in written:
        costs.backward_table(written["backward"])
    if "depth" in written:
        costs.depth_table(written["depth"])
    if "widths" in written:
        widths.table(written["widths"])
        if arguments.plot is not None:
            plot.widths(written["widths"], written["machine"], arguments.plot)


def _show_steps(written: dict[str, Any], arguments: Any) -> None:
    related = compare.relate(written["steps"], written["limits"])
    report.steps(related)
    if arguments.markdown is not None:
        arguments.markdown.write_text(report.markdown(related))
    if arguments.plot is not None and not any(compare.best_peer(related, result["workload"]) for result in related):
        sys.exit(f"{arguments.plot} is not drawn: speeds are relative to the best peer, and no peer has a result")
    if arguments.plot is not None:
        plot.steps(related, written["machine"], arguments.plot)


def _measured(arguments: Any) -> dict[str, Any]:
    if arguments.what == "backward":
        return {"backward": costs.backward(arguments.names or ["mlp", "gpt-char"], arguments.rounds)}
    if arguments.what == "depth":
        return {"depth": costs.depth(arguments.rounds)}
    if arguments.what == "retention":
        return {"retention": retention.measure(arguments.names or ["gpt-char", "gpt-deep"])}
    if arguments.what == "budgets":
        return {"budgets": budgets.measure(arguments.names or budgets.NETWORKS, arguments.rounds)}
    if arguments.what == "growth":
        return {"growth": budgets.growth(budgets.LAYERS, arguments.rounds)}
    if arguments.what == "products":
        return {"products": products.measure(arguments.rounds, arguments.cases, timeout=arguments.timeout)}
    if arguments.what == "quantized":
        return {"quantized": quantized.measure(arguments.rounds)}
    if arguments.what == "attention":
        return {"attention": attention.measure(arguments.rounds, timeout=arguments.timeout)}
    if arguments.what == "optimizers":
        return {"optimizers": [optimizers.measure(arguments.rounds, arguments.names, timeout=arguments.timeout)]}
    if arguments.what == "memory":
        return {"memory": memory.run(arguments.names or memory.NAMES, arguments.timeout)}
    before = {} if arguments.what == "widths" else compare.machine_limits(arguments.timeout)
    if arguments.what == "limits":
        return {"limits": before}
    if arguments.what == "widths":
        chosen = compare.available(arguments.contestants or [CONTESTANTS[key] for key in ("pullback", "torch-fused")])
        with tempfile.TemporaryDirectory(prefix="benchmarks-") as cache:
            return {"widths": widths.run(chosen, arguments.widths, cache, arguments.timeout, arguments.batch)}
    try:
        results = compare.run(_races(arguments), arguments.steps, arguments.rounds, arguments.timeout)
    except compare.Interrupted as interrupted:
        if not interrupted.results:
            raise
        return {"limits": before, "steps": interrupted.results, "whole": False}
    return {"limits": limits.best([before, compare.machine_limits(arguments.timeout)]), "steps": results}


def _races(arguments: Any) -> dict[str, list[Contestant]]:
    """The contestants of each workload."""
    able = compare.available(arguments.contestants or CONTESTANTS.values())
    chosen = bool(arguments.contestants)
    return {name: [one for one in able if chosen or one.takes(name)] for name in arguments.names}


def _merged(held: list[dict[str, Any]]) -> dict[str, Any]:
    """What several files hold, as if it had been measured in one run on the machine of the first."""
    merged: dict[str, Any] = {"machine": held[0]["machine"]}
    for key in files.RESULTS:
        if found := [result for one in held for result in one.get(key, [])]:
            merged[key] = found
    if "widths" in merged:
        merged["widths"] = widths.merged(merged["widths"])
    if found := [one["limits"] for one in held if "limits" in one]:
        merged["limits"] = limits.best(found)
    return merged


def _arguments(line: Sequence[str] | None) -> Any:
    parser = _parser()
    arguments = parser.parse_args(line)
    given = {name for name in set().union(*_OPTIONS.values()) if getattr(arguments, name) not in (None, False)}
    if refused := sorted(given - _OPTIONS[arguments.what]):
        parser.error(f"`{arguments.what}` has no {' and no '.join('--' + name for name in refused)}")
    if bool(arguments.files) != (arguments.what == "show"):
        parser.error("`show` needs files that --json wrote, and nothing else takes files")
    for name, default in _DEFAULTS.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, default)
    if arguments.rounds < 1 or (arguments.steps is not None and arguments.steps < 1) or arguments.batch < 1:
        parser.error("--rounds, --steps and --batch must be at least 1")
    if not 0 < arguments.timeout < threading.TIMEOUT_MAX:
        parser.error(f"--timeout must be positive, got {arguments.timeout:g}")
    arguments.widths = _widths(arguments.widths, parser)
    _choose(arguments, parser)
    _check_plot(arguments.plot, parser)
    try:
        for name in ("json", "markdown", "plot"):
            files.check_writable(f"--{name}", getattr(arguments, name))
        arguments.held = [files.read(file) for file in arguments.files]
    except files.Unusable as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    if arguments.what == "show":
        _check_shown(arguments, parser)
    return arguments


def _check_shown(arguments: Any, parser: argparse.ArgumentParser) -> None:
    """Refuse what the files have nothing for."""
    held = set().union(*arguments.held)
    if "steps" in held and "limits" not in held:
        parser.error("the files hold steps and no limits of the machine, against which they are shown")
    if arguments.markdown is not None and "steps" not in held:
        parser.error("--markdown writes the table of steps, and the files hold none")
    if arguments.plot is not None and len(held & {"steps", "widths", "growth"}) != 1:
        parser.error("--plot draws steps, widths or growth, and the files must hold one of them")


def _parser() -> argparse.ArgumentParser:
    named = {
        "workloads": ", ".join((*workloads.NAMES, *workloads.BY_NAME, *_BF16_NAMES)),
        "by_name": ", ".join(workloads.BY_NAME),
        "contestants": ", ".join(CONTESTANTS),
        "networks": ", ".join(budgets.NETWORKS),
    }
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure training steps, side by side with PyTorch and JAX and with the limits of the machine.",
        epilog=_EPILOG.format(**named),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", nargs="?", choices=_COMMANDS, default="steps", help="what to measure (default: steps)")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="for `show`: files that --json wrote")
    add = parser.add_argument
    add("--only", metavar="NAMES", help="only these workloads and contestants, names separated by commas")
    add("--bf16", action="store_true", help="also the transformers with their products in bfloat16")
    add("--json", type=Path, metavar="FILE", help="also write all figures to this file")
    add("--markdown", type=Path, metavar="FILE", help="also write the table of steps to this file, in Markdown")
    add("--plot", type=Path, metavar="FILE", help="draw steps, widths or growth to this file, such as steps.svg")
    add("--steps", type=int, metavar="N", help="timed steps a round (default: as many as take half a second)")
    add("--rounds", type=int, metavar="N", help=f"rounds of turns (default: {_DEFAULTS['rounds']})")
    add("--timeout", type=float, metavar="SECONDS", help="time for one answer of a contestant, such as its first step "
        f"or a round; who takes longer has failed (default: {_DEFAULTS['timeout']:g})")  # fmt: skip
    add("--widths", metavar="FIRST:LAST[:STEP]", help=f"for `widths` (default: {_DEFAULTS['widths']})")
    add("--batch", type=int, metavar="N", help=f"for `widths`: rows of the batch (default: {widths.BATCH})")
    return parser


def _choose(arguments: Any, parser: argparse.ArgumentParser) -> None:
    """Set `names` and `contestants` from --only and --bf16; an empty list of contestants means the usual ones."""
    known = (*workloads.NAMES, *workloads.BY_NAME, *_BF16_NAMES)
    wanted = [name.strip() for name in (arguments.only or "").split(",") if name.strip()]
    if arguments.only is not None and not wanted:
        parser.error(f"--only names nothing: {arguments.only!r}")
    if arguments.what == "products":
        arguments.cases = [case for case in products.CASES if not wanted or case.name.startswith(tuple(wanted))]
        if not arguments.cases:
            parser.error(f"no product begins with {arguments.only}; there are {', '.join(_product_names())}")
        return
    if arguments.what == "retention":
        arguments.names = [name for name in wanted if name in known or re.fullmatch(r"chain[1-9]\d*", name)]
        wanted = [name for name in wanted if name not in arguments.names]
        if wanted:
            parser.error(f"`retention` takes workloads and chain100 and the like, got {', '.join(wanted)}")
        return
    if arguments.what == "optimizers":
        known = [case.name for case in optimizers.CASES]
        if unknown := [name for name in wanted if name not in known]:
            parser.error(f"`optimizers` takes {', '.join(known)}, got {', '.join(unknown)}")
        arguments.names = wanted
        return
    if arguments.what == "budgets":
        if unknown := [name for name in wanted if name not in budgets.NETWORKS]:
            parser.error(f"`budgets` takes {', '.join(budgets.NETWORKS)}, got {', '.join(unknown)}")
        arguments.names = wanted
        return
    if unknown := [name for name in wanted if name not in known and name not in CONTESTANTS]:
        parser.error(
            f"there is no workload or contestant {', '.join(map(repr, unknown))}; the workloads are "
            f"{', '.join(known)}; the contestants {', '.join(CONTESTANTS)}"
        )
    arguments.contestants = [CONTESTANTS[name] for name in wanted if name in CONTESTANTS]
    arguments.names = [name for name in wanted if name in known]
    if arguments.what == "steps":
        names = arguments.names or list(workloads.NAMES)
        lowered = [name + workloads.BF16 for name in names if arguments.bf16 and name in workloads.GPT]
        arguments.names = list(dict.fromkeys([*names, *lowered]))
        peers = [contestant for contestant in arguments.contestants if contestant.is_peer]
        if arguments.plot is not None and arguments.contestants and not peers:
            parser.error("--plot draws speeds relative to the best peer: --only must name one, such as jax")
    if arguments.what == "backward" and (arguments.contestants or set(arguments.names) & set(_BF16_NAMES)):
        parser.error("`backward` measures Pullback alone, in float32")
    if arguments.what == "memory":
        if arguments.contestants or set(arguments.names) & set(_BF16_NAMES):
            parser.error("`memory` measures Pullback and PyTorch, in float32")
        if not memory.MEASURABLE:
            parser.error("`memory` reads the most that was resident from Linux's /proc/self")
    if arguments.what == "widths" and arguments.names:
        parser.error("`widths` has a network of its own; --only chooses contestants there")


def _product_names() -> list[str]:
    return list(dict.fromkeys(case.name for case in products.CASES))


def _widths(text: str, parser: argparse.ArgumentParser) -> list[int]:
    match = re.fullmatch(r"(\d+):(\d+)(?::(\d+))?", text)
    first, last, step = (int(number or 1) for number in match.groups()) if match else (0, 0, 0)
    if not 1 <= first <= last or step < 1:
        parser.error(f"--widths takes FIRST:LAST or FIRST:LAST:STEP with 1 ≤ STEP and 1 ≤ FIRST ≤ LAST, got {text!r}")
    return list(range(first, last + 1, step))


def _check_plot(file: Path | None, parser: argparse.ArgumentParser) -> None:
    """Refuse a file that cannot be drawn before anything is measured."""
    if file is None:
        return
    try:
        endings = plot.formats()
    except ImportError as error:
        parser.error(f"--plot needs matplotlib (pip install '.[bench]'): {error}")
    if file.suffix.removeprefix(".") not in endings:
        parser.error(f"--plot cannot write {file.name!r}; the name must end with .{', .'.join(endings)}")


if __name__ == "__main__":
    main()
