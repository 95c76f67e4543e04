"""Fit: a layout that keeps to a number of bytes, by computing again what they do not hold.

The search for what to compute again goes by the lives of values, which is fast; what it finds is laid out, and what the
layout takes decides. Where that is more than was asked for, the search is given so much less.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..codegen.launch import Workspace, owner_of
from ..compiler.costs import operations
from ..compiler.fuse import Fusion, Group
from ..compiler.rematerialize import Policy, Retention, checkpointed, rematerialize, retention, work_of
from ..compiler.retention import cheap, least, solve
from ..compiler.schedules import Schedule
from ..graph.node import Node
from ..ops.primitive import LEAF, MOVEMENT
from ..timeline import span
from .layout import Layout

#: the budget that stands for the fewest bytes at the cost of about one more forward pass
LEAST = "least"
#: bytes of an arena from which on some are given up without being asked, and for how many operations each: those of an
#: activation, or of a normalization from its statistics, but of no product
_LARGE, _CHEAP = 128 << 20, 10
#: how often a schedule whose layout takes more than it may is looked for anew
_TRIES = 6


@dataclass(frozen=True)
class Budget:
    """Bytes that a step may hold at once, LEAST, or None for as many as it likes; and what the user says of values."""

    nbytes: int | str | None = None
    policy: Policy | None = None


@dataclass(frozen=True)
class Fitted:
    """A layout, and the nodes that it computes again with their originals."""

    layout: Layout
    copies: dict[Node, Node]

    @property
    def recomputed(self) -> int:
        """Floating-point operations that are done again."""
        return sum(operations(node) for node in self.copies)


class Fitter:
    """Looks for layouts of one fused graph."""

    def __init__(self, layout: Layout, lay_out: Callable[[Fusion], Layout], policy: Policy | None):
        """`layout` is that of the graph with everything kept, `lay_out` makes one of another."""
        self.first, self.lay_out = layout, lay_out
        self.said = policy
        self.by_call = checkpointed(layout.fusion)

    def _policy(self) -> Policy | None:
        said, by_call = self.said, self.by_call
        if said is None or by_call is None:
            return said or by_call
        return lambda node: said(node) or by_call(node)

    def _known(self) -> Retention:
        extra: dict[Group, int] = {}
        for segment in self.first.segments:
            for launch, group in zip(segment.launches, segment.groups, strict=True):
                if group is not None:
                    owners = {owner_of(argument) for argument in launch.arguments}
                    besides = sum(owner.nbytes for owner in owners if isinstance(owner, Workspace))
                    extra[group] = max(extra.get(group, 0), besides)
        places = self.first.memory_of
        elsewhere = {node for node, (where, _) in places.items() if where != "arena"}
        return retention(self.first.fusion, lambda g: extra.get(g, 0), elsewhere.__contains__, self._policy())

    def fit(self, limit: int | str | None) -> Fitted:
        """The layout whose arena is at most `limit` bytes, LEAST or, where there is none, the least one found.

        Without a limit, a large arena gives up what is made again for next to nothing.
        """
        fits = limit is None or (limit != LEAST and self.first.arena_bytes <= int(limit))
        is_large = limit is None and self.first.arena_bytes >= _LARGE
        if self._policy() is None and fits and not is_large:
            return Fitted(self.first, {})
        with span("rematerialize"):
            known = self._known()
            if is_large and self._policy() is None:
                return self._laid_out(known, cheap(known.problem, _CHEAP))
            if limit == LEAST:
                return self._laid_out(known, least(known.problem, self._work()))
            aim = bound = self.first.arena_bytes if limit is None else int(limit)
            best: Fitted | None = None
            for _ in range(_TRIES if limit is not None else 1):
                found = self._laid_out(known, solve(known.problem, max(aim, 0)))
                if best is None or found.layout.arena_bytes < best.layout.arena_bytes:
                    best = found
                if best.layout.arena_bytes <= bound:
                    break
                aim -= found.layout.arena_bytes - bound
            else:
                if limit is not None:  # the error is to say what would do
                    lowest = self._laid_out(known, least(known.problem, self._work()))
                    best = min(best, lowest, key=lambda fitted: fitted.layout.arena_bytes)
            assert best is not None
            return best

    def _laid_out(self, known: Retention, schedule: Schedule) -> Fitted:
        if not schedule.again:
            return Fitted(self.first, {})
        made = rematerialize(self.first.fusion, known, schedule.again)
        return Fitted(self.lay_out(made.fusion), made.copies)

    def _work(self) -> float:
        nodes = self.first.fusion.graph.nodes
        return sum(work_of(node, False) for node in nodes if node.op.kind not in (LEAF, MOVEMENT))
