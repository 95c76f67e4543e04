"""The memory that this process may still take: what the machine has free, what its container leaves of it, and the
addresses that its limits leave.
"""

from __future__ import annotations

import contextlib
from pathlib import Path


def available_bytes(root: Path = Path("/")) -> int | None:
    """Bytes that can be allocated without another program, or this one, being stopped for it; None where the system
    does not tell. `root` is the root of the file system.

    Of the machine it is what Linux calls available; of each control group (version 2 or 1) from this process's up, its
    limit less what is in use and could not be dropped at once. What a control group calls `memory.high` is no limit
    here: whoever goes beyond it is slowed down, and not stopped.
    """
    found = [_machine(root), *_groups(root)]
    known = [nbytes for nbytes in found if nbytes is not None]
    return max(0, min(known)) if known else None


def address_space(root: Path = Path("/")) -> int | None:
    """Bytes of addresses that this process may still map under its limit for these (`ulimit -v`, RLIMIT_AS), whether or
    not it ever writes there; None where there is no limit, or the system does not tell.
    """
    most = _entry(root / "proc/self/limits", "Max address space")  # "unlimited" is no number
    mapped = _entry(root / "proc/self/status", "VmSize:")
    return None if most is None or mapped is None else max(0, most - mapped * 1024)


def _machine(root: Path) -> int | None:
    free = _entry(root / "proc/meminfo", "MemAvailable:")
    return None if free is None else free * 1024


def _entry(path: Path, name: str) -> int | None:
    """The number behind a name that a line of a file begins with; None where there is none."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in path.read_text().splitlines():
            if line.startswith(name):
                return int(line[len(name) :].split()[0])
    return None


def _groups(root: Path) -> list[int | None]:
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found: list[int | None] = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, separator, path = rest.partition(":")
        if not separator:  # no line of such a file
            continue
        if controllers == "":
            mount, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            mount = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = mount / path.strip("/")
        for folder in [group, *(parent for parent in group.parents if parent.is_relative_to(mount))]:
            found.append(_left(folder, *names))
    return found


def _left(group: Path, limit: str, usage: str, droppable: str) -> int | None:
    """What one group leaves, as far as it can be read; None where it has no limit."""
    most = _entry(group / limit, "")  # "max" is no number
    if most is None:
        return None
    return most - max(0, (_entry(group / usage, "") or 0) - (_entry(group / "memory.stat", f"{droppable} ") or 0))
