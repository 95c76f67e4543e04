"""Where compile time went, for PULLBACK_DEBUG=compile: a table of stages, and the slowest kernels."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .. import debug
from ..compiler.describe import describe
from ..timeline import Span, listen, own_times, span
from .jit import statistics
from .program import Program

#: kernels that are listed
_SLOWEST = 10
#: what spans are called in the table, in its order; others follow under their own names
_WORDS = {
    "record": "recording",
    "materialize": "values that it starts from, such as parameters",
    "differentiate": "differentiate",
    "simplify": "simplify",
    "canonicalize": "canonicalize",
    "insert_copies": "copies",
    "fuse": "fuse",
    "emit": "groups and launches",
    "place": "place in memory",
    "read the cache": "read the cache",
    "LLVM: read": "LLVM: read",
    "LLVM: optimize": "LLVM: optimize",
    "LLVM: generate": "LLVM: generate",
    "write the cache": "write the cache",
    "waiting for LLVM": "waiting for LLVM",
    "link": "link",
    "compile": "tables and the rest",
}


class Report:
    """What a compilation is told about: the caller sets `program` when there is one."""

    program: Program | None = None


class _Active(threading.local):
    reporting = False


_ACTIVE = _Active()


@contextmanager
def reported(name: str, what: str) -> Iterator[Report]:
    """A span `name`, of compiling `what`. Where PULLBACK_DEBUG has "compile", a table of it is printed at its end; what
    is compiled within another such block belongs to that one's table.
    """
    report = Report()
    if _ACTIVE.reporting or "compile" not in debug.get("debug"):
        with span(name):
            yield report
        return
    spans: list[Span] = []
    before = statistics()
    _ACTIVE.reporting = True
    try:
        with listen(spans.append), span(name):
            yield report
    finally:
        _ACTIVE.reporting = False
    now = statistics()
    head = (
        f"{now.compiled - before.compiled} kernels compiled, {now.cached - before.cached} from the cache "
        f"({debug.get('cache_dir') or 'off'})"
    )
    print(_format(what, head, spans, report.program), file=sys.stderr)


def _format(what: str, head: str, spans: list[Span], program: Program | None) -> str:
    mine = threading.get_ident()
    here, behind = [s for s in spans if s.thread == mine], [s for s in spans if s.thread != mine and _is_ours(s)]
    total = max((s.end - s.begin for s in here), default=0) * 1e-9
    lines = [f"compile {what}: {total:.3f} s; {head}"]
    lines += _stages(here)
    if behind:
        lines += ["  meanwhile, on another thread:", *_stages(behind)]
    return "\n".join([*lines, *_slowest(spans, program)])


def _is_ours(span_: Span) -> bool:
    """Whether a span of another thread is work that a compilation has given away."""
    return span_.name.startswith("LLVM") or span_.name.endswith("the cache")


def _stages(spans: list[Span]) -> list[str]:
    seconds: dict[str, float] = {}
    counts: dict[str, int] = {}
    for each, own in own_times(spans):
        seconds[each.name] = seconds.get(each.name, 0.0) + own
        counts[each.name] = counts.get(each.name, 0) + 1
    places = {name: place for place, name in enumerate(_WORDS)}
    order = sorted(seconds, key=lambda name: (places.get(name.split(" ")[0], places.get(name, len(places))), name))
    return [
        f"  {seconds[name]:8.3f} s  {_WORDS.get(name, name)}{f' ({counts[name]})' if counts[name] > 1 else ''}"
        for name in order
    ]


def _slowest(spans: list[Span], program: Program | None) -> list[str]:
    """The kernels on which LLVM worked longest."""
    seconds: dict[str, float] = {}
    for each in spans:
        if each.name.startswith("LLVM"):
            seconds[each.detail] = seconds.get(each.detail, 0.0) + (each.end - each.begin) * 1e-9
    if not seconds:
        return []
    words = {} if program is None else _kernels_of(program)
    ranked = sorted(seconds, key=lambda name: -seconds[name])[:_SLOWEST]
    lines = [f"  {seconds[name]:8.3f} s  {words.get(name, '')}  [{name}]" for name in ranked]
    return [f"  the slowest of {len(seconds)} kernels:", *lines]


def _kernels_of(program: Program) -> dict[str, str]:
    """What each kernel computes, by the name of its code and of the codes that it calls."""
    found: dict[str, str] = {}
    for launch, group in program.kernels():
        if launch.code.name not in found:
            kernel = describe(group, program.in_memory.__contains__)
            words = f"{kernel.name} {kernel.result} at {kernel.source}"
            for name in (launch.code.name, *(need.name for need in launch.code.needs)):
                found.setdefault(name, words)
    return found
