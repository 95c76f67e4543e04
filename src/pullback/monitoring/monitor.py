"""Monitor: what gradients, activations and updates are like, known from the passes that a step makes anyway."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self
from weakref import finalize, ref

from ..diagnosis import Alert, Member, structural
from ..errors import StateDictError
from ..graph.node import Node, Source
from ..nn import Module
from ..ops.primitive import user_source
from ..optim import Optimizer
from ..tensor import Tensor
from ..tensor.grad_modes import is_grad_enabled
from ..tensor.handle import Handle
from ..tensor.state import SEEKERS, STATE, WATCHERS
from ..trees import flatten
from .activations import kind_of
from .collecting import UPDATE, Collector, Found
from .making import made_record
from .record import Record
from .rules import Limits, Watch
from .sinks import Sink, opened

#: what the next step is: of no concern, recorded, or recorded with histograms
_OFF, _RECORDED, _WITH_HISTOGRAMS = 0, 1, 2


#: how many alerts are kept
_ALERTS = 1000
#: the kinds of alerts that come with one step, and may go with it
_SUDDEN = ("nonfinite", "exploding", "loss_spike")


class Monitor:
    """Records what the gradients, activations and updates of a model are like, and tells what goes wrong.

    The first step, and each whose number is a multiple of `every`, is recorded: a compiled step has one program for
    those, in which the numbers come out of the passes that make gradients, activations and new weights, and another for
    the rest, which is what it is without a monitor. Weights get the same bits either way. Code that is not compiled is
    recorded too.

    `optimizer` is the one that trains the model, or a list of several: a step is over when each of them has stepped, as
    of the players of a game in turn, and the gradient of a parameter is the one that its own optimizer stepped with.

    `sinks` are told each record: a function, a path that ends with ".jsonl", "terminal", `TensorBoard(directory)`, or
    what has `write(record)`. `histograms` is after how many steps histograms of activations, gradients and weights are
    made as well (a multiple of `every`; None: never). `limits` says what alerts are raised at. `on_alert` is called
    with each alert. `records` keeps the last `keep` records. With `activation_gradients` a recorded step computes
    statistics of the gradients of activations as well.

    >>> model = pb.nn.Sequential(pb.nn.Linear(4, 8), pb.nn.ReLU(), pb.nn.Linear(8, 1))
    >>> optimizer = pb.optim.SGD(model.parameters(), lr=0.1)
    >>> monitor = pb.Monitor(model, optimizer)
    >>> @pb.compile
    ... def step(x, y):
    ...     optimizer.zero_grad()
    ...     loss = pb.nn.functional.mse_loss(model(x), y)
    ...     loss.backward()
    ...     optimizer.step()
    ...     return loss
    >>> loss = step(pb.randn(16, 4), pb.randn(16, 1))
    >>> sorted(monitor.last.parameters)
    ['0.bias', '0.weight', '2.bias', '2.weight']
    >>> monitor.last.loss == loss.item()
    True
    """

    def __init__(
        self,
        model: Module,
        optimizer: Optimizer | Sequence[Optimizer],
        every: int = 1,
        sinks: Any = (),
        *,
        histograms: int | None = None,
        limits: Limits | None = None,
        on_alert: Callable[[Alert], object] | None = None,
        keep: int = 100,
        activation_gradients: bool = False,
    ):
        _check(model, every, histograms, keep)
        _check_others(limits, on_alert)
        self.model, self.every, self.histograms = model, every, histograms
        self.optimizers = _optimizers(optimizer)
        self.keep, self.on_alert = keep, on_alert
        #: the last records, the newest one last
        self.records: list[Record] = []
        #: how many steps have been done
        self.steps = 0
        self._asked: Record | None = None
        #: the newest record of the run that this one goes on from
        self._loaded: Record | None = None
        self.watch = Watch(limits or Limits())
        self.sinks: list[Sink] = [opened(sink) for sink in _listed(sinks)]
        self._names = {id(module): name or type(module).__name__ for name, module in model.named_modules()}
        self._functions = {id(m): kind for m in model.modules() if (kind := kind_of(m)) is not None}
        self._parameters = {id(p): name for name, p in model.named_parameters()}
        self._found: list[Found] = []
        self._structure: list[Alert] = []
        self._told: set[tuple[str, str]] = set()
        self._alerts: deque[Alert] = deque(maxlen=_ALERTS)
        self._recording: tuple[ref[Any], Collector] | None = None
        self._eager: Collector | None = None
        #: the optimizers, by their places, that have stepped since the last step was over
        self._stepped: set[int] = set()
        #: whether one of them was kept from it, since a GradScaler met an overflow
        self._is_skipped = False
        self._is_compiled = False
        self._before: list[tuple[Tensor, Node]] = []
        self._turn = self._next_turn()
        self._handles = [*self._hooks_of_layers(), *self._hooks_of_optimizers()]
        me = ref(self)

        def watcher(node: Node, what: str, owner: Handle | None) -> None:
            monitor = me()
            if monitor is not None:
                monitor._meet(node, what, owner)

        self._unwatch = finalize(self, WATCHERS.add(watcher))
        self._unseek = finalize(self, SEEKERS.add(_Seeker(me)) if activation_gradients else _nothing)

    def _hooks_of_layers(self) -> list[Any]:
        """Hooks of the modules that compute something themselves: those without parts, or with parameters."""
        found = []
        for name, module in self.model.named_modules():
            if not module._modules or module._parameters:
                found.append(module.register_forward_hook(_Layer(self, name or type(module).__name__)))
        return found

    def _hooks_of_optimizers(self) -> list[Any]:
        found = []
        for place, optimizer in enumerate(self.optimizers):
            found += [
                optimizer.register_step_pre_hook(self._for_own(place, lambda place, *_: self._before_step(place))),
                optimizer.register_step_post_hook(self._for_own(place, lambda place, *_: self._after_step(place))),
                optimizer._register("updated", self._for_own(place, lambda _, before: self._updated(before))),
                optimizer._register("decided", self._for_own(place, self._decided)),
            ]
        return found

    def _for_own(self, place: int, function: Callable[..., None]) -> Callable[..., None]:
        """A hook of the optimizer at a place, which a copy of the optimizer has too and which does nothing there."""

        def hook(optimizer: Any, *given: Any) -> None:
            if optimizer is self.optimizers[place]:
                function(place, *given)

        return hook

    # ---- what has been recorded

    @property
    def last(self) -> Record:
        """The newest record; in a run that goes on, the newest of the run before (without its histograms) until a step
        is recorded. LookupError where no step has been.
        """
        found = self.records[-1] if self.records else self._loaded
        if found is None:
            raise LookupError("the monitor has recorded no step yet")
        return found

    @property
    def alerts(self) -> list[Alert]:
        """What has been told, the newest last, also of records that are kept no longer: the last 1,000 alerts."""
        return list(self._alerts)

    def alert(self) -> Alert | None:
        """What of the newest record a return to an earlier state may mend, told once: values that are not finite,
        gradients that explode, a spike of the loss. So a monitor can stand among the `alerts` of a `Guard`.
        """
        if not self.records or self.records[-1] is self._asked:
            return None
        self._asked = self.records[-1]
        return next((alert for alert in self._asked.alerts if alert.kind in _SUDDEN), None)

    def close(self) -> None:
        """Watch no more: take the hooks away, and close the sinks."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._turn = _OFF
        self._unwatch()
        self._unseek()
        for sink in self.sinks:
            sink.close()
        self.sinks = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def state_dict(self) -> dict[str, Any]:
        """How many steps have been done, what losses there were, which alerts have been raised already, and the newest
        record.
        """
        last = self.records[-1] if self.records else self._loaded
        return {
            "steps": self.steps, "watch": self.watch.state_dict(), "told": sorted(map(list, self._told)),
            "last": None if last is None else last.state_dict(),
        }  # fmt: skip

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on as the monitor whose state it is: with the same step numbers, and without the same alerts again.
        StateDictError, and nothing changed, where it is no such state.
        """
        watch = Watch(self.watch.limits)
        try:
            steps, told = int(state_dict["steps"]), {(str(kind), str(where)) for kind, where in state_dict["told"]}
            watch.load_state_dict(state_dict["watch"])
            last = state_dict.get("last")  # which older files lack
            loaded = None if last is None else Record.of_state(last)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StateDictError(
                f"this is not the state of a Monitor, which has steps, watch and told: {type(error).__name__}: {error} "
                f"(at {user_source()})"
            ) from None
        self.steps, self.watch, self._told, self._loaded = steps, watch, told, loaded
        self._found, self._structure, self._eager = [], [], None
        self._stepped.clear()
        self._is_skipped = False
        self._turn = self._next_turn()

    # ---- which steps

    def _next_turn(self) -> int:
        """What the next step is."""
        step = self.steps + 1
        if step != 1 and step % self.every:
            return _OFF
        return _WITH_HISTOGRAMS if self.histograms and (step == 1 or not step % self.histograms) else _RECORDED

    def _read_turn(self) -> int:
        return self._turn

    def _collector(self, own: bool = True) -> Collector | None:
        """What collects for the recording, or for the step that is not compiled, which is going on; None in a step that
        is of no concern, and where there are no values. What is not known to be `own` may be another model's: a
        recording in which nothing else is met is not observed.
        """
        trace = STATE.trace
        if STATE.loop is not None or STATE.example is not None:
            return None
        if trace is None:
            if self._eager is None and self._turn:
                self._eager = Collector(self, self._turn, traced=False)
            return self._eager
        is_known = self._recording is not None and self._recording[0]() is trace
        if self._recording is None or not is_known:
            self._recording = ref(trace), Collector(self, self._turn, traced=True)
        collector = self._recording[1]
        if own and not collector.is_observing:
            collector.is_observing = True
            trace.guard(self._read_turn)
            trace.observe(collector)
        return collector

    # ---- what is met on the way

    def _called(self, name: str, module: Module, result: Any) -> None:
        """A layer has been called."""
        collector = self._collector(own=False) if is_grad_enabled() else None
        if collector is None or not collector.turn:
            return
        kind, function = type(module).__name__, self._functions.get(id(module))
        for tensor in flatten(result)[0]:
            if isinstance(tensor, Tensor) and tensor.dtype.is_floating_point and 0 not in tensor.shape:
                collector.activation(name, kind, function, tensor.node)

    def _meet(self, node: Node, what: str, owner: Handle | None) -> None:
        """backward() has found a loss, or the gradient of a leaf."""
        if what not in ("loss", "gradient") or (what == "gradient" and id(owner) not in self._parameters):
            return
        collector = self._collector(own=what == "gradient")
        if collector is None or not collector.turn:
            return
        if what == "loss":
            collector.loss(node)
        elif 0 not in node.shape:
            collector.gradient(self._parameters[id(owner)], node)

    def _updated(self, before: Iterable[tuple[Tensor, Node]]) -> None:
        collector = self._collector()
        if collector is not None and collector.turn:
            for parameter, node in before:
                if id(parameter) in self._parameters and 0 not in node.shape:
                    collector.update(self._parameters[id(parameter)], node, parameter)

    def _decided(self, place: int, sound: Tensor) -> None:
        """Whether an optimizer steps is decided by a value, which is known outside of recordings."""
        if STATE.trace is None:
            if not sound.item():
                self._after_step(place, is_made=False)
            return
        collector = self._collector()
        if collector is not None:
            collector.decide(sound.node)

    def _before_step(self, place: int) -> None:
        """Of an optimizer that steps in a way of its own, what it has changed is seen afterwards."""
        optimizer = self.optimizers[place]
        self._before = []
        collector = self._collector()
        if collector is None or not collector.turn:
            return
        if STATE.trace is None:  # what is computed forgets what it was made of
            collector.look_at_structure()
        if type(optimizer)._update is Optimizer._update:
            self._before = [(p, p.node) for p in parameters_of(optimizer) if p.grad is not None]

    def _after_step(self, place: int, is_made: bool = True) -> None:
        before, self._before = self._before, []
        if before:
            self._updated(before)
        del before
        collector = self._collector()
        if collector is not None:
            own = parameters_of(self.optimizers[place])
            collector.use({self._parameters[id(p)] for p in own if id(p) in self._parameters})
            collector.steps.append(place)
            if not self.is_between(collector.steps):
                collector.end_step()
        if STATE.trace is not None:
            return
        if collector is not None and not self.is_between([place]):
            self._eager = None
            collector.read()
        self.finish(place, is_made)

    def name_of(self, source: Source | None, function: str) -> str:
        """What a function that was called in a module's forward is called, such as "blocks.0.relu"."""
        running = source.modules if source is not None else ()
        inside = self._names.get(running[-1], "") if running else ""
        return f"{inside}.{function}" if inside and running[-1] != id(self.model) else function

    def may_have_called(self, source: Source | None) -> bool:
        """Whether the line may be one of the model's that calls a function: not in an activation module, which is known
        as a layer, nor in the modules of others alone.
        """
        running = source.modules if source is not None else ()
        return not running or (running[-1] not in self._functions and any(m in self._names for m in running))

    def has_gradients(self) -> bool:
        """Whether a parameter of the model has a gradient now."""
        return any(parameter._grad is not None for parameter in self.model.parameters())

    def structure(self, losses: list[Node], with_gradients: set[str]) -> list[Alert]:
        """Why parameters are not trained, as far as it is to be seen in what the losses are made of."""
        if not losses:
            return []
        optimized = {id(p) for optimizer in self.optimizers for p in parameters_of(optimizer)}
        trace = STATE.trace
        members = []
        for name, parameter in self.model.named_parameters():
            captured = None if trace is None else trace.captured.get(id(parameter))
            node = parameter._node if trace is None else None if captured is None else captured.node
            members.append(
                Member(name, node, parameter.requires_grad, name in with_gradients, id(parameter) in optimized)
            )
        return structural(losses, members)

    # ---- after a run

    def learn(self, found: list[Found], structure: list[Alert], is_whole: bool = False, compiled: bool = False) -> None:
        """Take what a run has computed; it is made a record when all optimizers have stepped. What is a whole step,
        from loss to update, takes the place of what gradients other steps have left, as those of another model's loss.
        """
        if self._turn and is_whole and not self._stepped:
            self._found, self._structure = [], []
        if self._turn:
            self._found += found
            self._structure += structure
            self._is_compiled = compiled

    def is_between(self, steps: Iterable[int]) -> bool:
        """Whether some optimizers still have to step, when those at these places have stepped one after the other."""
        stepped = set(self._stepped)
        for place in steps:
            stepped.add(place)
            if len(stepped) == len(self.optimizers):
                stepped.clear()
        return bool(stepped)

    def finish(self, place: int, is_made: bool = True) -> None:
        """The optimizer at this place has stepped, or was kept from it: then the whole is a step that was skipped."""
        self._stepped.add(place)
        self._is_skipped |= not is_made
        if len(self._stepped) < len(self.optimizers):
            return
        self._stepped.clear()
        found, self._found = self._found, []
        structure, self._structure = self._structure, []
        if self._is_skipped:
            self._is_skipped = False
            self.skip_step(found, self._is_compiled, is_scaled=True)
            return
        self.steps += 1
        recorded, self._turn = self._turn, self._next_turn()
        if recorded and self._handles:
            record = made_record(self.steps, found, self._rates(), self.model)
            record.compiled = self._is_compiled
            record.alerts = self.watch.alerts(record) + self._new_of(structure, record)
            self._tell(record)

    def skip_step(self, found: list[Found], compiled: bool = True, is_scaled: bool = False) -> None:
        """A compiled step was not finite, or one with a scaled loss overflowed, and state is as before: what it was
        like is told, and it is not counted.
        """
        if self._turn and self._handles:
            seen = [one for one in found if one.key.what != UPDATE]
            record = made_record(self.steps + 1, seen, self._rates(), self.model)
            record.compiled, record.skipped = compiled, True
            record.histograms = {}
            record.alerts = self.watch.alerts_of_skipped(record, is_scaled)
            self._tell(record)

    def _rates(self) -> list[float]:
        return [float(g["lr"]) for optimizer in self.optimizers for g in optimizer.param_groups if "lr" in g]

    def _new_of(self, structure: list[Alert], record: Record) -> list[Alert]:
        """What is to be told of why parameters are not trained. One that another loss of the step reaches is."""
        found = []
        for alert in structure:
            parameter = record.parameters.get(alert.where)
            is_reached = parameter is not None and parameter.gradient is not None
            is_over = is_reached and alert.kind in ("detached", "unreached")
            if not is_over and (alert.kind, alert.where) not in self._told:
                self._told.add((alert.kind, alert.where))
                found.append(replace(alert, step=record.step))
        return found

    def _tell(self, record: Record) -> None:
        """Give the record to all who want it."""
        self.records = [*self.records[len(self.records) + 1 - self.keep :], record][-self.keep :]
        self._alerts.extend(record.alerts)
        for sink in self.sinks:
            sink.write(record)
        if self.on_alert is not None:
            for alert in record.alerts:
                self.on_alert(alert)


