"""What a primitive is, and how it is applied to nodes.

A primitive is one record (`Primitive`) that holds all there is to know of an operation: its shape and dtype rule, its
gradient rule, its meaning in NumPy and its cost. The files beside this one declare the records, a family a file.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from types import CodeType, FrameType, MappingProxyType
from typing import Any, NamedTuple, TypeVar
from weakref import WeakValueDictionary

import numpy as np

from ..errors import DTypeError
from ..graph.node import Graph, Node, Shape, Source, exact
from ..graph.types import DType, bool_

#: kinds of primitives: the compiler lowers kind by kind
LEAF = "leaf"  # a value that is there: a buffer, an input of the program, a number, an index
ELEMENTWISE = "elementwise"
REDUCTION = "reduction"
MOVEMENT = "movement"
INDEXING = "indexing"
CONTRACTION = "contraction"
ATTENTION = "attention"
RECURRENCE = "recurrence"  # each result follows from the one before along an axis
HOST = "host"
SCAN = "scan"  # a loop, which has several results, and the nodes that are one of its results each
ALIAS = "alias"  # the value of its first input; only differentiation tells the two apart

Pullback = Callable[[Node, Node], Node]
Named = TypeVar("Named", bound=Callable[..., Any])


@dataclass(frozen=True, eq=False)
class Primitive:
    """The record of one operation.

    `infer(*inputs, **attributes)` gives shape and dtype of the result, or raises where the user's call is wrong.
    `evaluate(node, *arrays)` is the meaning: NumPy arrays in, array out, all in the dtypes' carrier types.
    `pullbacks` holds one rule an input, `(node, cotangent) -> cotangent of that input`, or None where the result does
    not depend on it differentiably; a single callable `(node, cotangent, index)` serves any number of inputs, and with
    `joint` a callable `(node, cotangent)` gives the cotangents of all inputs at once. A rule may return a cotangent of
    the broadcast shape: the driver sums it back.
    `body(a, *values, **attributes)`, of elementwise operations only, is written against the abstract arithmetic.
    `cost` is in floating-point operations an element of the result; `linear` says that the pullback does not look at
    the values of inputs or result, so nothing need be kept for it.
    """

    name: str
    kind: str
    infer: Callable[..., tuple[Shape, DType]]
    evaluate: Callable[..., np.ndarray]
    pullbacks: tuple[Pullback | None, ...] | Callable[..., Any] = ()
    body: Callable[..., Any] | None = None
    cost: int = 1
    linear: bool = False
    joint: bool = False

    def __repr__(self) -> str:
        return f"<primitive {self.name}>"

    def pull(self, node: Node, cotangent: Node, indices: list[int]) -> list[Node | None]:
        """The cotangents of the inputs at `indices`, given the result's; None where there is no gradient."""
        if self.joint:
            every = self.pullbacks(node, cotangent)  # type: ignore[operator]
            return [every[index] for index in indices]
        if callable(self.pullbacks):
            return [self.pullbacks(node, cotangent, index) for index in indices]
        rules = [self.pullbacks[index] if index < len(self.pullbacks) else None for index in indices]
        return [None if rule is None else rule(node, cotangent) for rule in rules]


REGISTRY: dict[str, Primitive] = {}


def register(primitive: Primitive) -> Primitive:
    """Enter a record into the registry that printer, tests, documentation and compiler read."""
    assert primitive.name not in REGISTRY, f"two primitives are called {primitive.name}"
    REGISTRY[primitive.name] = primitive
    return primitive


def table() -> str:
    """The documented table of all primitives, in Markdown."""
    rows = [
        f"| `{p.name}` | {p.kind} | {p.cost} | {'yes' if p.linear else 'no'} | {_differentiated(p)} |"
        for p in sorted(REGISTRY.values(), key=lambda p: (p.kind, p.name))
    ]
    return "\n".join(["| name | kind | cost | linear | gradient |", "|---|---|---|---|---|", *rows, ""])


def _differentiated(primitive: Primitive) -> str:
    """With respect to which inputs there is a gradient, in words."""
    if callable(primitive.pullbacks):
        return "by a rule of its own" if primitive.joint else "every input"
    inputs = [str(number) for number, rule in enumerate(primitive.pullbacks, 1) if rule is not None]
    if not inputs:
        return "none"
    if len(inputs) == len(primitive.pullbacks):
        return "every input"
    return f"input{'s' if len(inputs) > 1 else ''} {' and '.join(inputs)}"


