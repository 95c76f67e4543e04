"""Nested values as a description that JSON can hold, and the arrays that it names; and back, without trust.

None, bool, int, str, finite floats and lists stand for themselves. All else is an object of one key, its kind:

    {"dict": [[key, value], ...]}      {"tuple": [value, ...]}       {"float": "nan"}       {"dtype": "float32"}
    {"tensor": name}  {"array": name}  {"scalar": name}              {"bytes": name}        {"counter": [[key, count]]}
    {"module": [[[key, value], ...], metadata]}                      a state_dict with the versions of its modules
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from ..graph import types
from ..graph.types import DType
from ..ops.primitive import buffer_node
from ..runtime.buffers import Buffer
from ..tensor import Tensor
from ..tensor.handle import Handle
from ..tensor.size import Size
from .header import astray
from .stored import Fault, Stored

#: how deep values may be nested: far below Python's limit of recursion, far above what states need
DEPTH = 64
#: the longest whole number: Python itself refuses to read more than 4,300 digits
_BITS = 8192
#: what safetensors keeps its own text under
_RESERVED = "__metadata__"


# ---- taking apart


def describe(value: Any, copy: bool) -> tuple[Any, dict[str, Stored]]:
    """The description of `value`, and the arrays that it names; with `copy` in memory of their own.

    TypeError or ValueError says which part cannot be saved.
    """
    taking = _Taking(copy)
    return taking.describe(value, ()), taking.arrays


class _Taking:
    """What one call has taken so far. A tensor or array that stands in several places is taken once."""

    def __init__(self, copy: bool):
        self.copy = copy
        self.arrays: dict[str, Stored] = {}
        self._names: dict[tuple[Any, ...], str] = {}
        #: keeps alive what `_names` knows by its number
        self._seen: list[Any] = []

    def describe(self, value: Any, place: tuple[str, ...]) -> Any:
        if len(place) > DEPTH:
            raise ValueError(f"cannot be saved: values nested deeper than {DEPTH}, or that hold themselves")
        kind = type(value)
        if kind is int and value.bit_length() > _BITS:
            raise ValueError(f"{_where(place)} cannot be saved: a whole number of more than {_BITS} bits")
        if value is None or kind in (bool, int, str):
            return value
        if kind is float:
            return value if math.isfinite(value) else {"float": repr(value)}
        if kind in (list, tuple, Size):
            items = [self.describe(item, (*place, str(index))) for index, item in enumerate(value)]
            return items if kind is list else {"tuple": items}
        if isinstance(value, dict):
            return self._dictionary(value, place)
        if isinstance(value, DType):
            return {"dtype": value.name}
        return self._leaf(value, place)

    def _dictionary(self, value: dict[Any, Any], place: tuple[str, ...]) -> Any:
        for key in value:
            if type(key) not in (str, int):
                raise TypeError(
                    f"{_where(place)} cannot be saved: it has the key {key!r}; keys must be strings or whole numbers"
                )
        pairs = [[key, self.describe(item, (*place, str(key)))] for key, item in value.items()]
        if type(value) is Counter:
            return {"counter": pairs}
        metadata = getattr(value, "_metadata", None)
        if isinstance(metadata, dict):
            return {"module": [pairs, self.describe(dict(metadata), (*place, "_metadata"))]}
        return {"dict": pairs}

    def _leaf(self, value: Any, place: tuple[str, ...]) -> Any:
        if isinstance(value, Handle):
            buffer = value._undetached()._buffer()
            return {"tensor": self._name(buffer, buffer.array, value.shape, value.dtype, place)}
        if type(value) in (np.ndarray, np.memmap):
            return {"array": self._array(value, place)}
        if isinstance(value, np.generic):
            return {"scalar": self._array(np.asarray(value), place)}
        if type(value) is bytes:
            return {"bytes": self._array(np.frombuffer(value, np.uint8), place)}
        raise TypeError(
            f"{_where(place)} cannot be saved: it is a {type(value).__module__}.{type(value).__qualname__}. Saved are "
            "dicts, lists, tuples, tensors, NumPy arrays and numbers, int, float, bool, str, bytes and None; of other "
            "objects save the state_dict()"
        )

    def _array(self, array: np.ndarray, place: tuple[str, ...]) -> str:
        native = array.dtype.newbyteorder("=")
        dtype = types.from_numpy(native)
        if dtype is None:
            raise TypeError(
                f"{_where(place)} cannot be saved: there is no type in the file for arrays of {array.dtype}"
            )
        flat = np.ascontiguousarray(array, native).reshape(-1)
        return self._name(array, flat, array.shape, dtype, place)

    def _name(self, owner: Any, flat: np.ndarray, shape: tuple[int, ...], dtype: DType, place: tuple[str, ...]) -> str:
        key = (id(owner), shape, dtype)
        if key not in self._names:
            name = self._free_name(".".join(place) or "value")
            self.arrays[name] = Stored(dtype, shape, flat.copy() if self.copy else flat)
            self._names[key] = name
            self._seen.append(owner)
        return self._names[key]

    def _free_name(self, wanted: str) -> str:
        # a lone half of a pair of surrogates has no UTF-8, which the file is in
        wanted = wanted.encode("utf-8", "backslashreplace").decode("utf-8")
        if astray(wanted):  # as a key may; the description has it as it is
            wanted = f"_{wanted.replace('..', '__')}"
        name, count = wanted, 1
        while name in self.arrays or name == _RESERVED:
            count += 1
            name = f"{wanted}#{count}"
        return name


def _where(place: tuple[str, ...]) -> str:
    return ".".join(place) or "the value"


# ---- putting together


def rebuild(description: Any, arrays: Mapping[str, Stored]) -> Any:
    """The value of a description; Fault where it makes no sense, or does not name each of the arrays."""
    building = _Building(arrays)
    value = building.value(description, 0)
    unused = sorted(arrays.keys() - building.used.keys())
    if unused:
        raise Fault(f"its description says nothing of the array {unused[0]!r}")
    return value


class _Building:
    """What one call has put together. An array that is named in several places becomes one object in all of them, so
    that a description cannot ask for more memory than the file has."""

    def __init__(self, arrays: Mapping[str, Stored]):
        self.arrays = arrays
        #: the arrays that were named, and whether as a tensor or an array
        self.used: dict[str, str] = {}
        self._made: dict[tuple[str, str], Any] = {}

    def value(self, description: Any, depth: int) -> Any:
        if depth > DEPTH:
            raise Fault(f"its description is nested deeper than {DEPTH}")
        if isinstance(description, list):
            return [self.value(item, depth + 1) for item in description]
        if not isinstance(description, dict):
            return description
        if len(description) != 1:
            raise Fault(f"its description has an object of the keys {sorted(description)}, where one kind was expected")
        ((kind, held),) = description.items()
        build = self._KINDS.get(kind)
        if build is None:
            raise Fault(f"its description has a value of the unknown kind {kind!r}")
        return build(self, held, depth)

    def _tuple(self, held: Any, depth: int) -> Any:
        return tuple(self.value(item, depth + 1) for item in _checked(held, list, "a tuple"))

    def _float(self, held: Any, depth: int) -> float:
        if held not in ("nan", "inf", "-inf"):
            raise Fault(f"its description has the float {held!r}")
        return float(held)

    def _dtype(self, held: Any, depth: int) -> DType:
        found = {dtype.name: dtype for dtype in types.ALL}.get(_checked(held, str, "a dtype"))
        if found is None:
            raise Fault(f"its description has the unknown dtype {held!r}")
        return found

    def _dict(self, held: Any, depth: int) -> dict[Any, Any]:
        made: dict[Any, Any] = {}
        for pair in _checked(held, list, "a dict"):
            if not (isinstance(pair, list) and len(pair) == 2 and type(pair[0]) in (str, int)):
                raise Fault("its description has a dict whose items are no pairs of a key and a value")
            if pair[0] in made:
                raise Fault(f"its description has a dict with the key {pair[0]!r} twice")
            made[pair[0]] = self.value(pair[1], depth + 1)
        return made

    def _counter(self, held: Any, depth: int) -> Any:
        counts = self._dict(held, depth)
        if not all(type(count) is int for count in counts.values()):
            raise Fault("its description has a counter whose counts are no whole numbers")
        return Counter(counts)

    def _module(self, held: Any, depth: int) -> Any:
        if len(_checked(held, list, "a module's state")) != 2:
            raise Fault("its description has a module's state that is no pair")
        made = OrderedDict(self._dict(held[0], depth))
        metadata = self.value(held[1], depth + 1)
        made._metadata = OrderedDict(_checked(metadata, dict, "a module's metadata"))  # type: ignore[attr-defined]
        return made

    def _array(self, held: Any, depth: int) -> np.ndarray:
        stored = self._stored(held, "array")
        if stored.dtype is types.bfloat16:
            raise Fault(f"its description has the array {held!r} of bfloat16, which NumPy does not have")
        return self._once("array", held, lambda: stored.array)

    def _scalar(self, held: Any, depth: int) -> Any:
        array = self._array(held, depth)
        if array.shape != ():
            raise Fault(f"its description has the number {held!r}, which is an array of shape {list(array.shape)}")
        return array[()]

    def _bytes(self, held: Any, depth: int) -> bytes:
        array = self._array(held, depth)
        if array.ndim != 1 or array.dtype != np.uint8:
            raise Fault(f"its description has the bytes {held!r}, which are an array of {array.dtype}")
        return self._once("bytes", held, array.tobytes)

    def _tensor(self, held: Any, depth: int) -> Tensor:
        stored = self._stored(held, "tensor")
        return self._once("tensor", held, lambda: tensor_of(stored))

    def _stored(self, name: Any, kind: str) -> Stored:
        if _checked(name, str, "the name of an array") not in self.arrays:
            raise Fault(f"its description names the array {name!r}, which is not in the file")
        # a tensor has its memory to itself
        if self.used.setdefault(name, kind) != kind:
            raise Fault(f"its description has {name!r} as a tensor and as an array")
        return self.arrays[name]

    def _once(self, kind: str, name: str, make: Callable[[], Any]) -> Any:
        if (kind, name) not in self._made:
            self._made[kind, name] = make()
        return self._made[kind, name]

    _KINDS: ClassVar[dict[str, Callable[[_Building, Any, int], Any]]] = {
        "tuple": _tuple,
        "float": _float,
        "dtype": _dtype,
        "dict": _dict,
        "counter": _counter,
        "module": _module,
        "tensor": _tensor,
        "array": _array,
        "scalar": _scalar,
        "bytes": _bytes,
    }


def tensor_of(stored: Stored) -> Tensor:
    """A tensor on that memory, which must be aligned and nobody else's."""
    return Handle._wrap(buffer_node(Buffer(stored.flat, owned=True), stored.shape, stored.dtype))


def _checked(value: Any, kind: type, what: str) -> Any:
    if not isinstance(value, kind):
        raise Fault(f"its description has {what} of the type {type(value).__name__}")
    return value


__all__ = ["DEPTH", "describe", "rebuild", "tensor_of"]
