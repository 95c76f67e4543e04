"""Guard: goes back to a good snapshot where a run goes wrong, changes something, and goes on.

So are large language models trained by hand: a spike is met by a return to the snapshot before it and by leaving out
the batches around it (Chowdhery et al., "PaLM", 2022, section 5.1).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any
from weakref import ref

from ..errors import GuardError, StateDictError
from ..ops.primitive import user_source
from ..snapshots import Checkpointer
from ..tracing.finite import taking_faults
from .changes import scale_rates, ways_of
from .checks import check_numbers, check_parts, check_sources, has_position
from .events import Event, Trigger, not_finite, trigger_of
from .ring import Ring, Snapshot
from .spikes import Window


class Guard:
    """Watches a run, keeps snapshots of it in memory, and takes it back to a good one where something goes wrong.

    An alert is a step that was not finite (of a step compiled with `on_nonfinite="rollback"`, or a loss that is NaN or
    infinite), a loss or a gradient norm that stands out of the last `window` ones, or whatever `alert` is called with.
    The run then goes back to the newest snapshot from before it (at a further alert before new data is reached, to the
    one before), `policy` changes something, and what was done is noted in `events`. After `tries` returns in a row
    that did not help, GuardError reports them all: one has helped when as many good steps of new data have followed it
    as "skip" leaves batches out (2 · `around` + 1). What comes then is another matter, for the first policy; so is an
    alert further on in the data than the last, but after `tries` such in a row it is the run that is in trouble.

    - `model`, `optimizer`, `scheduler` (one, or a list of each) and further `parts` by name are saved and restored:
      what has `state_dict` and `load_state_dict`, generators; and always the default generator.
    - `every` so many steps a snapshot is taken, and the newest `keep` stay. `nbytes` is what they take.
    - `policy`: "skip" leaves out the batch of the alert and `around` ones before and after it; "lower_lr" multiplies
      the learning rates by `lr_factor`; "tighten_clip" multiplies `clip`, at which the step clips as `guard.clip`, by
      `clip_factor`; a function of the guard and the Event may change anything. Several in a tuple are made at once; of
      a list the first is for the first try, the next for the next, and the last for all that follow.
    - `spike`: by how many robust standard deviations (from the median absolute deviation, at least 5% of the median) a
      loss is a spike, and of the first eight by how many of their spreads above the largest; `explosion`: the same of
      the logarithm of the gradient norm, from the ninth on. None: not looked at.
    - Where a GradScaler leaves out the steps whose gradients overflow, a gradient norm that is not finite is no alert.
    - `alerts`: functions that are asked at each step, or objects with an `alert()` method, such as a `Monitor`; what
      they give, unless it is None or empty, is an alert.
    - `checkpointer` saves the same parts, and the guard, to disk whenever a snapshot is taken, as its own `every` says,
      and after each return; `resume()` goes on from there.

    >>> model = pb.nn.Linear(2, 1)
    >>> optimizer = pb.optim.SGD(model.parameters(), lr=0.1)
    >>> guard = pb.Guard(model, optimizer, every=10)
    >>> @pb.compile(on_nonfinite="rollback")
    ... def step(x):
    ...     optimizer.zero_grad()
    ...     loss = model(x).square().mean()
    ...     loss.backward()
    ...     optimizer.step()
    ...     return loss
    >>> data = [pb.ones(4, 2)] * 20
    >>> data[15] = pb.full((4, 2), pb.nan)
    >>> for x in guard.batches(data):
    ...     good = guard.observe(step(x))
    >>> print(guard.events[0])
    step 16 (epoch 0, batch 15): the loss is not finite at call 16 of the step: argument 1 is NaN in the data already; \
