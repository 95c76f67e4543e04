"""Tables and figures as text: drawn by rich on a terminal that is wide enough, plain otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def seconds(value: float) -> str:
    """A duration with three digits and the unit that suits it."""
    units = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6))
    unit, scale = next((pair for pair in units if value >= pair[1]), units[-1])
    number = value / scale
    return f"{number:.{0 if number >= 100 else 1 if number >= 10 else 2}f} {unit}"


def megabytes(value: float) -> str:
    """A number of bytes in units of 10⁶."""
    return f"{value / 1e6:.0f} MB"


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table, numbers to the right: all columns but those whose name starts with "‹"."""
    left = [name.startswith("‹") for name in columns]
    names = [name.removeprefix("‹") for name in columns]
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    console = _terminal()
    if console is None or sum(widths) + 3 * len(widths) + 1 > console.width:
        _plain(title, names, left, widths, rows)
        return
    from rich.table import Table

    drawn = Table(title=title, title_justify="left")
    for name, is_left in zip(names, left, strict=True):
        drawn.add_column(name, justify="left" if is_left else "right", no_wrap=True)
    for row in rows:
        drawn.add_row(*row)
    console.print(drawn)


def _terminal() -> Any:
    """rich's console on a terminal; None without rich, and for a file or a pipe."""
    try:
        from rich.console import Console
    except ImportError:
        return None
    console = Console()
    return console if console.is_terminal else None


def _plain(
    title: str, names: Sequence[str], left: Sequence[bool], widths: Sequence[int], rows: Sequence[Sequence[str]]
) -> None:
    print(title)
    for row in (names, ["-" * width for width in widths], *rows):
        cells = zip(row, widths, left, strict=True)
        print("  ".join(cell.ljust(width) if is_left else cell.rjust(width) for cell, width, is_left in cells).rstrip())
    print()
