"""Every switch of Pullback, in one registry: an environment variable each, overridable for a while.

    get("verify")                      the present value
    with override(verify=True): ...    another value for the time of the block, in the whole process

Importing Pullback refuses environment variables with values that are not allowed, also those that a program never asks
for. The documentation's table is `table()`; a test holds the two equal.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Switch:
    """One switch: its `name` in Python, `parse` from text (ValueError when not allowed), what is `allowed` in words,
    the `default` as the same kind of text, and how the table words that default."""

    name: str
    parse: Callable[[str], Any]
    allowed: str
    default: Callable[[], str]
    default_text: str
    description: str

    @property
    def variable(self) -> str:
        return f"PULLBACK_{self.name.upper()}"


def _choice(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError
        return text

    return parse


def _boolean(text: str) -> bool:
    return _choice("1", "0")(text) == "1"


def _threads(text: str) -> int | None:
    if text == "":
        return None
    if re.fullmatch("[0-9]{1,9}", text) is None or not 1 <= int(text) <= MAXIMUM_THREADS:  # int() takes "1_0" as well
        raise ValueError
    return int(text)


def _directory(text: str) -> Path | None:
    if text.lower() in ("", "off"):
        return None
    try:
        return Path(text).expanduser()
    except RuntimeError:  # there is no such user, or no home
        raise ValueError from None


def _stages(text: str) -> frozenset[str]:
    stages = frozenset(part.strip() for part in text.split(",") if part.strip())
    if not stages <= frozenset(STAGES):
        raise ValueError
    return stages


def _user_cache() -> str:
    base = os.environ.get("XDG_CACHE_HOME")
    return str((Path(base) if base else Path("~/.cache")) / "pullback")


#: No machine in sight has more cores; a larger number is a slip of the keyboard.
MAXIMUM_THREADS = 1024
#: What `debug` can print.
STAGES = ("graph", "kernels", "plan", "compile")

SWITCHES: dict[str, Switch] = {
    switch.name: switch
    for switch in (
        Switch(
            "backend",
            _choice("native", "reference"),
            "native or reference",
            lambda: "native",
            "native",
            "Run compiled native code, or the NumPy reference of every operation.",
        ),
        Switch(
            "cpu",
            str,
            "the name of a processor",
            lambda: "",
            "the host's",
            "Generate code for this processor, such as x86-64-v3, instead of the host's own.",
        ),
        Switch(
            "num_threads",
            _threads,
            f"a whole number from 1 to {MAXIMUM_THREADS}",
            lambda: "",
            "the cores available",
            "Threads that a program runs on. The cores available respect the affinity and the cgroup's quota.",
        ),
        Switch(
            "cache_dir",
            _directory,
            'a directory, or "off"',
            _user_cache,
            "$XDG_CACHE_HOME/pullback or ~/.cache/pullback",
            'Where compiled code is kept between processes; empty or "off" keeps none.',
        ),
        Switch(
            "verify",
            _boolean,
            "1 or 0",
            lambda: "0",
            "0",
            "Verify the graph between the compiler's passes.",
        ),
        Switch(
            "debug",
            _stages,
            f"a comma-separated list of {', '.join(STAGES)}",
            lambda: "",
            "nothing",
            f"Print these to standard error: a comma-separated list of {', '.join(STAGES)}.",
        ),
    )
}

_overrides: dict[str, str] = {}
_lock = threading.Lock()


def get(name: str) -> Any:
    """The present value of the switch `name`: from `override`, else the environment variable, else the default.

    Raises ValueError, naming the variable, the value and what is allowed, where the value is not allowed.
    """
    switch = SWITCHES[name]
    text = _overrides.get(name)
    if text is None:
        text = os.environ.get(switch.variable)
    return _parse(switch, switch.default() if text is None else text)


@contextmanager
def override(**values: Any) -> Iterator[None]:
    """Give switches other values for the time of the block, in every thread of the process.

    Values are of the switch's own type, or text as the environment variable would hold it.
    """
    texts: dict[str, str] = {}
    for name, value in values.items():
        if name not in SWITCHES:
            raise ValueError(f"there is no switch {name!r}; the switches are {', '.join(SWITCHES)}")
        texts[name] = _text(value)
        _parse(SWITCHES[name], texts[name])
    with _lock:
        before = {name: _overrides.get(name) for name in texts}
        _overrides.update(texts)
    try:
        yield
    finally:
        with _lock:
            for name, text in before.items():
                if text is None:
                    _overrides.pop(name, None)
                else:
                    _overrides[name] = text


def check_environment() -> None:
    """Raise ValueError, as `get` does, for the first environment variable whose value its switch does not allow.

    Whether this machine can run code for the processor of PULLBACK_CPU is found when code is generated for it.
    """
    for switch in SWITCHES.values():
        text = os.environ.get(switch.variable)
        if text is not None:
            _parse(switch, text)


def table() -> str:
    """The documented table of switches, in Markdown."""
    rows = [f"| `{s.variable}` | {s.allowed} | {s.default_text} | {s.description} |" for s in SWITCHES.values()]
    return "\n".join(["| variable | value | default | meaning |", "|---|---|---|---|", *rows, ""])


def _text(value: Any) -> str:
    """A Python value as the environment variable would hold it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, (set, frozenset, list, tuple)):
        return ",".join(sorted(value))
    return str(value)


def _parse(switch: Switch, text: str) -> Any:
    try:
        return switch.parse(text.strip())
    except ValueError:
        raise ValueError(f"{switch.variable}={text!r} is not allowed: expected {switch.allowed}") from None


check_environment()
