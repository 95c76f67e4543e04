"""No bad value reaches the state: the guard of a recorded step, and what happens where it trips.

The squares of what must be finite (losses, gradients of leaves) are summed in the passes that make them, and each new
state is `where(total < infinity, new, old)` in the pass that computes it. So a step with a bad gradient leaves its
state as it was, without a copy and without Python between; `total` is an output that Python reads after the run.
docs/decisions/finite-steps.md has the measurements.
"""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from ..diagnosis import Root, diagnose, unexplained
from ..errors import NonFiniteError
from ..graph.node import Graph, Node, ancestors, enter, exact, reachable
from ..graph.types import float32
from ..ops.contraction import MATMUL
from ..ops.elementwise import absolute, add, convert, copy, lt, mul, where
from ..ops.primitive import HOST, LEAF, MOVEMENT, constant, grad_mode, source_of, user_source
from ..ops.reduction import reduce_max, reduce_sum
from .scaling import Scaling
from .trace import Trace, Watched

RAISE, SKIP, ROLLBACK, IGNORE = "raise", "skip", "rollback", "ignore"
#: what a step does where a loss or a gradient is not finite
POLICIES = (RAISE, SKIP, ROLLBACK, IGNORE)


#: makes of a watched value a number that is infinite or NaN where an element is
Part = Callable[[Node], Node]


class _Takers(threading.local):
    """Who takes the faults of steps with the policy "rollback", the innermost last."""

    def __init__(self) -> None:
        self.stack: list[Callable[[NonFiniteError], None]] = []


_TAKERS = _Takers()


@contextmanager
def taking_faults(take: Callable[[NonFiniteError], None]) -> Iterator[None]:
    """Meanwhile `take` is told of the faults of steps with the policy "rollback", in this thread."""
    _TAKERS.stack.append(take)
    try:
        yield
    finally:
        _TAKERS.stack.remove(take)


class Policy:
    """What one compiled step does about values that are not finite, and what it has met so far."""

    def __init__(self, on_nonfinite: str = RAISE):
        if on_nonfinite not in POLICIES:
            raise ValueError(f"on_nonfinite must be one of {', '.join(map(repr, POLICIES))}, got {on_nonfinite!r}")
        self.on_nonfinite = on_nonfinite
        #: how often the step has been called, and how often it changed nothing
        self.calls, self.skipped = 0, 0

    @property
    def is_told(self) -> bool:
        """Whether nobody asks any more what went wrong."""
        return self.on_nonfinite == SKIP and self.skipped > 0

    def meet(self, fault: NonFiniteError | None) -> None:
        """Raise the fault, hand it to the Guard that takes it, or count it; None where nobody asks."""
        if self.on_nonfinite == ROLLBACK and fault is not None and _TAKERS.stack:
            self.skipped += 1
            _TAKERS.stack[-1](fault)
            return
        # where all else is ignored it is what somebody asks about by name
        if self.on_nonfinite in (RAISE, ROLLBACK, IGNORE) and fault is not None:
            if self.on_nonfinite == ROLLBACK:
                fault.add_note("there is nobody to roll back: run the loop over the batches of a pullback.Guard")
            elif _TAKERS.stack:
                fault.add_note('a Guard is there: it takes the faults of steps compiled with on_nonfinite="rollback"')
            raise fault
        self.skipped += 1
        if self.skipped == 1:
            told, source = f"a step was skipped, and others will be without a word: {fault}", user_source()
            # how far away on the stack the user is depends on how the recording was run
            warnings.warn_explicit(told, UserWarning, source.file if source else "", source.line if source else 0)


