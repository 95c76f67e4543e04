"""The gradient of a scan: a scan over the same steps the other way round.

Its body is the gradient of the forward body: it carries the cotangents of the carries back, reads what was kept of each
forward step (`residuals`), and stacks the cotangents of the slices. Gradients of constants are sums over all steps.
Where a step's contribution is a matrix product, as that of a weight, its factors are stacked and multiplied once, as
one long product after the loop; other contributions are added up in a carry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from ..graph.node import Node, Shape
from ..graph.types import DType
from .batching import moved, summed_products
from .body import Body, Closing, is_number, substituted
from .elementwise import add, convert
from .movement import expand, reshape
from .primitive import ELEMENTWISE, MODE, MOVEMENT, REDUCTION, apply, constant, parameter
from .residuals import choose, inside_calls

Gradients = Callable[..., list[Node | None]]


class _Product(NamedTuple):
    """A contribution to a constant's gradient: a matrix product, and linear operations on it, outermost first."""

    matmul: Node
    chain: list[Node]


class Reverse:
    """The reverse of the loop `loop`, given the cotangents of its results by selector."""

    def __init__(self, loop: Node, cotangents: Mapping[tuple[str, int], Node], gradients: Gradients):
        self.loop, self.gradients = loop, gradients
        self.body: Body = loop["body"]
        self.count, self.length = len(self.body.next), loop["length"]
        self.constants = set(self.body.parameters[self.count + loop["slices"] :])
        self.forward = {node for node in self.body.values if not is_number(node)}
        #: values of earlier loops, of which this one is the gradient, by loop
        self.earlier: dict[Node, Node] = {}
        before = self.body.before
        while before is not None:
            self.earlier.update((node, before) for node in before["body"].values if not is_number(node))
            before = before["body"].before
        self.finals = {place: c for (of, place), c in cotangents.items() if of == "final"}
        self.stacks = {place: c for (of, place), c in cotangents.items() if of == "stack"}
        #: what a checkpointed call in the body makes for itself: it is computed again in the reverse loop, save where
        #: that is differentiated once more, whose sums would have another order
        self.again: set[Node] = set()
        if not MODE.grad:
            depth = len(loop.source.checkpoint) if loop.source is not None else 0
            self.again = inside_calls(self.body, depth, [self.body.values[place] for place in self.stacks])
        self.bars = {i: _parameter(p) for i, p in enumerate(self.body.parameters[: self.count]) if p.requires_grad}

    def run(self, indices: Sequence[int]) -> list[Node | None]:
        """The cotangents of the loop's inputs at `indices`."""
        found = self._of_one_step(indices)
        slices = {k: g for k, g in found.items() if self.count <= k < self.count + self.loop["slices"]}
        sums = {k: _terms(g) for k, g in found.items() if k >= self.count + self.loop["slices"]}
        products = {k: [p for t in terms if (p := self._as_product(t))] for k, terms in sums.items()}
        rests = {k: _sum(t for t in terms if self._as_product(t) is None) for k, terms in sums.items()}
        added = {k: _parameter(rest, rest.dtype.compute) for k, rest in rests.items() if rest is not None}

        next_ = [found.get(i) or _zeros(bar.shape, bar.dtype) for i, bar in self.bars.items()]
        next_ += [add(total, convert(rests[k], total.dtype)) for k, total in added.items()]  # type: ignore[arg-type]
        factors = {
            leaf: None
            for group in products.values()
            for product in group
            for factor in product.matmul.inputs
            if not self._is_kept(leaf := _under_movement(factor)) and not is_number(leaf)
        }
        self._build(next_, [*slices.values(), *factors], added)

        results: dict[int, Node] = {}
        for number, i in enumerate(self.bars):
            results[i] = self._final(number)
        for k, g in slices.items():
            results[k] = self._lifted(g)
        for k in sums:
            parts = [self._summed(product) for product in products[k]]
            if k in added:
                total = self._final(len(self.bars) + list(added).index(k))
                parts.append(convert(total, self.loop.inputs[k].dtype))
            results[k] = _sum(parts)  # type: ignore[assignment]
        return [results.get(index) for index in indices]

    def _of_one_step(self, indices: Sequence[int]) -> dict[int, Node]:
        """The cotangents of the body's parameters, given those of what it makes; by the parameters' number."""
        body = self.body
        self.given = {place: _parameter(body.values[place]) for place in self.stacks}
        pairs = [(body.next[i], bar) for i, bar in self.bars.items()]
        pairs += [(body.values[place], given) for place, given in self.given.items()]
        pairs = [(output, cotangent) for output, cotangent in pairs if output.requires_grad]
        numbers = [*self.bars, *(k for k in indices if k >= self.count)]
        outputs, cotangents = [o for o, _ in pairs], [c for _, c in pairs]
        wanted = [body.parameters[number] for number in numbers]
        found = self.gradients(outputs, cotangents, wanted, MODE.grad, True)
        given = {number: g for number, g in zip(numbers, found, strict=True) if g is not None}
        self.origin = substituted(list(given.values()), body.origin)
        return {number: self.origin[g] for number, g in given.items()}

    def _build(self, next_: list[Node], others: list[Node], added: dict[int, Node]) -> None:
        """Make the reverse loop, whose carries are the cotangents of the carries and the sums for constants."""
        from .scan import scan, stacked

        frontier = self._frontier([*next_, *others])
        known = [node for node in frontier if node in self.earlier]
        kept = choose(frontier.difference(known), self.body, self.loop["slices"], self.again)
        outside = dict(zip(self.body.parameters, self.loop.inputs, strict=True))
        self.closing = Closing(
            [*self.bars.values(), *added.values()],
            [*self.given.values(), *kept, *known],
            {node: outside[node] for node in self.body.parameters if node in self.constants},
        )
        taken = self.closing.take([*next_, *others])
        init = [self._first(i) for i in self.bars] + [_zeros(t.shape, t.dtype) for t in added.values()]
        body = self.closing.body(taken[: len(next_)], taken[len(next_) :], init, self.origin, self.loop)
        xs = [*self.stacks.values(), *(stacked(self.loop, node) for node in kept)]
        xs += [stacked(self.earlier[node], node) for node in known]
        self.reverse = scan(body, init, xs, list(self.closing.captured), self.length, not self.loop["reverse"])

    def _first(self, carry: int) -> Node:
        """The cotangent of a carry after the last step."""
        like = self.body.parameters[carry]
        found = self.finals.get(carry)
        return _zeros(like.shape, like.dtype) if found is None else found

    def _is_kept(self, node: Node) -> bool:
        """Whether the forward loop stacks the value where all steps of it are asked for."""
        return node in self.forward and node not in self.again

    def _frontier(self, outputs: Iterable[Node]) -> set[Node]:
        """The values of the forward body that computing `outputs` asks for."""
        found: set[Node] = set()
        seen: set[Node] = set()
        stack = list(outputs)
        while stack:
            node = stack.pop()
            if node in self.forward or node in self.earlier:
                found.add(node)
            elif node not in seen:
                seen.add(node)
                stack.extend(node.inputs)
        return found

    # ---- results outside

    def _final(self, carry: int) -> Node:
        from .scan import final

        return final(self.reverse, carry)

    def _lifted(self, node: Node) -> Node:
        """The values of `node` at all steps, outside: [length, *shape]; movement is done outside."""
        from .scan import stacked

        if is_number(node):
            return _repeated(node, self.length)
        if node.op.kind == MOVEMENT and node.op.name != "concatenate" and not self._is_kept(node):
            return moved(node, self._lifted(node.inputs[0]), self.length)
        if self._is_kept(node):
            return stacked(self.loop, node)
        inside = self.closing.inner.get(node)
        if inside is None:
            return _repeated(self.closing.outer.get(node, node), self.length)
        return stacked(self.reverse, inside)

    def _as_product(self, term: Node) -> _Product | None:
        chain: list[Node] = []
        node = term
        while node.op.name != "matmul":
            one = len(node.inputs) == 1 and node.op.linear and node.op.kind in (MOVEMENT, ELEMENTWISE, REDUCTION)
            if not one or node in self.forward:
                return None
            chain.append(node)
            node = node.inputs[0]
        leaves = [_under_movement(factor) for factor in node.inputs]
        return None if any(leaf in self.constants for leaf in leaves) else _Product(node, chain)

    def _summed(self, product: _Product) -> Node:
        """The sum of a contribution over all steps, as one product."""
        left, right = product.matmul.inputs
        result = summed_products(self._lifted(left), self._lifted(right))
        for node in reversed(product.chain):
            result = apply(node.op, result, **node.attributes)
        return result


def _parameter(like: Node, dtype: DType | None = None) -> Node:
    """A parameter of the shape of `like`, whose number is given when the body is closed."""
    return parameter(-1, like.shape, dtype or like.dtype, MODE.grad)


def _zeros(shape: Shape, dtype: DType) -> Node:
    return expand(constant(0.0, dtype), shape)


def _repeated(node: Node, length: int) -> Node:
    return expand(reshape(node, (1, *node.shape)), (length, *node.shape))


def _under_movement(node: Node) -> Node:
    while node.op.kind == MOVEMENT and node.op.name != "concatenate" and node.buffer is None:
        node = node.inputs[0]
    return node


def _terms(node: Node) -> list[Node]:
    """What `node` is the sum of."""
    found: list[Node] = []
    stack = [node]
    while stack:
        node = stack.pop()
        if node.op.name == "add" and all(i.shape == node.shape for i in node.inputs):
            stack.extend(reversed(node.inputs))
        else:
            found.append(node)
    return found


def _sum(terms: Iterable[Node]) -> Node | None:
    total: Node | None = None
    for term in terms:
        total = term if total is None else add(total, term)
    return total
