"""Looking for NaN and infinity where they are made, in code that is not compiled and at places of the user's choice.

A compiled step looks by itself (see `pullback.compile`). Elsewhere `detect_anomaly` looks at what is computed inside of
it, in the forward pass and in the backward pass, and names the operation as a compiled step does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import ContextDecorator, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakSet

import numpy as np

from ..diagnosis import VALUE, Root, diagnose
from ..errors import NonFiniteError, PullbackError
from ..graph.node import Graph, Node, ancestors, next_serial, reachable
from ..graph.types import to_carrier
from ..ops.elementwise import absolute
from ..ops.primitive import MODE, MODULES, grad_mode, user_source
from ..ops.reduction import reduce_max
from ..runtime import engine
from ..runtime.buffers import Buffer
from . import pending
from .handle import Handle
from .state import STATE, UNSCALED

if TYPE_CHECKING:
    from .examples import Example
    from .loops import Recording

T = TypeVar("T", bound=Handle)


def check_numerics(tensor: T, message: str = "") -> T:
    """The tensor itself; NonFiniteError, which says `message`, where it has a NaN or an infinity.

    In a compiled step, which then changes nothing, this costs what its guard does: the tensor is looked at in the pass
    that makes it. Elsewhere the tensor is computed at once. In the body of a scan, and under vmap, it is looked at in
    all steps, or all examples, when the loop or the batch has been recorded; `time` of the error is the step.

    >>> pb.check_numerics(pb.tensor([1.0, 2.0]).log(), "the scores").sum().item() < 1
    True
    """
    if not isinstance(tensor, Handle):
        raise TypeError(f"check_numerics takes a tensor, got {type(tensor).__name__} (at {user_source()})")
    if tensor.dtype.is_floating_point and 0 not in tensor.shape:
        body = _body()
        if body is not None:
            with grad_mode(False):
                body.checks.append((_largest(tensor.node), message))
        else:
            check(tensor.node, message)
    return tensor


def check(node: Node, message: str) -> None:
    """Have a value looked at that is of no body any more, or is of the next one around it."""
    body = _body()
    if body is not None:
        body.checks.append((node, message))
    elif STATE.trace is not None:
        STATE.watch(node, "check", message=message)
    else:
        require_finite([Root(node, "check", message)])


def _body() -> Recording | Example | None:
    """What is being recorded to be run many times, the innermost: the body of a loop or the example of a batch."""
    loop, example = STATE.loop, STATE.example
    while loop is not None and loop.is_of_examples:
        loop = loop.outer
    if loop is None or example is None:
        return loop or example
    return loop if loop.first > example.first else example


def _largest(x: Node) -> Node:
    """The largest magnitude, which is NaN or infinite where an element is: one number for each step, or example."""
    return reduce_max(absolute(x), tuple(range(len(x.shape))))


def look(outputs: Sequence[Node], gradients: Sequence[Node | None]) -> None:
    """Compute outputs and gradients; NonFiniteError where one is not finite, or what was computed along with them.

    A GradScaler's scale may be too large at first, and is lowered until it is not. So of scaled losses it is looked at
    what they were before, and gradients that overflow, at a scale above 1, are excused along with what is made of them.
    """
    found = [node for node in gradients if node is not None]
    scaled = _scaled(outputs)
    losses = list(scaled) or outputs
    with _looking_later() as along:
        fault = _fault_of([*(Root(node, "loss") for node in losses), *(Root(node, "gradient") for node in found)])
    is_excused = fault is not None and scaled and fault.phase == "backward" and fault.how.startswith("overflow")
    if fault is not None:
        if not is_excused or not all(map(_is_known_finite, losses)) or not any(map(_is_above_one, scaled.values())):
            raise fault
        _EXCUSED.update(node.buffer for node in found if not _is_known_finite(node))
    for bad in along:
        of_values = bad.fault({*outputs, *_TOLD} if scaled else _TOLD)
        if of_values is not None and not (is_excused and of_values.phase == "backward"):
            raise of_values


def _scaled(outputs: Sequence[Node]) -> dict[Node, Node]:
    """The losses in the outputs that a GradScaler has multiplied, as they were before, and the scales."""
    return dict(UNSCALED[n] for n in ancestors(outputs, stop_at_buffers=False) if n in UNSCALED) if UNSCALED else {}


def _is_above_one(scale: Node) -> bool:
    return scale.buffer is not None and scale.buffer.array.item(0) > 1.0


def require_finite(roots: Sequence[Root]) -> None:
    """Compute the roots, and raise NonFiniteError where one is not finite."""
    with _looking_later() as along:
        fault = _fault_of(roots)
    for found in (fault, *(bad.fault(_TOLD) for bad in along)):
        if found is not None:
            raise found


class _Bad:
    """Values that are not finite, with their history, which they lose when they are settled."""

    def __init__(self, nodes: Sequence[Node]):
        self.nodes = nodes
        self.graph, self.again = _from_the_leaves(nodes)

    def fault(self, told: Container[Node]) -> NonFiniteError | None:
        """What went wrong in those that are not `told`; None where nothing did."""
        roots = [Root(node, VALUE) for of, node in zip(self.nodes, self.again, strict=True) if of not in told]
        found = _found(self.graph, roots) if roots else None
        if found is not None:
            _TOLD.update(self.nodes)
        return found


class _Later(threading.local):
    """What was computed and is not finite, where that is to be looked at later; None where at once."""

    bad: list[_Bad] | None = None


_LATER = _Later()


@contextmanager
def _looking_later() -> Iterator[list[_Bad]]:
    """Gives what is computed inside, if anomalies are looked for, and is not finite, for a look afterwards."""
    before, _LATER.bad = _LATER.bad, []
    try:
        yield _LATER.bad
    finally:
        _LATER.bad = before


def _fault_of(roots: Sequence[Root]) -> NonFiniteError | None:
    """Compute the roots; what went wrong where one is not finite."""
    if all(root.node.buffer is not None and _is_known_finite(root.node) for root in roots):
        return None
    graph, again = _from_the_leaves([root.node for root in roots])
    missing = [root.node for root in roots if root.node.buffer is None]
    if missing:
        pending.materialize(missing)
    if all(_is_known_finite(root.node) for root in roots):
        return None
    _TOLD.update(root.node for root in roots if not _is_known_finite(root.node))
    return _found(graph, [root._replace(node=node) for root, node in zip(roots, again, strict=True)])


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


def _is_known_finite(node: Node) -> bool:
    """The same of a node that has been computed."""
    return _is_finite(node, node.buffer)


def _found(graph: Graph, roots: list[Root]) -> NonFiniteError | None:
    def value_of(node: Node) -> np.ndarray:
        return to_carrier(node.buffer.array, node.dtype).reshape(node.shape)

    names = _names_of({node.buffer for node in graph.nodes if node.buffer is not None and not node.inputs})
    return diagnose(graph, roots, value_of, lambda node: names.get(node.buffer, ""), 0)


def _names_of(buffers: set[Buffer]) -> dict[Buffer | None, str]:
    """What the tensors of modules are called that have these values, in the outermost module that was called."""
    names: dict[Buffer | None, str] = {}
    for module in list(MODULES.values()):
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            buffer = tensor._node.buffer
            if buffer in buffers and len(name) > len(names.get(buffer, "")):
                names[buffer] = name
    return names


def _inspect(outputs: Sequence[Node], results: Sequence[Buffer]) -> None:
    """Look at what has just been computed, where `detect_anomaly` asks for it."""
    if not MODE.anomaly:
        return
    bad = {node: buffer for node, buffer in zip(outputs, results, strict=True) if not _is_finite(node, buffer)}
    if bad and _EXCUSED:
        excused = [node for node in bad if any(n.buffer in _EXCUSED for n in ancestors([node]) if n.buffer is not None)]
        _EXCUSED.update(map(bad.pop, excused))
    if not bad:
        return
    found = _Bad(list(bad))
    if _LATER.bad is not None:
        _LATER.bad.append(found)
        return
    fault = found.fault(_TOLD)
    if fault is not None:
        raise fault


engine.INSPECTORS.append(_inspect)

#: values that are not finite because a GradScaler's scale is too large, and what was made of them
_EXCUSED: WeakSet[Buffer] = WeakSet()
#: the nodes that were found not to be finite: once is enough
_TOLD: WeakSet[Node] = WeakSet()


def _switch(mode: bool, ends: bool = False) -> None:
    """Look from here on, or look no more. What was recorded while it was looked at, and has no values yet, is computed
    and looked at before that ends, and where a region `ends` in another.
    """
    before, MODE.anomaly = MODE.anomaly, mode
    if mode and not before:
        MODE.anomaly_since = next_serial()
    elif before and (ends or not mode) and STATE.trace is None and STATE.loop is None and STATE.example is None:
        MODE.anomaly = True
        try:
            _settle()
        finally:
            MODE.anomaly = mode


def _leave(mode: bool, error: BaseException | None) -> None:
    """End a region; an exception that is on its way is told, and no other."""
    if error is None:
        _switch(mode, ends=True)
    else:
        MODE.anomaly = mode


def _settle() -> None:
    for node in pending.since(MODE.anomaly_since):
        try:
            if node.buffer is None and not (_TOLD and any(n in _TOLD for n in ancestors([node], False))):
                pending.materialize([node])
        except NonFiniteError:
            raise
        except PullbackError:
            continue  # a wrong index, or what belongs to a loop: told to who asks for the value, if anybody does


class set_detect_anomaly(ContextDecorator):
    """Look for NaN and infinity (True) or not (False): at once, and back at the end if used as a context manager.

    `check_nan` is PyTorch's: with False only what would be computed is computed earlier, and nothing is looked at.
    """

    def __init__(self, mode: bool, check_nan: bool = True):
        self.mode = bool(mode) and bool(check_nan)
        self._before = [MODE.anomaly]
        _switch(self.mode)

    def __enter__(self) -> None:
        self._before.append(MODE.anomaly)
        _switch(self.mode)

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._before.pop()
        _leave(self._before[-1] if self._before else False, error)


class detect_anomaly(ContextDecorator):
    """Inside, and in a function that it decorates, NonFiniteError is raised where a NaN or an infinity is made.

    It is found in the forward pass when the value is computed, which is at the end of the region at the latest, and by
    backward(), which then computes the loss and all gradients at once. The error names the operation that introduced
    it, with the line and the operands. Infinities that are put in on purpose, such as those of masks, are no fault, nor
    are gradients that overflow because of a GradScaler's scale, which leaves out the step and lowers the scale.
    Compiled steps look by themselves, outside too; inside, a compiled function that neither calls backward() nor
    changes parameters is called as the function that it was made of, and so looked at.

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
        _switch(self.mode)

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        _leave(self._before.pop(), error)


__all__ = ["check", "check_numerics", "detect_anomaly", "look", "require_finite", "set_detect_anomaly"]
