"""What a step reads from outside under a name, and that may be bound to something else between two calls.

Followed are the globals and closure variables that the function's code names, and that of the functions that it names;
one level deep the lists and dictionaries, and the attributes of objects, found there; and the attributes of modules.
A place that the step itself binds to a tensor gets that tensor at each run.
"""

from __future__ import annotations

import dis
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter, is_
from pathlib import Path
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    MappingProxyType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any

from ..errors import TraceError
from ..graph.node import Node
from ..tensor.handle import Handle
from ..tensor.store import Store, structure_changed
from ..trees import flatten, unflatten
from .trace import Trace

#: containers of more elements are not looked into at each call
_MANY = 1000
#: how deep containers are looked into: one in an attribute of an object, not further
_DEPTH = 2
_MISSING = object()
_STORES = ("_parameters", "_buffers", "_modules")
_PRIVATE = {*_STORES, "_not_saved", "_training"}
_BUILT_IN = ("builtins",)
#: the folders of what is installed
_INSTALLED = {"site-packages", "dist-packages"}
_CONTENTS = attrgetter("cell_contents")
_PACKAGE = __name__.partition(".")[0]
#: what has no attributes to look at, or is looked at otherwise
_FIXED = (ModuleType, type, FunctionType, BuiltinFunctionType)
#: what is told by its value and not by being the same object
_NUMBERS = (bool, int, float, complex, str, bytes, tuple, frozenset)


@dataclass(eq=False)
class Holder:
    """Where values stand: names in a dictionary, elements of a list, closure variables, attributes in slots, or names
    of a class."""

    store: Any
    #: for messages: the place of a key, such as "h[0]"
    label: Callable[[Any], str]
    #: the keys looked at; None for all
    names: set[Any] | None = None
    #: the class whose names these are
    owner: type | None = None
    #: keys of which it matters that nothing stands there, because something else would be hidden by it
    absent: frozenset[str] = frozenset()
    before: dict[Any, Any] = field(default_factory=dict)
    #: keys that a recording depends on, and what stood there
    guarded: dict[Any, Any] = field(default_factory=dict)
    whole: int | None = None

    def __post_init__(self) -> None:
        self.before = self.read()

    def read(self) -> dict[Any, Any]:
        """What stands under each key now."""
        if isinstance(self.store, (list, deque)):
            return dict(enumerate(self.store))
        if isinstance(self.store, tuple):
            return {place: cell.cell_contents for place, cell in enumerate(self.store) if _is_full(cell)}
        if isinstance(self.store, Mapping):  # dict(…) would ask a subclass
            return {key: self.getter(self.store, key) for key in list(self.store)}
        return {name: getattr(self.store, name) for name in _slots(type(self.store)) if hasattr(self.store, name)}

    @property
    def getter(self) -> Callable[..., Any]:
        """What reads a key of the store, without Python code of anybody's: (store, key, what else)."""
        if isinstance(self.store, dict):
            return dict.get
        if isinstance(self.store, MappingProxyType):
            return MappingProxyType.get
        if isinstance(self.store, deque):
            return deque.__getitem__
        return list.__getitem__ if isinstance(self.store, list) else getattr

    def write(self, key: Any, value: Any) -> None:
        """Bind a key to a value, or to nothing."""
        if isinstance(self.store, tuple):
            self.store[key].cell_contents = value
        elif not isinstance(self.store, (dict, list, deque)):
            owner = self.store if self.owner is None else self.owner
            delattr(owner, key) if value is _MISSING else setattr(owner, key, value)
        elif value is not _MISSING:
            self.store[key] = value
        elif isinstance(self.store, dict):
            self.store.pop(key, None)


