"""What one recording of a step, or one step that is not compiled, computes for a monitor."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ..diagnosis import Alert
from ..graph.node import Node, Source, ancestors
from ..graph.types import float32
from ..ops.elementwise import convert, sub
from ..ops.primitive import MODE, grad_mode
from ..tensor import Tensor
from ..tensor.state import UNSCALED
from ..tracing.trace import Numbers
from .activations import function_of, places_of_a_unit, sums_of_saturation, units_of
from .histograms import sums_of_bins
from .statistics import over_all, sum_of_squares, sums_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .monitor import Monitor

#: what the operations of a monitor are called in profiles
_SOURCE = Source("monitor", 0, "monitor")

#: what is known of something, by what it is and its name
ACTIVATION, GRADIENT, UPDATE, LOSS = "activation", "gradient", "update", "loss"
#: the gradient of an activation
COTANGENT = "cotangent"


class Key(NamedTuple):
    """What numbers are of: an activation of a layer, the gradient or update of a parameter, the loss."""

    what: str
    name: str = ""


@dataclass(frozen=True)
class Facts:
    """What is known of a value before it is computed."""

    count: int
    kind: str = ""
    function: str | None = None
    units: int = 0
    places: int = 0
    rows: int = 0
    #: by which layers are put in the order in which they were called
    order: int = 0


@dataclass
class Entry:
    """Something of which numbers are wanted: the functions that build them, and whether new state has a part in it."""

    key: Key
    facts: Facts
    node: Node
    build: Callable[[], dict[str, Node]]
    late: bool = False
    #: whether a loss was made of it
    used: bool = False
    #: whether all optimizers have stepped since
    is_over: bool = False
    tensors: dict[str, Tensor] = field(default_factory=dict)


class Found(NamedTuple):
    """An entry whose numbers are known. A gradient that is not used is one that no optimizer has stepped with yet: what
    another network's loss has left in a parameter, or that of a step whose update is compiled apart.
    """

    key: Key
    facts: Facts
    sums: dict[str, float]
    is_used: bool = True


@contextmanager
def _unseen() -> Iterator[None]:
    """What is built inside is nobody's line, and has no gradient."""
    before, MODE.source = MODE.source, _SOURCE
    try:
        with grad_mode(False):
            yield
    finally:
        MODE.source = before


