"""Every switch of Pullback, in one registry: an environment variable each, overridable for a while.

    get("verify")                      the present value
    with override(verify=True): ...    another value for the time of the block, in the whole process

Importing Pullback refuses environment variables with values that are not allowed, also those that a program never asks
for, and warns of those that look like a switch and are none. Spaces around a value do not count, and an empty one is as
if the variable were not set. The documentation's table is `table()`; a test holds the two equal.
"""

from __future__ import annotations

import difflib
import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import forks


@dataclass(frozen=True)
class Switch:
    """One switch: its `name` in Python, `parse` from text that is not empty (ValueError when not allowed), what is
    `allowed` in words, the value by `default`, how the table words that default, and what `override` takes beside text:
    values of the types `kinds`, and None for the text `none`.
    """

    name: str
    parse: Callable[[str], Any]
    allowed: str
    default: Callable[[], Any]
    default_text: str
    description: str
    kinds: tuple[type, ...] = ()
    none: str = ""

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


def _whole(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if re.fullmatch("[0-9]{1,18}", text) is None or not least <= int(text) <= most:  # int() takes "1_0" as well
            raise ValueError
        return int(text)

    return parse


def _directory(text: str) -> Path | None:
    if text.lower() == "off":
        return None
    try:
        return Path(text).expanduser()
    except RuntimeError:  # there is no such user, or no home
        raise ValueError from None


def _stages(text: str) -> frozenset[str]:
    stages = frozenset(part.strip() for part in text.split(","))
    if not stages <= frozenset(STAGES):
        raise ValueError
    return stages


def _user_cache() -> Path | None:
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path("~/.cache")).expanduser() / "pullback"
    except RuntimeError:
        return None  # there is no home to keep anything in


#: No machine in sight has more cores; a larger number is a slip of the keyboard.
MAXIMUM_THREADS = 1024
#: As many bytes as fit the files of any system.
_MAXIMUM_BYTES = (1 << 59) - 1
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
            _whole(1, MAXIMUM_THREADS),
            f"a whole number from 1 to {MAXIMUM_THREADS}",
            lambda: None,
            "the cores available",
            "Threads that a program runs on. The cores available respect the affinity and the cgroup's quota.",
            (int,),
        ),
        Switch(
            "cache_dir",
            _directory,
            'a directory, or "off"',
            _user_cache,
            "$XDG_CACHE_HOME/pullback or ~/.cache/pullback",
            'Where compiled code is kept between processes; "off", in capitals too, keeps none.',
            (os.PathLike,),
            "off",
        ),
        Switch(
            "cache_bytes",
            _whole(0, _MAXIMUM_BYTES),
            "a whole number of bytes",
            lambda: 512 << 20,
            f"{512 << 20} (512 MiB)",
            "About how much is kept there, from the next process on; what was used least recently goes first.",
            (int,),
        ),
        Switch(
            "verify",
            _boolean,
            "1 or 0",
            lambda: False,
            "0",
            "Verify the graph between the compiler's passes.",
            (bool,),
        ),
        Switch(
            "debug",
            _stages,
            f"a comma-separated list of {', '.join(STAGES)}",
            frozenset,
            "nothing",
            "Print to standard error, whenever something is compiled: its graph, its kernels, the plan of a step's "
            "memory, where compile time went.",
            (set, frozenset, list, tuple),
        ),
    )
}

_overrides: dict[str, str] = {}
_lock = threading.Lock()


@forks.in_child
def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


def get(name: str) -> Any:
    """The present value of the switch `name`: from `override`, else the environment variable, else the default.

    Raises ValueError, naming the variable, the value and what is allowed, where the value is not allowed.
    """
    switch = SWITCHES[name]
    text = _overrides.get(name)
    return _parse(switch, os.environ.get(switch.variable, "") if text is None else text)


@contextmanager
def override(**values: Any) -> Iterator[None]:
    """Give switches other values for the time of the block, in every thread of the process.

    Values are of the switch's own type, or text as the environment variable would hold it; empty text is the default.
    """
    texts: dict[str, str] = {}
    for name, value in values.items():
        if name not in SWITCHES:
            raise ValueError(f"there is no switch {name!r}; the switches are {', '.join(SWITCHES)}")
        texts[name] = _text(SWITCHES[name], value)
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
    """Raise ValueError, as `get` does, for the first environment variable whose value its switch does not allow, and
    warn of variables that begin as switches do and are none.

    Whether this machine can run code for the processor of PULLBACK_CPU is found when code is generated for it.
    """
    known = {switch.variable: switch for switch in SWITCHES.values()}
    for variable, text in os.environ.items():
        if variable in known:
            _parse(known[variable], text)
        elif variable.startswith("PULLBACK_"):
            near = difflib.get_close_matches(variable, known, 1, 0.0)
            warnings.warn(
                f"the environment variable {variable} is no switch of Pullback and does nothing; did you mean "
                f"{near[0]}? The switches are {', '.join(known)}",
                stacklevel=2,
            )


def table() -> str:
    """The documented table of switches, in Markdown."""
    rows = [f"| `{s.variable}` | {s.allowed} | {s.default_text} | {s.description} |" for s in SWITCHES.values()]
    return "\n".join(["| variable | value | default | meaning |", "|---|---|---|---|", *rows, ""])


def _text(switch: Switch, value: Any) -> str:
    """A Python value as the environment variable would hold it."""
    if value is None:
        return switch.none
    if not isinstance(value, (str, *switch.kinds)) or (isinstance(value, bool) and bool not in switch.kinds):
        raise ValueError(f"{switch.name}={value!r} is not allowed: expected {switch.allowed}")
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, (set, frozenset, list, tuple)):
        return ",".join(map(str, value))
    return str(value)


def _parse(switch: Switch, text: str) -> Any:
    if not text.strip():
        return switch.default()
    try:
        return switch.parse(text.strip())
    except ValueError:
        raise ValueError(f"{switch.variable}={text!r} is not allowed: expected {switch.allowed}") from None


check_environment()
