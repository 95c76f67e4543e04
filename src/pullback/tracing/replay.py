"""A recorded step, run again: its program, how it is fed, and how its results are taken in.

State is written over its old value where nobody else would see that, and into new memory where somebody would.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter, is_
from sys import getrefcount
from types import SimpleNamespace
from typing import Any, NamedTuple
from weakref import ref

from ..graph.node import Graph, Node, Shape
from ..graph.types import DType, float32
from ..ops.primitive import BUFFER, buffer_node
from ..runtime.buffers import Buffer, times_shared
from ..runtime.engine import count, without_values
from ..runtime.program import Program
from ..tensor import Tensor
from ..tensor.handle import Handle, structure_changes
from ..timeline import span
from ..trees import flatten, unflatten
from .deferred import Deferred, defer
from .trace import Captured, Trace

#: what an attempt gives where the recording does not fit the call
MISFIT = object()


class _Output(NamedTuple):
    """What is known of an output beforehand."""

    shape: Shape
    dtype: DType
    elements: int


class Replay:
    """A recorded step: its program, and how to feed it and take in its results."""

    def __init__(
        self, trace: Trace, arguments: Sequence[tuple[int, Handle, Node]], result: Any, bound: dict[int, Handle]
    ):  # fmt: skip
        """`bound` are the arguments, by place, that must be these very tensors."""
        self.bound = bound
        self.stores, self.changes = trace.stores, structure_changes()
        self.guards, self.callbacks = trace.guards, trace.callbacks
        self.arguments = [position for position, _, _ in arguments]
        leaves, self.result_shape = flatten(result)
        # what is handed out untouched is captured too, before the captured tensors are counted
        for handed in [*leaves, *(g.tensor._grad for g in trace.grads.values() if g.tensor._grad is not g.original)]:
            if isinstance(handed, Handle):
                trace.node_of(handed)
        self.captured = list(trace.captured.values())
        self.grad_reads = [(g.tensor, g.original is None) for g in trace.grads.values() if g.read]
        self.owned = any(c.owner is not None for c in self.captured)
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
        self.writes = trace.surroundings.finish(output) if trace.surroundings is not None else []
        self._defer(outputs)
        self.results = [(output(leaf), leaf.shape) if isinstance(leaf, Handle) else (None, leaf) for leaf in leaves]
        self.holders = trace.surroundings.holders if trace.surroundings is not None else []
        self.attributes = trace.surroundings.attributes if trace.surroundings is not None else []
        self.outputs = [_Output(node.shape, node.dtype, count(node)) for node in outputs]
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
        with span("compile"):
            self.program = Program(graph, [*trace.inputs, *extra], aliases)
        #: gradients that the last run made, by output; and of those that are left uncomputed what they are made of
        self.held: dict[int, Tensor] = {}
        self.bases: dict[int, Node] = {}
        self.tops: dict[int, ref[Node]] = {}
        self.last_nodes: list[Node] = []
        self.captured_ids = trace.captured.keys() | trace.grads.keys()
        self.plain_tensors = [c.tensor for c in self.captured]
        self.settled: _Settled | None = None
        #: outputs that have new memory at each run, because they are handed to the caller
        self.always_fresh = {place for place, _ in self.results if place is not None}
        self.always_fresh |= {place for write in self.writes for place, _ in write.leaves if place is not None}
        self.always_fresh |= {place for _, place in [*self.changed_arguments, *self.argument_grads]}
        self.argument_pairs = list(zip(self.argument_places, self.arguments, strict=True))
        #: the places of inputs and outputs that move from run to run where all else is settled
        self.moved = (self.argument_places, self.always_fresh)
        self.cleared = [tensor for tensor, place in self.new_grads if place is None]
        positions = {id(c): position for position, c in enumerate(self.captured)}
        self.state_sources = [(place, positions[id(c)]) for c, place in self.states]

    def _defer(self, outputs: list[Node]) -> None:
        """Have the program give what gradients are made of where they can be left uncomputed."""
        #: how to make the gradient from the output, by its place, and the places of the numbers that it takes
        self.deferred: dict[int, Deferred] = {}
        self.numbers: dict[Node, int] = {}
        if self.owned:  # the next run will look at the gradients
            return
        for _, place in self.new_grads:
            found = None if place is None else defer(outputs[place])
            if place is not None and found is not None:
                self.deferred[place], outputs[place] = found, found.base
                for number in found.numbers:
                    if number not in self.numbers:
                        self.numbers[number] = len(outputs)
                        outputs.append(number)

    def attempt(self, arguments: list[Any]) -> Any:
        """One step, or MISFIT, and nothing done, where the recording is not for this call."""
        if not self._is_current(arguments):
            return MISFIT
        for callback in self.callbacks:
            callback()
        # what is settled refers to nodes and buffers: a run that fails leaves nothing settled
        settled, self.settled = self.settled, None
        if settled is not None and settled.holds():
            return self._run_settled(arguments, settled)
        del settled
        if not self._fits():
            return MISFIT
        return self.run(arguments)

    def _is_current(self, arguments: list[Any]) -> bool:
        """Whether what the recording depended on is still so, arguments that are its own tensors included."""
        if self.bound and any(arguments[place] is not tensor for place, tensor in self.bound.items()):
            return False
        if self.arguments and any(id(arguments[place]) in self.captured_ids for place in self.arguments):
            return False
        if structure_changes() != self.changes:
            if not all(_is_unchanged(store, kept) for store, kept in self.stores):
                return False
            if not all(holder.holds() for holder in self.attributes):
                return False
            self.changes = structure_changes()
        for holder in self.holders:
            if not holder.holds():
                return False
        for read, value in self.guards:
            if read() != value:
                return False
        return all((tensor._grad is None) is was_none for tensor, was_none in self.grad_reads)

    def _fits(self) -> bool:
        """Whether the captured tensors are of the shapes and dtypes that were recorded."""
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

    def _run_settled(self, arguments: list[Handle], settled: _Settled) -> Any:
        """One step on the memory of the step before, of which nobody else has come to hold anything."""
        inputs, outputs = settled.inputs, settled.outputs
        self._feed(arguments, inputs, outputs, self.always_fresh)
        self.program.run(inputs, outputs, self.moved)  # type: ignore[arg-type]
        result = self._take_in(arguments, outputs)
        settled.forget(self.argument_places, self.always_fresh)
        self.settled = settled
        return result

    def _feed(
        self, arguments: list[Handle], inputs: list[Buffer | None], outputs: list[Buffer | None], fresh: set[int]
    ) -> None:
        """Enter the arguments' buffers among the inputs, and new memory among the outputs at the places `fresh`."""
        for place, position in self.argument_pairs:
            inputs[place] = arguments[position]._buffer()
        for place in fresh:
            output = self.outputs[place]
            outputs[place] = Buffer.empty(output.elements, output.dtype)

    def run(self, arguments: list[Handle]) -> Any:
        """One step, where it must be asked of every state whether it may be written in place."""
        self.settled, self.last_nodes = None, []  # both would seem to be others who need the state
        tensors = self._tensors()
        outputs = self._in_place_outputs(tensors)
        inputs: list[Buffer | None] = [None] * self.input_count + self.constants
        for place, tensor in zip(self.captured_places, tensors, strict=True):
            inputs[place] = tensor._node.buffer or tensor._buffer()
        fresh = {place for place, buffer in enumerate(outputs) if buffer is None}
        self._feed(arguments, inputs, outputs, fresh)
        self.program.run(inputs, outputs)  # type: ignore[arg-type]
        self._take_in_state(outputs, fresh)
        self.last_nodes = [tensor._node for tensor in self._tensors()]
        result = self._take_in(arguments, outputs)
        if fresh - set(self.numbers.values()) <= self.always_fresh:
            settled = self._settle(inputs, outputs)
            outputs.clear()
            if settled is not None:
                settled.counts = settled.count()
            self.settled = settled
        return result

    def _settle(self, inputs: list[Buffer | None], outputs: list[Buffer | None]) -> _Settled | None:
        """What can be kept for the next run, all states having been written in place just now."""
        if self.owned:
            return None
        states = [c.tensor for c, _ in self.states]
        receivers = [tensor for tensor, place in self.new_grads if place is not None]
        kept = [None if place in self.always_fresh else buffer for place, buffer in enumerate(outputs)]
        for place in self.argument_places:
            inputs[place] = None  # a batch is not kept alive
        return _Settled(list(self.plain_tensors), states, receivers, list(self.bases.values()), inputs, kept)

    def _in_place_outputs(self, tensors: list[Any]) -> list[Buffer | None]:
        """The buffers that outputs may be written into because nobody but their tensor would see it; None elsewhere."""
        outputs: list[Buffer | None] = [None] * len(self.outputs)
        for place, source in self.state_sources:
            if _is_alone(tensors[source]):
                outputs[place] = tensors[source]._node.buffer
        held = self.held
        for tensor, grad_place in self.new_grads:
            if grad_place is None or grad_place not in held:
                continue
            if grad_place in self.deferred:
                outputs[grad_place] = self._free_base(tensor, grad_place)
                continue
            # a gradient that this program made, which still is the tensor's and which nobody else holds
            if held[grad_place] is not tensor._grad:
                continue
            if getrefcount(held[grad_place]) <= _REFERENCES.gradient and _is_alone(held[grad_place]):
                outputs[grad_place] = held[grad_place]._node.buffer
        return outputs

    def _free_base(self, tensor: Handle, place: int) -> Buffer | None:
        """The memory of what a gradient is left to be made of, where nobody can come to make it any more but by asking
        the tensor for its gradient, which the run replaces."""
        held = self.held
        live = self.tops[place]() is held[place]._node and held[place]._node.buffer is None
        alone = getrefcount(held[place]) <= _REFERENCES.gradient - (held[place] is not tensor._grad)
        if live and not (alone and getrefcount(held[place]._node) <= _REFERENCES.node):
            return None
        if getrefcount(self.bases[place]) > _REFERENCES.base + live:
            return None
        return self.bases[place].buffer if getrefcount(self.bases[place].buffer) <= _REFERENCES.buffer else None

    def _leaf(self, outputs: list[Buffer | None], place: int) -> Node:
        like = self.outputs[place]
        return Node(
            BUFFER, (), {"shape": like.shape, "dtype": like.dtype}, like.shape, like.dtype, buffer=outputs[place]
        )

    def _take_in_state(self, outputs: list[Buffer | None], fresh: set[int]) -> None:
        """Bind states and gradients to their new values; what was not written to fresh memory is theirs already."""
        for captured, place in self.states:
            if place in fresh:
                tensor = captured.tensor if captured.owner is None else captured.owner._grad
                tensor._set_leaf(self._leaf(outputs, place), tensor.requires_grad)  # type: ignore[union-attr]
        for tensor, grad_place in self.new_grads:
            if grad_place is not None and grad_place in fresh and grad_place not in self.deferred:
                tensor._grad = self.held[grad_place] = Tensor(self._leaf(outputs, grad_place))
        self._take_in_deferred(outputs)

    def _take_in_deferred(self, outputs: list[Buffer | None]) -> None:
        """Bind gradients that are left uncomputed. They are not among the pending tensors, which are computed along
        with whatever passes by.
        """
        leaves = {number: self._leaf(outputs, place) for number, place in self.numbers.items()}
        for tensor, place in self.new_grads:
            if place is not None and place in self.deferred:
                found = self.deferred[place]
                base = self.bases[place] = self._leaf(outputs, place)
                gradient = self.held[place] = Tensor(base)
                gradient._node = found.on({found.base: base, **leaves})
                self.tops[place] = ref(gradient._node)
                tensor._grad = gradient

    def _take_in(self, arguments: list[Handle], outputs: list[Buffer | None]) -> Any:
        """Give the arguments what the step changed of them, and the caller the results."""
        for tensor in self.cleared:
            tensor._grad = None
        for position, place in self.changed_arguments:
            arguments[position]._overwrite(self._leaf(outputs, place))
        for position, place in self.argument_grads:
            grad = Tensor(self._leaf(outputs, place))
            before = arguments[position].grad
            arguments[position].grad = grad if before is None else before + grad
        if self.writes:
            made = {
                place: Tensor(self._leaf(outputs, place))
                for w in self.writes
                for place, _ in w.leaves
                if place is not None
            }
            for write in self.writes:
                write(made)
        leaves = [constant if place is None else Tensor(self._leaf(outputs, place)) for place, constant in self.results]
        return unflatten(self.result_shape, leaves) if self.result_shape is not None else leaves[0]


