"""Snapshots in memory: copies of a run's state, the newest few."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..snapshots.description import describe, rebuild
from ..snapshots.parts import KINDS, kind_of
from ..snapshots.stored import Stored
from ..tensor.random import get_rng_state, set_rng_state


class Snapshot(NamedTuple):
    """The state after `step` steps, in memory of its own. `position` is what the guard knew then of itself."""

    step: int
    description: Any
    arrays: dict[str, Stored]
    position: dict[str, Any]

    @property
    def nbytes(self) -> int:
        """What its arrays take."""
        return sum(stored.flat.nbytes for stored in self.arrays.values())


class Ring:
    """The newest `keep` snapshots."""

    def __init__(self, keep: int):
        self.keep = keep
        self.snapshots: list[Snapshot] = []

    @property
    def nbytes(self) -> int:
        """What all snapshots take together."""
        return sum(snapshot.nbytes for snapshot in self.snapshots)

    def take(self, step: int, parts: Mapping[str, Any], position: dict[str, Any]) -> None:
        """Copy the state of all parts, and that of the default generator; the oldest snapshot goes first."""
        del self.snapshots[: max(0, len(self.snapshots) + 1 - self.keep)]
        tree = {name: KINDS[kind_of(part)].take(part) for name, part in parts.items()}
        description, arrays = describe({"parts": tree, "generator": get_rng_state()}, copy=True)
        self.snapshots.append(Snapshot(step, description, arrays, position))

    def find(self, before: int, back: int) -> Snapshot | None:
        """The newest snapshot of a step up to `before`, or one that lies `back` further behind, or the oldest."""
        fit = [snapshot for snapshot in self.snapshots if snapshot.step <= before]
        return fit[max(0, len(fit) - 1 - back)] if fit else None

    def restore(self, snapshot: Snapshot, parts: Mapping[str, Any]) -> None:
        """Give all parts the state of a snapshot; those that were taken after it are dropped."""
        tree = rebuild(snapshot.description, snapshot.arrays)
        for name, part in parts.items():
            give = KINDS[kind_of(part)].give
            assert give is not None
            give(part, tree["parts"][name])
        set_rng_state(tree["generator"])
        self.snapshots = [kept for kept in self.snapshots if kept.step <= snapshot.step]


__all__ = ["Ring", "Snapshot"]
