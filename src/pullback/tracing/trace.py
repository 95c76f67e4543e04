"""A step being recorded: what it takes from outside, what it changes, and what the recording depends on.

Handles get their own nodes back when the recording ends, whether it ends well or not.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import partial
from types import CodeType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from weakref import ref

import numpy as np

from ..errors import TraceError
from ..graph.calm import disturb
from ..graph.node import Node
from ..ops.gradient_hooks import attach
from ..ops.primitive import input_node, user_source
from ..runtime.buffers import Buffer
from ..tensor import Tensor
from ..tensor.handle import RECEIVERS, Handle
from ..tensor.state import UNSCALED, outside_trace
from ..tensor.views import root_of
from .prepared import Entry, Prepared

if TYPE_CHECKING:
    from .divided import Divided
    from .surroundings import Surroundings


@dataclass(eq=False)
class Captured:
    """A tensor from outside. `owner`, if set, is the tensor whose `.grad` it was found as."""

    tensor: Handle
    original: Node
    node: Node
    owner: Handle | None


@dataclass(eq=False)
class Grad:
    """The `.grad` of a tensor from outside: what it was, whether the step looked at it before writing it, and what
    stands for it inside of the recording.

    That is another tensor, so that the gradient is told from itself where the function also has it by another way.
    """

    tensor: Handle
    original: Tensor | None
    read: bool
    found: Tensor | None

    @property
    def is_new(self) -> bool:
        """Whether the step leaves another one than there was."""
        return self.tensor._grad is not self.found


class Watched(NamedTuple):
    """A value that must be finite: a loss, the gradient of the leaf `owner`, what `check_numerics` was given, with its
    message, or an update, with the name of what is updated.
    """

    node: Node
    what: str
    owner: Handle | None = None
    message: str = ""


class Pulled(NamedTuple):
    """What a transform of `func` gave: values of the function that it differentiated, and their gradients."""

    values: list[Node]
    gradients: list[Node]


class Scaled(NamedTuple):
    """A scale of losses, whether the gradients that a scaler divides by it, here or elsewhere, are finite, and these,
    which nobody else looks at.
    """

    scale: Handle
    sound: Node
    gradients: list[Watched]


class Observer(Protocol):
    """Wants numbers that a recorded step computes, and to know when it has run."""

    def numbers(self) -> Numbers:
        """What each run is to compute for it, asked for when all else has been recorded."""

    def take(self, values: list[float], taken: bool) -> None:
        """The numbers of a run, when its state has been `taken` in, or when it was not, and all state is as before."""


class Numbers(NamedTuple):
    """Nodes of shape (): those that new state has no part in, and those made of new state."""

    early: list[Node]
    late: list[Node]


@dataclass(eq=False)
class Trace:
    """A step being recorded: no values are computed on the way. Of one that is only `planned` nothing is compiled."""

    first_serial: int
    planned: bool = False
    #: the tensors, by id, whose gradients are taken for what they are, since the function has them by other ways too
    bound_grads: frozenset[int] = frozenset()
    inputs: list[Node] = field(default_factory=list)
    captured: dict[int, Captured] = field(default_factory=dict)
    grads: dict[int, Grad] = field(default_factory=dict)
    #: the first that was written to the `.grad` of each tensor since it was cleared: what became of it may be clipped
    first_gradients: dict[int, Node] = field(default_factory=dict)
    owners: dict[int, Handle] = field(default_factory=dict)
    #: tensors, by id, whose gradients the function itself reads or replaces
    asked: set[int] = field(default_factory=set)
    #: views that were read anew, the nodes that they had, and the stamps of what those were read from
    views: dict[int, tuple[Handle, Node, object]] = field(default_factory=dict)
    guards: list[tuple[Callable[[], Hashable], Hashable]] = field(default_factory=list)
    callbacks: list[Callable[[], None]] = field(default_factory=list)
    #: what the modules that were called consist of, and the states of optimizers
    stores: list[tuple[dict[Any, Any], dict[Any, Any]]] = field(default_factory=list)
    #: arrays of which copies were made, the copies, and how they are stored
    arrays: list[tuple[Callable[[], np.ndarray | None], Buffer, Callable[[np.ndarray], np.ndarray]]] = field(
        default_factory=list
    )
    #: the code of functions that the step has called at each run, with arrays: they read what is there then
    called_at_runs: set[CodeType] = field(default_factory=set)
    #: what the function's code names
    surroundings: Surroundings | None = None
    known_stores: set[int] = field(default_factory=set)
    #: the tensors of optimizers' states: what each is called, and the parameter that it is kept for
    optimizer_state: dict[int, tuple[str, int]] = field(default_factory=dict)
    #: entries of them that were made for this recording
    prepared: list[Entry] = field(default_factory=list)
    #: the modules that were called, in order
    modules: list[Any] = field(default_factory=list)
    #: objects whose guarded attributes the step has set itself
    decided: dict[int, object] = field(default_factory=dict)
    #: how many parts `accumulate` makes of a batch where that is left to it, and the examples of the largest such batch
    parts: int = 1
    divisible: int = 0
    #: who has the loss from parts of the batch, where it is to be seen what that would take
    divided: Divided | None = None
    #: whether an output layer and its cross entropy may go through blocks of rows; of those that do, how many at once
    blocks: bool = False
    rows: list[int] = field(default_factory=list)
    #: what must be finite for the step to change anything
    watched: dict[Node, Watched] = field(default_factory=dict)
    #: of transforms, of which it shows later whether what they gave is a loss or a part of another one's
    pulled: list[Pulled] = field(default_factory=list)
    #: gradients that are finite and not long because the step itself has looked
    bounded: list[Node] = field(default_factory=list)
    #: of gradients that scalers look at, and the scales that losses were multiplied by, by the tensor's id
    scaled: list[Scaled] = field(default_factory=list)
    scales: dict[int, Handle] = field(default_factory=dict)
    #: the parameters, by id, whose gradients are left to scalers
    left: set[int] = field(default_factory=set)
    #: who wants to know values that the step computes on its way
    observers: list[Observer] = field(default_factory=list)
    #: the lines of backward passes inside of a loop's body, which `check()` compares with no slope
    unaudited: list[str] = field(default_factory=list)
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
        """The node of a tensor inside this recording; captures tensors from outside, of views their bases."""
        if tensor._link is not None and not tensor._link.is_leaf and tensor._link.base is not None:
            return tensor.node
        if self.is_foreign(tensor._node):
            self._capture(tensor)
        return tensor._node

    def _keep_gradient(self, owner: Handle, gradient: Handle) -> None:
        """Note that the recording is for this very gradient: of one that is a view it takes the base as an input."""
        kept = ref(gradient)
        self.guards.append((lambda: owner._grad is kept() is not None, True))

    def _capture(self, tensor: Handle) -> None:
        original = tensor._node
        if original.requires_grad and not tensor.is_leaf:
            raise TraceError(
                f"a compiled step uses a tensor that was computed outside of it with a history (at {user_source()}): "
                "its gradient could not leave the step. Compute it inside the step, or .detach() it."
            )
        node = self.new_input(original, original.requires_grad)
        if original.requires_grad:
            RECEIVERS[node] = ref(tensor)
            self.depend_on(tensor._leaf_hooks(), tensor._accumulated_hooks())
            if tensor._hooks:
                attach(node, tensor._hooks)
        self.captured[id(tensor)] = Captured(tensor, original, node, self.owners.get(id(tensor)))
        tensor._node = node

    def before_rebinding(self, tensor: Handle) -> None:
        """Note a tensor from outside that is about to be given a new value."""
        if self.is_foreign(tensor._node):
            self._capture(tensor)

    def before_refreshing(self, view: Handle) -> None:
        """Note a view, maybe from outside, that is read anew from what its base is inside of the recording."""
        if id(view) not in self.views and view._link is not None:
            self.views[id(view)] = view, view._node, view._link.stamp

    def before_asking_for_grad(self, tensor: Handle) -> None:
        """Note that the function itself reads or replaces the gradient of a tensor, which may be an argument."""
        self.asked.add(id(tensor))

    def before_reading_grad(self, tensor: Handle) -> None:
        """Note that the step depends on whether the tensor has a gradient, and maybe on the gradient."""
        if id(tensor) in self.grads or not (self.is_foreign(tensor._node) or id(tensor) in self.captured):
            return
        gradient = tensor._grad
        grad = self.grads[id(tensor)] = Grad(tensor, gradient, True, gradient)
        if gradient is None:
            return
        if id(tensor) in self.bound_grads or gradient._link is not None or gradient._alias is not None:
            self._keep_gradient(tensor, gradient)
        else:
            grad.found = tensor._grad = Tensor(gradient._node)
            self.owners[id(grad.found)] = tensor

    def before_writing_grad(self, tensor: Handle, value: Handle | None) -> None:
        """Note a `.grad` that is about to be replaced by `value`."""
        if value is None:
            self.first_gradients.pop(id(tensor), None)
        else:
            self.first_gradients.setdefault(id(tensor), value._node)
        if self.is_foreign(tensor._node) or id(tensor) in self.captured:
            self.grads.setdefault(id(tensor), Grad(tensor, tensor._grad, False, tensor._grad))

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

    def automatic_parts(self, examples: int) -> int:
        """How many parts a batch is to be divided into, where that is left to the recording."""
        self.divisible = max(self.divisible, examples)
        return self.parts

    def watch(self, node: Node, what: str, owner: Handle | None, before: Node | None, message: str) -> None:
        """Note a value that must be finite (see `Watched`); `before` is what it is the sum of with something else,
        which need not be looked at any more.
        """
        if before is not None:
            self.watched.pop(before, None)
        if what == "loss":  # at its scale it may be infinite, which is no fault of its own
            node, _ = UNSCALED.get(node, (node, None))
        self.watched[node] = Watched(node, what, owner, message)

    def watch_pulled(self, values: list[Node], gradients: list[Node]) -> None:
        """Note what a transform gave: losses and gradients, unless what is made of these is differentiated."""
        self.pulled.append(Pulled([UNSCALED.get(value, (value, None))[0] for value in values], gradients))
        for gradient in gradients:
            self.watched.setdefault(gradient, Watched(gradient, "gradient"))

    def leave_to_scaler(self, scaled: Scaled) -> None:
        """Note gradients that only their scaler looks at, if there are any: they are told of at a scale of 1."""
        if scaled.gradients:
            told = [each._replace(message="with a loss scale of 1") for each in scaled.gradients]
            self.scaled.append(scaled._replace(gradients=told))

    def watch_assigned(self, owner: Handle, node: Node) -> None:
        """Note a gradient that the step itself has assigned, that of `func.grad` say, where it is the first one. What
        is made from one that is looked at already, as by clipping, is not looked at again.
        """
        if owner.is_leaf and self.first_gradients.get(id(owner)) is node:
            self.watch(node, "gradient", owner, None, "")

    def observe(self, observer: Observer) -> None:
        """Have each run compute an observer's numbers along with all else, and give it their values."""
        self.observers.append(observer)

    def before_call(self, callback: Callable[[], None]) -> None:
        """Have `callback` run, outside of the program, before each run of it (once now)."""
        if callback not in self.callbacks:
            self.callbacks.append(callback)
            with outside_trace():
                callback()

    def knows(self, tensor: Handle) -> bool:
        """Whether the step has used the tensor as one from outside."""
        return id(tensor) in self.captured or id(tensor) in self.grads or id(tensor) in self.views

    def known_ids(self) -> frozenset[int]:
        """The tensors from outside that the step uses, and those that they are views of, by id."""
        tensors = [*(c.tensor for c in self.captured.values()), *(g.tensor for g in self.grads.values())]
        return frozenset([*self.captured, *self.grads, *self.views, *(id(root_of(tensor)[0]) for tensor in tensors)])

    def written_ids(self) -> frozenset[int]:
        """The tensors from outside that the step writes, by id."""
        return frozenset(id(c.tensor) for c in self.captured.values() if c.tensor._node is not c.node)

    def new_values(self) -> list[Node]:
        """What the step gives to tensors from outside, but for gradients."""
        written = (c for c in self.captured.values() if c.owner is None and c.tensor._node is not c.node)
        return [c.tensor._node for c in written]

    def follow_array(self, array: np.ndarray, buffer: Buffer, stored: Callable[[np.ndarray], np.ndarray]) -> None:
        """Note that `buffer` holds a copy of an array, as it is `stored`, that may be written between two calls."""
        # one that is no view of another can be told to be gone; what nobody has any more changes no more
        source = ref(array) if array.base is None else lambda: array
        self.arrays.append((source, buffer, lambda held: stored(held).reshape(-1)))

    def follows(self, buffer: Buffer) -> bool:
        """Whether `buffer` holds a copy of an array that may be written between two calls."""
        return any(other is buffer for _, other, _ in self.arrays)

    def array_copies(self) -> list[Callable[[], None]]:
        """What makes the copies of arrays anew. Those that Python wrote while recording stay as they were read."""
        return [
            partial(_copy_anew, source, buffer, stored)
            for source, buffer, stored in self.arrays
            if (array := source()) is not None and stored(array).tobytes() == buffer.array.tobytes()
        ]

    def depend_on(self, *stores: dict[Any, Any]) -> None:
        """Note that the step uses what stands in these stores (see `Store`): another one makes a new recording."""
        for store in stores:
            if id(store) not in self.known_stores:
                self.known_stores.add(id(store))
                self.stores.append((store, dict(store)))

    def prepare(self, store: dict[Any, Any], key: Any, value: Any) -> None:
        """Have a store of state hold what it is to begin with; it does so for good once a run has changed it."""
        store[key] = value
        self.prepared.append(Entry(store, key, value))

    def enter_module(self, module: object, *stores: dict[Any, Any]) -> None:
        """Note that the step uses a module: another parameter, part or attribute makes a new recording."""
        self.depend_on(*stores)
        self.modules.append(module)
        if self.surroundings is not None:
            self.surroundings.enter_module(module)

    def names(self) -> dict[int, str]:
        """What parameters and buffers are called in the outermost of the modules that were called."""
        names: dict[int, str] = {}
        seen: set[int] = set()
        for module in self.modules:
            stack = [("", module)]
            while stack:
                prefix, part = stack.pop()
                if part is None or id(part) in seen:
                    continue
                seen.add(id(part))
                for store in (part._parameters, part._buffers):
                    for name, tensor in store.items():
                        names.setdefault(id(tensor), prefix + name)
                stack.extend((f"{prefix}{name}.", inner) for name, inner in part._modules.items())
        return names

    def restore(self) -> None:
        """Give every tensor from outside the node and the gradient that it had, and keep neither alive."""
        if self.surroundings is not None:
            self.surroundings.restore()
        Prepared(self.prepared).withdraw()
        for captured in self.captured.values():
            captured.tensor._node = captured.original
            del captured.original, captured.node
        for grad in self.grads.values():
            grad.tensor._grad = grad.original
            del grad.original, grad.found
        disturb()
        for view, node, stamp in self.views.values():
            if view._link is not None:
                view._node, view._link.stamp = node, stamp
        self.views.clear()


def _copy_anew(
    source: Callable[[], np.ndarray | None], buffer: Buffer, stored: Callable[[np.ndarray], np.ndarray]
) -> None:
    array = source()
    if array is not None:
        buffer.array[...] = stored(array)
