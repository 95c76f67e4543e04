"""What a guard did, and why."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import NonFiniteError

#: what of a NonFiniteError is told in an event
_OF_A_FAULT = ("op", "primitive", "filename", "lineno", "module", "phase", "how")


@dataclass(frozen=True)
class Event:
    """One alert and what came of it.

    `step` counts the observed steps; `epoch` and `batch` are the position in the data. `kind` is "nonfinite", "spike",
    "explosion" or "alert", `reason` says it in words, and `fault` has the attributes of a NonFiniteError. `restored` is
    the step of the snapshot that was gone back to, or None where the guard gave up, and `changes` are what was changed
    then.
    """

    step: int
    epoch: int
    batch: int
    kind: str
    reason: str
    restored: int | None = None
    changes: list[str] = field(default_factory=list)
    fault: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The event as JSON can hold it."""
        return asdict(self)

    def __str__(self) -> str:
        at = f"step {self.step} (epoch {self.epoch}, batch {self.batch})"
        done = "not gone back" if self.restored is None else f"back to step {self.restored}"
        return f"{at}: {self.reason.splitlines()[0].rstrip('.')}; {'; '.join([done, *self.changes])}"


@dataclass(frozen=True)
class Trigger:
    """Why a guard is to act."""

    kind: str
    reason: str
    fault: dict[str, Any] = field(default_factory=dict)


def trigger_of(what: object) -> Trigger:
    """A trigger from whatever says one: a NonFiniteError, another exception, a text, an object of a monitor."""
    if isinstance(what, Trigger):
        return what
    if isinstance(what, NonFiniteError):
        return Trigger("nonfinite", str(what), {name: getattr(what, name) for name in _OF_A_FAULT})
    if isinstance(what, BaseException):
        return Trigger("alert", f"{type(what).__name__}: {what}")
    return Trigger(str(getattr(what, "kind", "alert")), str(what))


def not_finite(what: str, value: float) -> Trigger:
    """The alert for a number that is not finite."""
    return Trigger("nonfinite", f"the {what} is {'NaN' if math.isnan(value) else 'infinite'}")


__all__ = ["Event", "Trigger", "not_finite", "trigger_of"]
