"""Whether gradients are slopes: each beside finite differences of what it is the gradient of, along random directions.

Everything is computed by the reference in float64, where a central difference is good to nine digits or so. What a
gradient does not go through is held fixed: detached values, what was computed without gradients, comparisons. Where the
slopes on both sides of the point differ, as at a kink of relu, no difference tells anything, and none is held against
the gradient.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..graph.interpreter import interpret
from ..graph.node import Graph, Node, ancestors
from ..ops.body import substituted
from ..ops.gradient_hooks import HOOKED
from ..ops.host import CUSTOM, DETACH, RESULT, SEVERAL
from ..ops.movement import expand
from ..ops.primitive import constant, grad_mode, source_of
from ..ops.scan import REPEAT, steps_of
from .reference import Reference, ValueOf, is_given

#: the lengths of steps, in the typical size of what is changed, and what that is taken to be of zeros. The shorter ones
#: are for what has so many kinks that some lie within the longer
_STEPS, _LEAST = (1e-5, 1e-6, 1e-7), 1e-3
#: how far a slope may be off, of the size that the sum of its terms has; and how far both sides may differ at a kink
_TOLERANCE, _KINK = 1e-5, 1e-6
#: in how many steps of a loop a rule in its body is looked at
_STEPS_OF_A_LOOP = 4
#: directions in which a single operand is looked at: a few wrong elements of many hardly show in most
_DIRECTIONS = 3
#: the same of the value itself, whose last digits a difference loses
_DIGITS = 1e-14


@dataclass(frozen=True)
class Audit:
    """One backward pass of a recording: `roots` with their `cotangents`, the `history` that it went through, and the
    cotangents that were `found` for the nodes in it, leaves included.
    """

    roots: Sequence[Node]
    cotangents: Sequence[Node]
    history: Sequence[Node]
    found: Mapping[Node, Node]

    @property
    def is_hooked(self) -> bool:
        """Whether hooks of the user's may change a gradient on its way."""
        return any(node in HOOKED for node in self.history)

    def with_values(self, known: Mapping[Node, Node]) -> Audit:
        """The same pass with the nodes that `known` has others for replaced."""
        given = [*self.roots, *self.cotangents, *self.history, *self.found, *self.found.values()]
        new = substituted(given, known)
        return Audit(
            [new[node] for node in self.roots], [new[node] for node in self.cotangents],
            [new[node] for node in self.history], {new[node]: new[own] for node, own in self.found.items()},
        )  # fmt: skip

    def leaves(self) -> list[Node]:
        """What the pass ends at, save for what the user's hooks on gradients have changed or may have changed."""
        hooked = {node for node in self.history if node in HOOKED}
        changed = ancestors(hooked, stop_at_buffers=False) if hooked else set()
        return [node for node in self.found if (is_given(node) or node.op is DETACH) and node not in changed]


class Slope(NamedTuple):
    """A directional derivative: as the gradient says, and by finite differences; `size` is the size of its terms."""

    by_gradient: float
    by_differences: float
    size: float
    #: whether the differences tell anything
    is_conclusive: bool = True

    @property
    def agrees(self) -> bool:
        """Whether the two are the same."""
        return bool(abs(self.by_gradient - self.by_differences) <= _TOLERANCE * self.size)


class Wrong(NamedTuple):
    """The operation whose gradient rule is wrong, the operand whose cotangent it gets wrong, and the slope by that."""

    node: Node
    operand: Node
    slope: Slope

    @property
    def place(self) -> int:
        """Which operand it is, of those that a gradient goes to, from 0."""
        return next((place for place, operand in enumerate(self.operands) if operand is self.operand), 0)

    @property
    def operands(self) -> Sequence[Node]:
        """The operands that a gradient goes to."""
        return _through(self.node)


