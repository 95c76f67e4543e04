"""Files that --json wrote, and those that are to be written: found unusable before anything is measured."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

#: what a file may hold lists of, and what each of their elements has at least
RESULTS = {
    "steps": {"workload", "contestant", "flops"},
    "widths": {"contestant", "seconds", "jumps"},
    "products": {"name", "dtype", "seconds"},
    "quantized": {"kind", "rows", "ratio"},
    "attention": set[str](),
    "optimizers": {"elements", "missing", "seconds", "of_fp32"},
    "backward": {"workload", "forward_seconds", "both_seconds", "ratio"},
    "depth": set[str](),
    "memory": set[str](),
    "retention": set[str](),
    "budgets": {"network"},
    "growth": {"layers", "way", "peak", "state"},
}


class Unusable(Exception):
    """A file that cannot be read or written; says which, and why."""


def read(file: Path) -> dict[str, Any]:
    """What --json wrote to the file."""
    try:
        held = json.loads(file.read_text())
    except OSError as error:
        raise Unusable(f"{file}: {error.strerror}") from None
    except ValueError:  # no JSON, or no text
        raise Unusable(f"{file} holds no JSON; was it written to its end?") from None
    if not isinstance(held, dict) or not isinstance(held.get("machine"), dict) or not _has_results(held):
        raise Unusable(f"{file} holds no figures that --json wrote")
    return held


def _has_results(held: dict[str, Any]) -> bool:
    found = {name: held[name] for name in RESULTS if name in held}
    if "limits" in held and not isinstance(held["limits"], dict):
        return False
    listed = all(
        isinstance(results, list) and all(isinstance(one, dict) and RESULTS[name] <= one.keys() for one in results)
        for name, results in found.items()
    )
    return listed and ("limits" in held or bool(found))


def check_writable(option: str, file: Path | None) -> None:
    """Unusable where the file cannot be written; nothing is written."""
    if file is None:
        return
    if file.is_dir():
        raise Unusable(f"{option}: {file} is a directory")
    if not file.exists() and not file.parent.is_dir():
        raise Unusable(f"{option}: there is no directory {file.parent}")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise Unusable(f"{option}: {file} cannot be written")
