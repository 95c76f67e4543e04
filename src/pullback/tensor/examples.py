"""A function recorded for one example, to be run for a batch of them: what `vmap` is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..diagnosis import Audit
from ..errors import TraceError
from ..graph.node import Node, next_serial
from ..graph.types import int64
from ..ops.host import detach
from ..ops.movement import reshape, slice_
from ..ops.primitive import MODE, grad_mode, iota, parameter, user_source
from ..ops.vectorize import Batch
from .anomaly import check
from .handle import Handle
from .loops import Recording
from .state import STATE

if TYPE_CHECKING:
    from . import Tensor

#: what random draws do for a batch: refused, one draw for all examples, or one for each
RANDOMNESS = ("error", "same", "different")


class Example:
    """A function that is being recorded for one of `length` examples, inside of `outer` if that is one too."""

    def __init__(self, length: int, randomness: str, outer: Example | None):
        self.length, self.randomness, self.outer = length, randomness, outer
        #: everything older was there before
        self.first = next_serial()
        self.nodes: set[Node] = set()
        #: values that are to be finite in each example, with what is said where they are not
        self.checks: list[tuple[Node, str]] = []
        #: the backward passes in it, where a step is being recorded to be checked
        self.audits: list[Audit] = []
        #: what transforms gave in it, where a step is being recorded: see `Trace.watch_pulled`
        self.pulled: list[tuple[list[Node], list[Node]]] = []

    def check_draw(self) -> None:
        """Raise for a random draw where none is allowed, here or in what this stands in."""
        if self.outer is not None:
            self.outer.check_draw()
        if self.randomness == "error":
            raise TraceError(
                f"a random draw inside vmap (at {user_source()}): pass randomness='different' to draw for each "
                "example, or randomness='same' to draw once for all"
            )

    def check_write(self, tensor: Handle, value: Node) -> None:
        """Raise if a tensor from outside is about to be given a value that differs between examples."""
        if tensor._node.serial < self.first and self.depends(value):
            raise TraceError(
                f"inside vmap a tensor from outside is given a value that differs between examples (at "
                f"{user_source()}): it has room for one. Return the value, use func.grad in place of .backward(), or "
                "give the tensor to the function as an argument with an axis for the batch."
            )
        if self.outer is not None:
            self.outer.check_write(tensor, value)

    def depends(self, node: Node) -> bool:
        """Whether a node differs between examples."""
        seen: set[Node] = set()
        stack = [node]
        while stack:
            node = stack.pop()
            if node in self.nodes:
                return True
            if node.serial >= self.first and node not in seen and node.buffer is None:
                seen.add(node)
                stack.extend(node.inputs)
        return False


@contextmanager
def _recording(length: int, randomness: str) -> Iterator[tuple[Example, Recording | None]]:
    """The example, and where each draws by itself, what tells their draws apart."""
    outer, loop = STATE.example, STATE.loop
    STATE.example = Example(length, randomness, outer)
    numbered = Recording(length, loop, is_of_examples=True) if randomness == "different" else None
    STATE.loop = numbered or loop
    try:
        yield STATE.example, numbered
    finally:
        STATE.example, STATE.loop = outer, loop


@contextmanager
def draws(randomness: str) -> Iterator[None]:
    """Inside, random draws are refused where `randomness` is "error", as they are in a batch of examples."""
    outer = STATE.example
    STATE.example = own = Example(1, randomness, outer)
    try:
        yield
    finally:
        STATE.example = outer
    for node, message in own.checks:
        check(node, message)
    for values, gradients in own.pulled:
        STATE.watch_pulled(values, gradients)
    _pass_on(own.audits)


def for_each(
    function: Callable[[list[Tensor]], Sequence[Tensor]], stacks: Sequence[Tensor], length: int, randomness: str
) -> list[tuple[Tensor, bool]]:
    """The results of `function` for each place of the first axis of `stacks`, and whether they have that axis.

    `function` is called once, to be recorded. Results that do not depend on `stacks` come as they are. An argument
    that it changes in place is changed in `stacks`.
    """
    values = [t.node for t in stacks]
    with _recording(length, randomness) as (example, numbered):
        ones = [parameter(-1, n.shape[1:], n.dtype, MODE.grad and n.requires_grad) for n in values]
        example.nodes.update(ones)
        arguments = [Handle._wrap(node) for node in ones]
        outputs = [tensor.node for tensor in function(arguments)]
    changed = [
        (stack, one.node) for stack, one, node in zip(stacks, arguments, ones, strict=True) if one._node is not node
    ]
    if numbered is not None and numbered.own is not None:
        ones.append(numbered.own)
        values.append(iota((length,), 0, int64))
    for place in dict.fromkeys((0, length - 1)) if length else ():
        _pass_on(_audits_of(example, ones, values, place))
    batch = Batch(length, ones, values)
    found = batch.run([*outputs, *(node for _, node in changed), *(node for node, _ in example.checks)])
    for stack, node in changed:
        stack._assign(batch.every(node))
    results = [
        (Handle._wrap(node if every is None else every), every is not None)
        for node, every in zip(outputs, found, strict=False)
    ]
    for (node, message), every in zip(example.checks, found[len(outputs) + len(changed) :], strict=True):
        check(node if every is None else every, message)
    for together in example.pulled:
        STATE.watch_pulled(*[_of_all(batch, nodes) for nodes in together])
    return results


def _of_all(batch: Batch, nodes: Sequence[Node]) -> list[Node]:
    """What stands for the nodes in all examples at once, or is the same in each."""
    return [batch.plain(node) if every is None else every for node, every in zip(nodes, batch.run(nodes), strict=True)]


def _audits_of(example: Example, ones: Sequence[Node], values: Sequence[Node], place: int) -> list[Audit]:
    """The backward passes of the example at `place`, by itself."""
    if not example.audits:
        return []
    with grad_mode(False):
        own = [_at(value, place) for value in values]
    known = {one: detach(value, one.requires_grad) for one, value in zip(ones, own, strict=True)}
    return [audit.with_values(known) for audit in example.audits]


def _at(values: Node, place: int) -> Node:
    """One place of the first axis."""
    bounds = ((place, place + 1), *((0, size) for size in values.shape[1:]))
    return reshape(slice_(values, bounds), values.shape[1:])


def _pass_on(audits: Sequence[Audit]) -> None:
    """Have backward passes looked at by what is around."""
    kept = STATE.audits if STATE.example is None else STATE.example.audits
    if kept is not None:
        kept.extend(audits)


__all__ = ["RANDOMNESS", "Example", "draws", "for_each"]
