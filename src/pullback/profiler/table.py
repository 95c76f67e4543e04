"""A profile's rows as text."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from .rows import MEANWHILE, Row

SORTS: dict[str, Callable[[Row], float | str]] = {
    "time": lambda row: -row.seconds,
    "calls": lambda row: -row.calls,
    "operations": lambda row: -row.operations,
    "bytes": lambda row: -row.nbytes,
    "limit": lambda row: row.limit_share,
    "name": lambda row: row.name,
}
_HEAD = ("", "calls", "time", "a call", "% time", "GFLOP/s", "GB/s", "% limit", "line")
#: characters that a name, and a line of code, may take
_WIDEST_NAME, _WIDEST_CODE = 60, 48


def format_table(measured: Sequence[Row], python: Sequence[Row], seconds: float, sort: str, most: int) -> str:
    """Kernels, lines or operations, then what is not in kernels, then the sum."""
    ordered = sorted(measured, key=SORTS[sort])
    shown, left = ordered[:most], ordered[most:]
    cells = [_cells(row, seconds) for row in shown]
    if left:
        rest = Row(f"({len(left)} more)", calls=sum(row.calls for row in left))
        for name in ("seconds", "operations", "nbytes", "least_seconds"):
            setattr(rest, name, sum(getattr(row, name) for row in left))
        cells.append(_cells(rest, seconds))
    # what went on beside has no share of the time
    others = [
        _cells(row, 0.0 if row.name == MEANWHILE else seconds) for row in python if row.seconds >= 0.001 * seconds
    ]
    widths = [max(map(len, column)) for column in zip(_HEAD, *cells, *others, strict=True)]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    body = [rule, *(_line(row, widths) for row in cells), rule, *(_line(row, widths) for row in others), rule]
    total = f"{format_time(seconds)} in all, {format_time(sum(row.seconds for row in measured))} in kernels"
    return "\n".join([_line(_HEAD, widths), *body, total])


def format_time(seconds: float) -> str:
    """Seconds in the unit that suits them: "1.24 ms"."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}" if seconds < 1000 * scale else f"{seconds / scale:.0f} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    numbers = [cell.rjust(width) for cell, width in zip(cells[1:-1], widths[1:-1], strict=True)]
    return "  ".join([cells[0].ljust(widths[0]), *numbers, cells[-1]]).rstrip()


def _cells(row: Row, seconds: float) -> tuple[str, ...]:
    name = f"{row.name} {row.result}".strip()
    return (
        _cut(name, _WIDEST_NAME),
        str(row.calls),
        format_time(row.seconds),
        format_time(row.seconds / max(row.calls, 1)),
        f"{100 * row.seconds / seconds:.1f}" if seconds else "",
        _rate(row.operations_per_second),
        _rate(row.bytes_per_second),
        f"{100 * row.limit_share:.0f}" if row.least_seconds else "",
        _where(row),
    )


def _rate(a_second: float) -> str:
    return f"{a_second / 1e9:.3g}" if a_second else ""


def _where(row: Row) -> str:
    if not row.source:
        return ""
    place = os.path.basename(row.source)
    return f"{'' if place == row.name else place + '  '}{_cut(row.code, _WIDEST_CODE)}"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
