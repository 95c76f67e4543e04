"""Modules that hold others, or parameters: one after the other, in a list, by name."""

from __future__ import annotations

import operator
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Iterator, KeysView, Mapping
from itertools import groupby
from typing import Any, Self

from ...ops.primitive import user_source
from ...tensor import Tensor
from ..parameter import Parameter
from .module import Module, _addindent


class Container(Module):
    """Modules by name, given as keyword arguments: what PyTorch had before ModuleDict, and warns of."""

    def __init__(self, **kwargs: Module):
        super().__init__()
        warnings.warn("Container is deprecated; use ModuleDict, or a Module of your own", FutureWarning, stacklevel=2)
        for name, module in kwargs.items():
            self.add_module(name, module)


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
            lines.append("  " + _addindent(name + text, 2) + "\n")
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


def _held(value: Any) -> Any:
    """What is held of a value: of a tensor, a parameter."""
    return Parameter(value) if isinstance(value, Tensor) and not isinstance(value, Parameter) else value


def _described(values: Iterable[tuple[Any, Any]]) -> str:
    lines = []
    for name, value in values:
        if isinstance(value, Tensor):
            kind, sizes = "Parameter" if isinstance(value, Parameter) else "Tensor", "x".join(map(str, value.shape))
            lines.append(f"  ({name}): {kind} containing: [{value.dtype!r} of size {sizes}]")
        else:
            lines.append(f"  ({name}): Object of type: {type(value).__name__}")
    return "\n".join(lines)


class ParameterList(Module):
    """A list of parameters, which are the module's under the names "0", "1", …

    Tensors become parameters. Other values, such as further lists, are kept as they are.

    >>> scales = pb.nn.ParameterList([pb.ones(2), pb.ones(3)])
    >>> [(name, p.shape) for name, p in scales.named_parameters()]
    [('0', pullback.Size([2])), ('1', pullback.Size([3]))]
    """

    def __init__(self, values: Iterable[Any] | None = None):
        super().__init__()
        self._size = 0
        self.extend(() if values is None else values)

    def _name(self, index: Any) -> str:
        number, count = operator.index(index), self._size
        if not -count <= number < count:
            raise IndexError(f"index {number} is outside the {count} parameters (at {user_source()})")
        return str(number % count)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)([self[number] for number in range(self._size)[index]])
        return getattr(self, self._name(index))

    def __setitem__(self, index: int, param: Any) -> None:
        setattr(self, self._name(index), _held(param))

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Any]:
        return (self[number] for number in range(self._size))

    def __iadd__(self, parameters: Iterable[Any]) -> Self:
        return self.extend(parameters)

    def append(self, value: Any) -> Self:
        """Add a value at the end."""
        setattr(self, str(self._size), _held(value))
        self._size += 1
        return self

    def extend(self, values: Iterable[Any]) -> Self:
        """Add values at the end."""
        if isinstance(values, Tensor):
            raise TypeError(f"ParameterList.extend takes an iterable of values, got a tensor (at {user_source()})")
        for value in list(iterated("ParameterList.extend: an iterable of values", values)):
            self.append(value)
        return self

    def extra_repr(self) -> str:
        """A line for each value."""
        return _described(enumerate(self))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(f"ParameterList holds parameters and computes nothing (at {user_source()})")


class ParameterDict(Module):
    """Parameters by name, which are the module's. Tensors become parameters; other values are kept as they are.

    A plain mapping is taken in the order of its sorted names; an OrderedDict, a ParameterDict or pairs in their own.

    >>> ends = pb.nn.ParameterDict({"right": pb.ones(3), "left": pb.ones(2)})
    >>> [(name, p.shape) for name, p in ends.named_parameters()]
    [('left', pullback.Size([2])), ('right', pullback.Size([3]))]
    """

    def __init__(self, parameters: Any = None):
        super().__init__()
        self._keys: dict[str, None] = {}
        self.update(() if parameters is None else parameters)

    def _known(self, key: str) -> str:
        if not isinstance(key, str):
            raise TypeError(f"a key of a ParameterDict must be a string, got {key!r} (at {user_source()})")
        if key not in self._keys:
            raise KeyError(f"there is no parameter {key!r}, only {list(self._keys)} (at {user_source()})")
        return key

    def __getitem__(self, key: str) -> Any:
        return getattr(self, self._known(key))

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(key, str):
            raise TypeError(f"a key of a ParameterDict must be a string, got {key!r} (at {user_source()})")
        if key not in self._keys and hasattr(self, key):
            raise KeyError(f"ParameterDict has an attribute {key!r}: take another key (at {user_source()})")
        setattr(self, key, _held(value))
        self._keys[key] = None

    def __delitem__(self, key: str) -> None:
        delattr(self, self._known(key))
        del self._keys[key]

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __reversed__(self) -> Iterator[str]:
        return reversed(self._keys)

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def copy(self) -> ParameterDict:
        """Another ParameterDict of the same parameters."""
        return ParameterDict(OrderedDict(self.items()))

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The value at `key`, which becomes `default` if there is none."""
        if key not in self:
            self[key] = default
        return self[key]

    def clear(self) -> None:
        """Take all values out."""
        for key in list(self._keys):
            del self[key]

    def pop(self, key: str) -> Any:
        """Take a value out."""
        value = self[key]
        del self[key]
        return value

    def popitem(self) -> tuple[str, Any]:
        """Take the last value out, with its key."""
        if not self._keys:
            raise KeyError(f"popitem: the ParameterDict is empty (at {user_source()})")
        key = next(reversed(self._keys))
        return key, self.pop(key)

    def get(self, key: str, default: Any = None) -> Any:
        """The value at `key`, or `default`."""
        return self[key] if key in self._keys else default

    def fromkeys(self, keys: Iterable[str], default: Any = None) -> ParameterDict:
        """Another ParameterDict, with `default` under each key."""
        return ParameterDict((key, default) for key in keys)

    def keys(self) -> KeysView[str]:
        """The names."""
        return self._keys.keys()

    def items(self) -> Iterable[tuple[str, Any]]:
        """Names and values."""
        return ((key, self[key]) for key in self._keys)

    def values(self) -> Iterable[Any]:
        """The values."""
        return (self[key] for key in self._keys)

    def update(self, parameters: Any) -> None:
        """Add or replace values, from a mapping or an iterable of pairs."""
        plain = isinstance(parameters, Mapping) and not isinstance(parameters, OrderedDict)
        pairs = sorted(parameters.items()) if plain else pairs_of("ParameterDict.update", parameters)
        for key, value in pairs:
            self[key] = value

    def extra_repr(self) -> str:
        """A line for each value."""
        return _described(self.items())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(f"ParameterDict holds parameters and computes nothing (at {user_source()})")

    def __or__(self, other: ParameterDict) -> ParameterDict:
        joined = self.copy()
        joined.update(other)
        return joined

    def __ror__(self, other: Any) -> ParameterDict:
        joined = other.copy()
        joined.update(self)
        return joined

    def __ior__(self, other: ParameterDict) -> Self:
        self.update(other)
        return self


__all__ = ["Container", "ModuleDict", "ModuleList", "ParameterDict", "ParameterList", "Sequential"]
