"""`compile`: a whole training step, recorded once for each signature and run as one program afterwards.

While a step is recorded (`Trace`), every tensor from outside that it touches is captured: its handle stands for an
input of the program, and what the handle is bound to at the end is an output. So parameters, optimizer state and random
generators become state of the program without being named. Handles get their own nodes back when the recording ends,
whether it ends well or not.
"""

from __future__ import annotations

import functools
import warnings
from bisect import bisect_right
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from operator import is_
from sys import getrefcount
from types import SimpleNamespace
from typing import Any, NamedTuple
from weakref import ref

import numpy as np

from .errors import TraceError
from .graph.node import Graph, Node, next_serial
from .graph.types import float32
from .ops.primitive import MODE, buffer_node, input_node, user_source
from .runtime.buffers import Buffer
from .runtime.engine import count, without_values
from .runtime.program import Program
from .tensor import Tensor
from .tensor.creation import from_numpy
from .tensor.handle import RECEIVERS, STATE, Handle, materialize, outside_trace
from .trees import flatten, unflatten

#: from this many recordings of one function on, each further one warns
_MANY_VARIANTS = 16


@dataclass(eq=False)
class _Captured:
    """A tensor from outside. `owner`, if set, is the tensor whose `.grad` it was found as."""

    tensor: Handle
    original: Node
    node: Node
    owner: Handle | None


@dataclass(eq=False)
class _Grad:
    """The `.grad` of a tensor from outside: what it was, and whether the step looked at it before writing it."""

    tensor: Handle
    original: Tensor | None
    read: bool


@dataclass(eq=False)
class Trace:
    """A step being recorded."""

    first_serial: int
    inputs: list[Node] = field(default_factory=list)
    captured: dict[int, _Captured] = field(default_factory=dict)
    grads: dict[int, _Grad] = field(default_factory=dict)
    owners: dict[int, Handle] = field(default_factory=dict)
    guards: list[tuple[Callable[[], Hashable], Hashable]] = field(default_factory=list)
    callbacks: list[Callable[[], None]] = field(default_factory=list)
    #: objects whose guarded attributes the step has set itself
    decided: dict[int, object] = field(default_factory=dict)
    #: serial numbers of nodes that were made during the recording and are no part of it
    outside: list[tuple[int, int]] = field(default_factory=list)

    def is_foreign(self, node: Node) -> bool:
        """Whether the node was made outside of this recording."""
        serial = node.serial
        if serial < self.first_serial:
            return True
        place = bisect_right(self.outside, (serial, serial)) if self.outside else 0
        return any(first <= serial < last for first, last in self.outside[max(0, place - 1) : place + 1])

    def new_input(self, like: Node, requires_grad: bool) -> Node:
        """A further input of the program."""
        node = input_node(len(self.inputs), like.shape, like.dtype, requires_grad)
        self.inputs.append(node)
        return node

    def node_of(self, tensor: Handle) -> Node:
        """The node of a tensor inside this recording; captures tensors from outside."""
        if self.is_foreign(tensor._node):
            self._capture(tensor)
        return tensor._node

    def _capture(self, tensor: Handle) -> None:
        original = tensor._node
        if original.requires_grad and not tensor.is_leaf:
            raise TraceError(
                f"a compiled step uses a tensor that was computed outside of it with a history (at {user_source()}): "
                "its gradient could not leave the step. Compute it inside the step, or .detach() it."
            )
        if original.buffer is None:
            with outside_trace():
                materialize([original])
        node = self.new_input(original, original.requires_grad)
        if original.requires_grad:
            RECEIVERS[node] = ref(tensor)
        self.captured[id(tensor)] = _Captured(tensor, original, node, self.owners.get(id(tensor)))
        tensor._node = node

    def before_rebinding(self, tensor: Handle) -> None:
        """Note a tensor from outside that is about to be given a new value."""
        if self.is_foreign(tensor._node):
            self._capture(tensor)

    def before_reading_grad(self, tensor: Handle) -> None:
        """Note that the step depends on whether the tensor has a gradient, and maybe on the gradient."""
        if id(tensor) not in self.grads and (self.is_foreign(tensor._node) or id(tensor) in self.captured):
            self.grads[id(tensor)] = _Grad(tensor, tensor._grad, True)
            if tensor._grad is not None:
                self.owners[id(tensor._grad)] = tensor

    def before_writing_grad(self, tensor: Handle) -> None:
        """Note a `.grad` that is about to be replaced."""
        if self.is_foreign(tensor._node) or id(tensor) in self.captured:
            self.grads.setdefault(id(tensor), _Grad(tensor, tensor._grad, False))

    def guard(self, read: Callable[[], Hashable], about: object = None) -> Hashable:
        """The value of `read()`; the recording will be used again only while `read()` still gives it.

        Not so where the step has itself decided the value before it read it (see `decide`).
        """
        value = read()
        if about is None or id(about) not in self.decided:
            self.guards.append((read, value))
        return value

    def decide(self, about: object) -> None:
        """Note that from here on the step sets what guards about this object read."""
        self.decided[id(about)] = about

    def before_call(self, callback: Callable[[], None]) -> None:
        """Have `callback` run, outside of the program, before each run of it (once now)."""
        if callback not in self.callbacks:
            self.callbacks.append(callback)
            with outside_trace():
                callback()

    def restore(self) -> None:
        """Give every tensor from outside the node and the gradient that it had, and keep neither alive."""
        for captured in self.captured.values():
            captured.tensor._node = captured.original
            del captured.original, captured.node
        for grad in self.grads.values():
            grad.tensor._grad = grad.original
            del grad.original


