"""Numbers of bytes as people write them: "1.5GiB", "800 MB"."""

from __future__ import annotations

import re

import numpy as np

_UNITS = {"": 1, "b": 1}
for _power, _prefix in enumerate("kmgt", 1):
    _UNITS[f"{_prefix}b"] = 1000**_power
    _UNITS[f"{_prefix}ib"] = _UNITS[_prefix] = 1024**_power


def parse_bytes(size: int | float | str, what: str = "memory") -> int:
    """The number of bytes: a number of them, or a text such as "1.5GiB" or "800 MB" (GB is 1000³, GiB and G 1024³).

    Raises TypeError and ValueError where it is neither, or not above zero; `what` names it.

    >>> parse_bytes("1.5KiB"), parse_bytes("2 MB"), parse_bytes(4096)
    (1536, 2000000, 4096)
    >>> parse_bytes(np.int64(4096))
    4096
    """
    if isinstance(size, (np.integer, np.floating)):
        size = size.item()
    if isinstance(size, bool) or not isinstance(size, (int, float, str)):
        raise TypeError(f'{what} must be a number of bytes or a text such as "1.5GiB", got {size!r}')
    if isinstance(size, str):
        found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([a-zA-Z]*)\s*", size)
        if found is None or found[2].lower() not in _UNITS:
            raise ValueError(f'{what} must be a number and a unit, such as "1.5GiB", "800MB" or "64k", got {size!r}')
        nbytes = float(found[1]) * _UNITS[found[2].lower()]
    else:
        nbytes = size
    if not 1 <= nbytes < 2**63:
        raise ValueError(f"{what} must be at least one byte and below 2**63, got {size!r}")
    return int(nbytes)


def format_bytes(nbytes: int) -> str:
    """The bytes in three digits, four from 1000 to 1023, and a unit, of powers of 1024.

    >>> format_bytes(1536), format_bytes(3 << 30), format_bytes(1_024_000)
    ('1.5 KiB', '3 GiB', '1000 KiB')
    """
    size = float(nbytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1023.5:
            return f"{_digits(size)} {unit}"
        size /= 1024
    return f"{_digits(size)} TiB"


def _digits(size: float) -> str:
    """Three digits, or all of those before the point."""
    return f"{size:.0f}" if abs(size) >= 999.5 else f"{size:.3g}"
