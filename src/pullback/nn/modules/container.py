"""Modules that hold others: one after the other, in a list, by name."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any, Self

from ...ops.primitive import user_source
from .module import Module


def pairs_of(owner: str, given: object) -> Iterator[tuple[str, Any]]:
    """The names and values of a mapping, or of an iterable of pairs."""
    if isinstance(given, Mapping) or callable(getattr(given, "items", None)):
        yield from given.items()  # type: ignore[attr-defined]
        return
    for number, pair in enumerate(iterated(f"{owner}: a mapping or an iterable of pairs", given)):
        if not isinstance(pair, Iterable):
            raise TypeError(f"{owner}: element {number} must be a pair, got {type(pair).__name__} (at {user_source()})")
        values = tuple(pair)
        if len(values) != 2:
            raise ValueError(f"{owner}: element {number} must be a pair, got {len(values)} values (at {user_source()})")
        yield values


def iterated(what: str, given: object) -> Iterable[Any]:
    """`given`, which must be something to iterate over."""
    if not isinstance(given, Iterable):
        raise TypeError(f"{what} is needed, got {type(given).__name__} (at {user_source()})")
    return given


class _Numbered(Module):
    """Modules under the names "0", "1", …"""

    def _name(self, index: Any) -> str:
        number, count = operator.index(index), len(self)
        if not -count <= number < count:
            raise IndexError(f"index {number} is outside the {count} modules (at {user_source()})")
        return list(self._modules)[number]

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self._of(list(self._modules.items())[index])
        return self._modules[self._name(index)]

    def _of(self, items: list[tuple[str, Any]]) -> Module:
        return type(self)([module for _, module in items])  # type: ignore[call-arg]

    def __setitem__(self, index: int, module: Module) -> None:
        setattr(self, self._name(index), module)

    def __delitem__(self, index: int | slice) -> None:
        names = list(self._modules)
        for name in names[index] if isinstance(index, slice) else [self._name(index)]:
            del self._modules[name]
        self._number(list(self._modules.values()))

    def _number(self, held: list[Any]) -> None:
        """Hold these modules, named by their places, as PyTorch does even where they had other names."""
        self._modules.clear()
        self._modules.update((str(number), module) for number, module in enumerate(held))

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._modules.values())

    def append(self, module: Module) -> Self:
        """Add a module at the end."""
        self.add_module(str(len(self)), module)
        return self

    def _insert(self, index: int, module: Module) -> None:
        if not isinstance(module, Module):
            raise TypeError(f"insert takes a module, got {type(module).__name__} (at {user_source()})")
        count = len(self)
        if not -count <= index <= count:
            raise IndexError(f"insert: index {index} is outside the {count} modules (at {user_source()})")
        held = list(self)
        held.insert(index, module)
        self._number(held)

    def extend(self, modules: Iterable[Module]) -> Self:
        """Add modules at the end."""
        for module in list(iterated(f"{type(self).__name__}.extend: an iterable of modules", modules)):
            self.append(module)
        return self

    def pop(self, key: int | slice) -> Any:
        """Take a module out, or several with a slice; those behind it are numbered anew."""
        taken = self[key]
        del self[key]
        return taken


class Sequential(_Numbered):
    """Modules applied one after the other: `Sequential(a, b)`, or named `Sequential({"first": a, "second": b})`.

    `+` joins two, `*` repeats the same modules (which share their parameters), a slice is a Sequential of its part.

    >>> model = pb.nn.Sequential(pb.nn.Linear(2, 2)) * 2 + pb.nn.Sequential(pb.nn.ReLU())
    >>> len(model), model[0] is model[1], sum(p.numel() for p in model.parameters())
    (3, True, 6)
    """

    def __init__(self, *args: Any):
        super().__init__()
        named = len(args) == 1 and isinstance(args[0], Mapping)
        for name, module in args[0].items() if named else ((str(i), m) for i, m in enumerate(args)):
            self.add_module(name, module)

    def _of(self, items: list[tuple[str, Any]]) -> Sequential:
        return type(self)(dict(items))

    def insert(self, index: int, module: Module) -> Self:
        """Put a module before the one at `index`; those behind it are numbered anew."""
        self._insert(index, module)
        return self

    def __add__(self, other: Sequential) -> Sequential:
        return Sequential(*self, *self._joined("+", other))

    def __iadd__(self, other: Sequential) -> Self:
        return self.extend(list(self._joined("+=", other)))

    def _joined(self, sign: str, other: object) -> Sequential:
        if not isinstance(other, Sequential):
            raise ValueError(f"Sequential {sign} takes a Sequential, got {type(other).__name__} (at {user_source()})")
        return other

    def __mul__(self, other: int) -> Sequential:
        return Sequential(*list(self) * self._times(other))

    __rmul__ = __mul__

    def __imul__(self, other: int) -> Self:
        return self.extend(list(self) * (self._times(other) - 1))

    def _times(self, other: object) -> int:
        if not isinstance(other, int):
            raise TypeError(f"Sequential * takes a whole number, got {type(other).__name__} (at {user_source()})")
        if other <= 0:
            raise ValueError(f"Sequential * takes a positive number, got {other} (at {user_source()})")
        return other

    def forward(self, input: Any) -> Any:
        """The last module's result."""
        for module in self:
            input = module(input)
        return input


class ModuleList(_Numbered):
    """A list of modules whose parameters are the list's; `+` and `+=` take any iterable of modules."""

    def __init__(self, modules: Iterable[Module] | None = None):
        super().__init__()
        self.extend(() if modules is None else modules)

    def insert(self, index: int, module: Module) -> None:
        """Put a module before the one at `index`; those behind it are numbered anew."""
        self._insert(index, module)

    def __add__(self, other: Iterable[Module]) -> ModuleList:
        return ModuleList(self).extend(other)

    def __iadd__(self, modules: Iterable[Module]) -> Self:
        return self.extend(modules)

    def __repr__(self) -> str:
        """Modules that print alike and follow one another are printed once, with how many they are."""
        lines = []
        start = 0
        for text, alike in groupby(map(repr, self)):
            count = len(list(alike))
            name = f"({start}): " if count == 1 else f"({start}-{start + count - 1}): {count} x "
            lines.append("  " + (name + text).replace("\n", "\n  ") + "\n")
            start += count
        return f"{self._get_name()}(\n" + "".join(lines) + ")" if lines else f"{self._get_name()}()"


class ModuleDict(Module):
    """Modules by name, whose parameters are the dictionary's."""

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] | None = None):
        super().__init__()
        self.update(() if modules is None else modules)

    def __getitem__(self, key: str) -> Any:
        if key not in self._modules:
            raise KeyError(f"there is no module {key!r}, only {list(self._modules)} (at {user_source()})")
        return self._modules[key]

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, module)

    def __delitem__(self, key: str) -> None:
        self[key]  # which says what is there, where the key is not
        del self._modules[key]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __contains__(self, key: str) -> bool:
        return key in self._modules

    def clear(self) -> None:
        """Take all modules out."""
        self._modules.clear()

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._modules.keys()

    def items(self) -> Iterable[tuple[str, Any]]:
        """Names and modules."""
        return self._modules.items()

    def values(self) -> Iterable[Any]:
        """The modules."""
        return self._modules.values()

    def pop(self, key: str) -> Any:
        """Take a module out."""
        module = self[key]
        del self[key]
        return module

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        """Add or replace modules."""
        for key, module in pairs_of(f"{type(self).__name__}.update", modules):
            self[key] = module


__all__ = ["ModuleDict", "ModuleList", "Sequential"]
