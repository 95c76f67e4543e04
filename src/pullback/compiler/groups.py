"""Groups: the nodes that one kernel computes together, and the words in which passes and kernels speak of them.

A *group* becomes one kernel. Its members are computed over one domain of `size` elements, in rows of `row` elements
where a member reduces rows; the last row may be shorter, see `unfilled`. `fuse` makes the groups of a graph; what comes
after it reads them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ..errors import VerifyError
from ..graph.node import Graph, Node
from ..ops.attention import weight_operands
from ..ops.primitive import ATTENTION, HOST, LEAF, MOVEMENT, SCAN
from .copies import rounds_as_it_reads
from .made import made_with
from .share import Share

#: kinds of groups, each lowered by a function of its own
LOOP, COLUMNS, PRODUCT, CONVOLUTION, ATTEND, SCATTER, PUT, CHECK, JOIN, CALL, STEPS, RECUR = (
    "loop", "columns", "product", "convolution", "attend", "scatter", "put", "check", "join", "call", "steps", "recur",
)  # fmt: skip

#: how a member stands to the domain: one value an element, or one a row; or several, which are its parts; or it is
#: reduced from all elements, or from those of each column. Or it stands behind a result that the kernel finishes piece
#: by piece (the totals of columns, what is scattered): an elementwise function of it, or reduced from all of that
FULL, ROW, JOINED, TOTAL, COLUMN, AFTER, ACROSS = "full", "row", "joined", "total", "column", "after", "across"
#: reductions whose last row may be shorter than what they are of, which is filled up with zeros
_FILLED = ("sum", "max", "min")
#: rows of a matrix from which on it matters what is done for each of them that is the same for a column
MANY_ROWS = 8


@dataclass(eq=False)
class Group:
    """What one kernel computes. `stored` are the members whose values are written to memory, `constants` operands that
    stay the same while the kernel is run again and again. `share` says which rows a task takes, where the kernel is not
    to choose; `times` how often a launch computes all of it. `columns` are the loops over a row, where those of another
    kernel are to be taken.
    """

    kind: str
    size: int
    row: int | None = None
    members: dict[Node, str] = field(default_factory=dict)
    stored: list[Node] = field(default_factory=list)
    constants: frozenset[Node] = frozenset()
    share: Share | None = None
    times: int = 1
    readers: set[Group] = field(default_factory=set)
    cost: int = 0
    position: int = 0
    columns: tuple[int, ...] = ()

    @property
    def rows(self) -> int:
        """How many rows there are: as many as elements where no member reduces them."""
        return -(-self.size // (self.row or 1))

    @property
    def is_ragged(self) -> bool:
        """Whether the last row is shorter."""
        return self.size % (self.row or 1) != 0

    @property
    def inner(self) -> list[Node]:
        """The members that are computed while the domain is gone through, not behind something that is finished."""
        return [node for node, level in self.members.items() if level not in (AFTER, ACROSS)]


@dataclass
class Fusion:
    """The graph with its long reductions cut, the groups in order of execution, and all nodes whose values are in
    memory.
    """

    graph: Graph
    groups: list[Group]
    materialized: set[Node]
    group_of: dict[Node, Group]


def elements(node: Node) -> int:
    """How many elements the node's value has."""
    return math.prod(node.shape)


def is_real(node: Node) -> bool:
    """Whether the node is computed, rather than read through (movement) or given (leaves)."""
    return node.op.kind not in (LEAF, MOVEMENT) or node.op.name == "concatenate"


def sources(node: Node) -> list[Node]:
    """The computed node that reading `node` ends at, in a list; an empty one where it ends at a leaf."""
    while node.op.kind == MOVEMENT and node.op.name != "concatenate":
        node = node.inputs[0]
    return [] if node.op.kind == LEAF else [node]


def part_run(node: Node) -> int:
    """How many elements of its first part stand in a row in a concatenation."""
    return math.prod(node.inputs[0].shape[node["axis"] :])


def resolve(operand: Node) -> tuple[Node, int] | None:
    """(base, repeat): element i of `operand` is element i // repeat of `base`, which may have more; None where it is
    not so simple.
    """
    repeat, node = 1, operand
    while not is_real(node) and node.inputs:
        if node.op.name == "expand":
            times = _trailing_repeat(node)
            if times is None:
                return None
            repeat *= times
        elif node.op.name != "reshape" and not _takes_first(node):
            return None
        node = node.inputs[0]
    return node, repeat


def _takes_first(node: Node) -> bool:
    """Whether the node is a slice of the first elements, in the order in which they lie."""
    if node.op.name != "slice":
        return False
    (start, _), *others = node["bounds"]
    return start == 0 and others == [(0, size) for size in node.inputs[0].shape[1:]]


def unfilled(reduction: Node) -> Node:
    """What a reduction of rows goes through, without the zeros that fill up the last row: of a vector
    reshape(pad(x, ((0, n),)), (rows, row)), where n < row, is x. Else it is the operand itself.
    """
    operand = node = reduction.inputs[0]
    while node.op.name == "reshape":
        node = node.inputs[0]
    if node.op.name != "pad" or len(node.shape) != 1 or reduction.op.name not in _FILLED:
        return operand
    ((before, behind),) = node["widths"]
    row = math.prod(operand.shape[axis] for axis in reduction["axes"])
    return node.inputs[0] if before == 0 and behind < row else operand


def _trailing_repeat(node: Node) -> int | None:
    """How often each element stands in a row, if the expanded axes are the last ones."""
    inner = node.inputs[0].shape
    inner = (1,) * (len(node.shape) - len(inner)) + inner
    changed = [axis for axis, (a, b) in enumerate(zip(inner, node.shape, strict=True)) if a != b]
    if not changed:
        return 1
    if any(inner[axis] != 1 for axis in range(changed[0], len(inner))):
        return None
    return math.prod(node.shape[changed[0] :])


def reads_memory(node: Node, operand: Node) -> bool:
    """Whether the kernel of `node` takes `operand` from memory as it lies there, and cannot compute it on its way.

    A convolution computes what it reads while it copies it to a task's memory, and a product what `made` says.
    """
    stored = node.op.name == "matmul" and not rounds_as_it_reads(operand) and not made_with(operand)
    looked_up = node.op.name == "take" and operand is node.inputs[0]
    by_address = node.op.kind == ATTENTION and operand not in weight_operands(node)
    return stored or looked_up or by_address or node.op.kind in (HOST, SCAN)


def verify_order(fusion: Fusion) -> None:
    """Raise VerifyError where a group reads what a later one computes."""
    for group in fusion.groups:
        for node in group.members:
            for operand in node.inputs:
                for source in sources(operand):
                    if fusion.group_of[source].position > group.position:
                        raise VerifyError(
                            f"after fuse: {node!r} (made at {node.source}) is computed before {source!r} (made at "
                            f"{source.source}), which it reads"
                        )
