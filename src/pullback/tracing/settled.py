"""What lets a recorded step write new state over the old: that nobody else would see it.

Counting references tells it. For as long as nothing has happened that could have changed the counts (see `graph.calm`),
they need not be looked at again, so that a step of many parameters takes no longer to begin than one of few.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from operator import attrgetter, is_
from sys import getrefcount
from types import SimpleNamespace
from typing import NamedTuple
from weakref import WeakValueDictionary, getweakrefcount

from ..graph.calm import CALM, token
from ..graph.node import Node
from ..graph.types import float32
from ..ops.primitive import buffer_node
from ..runtime.buffers import Buffer
from ..tensor import Tensor
from ..tensor.handle import Handle

#: no token ever stands for this
_NEVER = object()
_NODE_OF = attrgetter("_node")
_NODE = attrgetter("node")
_READERS = attrgetter("_readers")
_BUFFER = attrgetter("node.buffer")
_STATE_SHARED, _SHARED = attrgetter("node.buffer.shared"), attrgetter("shared")


class Stay:
    """A captured tensor's value, and where it lies, for the recordings that are settled on it.

    They all hold this one object, so that several steps of the same parameters, such as one that trains and one that
    validates, do not seem to each other to be somebody who needs the old values.
    """

    __slots__ = ("__weakref__", "address", "array", "node")

    def __init__(self, node: Node):
        self.node = node
        self.address, self.array = node.buffer.address, node.buffer.array


#: by the node's id, which is the node's own for as long as the stay holds it
_STAYS: WeakValueDictionary[int, Stay] = WeakValueDictionary()
#: what a program is given: `address` and `array`
Memory = Buffer | Stay


def stays_of(nodes: Iterable[Node]) -> tuple[list[Stay], bool]:
    """The stays of computed nodes, and whether no recording had one of them before."""
    found, are_new = [], True
    for node in nodes:
        stay = _STAYS.get(id(node))
        if stay is None:
            stay = _STAYS[id(node)] = Stay(node)
        else:
            are_new = False
        found.append(stay)
    return found, are_new


class Settled:
    """The memory of a run whose states were all written in place, for as long as nothing about it changes.

    Whether somebody new refers to a part of it is told by sums of reference counts, one for each kind, because asking
    one by one would take longer than a small step does.
    """

    __slots__ = (
        "_counts",
        "_token",
        "all_stays",
        "are_new",
        "buffers",
        "captured",
        "grads",
        "inputs",
        "nodes",
        "outputs",
        "own_stays",
        "receivers",
        "states",
        "written",
    )

    def __init__(
        self, captured: list[Handle], stays: tuple[list[Stay], bool], states: list[int], receivers: list[Handle],
        bases: Iterable[Node], inputs: list[Memory | None], outputs: list[Memory | None],
    ):  # fmt: skip
        """`states` are the places of those among the captured tensors that are written; `bases` are the leaves that
        gradients which are left uncomputed are made of."""
        self.captured, self.receivers = captured, receivers
        self.inputs, self.outputs = inputs, outputs
        self.all_stays, self.are_new = stays
        self.states = [self.all_stays[place] for place in states]
        self.written = [captured[place] for place in states]
        self.grads = [tensor._grad for tensor in receivers]
        self.nodes = [*(tensor._node for tensor in self.grads), *bases]  # type: ignore[union-attr]
        self.buffers = [node.buffer for node in self.nodes if node.buffer is not None]
        self._counts, self.own_stays = (0, 0, 0), 0
        self._token: object = _NEVER

    def begin(self) -> None:
        """Take the references that there are now for those that there may be, nobody else holding anything."""
        self._counts, self.own_stays = self._count(), sum(map(getrefcount, self.states))

    def _count(self) -> tuple[int, int, int]:
        """The references to all nodes, to all buffers, and to all gradients."""
        nodes = sum(map(getrefcount, map(_NODE, self.states))) + sum(map(getrefcount, self.nodes))
        buffers = sum(map(getrefcount, map(_BUFFER, self.states))) + sum(map(getrefcount, self.buffers))
        return nodes, buffers, sum(map(getrefcount, self.grads))

    def is_calm(self) -> bool:
        """Whether `holds` was so and nothing has happened since."""
        return CALM[0] is self._token

    def holds(self, alone: bool) -> bool:
        """Whether every tensor has the value that the last run gave it, and nobody else has come to refer to it.

        Unless this is the only step that runs, other recordings are somebody else too.
        """
        standing = token()
        if not (
            all(map(is_, map(_NODE_OF, self.captured), map(_NODE, self.all_stays)))
            and all(map(is_, [tensor._grad for tensor in self.receivers], self.grads))
            # a gradient that was changed in place has another node, which refers to the one that it had
            and all(map(is_, map(_NODE_OF, self.grads), self.nodes))
            and self._count() == self._counts
            and not any(chain(map(_STATE_SHARED, self.states), map(_SHARED, self.buffers)))
            # they are told of a new node of their tensor, which a run in place does not give it
            and not any(map(_READERS, chain(self.written, self.grads)))
            and (alone or (self.are_new and sum(map(getrefcount, self.states)) == self.own_stays))
        ):
            return False
        # whoever has a weak reference to a gradient can come to hold it unnoticed
        self._token = _NEVER if any(map(getweakrefcount, self.grads)) else standing
        return True

    def forget(self, inputs: Iterable[int], outputs: Iterable[int]) -> None:
        """Keep the buffers at these places alive no longer."""
        for place in inputs:
            self.inputs[place] = None
        for place in outputs:
            self.outputs[place] = None


class _References(NamedTuple):
    """What `getrefcount` says of a node and of a buffer that one tensor alone holds, of a tensor that is held as a
    gradient and by a recording, and of a node that a recording holds, each by nobody else."""

    node: int
    buffer: int
    gradient: int
    base: int


def is_alone(tensor: Handle, alone: bool) -> bool:
    """Whether nobody but `tensor` would see a write into its memory: no pending graph, no array, no other tensor; nor,
    unless the step that asks is the only one that runs, a recording that is settled on it.

    Told by counting references, so that replacing a value costs nothing where its old one is not needed.
    """
    return (
        tensor._node.buffer is not None
        and not tensor._node.buffer.shared
        and not tensor._readers  # they are told of another node only
        and getrefcount(tensor._node) <= REFERENCES.node + (alone and id(tensor._node) in _STAYS)
        and getrefcount(tensor._node.buffer) <= REFERENCES.buffer
    )


def _count_references() -> _References:
    """Counted here, because interpreters differ in how many references an expression itself makes."""
    tensor = Tensor(buffer_node(Buffer.zeros(1, float32), (1,), float32))
    node, buffer = getrefcount(tensor._node), getrefcount(tensor._node.buffer)
    held, other = {0: tensor}, Tensor(tensor._node)
    other._grad = tensor
    del tensor
    bases = SimpleNamespace(bases={0: buffer_node(Buffer.zeros(1, float32), (1,), float32)})
    return _References(node, buffer, getrefcount(held[0]), getrefcount(bases.bases[0]))


REFERENCES = _count_references()