class Slopes:
    """The slopes of one backward pass."""

    def __init__(self, audit: Audit, value_of: ValueOf, seed: int = 0):
        self.audit, self.value_of = audit, value_of
        self.generator = np.random.default_rng(seed)
        #: values in float64, by node, of what has been asked for
        self.known: dict[Node, np.ndarray] = {}

    def along_all(self) -> Slope | None:
        """The slope along a random direction in the space of all leaves; None where there are none."""
        leaves = [node for node in self.audit.leaves() if node.dtype.is_floating_point]
        return self.along(leaves) if leaves else None

    def along(self, variables: Sequence[Node]) -> Slope:
        """The slope along a random direction in the space of `variables`."""
        function = _Function(self.audit, variables)
        cotangents = [self.audit.found[node] for node in variables]
        self._compute([*function.fixed, *variables, *cotangents, *self.audit.cotangents])
        values = [self.known[node] for node in variables]
        directions = [
            # what is infinite on purpose, as a mask, stays as it is
            np.where(np.isfinite(value), self.generator.standard_normal(value.shape) * (_typical(value) or _LEAST), 0.0)
            for value in values
        ]
        with np.errstate(invalid="ignore"):  # an infinity that stays has no part, whatever its cotangent
            terms = [np.where(d == 0, 0.0, self.known[c] * d) for c, d in zip(cotangents, directions, strict=True)]
        size = float(np.sqrt(sum(np.sum(np.square(term)) for term in terms)))

        def at(step: float) -> float:
            moved = [value + step * d for value, d in zip(values, directions, strict=True)]
            return function.value(dict(zip(variables, moved, strict=True)), self.known, self.value_of)

        here, bends = at(0.0), []
        for step in _STEPS:
            before, after = at(-step), at(step)
            noise = _DIGITS * abs(here) / step
            slope = Slope(float(sum(map(np.sum, terms))), (after - before) / (2 * step), max(size, noise / _TOLERANCE))
            if slope.agrees:
                return slope
            # where the slope is another on each side, it stays so however near; elsewhere they come together
            bends.append(abs(after - 2 * here + before) / step)
        is_kink = bends[-1] > max(bends[0] / 4, _KINK * size + noise)
        is_finite = bool(np.isfinite(here) and np.isfinite(slope.by_differences))
        return slope._replace(is_conclusive=is_finite and not is_kink)

    def first_wrong(self) -> Wrong | None:
        """The operation nearest to the roots through which a gradient goes wrong: its own cotangent is right, and that
        of an operand is not.
        """
        for node in sorted(self.audit.found, key=lambda n: n.serial, reverse=True):
            if not node.dtype.is_floating_point:
                continue
            slopes = (self.along([node]) for _ in range(_DIRECTIONS))
            slope = next((s for s in slopes if s.is_conclusive and not s.agrees), None)
            if slope is not None:
                inside = self._first_wrong_inside(node)
                if inside is not None:
                    return inside
                readers = [n for n in self.audit.history if any(node is operand for operand in _through(n))]
                ruled = [n for n in readers if n.op in (CUSTOM, SEVERAL)]
                return Wrong(max(ruled or readers or [node], key=lambda n: n.serial), node, slope)
        return None

    def _first_wrong_inside(self, node: Node) -> Wrong | None:
        """The rule in the bodies of the loops that read this node which is wrong by itself, if one is."""
        for loop in [n for n in self.audit.history if n.op is REPEAT and any(node is i for i in n.inputs)]:
            self._compute(loop.inputs)
            found = _wrong_rule_in(loop, self._at)
            if found is not None:
                return found
        return None

    def _compute(self, nodes: Iterable[Node]) -> None:
        missing = [node for node in dict.fromkeys(nodes) if node not in self.known]
        if missing:
            reference = Reference(missing, wide=True, given=lambda node: node in self.known or is_given(node))
            self.known.update(zip(missing, reference.values(self._at), strict=True))

    def _at(self, node: Node) -> np.ndarray:
        return self.known[node] if node in self.known else self.value_of(node)