class Guard:
    """What stands under many keys of many holders, compared in few calls: `map` looks all of them up."""

    def __init__(self, holders: list[Holder]):
        #: for each way of reading: the stores, the keys and, where a key may be absent, what then; and the values
        self.columns: dict[Callable[..., Any], tuple[list[Any], ...]] = {}
        self.values: dict[Callable[..., Any], list[Any]] = {}
        whole = [holder for holder in holders if holder.whole is not None]
        self.wholes, self.lengths = [holder.store for holder in whole], [holder.whole for holder in whole]
        for holder in holders:
            for key, value in holder.guarded.items():
                self._add(holder, key, value)
        self.compared = [(read, self.columns[read], self.values[read]) for read in self.columns]

    def _add(self, holder: Holder, key: Any, value: Any) -> None:
        read: Callable[..., Any]
        row: tuple[Any, ...]
        if isinstance(holder.store, tuple):
            read, row = _CONTENTS, (holder.store[key],)
        elif isinstance(holder.store, (list, deque)):
            read, row = holder.getter, (holder.store, key)
        else:
            read, row = holder.getter, (holder.store, key, _MISSING)
        columns = self.columns.setdefault(read, tuple([] for _ in row))
        for column, entry in zip(columns, row, strict=True):
            column.append(entry)
        self.values.setdefault(read, []).append(value)

    def holds(self) -> bool:
        """Whether the same stands there as did before the recording."""
        try:
            if self.wholes and [*map(len, self.wholes)] != self.lengths:
                return False
            for read, columns, values in self.compared:
                if not all(map(is_, map(read, *columns), values)) and not all(map(_same, map(read, *columns), values)):
                    return False
        except (LookupError, ValueError):  # gone; a closure variable that is empty
            return False
        return True


def _guards(holders: list[Holder]) -> list[Guard]:
    needed = [holder for holder in holders if holder.guarded or holder.whole is not None]
    return [Guard(needed)] if needed else []


