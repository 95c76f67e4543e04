"""The body of a scan: a graph of its own, which takes everything it needs as a parameter.

A body is made from nodes that refer to whatever they like (`close`). What depends on a carry or a slice is copied into
the body; what does not is the same at each step, stays outside, is computed once, and comes in as a constant operand.
So nothing that a loop does not change is computed in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..graph.node import Graph, Node, ancestors
from .primitive import ALIAS, CONSTANT, IOTA, MODE, MOVEMENT, parameter, structure


class Body:
    """What is done at each step, as a graph from `parameters` to `next` and to all `values` on the way.

    `parameters` are the carries, then the slices, then the constants; `next[i]` is what carry i becomes. `values` holds
    every node, each after its inputs; results of a scan name a value by its place in it.

    Gradient rules of the user's own may refer to nodes from which the body was made: `origin` tells what stands for
    them, here or in the body of the loop `before`, of which this is the gradient.
    """

    __slots__ = ("_places", "_plain", "_structure", "before", "next", "origin", "parameters", "values")

    def __init__(
        self,
        parameters: Sequence[Node],
        next_: Sequence[Node],
        values: Sequence[Node],
        origin: Mapping[Node, Node] | None = None,
        before: Node | None = None,
    ):
        self.parameters, self.next, self.values = tuple(parameters), tuple(next_), tuple(values)
        self.origin, self.before = origin or {}, before
        self._places: dict[Node, int] | None = None
        self._structure: _Structure | None = None
        self._plain: Body | None = None

    def __str__(self) -> str:
        return f"<{len(self.values)} nodes>"

    def place(self, value: Node) -> int:
        """The number by which `value` is named."""
        if self._places is None:
            self._places = {node: place for place, node in enumerate(self.values)}
        return self._places[value]

    @property
    def structure(self) -> _Structure:
        """Equal for bodies that do the same."""
        if self._structure is None:
            order = sorted(set(self.values), key=lambda node: node.serial)
            self._structure = _Structure(Graph(order, [*self.parameters, *self.next, *self.values]))
        return self._structure

    def plain(self) -> Body:
        """The same without what only differentiation needs, so that no gradient rule is kept alive."""
        if self._plain is None:
            self._plain = self.copied()
        return self._plain

    def copied(self) -> Body:
        """A plain body of nodes of its own. Values keep their places: that of what is left out is its operand's too."""
        known: dict[Node, Node] = {}
        for node in dict.fromkeys(self.values):
            inputs = tuple(known[i] for i in node.inputs)
            known[node] = inputs[0] if node.op.kind == ALIAS else plain_copy(node, inputs)
        values = [known[node] for node in self.values]
        return Body([known[p] for p in self.parameters], [known[n] for n in self.next], values)


def plain_copy(node: Node, inputs: tuple[Node, ...]) -> Node:
    """`node` on other inputs, without the gradient rules that a body in it may hold on to."""
    inner = node.attributes.get("body")
    if inner is None:
        return node.copy(inputs)
    attributes = {**node.attributes, "body": inner.plain()}
    return Node(node.op, inputs, attributes, node.shape, node.dtype, node.requires_grad, node.source)


class _Structure:
    """A structure that remembers its hash: bodies are looked up at every step of an undecorated loop."""

    __slots__ = ("_hash", "_rows")

    def __init__(self, graph: Graph):
        self._rows = structure(graph)
        self._hash = hash(self._rows)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, _Structure) and self._rows == other._rows)


def is_number(node: Node) -> bool:
    """Whether the node is made of numbers and indices by movement alone: a body holds such values itself."""
    while node.op.kind == MOVEMENT and node.op.name != "concatenate" and node.buffer is None:
        node = node.inputs[0]
    return node.op in (CONSTANT, IOTA) and node.buffer is None


