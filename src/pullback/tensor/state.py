"""What goes on in this thread: which step, loop or example is recorded, and who is told of losses and gradients."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar
from weakref import WeakKeyDictionary

from ..graph.calm import disturb
from ..graph.node import Node, next_serial

if TYPE_CHECKING:
    from ..diagnosis import Audit
    from ..tracing.trace import Trace
    from .examples import Example
    from .handle import Handle
    from .loops import Recording
    from .views import Link

_T = TypeVar("_T")


class _State(threading.local):
    trace: Trace | None = None
    loop: Recording | None = None
    example: Example | None = None
    #: the nodes that tensors had before they were given others, where that is to be undone
    journal: dict[int, tuple[Handle, Node, Link | None]] | None = None
    #: the backward passes of a recording that is checked, with the cotangents on their way
    audits: list[Audit] | None = None

    @property
    def is_in_a_loop(self) -> bool:
        """Whether the body of a loop is being recorded, other than that a batch of examples is."""
        loop = self.loop
        while loop is not None and loop.is_of_examples:
            loop = loop.outer
        return loop is not None

    def watch(
        self, node: Node, what: str, owner: Handle | None = None, before: Node | None = None, message: str = ""
    ) -> None:
        """Have the step that is being recorded, if any, look at whether a value is finite: see `Trace.watch`. Who else
        wants to know of losses and gradients is told too. The body of a loop has no values to look at.
        """
        if self.loop is not None or self.example is not None:
            return
        if self.trace is not None:
            self.trace.watch(node, what, owner, before, message)
        for watcher in WATCHERS:
            watcher(node, what, owner)

    def watch_pulled(self, values: list[Node], gradients: list[Node]) -> None:
        """Have the step that is being recorded, if any, look at what a transform of `func` gave."""
        if self.trace is None or self.is_in_a_loop:
            return
        if self.example is not None:
            self.example.pulled.append((values, gradients))
        else:
            self.trace.watch_pulled(values, gradients)

    def tell_pulled(self, node: Node) -> None:
        """Tell who wants to know of losses that something was differentiated, which may be a loss."""
        if self.trace is None:
            for watcher in WATCHERS:
                watcher(node, "pulled", None)


#: asked to wait while another thread records a step, which gives tensors nodes without values; tell whether it did
RECORDERS: list[Callable[[], bool]] = []
#: the threads that record one now, by their numbers
RECORDING: list[int] = []

#: of losses that a GradScaler has multiplied what they were before, and the scale
UNSCALED: WeakKeyDictionary[Node, tuple[Node, Node]] = WeakKeyDictionary()


class Listeners(Generic[_T]):
    """Those who want to be told of something; who goes through them meets those that were there when he began."""

    def __init__(self) -> None:
        self._all: tuple[_T, ...] = ()

    def add(self, listener: _T) -> Callable[[], None]:
        """Tell this one too. Gives what ends that."""
        self._all = (*self._all, listener)

        def remove() -> None:
            self._all = tuple(other for other in self._all if other is not listener)

        return remove

    def __iter__(self) -> Iterator[_T]:
        return iter(self._all)

    def __bool__(self) -> bool:
        return bool(self._all)


#: told of every loss, and of the gradient of every leaf, as `backward` finds them: see `_State.watch`; and of what is
#: "pulled" back by the transforms of `func`
WATCHERS = Listeners["Callable[[Node, str, Handle | None], None]"]()


class Seeker(Protocol):
    """Wants the gradients of nodes between the leaves and a loss."""

    def seek(self, history: set[Node]) -> list[Node]:
        """Which of the nodes that a loss depends on differentiably."""

    def receive(self, node: Node, gradient: Node) -> None:
        """The gradient of one of them, once it has been told what the loss is."""


#: asked at each backward() that ends at all leaves
SEEKERS = Listeners[Seeker]()

#: the trace, the body of a loop, and the example of a batch, that is being recorded in this thread, if any
STATE = _State()


@contextmanager
def outside_trace() -> Iterator[None]:
    """Inside, tensors are computed at once as if no step were being recorded: for state that a step finds ready."""
    before, STATE.trace = STATE.trace, None
    first = next_serial()
    try:
        yield
    finally:
        STATE.trace = before
        if before is not None:
            before.outside.append((first, next_serial()))


@contextmanager
def restored() -> Iterator[dict[Handle, Node]]:
    """What tensors are given inside they lose again: generators draw the same again, averages are as they were.

    Gives, when that is done, the tensors and what they had been given.
    """
    before, STATE.journal = STATE.journal, {}
    given: dict[Handle, Node] = {}
    try:
        yield given
    finally:
        for tensor, node, link in STATE.journal.values():
            given[tensor] = tensor._node
            tensor._node, tensor._link = node, link
        STATE.journal = before
        disturb()


__all__ = [
    "RECORDERS",
    "RECORDING",
    "SEEKERS",
    "STATE",
    "UNSCALED",
    "WATCHERS",
    "Seeker",
    "outside_trace",
    "restored",
]