def _slots(held: type) -> Iterator[str]:
    """The attributes that objects of a class keep in slots."""
    for each in held.__mro__:
        for name, member in vars(each).items():
            if isinstance(member, MemberDescriptorType) and not _is_own(each.__module__):
                yield name


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
    """The places that a function's code names, as they are before it is recorded. What stands in the code of functions
    `but` for these is meant.
    """

    def __init__(
        self, function: Any, trace: Trace, arguments: Sequence[Any] = (), but: Collection[CodeType] = frozenset()
    ):
        self.trace, self.but = trace, but
        self._from = function, arguments
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
            self._globals: dict[int, Holder] = {}
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
            if self._is_new(value) and not _is_own(value.__module__) and value.__code__ not in self.but:
                self._look_into_code(value)
        elif isinstance(value, (list, dict, deque)) and not _is_own(type(value).__module__, _BUILT_IN):
            if depth <= _DEPTH and len(value) <= _MANY and self._is_new(value):
                self.holders.append(Holder(value, lambda key: f"{label}[{key!r}]"))
        elif isinstance(getattr(value, "__dict__", {}).get("_modules"), Store):
            self.enter_module(value)
        elif isinstance(value, ModuleType):
            if _is_followed(value) and self._is_new(value):
                self._look_into_names(vars(value), label)
        elif isinstance(value, type):
            self._follow_class(value)
        elif depth < _DEPTH and _is_plain(value) and self._is_new(value):
            self._look_into_object(value, label, depth)

    def _look_into_code(self, function: FunctionType) -> None:
        names = set(_names(function.__code__, self.but))
        self.names |= names
        for held in self._classes:
            self._follow_methods(held)
        cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        contents = {name: cell.cell_contents for name, cell in cells.items() if _is_full(cell)}
        if contents:
            read = _free_names(function.__code__, self.but)
            keys = {place for place, name in enumerate(contents) if name in read}
            self.holders.append(Holder(tuple(cells[name] for name in contents), list(contents).__getitem__, keys))
            contents = {name: value for name, value in contents.items() if name in read}
        # not those that are attributes alone: a global counter `step` is none of `optimizer.step()`
        called = _global_names(function.__code__, self.but)
        known = {n: function.__globals__[n] for n in called if n in function.__globals__}
        holder = self._globals.get(id(function.__globals__))
        if holder is None:
            holder = self._globals[id(function.__globals__)] = Holder(function.__globals__, str, set())
            self.holders.append(holder)
        holder.names.update(known)  # type: ignore[union-attr]
        for name, value in {**known, **contents}.items():
            self._look_into(value, name, 1)

    def _look_into_names(self, held: dict[str, Any], label: str) -> None:
        """Follow those names of a Python module that the code uses."""
        self.holders.append(Holder(held, lambda key: f"{label}.{key}", self.names))
        for name in sorted(self.names & held.keys()):  # what is met first gives its name to what is met twice
            self._look_into(held[name], f"{label}.{name}", 1)

    def _look_into_object(self, value: Any, label: str, depth: int) -> None:
        self._follow_class(type(value))
        self._follow_methods(type(value))
        held = getattr(value, "__dict__", {})
        label_of = lambda key: f"{label}.{key}"  # noqa: E731
        if held or not hasattr(type(value), "__slots__"):
            self.holders.append(Holder(held, label_of, self.names, absent=self._hidden(type(value), held)))
        slots = {name: getattr(value, name) for name in _slots(type(value)) if hasattr(value, name)}
        if slots:
            self.holders.append(Holder(value, label_of, self.names))
        for name, inner in [*held.items(), *slots.items()]:
            if name in self.names:
                self._look_into(inner, f"{label}.{name}", depth + 1)

    def _hidden(self, held: type, own: dict[str, Any]) -> frozenset[str]:
        """The names that the code uses and that stand in the class: one given to the object would hide it."""
        return frozenset(n for n in self.names - own.keys() if any(n in vars(each) for each in _classes(held)))

    def _follow_class(self, held: type) -> None:
        """Follow what stands in a class, and in those it inherits from, under names that the code uses."""
        classes = _classes(held)
        for place, each in enumerate(classes):
            if self._is_new(each):
                self._classes.append(each)
                label = partial("{}.{}".format, each.__name__)
                below = {name for other in classes[place + 1 :] for name in vars(other)}
                absent = frozenset(self.names & below - vars(each).keys())
                self.holders.append(Holder(vars(each), label, self.names, each, absent))

    def _follow_methods(self, held: type) -> None:
        for name in sorted({"forward", "__call__"} | self.names):
            method = getattr(held, name, None)
            method = method.fget if isinstance(method, property) else _compiled(method) or method
            if isinstance(method, FunctionType) and id(method) not in self._seen:
                self._look_into(method, name, 0)

    def enter_module(self, module: Any) -> None:
        """Follow the attributes of a module and its parts: all of the package's own, of others those the code names."""
        if not self._is_new(module):
            return
        name, held = type(module).__name__, vars(module)
        own = _is_own(type(module).__module__)
        if not own:
            self._follow_class(type(module))
            self._follow_methods(type(module))
        names = {key for key in held if key not in _PRIVATE} if own else self.names
        for store in (held, *(held[key] for key in _STORES)):
            label = lambda key: f"{name}.{key}"  # noqa: E731
            if store is held:
                hidden = frozenset() if own else self._hidden(type(module), held)
                absent = (hidden | {"forward"}) - held.keys()
                self.attributes.append(Holder(store, label, names | {"forward"}, absent=absent))
            else:
                self.attributes.append(Holder(store, label))
        for key, value in list(held.items()):
            if key in self.names or key == "forward":
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
            changed_length = isinstance(holder.store, (list, deque)) and len(after) != len(holder.before)
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
            holder.guarded.update((key, _MISSING) for key in holder.absent - after.keys())
        if self.trace.called_at_runs:
            self._leave_to_runs()
        return writes

    def _leave_to_runs(self) -> None:
        """Forget what nothing but functions named that are called at each run: those see what stands there then."""
        function, arguments = self._from
        others = Surroundings(function, self.trace, arguments, self.trace.called_at_runs)
        left: dict[tuple[int, ...], set[Any] | None] = {}
        for holder in others.holders:
            names, before = holder.names, left.setdefault(_place(holder), set())
            left[_place(holder)] = None if names is None or before is None else before | names
        for holder in self.holders:
            names = left.get(_place(holder), set())
            if names is not None:
                holder.guarded = {key: value for key, value in holder.guarded.items() if key in names}
                holder.whole = None

    def guards(self) -> tuple[list[Guard], list[Guard]]:
        """What is to be compared at each call, and what only when modules have changed."""
        return _guards(self.holders), _guards(self.attributes)

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
            if not isinstance(holder.store, (list, deque)) or len(after) == len(holder.before):
                for key, now in after.items():
                    was = holder.before.get(key, _MISSING)
                    if was is not now and any(not self._is_outer(tensor) for tensor in _tensors(now)):
                        holder.write(key, was)


