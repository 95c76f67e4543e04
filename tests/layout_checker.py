"""An independent check of layouts: what is alive lies apart, from its first use to its last."""

from __future__ import annotations

import itertools
from typing import Any

from pullback.codegen.launch import owner_of
from pullback.compiler.place import ALIGNMENT
from pullback.runtime.layout import Layout, bytes_of


def check_layout(layout: Layout) -> None:
    """Assert that a layout is right, with nothing of how it was made: play its launches through, step by step.

    No two things that are alive share bytes, each is alive from its first use to its last, everything lies in the
    arena, and what is resident lives to the end.
    """
    steps: list[set[Any]] = []
    for segment in layout.segments:
        for bundle in segment.bundles:
            steps.append({owner for launch in segment.members(bundle) for owner in _touched(launch)})
        steps.append({*segment.reads, *segment.writes})
    uses: dict[Any, list[int]] = {}
    for number, things in enumerate(steps):
        for thing in things:
            if layout.memory_of.get(thing, ("",))[0] == "arena":
                uses.setdefault(thing, []).append(number)
    ends = {layout.results[place] for place in layout.resident} | {node for _, node in layout.aside}
    spans = {t: (0 if t in layout.findings else at[0], len(steps) if t in ends else at[-1]) for t, at in uses.items()}
    assert layout.steps == len(steps) + 1
    for thing, (first, last) in spans.items():
        offset = layout.memory_of[thing][1]
        assert offset % ALIGNMENT == 0 and 0 <= offset <= layout.arena_bytes - bytes_of(thing)
        life = layout.lives.get(thing)
        assert life is None or (life.first <= first and last <= life.last)
    # what is written over what it is made from begins where the other ends, in the same bytes: one step is shared
    for (a, (first_a, last_a)), (b, (first_b, last_b)) in itertools.combinations(spans.items(), 2):
        start_a, start_b = layout.memory_of[a][1], layout.memory_of[b][1]
        apart = start_a + bytes_of(a) <= start_b or start_b + bytes_of(b) <= start_a
        inherits = (start_a, bytes_of(a)) == (start_b, bytes_of(b)) and (last_a == first_b or last_b == first_a)
        assert apart or last_a < first_b or last_b < first_a or inherits, f"{a!r} and {b!r} share bytes"
    peak = max(
        (sum(bytes_of(t) for t in layout.lives if layout.lives[t].first <= s <= layout.lives[t].last)
         for s in range(layout.steps)), default=0,
    )  # fmt: skip
    assert peak <= layout.arena_bytes


def _touched(launch: Any) -> set[Any]:
    found = {owner_of(argument) for argument in launch.arguments} | launch.reads | launch.writes
    return {thing for thing in found if thing is not None}
