"""How the loss of a batch divides into what its parts contribute.

A loss is recorded for the whole batch and for a probe, a batch of another size; nothing of either is computed. The two
graphs are gone through side by side, and each value is put into one of the classes of `classes`. So a sum over the
batch is known by what it is, wherever it stands in the loss, and a number that comes from the size of the batch is
known by its differing.

What does not depend on parameters may be a function of the whole batch, such as the number of valid targets that a
mean is divided by: parts are given its value for the whole batch. Where the loss is linear in all sums that do depend
on parameters, it is then the sum of what the parts contribute, and so is its gradient.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..graph.node import Node
from ..ops.elementwise import convert
from ..ops.host import CUSTOM, DETACH, SEVERAL
from ..ops.primitive import Lowering, autocast_mode, grad_mode, parameter
from ..ops.reduction import sum_to_shape
from ..ops.scan import PART, REPEAT
from .classes import EVEN, SAME, TOTAL, Class, Mixed, Rows, counts_from_zero
from .rules import Pair, class_of, wrapped_index

#: an operand: the node that reads it, and which of its inputs it is
Edge = tuple[Node, int]


class Division:
    """The classes of the nodes that a loss of the whole batch is computed from."""

    def __init__(self, examples: int, probed: int):
        self.examples, self.probed = examples, probed
        self.probe: dict[Node, Node] = {}
        self.classes: dict[Node, Class] = {}
        #: operands of which parts are given the value for the whole batch, and those that only one part has
        self.known: set[Edge] = set()
        self.once: set[Edge] = set()
        #: nodes that are other nodes for a part, because of one of these edges
        self.changed: set[Node] = set()
        #: an operation whose gradient rule mixes examples
        self.refused: Mixed | None = None
        self._fixed: dict[Node, bool] = {}
        #: values for the whole batch may stand in for those of a part
        self._substitutes = True

    def enter(self, node: Node, probe: Node, found: Class) -> None:
        """Say what a node is: one that the batch is read from."""
        self.probe[node], self.classes[node] = probe, found
        self._fixed[node] = not node.requires_grad

    def run(self, root: Node, probe: Node) -> Class:
        """The class of `root`."""
        for node in self._walk([(root, probe)]):
            self._classify(node)
        return self.refused or self.classes[root]

    def _walk(self, roots: Iterable[tuple[Node, Node]]) -> list[Node]:
        """The nodes not yet classified, each after its inputs, their counterparts entered."""
        found: set[Node] = set()
        stack = list(roots)
        while stack:
            node, probe = stack.pop()
            known = self.probe.setdefault(node, probe)
            if known is not probe:
                self.classes[node] = Mixed(node)
            if node in self.classes or node in found:
                continue
            if node is probe:
                self.classes[node] = SAME
            elif node.op is not probe.op or len(node.inputs) != len(probe.inputs) or node.dtype is not probe.dtype:
                self.classes[node] = Mixed(node)
                self._fixed.setdefault(node, False)
            else:
                found.add(node)
                stack.extend(zip(node.inputs, probe.inputs, strict=True))
        return sorted(found, key=lambda n: n.serial)

    def _classify(self, node: Node) -> None:
        if node in self.classes:
            return
        if node.op is REPEAT:
            found = Loops(self, node).classify()
        else:
            found = self._class_of(node)
            if found is None and self._substitute(node):
                found = self._class_of(node)
        operands = [self.classes[i] for i in node.inputs]
        mixed = next((c for c in operands if isinstance(c, Mixed)), None)
        self.classes[node] = found or mixed or Mixed(node)
        self._note_change(node)

    def _class_of(self, node: Node) -> Class | None:
        operands = [SAME if (node, i) in self.known else self.classes[n] for i, n in enumerate(node.inputs)]
        if node.op is PART:
            return Loops.result(self, node)
        index = wrapped_index(node)
        if index is not None and counts_from_zero(self.classes[index]):
            return self.classes[index]
        if node.op.name == "philox":
            operands = [SAME if isinstance(c, Mixed) else c for c in operands]
        if any(isinstance(c, Mixed) for c in operands):
            return None
        pair = Pair(node, self.probe[node], operands, self.examples, self.probed)
        found = class_of(pair)
        if node.op in (CUSTOM, SEVERAL) and found is not None and not self._has_such_rule(node, found):
            return None
        self.once |= {(node, index) for index in pair.once}
        return found

    def _substitute(self, node: Node) -> bool:
        """Have parts use operands' values for the whole batch, where these can be had beforehand."""
        able = [
            (node, index)
            for index, operand in enumerate(node.inputs)
            if (self.classes[operand] == TOTAL or isinstance(self.classes[operand], Mixed))
            and operand.shape == self.probe[operand].shape
            and self.is_fixed(operand)
        ]
        self.known |= set(able if self._substitutes else [])
        return bool(able) and self._substitutes

    def _note_change(self, node: Node) -> None:
        """Note whether a part has another node here than it was recorded with."""
        for index, operand in enumerate(node.inputs):
            if (node, index) in self.known or (node, index) in self.once or operand in self.changed:
                self.changed.add(node)

    def is_fixed(self, node: Node) -> bool:
        """Whether a value depends on nothing that is trained and on no random draw but those made before."""
        stack = [node]
        while stack:
            current = stack[-1]
            if self.probe.get(current) is current:  # the loss function finds it there
                self._fixed.setdefault(current, not current.requires_grad)
            missing = [i for i in current.inputs if i not in self._fixed] if current not in self._fixed else []
            if missing:
                stack.extend(missing)
                continue
            stack.pop()
            if current not in self._fixed:
                leaf = not current.inputs or current.op is DETACH
                draws = any(n.op.name == "philox" for n in _within(current))
                fixed = not (leaf and current.requires_grad) and not draws
                self._fixed[current] = fixed and all(self._fixed[i] for i in current.inputs)
        return self._fixed[node]

    # ---- gradient rules of operations that have their own

    def _has_such_rule(self, node: Node, found: Class) -> bool:
        """Whether the rule carries cotangents back as the class of each operand wants it."""
        count = node["count"] if node.op is SEVERAL else 1
        if not any(operand.requires_grad for operand in node.inputs[count:]):
            return True
        pairs = [self._cotangent(node, place, found) for place in range(count)]
        both = [self._pulled(n, [p[k] for p in pairs]) for k, n in enumerate((node, self.probe[node]))]
        before, self._substitutes = self._substitutes, False
        self.classes[node] = found  # rules may read results
        try:
            for operand, ours, theirs in zip(node.inputs[count:], *both, strict=True):
                if operand.requires_grad and not self._carries_back(operand, ours, theirs):
                    self.refused = Mixed(node)
                    return False
        finally:
            self._substitutes = before
        return True

    def _cotangent(self, node: Node, place: int, found: Class) -> tuple[Node, Node]:
        """A cotangent of a result, for the batch and for the probe; that of a sum is the same for each part."""
        result, probe = node.inputs[place], self.probe[node].inputs[place]
        of = self.classes[result] if node.op is SEVERAL else found
        pair = parameter(-1, result.shape, result.dtype), parameter(-1, probe.shape, probe.dtype)
        self.enter(*pair, SAME if of == TOTAL else of)
        return pair

    @staticmethod
    def _pulled(node: Node, cotangents: Sequence[Node]) -> list[Node | None]:
        given = cotangents[0] if node.op is CUSTOM else dict(enumerate(cotangents))
        count = node["count"] if node.op is SEVERAL else 1
        with grad_mode(False), autocast_mode(Lowering()):
            found = node["rule"](node, given)
            return [
                None if g is None else convert(sum_to_shape(g, i.shape), i.dtype)
                for g, i in zip(found, node.inputs[count:], strict=True)
            ]

    def _carries_back(self, operand: Node, ours: Node | None, theirs: Node | None) -> bool:
        if ours is None or theirs is None:
            return ours is theirs
        found, wanted = self.run(ours, theirs), self.classes[operand]
        if wanted == SAME:
            return found == TOTAL
        return found in ((SAME,) if wanted == TOTAL else (wanted, EVEN))