def _place(holder: Holder) -> tuple[int, ...]:
    """What tells a holder from those of other places: closure variables are in a tuple made for it."""
    store = holder.store if isinstance(holder.store, tuple) else (holder.store,)
    return tuple(map(id, store)) if holder.owner is None else (id(holder.owner),)


def _compiled(value: Any) -> Any:
    """The function of a compiled step; None for anything else."""
    return value.function if getattr(type(value), "is_compiled_step", False) else None


def _source(node: Node) -> str:
    return str(node.source) if node.source is not None else "an unknown line"


def _is_own(module: str | None, kept: tuple[str, ...] = ()) -> bool:
    """Whether a module is the package's, or one of what nobody changes, but for those in `kept`."""
    root = None if module is None else module.partition(".")[0]
    return root in (_PACKAGE, "numpy", "builtins", "functools") and root not in kept


def _is_followed(module: ModuleType) -> bool:
    """Whether the names of a Python module may change between calls: not those of what is installed."""
    root, file = module.__name__.partition(".")[0], getattr(module, "__file__", None)
    if _is_own(root) or root in sys.stdlib_module_names - {"__main__"}:
        return False
    return file is None or _INSTALLED.isdisjoint(Path(file).parts)


def _classes(held: type) -> list[type]:
    """The class and those it inherits from that are of the user's own making."""
    return [each for each in held.__mro__ if not _is_own(each.__module__) and not _is_standard(each.__module__)]


def _is_standard(module: str) -> bool:
    return module.partition(".")[0] in sys.stdlib_module_names - {"__main__"}


def _is_plain(value: Any) -> bool:
    """Whether the value is an object of the user's own making, whose attributes are looked at."""
    kind = type(value)
    has_attributes = hasattr(value, "__dict__") or any(True for _ in _slots(kind))
    return has_attributes and not isinstance(value, (*_FIXED, Handle)) and not _is_own(kind.__module__)


def _names(code: CodeType, but: Collection[CodeType]) -> Iterator[str]:
    """The names that the code, and functions written in it `but` for some, use as globals and attributes."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType) and constant not in but:
            yield from _names(constant, but)


def _free_names(code: CodeType, but: Collection[CodeType]) -> set[str]:
    """The closure variables that they use."""
    found = {each.argval for each in dis.get_instructions(code) if each.opname.endswith("DEREF")}
    found |= {"__class__"}  # which super() reads, whatever it is compiled to
    for constant in code.co_consts:
        if isinstance(constant, CodeType) and constant not in but:
            found |= _free_names(constant, but)
    return found


def _global_names(code: CodeType, but: Collection[CodeType]) -> Iterator[str]:
    """Those that are looked up as globals."""
    for each in dis.get_instructions(code):
        if "GLOBAL" in each.opname or each.opname.endswith("_NAME"):
            yield each.argval
    for constant in code.co_consts:
        if isinstance(constant, CodeType) and constant not in but:
            yield from _global_names(constant, but)
