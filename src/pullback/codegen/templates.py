"""Templates: launches with numbers in place of nodes, which serve every group of the same structure.

They can be written down as well, texts of kernels included, so that a later process need not emit them again. What is
written is found by a key made of everything that emission depends on: the group's structure, the processor, and the
sources of the compiler itself. It is packed JSON; what does not read as templates of the group is taken for absent.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import sys
import zlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..compiler.index import View
from ..graph.node import Node
from ..graph.types import DType
from ..ops.primitive import REGISTRY, Primitive
from .launch import Argument, Launch, Workspace
from .target import Target
from .text import Code

#: the rooms that the text of a kernel depends on
_ROOMS = ("graph", "ops", "compiler", "codegen")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
#: of the text of one group; more is not read
_MOST_BYTES = 64 << 20
_KINDS = ("number", "workspace", "view", "node")


class Store(Protocol):
    """Where templates are kept from one process to another, as bytes by key."""

    def get(self, key: str) -> bytes | None:
        """What was put under `key`, None where nothing sound is there."""

    def put(self, key: str, payload: bytes) -> None:
        """Keep `payload` under `key`."""


@dataclass
class Template:
    """A launch with the numbers of nodes in place of the nodes."""

    pattern: Launch
    arguments: list[tuple[str, int, int]]
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    exact: tuple[int, ...]

    @classmethod
    def of(cls, launch: Launch, numbers: Mapping[Any, int], workspaces: dict[Workspace, int]) -> Template:
        """The template of a launch on the nodes that `numbers` counts; `workspaces` counts those of the group."""
        arguments = []
        for argument in launch.arguments:
            if isinstance(argument, int):
                arguments.append(("number", argument, 0))
            elif isinstance(argument, Workspace):
                arguments.append(("workspace", workspaces.setdefault(argument, len(workspaces)), argument.nbytes))
            elif isinstance(argument, View):
                arguments.append(("view", numbers[argument.base], argument.offset))
            else:
                arguments.append(("node", numbers[argument], 0))
        places = [tuple(sorted(numbers[n] for n in some)) for some in (launch.reads, launch.writes, launch.exact)]
        pattern = _pattern(
            launch.code, launch.tasks, launch.scratch_bytes, launch.work, launch.in_place, launch.columns
        )
        return cls(pattern, arguments, *places)

    def launch(self, nodes: list[Node], workspaces: dict[int, Workspace]) -> Launch:
        """The launch on other nodes; workspaces are shared by the launches of one group."""
        arguments: list[Argument] = []
        for kind, what, more in self.arguments:
            if kind == "number":
                arguments.append(what)
            elif kind == "workspace":
                arguments.append(workspaces.setdefault(what, Workspace(more)))
            else:
                arguments.append(View(nodes[what], (), more) if kind == "view" else nodes[what])
        reads, writes, exact_ = ({nodes[i] for i in some} for some in (self.reads, self.writes, self.exact))
        pattern = self.pattern
        return Launch(
            pattern.code,
            pattern.tasks,
            arguments,
            pattern.scratch_bytes,
            reads,
            writes,
            exact_,
            pattern.work,
            pattern.in_place,
            columns=pattern.columns,
        )


def _pattern(code: Code, tasks: int, scratch_bytes: int, work: int, in_place: bool, columns: tuple[int, ...]) -> Launch:
    return Launch(code, tasks, [], scratch_bytes, set(), set(), set(), work, in_place, columns=columns)


# ---- keys


def key_of(target: Target, structure: Hashable) -> str | None:
    """The key of the templates for a structure on a processor; None where no text says all there is to know of it."""
    sources = _sources()
    if sources is None:
        return None
    try:
        words = repr((sources, target, _plain(structure)))
    except _Unwritable:
        return None
    return hashlib.sha256(words.encode()).hexdigest()


class _Unwritable(Exception):
    """What only this process knows, such as a function of the user's."""