class Lowering(NamedTuple):
    """What an autocast region asks of the operations in it.

    `dtype` is that of matrix products (None: their operands'). With `cache` a parameter's cast is made once: `casts`
    holds those that are in use, by the number of the parameter's node, for as long as the outermost region lasts.
    """

    dtype: DType | None = None
    cache: bool = True
    casts: WeakValueDictionary[tuple[int, DType, bool], Node] | None = None
    #: the dtypes that regions were given, by their devices, also where they are switched off
    chosen: Mapping[str, DType] = MappingProxyType({})


class _Mode(threading.local):
    """Per-thread switches of graph building."""

    grad = True
    inference = False
    autocast = Lowering()
    source: Source | None = None
    #: the line that is told where none of the user's stands on the stack
    outermost: Source | None = None
    #: the line of an operation whose gradient the user's own code is making
    pulled: Source | None = None
    checkpoint: tuple[int, ...] = ()
    modules: tuple[int, ...] = ()
    looks = False
    #: whether what is computed is looked at, and the number of the first node since that was asked for
    anomaly = False
    anomaly_since = 0


MODE = _Mode()


_calls = count(1)


#: the modules that were called, by id, for as long as they live
MODULES: WeakValueDictionary[int, Any] = WeakValueDictionary()


def within(module: Any) -> tuple[int, ...]:
    """The modules whose forward is running, by id, with `module` as the innermost."""
    key = id(module)
    if MODULES.get(key) is not module:
        MODULES[key] = module
    return (*MODE.modules, key)


def path_of(source: Source | None) -> str:
    """What the innermost module that was running is called in the outermost: a path such as "blocks.3.norm1", the name
    of its class where it is the outermost itself, "" where none was running or it is gone.
    """
    running = source.modules if source is not None else ()
    outer, inner = (MODULES.get(key) for key in (running[0], running[-1])) if running else (None, None)
    if outer is None or inner is None:
        return ""
    return next((name for name, part in outer.named_modules() if part is inner and name), type(inner).__name__)


@contextmanager
def looking() -> Iterator[None]:
    """Nodes made inside are looked at and not computed: nothing need be cut into blocks to save memory."""
    before, MODE.looks = MODE.looks, True
    try:
        yield
    finally:
        MODE.looks = before


@contextmanager
def checkpoint_mode() -> Iterator[None]:
    """Of what is made inside only what is read outside is kept for a backward pass, and the rest computed again."""
    before, MODE.checkpoint = MODE.checkpoint, (*MODE.checkpoint, next(_calls))
    try:
        yield
    finally:
        MODE.checkpoint = before


@contextmanager
def grad_mode(enabled: bool) -> Iterator[None]:
    """Nodes made inside do (or do not) take part in differentiation."""
    before, MODE.grad = MODE.grad, enabled
    try:
        yield
    finally:
        MODE.grad = before


@contextmanager
def autocast_mode(lowering: Lowering) -> Iterator[None]:
    """Operations inside are done in the precision that `lowering` asks for."""
    before, MODE.autocast = MODE.autocast, lowering
    try:
        yield
    finally:
        MODE.autocast = before


class source_of:
    """Nodes made inside are ascribed to the line that made `node`, as gradients are to the forward operation.

    `backward` says that they are part of its gradient, `steps` that they do this for so many steps of a loop at once.
    """

    __slots__ = ("before", "source")

    def __init__(self, node: Node, backward: bool = False, steps: int = 0):
        source = node.source
        if steps and source is not None:
            source = source._replace(steps=steps)
        self.source = _backward(source) if backward and source is not None else source

    def __enter__(self) -> None:
        self.before, MODE.source = MODE.source, self.source

    def __exit__(self, *error: object) -> None:
        MODE.source = self.before


#: of a gradient that belongs to no line of the forward pass, as that of a parameter
_NOWHERE = Source("", 0)


@contextmanager
def own_lines() -> Iterator[None]:
    """Nodes made inside, by a gradient rule or a hook that the user wrote, are ascribed to the lines of that, as a part
    of the backward pass.
    """
    before, pulled = MODE.source, MODE.pulled
    MODE.source, MODE.pulled = None, before or _NOWHERE
    try:
        yield
    finally:
        MODE.source, MODE.pulled = before, pulled


@functools.lru_cache(4096)
def _backward(source: Source) -> Source:
    """The same line, as the origin of a gradient."""
    return source if source.is_backward else source._replace(operation=f"{source.operation} backward".strip())


_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_PROGRAMS = os.path.join(_PACKAGE, "train", "")
_COMMANDS = os.path.join(_PACKAGE, "cli", "")
_PROCESSES = os.path.join(os.path.dirname(os.__file__), "multiprocessing", "")
#: functions of the package that give an operation its name for the user, by the folder they stand in. The greatest
#: number counts, and of equals the outermost: cross_entropy calls log_softmax, and both call methods of tensors.
_NAMING = {
    os.path.join("nn", "functional"): 3,
    os.path.join("nn", "utils"): 3,
    "optim": 3,
    "autograd": 2,
    "linalg": 2,
    "tensor": 1,
}
#: functions in these folders that are a part of what users call, by no name that users know
_unnamed: set[CodeType] = set()