class _Seeker:
    """Asks for the gradients of activations, as long as the monitor is there."""

    def __init__(self, monitor: ref[Monitor]):
        self.monitor = monitor

    def seek(self, history: set[Node]) -> list[Node]:
        """See `tensor.state.Seeker`."""
        collector = self._collector()
        return [] if collector is None else collector.sought(history)

    def receive(self, node: Node, gradient: Node) -> None:
        """See `tensor.state.Seeker`."""
        collector = self._collector()
        if collector is not None:
            collector.cotangent(node, gradient)

    def _collector(self) -> Collector | None:
        monitor = self.monitor()
        collector = None if monitor is None else monitor._collector(own=False)
        return collector if collector is not None and collector.turn else None


def _nothing() -> None:
    """Ends nothing."""


class _Layer:
    """The hook of one layer. A copy of the layer has one that does nothing: it is another model's."""

    def __init__(self, monitor: Monitor, name: str):
        self.monitor, self.name = monitor, name

    def __call__(self, module: Module, args: Any, result: Any) -> None:
        self.monitor._called(self.name, module, result)

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., None]:
        return _unwatched


def _unwatched(module: Module, args: Any, result: Any) -> None:
    """The hook of a layer that is the copy of a watched one."""


def _listed(sinks: Any) -> list[Any]:
    is_one = callable(sinks) or isinstance(sinks, (str, os.PathLike)) or hasattr(sinks, "write")
    if not is_one and not isinstance(sinks, Iterable):
        raise TypeError(f"Monitor: sinks are functions, paths or objects with write(record), got {sinks!r}")
    return [sinks] if is_one else list(sinks)


