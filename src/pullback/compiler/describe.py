"""What a kernel does, in the user's words: the operations and lines that it serves, its arithmetic and its traffic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..graph.node import Node, Source
from .costs import computed, operations, traffic, weight
from .groups import CHECK, Group, elements

#: operations that a kernel is named after; further ones are left out
_NAMED = 3
#: the part of a kernel's work from which on an operation is worth naming
_WORTH_NAMING = 0.02


@dataclass(frozen=True)
class Part:
    """What a kernel does for one line and operation: which part of its time, and how many operations."""

    source: Source | None
    operation: str
    share: float
    operations: int


@dataclass(frozen=True)
class Kernel:
    """What one group of nodes is computed by. `result` is the dtype and shape of what it writes, `dtype` the name of
    the dtype that it computes in. Of the `nbytes` that it moves `written` are written, the others read.
    """

    name: str
    source: Source | None
    result: str
    dtype: str
    operations: int
    nbytes: int
    written: int
    parts: tuple[Part, ...]


def describe(group: Group, in_memory: Callable[[Node], bool]) -> Kernel:
    """The kernel of a group; `in_memory(node)` tells which values lie in memory when it has run."""
    nodes = computed(group, in_memory)
    parts = _parts(nodes, set(group.stored))
    counts = {node: operations(node) for node in nodes}
    heaviest = max(nodes, key=lambda node: weight(node, node in group.stored))
    name = _name(parts)
    return Kernel(
        f"check of {name}" if group.kind == CHECK else name,
        max(parts, key=lambda part: part.share).source,
        _result(group.stored or nodes),
        _computes_in(heaviest),
        sum(counts.values()),
        traffic(group, nodes, in_memory),
        sum(elements(node) * node.dtype.itemsize for node in group.stored),
        parts,
    )


def label(node: Node) -> str:
    """The name of the operation that a node is part of: what the user called, else the primitive's name."""
    return (node.source.operation if node.source else "") or node.op.name


def _parts(nodes: list[Node], stored: set[Node]) -> tuple[Part, ...]:
    """The parts of a kernel's work, in the order of computation."""
    weights: dict[tuple[Source | None, str], float] = {}
    counts: dict[tuple[Source | None, str], int] = {}
    for node in sorted(nodes, key=lambda node: node.serial):
        # a line is one, whichever modules it was run in
        key = node.source._replace(modules=()) if node.source is not None else None, label(node)
        weights[key] = weights.get(key, 0.0) + max(weight(node, node in stored), 1e-9)
        counts[key] = counts.get(key, 0) + operations(node)
    total = sum(weights.values())
    return tuple(Part(*key, part / total, counts[key]) for key, part in weights.items())


def _name(parts: tuple[Part, ...]) -> str:
    shares: dict[str, float] = {}
    for part in parts:
        shares[part.operation] = shares.get(part.operation, 0.0) + part.share
    heaviest = sorted(shares, key=lambda operation: -shares[operation])[:_NAMED]
    named = [name for name in shares if name in heaviest and shares[name] >= _WORTH_NAMING]
    forward = [name for name in named if not name.endswith(" backward")]
    backward = [name.removesuffix(" backward") for name in named if name not in forward]
    words = " + ".join(forward)
    gradients = f"{' + '.join(backward)} backward" if backward else ""
    return ", ".join(filter(None, (words, gradients)))


def _result(written: list[Node]) -> str:
    largest = max(written, key=lambda node: (elements(node), node.dtype.is_floating_point))
    more = f" and {len(written) - 1} more" if len(written) > 1 else ""
    return f"{largest.dtype.name}{list(largest.shape)}{more}"


def _computes_in(node: Node) -> str:
    """The dtype of the operands, as written before they are converted to what products are summed in."""
    if node.op.kind != "contraction":
        return node.dtype.name
    operand = node.inputs[0]
    while operand.inputs and operand.op.kind == "movement":
        operand = operand.inputs[0]
    return operand.inputs[0].dtype.name if operand.op.name == "convert" else operand.dtype.name
