"""Looking for NaN and infinity where they are made, in code that is not compiled and at places of the user's choice.

A compiled step looks by itself (see `pullback.compile`). Elsewhere `detect_anomaly` looks at what is computed inside of
it, in the forward pass and in the backward pass, and names the operation as a compiled step does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ContextDecorator
from types import TracebackType
from typing import TypeVar

import numpy as np

from ..diagnosis import VALUE, Root, diagnose
from ..errors import NonFiniteError, TraceError
from ..graph.node import Graph, Node, reachable
from ..graph.types import to_carrier
from ..ops.primitive import MODE, user_source
from ..runtime import engine
from ..runtime.buffers import Buffer
from .handle import STATE, Handle, materialize

T = TypeVar("T", bound=Handle)


def check_numerics(tensor: T, message: str = "") -> T:
    """The tensor itself; NonFiniteError, which says `message`, where it has a NaN or an infinity.

    In a compiled step, which then changes nothing, this costs what its guard does: the tensor is looked at in the pass
    that makes it. Elsewhere the tensor is computed at once. In the body of a loop and under vmap there are no values to
    look at, and TraceError is raised.

    >>> pb.check_numerics(pb.tensor([1.0, 2.0]).log(), "the scores").sum().item() < 1
    True
    """
    if not isinstance(tensor, Handle):
        raise TypeError(f"check_numerics takes a tensor, got {type(tensor).__name__} (at {user_source()})")
    if STATE.loop is not None or STATE.example is not None:
        raise TraceError(
            f"check_numerics in the body of a scan or under vmap (at {user_source()}), which has no values of its own: "
            "return the tensor, and check it outside"
        )
    if not tensor.dtype.is_floating_point:
        return tensor
    if STATE.trace is not None:
        STATE.watch(tensor.node, "check", message=message)
    else:
        require_finite([Root(tensor.node, "check", message)])
    return tensor


def look(outputs: Sequence[Node], gradients: Sequence[Node | None]) -> None:
    """Compute outputs and gradients; NonFiniteError where one is not finite."""
    found = [Root(node, "gradient") for node in gradients if node is not None]
    require_finite([*(Root(node, "loss") for node in outputs), *found])


def require_finite(roots: Sequence[Root]) -> None:
    """Compute the roots, and raise NonFiniteError where one is not finite."""
    if all(root.node.buffer is not None and _is_finite(root.node, root.node.buffer) for root in roots):
        return
    graph, again = _from_the_leaves([root.node for root in roots])
    before, MODE.anomaly = MODE.anomaly, False
    try:
        pending = [root.node for root in roots if root.node.buffer is None]
        if pending:
            materialize(pending)
    finally:
        MODE.anomaly = before
    if not all(_is_finite(root.node, root.node.buffer) for root in roots):
        _raise(graph, [root._replace(node=node) for root, node in zip(roots, again, strict=True)])


def fault_of(root: Node) -> Callable[[], NonFiniteError | None]:
    """What says, once the root has been computed, why it is not finite; None where it is on the reference."""
    graph, roots = _from_the_leaves([root])
    return lambda: _found(graph, [Root(roots[0], "loss")])


def _from_the_leaves(nodes: Sequence[Node]) -> tuple[Graph, list[Node]]:
    """The graph of nodes as if nothing that still has its history had been computed."""
    new: dict[Node, Node] = {}
    for node in reachable(nodes, stop_at_buffers=False):
        inputs = tuple(new[i] for i in node.inputs)
        new[node] = node.copy(inputs) if inputs else node
    roots = [new[node] for node in nodes]
    return Graph.of(roots), roots


def _is_finite(node: Node, buffer: Buffer) -> bool:
    return not node.dtype.is_floating_point or bool(np.isfinite(to_carrier(buffer.array, node.dtype)).all())


def _raise(graph: Graph, roots: list[Root]) -> None:
    fault = _found(graph, roots)
    if fault is not None:
        raise fault


def _found(graph: Graph, roots: list[Root]) -> NonFiniteError | None:
    def value_of(node: Node) -> np.ndarray:
        return to_carrier(node.buffer.array, node.dtype).reshape(node.shape)

    return diagnose(graph, roots, value_of, lambda _: "", 0)


def _inspect(outputs: Sequence[Node], results: Sequence[Buffer]) -> None:
    """Look at what has just been computed, where `detect_anomaly` asks for it."""
    if not MODE.anomaly:
        return
    bad = [node for node, buffer in zip(outputs, results, strict=True) if not _is_finite(node, buffer)]
    if bad:
        graph, again = _from_the_leaves(bad)
        _raise(graph, [Root(node, VALUE) for node in again])


engine.INSPECTORS.append(_inspect)


class set_detect_anomaly(ContextDecorator):
    """Look for NaN and infinity (True) or not (False): at once, and back at the end if used as a context manager.

    `check_nan` is PyTorch's: with False only what would be computed is computed earlier, and nothing is looked at.
    """

    def __init__(self, mode: bool, check_nan: bool = True):
        self.mode = bool(mode) and bool(check_nan)
        self._before = [MODE.anomaly]
        MODE.anomaly = self.mode

    def __enter__(self) -> None:
        self._before.append(MODE.anomaly)
        MODE.anomaly = self.mode

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._before.pop()
        MODE.anomaly = self._before[-1] if self._before else False


class detect_anomaly(ContextDecorator):
    """Inside, and in a function that it decorates, NonFiniteError is raised where a NaN or an infinity is made.

    It is found in the forward pass when the value is computed, and by backward(), which then computes the loss and all
    gradients at once. The error names the operation that introduced it, with the line and the operands. Infinities that
    are put in on purpose, such as those of masks, are no fault. Compiled steps look by themselves, outside too.

    >>> x = pb.tensor([0.0, 1.0], requires_grad=True)
    >>> with pb.autograd.detect_anomaly():
    ...     x.sqrt().sum().backward()
    Traceback (most recent call last):
    pullback.errors.NonFiniteError: a gradient is not finite: division by zero...
    """

    def __init__(self, check_nan: bool = True):
        self.mode = bool(check_nan)
        self._before: list[bool] = []

    def __enter__(self) -> None:
        self._before.append(MODE.anomaly)
        MODE.anomaly = self.mode

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        MODE.anomaly = self._before.pop()


__all__ = ["check_numerics", "detect_anomaly", "look", "require_finite", "set_detect_anomaly"]
