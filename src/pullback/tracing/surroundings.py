"""What a step reads from outside under a name, and that may be bound to something else between two calls.

Followed are the globals and closure variables that the function's code names, and that of the functions that it names;
one level deep the lists and dictionaries, and the attributes of objects, found there; and the attributes of modules.
A place that the step itself binds to a tensor gets that tensor at each run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter, is_
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from ..errors import TraceError
from ..graph.node import Node
from ..tensor.handle import Handle, Store, structure_changed
from ..trees import flatten, unflatten
from .trace import Trace

#: containers of more elements are not looked into at each call
_MANY = 1000
#: how deep containers are looked into: one in an attribute of an object, not further
_DEPTH = 2
_MISSING = object()
_STORES = ("_parameters", "_buffers", "_modules")
_PRIVATE = {*_STORES, "_not_saved", "_training"}
_CONTENTS = attrgetter("cell_contents")
_PACKAGE = __name__.partition(".")[0]
#: what names are bound to once and for all
_FIXED = (ModuleType, type, FunctionType, BuiltinFunctionType)
#: what is told by its value and not by being the same object
_NUMBERS = (bool, int, float, complex, str, bytes, tuple, frozenset)


@dataclass(eq=False)
class Holder:
    """Where values stand: names in a dictionary, elements of a list, or closure variables."""

    store: Any
    #: for messages: the place of a key, such as "h[0]"
    label: Callable[[Any], str]
    #: the keys looked at; None for all
    names: set[str] | None = None
    before: dict[Any, Any] = field(default_factory=dict)
    #: keys that a recording depends on, and what stood there
    guarded: dict[Any, Any] = field(default_factory=dict)
    whole: int | None = None

    def __post_init__(self) -> None:
        self.before = self.read()

    def read(self) -> dict[Any, Any]:
        """What stands under each key now."""
        if isinstance(self.store, list):
            return dict(enumerate(self.store))
        if isinstance(self.store, tuple):
            return {place: cell.cell_contents for place, cell in enumerate(self.store) if _is_full(cell)}
        return dict(self.store)

    def write(self, key: Any, value: Any) -> None:
        """Bind a key to a value, or to nothing."""
        if isinstance(self.store, tuple):
            self.store[key].cell_contents = value
        elif value is _MISSING:
            self.store.pop(key, None)
        else:
            self.store[key] = value

    def settle(self) -> None:
        """Make ready for `holds`, once it is known which keys the recording depends on."""
        of_cells = isinstance(self.store, tuple)
        self.get = _CONTENTS if of_cells else self.store.__getitem__
        self.keys = [self.store[place] for place in self.guarded] if of_cells else list(self.guarded)
        self.values = list(self.guarded.values())

    def holds(self) -> bool:
        """Whether the same stands there as did before the recording."""
        if self.whole is not None and len(self.store) != self.whole:
            return False
        try:
            return all(map(is_, map(self.get, self.keys), self.values)) or all(
                map(_same, map(self.get, self.keys), self.values)
            )
        except (LookupError, ValueError):  # gone; a closure variable that is empty
            return False


def _is_full(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if type(one) is not type(other) or not isinstance(one, _NUMBERS) or (isinstance(one, tuple) and _tensors(one)):
        return False
    return bool(one == other) or bool(one != one and other != other)


def _tensors(value: Any) -> list[Handle]:
    return [leaf for leaf in flatten(value)[0] if isinstance(leaf, Handle)]


@dataclass(eq=False)
class Write:
    """A place that the step binds: to tensors, by their places among the outputs, and other values."""

    holder: Holder
    key: Any
    leaves: list[tuple[int | None, Any]]
    shape: Any

    def __call__(self, made: dict[int, Any]) -> None:
        """Bind the place to the tensors `made`, by their places among the outputs."""
        leaves = [leaf if place is None else made[place] for place, leaf in self.leaves]
        self.holder.write(self.key, unflatten(self.shape, leaves))
        structure_changed()


class Surroundings:
    """The places that a function's code names, as they are before it is recorded."""

    def __init__(self, function: Any, trace: Trace, arguments: Sequence[Any] = ()):
        self.trace = trace
        self.names: set[str] = set()
        known = -1
        while known != len(self.names):  # what is found first may hold what only later code names
            known = len(self.names)
            self.holders: list[Holder] = []
            #: those of modules, which tell when they change (see `STRUCTURE_CHANGES`)
            self.attributes: list[Holder] = []
            self._seen: set[int] = set()
            self._kept: list[Any] = []  # what `_seen` knows by its id
            self._classes: list[type] = []
            self._look_into(function, getattr(function, "__name__", "function"), 0)
            for argument in arguments:
                if not isinstance(argument, Handle):
                    self._look_into(argument, type(argument).__name__, 0)

    # ---- finding

    def _is_new(self, thing: Any) -> bool:
        if id(thing) in self._seen:
            return False
        self._seen.add(id(thing))
        self._kept.append(thing)
        return True

    def _look_into(self, value: Any, label: str, depth: int) -> None:
        if isinstance(value, MethodType):
            self._look_into(value.__func__, label, 0)
            self._look_into(value.__self__, "self", depth)
        elif isinstance(value, partial):
            for part in (value.func, *value.args, *value.keywords.values()):
                self._look_into(part, label, 0)
        elif (inner := _compiled(value)) is not None:
            self._look_into(inner, label, 0)
        elif isinstance(value, FunctionType):
            if self._is_new(value) and not _is_own(value.__module__):
                self._look_into_code(value)
        elif isinstance(value, (list, dict)) and type(value) in (list, dict):
            if depth <= _DEPTH and len(value) <= _MANY and self._is_new(value):
                self.holders.append(Holder(value, lambda key: f"{label}[{key!r}]"))
        elif isinstance(getattr(value, "__dict__", {}).get("_modules"), Store):
            self.enter_module(value)
        elif depth < _DEPTH and _is_plain(value) and self._is_new(value):
            self._look_into_object(value, label, depth)

    def _look_into_code(self, function: FunctionType) -> None:
        names = set(_names(function.__code__))
        self.names |= names
        for held in self._classes:
            self._follow_methods(held)
        cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        contents = {name: cell.cell_contents for name, cell in cells.items() if _is_full(cell)}
        watched = [name for name, value in contents.items() if not isinstance(value, _FIXED)]
        self.holders.append(Holder(tuple(cells[name] for name in watched), watched.__getitem__))
        known = {n: function.__globals__[n] for n in names if n in function.__globals__}
        bound = {name for name, value in known.items() if not isinstance(value, _FIXED)}
        self.holders.append(Holder(function.__globals__, str, bound))
        for name, value in {**known, **contents}.items():
            self._look_into(value, name, 1)

    def _look_into_object(self, value: Any, label: str, depth: int) -> None:
        self._classes.append(type(value))
        self._follow_methods(type(value))
        held = vars(value)
        self.holders.append(Holder(held, lambda key: f"{label}.{key}", self.names))
        for name, inner in list(held.items()):
            if name in self.names:
                self._look_into(inner, f"{label}.{name}", depth + 1)

    def _follow_methods(self, held: type) -> None:
        for name in {"forward", "__call__"} | self.names:
            method = getattr(held, name, None)
            method = _compiled(method) or method
            if isinstance(method, FunctionType) and id(method) not in self._seen:
                self._look_into(method, name, 0)

    def enter_module(self, module: Any) -> None:
        """Follow the attributes of a module and its parts: all of the package's own, of others those the code names."""
        if not self._is_new(module):
            return
        name, held = type(module).__name__, vars(module)
        own = _is_own(type(module).__module__)
        if not own:
            self._classes.append(type(module))
            self._follow_methods(type(module))
        names = {key for key in held if key not in _PRIVATE} if own else self.names
        for store in (held, *(held[key] for key in _STORES)):
            label = lambda key: f"{name}.{key}"  # noqa: E731
            self.attributes.append(Holder(store, label, names if store is held else None))
        for key, value in list(held.items()):
            if not own and key in self.names:
                self._look_into(value, f"{name}.{key}", 1)
        # a container is read without being called, and no call would tell of it
        for part in list(held["_modules"].values()):
            if part is not None:
                self.enter_module(part)

    # ---- what a recording has done

    def finish(self, output: Callable[[Handle], int]) -> list[Write]:
        """What each run is to bind. After that the holders know what the recording depends on. `output` makes a tensor
        a result.
        """
        writes: list[Write] = []
        for holder in [*self.holders, *self.attributes]:
            after = holder.read()
            changed_length = isinstance(holder.store, list) and len(after) != len(holder.before)
            for key in {**holder.before, **after}:
                if holder.names is not None and key not in holder.names:
                    continue
                was, now = holder.before.get(key, _MISSING), after.get(key, _MISSING)
                if was is not now and not _same(was, now):
                    if not changed_length and (write := self._write(holder, key, was, now, output)) is not None:
                        writes.append(write)
                elif not changed_length and self._matters(was):
                    holder.guarded[key] = was
            if holder.names is None and not isinstance(holder.store, tuple) and not changed_length:
                holder.whole = len(after) if not any(w.holder is holder for w in writes) else None
            holder.settle()
        self.holders, self.attributes = (
            [h for h in holders if h.guarded or h.whole is not None] for holders in (self.holders, self.attributes)
        )
        return writes

    def _matters(self, value: Any) -> bool:
        """Whether the recording is only for this value: not so for a tensor that it has not used."""
        return not isinstance(value, Handle) or self.trace.knows(value)

    def _write(self, holder: Holder, key: Any, was: Any, now: Any, output: Callable[[Handle], int]) -> Write | None:
        leaves, shape = flatten(now)
        made = [leaf for leaf in leaves if isinstance(leaf, Handle) and not self._is_outer(leaf)]
        if not made:
            return None  # Python values are as the recording left them
        if any(self.trace.knows(tensor) for tensor in _tensors(was)):
            raise TraceError(
                f"a compiled step uses the tensor in {holder.label(key)} and binds {holder.label(key)} to another one "
                f"(computed at {_source(made[0]._node)}), which the next call would not see. Write into it in place, "
                f"{holder.label(key)}.copy_(…), or return the new tensor and pass it to the next call."
            )
        own = set(map(id, made))
        places: list[tuple[int | None, Any]] = [
            (output(leaf), None) if id(leaf) in own else (None, leaf) for leaf in leaves
        ]
        return Write(holder, key, places, shape)

    def _is_outer(self, tensor: Handle) -> bool:
        return id(tensor) in self.trace.captured or self.trace.is_foreign(tensor._node)

    def restore(self) -> None:
        """Bind to what they were bound to the places where the recording has left tensors without values."""
        for holder in [*self.holders, *self.attributes]:
            after = holder.read()
            if not isinstance(holder.store, list) or len(after) == len(holder.before):
                for key, now in after.items():
                    was = holder.before.get(key, _MISSING)
                    if was is not now and any(not self._is_outer(tensor) for tensor in _tensors(now)):
                        holder.write(key, was)


def _compiled(value: Any) -> Any:
    """The function of a compiled step; None for anything else."""
    return value.function if getattr(type(value), "is_compiled_step", False) else None


def _source(node: Node) -> str:
    return str(node.source) if node.source is not None else "an unknown line"


def _is_own(module: str | None) -> bool:
    return module is not None and module.partition(".")[0] in (_PACKAGE, "numpy", "builtins", "functools")


def _is_plain(value: Any) -> bool:
    """Whether the value is an object of the user's own making, whose attributes are looked at."""
    return (
        hasattr(value, "__dict__") and not isinstance(value, (*_FIXED, Handle)) and not _is_own(type(value).__module__)
    )


def _names(code: CodeType) -> Iterator[str]:
    """The names that the code, and functions written in it, use as globals and attributes."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