class Closing:
    """Takes nodes into a body one after the other.

    `inner` says what stands for a node inside, where that is settled; `outer` likewise outside. `captured` are the
    outside nodes that the body takes as constants, by their parameters.
    """

    def __init__(self, carries: Sequence[Node], slices: Sequence[Node], outer: Mapping[Node, Node] | None = None):
        self.carries, self.slices = list(carries), list(slices)
        self.parameters = [
            parameter(number, node.shape, node.dtype, node.requires_grad)
            for number, node in enumerate([*carries, *slices])
        ]
        self.inner = dict(zip([*carries, *slices], self.parameters, strict=True))
        self.outer = dict(outer or {})
        self.captured: dict[Node, Node] = {}
        #: nodes older than all that is settled here depend on none of it
        self._first = min((node.serial for node in [*self.inner, *self.outer]), default=0)

    def take(self, outputs: Iterable[Node]) -> list[Node]:
        """What stands in the body for `outputs`, after all that they need has been taken in."""
        wanted = list(outputs)
        for node in sorted(self._missing(wanted), key=lambda n: n.serial):
            if node.buffer is None and any(i in self.inner for i in node.inputs):
                inputs = tuple(self._inside(i) for i in node.inputs)
                self.inner[node] = node.copy(inputs)
            elif not is_number(node):
                inputs = tuple(self.outer.get(i, i) for i in node.inputs) if node.buffer is None else node.inputs
                self.outer[node] = node.with_inputs(inputs) if node.buffer is None else node
        return [self._inside(node) for node in wanted]

    def _missing(self, wanted: Sequence[Node]) -> set[Node]:
        """The nodes that are not settled yet, down to those that are."""
        found: set[Node] = set()
        stack = list(wanted)
        while stack:
            node = stack.pop()
            if node.serial >= self._first and not (node in found or node in self.inner or node in self.outer):
                found.add(node)
                if node.buffer is None:
                    stack.extend(node.inputs)
        return found

    def _inside(self, node: Node) -> Node:
        if node in self.inner:
            return self.inner[node]
        if is_number(node):
            return node
        outside = self.outer.get(node, node)
        if outside not in self.captured:
            number = len(self.parameters) + len(self.captured)
            self.captured[outside] = parameter(number, outside.shape, outside.dtype, outside.requires_grad)
        return self.captured[outside]

    def body(
        self,
        next_: Sequence[Node],
        others: Sequence[Node],
        init: Sequence[Node],
        origin: Mapping[Node, Node] | None = None,
        before: Node | None = None,
    ) -> Body:
        """The body whose carries, `init` at first, become `next_`; `others` can be asked for as well. All taken in.

        `origin` says what stands outside of it for nodes that gradient rules refer to, see `Body`.
        """
        parameters = [*self.parameters, *self.captured.values()]
        values = ancestors([*parameters, *next_, *others])
        order = sorted(values, key=lambda node: node.serial)
        body = Body(parameters, next_, order)
        if any(node.op.name in ("custom", "several") for node in order):
            known = {node: self.inner.get(other, other) for node, other in (origin or {}).items()}
            body = Body(parameters, next_, order, {**known, **self.inner}, before)
        if MODE.grad:
            for carry, start in zip(self.parameters, init, strict=False):
                carry.requires_grad = start.requires_grad
            _mark_differentiable(body)
        return body


def _mark_differentiable(body: Body) -> None:
    """Let those nodes require grad that depend on a parameter which does; a carry does if what it becomes does."""
    carries = body.parameters[: len(body.next)]
    before = {node: node.requires_grad for node in body.values}
    while True:
        for node in body.values:
            if node.inputs and node.op.name != "detach":
                node.requires_grad = before[node] and any(i.requires_grad for i in node.inputs)
        changed = [c for c, n in zip(carries, body.next, strict=True) if n.requires_grad and not c.requires_grad]
        if not changed:
            return
        for carry in changed:
            carry.requires_grad = True


def substituted(outputs: Sequence[Node], known: Mapping[Node, Node]) -> dict[Node, Node]:
    """For `outputs` and all they are computed from, the same with the nodes that `known` has others for replaced."""
    if not known:
        return {output: output for output in outputs}
    new = dict(known)
    for node in sorted(ancestors(outputs), key=lambda n: n.serial):
        if node not in new:
            inputs = () if node.buffer is not None else tuple(new[i] for i in node.inputs)
            new[node] = node.with_inputs(inputs) if inputs else node
    return new


__all__ = ["Body", "Closing", "is_number", "plain_copy", "substituted"]