def parameters_of(optimizer: Optimizer) -> list[Tensor]:
    """All parameters that an optimizer has."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def _optimizers(given: Any) -> list[Optimizer]:
    listed: list[Any] = list(given) if isinstance(given, (list, tuple)) else [given]
    wrong = [type(each).__name__ for each in listed if not isinstance(each, Optimizer)]
    if wrong or not listed:
        raise TypeError(
            f"Monitor takes the model's optimizer, or a list of them, got {', '.join(wrong) or 'an empty list'} "
            f"(at {user_source()})"
        )
    if len({id(each) for each in listed}) < len(listed):
        raise ValueError(f"Monitor: an optimizer stands twice in the list (at {user_source()})")
    return listed


def _check(model: object, every: object, histograms: object, keep: object) -> None:
    if not isinstance(model, Module):
        raise TypeError(f"Monitor takes a Module, got {type(model).__name__} (at {user_source()})")
    given = {"every": every, "keep": keep, "histograms": every if histograms is None else histograms}
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"Monitor: {name} must be a whole number of at least 1, got {value!r}")
    if histograms is not None and histograms % every:  # type: ignore[operator]
        raise ValueError(f"Monitor: histograms must be a multiple of every ({every}), got {histograms}")


def _check_others(limits: object, on_alert: object) -> None:
    if limits is not None and not isinstance(limits, Limits):
        raise TypeError(f"Monitor: limits must be monitoring.Limits, got {type(limits).__name__} (at {user_source()})")
    if on_alert is not None and not callable(on_alert):
        raise TypeError(f"Monitor: on_alert must be a function, got {type(on_alert).__name__} (at {user_source()})")


__all__ = ["Monitor", "parameters_of"]