def unnamed(function: Named) -> Named:
    """A function that other files of the package call, and that gives the operations in it no name."""
    _unnamed.add(function.__code__)
    return function


#: functions that are called in place of another operation, of which theirs is no part: what calls them names nothing
_INSTEAD, _ABOVE_ALL = os.path.join("tracing", "divided.py"), 4


#: what operators are called as functions: also where the left operand is a number, and where they write it
_FUNCTIONS = {"truediv": "div", "floordiv": "floor_divide", "mod": "remainder"}
_FUNCTIONS |= {
    f"{prefix}{name}": f"{_FUNCTIONS.get(name, name)}{suffix}"
    for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul")
    for prefix, suffix in (("r", ""), ("i", "_"))
}


class _Caller:
    """What is known of a function that may stand on the stack where a node is made."""

    __slots__ = ("code", "name", "rank", "sources")

    def __init__(self, code: CodeType):
        self.code = code
        #: 0: names nothing; -1: not of this package; -2: a command, or a process's beginning, which no code of the
        #: user's calls
        self.rank, self.name = -1, ""
        self.sources: dict[tuple[int, str, tuple[int, ...], tuple[int, ...]], Source] = {}
        # the models and loops of `train` are programs like a user's
        if code.co_filename.startswith((_COMMANDS, _PROCESSES)):
            self.rank = -2
        elif code.co_filename.startswith(_PACKAGE) and not code.co_filename.startswith(_PROGRAMS):
            self.rank = 0
            special = code.co_name.startswith("__")
            name = code.co_name.strip("_") if special else code.co_name
            is_public = name.isidentifier() and not name.startswith("_")
            if is_public and name not in ("init", "forward") and code not in _unnamed:
                folder = code.co_filename[len(_PACKAGE) :]
                self.rank = max((rank for place, rank in _NAMING.items() if folder.startswith(place)), default=0)
                name = _FUNCTIONS.get(name, name) if special else name
                self.name = f"optimizer.{name}" if folder.startswith("optim") else name
            if code.co_filename == _PACKAGE + _INSTEAD:
                self.rank, self.name = _ABOVE_ALL, ""


_callers: dict[int, _Caller] = {}
#: functions remembered; programs that make new functions without end begin anew
_MOST_CALLERS = 20_000
#: lines remembered of one function, each once for every module that it was run in
_MOST_SOURCES = 5_000


def _caller(code: CodeType) -> _Caller:
    if len(_callers) > _MOST_CALLERS:
        _callers.clear()
    known = _callers[id(code)] = _Caller(code)  # which keeps the code, and so its id
    return known


def user_source() -> Source | None:
    """The innermost line on the stack that is not Pullback's own, with the name of what it called; where there is none,
    in a worker process the line of the loop that it works for, and None in a command.
    """
    if MODE.source is not None:
        return MODE.source
    source = _line(sys._getframe(1))
    if MODE.pulled is None or source is None:
        return source
    return _backward(source._replace(checkpoint=MODE.pulled.checkpoint, modules=MODE.pulled.modules))


def _line(frame: FrameType | None) -> Source | None:
    rank, name = 1, ""
    while frame is not None:
        code = frame.f_code
        caller = _callers.get(id(code)) or _caller(code)
        if caller.rank < 0:
            if caller.rank == -2:
                return MODE.outermost
            key = frame.f_lineno, name, MODE.checkpoint, MODE.modules
            source = caller.sources.get(key)
            if source is None:
                source = Source(code.co_filename, frame.f_lineno, name, MODE.checkpoint, MODE.modules)
                if not MODE.checkpoint:  # each checkpointed call has a number of its own
                    if len(caller.sources) > _MOST_SOURCES:  # modules without end
                        caller.sources.clear()
                    caller.sources[key] = source
            return source
        if caller.rank >= rank:
            rank, name = caller.rank, caller.name or name
        frame = frame.f_back
    return MODE.outermost


def apply(primitive: Primitive, *inputs: Node, **attributes: Any) -> Node:
    """The node of `primitive` on `inputs`; shape and dtype errors are raised here, where the user wrote the call."""
    shape, dtype = primitive.infer(*inputs, **attributes)
    differentiable = MODE.grad and dtype.is_floating_point and any(i.requires_grad for i in inputs)
    return Node(primitive, inputs, attributes, shape, dtype, differentiable, user_source())