def _within(node: Node) -> Iterable[Node]:
    """The operation itself, or those of a loop's body."""
    return (n for value in node["body"].values for n in _within(value)) if node.op is REPEAT else (node,)


class Loops:
    """The body of a loop, whose steps all examples go through side by side."""

    def __init__(self, division: Division, node: Node):
        self.outer, self.node, self.other = division, node, division.probe[node]

    def classify(self) -> Class | None:
        """SAME where the results are known (see `result`), None where the loop mixes examples."""
        ours, theirs = self.node["body"], self.other["body"]
        alike = all(self.node[k] == self.other[k] for k in ("length", "slices", "reverse"))
        if not alike or len(ours.values) != len(theirs.values) or len(ours.next) != len(theirs.next):
            return None
        given = [self.outer.classes[i] for i in self.node.inputs]
        if any(c == TOTAL or isinstance(c, Mixed) or (isinstance(c, Rows) and c.numbers) for c in given):
            return None
        count = len(ours.next)
        for index in range(count, count + self.node["slices"]):
            if not self._has_steps_in_front(index, given[index]):
                return None
        while True:
            inside = self._inside(given)
            next_ = [inside.classes[n] for n in ours.next]
            joined = [self._joined(a, b) for a, b in zip(given, next_, strict=False)]
            if None in joined:
                return None
            if joined == given[:count]:
                self.outer.classes.update((value, inside.classes[value]) for value in ours.values)
                self.outer.classes.update(zip(ours.parameters, given, strict=True))
                return SAME
            given[:count] = joined  # type: ignore[assignment]

    def _has_steps_in_front(self, index: int, operand: Class) -> bool:
        node, other = self.node.inputs[index], self.other.inputs[index]
        if node.shape[0] != other.shape[0]:
            return False
        if not isinstance(operand, Rows):
            return True
        trailing = 1
        for size in node.shape[1:]:
            trailing *= size
        return operand.stride * self.outer.examples <= trailing

    def _inside(self, given: Sequence[Class]) -> Division:
        ours, theirs = self.node["body"], self.other["body"]
        inside = Division(self.outer.examples, self.outer.probed)
        inside._substitutes = False
        for node, probe, found in zip(ours.parameters, theirs.parameters, given, strict=True):
            inside.enter(node, probe, found)
        for node, probe in zip(ours.values, theirs.values, strict=True):
            for value in inside._walk([(node, probe)]):
                if value.op in (CUSTOM, SEVERAL):  # its rule is written for nodes outside of the loop
                    inside.classes[value] = Mixed(value)
                else:
                    inside._classify(value)
                if (value in inside.changed) or any(edge[0] is value for edge in inside.once):
                    inside.classes[value] = Mixed(value)
        return inside

    @staticmethod
    def _joined(start: Class, after: Class) -> Class | None:
        """The class of a carry that is one of these at first and the other after a step."""
        if start == after:
            return start
        return (
            after
            if start == EVEN and isinstance(after, Rows) and not after.numbers
            else (start if after == EVEN and isinstance(start, Rows) else None)
        )

    @staticmethod
    def result(division: Division, node: Node) -> Class | None:
        """The class of a result of a loop; a first axis for the steps leaves the stride as it is."""
        (loop,) = node.inputs
        if division.classes[loop] != SAME:
            return None
        body = loop["body"]
        value = body.values[node["place"]] if node["of"] == "stack" else body.parameters[node["place"]]
        if loop is division.probe[loop]:
            return SAME
        found = division.classes[value]
        return None if isinstance(found, Mixed) else found