def _wrong_rule_in(loop: Node, value_of: ValueOf) -> Wrong | None:
    """The gradient rule of somebody's own in the body of a loop that is not the slope of its function: each is looked
    at by itself, with the values that it is given in the first steps.
    """
    body, arrays = loop["body"], [value_of(operand) for operand in loop.inputs]
    count, slices = len(body.next), loop["slices"]
    graph = Graph.of(body.values)
    carries, constants = list(arrays[:count]), arrays[count + slices :]
    for _, step in zip(range(_STEPS_OF_A_LOOP), steps_of(loop), strict=False):
        given = [*carries, *(array[step] for array in arrays[count : count + slices]), *constants]
        at = {p: np.asarray(v).astype(p.dtype.carrier) for p, v in zip(body.parameters, given, strict=True)}
        known: dict[Node, Any] = dict(at)
        with np.errstate(all="ignore"):
            interpret(graph, at.__getitem__, partial(_keep, known))
        carries = [known[node] for node in body.next]
        known.update((own, known[node]) for own, node in body.origin.items() if node in known)

        def value(node: Node, known: Mapping[Node, Any] = known) -> np.ndarray:
            return known[node] if node in known else value_of(node)

        for node in body.values:
            found = None
            if node.op is REPEAT:
                found = _wrong_rule_in(node, value)
            elif node.op is SEVERAL:
                results = [n for n in body.values if n.op is RESULT and n.inputs[1] is node and n.requires_grad]
                found = _wrong_by_itself(node, results, known, value)
            if found is not None:
                return found
    return None


def _keep(known: dict[Node, Any], node: Node, values: Mapping[Node, Any]) -> None:
    known[node] = values[node]


def _wrong_by_itself(
    joint: Node, results: Sequence[Node], known: Mapping[Node, Any], value_of: ValueOf
) -> Wrong | None:
    ones = {n["place"]: expand(constant(1.0, n.dtype), n.shape) for n in results}
    with grad_mode(False), source_of(joint, backward=True):
        given = zip(joint.inputs[joint["count"] :], joint["rule"](joint, ones), strict=True) if results else ()
    found = {node: cotangent for node, cotangent in given if cotangent is not None and node.requires_grad}
    slopes = Slopes(Audit(results, list(ones.values()), results, found), value_of)
    slopes.known.update((node, value) for node, value in known.items() if isinstance(value, np.ndarray))
    for node in found:
        for _ in range(_DIRECTIONS):
            slope = slopes.along([node])
            if slope.is_conclusive and not slope.agrees:
                return Wrong(joint, node, slope)
    return None


def _through(node: Node) -> Sequence[Node]:
    """The operands that a gradient goes to."""
    if node.op is SEVERAL:
        return node.inputs[node["count"] :]
    return node.inputs[1:] if node.op is CUSTOM else node.inputs


class _Function:
    """What a backward pass differentiates, as a function of some nodes with everything else held fixed."""

    def __init__(self, audit: Audit, variables: Sequence[Node]):
        self.cotangents = audit.cotangents
        computed, self.fixed = _parts(audit.roots, set(variables))
        held = {*self.fixed, *variables}
        assert not computed & held, "a value is both computed and held fixed"
        self.reference = Reference(audit.roots, wide=True, given=lambda node: node in held or is_given(node))

    def value(self, moved: Mapping[Node, np.ndarray], known: Mapping[Node, np.ndarray], value_of: ValueOf) -> float:
        """The sum of roots times cotangents, with the variables `moved`."""

        def at(node: Node) -> np.ndarray:
            found = moved.get(node)
            found = known.get(node) if found is None else found
            return value_of(node) if found is None else found

        roots = self.reference.values(at)
        return float(sum(np.sum(root * known[c]) for root, c in zip(roots, self.cotangents, strict=True)))


def _parts(roots: Sequence[Node], variables: set[Node]) -> tuple[set[Node], list[Node]]:
    """The nodes that a gradient goes through from the roots to the variables, and the operands of these that are fixed.

    What a rule of somebody's own differentiates is computed as a whole: no gradient goes through its inside.
    """
    wholly: dict[Node, bool] = {}
    fixed: dict[Node, None] = {}
    stack = [(root, False) for root in roots]
    while stack:
        node, whole = stack.pop()
        if wholly.get(node, False) or (node in wholly and not whole) or node in variables or is_given(node):
            continue
        wholly[node] = whole
        if node.op in (CUSTOM, RESULT):
            stack.append((node.inputs[0], True))
            continue
        for operand in node.inputs:
            if whole or operand in variables or (operand.requires_grad and operand.op is not DETACH):
                stack.append((operand, whole))
            else:
                fixed[operand] = None
    return set(wholly), [node for node in fixed if node not in wholly]


def _typical(value: np.ndarray) -> float:
    finite = value[np.isfinite(value)]
    return float(np.sqrt(np.mean(np.square(finite)))) if finite.size else 0.0


__all__ = ["Audit", "Slope", "Slopes", "Wrong"]