class _Variant:
    """A recorded step: its program, and how to feed it and take in its results."""

    def __init__(self, trace: Trace, arguments: Sequence[tuple[int, Handle, Node]], result: Any):
        self.guards, self.callbacks = trace.guards, trace.callbacks
        self.arguments = [position for position, _, _ in arguments]
        self.captured = list(trace.captured.values())
        self.grad_reads = [(g.tensor, g.original is None) for g in trace.grads.values() if g.read]
        leaves, self.result_shape = flatten(result)
        outputs: list[Node] = []

        def output(tensor: Handle) -> int:
            outputs.append(trace.node_of(tensor))
            return len(outputs) - 1

        # state first: what a step leaves behind is written last, whatever else it computes (see the compiler's order)
        self.states = [(c, output(c.tensor)) for c in self.captured if c.tensor._node is not c.node]
        self.changed_arguments = [
            (position, output(proxy)) for position, proxy, node in arguments if proxy._node is not node
        ]
        self.argument_grads = [
            (position, output(proxy._grad)) for position, proxy, _ in arguments if proxy._grad is not None
        ]
        self.new_grads: list[tuple[Handle, int | None]] = [
            (g.tensor, None if g.tensor._grad is None else output(g.tensor._grad))
            for g in trace.grads.values()
            if g.tensor._grad is not g.original
        ]
        self.results = [(output(leaf), leaf.shape) if isinstance(leaf, Handle) else (None, leaf) for leaf in leaves]
        self.outputs = outputs
        self.signature = [(c.node.shape, c.node.dtype, c.node.requires_grad) for c in self.captured]
        places = {id(node): position for position, node in enumerate(trace.inputs)}
        self.argument_places = [places[id(node)] for _, _, node in arguments]
        self.captured_places = [places[id(c.node)] for c in self.captured]
        graph = Graph.of(outputs)
        # tensors made from data inside the step: their values are part of the recording
        constants = [node for node in graph.nodes if node.buffer is not None]
        self.constants = [node.buffer for node in constants]
        graph, extra = without_values(graph, constants, first=len(trace.inputs))
        self.input_count = len(trace.inputs)
        aliases = {place: places[id(c.node)] for c, place in self.states}
        self.program = Program(graph, [*trace.inputs, *extra], aliases)
        #: gradients that the last run made, by output
        self.held: dict[int, Tensor] = {}
        self.last_nodes: list[Node] = []
        self.plain_tensors = [c.tensor for c in self.captured]
        self.owned = any(c.owner is not None for c in self.captured)
        self.settled: _Settled | None = None
        #: outputs that have new memory at each run, because they are handed to the caller
        self.always_fresh = {place for place, _ in self.results if place is not None}
        self.always_fresh |= {place for _, place in [*self.changed_arguments, *self.argument_grads]}
        positions = {id(c): position for position, c in enumerate(self.captured)}
        self.state_sources = [(place, positions[id(c)]) for c, place in self.states]

    def fits(self) -> bool:
        """Whether what the recording depended on is still so."""
        if any(read() != value for read, value in self.guards):
            return False
        if any((tensor._grad is None) is not was_none for tensor, was_none in self.grad_reads):
            return False
        nodes = [tensor._node for tensor in self._tensors()]
        if nodes == self.last_nodes:
            return True
        return all(
            node is not None and node.shape == shape and node.dtype is dtype and node.requires_grad is requires_grad
            for node, (shape, dtype, requires_grad) in zip(nodes, self.signature, strict=True)
        )

    def _tensors(self) -> list[Any]:
        """The captured tensors as they are now; those that were found as a gradient are looked up again."""
        if not self.owned:
            return self.plain_tensors
        return [_found(c) for c in self.captured]

    def run(self, arguments: list[Handle]) -> Any:
        """One step."""
        for callback in self.callbacks:
            callback()
        settled, self.settled = self.settled, None
        if settled is not None and settled.holds():
            inputs, outputs = list(settled.inputs), list(settled.outputs)
        else:
            # both refer to nodes or buffers, which would then seem to be needed by others
            settled, self.last_nodes = None, []
            tensors = self._tensors()
            outputs = self._in_place_outputs(tensors)
            inputs = [None] * self.input_count + self.constants
            for place, tensor in zip(self.captured_places, tensors, strict=True):
                inputs[place] = tensor._node.buffer or tensor._buffer()
        for place, position in zip(self.argument_places, self.arguments, strict=True):
            inputs[place] = arguments[position]._buffer()
        fresh = {place for place, buffer in enumerate(outputs) if buffer is None}
        for place in fresh:
            node = self.outputs[place]
            outputs[place] = Buffer.empty(count(node), node.dtype)
        self.program.run(inputs, outputs)  # type: ignore[arg-type]
        result = self._take_in(arguments, outputs, fresh)
        self.last_nodes = [tensor._node for tensor in self._tensors()]
        if settled is None and fresh <= self.always_fresh:
            settled = self._settle(inputs, outputs)
            outputs.clear()
            if settled is not None:
                settled.counts = settled.count()
        self.settled = settled
        return result

    def _settle(self, inputs: list[Buffer], outputs: list[Buffer | None]) -> _Settled | None:
        """What can be kept for the next run, all states having been written in place just now."""
        if self.owned:
            return None
        states = [c.tensor for c, _ in self.states]
        receivers = [tensor for tensor, place in self.new_grads if place is not None]
        kept = [None if place in self.always_fresh else buffer for place, buffer in enumerate(outputs)]
        return _Settled(list(self.plain_tensors), states, receivers, inputs, kept)

    def _in_place_outputs(self, tensors: list[Any]) -> list[Buffer | None]:
        """The buffers that outputs may be written into because nobody but their tensor would see it; None elsewhere."""
        outputs: list[Buffer | None] = [None] * len(self.outputs)
        for place, source in self.state_sources:
            if _is_alone(tensors[source]):
                outputs[place] = tensors[source]._node.buffer
        held = self.held
        for tensor, grad_place in self.new_grads:
            # a gradient that this program made, which still is the tensor's and which nobody else holds
            if grad_place is None or grad_place not in held or held[grad_place] is not tensor._grad:
                continue
            if getrefcount(held[grad_place]) <= _REFERENCES.gradient and _is_alone(held[grad_place]):
                outputs[grad_place] = held[grad_place]._node.buffer
        return outputs

    def _leaf(self, outputs: list[Buffer | None], place: int) -> Node:
        like = self.outputs[place]
        return buffer_node(outputs[place], like.shape, like.dtype)

    def _take_in(self, arguments: list[Handle], outputs: list[Buffer | None], fresh: set[int]) -> Any:
        """Bind tensors to their new values; what was not written to fresh memory is theirs already."""
        for captured, place in self.states:
            if place in fresh:
                tensor = captured.tensor if captured.owner is None else captured.owner._grad
                tensor._set_leaf(self._leaf(outputs, place), tensor.requires_grad)  # type: ignore[union-attr]
        for position, place in self.changed_arguments:
            arguments[position]._set_leaf(self._leaf(outputs, place), arguments[position].requires_grad)
        for position, place in self.argument_grads:
            grad = Tensor(self._leaf(outputs, place))
            before = arguments[position].grad
            arguments[position].grad = grad if before is None else before + grad
        for tensor, grad_place in self.new_grads:
            if grad_place is None:
                tensor._grad = None
            elif grad_place in fresh:
                tensor._grad = self.held[grad_place] = Tensor(self._leaf(outputs, grad_place))
        leaves = [constant if place is None else Tensor(self._leaf(outputs, place)) for place, constant in self.results]
        return unflatten(self.result_shape, leaves)