class Collector:
    """Collects what is to be known of a step as its forward pass, its backward pass and its update are gone through."""

    def __init__(self, monitor: Monitor, turn: int, traced: bool):
        self.monitor, self.turn, self.traced = monitor, turn, traced
        #: whether its recording tells it numbers: it has met a gradient, or a step of an optimizer, of its own model
        self.is_observing = False
        self.entries: list[Entry] = []
        #: the gradients as they are, and those that an optimizer has stepped with
        self.gradients: dict[str, Entry] = {}
        self.used: dict[str, Entry] = {}
        self.losses: list[Node] = []
        #: which optimizers have stepped, one after the other; and what decides whether, by the place of a step there
        self.steps: list[int] = []
        self.decisions: dict[int, Node] = {}
        #: which parameters have no gradients, and why; and of how many losses that was looked for
        self.structure: list[Alert] = []
        self._looked_at = 0
        #: what the numbers of a recording are of, what they are called, and whether an optimizer has stepped with it
        self._columns: list[tuple[Entry, tuple[str, ...], bool]] = []
        #: of how many losses and steps of optimizers the whole steps are
        self._whole = 0, 0

    # ---- what is met

    def activation(self, name: str, kind: str, function: str | None, node: Node) -> None:
        """The result of a layer; `function` is the kind of activation function that it is, if it is one."""
        rows = math.prod(node.shape[:-1])
        facts = Facts(math.prod(node.shape), kind, function, units_of(node), places_of_a_unit(node), rows, node.serial)

        def build() -> dict[str, Node]:
            found = sums_of(node)
            if function is not None:
                found |= sums_of_saturation(function, node)
            return found | self._bins(node)

        self._enter(Entry(Key(ACTIVATION, name), facts, node, build))

    def gradient(self, name: str, node: Node) -> None:
        """The gradient of a parameter, of all losses so far."""
        entry = Entry(Key(GRADIENT, name), Facts(math.prod(node.shape)), node, lambda: sums_of(node) | self._bins(node))
        self.gradients[name] = self._ready(entry)

    def loss(self, node: Node) -> None:
        """What backward() was called on. What was there before counts no more where its gradients have been cleared."""
        if self.losses and not self.monitor.has_gradients() and not self.monitor.is_between(self.steps):
            self.losses, self.gradients = [], {}
            self.entries = [e for e in self.entries if e.key.what == ACTIVATION and not e.used]
        self.losses.append(node)
        plain, _ = UNSCALED.get(node, (node, None))
        self._enter(Entry(Key(LOSS), Facts(1), node, lambda: {"sum": over_all(convert(plain, plain.dtype.compute))}))
        history = ancestors([node], stop_at_buffers=False)
        for entry in self.entries:
            entry.used = entry.used or entry.node in history
        self._find_functions(history)

    def _find_functions(self, history: set[Node]) -> None:
        """Enter the results of activation functions that were called as functions."""
        known = {entry.node for entry in self.entries}
        for made in sorted(history - known, key=lambda n: n.serial):
            function = function_of(made)
            if function is not None and self.monitor.may_have_called(made.source):
                self.activation(self.monitor.name_of(made.source, function), function, function, made)
                self.entries[-1].used = True

    def sought(self, history: set[Node]) -> list[Node]:
        """The activations among the nodes that a loss depends on."""
        self._find_functions(history)
        return list(dict.fromkeys(e.node for e in self.entries if e.key.what == ACTIVATION and e.node in history))

    def cotangent(self, node: Node, gradient: Node) -> None:
        """The gradient of an activation."""
        for entry in [e for e in self.entries if e.key.what == ACTIVATION and e.node is node]:
            self._enter(Entry(Key(COTANGENT, entry.key.name), entry.facts, gradient, lambda: sums_of(gradient)))

    def update(self, name: str, before: Node, parameter: Tensor) -> None:
        """A parameter that has been updated."""
        after = parameter.node

        def build() -> dict[str, Node]:
            wide = before.dtype.compute
            change = sub(convert(after, wide), convert(before, wide))
            # the old weights told from the new ones, so that they are looked at in the pass that writes over them
            old = sub(convert(after, wide), change)
            return {"change": sum_of_squares(change), "weight": sum_of_squares(old)} | self._bins(after)

        self._enter(Entry(Key(UPDATE, name), Facts(math.prod(before.shape)), after, build, late=True))

    def _bins(self, node: Node) -> dict[str, Node]:
        return sums_of_bins(node) if self.turn > 1 and math.prod(node.shape) > 1 else {}

    def _enter(self, entry: Entry) -> None:
        self.entries.append(self._ready(entry))

    def _ready(self, entry: Entry) -> Entry:
        """Outside of recordings numbers are built at once, so that they are computed where what they are of is."""
        if not self.traced:
            with _unseen():
                entry.tensors = {name: Tensor(node) for name, node in entry.build().items()}
        return entry

    def use(self, names: set[str]) -> None:
        """An optimizer steps with the gradients of these parameters."""
        for name in [name for name in self.gradients if name in names]:  # in their order, whatever that of the set
            self.used[name] = self.gradients.pop(name)

    def end_step(self) -> None:
        """All optimizers have stepped: what is met from now on is another step's, or another model's."""
        self._whole = len(self.losses), len(self.steps)
        for entry in (*self.entries, *self.used.values()):
            entry.is_over = True

    def decide(self, sound: Node) -> None:
        """Whether the step that follows is made is known from `sound`, bool[], when it is computed."""
        self.decisions[len(self.steps)] = sound

    def look_at_structure(self) -> None:
        """Find why parameters have no gradients, while it can still be seen what the losses were made of."""
        if len(self.losses) > self._looked_at:
            self._looked_at = len(self.losses)
            self.structure += self.monitor.structure(self.losses, {*self.gradients, *self.used})

    # ---- of a recording

    def numbers(self) -> Numbers:
        """See `Observer`. They are built last, so that the compiler has placed all else: nothing of the step is
        computed otherwise than without them.
        """
        numbers = Numbers([], [])
        with _unseen():
            numbers.early.extend(convert(sound, float32) for sound in self.decisions.values())
        if not self.turn:
            return numbers
        self.look_at_structure()
        with _unseen():
            for late in (False, True):
                for entry in self._wanted():
                    if entry.late is late:
                        built = entry.build()
                        (numbers.late if late else numbers.early).extend(built.values())
                        self._columns.append((entry, tuple(built), self._is_used(entry)))
        return numbers

    def _wanted(self) -> list[Entry]:
        """Activations of which no loss was made are those of somebody else's step."""
        gradients = {**self.gradients, **self.used}
        return [e for e in self.entries if e.used or e.key.what != ACTIVATION] + [*gradients.values()]

    def _is_used(self, entry: Entry) -> bool:
        return entry.key.what != GRADIENT or entry.key.name in self.used

    def take(self, values: list[float], taken: bool) -> None:
        """See `Observer`."""
        start = len(self.decisions)
        made = dict(zip(self.decisions, (value > 0 for value in values[:start]), strict=True))
        over: list[Found] = []
        open_: list[Found] = []
        for entry, names, is_used in self._columns:
            stop = start + len(names)
            sums = dict(zip(names, values[start:stop], strict=True))
            (over if entry.is_over else open_).append(Found(entry.key, entry.facts, sums, is_used))
            start = stop
        if not taken:
            if self.steps:
                self.monitor.skip_step(over or open_)
            return
        losses, steps = self._whole
        if steps:
            self.monitor.learn(over, self.structure, bool(losses and self.used), compiled=True)
        self._finish(0, steps, made)
        is_stepping = len(self.steps) > steps and bool(self.losses[losses:] and (self.gradients or self.used))
        self.monitor.learn(open_, [] if steps else self.structure, is_stepping, compiled=True)
        self._finish(steps, len(self.steps), made)

    def _finish(self, first: int, last: int, made: dict[int, bool]) -> None:
        for number in range(first, last):
            self.monitor.finish(self.steps[number], made.get(number, True))

    # ---- of a step that is not compiled

    def read(self) -> None:
        """Give the monitor what the step has computed."""
        found = [
            Found(
                entry.key,
                entry.facts,
                {name: float(t.item()) for name, t in entry.tensors.items()},
                self._is_used(entry),
            )
            for entry in self._wanted()
        ]
        self.monitor.learn(found, self.structure)


__all__ = ["ACTIVATION", "COTANGENT", "GRADIENT", "LOSS", "UPDATE", "Collector", "Facts", "Found", "Key"]
