"""The import direction between the rooms of the package, read from the source of every file.

A room is a folder or a single file directly under src/pullback. Every import counts, at the top of a file and late: a
late import stands inside a function or under TYPE_CHECKING, and so does not decide the order in which files load.
"""

import ast
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "pullback"
FILES = sorted(PACKAGE.rglob("*.py"))

# room -> the other rooms of the package that it may import, the nearest to the ground first
RULES = {
    "errors": set(),
    "trees": set(),
    "accelerator": set(),
    "backends": set(),
    "settings": set(),
    "forks": set(),
    "debug": {"forks", "errors"},
    "graph": {"errors"},
    "timeline": {"forks", "graph"},
    "ops": {"graph", "errors"},
    "differentiate": {"graph", "ops", "errors"},
    "diagnosis": {"graph", "ops", "errors"},
    "compiler": {"graph", "timeline", "ops", "debug", "errors"},
    "codegen": {"forks", "graph", "timeline", "ops", "compiler", "errors"},
    "runtime": {"forks", "graph", "timeline", "ops", "compiler", "codegen", "debug", "errors"},
    "memory": {"graph", "ops", "compiler", "codegen", "runtime", "errors"},
    "tensor": {"graph", "ops", "diagnosis", "runtime", "errors"},
    "autograd": {"diagnosis", "differentiate", "graph", "timeline", "ops", "tensor", "errors"},
    "accumulation": {"graph", "ops", "tensor", "autograd", "trees", "errors"},
    "tracing": {
        "debug",
        "forks",
        "graph",
        "timeline",
        "ops",
        "diagnosis",
        "runtime",
        "memory",
        "tensor",
        "trees",
        "accumulation",
        "errors",
    },
    "functions": {"tensor"},
    "inplace_functions": {"tensor"},
    "linalg": {"graph", "ops", "tensor", "autograd", "errors"},
    "quant": {"graph", "ops", "tensor", "errors"},
    "nn": {"graph", "ops", "tensor", "autograd", "linalg", "quant", "errors"},
    "snapshots": {"forks", "graph", "ops", "runtime", "tensor", "errors"},
    "special": {"tensor", "nn"},
    "signal": {"graph", "ops", "tensor"},
    "testing": {"graph", "ops", "tensor", "errors"},
    "distributions": {"ops", "tensor", "linalg", "nn", "errors"},
    "lora": {"graph", "ops", "tensor", "nn", "snapshots", "errors"},
    "optim": {"graph", "ops", "tensor", "tracing", "nn", "quant", "errors"},
    "recovery": {"diagnosis", "ops", "tensor", "tracing", "snapshots", "errors"},
    "monitoring": {"graph", "ops", "diagnosis", "tensor", "tracing", "nn", "optim", "trees", "errors"},
    "checkup": {"graph", "ops", "diagnosis", "tensor", "tracing", "nn", "optim", "errors"},
    "func": {"graph", "ops", "tensor", "autograd", "nn", "trees", "errors"},
    "array_api": {"graph", "ops", "tensor", "linalg", "errors"},
    "workers": {"runtime", "errors"},
    "utils": {"graph", "ops", "tensor", "nn", "workers", "errors", "trees"},
    "amp": {"graph", "ops", "tensor", "tracing", "optim", "trees", "errors"},
    "cpu": {"graph", "tensor", "amp"},
    "cuda": {"graph", "tensor", "amp"},
    "data": {"errors"},
    "train": {"pullback", "nn", "data", "errors"},
    "cli": {"pullback", "tracing", "train", "checkup", "data", "runtime", "memory", "debug", "errors"},
    "__main__": {"cli"},
    "profiler": {"graph", "timeline", "compiler", "runtime"},
    "__init__": {
        "pullback",
        "profiler",
        "graph",
        "runtime",
        "tensor",
        "autograd",
        "tracing",
        "accumulation",
        "checkup",
        "diagnosis",
        "monitoring",
        "functions",
        "inplace_functions",
        "special",
        "signal",
        "testing",
        "distributions",
    }
    | {
        "array_api",
        "nn",
        "optim",
        "lora",
        "quant",
        "func",
        "linalg",
        "utils",
        "amp",
        "cpu",
        "cuda",
        "accelerator",
        "backends",
        "settings",
        "snapshots",
        "recovery",
        "debug",
        "errors",
    },
}
# What a room may import late only: methods of tensors that are composed of what stands above them, and the functions
# that einops calls by the names of the public list.
LATE = {"autograd": {"func"}, "utils": {"pullback"}, "tensor": {"array_api", "autograd", "linalg", "nn", "tracing"}}
# The parts of the runtime that tensors know: how to compute pending values, and what holds a computed one
# or passes it to another library.
KNOWN_TO_TENSORS = ("pullback.runtime.engine", "pullback.runtime.buffers", "pullback.runtime.dlpack")
# Rooms that a second backend must be able to share: no LLVM and no running of threads in them. `threading` itself is
# let through, because state such as "gradients are off" belongs to a thread (threading.local).
ANY_BACKEND = {"graph", "ops", "differentiate", "autograd", "linalg", "nn", "optim", "quant", "func", "utils", "amp"}
CONCURRENCY = {"_thread", "concurrent", "multiprocessing", "ctypes"}
COMMAND_DEPENDENCIES = {"typer", "rich", "safetensors"}
PICKLES = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve"}


class Import(NamedTuple):
    """One imported module: its dotted name, the line it stands on, and whether it is imported late."""

    module: str
    line: int
    late: bool

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]

    @property
    def room(self) -> str | None:
        """The room that is imported; "pullback" stands for the package's public list; None outside the package."""
        if self.top != "pullback":
            return None
        name = self.module.split(".")[1] if "." in self.module else "pullback"
        return name if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file() else "pullback"