class _Settled:
    """The buffers of a run whose states were all written in place, for as long as nothing about them changes.

    Whether somebody new refers to one of them is told by sums of reference counts, one for each kind, because asking
    one by one would take longer than a small step does.
    """

    def __init__(
        self, captured: list[Handle], states: list[Handle], receivers: list[Handle], inputs: list[Buffer],
        outputs: list[Buffer | None],
    ):  # fmt: skip
        self.captured, self.receivers = captured, receivers
        self.inputs, self.outputs = inputs, outputs
        self.all_nodes = [tensor._node for tensor in captured]
        self.grads = [tensor._grad for tensor in receivers]
        self.nodes = [tensor._node for tensor in [*states, *self.grads]]  # type: ignore[union-attr]
        self.buffers = [node.buffer for node in self.nodes]
        #: what `count` gave when nobody else referred to anything
        self.counts = (0, 0, 0)

    def count(self) -> tuple[int, int, int]:
        """The references to all nodes, to all buffers, and to all gradients."""
        return sum(map(getrefcount, self.nodes)), sum(map(getrefcount, self.buffers)), sum(map(getrefcount, self.grads))

    def holds(self) -> bool:
        """Whether every tensor has the value that the last run gave it, and nobody else has come to refer to it."""
        return (
            all(map(is_, [tensor._node for tensor in self.captured], self.all_nodes))
            and all(map(is_, [tensor._grad for tensor in self.receivers], self.grads))
            and self.count() == self.counts
            and not any(buffer.shared for buffer in self.buffers)
        )