class Guard:
    """The outputs of a recorded step with the guard in them, and the recording as it is without."""

    def __init__(
        self, watched: Sequence[Watched], outputs: Sequence[Node], old: Mapping[int, Node],
        updates: Sequence[Watched] = (), early: Sequence[int] = (), scaling: Scaling | None = None,
        told: Sequence[int] = (),
    ):  # fmt: skip
        """`watched` and `outputs` are of the program's graph; `old` are the inputs that hold what the outputs at these
        places are new values of; `updates` are those of the new values that are not watched themselves; no output at
        the places `early` waits for the guard; `scaling` is of what scalers look at; at the places `told` the caller is
        told of gradients as they are.
        """
        self.scaling, self.told = scaling, set(told) - set(old)
        self.watched, self.plain, self.old = list(watched), list(outputs), dict(old)
        self.updates = list(updates)
        self.early = [self.plain[place] for place in early]
        #: the updates that are computed before anything is written, and looked at; nothing is known of them beforehand
        self.looked_at: list[Watched] = []
        #: which of the outputs is the total, and what it must stay below
        self.place, self.limit = len(self.plain), math.inf

    @property
    def is_of_the_step(self) -> bool:
        """Whether it looks at what the step does, and not only at what somebody asked about by name."""
        return not self.watched or any(watched.what != "check" for watched in self.watched)

    def graph(self, part: Part) -> Graph:
        """The guarded outputs, and the total of what `part` makes of each watched value.

        Kernels are made in the order of the nodes: see `_ordered`. Each state is chosen right behind its new value.
        """
        with grad_mode(False):
            total = self._known(self._total(part))
            with source_of([*self.watched, *self.updates][0].node):
                # a copy, so that the state is written by kernels that read it, and not by the one that sums
                compared = total if self.scaling is None else self.scaling.held(total)
                sound = copy(lt(compared, constant(self.limit, float32)))
            before = reachable([sound, *self.early])
            outputs, rest = self._chosen(set(before), sound)
        return Graph(_ordered(before, rest, ancestors([*outputs, total])), [*outputs, total])

    def _total(self, part: Part) -> Node:
        """The sum of all parts, those of the gradients first, as `clip_grad_norm_` sums them."""
        total = None if self.watched or self.looked_at else constant(0.0, float32)  # the bounds tell all
        for watched in sorted([*self.watched, *self.looked_at], key=lambda w: w.what != "gradient"):
            with source_of(watched.node):
                own = convert(part(watched.node), float32)
                total = own if total is None else add(total, own)
        assert total is not None
        return total if self.scaling is None else self.scaling.counted(total)

    def _known(self, total: Node) -> Node:
        """`total`, made of sums of the recording where it has equal ones, as `clip_grad_norm_` makes them.

        Squares stay apart: those of an optimizer are computed behind the guard.
        """
        recorded = set(reachable(self.plain))
        equal: dict[Hashable, Node] = {}
        same: dict[Node, Node] = {}
        new: dict[Node, Node] = {}
        for node in reachable([*self.plain, total]):
            new[node] = node if node in recorded else node.with_inputs(tuple(new[i] for i in node.inputs))
            attributes = tuple(map(exact, node.attributes.values()))
            key = node.op, node.shape, node.dtype, attributes, tuple(same[i] for i in node.inputs)
            unlike = node.op.kind == HOST or (node.op.kind == LEAF and node.op.name != "constant")
            same[node] = node if unlike else equal.setdefault(key, node)
            if node not in recorded and not node.shape:
                new[node] = new[same[node]]
        return new[total]

    def _chosen(self, early: set[Node], sound: Node) -> tuple[list[Node], list[Node]]:
        """The outputs with states chosen between new and old value, and all nodes behind the guard in order.

        These read NaN in place of a gradient where something is not finite, and the chosen state in place of the new
        one. That changes nothing, since every state has its old value then, and the caller is told of gradients as they
        are; but what depends on `sound` is computed after it, in the pass that writes the state, and not where the
        gradient is made.
        """
        plain = self.plain
        gradients = [w.node for w in self.watched if w.what == "gradient" and w.node.shape]
        became: dict[Node, Node] = {}
        again: dict[Node, Node] = {}
        for gradient in gradients:
            with source_of(gradient):
                outer = _outer_again(gradient, sound)
                became[gradient] = outer or where(sound, gradient, constant(math.nan, gradient.dtype))
            if outer is not None:
                again[gradient] = outer
        states: dict[Node, list[int]] = {}
        for place in self.old:
            states.setdefault(plain[place], []).append(place)
        outputs: list[Node] = list(plain)
        order: list[Node] = []
        # for the caller: made of gradients as they are, and of states as they were chosen
        for_caller: dict[Node, Node] = {gradient: gradient for gradient in gradients}
        asked = ancestors([plain[place] for place in self.told]) if gradients else set()
        for node in reachable(plain):
            if node in asked and node not in early and node not in states:
                as_is = tuple(for_caller.get(i, became.get(i, i)) for i in node.inputs)
                if as_is != tuple(became.get(i, i) for i in node.inputs):
                    for_caller[node] = node.with_inputs(as_is)
                    order.append(for_caller[node])
            current = node if node in early else node.with_inputs(tuple(became.get(i, i) for i in node.inputs))
            order.append(current)
            if node in again:
                order.append(again[node])
            if node not in early:
                became[node] = current
            for place in states.get(node, ()):
                with source_of(node):
                    outputs[place] = where(sound, current, self.old[place])
                order.append(outputs[place])
                if node not in early:
                    became[node] = outputs[place]
        kept = set(gradients) - again.keys()
        for place, node in enumerate(plain):
            if place in self.told and node in for_caller:
                outputs[place] = for_caller[node]
            elif place not in self.old and node not in kept:
                outputs[place] = became.get(node, node)
        return outputs, order

    def fault(
        self, values: Callable[[Node], object], name_of: Callable[[Node], str], step: int,
        further: Sequence[Watched] = (),
    ) -> NonFiniteError | None:  # fmt: skip
        """What went wrong, in what is watched and in `further` values, found by computing the step again on the
        reference; None where all is finite there.
        """
        found = [*self.watched, *further, *self.updates]
        roots = [Root(w.node, w.what, w.message) for w in found]
        return diagnose(Graph.of([w.node for w in found]), roots, values, name_of, step)

    def unexplained(
        self, values: Callable[[Node], object], name_of: Callable[[Node], str], step: int
    ) -> NonFiniteError:  # fmt: skip
        """The error where native code found what the reference does not."""
        roots = [Root(w.node, w.what, w.message) for w in [*self.watched, *self.updates]]
        return unexplained(Graph.of([root.node for root in roots]), roots, values, name_of, step)

    def look_at_all(self) -> None:
        """Have every update computed before anything is written, so that no bound is needed."""
        self.looked_at, self.limit = list(self.updates), math.inf