back to step 10; batches 14 to 16 of epoch 0 left out
    """

    def __init__(
        self,
        model: Any,
        optimizer: Any,
        *,
        scheduler: Any = None,
        every: int = 50,
        keep: int = 3,
        policy: Any = "skip",
        tries: int = 3,
        window: int = 64,
        spike: float | None = 10.0,
        explosion: float | None = 20.0,
        around: int = 1,
        lr_factor: float = 0.5,
        clip: float | None = None,
        clip_factor: float = 0.5,
        alerts: Iterable[Any] = (),
        checkpointer: Checkpointer | None = None,
        parts: Mapping[str, Any] | None = None,
    ):
        check_numbers(
            {"every": (every, 1), "keep": (keep, 1), "tries": (tries, 1), "window": (window, 8), "around": (around, 0)},
            {"lr_factor": lr_factor, "clip_factor": clip_factor},
            {"spike": spike, "explosion": explosion, "clip": clip},
        )
        self.every, self.tries, self.around = every, tries, around
        self.spike, self.explosion = spike, explosion
        self.lr_factor, self.clip, self.clip_factor = lr_factor, clip, clip_factor
        self.ways = ways_of(policy, clip is not None)
        self.alerts = list(alerts) if isinstance(alerts, Iterable) else [alerts]
        self.checkpointer = checkpointer
        check_sources(self.alerts, checkpointer)
        self._optimizers, self._schedulers = _listed(optimizer), _listed(scheduler)
        self.parts = {
            **_named("model", _listed(model)),
            **_named("optimizer", self._optimizers),
            **_named("scheduler", self._schedulers),
            **(parts or {}),
        }
        check_parts(self.parts, self._optimizers)
        #: how many steps were observed, the position in the data, and the alerts so far
        self.step, self.epoch, self.batch = 0, 0, 0
        self.events: list[Event] = []
        #: by what the learning rates were multiplied in all
        self.lr_scale = 1.0
        self._losses, self._norms = Window(window), Window(window, logarithmic=True)
        self._skipped: set[tuple[int, int]] = set()
        #: returns in a row; of them the last ones that came no further in the data than the one before; how far; and
        #: how many troubles in a row there were, each further than the one before
        self._returns, self._again, self._furthest, self._troubles = 0, 0, (-1, -1), 0
        #: the good steps since the last return, how many it threw away, and the good ones that were further than ever
        self._good, self._lost, self._new = 0, 0, 0
        #: whether a GradScaler decides which steps are made
        self._is_scaled = False
        self._watch_for_scalers()
        self._ring = Ring(keep)
        self._loader: Any = None
        self._pending: Trigger | None = None
        #: whether the batch of the position is given out already, and whether the data must go back
        self._given, self._rewind = False, False
        #: whether a snapshot is to be taken when the loop is through with the step
        self._is_due = False
        #: whether one is to be written to disk before the next batch is given
        self._is_saved_first = False

    def _watch_for_scalers(self) -> None:
        me = ref(self)

        def decided(*_: object) -> None:
            guard = me()
            if guard is not None:
                guard._is_scaled = True

        for optimizer in self._optimizers:
            if hasattr(optimizer, "_register"):  # one of the package's
                optimizer._register("decided", decided)

    # ---- the loop

    def batches(self, loader: Any, epochs: int | None = None) -> Iterator[Any]:
        """The batches of a loader, epoch after epoch until there were `epochs` in all (None: to the end of this one).

        After a return they go on from the position of the snapshot: of a loader with `state_dict`, a list or a tuple;
        of another iterable with the next batch. Batches to be left out are not given.
        """
        if epochs is not None:
            check_numbers({"epochs": (epochs, 0)}, {}, {})
        last = self.epoch + 1 if epochs is None else epochs
        self._loader = loader
        if not self._ring.snapshots:
            self.snapshot()
        with taking_faults(self._take):
            while self.epoch < last:
                yield from self._epoch(loader)

    def _epoch(self, loader: Any) -> Iterator[Any]:
        """The rest of an epoch, or up to a return."""
        self._rewind = self._given = self._is_due = False
        source = iter(loader)
        if self._is_saved_first:
            self._is_saved_first = False
            self._save(force=True)
        if isinstance(loader, (list, tuple)):
            source = islice(source, self.batch, None)
        for batch in source:
            if (self.epoch, self.batch) in self._skipped:
                self.batch += 1
                continue
            self._given = True
            yield batch
            if self._pending is not None:  # and nobody has observed it
                self.observe(math.nan)
            if self._rewind:
                return
            self.batch, self._given = self.batch + 1, False
            if self._is_due:  # now that the loop is through with the step, with its schedule too
                self.snapshot()
        self.epoch, self.batch = self.epoch + 1, 0

    def observe(self, loss: Any, norm: Any = None) -> bool:
        """Look at the loss, and the gradient norm if given, of the step that was just made. Whether it was good: False
        after a return. GuardError where there were too many.
        """
        self.step += 1
        loss = float(loss)
        norm = None if norm is None else float(norm)
        if norm is not None and self._is_scaled and not math.isfinite(norm):
            norm = None  # the step changed nothing, and the scale is lowered
        found, self._pending = self._pending or self._judge(loss, norm), None
        if found is not None:
            self._go_back(found)
            return False
        self._losses.add(loss)
        if norm:
            self._norms.add(norm)
        self._good += 1
        self._new += self._is_new()
        if self._new >= self._enough:
            self._returns = self._again = self._troubles = 0  # what comes now is another matter
        self._is_due = self.step % self.every == 0
        if not self._given and (self._is_due or not self._ring.snapshots):
            self.snapshot()
        return True

    def _is_new(self) -> bool:
        """Whether the step that was made is one that had not been good before the last return."""
        if self._given and self._goes_back_in_data:
            return (self.epoch, self.batch) >= self._furthest
        return self._good >= self._lost

    @property
    def _enough(self) -> int:
        """So many new good steps say that a return has helped: fewer would be less than it may have left out."""
        return 2 * self.around + 1

    def alert(self, what: object = "an alert from outside") -> None:
        """Go back now, for a reason from elsewhere: a text, an exception such as NonFiniteError, a monitor's alert."""
        self._pending = None
        self.step += 1
        self._go_back(trigger_of(what))

    def _take(self, fault: BaseException) -> None:
        """A compiled step was not finite: what came of it is done when the loop comes back."""
        self._pending = trigger_of(fault)

    def _judge(self, loss: float, norm: float | None) -> Trigger | None:
        for what, value in (("loss", loss), ("gradient norm", 0.0 if norm is None else norm)):
            if not math.isfinite(value):
                return not_finite(what, value)
        scales, middle = self._losses.deviation(loss)
        if self.spike is not None and scales > self.spike:
            what = "spreads of the first losses" if self._losses.is_short else "robust deviations"
            return Trigger("spike", f"the loss is {loss:.4g}, {scales:.0f} {what} above {middle:.4g}")
        if norm is not None and self.explosion is not None:
            scales, middle = self._norms.deviation(norm)
            if scales > self.explosion:
                return Trigger("explosion", f"the gradient norm is {norm:.4g}, {norm / middle:.0f} times {middle:.4g}")
        for source in self.alerts:
            told = getattr(source, "alert", source)()
            if told:
                return trigger_of(told[0] if isinstance(told, (list, tuple)) else told)
        return None

    # ---- snapshots

    def snapshot(self) -> None:
        """Take a snapshot now, between two steps. Done by itself every `every` steps: when the loop asks for the next
        batch, or, where it does not run over `batches`, in `observe`, there after the first good step too.
        """
        self._is_due = False
        self._ring.take(self.step, {**self.parts, **self._loader_part()}, self._position())
        if self.checkpointer is not None and self.step:
            self._save(force=False)

    @property
    def _goes_back_in_data(self) -> bool:
        return bool(self._loader_part()) or isinstance(self._loader, (list, tuple))

    def _loader_part(self) -> dict[str, Any]:
        return {"loader": self._loader} if hasattr(self._loader, "state_dict") else {}

    def _position(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "batch": self.batch + self._given, "lr_scale": self.lr_scale}

    def _save(self, force: bool) -> None:
        assert self.checkpointer is not None
        self.checkpointer.save(self.step, force=force, guard=self, **self.parts, **self._loader_part())

    @property
    def nbytes(self) -> int:
        """What the snapshots in memory take."""
        return self._ring.nbytes

    @property
    def snapshots(self) -> list[int]:
        """After which steps the snapshots in memory were taken."""
        return [snapshot.step for snapshot in self._ring.snapshots]

    # ---- going back

    def _go_back(self, alert: Trigger) -> None:
        event = Event(self.step, self.epoch, self.batch, alert.kind, alert.reason, fault=alert.fault)
        here = self.epoch, self.batch
        is_further = here > self._furthest if self._given else self._good > self._lost
        self._again = 0 if is_further or not self._returns else self._again + 1
        if not self._returns or (is_further and self._troubles < self.tries):
            self._returns, self._troubles = 0, self._troubles + 1
        found = self._ring.find(self.step - 1, self._again)
        if found is None or self._returns >= self.tries:
            self.events.append(event)
            raise GuardError(self._gives_up(found is None), tuple(self.events))
        way = self.ways[min(self._returns, len(self.ways) - 1)]
        self._returns, self._furthest = self._returns + 1, max(self._furthest, here)
        self._good, self._lost, self._new = 0, self.step - found.step, 0
        self._restore(found)
        changes = [said for change in way if (said := change(self, event))]
        self.events.append(Event(**{**event.to_dict(), "restored": found.step, "changes": changes}))
        for source in self.alerts:  # what is told of the steps that are thrown away is told
            source.alert() if hasattr(source, "alert") else source()
        if self.checkpointer is not None:
            if self._rewind:
                self._is_saved_first = True  # where the data stands again, which is known when it is begun anew
            else:
                self._save(force=True)

    def _restore(self, snapshot: Snapshot) -> None:
        loader = self._loader_part()
        self._ring.restore(snapshot, {**self.parts, **loader})
        position = snapshot.position
        # what was lowered since stays lowered
        scale_rates(self._optimizers, self._schedulers, self.lr_scale / position["lr_scale"])
        if self._goes_back_in_data:
            self.epoch, self.batch = position["epoch"], position["batch"]
            self._rewind = True

    def _gives_up(self, nowhere: bool) -> str:
        why = "there is no snapshot to go back to"
        if not nowhere:
            count = f"{self._enough} good step{'s' if self._enough > 1 else ''}"
            why = f"{self._returns} returns in a row did not help: none was followed by {count} of new data"
        return "\n".join([f"the guard gives up: {why}", *(f"    {event}" for event in self.events)])

    # ---- changes

    def skip(self, epoch: int, batches: Iterable[int]) -> str:
        """Have these batches of an epoch left out when the run comes to them."""
        listed = list(batches)
        self._skipped.update((epoch, batch) for batch in listed)
        return f"batches {listed[0]} to {listed[-1]} of epoch {epoch} left out"

    def scale_rates(self, factor: float) -> None:
        """Multiply the learning rates of the optimizers, and those of schedules. A rate that the loop itself sets has
        to be multiplied by `lr_scale`.
        """
        scale_rates(self._optimizers, self._schedulers, factor)
        self.lr_scale *= factor

    # ---- going on later

    def resume(self, loader: Any = None) -> int | None:
        """Go on from the checkpointer's newest snapshot that is whole: its step, or None where there is none. The
        loader that the run had is given too: one with `state_dict` goes on from its position, a list or a tuple from
        that of the guard.
        """
        if self.checkpointer is None:
            raise ValueError(f"Guard.resume needs checkpointer= (at {user_source()})")
        known = loader if has_position(loader) else None
        return self.checkpointer.restore(guard=self, loader=known, **self.parts)

    def state_dict(self) -> dict[str, Any]:
        """What the guard has seen and done; the snapshots in memory are no part of it."""
        return {
            "step": self.step,
            **self._position(),
            "clip": self.clip,
            "events": [event.to_dict() for event in self.events],
            "losses": list(self._losses.values),
            "norms": list(self._norms.values),
            "skipped": sorted(map(list, self._skipped)),
            "returns": [
                *(self._returns, self._again, *self._furthest, self._troubles),
                *(self._good, self._lost, self._new),
            ],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave. StateDictError, with nothing changed, where it is no state of a Guard."""
        try:
            events = [Event(**event) for event in state["events"]]
            skipped = {(int(epoch), int(batch)) for epoch, batch in state["skipped"]}
            losses, norms = [float(v) for v in state["losses"]], [float(v) for v in state["norms"]]
            returns, again, epoch, batch, troubles, good, lost, new = state["returns"]
            place = int(state["step"]), int(state["epoch"]), int(state["batch"])
            scale, clip = float(state["lr_scale"]), state["clip"]
        except (KeyError, TypeError, ValueError) as error:
            raise StateDictError(
                f"this is not the state of a Guard: {type(error).__name__}: {error} (at {user_source()})"
            ) from None
        self.step, self.epoch, self.batch = place
        self.lr_scale, self.clip, self.events = scale, clip, events
        self._losses.set(losses)
        self._norms.set(norms)
        self._skipped = skipped
        self._returns, self._again, self._furthest, self._troubles = returns, again, (epoch, batch), troubles
        self._good, self._lost, self._new = good, lost, new
        self._given = False
        self._ring.snapshots.clear()

    def __str__(self) -> str:
        head = (
            f"{self.step} steps, {len(self.events)} alerts; snapshots of steps {self.snapshots}, {self.nbytes:,} bytes"
        )
        return "\n".join([head, *(f"    {event}" for event in self.events)])


def _listed(given: Any) -> list[Any]:
    return [] if given is None else list(given) if isinstance(given, (list, tuple)) else [given]


def _named(name: str, parts: Sequence[Any]) -> dict[str, Any]:
    return {name: parts[0]} if len(parts) == 1 else {f"{name}{number}": part for number, part in enumerate(parts)}


__all__ = ["Guard"]
