"""What the scale of a loss is to blame for, and what no scale mends.

A step whose scaled gradients are not finite is held by the guard at first, and so changes nothing. It is run again
with a scale of 1, and then with a very small one, in the same program, since the scale is one of its inputs. Where that
makes all finite, the step is run once more as one that its scaler leaves out, which lowers the scale. Where it does
not, a fault of the backward pass is told: 0/0 stays 0/0 at any scale.

Of gradients that are made here and divided by the scale elsewhere the same holds, but for what follows: they are let
through, for the scaler to see. What came into the program not finite is the scaler's business alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from ..graph.node import Node, reachable
from ..graph.types import DType, float32, to_carrier
from ..ops.elementwise import add, where
from ..ops.primitive import BUFFER, constant
from ..runtime.buffers import Buffer
from .settled import Memory
from .trace import Trace, Watched

#: at the first the fault is told, if it is one. The other is for gradients that overflow at a scale of 1 and would not
#: at a smaller one: rounded to 0 they are finite
_TRIED = (1.0, 1e-15)


class Scaling:
    """The scalers of a recording, and the two numbers by which it is told what to do about gradients that overflow."""

    def __init__(self, trace: Trace):
        scaled = trace.scaled
        self.scales = list({id(each.scale): each.scale for each in scaled}.values())
        self.sound = [each.sound for each in scaled]
        #: what is not looked at for itself, but by the scalers
        self.watched = [watched for each in scaled for watched in each.gradients]
        #: are added to the guard's total where a scaler leaves the step out, and, to try a scale, to what it is told by
        self.waits, self.holds = _Number(math.inf), _Number(0.0)
        #: of `sound` and the numbers what they are in the program's graph
        self._became: dict[Node, Node] = {}
        given = {captured.node for captured in trace.captured.values() if captured.owner is not None}
        #: which of the program's inputs are gradients that were made elsewhere
        self._given = [(place, node.dtype) for place, node in enumerate(trace.inputs) if node in given]

    @property
    def nodes(self) -> list[Node]:
        """What the program's graph is to have for it."""
        return [*self.sound, self.waits.node, self.holds.node, *(watched.node for watched in self.watched)]

    def enter(self, became: Sequence[Node]) -> list[Watched]:
        """Take what the nodes are in the program's graph; gives the gradients as they are there."""
        self._became = dict(zip(self.nodes, became, strict=True))
        return [watched._replace(node=self._became[watched.node]) for watched in self.watched]

    def counted(self, total: Node) -> Node:
        """The total, infinite where a scaler leaves the step out and it has not been told that it may."""
        waits = self._became[self.waits.node]
        for sound in self.sound:
            total = add(total, where(self._became[sound], constant(0.0, float32), waits))
        return total

    def held(self, total: Node) -> Node:
        """What the guard compares: too much while a scale is tried."""
        return add(total, self._became[self.holds.node])

    def mends(self, run: Callable[[], float], limit: float, inputs: Sequence[Memory | None]) -> bool:
        """Whether `run`, which gives the total and changes nothing meanwhile, is below the limit at another scale; so
        it is taken to be where gradients among the `inputs` are not finite: what they were made of is not known.
        """
        if any(not _is_finite(inputs[place], dtype) for place, dtype in self._given):
            return True
        with self.holds.being(math.inf):
            for scale in _TRIED:
                with self.at(scale):
                    if run() < limit:
                        return True
        return False

    @contextmanager
    def at(self, scale: float) -> Iterator[None]:
        """Meanwhile each scale is this number."""
        arrays = [tensor._buffer().array for tensor in self.scales]
        before = [array.item(0) for array in arrays]
        for array in arrays:
            array[0] = scale
        try:
            yield
        finally:
            for array, number in zip(arrays, before, strict=True):
                array[0] = number


class _Number:
    """A number that the program reads and the host sets."""

    def __init__(self, value: float):
        buffer = Buffer.empty(1, float32)
        self.array: np.ndarray = buffer.array
        self.array[0] = value
        self.node = Node(BUFFER, (), {"shape": (), "dtype": float32}, (), float32, False, None, buffer)

    @contextmanager
    def being(self, value: float) -> Iterator[None]:
        before = self.array.item(0)
        self.array[0] = value
        try:
            yield
        finally:
            self.array[0] = before


def _is_finite(memory: Memory | None, dtype: DType) -> bool:
    assert memory is not None
    return not dtype.is_floating_point or bool(np.isfinite(to_carrier(memory.array, dtype)).all())


def made_of(nodes: Iterable[Node], results: Sequence[Node]) -> set[Node]:
    """All that the results are made of and that is itself made of one of the nodes, which are among it."""
    found = set(nodes)
    for node in reachable(results):
        if any(i in found for i in node.inputs):
            found.add(node)
    return found


__all__ = ["Scaling", "made_of"]