def _outer(node: Node) -> tuple[list[Node], Node] | None:
    """The matrix product of a column and a row that `node` is, behind the movements that it is seen through."""
    chain = []
    while (
        node.op.kind == MOVEMENT and len(node.inputs) == 1 and math.prod(node.shape) == math.prod(node.inputs[0].shape)
    ):
        chain.append(node)
        node = node.inputs[0]
    is_outer = node.op is MATMUL and node.inputs[0].shape[-1] == 1 and len(node.shape) == 2
    return (chain, node) if is_outer else None


def _outer_again(gradient: Node, sound: Node) -> Node | None:
    """A gradient that is an outer product, as that of a single example is, computed a second time behind the guard:
    from two vectors it is made anew in less time than it is written and read. None for other gradients.
    """
    found = _outer(gradient)
    if found is None:
        return None
    chain, node = found
    left, right = node.inputs
    result = node.copy((left, where(sound, right, right)))  # which is `right`, but not there before `sound` is
    for movement in reversed(chain):
        result = movement.copy((result,))
    return result


def _ordered(before: list[Node], rest: list[Node], needed: set[Node]) -> list[Node]:
    """The nodes that are `needed`: numbers that only other numbers go into, what comes `before` the guard, numbers that
    follow, and the rest.
    """
    numbers = _numbers(rest, set())
    ready = {*numbers, *before}
    order: list[Node] = []
    entered: set[Node] = set()
    for node in [*numbers, *before, *_numbers(rest, ready), *rest]:
        if node in needed:
            enter(node, order, entered)
    return order


def _numbers(nodes: list[Node], ready: set[Node]) -> list[Node]:
    """The nodes of shape () that can be computed from what is `ready`, from leaves, and from one another."""
    found = set(ready)
    for node in nodes:
        if not node.shape and all(i in found or not i.inputs for i in node.inputs):
            found.add(node)
    return [node for node in nodes if node in found and node not in ready]


def squares(x: Node) -> Node:
    """The sum of the squares: infinity or NaN where an element is, and where the sum overflows."""
    wide = convert(x, x.dtype.compute)
    return reduce_sum(mul(wide, wide), tuple(range(len(wide.shape))))


def exactly(x: Node) -> Node:
    """0 where all elements are finite, infinity where one is not."""
    largest = reduce_max(absolute(x), tuple(range(len(x.shape))))
    zero, infinity = constant(0.0, float32), constant(math.inf, float32)
    return where(lt(largest, constant(math.inf, x.dtype)), zero, infinity)


def watched_of(trace: Trace, changes: bool, on_nonfinite: str, given: Sequence[Node]) -> list[Watched]:
    """What must be finite: losses first, then what was asked to be, then gradients. Losses and gradients only where the
    step `changes` something; with "ignore" only what was asked to be. `given` is all that the step gives.
    """
    order = ("loss", "check", "gradient", "update")
    # gradients in the order in which they were first asked for, which is that of the optimizer's parameters
    places = {key: place for place, key in enumerate(trace.grads)}
    looked_at = ("check",) if on_nonfinite == IGNORE else order if changes else ("check", "update")
    every = _with_pulled(trace, given) if trace.pulled else trace.watched
    found = [w for w in every.values() if 0 not in w.node.shape and w.what in looked_at]
    return sorted(found, key=lambda w: (order.index(w.what), places.get(id(w.owner), len(places))))


def _with_pulled(trace: Trace, given: Sequence[Node]) -> dict[Node, Watched]:
    """What is watched, with what transforms gave of which something is used: losses, and gradients. Where a loss was
    made of these they are a part of it, and so they are where another transform differentiated something so made.
    """
    found = dict(trace.watched)
    used = ancestors(given)
    later = ancestors([w.node for w in trace.watched.values() if w.what == "loss"])
    for values, gradients in reversed(trace.pulled):
        left = [g for g in gradients if g in used and g not in later]
        for gradient in gradients:
            own = found.get(gradient)
            if gradient not in left and own is not None and own.owner is None:
                del found[gradient]
        if left:
            found.update((value, Watched(value, "loss")) for value in values if value.dtype.is_floating_point)
        later |= ancestors(values)
    return found


__all__ = [
    "IGNORE",
    "POLICIES",
    "RAISE",
    "ROLLBACK",
    "SKIP",
    "Guard",
    "Policy",
    "exactly",
    "squares",
    "taking_faults",
    "watched_of",
]