def structure(graph: Graph) -> Hashable:
    """What two graphs have in common that mean the same computation: all but the values of their leaves."""
    place = {node: position for position, node in enumerate(graph.nodes)}
    rows: list[Hashable] = []
    checkpoints: dict[int, int] = {}
    for node in graph.nodes:
        if node.source is not None and node.source.checkpoint:
            # what is kept and what is computed again is part of a program
            rows.append(tuple(checkpoints.setdefault(call, len(checkpoints)) for call in node.source.checkpoint))
        if node.buffer is not None:
            rows.append((node.shape, node.dtype))
        else:
            attributes = () if node.op.kind == ALIAS else tuple(map(exact, node.attributes.values()))
            rows.append((node.op, node.shape, node.dtype, attributes, *(place[i] for i in node.inputs)))
    return tuple(rows), tuple(place[node] for node in graph.outputs)


# ---- leaves: values that are there


def _no_value(node: Node, *_: np.ndarray) -> np.ndarray:
    raise AssertionError(f"the value of {node!r} comes from outside the graph")


def _as_declared(*_: Node, shape: Shape = (), dtype: DType, **__: Any) -> tuple[Shape, DType]:
    return shape, dtype


#: a value in memory; `node.buffer` holds it
BUFFER = register(Primitive("buffer", LEAF, _as_declared, _no_value))
#: a value that a compiled program is given at each call; attribute `index` is its place among the inputs
INPUT = register(Primitive("input", LEAF, _as_declared, _no_value))
#: a value that the body of a scan is given at each step; attribute `index` tells those of one body apart
PARAMETER = register(Primitive("parameter", LEAF, _as_declared, _no_value))
#: a number known when the graph is built, of shape ()
CONSTANT = register(
    Primitive("constant", LEAF, _as_declared, lambda node: np.asarray(node["value"]).astype(node.dtype.carrier), cost=0)
)
#: 0, 1, 2 … along `axis` of `shape`
IOTA = register(
    Primitive(
        "iota",
        LEAF,
        lambda *, shape, axis, dtype: (shape, dtype),
        lambda node: np.broadcast_to(
            np.arange(node.shape[node["axis"]], dtype=node.dtype.carrier).reshape(
                [-1 if i == node["axis"] else 1 for i in range(len(node.shape))]
            ),
            node.shape,
        ),
        cost=1,
    )
)


def buffer_node(buffer: Any, shape: Shape, dtype: DType, requires_grad: bool = False) -> Node:
    """A leaf that holds a value in memory."""
    shape = tuple(shape)
    return Node(BUFFER, (), {"shape": shape, "dtype": dtype}, shape, dtype, requires_grad, user_source(), buffer)


def input_node(index: int, shape: Shape, dtype: DType, requires_grad: bool = False) -> Node:
    """A leaf whose value is given at each call of a program."""
    shape = tuple(shape)
    attributes = {"index": index, "shape": shape, "dtype": dtype}
    return Node(INPUT, (), attributes, shape, dtype, requires_grad, user_source())


def parameter(index: int, shape: Shape, dtype: DType, requires_grad: bool = False) -> Node:
    """A leaf whose value the body of a scan is given at each step."""
    shape = tuple(shape)
    attributes = {"index": index, "shape": shape, "dtype": dtype}
    return Node(PARAMETER, (), attributes, shape, dtype, requires_grad, user_source())


def complex_refused(given: object) -> DTypeError:
    """The error for a complex number, wherever one arrives."""
    return DTypeError(
        f"complex numbers, and with them FFTs, are out of scope for now, got {given!r} (at {user_source()}); keep real "
        "and imaginary parts as two real tensors"
    )


def check_dtype(dtype: object) -> None:
    """Raise unless `dtype` is one of Pullback's."""
    if type(dtype) is not DType:
        name = dtype if isinstance(dtype, str) else getattr(dtype, "__name__", repr(dtype))
        if "complex" in str(name):
            raise complex_refused(dtype)
        raise DTypeError(f"a dtype is pullback.float32 or such, got {dtype!r} (at {user_source()})")


def constant(value: float | int | bool, dtype: DType) -> Node:
    """A number of shape (). Kept as a Python number that `dtype` can hold exactly or nearly."""
    if type(dtype) is not DType:
        check_dtype(dtype)
    if isinstance(value, complex):
        raise complex_refused(value)
    plain = bool(value) if dtype is bool_ else float(value) if dtype.is_floating_point else int(value)
    return Node(CONSTANT, (), {"value": plain, "dtype": dtype}, (), dtype, False, MODE.source)


def iota(shape: Shape, axis: int, dtype: DType) -> Node:
    """The index along `axis`, at every place of `shape`."""
    shape = tuple(shape)
    return Node(IOTA, (), {"shape": shape, "axis": axis, "dtype": dtype}, shape, dtype, False, MODE.source)