def _found(captured: _Captured) -> Any:
    """The captured tensor as it is now; one without a node where it was a gradient that is gone."""
    if captured.owner is None:
        return captured.tensor
    return _NO_GRADIENT if captured.owner._grad is None else captured.owner._grad


class _References(NamedTuple):
    """What `getrefcount` says of a node and of a buffer that one tensor alone holds, and of a tensor that is held as a
    gradient and by a recording, and by nobody else."""

    node: int
    buffer: int
    gradient: int


def _is_alone(tensor: Handle) -> bool:
    """Whether nobody but `tensor` would see a write into its memory: no pending graph, no array, no other tensor.

    Told by counting references, so that replacing a value costs nothing where its old one is not needed.
    """
    return (
        tensor._node.buffer is not None
        and not tensor._node.buffer.shared
        and getrefcount(tensor._node) <= _REFERENCES.node
        and getrefcount(tensor._node.buffer) <= _REFERENCES.buffer
    )


def _count_references() -> _References:
    """Counted here, because interpreters differ in how many references an expression itself makes."""
    tensor = Tensor(buffer_node(Buffer.zeros(1, float32), (1,), float32))
    node, buffer = getrefcount(tensor._node), getrefcount(tensor._node.buffer)
    held, other = {0: tensor}, Tensor(tensor._node)
    other._grad = tensor
    del tensor
    return _References(node, buffer, getrefcount(held[0]))


