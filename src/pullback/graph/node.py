"""The graph: immutable nodes, and the order in which they can be computed."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count
from typing import Any, NamedTuple

from .calm import CALM, OVERWRITTEN
from .types import DType

Shape = tuple[int, ...]


class Source(NamedTuple):
    """The line of the user's program that made a node, and what that line called, such as "linear".

    `checkpoint` are the numbers of the checkpointed calls that the line was run in, the outermost first; `modules` are
    the ids of the modules whose forward was running, the outermost first. `steps` is of nodes that do for that many
    steps of a loop at once, along their first axis, what the line says of one (0 of others).
    """

    file: str
    line: int
    operation: str = ""
    checkpoint: tuple[int, ...] = ()
    modules: tuple[int, ...] = ()
    steps: int = 0

    @property
    def is_backward(self) -> bool:
        """Whether the node is part of the gradient of what the line called."""
        return self.operation.endswith("backward")

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


_serials = count()


def next_serial() -> int:
    """A serial number above all nodes made so far and below all made later."""
    return next(_serials)


class Node:
    """One operation applied to other nodes. What it means never changes after it was made.

    `op` is the operation's record; `attributes` its constants (hashable values by name); `shape` and `dtype` describe
    the value; `requires_grad` tells whether differentiation goes through it; `source` is the user's line. `serial`
    grows with every node made, so sorting by it is a topological order. `buffer` is the memo of a value that has been
    computed (see `settle`): it belongs to the runtime. `spent` tells that a backward pass has used up the history.
    `hooks` is there where a gradient passes functions of the user's own (see `ops/gradient_hooks.py`).
    """

    __slots__ = (
        "__weakref__",
        "attributes",
        "buffer",
        "dtype",
        "hooks",
        "inputs",
        "op",
        "requires_grad",
        "serial",
        "shape",
        "source",
        "spent",
    )

    hooks: Any

    def __init__(
        self,
        op: Any,
        inputs: tuple[Node, ...],
        attributes: dict[str, Any],
        shape: Shape,
        dtype: DType,
        requires_grad: bool = False,
        source: Source | None = None,
        buffer: Any = None,
    ):
        self.op, self.inputs, self.attributes = op, inputs, attributes
        self.shape, self.dtype = shape, dtype
        self.requires_grad, self.source, self.buffer = requires_grad, source, buffer
        self.spent = False
        self.serial = next(_serials)
        if inputs:
            CALM[0] = None

    @property
    def stamp(self) -> object:
        """What tells this node with the value that it has now: a program may write new values over those of a leaf."""
        buffer = self.buffer
        return self.serial if buffer is None or not buffer.overwritten else (self.serial, OVERWRITTEN[0])

    def __getitem__(self, attribute: str) -> Any:
        return self.attributes[attribute]

    def __repr__(self) -> str:
        return f"<{self.op.name} {self.dtype.name}{list(self.shape)}>"

    def settle(self, buffer: Any) -> None:
        """Remember the node's value, and forget where it came from unless differentiation still has to go there."""
        self.buffer = buffer
        if not self.requires_grad or self.spent or self.op.name == "detach":
            self.inputs = ()

    def spend(self) -> None:
        """Note that the history is used up; where the value is known nothing need be kept for it."""
        self.spent = True
        if self.buffer is not None:
            self.inputs = ()

    def with_inputs(self, inputs: tuple[Node, ...]) -> Node:
        """The same operation on other inputs of the same shapes and dtypes."""
        return self if inputs == self.inputs else self.copy(inputs)

    def copy(self, inputs: tuple[Node, ...]) -> Node:
        """A new node of the same operation, without the value that this one may have."""
        return Node(self.op, inputs, self.attributes, self.shape, self.dtype, self.requires_grad, self.source)


def ancestors(outputs: Iterable[Node], stop_at_buffers: bool = True) -> set[Node]:
    """Every node that `outputs` need, themselves included; nothing behind known values unless asked for.

    Runs in linear time without recursion, so depth is limited by memory alone.
    """
    found: set[Node] = set()
    stack = list(outputs)
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            if node.buffer is None or not stop_at_buffers:
                stack.extend(node.inputs)
    return found


def reachable(outputs: Iterable[Node], stop_at_buffers: bool = True) -> list[Node]:
    """Every node that `outputs` need, each after its inputs."""
    return sorted(ancestors(outputs, stop_at_buffers), key=lambda node: node.serial)


class Graph:
    """A list of nodes, each after its inputs, and the ones among them that are wanted.

    Between compiler passes the order of `nodes` is the order of computation. A node with a value (`buffer` set) or
    without inputs is a leaf.
    """

    __slots__ = ("nodes", "outputs")

    def __init__(self, nodes: list[Node], outputs: list[Node]):
        self.nodes, self.outputs = nodes, outputs

    @classmethod
    def of(cls, outputs: Iterable[Node]) -> Graph:
        """The graph that computes `outputs`."""
        wanted = list(outputs)
        return cls(reachable(wanted), wanted)

    def users(self) -> dict[Node, list[Node]]:
        """For each node the nodes that read it, one entry a reading."""
        users: dict[Node, list[Node]] = {node: [] for node in self.nodes}
        for node in self.nodes:
            if node.buffer is None:
                for operand in node.inputs:
                    users[operand].append(node)
        return users


def enter(node: Node, order: list[Node], entered: set[Node]) -> None:
    """Append `node` to `order` after whatever of its inputs is not there yet.

    For passes that replace nodes one by one in order: what one node becomes is a short chain, so recursion stays
    shallow.
    """
    if node not in entered:
        if node.buffer is None:
            for operand in node.inputs:
                enter(operand, order, entered)
        entered.add(node)
        order.append(node)


def exact(value: Any) -> Any:
    """A hashable value that equals another's only where both are the same number: 0.0 is not -0.0, nor 1 True.

    What has a `structure`, as the body of a scan, is known by that.
    """
    return (type(value), repr(value)) if isinstance(value, (float, int)) else getattr(value, "structure", value)
