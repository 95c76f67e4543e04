"""State that an optimizer was given while a step was recorded, such as moments of zeros.

The recording reads and writes these tensors, but they are the optimizer's only once a run of it has changed them: a
first step that fails leaves the state as it was, without them.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Entry(NamedTuple):
    """What is to stand in a store under a key."""

    store: dict[Any, Any]
    key: Any
    value: Any


class Prepared:
    """Entries of stores, in the order in which they are made."""

    def __init__(self, entries: list[Entry]):
        self.entries = entries

    def enter(self) -> bool:
        """Have them stand there; False, and nothing done, where something else does."""
        if any(entry.key in entry.store for entry in self.entries):
            return False
        for store, key, value in self.entries:
            store[key] = value
        return True

    def withdraw(self) -> None:
        """Take them away again, but for what somebody else has put there meanwhile."""
        for store, key, value in reversed(self.entries):
            if store.get(key) is value:
                del store[key]


__all__ = ["Entry", "Prepared"]