def imports(tree: ast.AST, package: str, late: bool = False) -> Iterator[Import]:
    """Every import in a syntax tree, relative ones made absolute against the dotted name of the file's package."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, late) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) + 1 - node.level]) if node.level else ""
            source = ".".join(part for part in (base, node.module) if part)
            yield from (Import(f"{source}.{alias.name}", node.lineno, late) for alias in node.names)
        else:
            function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            yield from imports(node, package, late or function or for_types)


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports_of(path: Path) -> list[Import]:
    package = ".".join(("pullback", *path.relative_to(PACKAGE).parent.parts))
    return list(imports(ast.parse(path.read_text(encoding="utf-8"), str(path)), package))


def violations(room: str, found: list[Import]) -> list[str]:
    """What one file imports against the rules, a line of text each."""
    wrong = []
    for item in found:
        allowed = RULES[room] | {room} | (LATE.get(room, set()) if item.late else set())
        if item.room is not None and item.room not in allowed:
            wrong.append(f"line {item.line}: {room} may not import {item.module}; it may import {sorted(allowed)}")
        if room == "tensor" and item.room == "runtime" and not item.module.startswith(KNOWN_TO_TENSORS):
            wrong.append(f"line {item.line}: tensor may import {KNOWN_TO_TENSORS} of the runtime, not {item.module}")
        if item.top == "llvmlite" and room != "runtime":
            wrong.append(f"line {item.line}: only runtime may import llvmlite")
        if room in ANY_BACKEND and item.top in CONCURRENCY:
            wrong.append(f"line {item.line}: {room} serves every backend, so it may not import {item.module}")
        if item.top in COMMAND_DEPENDENCIES and room not in {"cli", "train", "monitoring"}:
            wrong.append(f"line {item.line}: the engine may not import {item.top}")
        if item.top in PICKLES:
            wrong.append(f"line {item.line}: no pickle is ever read or written ({item.module})")
    return wrong


def test_every_room_has_a_rule() -> None:
    assert {room_of(path) for path in FILES} == set(RULES)


def test_no_room_is_above_itself() -> None:
    """Without the late ones, the rules have no circle: each room imports rooms that stand before it."""
    seen: set[str] = {"pullback"}
    for room, allowed in RULES.items():
        if room != "__init__":
            assert allowed <= seen, f"{room} may import {sorted(allowed - seen)}, which come after it"
        seen.add(room)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    assert not violations(room_of(path), imports_of(path))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_allows_pickles(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant), f"{path}:{node.value.lineno}"
            assert node.value.value is False, f"{path}:{node.value.lineno}"


@pytest.mark.parametrize(
    ("room", "source", "reason"),
    [
        ("graph", "from pullback.ops import arithmetic", "graph may not import pullback.ops.arithmetic"),
        ("graph", "from .. import ops", "graph may not import pullback.ops"),
        ("graph", "from ..ops.arithmetic import Arithmetic", "graph may not import pullback.ops.arithmetic"),
        ("ops", "import pullback", "ops may not import pullback;"),
        ("ops", "from pullback import Tensor", "ops may not import pullback.Tensor"),
        ("compiler", "def late():\n    import pullback.codegen.text", "compiler may not import pullback.codegen"),
        ("codegen", "from llvmlite import binding", "only runtime may import llvmlite"),
        ("nn", "from concurrent.futures import ThreadPoolExecutor", "nn serves every backend"),
        ("nn", "def save():\n    import safetensors.numpy", "the engine may not import safetensors"),
        ("nn", "from ..runtime.buffers import Buffer", "nn may not import pullback.runtime.buffers.Buffer"),
        ("tensor", "from ..runtime import jit", "not pullback.runtime.jit"),
        ("tensor", "from ..nn.functional import softmax", "tensor may not import pullback.nn.functional.softmax"),
        ("train", "import pickle", "no pickle"),
    ],
)
def test_a_wrong_import_is_found(room: str, source: str, reason: str) -> None:
    (message,) = violations(room, list(imports(ast.parse(source), f"pullback.{room}")))
    assert reason in message


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("graph", "import numpy as np\nfrom pullback.graph.types import DType\nfrom . import types"),
        ("runtime", "from llvmlite import binding\nimport threading\nfrom pullback.codegen.text import Writer"),
        ("tensor", "def softmax(x):\n    from ..nn import functional"),
        ("tensor", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..tracing.trace import Trace"),
        ("train", "from safetensors.numpy import save_file"),
        ("cli", "import rich, typer\nimport pullback"),
    ],
)
def test_a_right_import_passes(room: str, source: str) -> None:
    assert not violations(room, list(imports(ast.parse(source), f"pullback.{room}")))


def test_the_engine_needs_only_numpy_and_llvmlite() -> None:
    """A training step runs in a process where nothing but the standard library, NumPy and llvmlite can be imported."""
    program = """
        import sys

        ALLOWED = set(sys.stdlib_module_names) | {"numpy", "llvmlite", "pullback"}

        class Refuse:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] not in ALLOWED:
                    raise ModuleNotFoundError(f"{name} is refused in this test", name=name)

        sys.meta_path.insert(0, Refuse())
        import pullback as pb

        pb.manual_seed(0)
        model = pb.nn.Linear(3, 1)
        optimizer = pb.optim.Adam(model.parameters(), lr=0.1)
        x, y = pb.randn(8, 3), pb.randn(8, 1)

        @pb.compile
        def step(x, y):
            optimizer.zero_grad()
            loss = pb.nn.functional.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        first, second = step(x, y).item(), step(x, y).item()
        assert second < first, (first, second)
        foreign = {name.partition(".")[0] for name in sys.modules} & {"typer", "rich", "safetensors", "torch"}
        assert not foreign, foreign
    """
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
