"""A graph for one example made into the graph for a batch of them: vmap as a transformation of graphs.

The function is recorded once, on nodes that stand for one example. Every node that depends on them is then replaced by
its form for all examples at once (`batching`); the rest stays as it is and is computed once. What stands for a graph of
its own is followed: the body of a loop carries all examples, and a gradient rule is recorded for one example when it is
asked for, and batched in turn. So derivatives of what was batched, and batches of derivatives, are the same mechanism.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..graph.node import Node, ancestors
from .batching import batched, repeated
from .body import Body, substituted
from .elementwise import convert
from .host import CUSTOM, RESULT, SEVERAL, custom, result, several
from .movement import permute
from .primitive import grad_mode, parameter, source_of
from .reduction import sum_to_shape
from .scan import PART, REPEAT, final, history, scan, stacked


class Batch:
    """What stands for the nodes of one example in the graph for `length` of them, a first axis in front.

    `examples` are the nodes that differ between examples, `values` what stands for them. What is not known here is
    looked up in `parents`.
    """

    def __init__(self, length: int, examples: Sequence[Node], values: Sequence[Node], parents: Sequence[Batch] = ()):
        self.length, self.parents = length, parents
        #: what differs, with its first axis; loops that differ; and what is the same, where it is another node
        self.known: dict[Node, Node] = dict(zip(examples, values, strict=True))
        self.loops: dict[Node, _Loop] = {}
        #: what stands for the results of operations that say themselves what they do for all examples
        self.results: dict[Node, list[Node]] = {}
        self.same: dict[Node, Node] = {}
        #: nodes older than this depend on nothing that is known
        self.first: int = min([*(n.serial for n in examples), *(p.first for p in parents)], default=0)

    def get(self, node: Node) -> Node | None:
        """What stands for `node`; None where it is the same for all examples, or not known yet."""
        return self._find("known", node)

    def plain(self, node: Node) -> Node:
        """What stands for a node that is the same for all examples."""
        return self._find("same", node) or node

    def loop(self, node: Node) -> _Loop | None:
        """What stands for a loop that differs."""
        return self._find("loops", node)

    def _find(self, table: str, node: Node) -> Any:
        found = getattr(self, table).get(node)
        for parent in self.parents:
            if found is not None:
                break
            found = parent._find(table, node)
        return found

    def run(self, outputs: Sequence[Node]) -> list[Node | None]:
        """What stands for `outputs`, None for those that are the same for all examples."""
        for node in self._missing(outputs):
            loop = self.loop(node.inputs[0]) if node.op is PART else None
            with grad_mode(node.requires_grad), source_of(node):
                if loop is not None:
                    self.known[node] = loop.part(node)
                elif all(self.get(i) is None for i in node.inputs):
                    self._keep(node)
                elif node.op is REPEAT:
                    self.loops[node] = _Loop(self, node)
                elif node.op is CUSTOM:
                    self.known[node] = self._custom(node)
                elif node.op is SEVERAL:
                    self.known[node] = self._several(node)
                elif node.op is RESULT:
                    self.known[node] = self._result(node)
                else:
                    varying = [self.get(i) is not None for i in node.inputs]
                    self.known[node] = batched(node, [self.either(i) for i in node.inputs], varying, self.length)
        return [self.get(node) for node in outputs]

    def either(self, node: Node) -> Node:
        """What stands for `node`, with or without a first axis."""
        return self.get(node) or self.plain(node)

    def every(self, node: Node) -> Node:
        """What stands for `node`, repeated where it is the same for all."""
        (found,) = self.run([node])
        return repeated(self.plain(node), self.length) if found is None else found

    def _keep(self, node: Node) -> None:
        """A node that is the same for all; another one if one of its inputs is."""
        kept = node.with_inputs(tuple(self.plain(i) for i in node.inputs))
        if kept is not node:
            self.same[node] = kept

    def _missing(self, outputs: Sequence[Node]) -> list[Node]:
        """The nodes down to those that are known, each after its inputs."""
        found: set[Node] = set()
        stack = list(outputs)
        while stack:
            node = stack.pop()
            if node.serial < self.first or node.buffer is not None or node in found:
                continue
            if all(self._find(table, node) is None for table in ("known", "same", "loops")):
                found.add(node)
                stack.extend(node.inputs)
        return sorted(found, key=lambda n: n.serial)

    def _custom(self, node: Node) -> Node:
        """A gradient rule: recorded for one example, with a cotangent of one example, each time that it is used."""
        one = node.inputs[1:]

        def rule(_: Node, cotangent: Node) -> list[Node | None]:
            example = parameter(-1, node.shape, cotangent.dtype, cotangent.requires_grad)
            return self._ruled(node["rule"](node, example), one, [example], [cotangent])

        return custom(self.every(node.inputs[0]), tuple(self.either(i) for i in one), rule)

    def _several(self, node: Node) -> Node:
        """The same of several results; or what the operation itself says that it does for all examples."""
        count = node["count"]
        one = node.inputs[count:]
        if node["examples"] is not None:
            found = self.results[node] = node["examples"](self.length, [(self.either(i), self.get(i)) for i in one])
            return found[0]

        def rule(_: Node, cotangents: dict[int, Node]) -> list[Node | None]:
            examples = {
                place: parameter(-1, node.inputs[place].shape, c.dtype, c.requires_grad)
                for place, c in cotangents.items()
            }
            found = node["rule"](node, examples)
            return self._ruled(found, one, list(examples.values()), list(cotangents.values()))

        primals = tuple(self.every(i) for i in node.inputs[:count])
        return several(primals, tuple(self.either(i) for i in one), rule)

    def _result(self, node: Node) -> Node:
        joint = node.inputs[1]
        found = self._find("results", joint)
        return found[node["place"]] if found is not None else result(self._known(joint), node["place"])

    def _known(self, node: Node) -> Node:
        found = self.get(node)
        assert found is not None, f"{node!r} is the same for all examples"
        return found

    def _ruled(
        self,
        found: Sequence[Node | None],
        one: Sequence[Node],
        examples: Sequence[Node],
        cotangents: Sequence[Node],
    ) -> list[Node | None]:
        """For all examples what a gradient rule has `found` for one, from cotangents called `examples` there."""
        inside = Batch(self.length, examples, cotangents, [self])
        fitted = [
            None if g is None else convert(sum_to_shape(g, i.shape), i.dtype) for g, i in zip(found, one, strict=True)
        ]
        settled = substituted([g for g in fitted if g is not None], self._origin())
        return [None if g is None else inside.every(settled[g]) for g in fitted]

    def _origin(self) -> Mapping[Node, Node]:
        """What stands for nodes that a gradient rule refers to."""
        return {}


class _Loop:
    """A scan whose carries are those of all examples; so are slices and constants that differ between them."""

    def __init__(self, batch: Batch, node: Node):
        body: Body = node["body"]
        count, last = len(body.next), len(body.next) + node["slices"]
        varying = [number < count or batch.get(i) is not None for number, i in enumerate(node.inputs)]
        init = [batch.every(i) for i in node.inputs[:count]]
        xs = [_exchanged(found) if (found := batch.get(i)) else batch.plain(i) for i in node.inputs[count:last]]
        constants = [batch.either(i) for i in node.inputs[last:]]
        before = batch.loop(body.before) if body.before is not None else None
        self.one = body
        self.inside = _Inside(batch, body, varying, before)
        made = self.inside.body(before.loop if before is not None else body.before)
        self.loop: Node = scan(made, init, xs, constants, node["length"], node["reverse"])

    def part(self, node: Node) -> Node:
        """A result of the loop, for all examples."""
        of, place = node["of"], node["place"]
        if of == "final":
            return final(self.loop, place)
        if of == "history":
            return _exchanged(history(self.loop, place))
        value = self.one.values[place]
        found = stacked(self.loop, self.inside.either(value))
        return repeated(found, self.inside.length) if self.inside.get(value) is None else _exchanged(found)


class _Inside(Batch):
    """The body of a loop for all examples. What does not differ between them is copied, into a body of its own."""

    def __init__(self, outer: Batch, one: Body, varying: Sequence[bool], before: _Loop | None):
        super().__init__(outer.length, (), (), [outer] if before is None else [before.inside, outer])
        self.one = one
        self.first = min([self.first, *(node.serial for node in one.values)])
        self.parameters: list[Node] = []
        for number, (old, varies) in enumerate(zip(one.parameters, varying, strict=True)):
            shape = (self.length, *old.shape) if varies else old.shape
            new = parameter(number, shape, old.dtype, old.requires_grad)
            self.parameters.append(new)
            (self.known if varies else self.same)[old] = new

    def body(self, before: Node | None) -> Body:
        """The new body."""
        self.run([node for node in self.one.values if node.op is not REPEAT])
        next_ = [self.every(n) for n in self.one.next]
        everything = [self.either(n) for n in self.one.values if n.op is not REPEAT]
        values = ancestors([*self.parameters, *next_, *everything])
        return Body(self.parameters, next_, sorted(values, key=lambda n: n.serial), before=before)

    def _origin(self) -> Mapping[Node, Node]:
        return self.one.origin


def _exchanged(x: Node) -> Node:
    """The steps and the examples, the first two axes, exchanged."""
    return permute(x, (1, 0, *range(2, len(x.shape))))


__all__ = ["Batch"]
