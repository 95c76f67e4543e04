"""Rows: whether the steps of a loop keep the rows of what they carry apart.

Recurrent layers do: a row is an example of the batch, and row i of all that a step computes is made of rows i of what
the steps before have computed, and of what was there before the loop. Then one task can take a few rows through all
steps, from kernel to kernel in its own cache, and no thread ever waits for another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..graph.node import Node
from ..graph.types import bfloat16, float16
from ..ops.primitive import ELEMENTWISE, MOVEMENT, REDUCTION
from .groups import ACROSS, COLUMN, JOINED, LOOP, PRODUCT, TOTAL, Group, elements, part_run
from .index import Affine, Index, follow, variable
from .share import Share

#: elements of a row that a kernel goes through, so that they are worth a vector
_SHORTEST_ROW = 16
#: k of a product from which on its sum is cut into slices, of which each is a task of its own
_LONG_SUM = 32_768


def keeps_apart(
    groups: Iterable[Group], share: Share, given: frozenset[Node], constants: frozenset[Node],
    in_memory: Callable[[Node], bool],
) -> bool:  # fmt: skip
    """Whether row i of all that `groups` compute needs rows i alone of what is in memory and not `given` before.

    `constants` are those of the given that stay the same at every step.
    """
    return all(_Rows(group, share.rows, given, constants, in_memory).hold() for group in groups)


class _Rows:
    """One group's elements, followed to where they are read, by the row that they belong to."""

    def __init__(
        self, group: Group, rows: int, given: frozenset[Node], constants: frozenset[Node],
        in_memory: Callable[[Node], bool],
    ):  # fmt: skip
        self.group, self.rows, self.given, self.constants = group, rows, given, constants
        self.in_memory = in_memory
        self.row = variable("row", rows)
        self._seen: set[tuple[Node, tuple[Affine, ...]]] = set()

    def hold(self) -> bool:
        group = self.group
        width, rest = divmod(group.size, self.rows)
        if group.kind not in (LOOP, PRODUCT) or rest or width < _SHORTEST_ROW or width % (group.row or 1):
            return False
        if any(width % part_run(n) for n, level in group.members.items() if level == JOINED):
            return False
        if any(group.members[node] in (TOTAL, COLUMN, ACROSS) for node in group.stored):
            return False
        if group.kind == PRODUCT and not self._is_by_rows(next(iter(group.members))):
            return False
        inner = width // (group.row or width)
        part = variable("part", inner)
        self.domain = self.row * width + part * (group.row or width) + variable("column", group.row or width)
        self.numbers = self.row * inner + part
        return all(self._stored(node, group.members[node]) for node in group.stored)

    def _is_by_rows(self, product: Node) -> bool:
        """Whether a product of two matrices can be computed by rows: of one matrix that is the same at each step."""
        left, right = product.inputs
        plain = not any(part.dtype in (bfloat16, float16) for part in (left, right, *left.inputs, *right.inputs))
        if len(product.shape) != 2 or product.shape[0] != self.rows or left.shape[-1] >= _LONG_SUM or not plain:
            return False
        while right.op.kind == MOVEMENT and not self.in_memory(right):
            right = right.inputs[0]
        return right in self.constants

    def _stored(self, node: Node, level: str) -> bool:
        if level == JOINED:
            return node["axis"] > 0 and all(self._computed(p, Index.at(self.domain, p.shape)) for p in node.inputs)
        place = self.numbers if level != "full" else self.domain
        return self._computed(node, Index.at(place, node.shape))

    def _computed(self, node: Node, index: Index) -> bool:
        """Whether the element at `index` can be computed from rows of its own; it is not looked for in memory first."""
        name = node.op.name
        if name == "matmul":
            left = node.inputs[0]
            return self._read(left, Index(left.shape, (index.axes[0], variable("k", left.shape[1]))))
        if name == "take":
            x, places = node.inputs
            rank = len(places.shape)
            found = variable("found", x.shape[0])
            at = Index(x.shape, (found, *index.axes[rank:]))
            return self._read(places, Index(places.shape, index.axes[:rank])) and self._read(x, at)
        if node.op.kind == REDUCTION:
            operand = node.inputs[0]
            return self._read(operand, Index.at(self.domain, operand.shape))
        if node.op.kind == ELEMENTWISE or name == "bounded":
            return all(self._read(i, index if i.shape else Index((), ())) for i in node.inputs)
        if node.op.kind == MOVEMENT and name != "concatenate":
            inner, place, _ = follow(node, index)
            return self._read(inner, place)
        return not node.inputs

    def _read(self, node: Node, index: Index) -> bool:
        if (node, index.axes) in self._seen:
            return True
        self._seen.add((node, index.axes))
        if node in self.given or node.op.name in ("constant", "iota"):
            return True
        if self.in_memory(node) and node not in self.group.members:
            return self._is_own(node, index.flat())
        return self._computed(node, index)

    def _is_own(self, node: Node, place: Affine) -> bool:
        """Whether element number `place` of a value in memory lies in the row."""
        width, rest = divmod(elements(node), self.rows)
        row = self.row.terms[0][0]
        if rest or place.factor(row) != width or row in place.quotients():
            return False
        low, high = (place + self.row * -width).bounds()
        return low >= 0 and high < width