def _plain(value: Any) -> Any:
    """`value` in tuples, words and numbers whose `repr` tells any two values apart."""
    kind = type(value)
    if kind is tuple:
        return tuple([_plain(part) for part in value])
    if kind in (int, str, bool, float) or value is None:
        return value
    if kind is DType or (kind is Primitive and REGISTRY.get(value.name) is value):
        return kind.__name__, value.name
    if value in (int, bool, float):
        return "type", value.__name__
    raise _Unwritable


@functools.lru_cache
def _sources() -> str | None:
    """A digest of all that turns structures into text: the compiler's files, Python and NumPy; None where the files
    cannot be read, as in an archive.
    """
    state = hashlib.sha256(f"{sys.version} {np.__version__}".encode())
    package = Path(__file__).parents[1]
    try:
        for room in _ROOMS:
            for path in sorted((package / room).glob("*.py")):
                data = path.read_bytes()
                state.update(f"{room}/{path.name} {len(data)}\n".encode() + data)
    except OSError:
        return None
    return state.hexdigest() if Path(__file__).is_file() else None


# ---- reading and writing


def written(templates: Sequence[Template]) -> bytes:
    """The templates of one group as bytes."""
    codes: dict[str, list[Any]] = {}

    def enter(code: Code) -> int:
        needs = [enter(need) for need in code.needs]
        codes.setdefault(code.name, [code.name, code.text, needs])
        return list(codes).index(code.name)

    launches = [
        {
            "code": enter(t.pattern.code),
            "tasks": t.pattern.tasks,
            "scratch": t.pattern.scratch_bytes,
            "work": t.pattern.work,
            "in place": t.pattern.in_place,
            "columns": t.pattern.columns,
            "arguments": t.arguments,
            "nodes": [t.reads, t.writes, t.exact],
        }
        for t in templates
    ]
    document = json.dumps({"codes": list(codes.values()), "launches": launches})
    return zlib.compress(document.encode(), level=1)  # which takes a tenth of the space


def read(payload: bytes, count: int) -> list[Template] | None:
    """The templates that `written` wrote of a group of `count` nodes; None where the text does not read as such."""
    try:
        unpacking = zlib.decompressobj()
        document = json.loads(unpacking.decompress(payload, _MOST_BYTES))
        _demand(unpacking.eof and not unpacking.unused_data)
        codes: list[Code] = []
        for name, text, needs in document["codes"]:
            _demand(isinstance(name, str) and _NAME.fullmatch(name) is not None and isinstance(text, str))
            codes.append(Code(name, text, tuple(codes[_whole(need, len(codes))] for need in needs)))
        return [_template(launch, codes, count) for launch in document["launches"]]
    except (zlib.error, ValueError, TypeError, KeyError, RecursionError):
        return None


def _template(launch: Mapping[str, Any], codes: Sequence[Code], count: int) -> Template:
    in_place = launch["in place"]
    _demand(isinstance(in_place, bool))
    tasks, scratch, work = (_whole(launch[name]) for name in ("tasks", "scratch", "work"))
    columns = _numbers(launch["columns"])
    pattern = _pattern(codes[_whole(launch["code"], len(codes))], tasks, scratch, work, in_place, columns)
    arguments = []
    for kind, what, more in launch["arguments"]:
        _demand(kind in _KINDS)
        known = kind in ("view", "node")
        arguments.append((kind, _whole(what, count) if known else _whole(what), _whole(more)))
    reads, writes, exact = (_numbers(some, count) for some in launch["nodes"])
    return Template(pattern, arguments, reads, writes, exact)


_LARGEST = 1 << 62


def _numbers(some: Iterable[Any], below: int = _LARGEST) -> tuple[int, ...]:
    return tuple([_whole(number, below) for number in some])


def _whole(number: Any, below: int = _LARGEST) -> int:
    """`number`, if it is a whole one from 0 on."""
    _demand(type(number) is int and 0 <= number < below)
    return number


def _demand(condition: bool) -> None:
    if not condition:
        raise ValueError
