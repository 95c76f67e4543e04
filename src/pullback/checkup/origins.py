"""Which backward pass the gradients of a parameter are of, and so whether they were cleared in time."""

from __future__ import annotations

from collections.abc import Iterable

from ..graph.node import Node
from ..tensor import Tensor
from ..tensor.handle import Handle


class Origins:
    """Keeps of each parameter's gradient when the first part of it was made. Times count what happens.

    What another network's loss leaves in a parameter is no fault as long as it is cleared before it is used: only what
    stands in a gradient that an optimizer steps with counts.
    """

    def __init__(self) -> None:
        self.time = 0
        #: by the parameter: when the oldest part of its gradient was made, when and where the newest
        self._oldest: dict[int, int] = {}
        self._newest: dict[int, tuple[int, str]] = {}
        #: when an optimizer last stepped with it
        self._used: dict[int, int] = {}
        self.owners: dict[int, Handle] = {}
        #: what was made last for it
        self._made: dict[int, Node] = {}

    def begin(self) -> None:
        """A backward pass begins: what has been cleared since the one before is forgotten."""
        self.time += 1
        for key in list(self._oldest):
            gradient = self.owners[key]._grad
            # a value is looked at only where it would be a fault
            if gradient is None or (self._oldest[key] <= self._used.get(key, -1) and not has_values(gradient)):
                del self._oldest[key]

    def receive(self, owner: Handle, gradient: Node, line: str) -> None:
        """The pass has added to the gradient of a parameter."""
        key = id(owner)
        self.owners[key], self._made[key] = owner, gradient
        self._oldest.setdefault(key, self.time)
        self._newest[key] = self.time, line

    def use(self, parameters: Iterable[Tensor]) -> str:
        """An optimizer steps with the gradients of parameters; the line of a backward() that added to what an earlier
        step had used already, "" where none did.
        """
        self.time += 1
        stale = ""
        for parameter in parameters:
            key = id(parameter)
            if parameter._grad is None:
                continue
            used = self._used.get(key, -1)
            newest, line = self._newest.get(key, (-1, ""))
            if newest > used >= self._oldest.get(key, self.time):
                stale = stale or line
            self._used[key] = self.time
        return stale

    def is_zero(self, parameter: Tensor) -> bool:
        """Whether a parameter and what backward() last made for it are 0 everywhere."""
        made = self._made.get(id(parameter))
        return made is not None and not has_values(parameter) and not has_values(Tensor(made))

    def is_made_zero(self, parameters: Iterable[Tensor]) -> bool:
        """Whether backward() itself made zeros of all gradients that these parameters have."""
        made = [self._made[id(p)] for p in parameters if id(p) in self._made and p._grad is not None]
        return bool(made) and not any(has_values(Tensor(node)) for node in made)


def has_values(tensor: Tensor) -> bool:
    """Whether an element is not zero."""
    return bool(tensor.detach().float().numpy().any())


def clipped_before_unscaling(gradient: Node) -> str:
    """The line that clipped what a GradScaler has divided by its scale to make a gradient; empty where none did."""
    quotient = _plain(gradient)
    if quotient.op.name != "mul" or not quotient.inputs:
        return ""
    source = _plain(quotient.inputs[0]).source
    return str(source) if source is not None and source.operation.startswith("clip_grad") else ""


def _plain(node: Node) -> Node:
    """What a value was before it was converted."""
    while node.op.name in ("convert", "identity") and node.inputs:
        node = node.inputs[0]
    return node


__all__ = ["Origins", "clipped_before_unscaling", "has_values"]