class _Settled:
    """The buffers of a run whose states were all written in place, for as long as nothing about them changes.

    Whether somebody new refers to one of them is told by sums of reference counts, one for each kind, because asking
    one by one would take longer than a small step does.
    """

    def __init__(
        self, captured: list[Handle], states: list[Handle], receivers: list[Handle], bases: list[Node],
        inputs: list[Buffer | None], outputs: list[Buffer | None],
    ):  # fmt: skip
        """`bases` are the leaves that gradients which are left uncomputed are made of."""
        self.captured, self.receivers = captured, receivers
        self.inputs, self.outputs = inputs, outputs
        self.all_nodes = [tensor._node for tensor in captured]
        self.grads = [tensor._grad for tensor in receivers]
        self.nodes = [tensor._node for tensor in [*states, *self.grads]] + bases  # type: ignore[union-attr]
        self.buffers = [node.buffer for node in self.nodes if node.buffer is not None]
        #: what `count` gave when nobody else referred to anything
        self.counts = (0, 0, 0)
        self.times_shared = times_shared()

    def count(self) -> tuple[int, int, int]:
        """The references to all nodes, to all buffers, and to all gradients."""
        return sum(map(getrefcount, self.nodes)), sum(map(getrefcount, self.buffers)), sum(map(getrefcount, self.grads))

    def holds(self) -> bool:
        """Whether every tensor has the value that the last run gave it, and nobody else has come to refer to it."""
        return (
            all(map(is_, map(_NODE_OF, self.captured), self.all_nodes))
            and all(map(is_, [tensor._grad for tensor in self.receivers], self.grads))
            and self.count() == self.counts
            and (self.times_shared == times_shared() or self._are_private())
        )

    def forget(self, inputs: Iterable[int], outputs: Iterable[int]) -> None:
        """Keep the buffers at these places alive no longer."""
        for place in inputs:
            self.inputs[place] = None
        for place in outputs:
            self.outputs[place] = None

    def _are_private(self) -> bool:
        """Whether none of the buffers is among those that have been shared since."""
        self.times_shared = times_shared()
        return not any(buffer.shared for buffer in self.buffers)


def _is_unchanged(store: dict[Any, Any], kept: dict[Any, Any]) -> bool:
    """Whether what stands in a store are the objects that they were."""
    return store.keys() == kept.keys() and all(store[name] is value for name, value in kept.items())


def _found(captured: Captured) -> Any:
    """The captured tensor as it is now; one without a node where it was a gradient that is gone."""
    if captured.owner is None:
        return captured.tensor
    return _NO_GRADIENT if captured.owner._grad is None else captured.owner._grad


class _References(NamedTuple):
    """What `getrefcount` says of a node and of a buffer that one tensor alone holds, of a tensor that is held as a
    gradient and by a recording, and of a node that a recording holds, each by nobody else."""

    node: int
    buffer: int
    gradient: int
    base: int


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
    bases = SimpleNamespace(bases={0: buffer_node(Buffer.zeros(1, float32), (1,), float32)})
    return _References(node, buffer, getrefcount(held[0]), getrefcount(bases.bases[0]))


_REFERENCES = _count_references()
_NODE_OF = attrgetter("_node")
_NO_GRADIENT = SimpleNamespace(_node=None)
