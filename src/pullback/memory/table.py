"""A plan as text, as wide as the terminal."""

from __future__ import annotations

import os
import re
import shutil
import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from ..graph.node import Source
from .lives import ROLES, TEMPORARIES
from .sizes import format_bytes

if TYPE_CHECKING:
    from .plan import Plan

#: the fewest and the most columns that a table takes; 80 where there is no terminal
_NARROW, _WIDE = 60, 120
#: columns beside a bar: the role, its bytes and share, and gaps
_BESIDE_BARS = 48
_HEIGHTS = "▁▂▃▄▅▆▇█"
#: a name, and a dtype and shape
_SHAPED = re.compile(r"(.*)( \w+\[[^\[]*\])")


def terminal_width() -> int:
    """The columns that tables may take."""
    return min(max(shutil.get_terminal_size().columns, _NARROW), _WIDE)


def text(plan: Plan, width: int | None = None) -> str:
    """The peak and what it consists of, work and time, memory over the schedule, and the largest buffers, in lines of
    at most `width` columns: those of the terminal.
    """
    width = width or terminal_width()
    lines = [
        f"plan of {plan.name}: {format_bytes(plan.peak_bytes)} at the peak ({plan.peak_bytes:,}\xa0bytes)",
        *_budget(plan),
        *_breakdown(plan, width - _BESIDE_BARS),
        f"  {_work(plan)}",
        *(f"  allowed and done: {name}: {what}" for name, what in plan.changes.items()),
        f"  memory over the {plan.steps} steps of the schedule, the peak at step {plan.peak_step}:",
        f"  {_curve(plan, width - 2)}",
        f"  the {len(plan.largest)} largest of {len(plan.buffers)} buffers:",
        *_table(
            ("memory", "for", "steps", "what", "line"),
            [(format_bytes(b.nbytes), b.role, f"{b.first}–{b.last}", b.what, place(b.source)) for b in plan.largest],
            width,
        ),
    ]
    return "\n".join(part for line in lines for part in _folded(line.rstrip(), width))


def _folded(line: str, width: int) -> list[str]:
    """The line, the rest of one that is too long under it. It is not broken at spaces that say so."""
    parts = [line]
    if len(line) > width:
        parts = textwrap.wrap(line, width, subsequent_indent="    ", break_on_hyphens=False)
    return [part.replace("\xa0", " ") for part in parts]


def _budget(plan: Plan) -> Iterable[str]:
    """Whether the budget is kept, and how far from it the peak is."""
    if plan.budget is None:
        return
    if not isinstance(plan.budget, int):
        free = format_bytes(plan.unbudgeted_bytes)
        yield f"  the least for at most about one more forward pass; with everything kept {free}"
    elif plan.over_budget_bytes:
        missed = format_bytes(plan.over_budget_bytes)
        yield f"  MISSES the budget of {format_bytes(plan.budget)} by {missed}: no less was found"
    else:
        left = plan.budget - plan.peak_bytes
        yield f"  keeps to the budget of {format_bytes(plan.budget)}, {format_bytes(left)} of it left"


def _breakdown(plan: Plan, columns: int) -> Iterable[str]:
    """A line for each role, a bar of all `columns` being the whole peak."""
    for role in ROLES:
        nbytes = plan.breakdown[role]
        share = nbytes / max(plan.peak_bytes, 1)
        gaps = f"gaps {format_bytes(plan.gap_bytes)}" if role == TEMPORARIES and plan.gap_bytes else ""
        bar = "█" * round(share * columns)
        yield f"  {role:<12} {format_bytes(nbytes):>10} {share:>6.1%}  {bar} {gaps}"


def _work(plan: Plan) -> str:
    again = plan.recomputed_flops
    share = f", {again / plan.flops:.1%} of them again to save memory" if again else ", none of them twice"
    seconds = plan.expected_seconds
    expected = f"; at the machine's limits {format_seconds(seconds)}" if seconds else ""
    return f"{format_count(plan.flops)}FLOP{share}{expected}"


def _curve(plan: Plan, width: int) -> str:
    """The memory held over the schedule, the most of each stretch, from nothing to the peak."""
    held = np.sum([*plan.timeline.values()], axis=0)
    columns = min(width, len(held))
    most = [part.max() for part in np.array_split(held, columns)]
    top = max(*most, 1)
    return "".join(_HEIGHTS[min(int(value / top * len(_HEIGHTS)), len(_HEIGHTS) - 1)] for value in most)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]], width: int) -> list[str]:
    """Columns as wide as they need, the first to the right; the last two share what is left of the line."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    left = width - 2 - sum(widths[:-2]) - 2 * (len(head) - 1)
    widths[-1] = min(widths[-1], max(left - widths[-2], left // 2))
    widths[-2] = min(widths[-2], left - widths[-1])
    lines = []
    for row in [head, *rows]:
        cells = [
            row[0].rjust(widths[0]),
            *(cell.ljust(width) for cell, width in zip(row[1:-2], widths[1:-2], strict=True)),
        ]
        what, line = row[-2:]
        what = _cut(what, widths[-2])
        line = line if len(line) <= widths[-1] else "…" + line[len(line) - widths[-1] + 1 :]
        lines.append("  " + "  ".join([*cells, what.ljust(widths[-2]), line]))
    return lines


def _cut(what: str, width: int) -> str:
    """As much of a name as fits, with the whole shape behind it if that leaves room for the name."""
    if len(what) <= width:
        return what
    found = _SHAPED.fullmatch(what)
    name, shape = found.groups() if found is not None and len(found[2]) < 3 * width // 4 else (what, "")
    return f"{name[: width - 1 - len(shape)]}…{shape}"


def place(source: Source | None) -> str:
    """The line of the user's code, its file by the way from here where that is shorter."""
    if source is None:
        return ""
    return f"{min(source.file, _relative(source.file), key=len)}:{source.line}"


def _relative(file: str) -> str:
    try:
        return os.path.relpath(file)
    except ValueError:  # on another drive
        return file


def format_count(number: float) -> str:
    """Three digits and a prefix: 1230 is "1.23 k"."""
    for prefix in ("", "k", "M", "G", "T"):
        if abs(number) < 999.5:
            return f"{number:.3g} {prefix}"
        number /= 1000
    return f"{number:.4g} P"


def format_seconds(seconds: float) -> str:
    """Three digits and a unit.

    >>> format_seconds(0.00123), format_seconds(75)
    ('1.23 ms', '75 s')
    """
    for unit, size in (("µs", 1e-6), ("ms", 1e-3)):
        if seconds < 0.9995 * 1000 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