_REFERENCES = _count_references()
_NO_GRADIENT = SimpleNamespace(_node=None)


class CompiledStep:
    """A function that runs as one native program. Made by `pullback.compile`."""

    def __init__(self, function: Callable[..., Any]):
        functools.update_wrapper(self, function)
        self.function = function
        self._variants: dict[Hashable, list[_Variant]] = {}
        self._last: _Variant | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if STATE.trace is not None:
            return self.function(*args, **kwargs)
        leaves, shape = flatten((args, kwargs))
        leaves = [from_numpy(leaf) if isinstance(leaf, np.ndarray) else leaf for leaf in leaves]
        key = (shape, MODE.grad, *map(_signature, leaves))
        for variant in self._variants.get(key, ()):
            if variant.fits():
                break
        else:
            variant = self._record(key, leaves, shape)
        self._last = variant
        return variant.run(leaves)

    @property
    def program(self) -> Program:
        """The program of the last call."""
        if self._last is None:
            raise TraceError("the step has not been called yet, so there is no program")
        return self._last.program

    def _record(self, key: Hashable, leaves: list[Any], shape: Any) -> _Variant:
        variants = self._variants.setdefault(key, [])
        total = sum(map(len, self._variants.values()))
        if total >= _MANY_VARIANTS and total % _MANY_VARIANTS == 0:
            warnings.warn(
                f"{self.function.__name__} has been compiled {total} times: each shape, dtype and Python value of an "
                "argument makes a program of its own. Pass changing numbers as tensors, and pad changing shapes.",
                stacklevel=4,
            )
        for leaf in leaves:
            if isinstance(leaf, Handle):
                leaf._buffer()
        trace = Trace(first_serial=next_serial())
        proxies, arguments = list(leaves), []
        STATE.trace = trace
        try:
            for position, leaf in enumerate(leaves):
                if isinstance(leaf, Handle):
                    node = trace.new_input(leaf._node, leaf.requires_grad)
                    proxies[position] = proxy = Tensor(node)
                    if leaf.requires_grad:
                        RECEIVERS[node] = ref(proxy)
                    arguments.append((position, proxy, node))
            args, kwargs = unflatten(shape, proxies)
            variant = _Variant(trace, arguments, self.function(*args, **kwargs))
        finally:
            STATE.trace = None
            trace.restore()
        variants.append(variant)
        return variant


def _signature(leaf: Any) -> Hashable:
    """What of an argument a recording depends on."""
    if isinstance(leaf, Handle):
        return leaf.shape, leaf.dtype, leaf.requires_grad
    try:
        hash(leaf)
    except TypeError:
        raise TraceError(
            f"an argument of a compiled step is a {type(leaf).__name__}, which is neither a tensor, nor a container of "
            "them, nor hashable. Pass tensors, and keep other objects in the function's closure."
        ) from None
    return type(leaf), leaf


def compile(function: Callable[..., Any] | None = None) -> Any:
    """Make `function`, such as a whole training step, one native program; also usable as a decorator.

    The function is recorded at the first call with new shapes and dtypes of its arguments, and run as recorded after
    that. Tensors that it touches (parameters, optimizer state, random generators, `.grad`) are taken as they are at
    each call and hold their new values afterwards. Python code in it runs only while recording: values of tensors are
    not to be had there (`item()`, `if tensor:`), and Python numbers it uses are part of the recording. Arguments other
    than tensors and containers of them must be hashable, and each value makes a recording of its own.

    >>> w = pb.ones(3, requires_grad=True)
    >>> @pb.compile
    ... def step(x):
    ...     w.grad = None
    ...     loss = (w * x).sum()
    ...     loss.backward()
    ...     with pb.no_grad():
    ...         w.sub_(0.125 * w.grad)
    ...     return loss
    >>> step(pb.ones(3)).item(), step(pb.ones(3)).item()
    (3.0, 2.625)
    """
    if function is None:
        return compile
    if not callable(function):
        raise TypeError(f"compile takes a function, got {function!r}")
    return CompiledStep(function)
