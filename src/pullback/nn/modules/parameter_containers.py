"""Modules that hold parameters: in a list, by name."""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Iterable, Iterator, KeysView, Mapping
from typing import Any, Self

from ...ops.primitive import user_source
from ...tensor import Tensor
from ..parameter import Parameter
from .container import iterated, pairs_of
from .module import Module


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


__all__ = ["ParameterDict", "ParameterList"]
