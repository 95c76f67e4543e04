"""Loops whose body is recorded once: what `func.scan` and the recurrent layers are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import DTypeError, ShapeError, TraceError
from ..graph.node import Node, next_serial
from ..graph.types import int64
from ..ops import elementwise as e
from ..ops.body import Closing
from ..ops.movement import expand
from ..ops.primitive import MODE, constant, iota, parameter, user_source
from ..ops.scan import final, scan, stacked
from ..ops.split import Split
from .anomaly import check
from .handle import Handle
from .state import STATE

if TYPE_CHECKING:
    from . import Tensor

#: from the carries and the slices to the next carries and what is to be stacked
Step = Callable[[list["Tensor"], list["Tensor"]], tuple[Sequence["Tensor"], Sequence["Tensor"]]]


class Recording:
    """A body that is being recorded, inside of `outer` if that is one too. One that `is_of_examples` tells the draws of
    the examples of a batch apart, and is no loop.
    """

    def __init__(self, length: int, outer: Recording | None, is_of_examples: bool = False):
        self.outer, self.is_of_examples = outer, is_of_examples
        #: values that are to be finite at each step, with what is said where they are not
        self.checks: list[tuple[Node, str]] = []
        #: how often the body is run in all
        self.times: int = length * (1 if outer is None else outer.times)
        self.length = length
        self._own: Node | None = None
        #: nodes with a smaller number were there before
        self.first = next_serial()

    def check_write(self, tensor: Handle) -> None:
        """Raise TraceError for a tensor from outside of the body: it would be written once, and not at each step."""
        if tensor._node.serial < self.first:
            raise TraceError(
                f"the body of a scan writes to a tensor from outside of it, of shape {list(tensor._node.shape)} (at "
                f"{user_source()}), as BatchNorm does to its running statistics when it trains: carry what changes "
                "from step to step, or call .eval() on the module."
            )

    @property
    def own(self) -> Node | None:
        """The number of the step, if anything asked for it."""
        return self._own

    def number(self) -> Node:
        """The number of the run of the body, from 0 to `times` - 1 (int64)."""
        if self._own is None:
            self._own = parameter(-1, (), int64)
        if self.outer is None:
            return self._own
        return e.add(e.mul(self.outer.number(), constant(self.length, int64)), self._own)


@contextmanager
def _recording(length: int) -> Iterator[Recording]:
    outer = STATE.loop
    STATE.loop = Recording(length, outer)
    try:
        yield STATE.loop
    finally:
        STATE.loop = outer


def repeat(
    step: Step, init: Sequence[Tensor], xs: Sequence[Tensor], length: int, reverse: bool = False
) -> tuple[list[Tensor], list[Tensor]]:
    """Run `step` on carries, `init` at first, and on the slices of `xs` along their first axis, of size `length`.

    `step(carries, slices)` gives the next carries and any further tensors; it is called once, to be recorded. Returns
    the last carries, and the further tensors stacked along a new first axis; from the last slice to the first if
    `reverse`.
    """
    starts, operands = [t.node for t in init], [t.node for t in xs]
    carries = [parameter(-1, n.shape, n.dtype, MODE.grad and n.dtype.is_floating_point) for n in starts]
    slices = [parameter(-1, n.shape[1:], n.dtype, MODE.grad and n.requires_grad) for n in operands]
    with _recording(length) as recording:
        next_, outputs = step([Handle._wrap(n) for n in carries], [Handle._wrap(n) for n in slices])
        next_nodes, output_nodes = [t.node for t in next_], [t.node for t in outputs]
        output_nodes += [node for node, _ in recording.checks]
    wanted = len(output_nodes) - len(recording.checks)
    _check(starts, next_nodes)
    if recording.own is not None:
        slices.append(recording.own)
        operands.append(iota((length,), 0, int64))
    if length == 0:
        empty = [expand(constant(0, n.dtype), (0, *n.shape)) for n in output_nodes]
        return [Handle._wrap(n) for n in starts], [Handle._wrap(n) for n in empty[:wanted]]
    split = Split(carries, slices, operands, next_nodes, output_nodes, length)
    closing = Closing(carries, split.slices)
    taken = closing.take([*next_nodes, *split.stacked])
    count = len(carries)
    body = closing.body(taken[:count], taken[count:], starts)
    loop = scan(body, starts, split.operands, list(closing.captured), length, reverse)
    finals = [final(loop, number) for number in range(count)]
    outer = split.after([stacked(loop, n) for n in taken[count:]])
    results = [Handle._wrap(n) for n in finals], [Handle._wrap(n) for n in outer[:wanted]]
    for node, (_, message) in zip(outer[wanted:], recording.checks, strict=True):
        check(node, message)
    return results


def _check(starts: Sequence[Node], next_: Sequence[Node]) -> None:
    for number, (start, after) in enumerate(zip(starts, next_, strict=True)):
        kinds = f"{start.dtype.name}{list(start.shape)}", f"{after.dtype.name}{list(after.shape)}"
        where = f"scan: carry {number} is {kinds[0]} at first and {kinds[1]} after a step (at {user_source()})"
        if start.shape != after.shape:
            raise ShapeError(f"{where}; a carry keeps its shape: give `init` the shape that the step returns")
        if start.dtype is not after.dtype:
            raise DTypeError(f"{where}; a carry keeps its dtype: convert `init`, or what the step returns, with .to()")


__all__ = ["Recording", "repeat"]
