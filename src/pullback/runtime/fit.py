"""Fit: a layout that keeps to a number of bytes, by computing again what they do not hold.

The search for what to compute again goes by the lives of values, which is fast; what it finds is laid out, and what the
layout takes decides. Where that is more than was asked for, the search is given so much less.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf

from ..codegen.launch import Workspace, owner_of
from ..compiler.costs import operations, work
from ..compiler.groups import Fusion, Group, elements
from ..compiler.narrow import Narrowable, chosen_for, in_numbers, narrowable, narrowed
from ..compiler.order import constraints, forwarded
from ..compiler.rematerialize import RECOMPUTE, Policy, Retention, aligned, checkpointed, rematerialize, retention
from ..compiler.retention import Solver, asked, cheap
from ..compiler.schedules import Again, Schedule
from ..graph.node import Node
from ..timeline import span
from .bundles import bytes_of
from .layout import Layout

#: what a user may allow a step to change so that it keeps to a budget
EARLY_UPDATE, BLOCKS, BFLOAT16 = "early-update", "blocks", "bfloat16"
#: the budget that stands for the fewest bytes at the cost of about one more forward pass
LEAST = "least"
#: bytes of an arena from which on some are given up without being asked, and for how many operations each: those of an
#: activation, or of a normalization from its statistics, but of no product
_LARGE, _CHEAP = 128 << 20, 10
#: how often a schedule whose layout takes more than it may is looked for anew
_TRIES = 6
#: from the second time on by at least this part of the limit less, and twice that each time
_NARROWER = 1 / 4096
#: how many aims are tried between one at which a limit is kept to and one at which it is not, in small steps
_NEARER = 3
#: values up to which the fewest bytes are looked for in fine steps of the limit, which takes a second; and the steps
_FEW_VALUES, _FINE_STEP, _STEP = 500, 1.04, 1.15
#: and how often, and by how much, the fewest found are lowered then
_LOWERED, _LOWER = 6, 0.995
#: into how many steps the way from the bound to the lowest peak found is divided, each of which is tried
_BELOW = 6
#: how often the fewest bytes are asked for once more, and with which part of a forward pass's work a budget counts as
#: near them
_AGAIN, _NEAR_FEWEST = 4, 3 / 4
#: how far below the lowest peak that was found something else may be found
_LUCK = 31 / 32
#: how often less work is looked for than that of what was found
_ROUNDS = 6
#: how much longer a step may take so that nothing is rounded for it, and operations to round an element and widen it
_LITTLE, _ROUNDING = 1.02, 2


@dataclass(frozen=True)
class Budget:
    """Bytes that a step may hold at once, LEAST, or None for as many as it likes; what the user says of values, and the
    changes that he allows.
    """

    nbytes: int | str | None = None
    policy: Policy | None = None
    allow: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Fitted:
    """A layout, the nodes that it computes again with their originals, and what it rounds."""

    layout: Layout
    copies: dict[Node, Node]
    #: what waits for the backward pass in bfloat16
    rounded: tuple[Node, ...] = ()
    #: of the schedule that it was made by: its work, what is made again, and the most bytes that live at once
    added: float = 0.0
    again: tuple[Again, ...] = ()
    peak: int = 0

    @property
    def recomputed(self) -> int:
        """Floating-point operations that are done again."""
        return sum(operations(node) for node in self.copies)

    @property
    def work(self) -> float:
        """About how long its kernels take (see `costs.work`)."""
        return work(self.layout.fusion.groups, self.layout.in_memory)


def _rank(fitted: Fitted, limit: int | str | None) -> tuple[bool, float]:
    """What is to be least: the work of those that keep to the limit, the bytes of others, which come after them."""
    if isinstance(limit, int) and fitted.layout.arena_bytes <= limit:
        return False, fitted.work
    return True, fitted.layout.arena_bytes


def _size(fitted: Fitted) -> tuple[int, float]:
    """What is to be least where the fewest bytes are wanted."""
    return fitted.layout.arena_bytes, fitted.added


class Fitter:
    """Looks for layouts of one fused graph."""

    def __init__(
        self, layout: Layout, lay_out: Callable[[Fusion], Layout], policy: Policy | None, may_round: bool = False,
        follow_calls: bool = True,
    ):  # fmt: skip
        """`layout` is that of the graph with everything kept, `lay_out` makes one of another. Where it `may_round`,
        activations may wait for the backward pass in bfloat16. What checkpointed calls ask for is done where it is to
        `follow_calls`.
        """
        self.first, self.lay_out, self.may_round = layout, lay_out, may_round
        self.said = policy
        #: what was laid out already, by what is computed again
        self._made: dict[tuple[Retention, tuple[Again, ...]], Fitted] = {}
        self.calls = checkpointed(layout.fusion) if follow_calls else None
        #: the same search with what stands in checkpointed calls left to it: it can go lower than what they ask for
        self.freely = Fitter(layout, lay_out, policy, follow_calls=False) if self.calls is not None else None

    def _policy(self) -> Policy | None:
        said, calls = self.said, self.calls
        if calls is None or said is None:
            return said if calls is None else calls.policy
        return lambda node: said(node) or calls.policy(node)

    @cached_property
    def known(self) -> Retention:
        """The problem that the kernels pose in their order; in a better one where that lowers the peak."""
        known = self._problem()
        other = self._forwarded(known)
        if other is known:
            return known
        layout = self.lay_out(replace(self.first.fusion, groups=other.groups))
        if layout.arena_bytes >= self.first.arena_bytes:
            return known
        self.first = layout
        return other

    def _forwarded(self, known: Retention) -> Retention:
        """The problem with its kernels in an order of a lower peak, or the same where none is found."""
        held = constraints(self.first.fusion, self.first.written_over(), self.first.early_checks())
        order = forwarded(known.problem, held)
        if order == sorted(order):
            return known
        other = known.ordered(order)
        return other if other.solver.base.peak < known.solver.base.peak else known

    def _problem(self) -> Retention:
        """What the kernels of the layout make and read."""
        fusion = self.first.fusion
        extra: dict[Group, int] = {}
        columns: dict[Group, tuple[int, ...]] = {}
        for segment in self.first.segments:
            for launch, group in zip(segment.launches, segment.groups, strict=True):
                if group is not None:
                    owners = {owner_of(argument) for argument in launch.arguments}
                    besides = sum(owner.nbytes for owner in owners if isinstance(owner, Workspace))
                    extra[group] = max(extra.get(group, 0), besides)
                    if launch.columns:
                        columns[group] = launch.columns
        for group in fusion.groups:  # what is written over something takes nothing besides it
            over = [node for node in group.stored if node in self.first.heirs]
            extra[group] = extra.get(group, 0) - sum(aligned(bytes_of(node)) for node in over)
        places = self.first.memory_of
        elsewhere = {node for node, (where, _) in places.items() if where != "arena"}
        known = retention(fusion, lambda g: extra.get(g, 0), elsewhere.__contains__, self._policy(), self.calls)
        return replace(known, columns=columns)

    def fit(self, limit: int | str | None) -> Fitted:
        """The layout whose arena is at most `limit` bytes, LEAST or, where there is none, the least one found.

        Without a limit, a large arena gives up what is made again for next to nothing.
        """
        fits = limit is None or (limit != LEAST and self.first.arena_bytes <= int(limit))
        is_large = limit is None and self.first.arena_bytes >= _LARGE
        if self._policy() is None and fits and not is_large:
            return Fitted(self.first, {})
        with span("rematerialize"):
            if is_large and self._policy() is None:
                return self._relieved()
            known = self.known
            if isinstance(limit, int) and self._policy() is None and self.first.arena_bytes <= limit:
                return Fitted(self.first, {})
            return self._in(known, limit) if isinstance(limit, int) else self._at_least(known, limit)

    def _at_least(self, known: Retention, limit: int | str | None) -> Fitted:
        """The layout of the fewest bytes, or what was asked for."""
        if limit is None:
            return self._as_asked(known)
        found = [self.fewest]
        values = narrowable(self.first.fusion, known) if self.may_round else []
        some = tuple(chosen_for(values, known, self.fewest.layout.arena_bytes))
        for chosen in dict.fromkeys((some, self._all_that_help(known, values))):
            if chosen:
                found.append(replace(self._narrowed(chosen).fit(limit), rounded=chosen))
        return min(found, key=lambda fitted: _rank(fitted, limit))

    @cached_property
    def fewest(self) -> Fitted:
        """The layout of the fewest bytes for about one more forward pass of work, and of the least work for those: what
        is asked for these bytes then gets no better.
        """
        known, most = self.known, self.known.forward_work()
        found = self._laid_out(known, known.solver.least(most))
        for _ in range(_AGAIN):
            other = self._tried(known, found.layout.arena_bytes)
            if other is None or other.added > most or _size(other) >= _size(found):
                break
            found = other
        return found if self.freely is None else min(found, self.freely.fewest, key=_size)

    def _exact(self, known: Retention, limit: int) -> Fitted | None:
        """What keeps to a limit, with nothing rounded; never at more work than the fewest bytes take."""
        first = self._tried(known, limit)
        found = [] if first is None else [first]
        near = first is None or first.added > _NEAR_FEWEST * known.forward_work()
        can = first is not None or limit >= _LUCK * known.solver.lowest.peak
        if near and can and self.fewest.layout.arena_bytes <= limit:
            found.append(self.fewest)
        if not found and self.freely is not None:
            return self.freely._exact(self.freely.known, limit)
        best = min(found, key=lambda fitted: fitted.added, default=None)
        return None if best is None else self._refined(known, limit, best)

    def _refined(self, known: Retention, limit: int, fitted: Fitted) -> Fitted:
        """What keeps to a limit at less work than `fitted`, as far as that is found."""
        kept: frozenset[int] = frozenset()
        for _ in range(_ROUNDS):
            aim = limit - max(fitted.layout.arena_bytes - fitted.peak, 0)
            schedule = Schedule(fitted.again, fitted.peak, fitted.added)
            cheaper = known.solver.cheaper(aim, schedule, kept)
            tried = ((self._laid_out(known, other), values) for other, values in cheaper)
            better = next((pair for pair in tried if pair[0].layout.arena_bytes <= limit), None)
            if better is None:
                break
            fitted, kept = better
        return fitted

    def _in(self, known: Retention, limit: int) -> Fitted:
        """What keeps to a limit in the least time; what comes nearest to it where nothing does."""
        exact = self._exact(known, limit)
        if not self.may_round or (exact is not None and self._is_cheap(exact)):
            return exact or min(self._descent(known), key=lambda fitted: _rank(fitted, limit))
        values, fitters = narrowable(self.first.fusion, known), dict[tuple[Node, ...], Fitter]()
        most = self._all_that_help(known, values)
        # a layout may take more than what lives at once
        some = tuple(chosen_for(values, known, limit - (self.first.arena_bytes - known.solver.base.peak)))
        kept = [] if exact is None else [exact]
        for chosen in dict.fromkeys([some, most]):
            if chosen and (exact is None or self._may_pay(known, chosen, limit, exact)):
                fitters[chosen] = self._narrowed(chosen)
                fitted = fitters[chosen]._cheaper(limit, min((one.work for one in kept), default=inf))
                if fitted is not None:
                    kept.append(replace(fitted, rounded=chosen))
                    if not fitted.again:  # rounding more would only round more
                        break
        if kept:
            return min(kept, key=lambda fitted: _rank(fitted, limit))
        found = self._descent(known)
        if most:
            found += [replace(fitted, rounded=most) for fitted in fitters[most]._descent(fitters[most].known)]
        return min(found, key=lambda fitted: _rank(fitted, limit))

    def _all_that_help(self, known: Retention, values: Sequence[Narrowable]) -> tuple[Node, ...]:
        """Those of the values whose rounding may lower the fewest bytes."""
        if not values:
            return ()
        floor = Solver(in_numbers(self.first.fusion, known, [value.node for value in values])).floor
        return tuple(chosen_for(values, known, min(floor, known.solver.floor)))

    def _narrowed(self, chosen: Sequence[Node]) -> Fitter:
        """The same for the graph in which these values wait in bfloat16."""
        return Fitter(self.lay_out(narrowed(self.first.fusion, chosen)), self.lay_out, self.said)

    def _relieved(self) -> Fitted:
        """A large arena without what is made again for next to nothing, in a better order of its kernels."""
        known = self._problem()
        for problem in dict.fromkeys((self._forwarded(known), known)):
            made = self._laid_out(problem, cheap(problem.without_products(), _CHEAP))
            if made.layout.arena_bytes < self.first.arena_bytes:
                return made
        return Fitted(self.first, {})

    def _is_cheap(self, fitted: Fitted) -> bool:
        """Whether what keeps to a limit takes little more time than without one."""
        return fitted.work <= _LITTLE * Fitted(self.first, {}).work

    def _may_pay(self, known: Retention, chosen: Sequence[Node], limit: int, exact: Fitted) -> bool:
        """Whether numbers alone let one expect that less is computed again where these values are rounded."""
        rounding = _ROUNDING * sum(elements(node) for node in chosen)
        if rounding >= exact.added:
            return False
        found = Solver(in_numbers(self.first.fusion, known, chosen)).solve(limit, exact.added - rounding)
        return found.peak <= limit and found.work + rounding < exact.added

    def _cheaper(self, limit: int, work: float) -> Fitted | None:
        """What keeps to a limit in less than so much work, where it is found."""
        if self.first.arena_bytes <= limit and self._policy() is None:
            return Fitted(self.first, {})
        left = work - Fitted(self.first, {}).work
        return self._tried(self.known, limit, left) if left > 0 else None

    def _as_asked(self, known: Retention) -> Fitted:
        """What the user wants computed again, and nothing else where that does not take more than keeping all. What
        stands in checkpointed calls is kept where computing it again lowers nothing.
        """
        found = self._laid_out(known, asked(known.problem))
        if found.layout.arena_bytes > self.first.arena_bytes:
            found = self._laid_out(known, known.solver.solve(self.first.arena_bytes))
        if found.layout.arena_bytes > self.first.arena_bytes and not self._wants_again(known):
            return Fitted(self.first, {})
        return found

    def _wants_again(self, known: Retention) -> bool:
        """Whether the policy itself says of a value that it is to be computed again."""
        return self.said is not None and any(self.said(known.nodes[value]) == RECOMPUTE for value in known.asked)

    def _tried(self, known: Retention, limit: int, most: float = inf) -> Fitted | None:
        """What keeps to a limit and adds at most so much work, from aims that are lowered by what layouts take too
        much.
        """
        aim, bottom, tries, above = limit, known.solver.floor, _TRIES, 0
        while aim >= bottom and tries:
            schedule = known.solver.solve(aim, most)
            if schedule.peak > aim == limit >= _LUCK * known.solver.lowest.peak:
                schedule = known.solver.solve(aim, most, thorough=True)
            if schedule.work > most or schedule.peak > limit:
                break
            fitted = self._laid_out(known, schedule)
            excess = fitted.layout.arena_bytes - limit
            if excess <= 0:
                few = len(known.problem.values) <= _FEW_VALUES
                return self._nearer(known, limit, fitted, (aim, above), most) if above and few else fitted
            if schedule.peak > aim:  # less still will not be found either
                break
            above = aim
            # a schedule whose peak is below the aim by itself would be found again by a little less, and one like it by
            # as little as some layouts take too much
            step = 0 if tries == _TRIES else int(limit * _NARROWER) << (_TRIES - tries)
            aim, tries = min(aim, schedule.peak) - max(excess, step), tries - 1
        return None

    def _nearer(self, known: Retention, limit: int, fitted: Fitted, aims: tuple[int, int], most: float) -> Fitted:
        """What keeps to a limit at less work than `fitted`, by aims between its own and one at which nothing did."""
        low, high = aims
        for _ in range(_NEARER):
            aim = (low + high) // 2
            schedule = known.solver.solve(aim, min(most, fitted.added))
            if schedule.peak > aim or schedule.work >= fitted.added:
                low = aim
                continue
            other = self._laid_out(known, schedule)
            if other.layout.arena_bytes <= limit:
                low, fitted = aim, other
            else:
                high = aim
        return fitted

    def _descent(self, known: Retention) -> list[Fitted]:
        """Layouts towards the fewest bytes. They are the same whatever limit is not met by itself: what an error names
        as the fewest is so kept to where it is asked for.
        """
        solver = known.solver
        few = len(known.problem.values) <= _FEW_VALUES
        step = _FINE_STEP if few else _STEP
        lowest = solver.lowest
        found, peaks = [self._laid_out(known, lowest), self.fewest], {lowest.peak}
        if few:
            # a search that is led by a lower aim may end below the lowest peak that was found
            aims = [int(solver.floor * (lowest.peak / max(solver.floor, 1)) ** (n / _BELOW)) for n in range(1, _BELOW)]
            # and so may one to which products cost less than they do, and so lets go of others first
            for aim, other in itertools.product(aims, (solver, Solver(known.with_cheap_products()))):
                schedule = known.priced(other.solve(aim))
                if schedule.peak not in peaks and schedule.peak < lowest.peak:
                    found.append(self._laid_out(known, schedule))
                    peaks.add(schedule.peak)
        # higher aims are for better layouts
        aim = int((lowest.peak if few else solver.floor) * step) + 1
        # an arena has at least the bytes that live at once
        while aim < min(fitted.layout.arena_bytes for fitted in found):
            schedule = solver.solve(aim)
            if schedule.peak not in peaks:
                found.append(self._laid_out(known, schedule))
            peaks.add(schedule.peak)
            # where nothing keeps to an aim, nothing will to one a little higher either
            aim = max(int(aim * step) + 1, (aim + schedule.peak) // 2)
        for _ in range(_LOWERED if few else 0):
            lower = self._tried(known, int(min(fitted.layout.arena_bytes for fitted in found) * _LOWER))
            if lower is None:
                break
            found.append(lower)
        while few:  # until asking for the fewest gives them, and for a byte less nothing
            fewest = min(fitted.layout.arena_bytes for fitted in found)
            again = self._tried(known, fewest)
            if again is None or again.layout.arena_bytes >= fewest:
                again = self._tried(known, fewest - 1)
            if again is None:
                break
            found.append(again)
        return found if self.freely is None else found + self.freely._descent(self.freely.known)

    def _laid_out(self, known: Retention, schedule: Schedule) -> Fitted:
        if not schedule.again and known.groups == self.first.fusion.groups:
            return Fitted(self.first, {})
        key = known, schedule.again
        if key not in self._made:
            made = rematerialize(self.first.fusion, known, schedule.again)
            layout = self.lay_out(made.fusion)
            self._made[key] = Fitted(layout, made.copies, (), schedule.work, schedule.again, schedule.peak)
        return self._made[key]
