"""Stores: the dictionaries of modules and optimizers, whose changes are counted for recorded steps."""

from __future__ import annotations

from typing import Any, Self

#: how often any module was given another parameter, buffer or part, or any optimizer another state
STRUCTURE_CHANGES = [0]


def structure_changed() -> None:
    """Count a change of a module's attributes."""
    STRUCTURE_CHANGES[0] += 1


class Store(dict[Any, Any]):
    """The parameters, buffers or parts of a module, or an optimizer's state: a dictionary whose changes are counted."""

    def __setitem__(self, name: Any, value: Any) -> None:
        STRUCTURE_CHANGES[0] += 1
        super().__setitem__(name, value)

    def __delitem__(self, name: Any) -> None:
        STRUCTURE_CHANGES[0] += 1
        super().__delitem__(name)

    def __ior__(self, others: Any) -> Self:  # type: ignore[misc]
        self.update(others)
        return self

    def update(self, *others: Any, **named: Any) -> None:
        """As dict.update."""
        for name, value in dict(*others, **named).items():
            self[name] = value

    def setdefault(self, name: Any, default: Any = None) -> Any:
        """As dict.setdefault."""
        if name not in self:
            self[name] = default
        return self[name]

    def pop(self, *name: Any) -> Any:
        """As dict.pop."""
        STRUCTURE_CHANGES[0] += 1
        return super().pop(*name)

    def popitem(self) -> tuple[Any, Any]:
        """As dict.popitem."""
        STRUCTURE_CHANGES[0] += 1
        return super().popitem()

    def clear(self) -> None:
        """As dict.clear."""
        STRUCTURE_CHANGES[0] += 1
        super().clear()


__all__ = ["STRUCTURE_CHANGES", "Store", "structure_changed"]
