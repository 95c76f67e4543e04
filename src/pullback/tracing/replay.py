"""A recorded step, run again: its program, how it is fed, and how its results are taken in.

State is written over its old value where nobody else would see that, and into new memory where somebody would.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from types import SimpleNamespace
from typing import Any, NamedTuple
from weakref import ref

import numpy as np

from ..diagnosis import Audit
from ..errors import NonFiniteError
from ..graph.calm import disturb, overwritten
from ..graph.node import Graph, Node
from ..graph.types import float32, to_carrier
from ..memory.lives import Roles
from ..runtime.arena import Arenas
from ..runtime.backends import made_program
from ..runtime.buffers import Buffer, padding_bytes
from ..runtime.engine import count, without_values
from ..runtime.fit import BLOCKS, EARLY_UPDATE, Budget
from ..tensor import Tensor
from ..tensor.handle import Handle
from ..tensor.views import root_of
from ..timeline import span
from ..trees import unflatten
from .assurance import WRITERS
from .conditions import Conditions
from .finite import Policy, exactly
from .gradients import Gradients
from .guarded import Looks
from .naming import argument_names, gradient_names, input_names
from .observed import Observed
from .outcome import Outcome, Output
from .prepared import Prepared
from .relations import Findings, Related
from .settled import Memory, Settled, is_alone, stays_of
from .trace import Captured, Trace, Watched

#: those of compiled steps
_ARENAS = Arenas()
#: what an attempt gives where the recording does not fit the call
MISFIT = object()


class Recorded(NamedTuple):
    """What was recorded: the inputs, the nodes that are the program's outputs, and the backward passes; of those that
    nothing is known of their lines.
    """

    inputs: list[Node]
    outputs: list[Node]
    audits: Sequence[Audit]
    unaudited: Sequence[str]


class Replay:
    """A recorded step: its program, and how to feed it and take in its results."""

    def __init__(
        self, trace: Trace, arguments: Sequence[tuple[int, Handle, Node]], result: Any, leaves: list[Any],
        related: Related, found: Findings, budget: Budget, policy: Policy, changes: frozenset[str] = frozenset(),
        audits: Sequence[Audit] | None = None,
    ):  # fmt: skip
        """`leaves` are the arguments that were recorded, and `related` which of them are views of one tensor. `budget`
        is the program's, and `changes` are those that it allows and that are made here; `policy` is the step's for
        values that are not finite. `audits` are of a recording that is made to be checked.
        """
        #: how many parts `accumulate` made where that was left to the recording, and of how many examples (0: none)
        self.parts, self.divisible = trace.parts, trace.divisible
        self.callbacks = [*trace.callbacks, *trace.array_copies()]
        self.arguments = [position for position, _, _ in arguments]
        self.outcome = outcome = Outcome(
            trace, arguments, result, EARLY_UPDATE in budget.allow, EARLY_UPDATE in changes
        )
        self.captured, self.states, self.owned = outcome.captured, outcome.states, outcome.owned
        #: the allowed changes that were made, and what they did
        self.allowed = _described(outcome.freed, trace.rows)
        #: who is told numbers of each run, and the places of these; the last ones are made of new state
        self.observed = Observed(trace.observers, outcome.nodes)
        self.conditions = Conditions(trace, arguments, leaves, related, found)
        nodes = outcome.described()
        self.outputs, self._leaf = outcome.outputs, outcome.leaf
        #: of a recording that is to be checked what it is compared with
        self.recorded = None if audits is None else Recorded(list(trace.inputs), nodes, audits, trace.unaudited)
        self.signature = [(c.node.shape, c.node.dtype, c.node.requires_grad) for c in self.captured]
        places = {id(node): position for position, node in enumerate(trace.inputs)}
        self.argument_places = [places[id(node)] for _, _, node in arguments]
        self.captured_places = [places[id(c.node)] for c in self.captured]
        self.policy = policy
        looks = Looks(trace, outcome, nodes, arguments, policy)
        graph = Graph.of([*nodes, *looks.nodes])
        if trace.divided is not None:
            trace.divided.check(graph)
        # tensors made from data inside the step: their values are part of the recording
        constants = [node for node in graph.nodes if node.buffer is not None]
        self.constants = [node.buffer for node in constants]
        graph, extra = without_values(graph, constants, first=len(trace.inputs))
        self.input_count = len(trace.inputs)
        #: what keeps bad values from the state, and which output tells of them; what is known of updates beforehand
        graph, self.guard, self.assured = looks.guarded(graph, self.observed)
        #: what is done about gradients that scalers look at, and these
        self.scaling, self.scaled = looks.scaling, looks.scaled
        self.total, self.is_exact, self.limit = -1, False, math.inf
        if self.guard is not None:
            self.total, self.limit = self.guard.place, self.guard.limit
            self.outputs.append(Output((), float32, 1))
        #: without anything known of updates: who wrote the states last (see `WRITERS`)
        self.token, self.change = object(), object()
        aliases = {place: places[id(c.node)] for c, place in self.states}
        #: gradients stay in the program's own memory, which is free for other values until they are made. Not where the
        #: next run reads them.
        self.resident = set() if self.owned else {place for _, place in outcome.made_grads}
        self.resident |= {self.total, *self.observed.places} - {-1}
        with span("compile"):
            self.make = partial(
                made_program, inputs=[*trace.inputs, *extra], aliases=aliases, resident=self.resident, budget=budget,
                arenas=_ARENAS,
            )  # fmt: skip
            self.program = self.make(graph, ready=not trace.planned)
            self.program.user = ref(self)
        self.gradients = Gradients(outcome, self.resident)
        called = input_names(trace, self.captured, self.captured_places)
        given = argument_names(leaves, self.arguments, self.argument_places)
        self.roles = Roles({**called, **given}, gradient_names(trace, outcome.made_grads))
        #: the peak of the step with everything kept, the batch in one, and nothing of what is allowed
        self.unbudgeted_bytes = self.program.unbudgeted_bytes
        #: what a report calls the inputs
        self._called = {place: named.name for place, named in called.items()}
        self._called.update((p, f"argument {i + 1}") for p, i in zip(self.argument_places, self.arguments, strict=True))
        #: state that is the optimizers' only once a run has changed it; None from then on, or where there is none
        self.prepared = Prepared(list(trace.prepared)) if trace.prepared else None
        #: whether the last run has changed something
        self.has_taken_in = False
        #: asked with the arguments before the program's first run, which it may refuse; and whether it has not
        self.before_first: Callable[[list[Any]], None] = lambda _: None
        self.is_accepted = False
        #: what whoever runs it holds
        self.lock: Callable[[], Any] = threading.RLock
        #: the numbers of the captured tensors' nodes when they last fitted; the nodes themselves are not kept
        self.last_serials: list[int] = []
        self.plain_tensors = [c.tensor for c in self.captured]
        #: what nobody else held when this program last ran; None while it runs
        self.settled: Settled | None = None
        #: outputs that have new memory at each run, because they are handed to the caller
        self.always_fresh = outcome.handed_out()
        self.argument_pairs = list(zip(self.argument_places, self.arguments, strict=True))
        #: the places of inputs and outputs that move from run to run where all else is settled
        self.moved = (self.argument_places, self.always_fresh)
        #: where the result stands that is one tensor, as a loss is
        self.single = outcome.results[0][0] if outcome.result_shape is None else None
        self.overwrites = bool(self.states or outcome.made_grads or outcome.cleared)
        positions = {id(c): position for position, c in enumerate(self.captured)}
        self.state_sources = [(place, positions[id(c)]) for c, place in self.states]

    def new_bytes(self, arguments: list[Any]) -> tuple[int, int]:
        """Bytes that the first run allocates: the arena, results, and what is given and not computed yet; and the bytes
        of addresses that it maps for these.
        """
        given = [tensor._node for tensor in (*self._tensors(), *(arguments[place] for place in self.arguments))]
        pending = [count(node) * node.dtype.itemsize for node in given if node is not None and node.buffer is None]
        memory, arena = self.program.memory, self.program.missing_bytes()
        fresh = [self.outputs[place].elements * self.outputs[place].dtype.itemsize for place in self.always_fresh]
        allocated = arena + memory.outputs - memory.overwriting + sum(pending)
        return allocated, allocated + padding_bytes([arena, *fresh, *pending])

    def is_for(self, arguments: list[Any]) -> bool:
        """Whether a call with these arguments would run this recording."""
        entered = self.prepared
        if entered is not None and not entered.enter():
            return False
        try:
            return self.conditions.hold(arguments, calm=False) and self._fits()
        finally:
            if entered is not None:
                entered.withdraw()

    def attempt(self, arguments: list[Any], alone: bool) -> Any:
        """One step, or MISFIT, and nothing done, where the recording is not for this call.

        `alone` tells that no other step is running, which could be reading what this one is about to write.
        """
        if self.prepared is not None:
            return self._first(self.attempt, self.prepared, arguments, alone)
        settled = self.settled
        if not self.conditions.hold(arguments, alone and settled is not None and settled.is_calm()):
            return MISFIT
        for callback in self.callbacks:
            callback()
        is_home = self.program.is_home
        if self.resident and not is_home:
            self.settled = None  # what it gave lies elsewhere now
        # what is settled refers to nodes and buffers: a run that fails leaves nothing settled
        settled, self.settled = self.settled, None
        if (
            settled is not None
            and ((alone and settled.is_calm()) or settled.holds(alone))
            and (WRITERS.change is self.change if self.assured is None else self.assured.goes_on())
        ):
            if not is_home:
                self._come_home(alone)
            return self._run_settled(arguments, settled)
        del settled
        if not self._fits():
            return MISFIT
        return self.run(arguments, alone)

    def _fits(self) -> bool:
        """Whether the captured tensors are of the shapes and dtypes that were recorded."""
        tensors = self._tensors()
        if not self.owned and [*map(_SERIAL_OF, tensors)] == self.last_serials:
            return True
        nodes = [tensor._node for tensor in tensors]
        return all(
            node is not None and node.shape == shape and node.dtype is dtype and node.requires_grad is requires_grad
            for node, (shape, dtype, requires_grad) in zip(nodes, self.signature, strict=True)
        )

    def _tensors(self) -> list[Any]:
        """The captured tensors as they are now; those that were found as a gradient are looked up again."""
        if not self.owned:
            return self.plain_tensors
        return [_found(c) for c in self.captured]

    def _run_settled(self, arguments: list[Handle], settled: Settled) -> Any:
        """One step on the memory of the step before, of which nobody else has come to hold anything."""
        inputs, outputs = settled.inputs, settled.outputs
        self._feed(arguments, inputs, outputs, self.always_fresh)
        self.program.run(inputs, outputs, self.moved)  # type: ignore[arg-type]
        if self.overwrites:
            overwritten()
        if self.guard is not None and not outputs[self.total].array.item(0) < self.limit:  # type: ignore[union-attr]
            return self._after_bad(arguments, inputs, outputs, self.always_fresh)
        result = self._take_in(arguments, outputs)
        settled.forget(self.argument_places, self.always_fresh)
        self.settled = settled
        self.observed.tell(outputs)
        return result

    def _feed(
        self, arguments: list[Handle], inputs: list[Memory | None], outputs: list[Memory | None], fresh: set[int]
    ) -> None:
        """Enter the arguments' buffers among the inputs, and new memory among the outputs at the places `fresh`."""
        for place, position in self.argument_pairs:
            inputs[place] = arguments[position]._buffer()
        for place in fresh:
            _, dtype, elements = self.outputs[place]
            outputs[place] = Buffer.empty(elements, dtype)

    def _first(
        self, call: Callable[[list[Any], bool], Any], prepared: Prepared, arguments: list[Any], alone: bool
    ) -> Any:
        """`call` a recording that has changed nothing yet, with the state that it begins with."""
        if not prepared.enter():
            return MISFIT
        self.prepared, self.has_taken_in = None, False
        try:
            return call(arguments, alone)
        finally:
            if not self.has_taken_in:
                self.prepared = prepared
                prepared.withdraw()

    def run(self, arguments: list[Handle], alone: bool) -> Any:
        """One step, where it must be asked of every state whether it may be written in place."""
        if self.prepared is not None:
            return self._first(self.run, self.prepared, arguments, alone)
        self._ask_whether_it_fits(arguments)
        self.settled = None  # would seem to be somebody else who needs the state
        tensors = self._tensors()
        for tensor in tensors:  # what has no value yet can be written over once it has
            if tensor._node.buffer is None:
                tensor._buffer()
        if self.assured is None:
            WRITERS.claim([c.tensor for c, _ in self.states], self.token)
            self.change = WRITERS.change
        elif not self.assured.renew(tensors):
            self._look_at_all(arguments)
        if not self.program.is_home:
            self._come_home(alone)
        outputs = self._in_place_outputs(tensors, alone)
        inputs = self._inputs(tensors)
        fresh = {place for place, buffer in enumerate(outputs) if buffer is None}
        self._feed(arguments, inputs, outputs, fresh)
        self.program.run(inputs, outputs)  # type: ignore[arg-type]
        overwritten()
        if self.guard is not None and not outputs[self.total].array.item(0) < self.limit:  # type: ignore[union-attr]
            return self._after_bad(arguments, inputs, outputs, fresh)
        self._take_in_state(outputs, fresh)
        disturb()
        if self.assured is not None:
            self.assured.after(self._tensors())
        if not self.owned:
            self.last_serials = [*map(_SERIAL_OF, tensors)]
        result = self._take_in(arguments, outputs)
        values = self.observed.values(outputs)
        if fresh - self.gradients.numbers <= self.always_fresh:
            inputs.clear()  # counting references must not find those
            self.settled = self._settle(outputs)
        self.observed.give(values)
        return result

    def _come_home(self, alone: bool) -> None:
        """Have the program take its arena, in which another one may have left gradients that this one makes anew."""
        before = self.program.predecessor()
        other = before.user() if before is not None else None
        if isinstance(other, Replay):
            other._make_way(self, alone)
        self.gradients.forget()
        self.program.come_home(alone)

    def _make_way(self, other: Replay, alone: bool) -> None:
        """Hold no more of what lies in the arena, into which another recording comes. Nothing is done while another
        thread runs this one, which has another arena then.
        """
        lock = self.lock()
        if not lock.acquire(blocking=False):
            return
        try:
            self.settled = None
            if not other.owned:
                self.gradients.let_go({id(tensor) for tensor, _ in other.outcome.made_grads}, alone)
            self.gradients.forget()
            disturb()
        finally:
            lock.release()

    def _inputs(self, tensors: list[Any]) -> list[Memory | None]:
        """The program's inputs, but for the arguments: the captured tensors' values and the constants."""
        inputs: list[Memory | None] = [None] * self.input_count + self.constants
        for place, tensor in zip(self.captured_places, tensors, strict=True):
            inputs[place] = tensor._node.buffer or tensor._buffer()
        return inputs

    def _ask_whether_it_fits(self, arguments: list[Any]) -> None:
        """Raise what refuses a program before its first run."""
        if not self.is_accepted:
            self.before_first(arguments)
            self.is_accepted = True

    def trial(self, arguments: list[Any]) -> tuple[list[Buffer], list[Buffer]]:
        """The inputs of a run with these arguments, and memory of its own for what it gives: it changes nothing. Only
        for a recording that has not been run.
        """
        self.before_first(arguments)
        self.program.come_home(alone=False)
        inputs = self._inputs(self._tensors())
        outputs: list[Memory | None] = [Buffer.empty(elements, dtype) for _, dtype, elements in self.outputs]
        for place in self.resident:
            outputs[place] = self.program.residence(place)
        self._feed(arguments, inputs, outputs, set())
        return inputs, outputs  # type: ignore[return-value]

    def is_finite(self, outputs: Sequence[Memory]) -> bool:
        """Whether what a run gave leaves the state changed: whether all that is looked at is finite. A sum of squares
        that overflows counts as not finite here.
        """
        return self.guard is None or bool(outputs[self.total].array.item(0) < self.limit)

    def name_of(self, node: Node) -> str:
        """What a node of the recording is called that is an input: a parameter, or an argument; empty for others."""
        assert self.recorded is not None
        places = {each: place for place, each in enumerate(self.recorded.inputs)}
        return self._called.get(places.get(node, -1), "")

    def gradient_names(self) -> dict[int, str]:
        """What the gradients among the outputs are of, by their places: several models may have a "0.weight" each."""
        names: dict[int, str] = {}
        for place, name in self.roles.gradients.items():
            alike = sum(other == name for other in self.roles.gradients.values()) > 1
            names[place] = f"{name or 'gradient'} (output {place})" if alike or not name else name
        return names

    def _after_bad(
        self, arguments: list[Handle], inputs: list[Memory | None], outputs: list[Memory | None], fresh: set[int]
    ) -> Any:
        """What follows a run that was not finite: the state has its old values, wherever it was written to."""
        if self.scaling is None:
            return self._judge(arguments, inputs, outputs, fresh)
        run = partial(self._run_again, inputs, outputs)
        mends, fault = self.scaling.mends(run, self.limit, inputs), None
        if not mends and not self.policy.is_told:
            with self.scaling.at(1.0):
                fault = self._fault(inputs, self.scaled)
        is_known = fault is not None or (not mends and self.policy.is_told)
        with self.scaling.waits.being(math.inf if is_known else 0.0):
            run()
            return self._judge(arguments, inputs, outputs, fresh, fault, is_known)

    def _judge(
        self, arguments: list[Handle], inputs: list[Memory | None], outputs: list[Memory | None], fresh: set[int],
        fault: NonFiniteError | None = None, is_known: bool = False,
    ) -> Any:  # fmt: skip
        """Take in a run that was left out by a scaler, or whose sums of squares alone had overflowed; else do what the
        policy says. `is_known` tells that nobody has to ask any more.
        """
        is_good = self._total_of(outputs) < self.limit
        # a sum of squares that is infinite may have overflowed
        is_told = self.policy.is_told and (self.is_exact or math.isnan(self._total_of(outputs)))
        if not (is_good or is_known or is_told):
            # what is finite here is no fault, whatever the reference rounds to
            fault = None if math.isfinite(self._total_of(outputs)) else self._fault(inputs)
            is_good = fault is None and self._is_finite_exactly(arguments, inputs, outputs)
            fault = fault if is_good or fault is not None else self._fault(inputs)
        self._take_in_state(outputs, fresh)
        disturb()
        if is_good:
            if self.assured is not None:
                self.assured.after(self._tensors())
            result = self._take_in(arguments, outputs)
            self.observed.tell(outputs)
            return result
        assert self.guard is not None
        if fault is None and not self.policy.is_told:
            fault = self.guard.unexplained(*self._readers(inputs), self.policy.calls)
        self.policy.meet(fault)
        self.observed.tell(outputs, taken=False)
        return self._results(outputs)

    def _total_of(self, outputs: list[Memory | None]) -> float:
        return outputs[self.total].array.item(0)  # type: ignore[union-attr]

    def _run_again(self, inputs: list[Memory | None], outputs: list[Memory | None]) -> float:
        """Run the program on the same memory once more; gives the total."""
        self.program.run(inputs, outputs)  # type: ignore[arg-type]
        overwritten()
        return self._total_of(outputs)

    def _fault(self, inputs: list[Memory | None], further: Sequence[Watched] = ()) -> NonFiniteError | None:
        """What went wrong, in `further` values too, found on the reference, or None where nothing did there."""
        assert self.guard is not None
        return self.guard.fault(*self._readers(inputs), self.policy.calls, further)

    def _readers(self, inputs: list[Memory | None]) -> tuple[Callable[[Node], np.ndarray], Callable[[Node], str]]:
        """What gives the values and the names of the program's inputs."""
        places = {node: place for place, node in enumerate(self.program.inputs)}

        def value_of(node: Node) -> np.ndarray:
            return to_carrier(inputs[places[node]].array, node.dtype).reshape(node.shape)  # type: ignore[union-attr]

        def name_of(node: Node) -> str:
            return self._called.get(places.get(node, -1), "")

        return value_of, name_of

    def _is_finite_exactly(
        self, arguments: list[Any], inputs: list[Memory | None], outputs: list[Memory | None]
    ) -> bool:
        """Run the step again, and from now on, in a program that looks at every element and sums no squares, which had
        overflowed. Gives whether all is finite.
        """
        assert self.guard is not None
        if self.is_exact:
            return False
        self._look_at_all(arguments)
        for place in self.resident:
            outputs[place] = None
        self.program.come_home(alone=False)  # another thread may be reading what the first run has left
        for place in self.resident:
            outputs[place] = self.program.residence(place)
        return self._run_again(inputs, outputs) < self.limit

    def _look_at_all(self, arguments: list[Any]) -> None:
        """From now on run a program that looks at every element of gradients and of updates before it writes anything:
        it needs no sums of squares, which can overflow, and no bounds. It may take more memory, and be refused.
        """
        assert self.guard is not None
        self.guard.look_at_all()
        with span("compile"):
            self.program, self.is_exact = self.make(self.guard.graph(exactly)), True
            self.program.user = ref(self)
        self.limit, self.assured, self.settled, self.is_accepted = self.guard.limit, None, None, False
        self._ask_whether_it_fits(arguments)

    def _settle(self, outputs: list[Memory | None]) -> Settled | None:
        """What can be kept for the next run, all states having been written in place just now."""
        if self.owned:
            return None
        stays = stays_of(tensor._node for tensor in self.plain_tensors)
        inputs: list[Memory | None] = [None] * self.input_count + self.constants
        for place, stay in zip(self.captured_places, stays[0], strict=True):
            inputs[place] = stay
        kept = [None if place in self.always_fresh else memory for place, memory in enumerate(outputs)]
        outputs.clear()
        for place, source in self.state_sources:
            kept[place] = stays[0][source]
        receivers = [tensor for tensor, _ in self.outcome.made_grads]
        sources = [source for _, source in self.state_sources]
        settled = Settled(self.plain_tensors, stays, sources, receivers, self.gradients.bases.values(), inputs, kept)
        settled.begin()
        return settled

    def _in_place_outputs(self, tensors: list[Any], alone: bool) -> list[Memory | None]:
        """The buffers that outputs may be written into because nobody but their tensor would see it; None elsewhere."""
        outputs: list[Memory | None] = [None] * len(self.outputs)
        for place, source in self.state_sources:
            if is_alone(tensors[source], alone):
                outputs[place] = tensors[source]._node.buffer
        self.program.vacate(self.gradients.reuse(outputs, alone), alone)
        for place in self.resident:  # when all are gone that have to go, which may move the memory of all
            outputs[place] = self.program.residence(place)
        for buffer in outputs:
            if buffer is not None:
                buffer.overwritten = True  # type: ignore[union-attr]
        return outputs

    def _take_in_state(self, outputs: list[Memory | None], fresh: set[int]) -> None:
        """Bind states and gradients to their new values; what was not written to fresh memory is theirs already."""
        for captured, place in self.states:
            if place in fresh:
                tensor = captured.tensor if captured.owner is None else captured.owner._grad
                tensor._set_leaf(self._leaf(outputs, place), tensor.requires_grad)  # type: ignore[union-attr]
        self.gradients.take_in(outputs, fresh)

    def _take_in(self, arguments: list[Handle], outputs: list[Memory | None]) -> Any:
        """Give the arguments what the step changed of them, and the caller the results."""
        self.has_taken_in = True
        for tensor in self.outcome.cleared:
            if tensor._grad is not None:
                tensor._grad = None
                disturb()
        for position, place in self.outcome.changed_arguments:
            arguments[position]._overwrite(self._leaf(outputs, place))
        for position, place in self.outcome.argument_grads:
            grad = Tensor(self._leaf(outputs, place))
            before = arguments[position].grad
            arguments[position].grad = grad if before is None else before + grad
        if self.outcome.writes:
            made = {place: Tensor(self._leaf(outputs, place)) for place in self.outcome.written()}
            for write in self.outcome.writes:
                write(made)
        return self._results(outputs)

    def _results(self, outputs: list[Memory | None]) -> Any:
        """What the step returns."""
        if self.single is not None:
            return Tensor(self._leaf(outputs, self.single))
        leaves = [
            constant if place is None else Tensor(self._leaf(outputs, place))
            for place, constant in self.outcome.results
        ]
        shape = self.outcome.result_shape
        return unflatten(shape, leaves) if shape is not None else leaves[0]


def _described(freed: int, rows: Sequence[int]) -> dict[str, str]:
    """The changes that were made, of gradients that are freed and output layers in blocks of so many rows."""
    found = {}
    if freed:
        found[EARLY_UPDATE] = f"{freed} gradients are freed as soon as their parameters are updated; .grad is None"
    if rows:
        found[BLOCKS] = f"the output layer and its cross entropy in blocks of {', '.join(map(str, rows))} rows"
    return found


def _found(captured: Captured) -> Any:
    """The captured tensor as it is now; one without a node where it was a gradient that is gone."""
    if captured.owner is None:
        return captured.tensor
    gradient = captured.owner._grad
    # one that is a view of another tensor is not written without that
    return _NO_GRADIENT if gradient is None or root_of(gradient)[1] else gradient


_SERIAL_OF = attrgetter("_node.serial")
_NO_GRADIENT = SimpleNamespace(_node=None)
