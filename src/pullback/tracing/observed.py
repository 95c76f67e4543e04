"""What observers of a recorded step are told after each run: numbers, which are outputs of the program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..graph.node import Node
from .trace import Observer


class Observed:
    """The numbers of all observers of a recording, by their places among its outputs."""

    def __init__(self, observers: Sequence[Observer], outputs: list[Node]):
        """Asks the observers for their numbers, and enters these among the outputs."""
        self.places: list[int] = []
        #: the places of those that new state has no part in
        self.early: list[int] = []
        self._shares: list[tuple[Observer, int]] = []
        for observer in observers:
            early, late = observer.numbers()
            first = len(outputs)
            outputs += [*early, *late]
            self.places += range(first, len(outputs))
            self.early += range(first, first + len(early))
            self._shares.append((observer, len(early) + len(late)))

    def values(self, outputs: Sequence[Any]) -> list[float]:
        """The numbers of a run, before another one writes over them."""
        return [outputs[place].array.item(0) for place in self.places]

    def give(self, values: list[float], taken: bool = True) -> None:
        """Tell each observer its numbers, and whether the state of the run has been `taken` in."""
        start = 0
        for observer, count in self._shares:
            observer.take(values[start : start + count], taken)
            start += count

    def tell(self, outputs: Sequence[Any], taken: bool = True) -> None:
        """Tell each observer its numbers of the run that made these outputs."""
        if self._shares:
            self.give(self.values(outputs), taken)


__all__ = ["Observed"]
