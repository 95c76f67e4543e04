"""Trainings that go on where they were killed: snapshots in a directory, and of which run they must be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pullback as pb

from ..errors import SnapshotError


def trained_as(settings: Any) -> dict[str, Any]:
    """What of a training's settings its weights depend on."""
    return {name: value for name, value in asdict(settings).items() if name != "evaluate_every"}


class Snapshots:
    """The snapshots of one training in a directory, the newest three, one every `every` steps.

    `parts` are what changes from step to step: model, optimizer, where the data stands. `about` are the settings that
    make the run what it is, as plain values: a directory of another run is refused.
    """

    def __init__(self, directory: Path, every: int, about: Mapping[str, Any], parts: Mapping[str, Any]):
        self.directory = directory
        self.about, self.parts = dict(about), dict(parts)
        self._kept = pb.Checkpointer(directory, keep=3, every=every)

    def begin(self) -> int:
        """The steps that are done: the state is that after them. 0 where there is no snapshot.

        Raises SnapshotError, with nothing changed and the directory let go, where the newest whole snapshot is of
        another run.
        """
        try:
            return self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> int:
        generator = pb.get_rng_state()
        if self._kept.restore() is None:
            return 0
        pb.set_rng_state(generator)
        before = self._kept.values.get("about")
        if before != self.about:
            known = before if isinstance(before, dict) else {}
            others = [
                f"{name} was {known.get(name, 'not there')}, and is {value}"
                for name, value in self.about.items()
                if known.get(name) != value
            ]
            raise SnapshotError(
                self._kept.directory,
                f"its snapshots are of another run: {'; '.join(others) or 'of another kind'}. Give the same options as "
                "then, or another directory",
            )
        return self._kept.restore(**self.parts) or 0

    def after(self, step: int, force: bool = False) -> None:
        """Take a snapshot where it is the turn of `step`, or in any case."""
        self._kept.save(step, force=force, about=self.about, **self.parts)

    def close(self) -> None:
        """Wait for the snapshot under way, and let others have the directory."""
        self._kept.close()


__all__ = ["Snapshots", "trained_as"]
