"""The gradients that a recorded step leaves in `.grad`: whose memory they are in, and who can still see it."""

from __future__ import annotations

from collections.abc import Collection, Set
from sys import getrefcount
from weakref import ref

from ..graph.node import Node
from ..runtime.buffers import Buffer
from ..tensor import Tensor
from ..tensor.handle import Handle
from .outcome import Outcome
from .settled import REFERENCES, Memory, is_alone


class Gradients:
    """What the last run left in `.grad` of the tensors that it gave one."""

    def __init__(self, outcome: Outcome, resident: Set[int]):
        """Those at the places `resident` lie in the program's own memory."""
        self.made, self.deferred, self.leaf = outcome.made_grads, outcome.deferred, outcome.leaf
        self.resident = resident
        self._numbers = outcome.numbers
        #: the places of the numbers that gradients are left to be made with
        self.numbers = frozenset(outcome.numbers.values())
        #: gradients that the last run made, by output; and of those that are left uncomputed what they are made of
        self.held: dict[int, Tensor] = {}
        self.bases: dict[int, Node] = {}
        self.tops: dict[int, ref[Node]] = {}

    def reuse(self, outputs: list[Memory | None], alone: bool) -> list[Buffer]:
        """Enter among the outputs the memory of gradients of the last run that nobody can see any more. Gives what lies
        inside of the program's own memory and nobody can see any more either.
        """
        free: list[Buffer] = []
        for tensor, place in self.made:
            if place not in self.held or not self._may_be_free(tensor, place, alone):
                continue
            if place in self.resident:
                free.append((self.bases[place] if place in self.deferred else self.held[place]._node).buffer)
            else:
                outputs[place] = self.held[place]._node.buffer
        return free

    def _may_be_free(self, tensor: Handle, place: int, alone: bool) -> bool:
        """The same as `_is_free`; memory of its own has to be that of the tensor's gradient besides."""
        return (place in self.resident or self.held[place] is tensor._grad) and self._is_free(tensor, place, alone)

    def _is_free(self, tensor: Handle, place: int, alone: bool) -> bool:
        """Whether nobody can see the memory of a gradient that this program made but by asking the tensor for it."""
        held = self.held
        only = getrefcount(held[place]) <= REFERENCES.gradient - (held[place] is not tensor._grad)
        if place not in self.deferred:
            return only and is_alone(held[place], alone)
        # what the gradient is left to be made of: somebody may still come to make it
        live = self.tops[place]() is held[place]._node and held[place]._node.buffer is None
        if live and not (only and getrefcount(held[place]._node) <= REFERENCES.node):
            return False
        if getrefcount(self.bases[place]) > REFERENCES.base + live or self.bases[place].buffer.shared:
            return False
        return getrefcount(self.bases[place].buffer) <= REFERENCES.buffer

    def let_go(self, tensors: Collection[int], alone: bool) -> None:
        """Give up gradients of the last run that lie in the program's own memory and that nobody can see any more, of
        tensors (by their ids) that are about to be given others.
        """
        for tensor, place in self.made:
            is_its_own = place in self.held and self.held[place] is tensor._grad
            if is_its_own and place in self.resident and id(tensor) in tensors and self._is_free(tensor, place, alone):
                tensor._grad = None

    def forget(self) -> None:
        """Hold nothing of the last run that lay in the program's own memory: that is somebody else's now."""
        for place in self.resident & self.held.keys():
            del self.held[place]
            self.bases.pop(place, None)
            self.tops.pop(place, None)

    def take_in(self, outputs: list[Memory | None], fresh: Set[int]) -> None:
        """Bind the tensors' gradients to the run's; what was not written to fresh memory is theirs already.

        Gradients that are left uncomputed are not among the pending tensors, which are computed along with whatever
        passes by.
        """
        leaves = {number: self.leaf(outputs, place) for number, place in self._numbers.items()}
        for tensor, place in self.made:
            if place in self.deferred:
                found = self.deferred[place]
                base = self.bases[place] = self.leaf(outputs, place)
                gradient = self.held[place] = Tensor(base)
                gradient._node = found.on({found.base: base, **leaves})
                self.tops[place] = ref(gradient._node)
                tensor._grad = gradient
            elif place in fresh or place in self.resident:
                tensor._grad = self.held[place] = Tensor(self.leaf(outputs, place))


__all__ = ["Gradients"]
