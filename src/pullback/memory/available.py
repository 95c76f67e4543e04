"""The memory that this process may still take: what the machine has free, and what its container leaves of it."""

from __future__ import annotations

import contextlib
from pathlib import Path


def available_bytes(root: Path = Path("/")) -> int | None:
    """Bytes that can be allocated without another program, or this one, being stopped for it; None where the system
    does not tell. `root` is the root of the file system.

    Of the machine it is what Linux calls available; of each control group (version 2 or 1) from this process's up, its
    limit less what is in use and could not be dropped at once.
    """
    found = [_machine(root), *_groups(root)]
    known = [nbytes for nbytes in found if nbytes is not None]
    return max(0, min(known)) if known else None


def _machine(root: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _groups(root: Path) -> list[int | None]:
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found: list[int | None] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
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
    """What one group leaves; None where it has no limit or cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        most = int((group / limit).read_text())  # "max" is the ValueError of no limit
        used = int((group / usage).read_text())
        for line in (group / "memory.stat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == droppable:
                used -= int(value)
        return most - used
    return None
