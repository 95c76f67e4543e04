"""LLVM text to callable addresses, in this process and through the cache on disk.

Chosen by measurement (LLVM 22): ORC's LLJIT with JITLink, one library for each `load`. 60 cached objects load in about
10 ms; a library each takes 25 ms, an MCJIT engine each 120 ms. MCJIT with one engine takes 7 ms, but can only be
trusted with the large code model, whose every constant and call is a 64-bit absolute address. JITLink puts the
sections of an object side by side and builds the stubs, so the small, position-independent model is safe.
The code that arrives is written in vectors and in the order in which it is to run, so few passes pay: those of
`_PASSES` take a quarter of the time that the whole pipeline of level 3 takes, and leave kernels as fast
(docs/decisions/compile-time.md).
"""

from __future__ import annotations

import ctypes
import functools
import platform
import re
import threading
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite
import llvmlite.binding as llvm

from .. import debug, forks
from ..codegen import target as targets
from ..codegen.target import Target
from ..codegen.text import Code
from ..errors import CompileError
from ..timeline import span
from .buffers import return_free
from .cache import Cache, digest

#: What is done to a module before instructions are chosen: registers for variables, then what their values make plain.
_PASSES = (
    "sroa", "simplify_cfg", "instruction_combine", "loop_rotate", "loop_unroll", "new_gvn", "simplify_cfg",
    "instruction_combine",
)  # fmt: skip
#: How code is compiled, as part of the key of cached objects; change it together with `_Session._compile`.
_PIPELINE = f"{' '.join(_PASSES)}, generated at level 3, small, pic, 1"


#: characters of texts after which memory that is free is given back, which takes a millisecond or two
_MUCH_TEXT = 1 << 20


class Statistics(NamedTuple):
    """Codes compiled, and codes taken from the disk cache, by this process so far."""

    compiled: int
    cached: int


def load(codes: Iterable[Code], ahead: Ahead | None = None) -> dict[str, int]:
    """The address of every code's function, by name; compiles what neither this process nor the cache on disk has.

    Codes that `codes` need are loaded with them; what `ahead` has begun is waited for. The addresses stay valid to the
    end of the process. Raises CompileError where LLVM rejects a text.
    """
    return _session(host_target()).load(list(codes), {} if ahead is None else ahead.objects)


class Ahead:
    """Compiles in the background while further code is written: LLVM runs without the interpreter's lock.

    Use it as a context manager, `start` each code as soon as there is one, and give it to `load`. One thread, because
    llvmlite lets one thread at a time into LLVM.
    """

    def __init__(self) -> None:
        self._session = _session(host_target())
        self._cache = _cache()
        self._thread: ThreadPoolExecutor | None = None
        #: the object of each code that was started, by name
        self.objects: dict[str, Future[bytes]] = {}

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *error: object) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=True, cancel_futures=True)

    def start(self, code: Code) -> None:
        """Begin to compile `code`, and what it needs, unless that is done."""
        for each in (code, *code.needs):
            if each.name not in self.objects and each.name not in self._session.addresses:
                if self._thread is None:
                    self._thread = ThreadPoolExecutor(1, "pullback-compiler")
                self.objects[each.name] = self._thread.submit(self._session.object_of, each, self._cache)


def templates() -> Cache:
    """Where launches are kept from one process to another (see `codegen.templates`): beside the objects."""
    return _cache()


def statistics() -> Statistics:
    """What this process has compiled and taken from the cache so far."""
    sessions = list(_sessions.values())
    return Statistics(sum(s.compiled for s in sessions), sum(s.cached for s in sessions))


def host_target() -> Target:
    """The processor to generate code for: the host's, or the one PULLBACK_CPU names.

    A named processor has its own features only, none of the host's. Raises ValueError where it is unknown or
    has features that this machine lacks.
    """
    return _target(debug.get("cpu"))


@functools.lru_cache
def _target(cpu: str) -> Target:
    _initialize()
    triple, host, caches = llvm.get_process_triple(), llvm.get_host_cpu_name(), _cache_sizes()
    features = llvm.get_host_cpu_features()
    available = frozenset(name for name, enabled in features.items() if enabled)
    if cpu in ("", host):
        flags = [("+" if enabled else "-") + name for name, enabled in features.items()]
        return targets.for_cpu_features(host, available, triple, caches, flags)
    if not targets.is_x86(triple) or cpu not in targets.X86_LEVELS:
        levels = [*targets.X86_LEVELS] if targets.is_x86(triple) else []
        raise ValueError(f"PULLBACK_CPU={cpu!r} is not allowed: expected {' or '.join([host, *levels])}")
    wanted = targets.level_features(cpu)
    missing = sorted(wanted - available)
    if missing:
        raise ValueError(f"PULLBACK_CPU={cpu!r} is not allowed: this machine ({host}) has no {', '.join(missing)}")
    return targets.for_cpu_features(cpu, wanted, triple, caches)


def _cache_sizes() -> tuple[int, int, int]:
    """The data caches of the first core in bytes (l1, l2, l3); usual sizes where the system does not tell."""
    sizes = {1: 32 << 10, 2: 512 << 10, 3: 8 << 20}
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            kind, level, size = (index.joinpath(name).read_text().strip() for name in ("type", "level", "size"))
        except OSError:  # some virtual machines show only part of it
            continue
        match = re.fullmatch(r"(\d+)([KM]?)", size)
        if kind in ("Data", "Unified") and level in ("1", "2", "3") and match and int(match[1]) > 0:
            sizes[int(level)] = int(match[1]) * {"": 1, "K": 1 << 10, "M": 1 << 20}[match[2]]
    return sizes[1], sizes[2], sizes[3]


@functools.lru_cache
def _initialize() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


_sessions: dict[Target, _Session] = {}
_lock = threading.RLock()
#: held to count what is compiled, in whatever thread
_counting = threading.Lock()


def _session(target: Target) -> _Session:
    session = _sessions.get(target)
    if session is None:
        with _lock:
            session = _sessions.setdefault(target, _Session(target))
    return session


class _Session:
    """All code of one target in this process."""

    def __init__(self, target: Target):
        _initialize()
        self.target = target
        self.addresses: dict[str, int] = {}
        self.compiled = self.cached = 0
        self._libraries = self._packed = 0
        self._machine = self._target_machine()
        self._layout = str(self._machine.target_data)
        self._builder = llvm.create_pass_builder(self._machine, llvm.create_pipeline_tuning_options())
        self._passes = llvm.create_new_module_pass_manager()
        for name in _PASSES:
            getattr(self._passes, f"add_{name}_pass")()
        self._jit = immortal(llvm.create_lljit_compiler(self._target_machine(), use_jit_link=_HAS_JITLINK))
        self._key = _key_of_versions(target)

    def load(self, codes: list[Code], objects: dict[str, Future[bytes]]) -> dict[str, int]:
        addresses = self.addresses
        if any(code.name not in addresses for code in codes):
            with _lock:
                self._link(self._missing(codes), objects)
        self._pack(codes)
        return {code.name: addresses[code.name] for code in codes}

    def _pack(self, codes: Iterable[Code]) -> None:
        """Have texts take less memory now that they are loaded, and give back to the system what that and the making of
        so much code have left free.
        """
        self._packed += sum(code.pack() for code in codes)
        if self._packed >= _MUCH_TEXT:
            self._packed = 0
            return_free()

    def _missing(self, codes: Iterable[Code]) -> dict[str, Code]:
        """The codes to be loaded, with those that they need."""
        missing: dict[str, Code] = {}
        waiting = list(codes)
        while waiting:
            code = waiting.pop()
            if code.name not in missing and code.name not in self.addresses:
                missing[code.name] = code
                waiting.extend(code.needs)
        return missing

    def _link(self, missing: dict[str, Code], started: dict[str, Future[bytes]]) -> None:
        if not missing:
            return
        cache = _cache()
        library = llvm.JITLibraryBuilder().add_current_process()
        with span("waiting for LLVM"):
            objects = [started[n].result() if n in started else self.object_of(c, cache) for n, c in missing.items()]
        for code, payload in zip(missing.values(), objects, strict=True):
            library.add_object_img(payload).export_symbol(code.name)
            for need in code.needs:
                if need.name not in missing:
                    library.import_symbol(need.name, self.addresses[need.name])
        self._libraries += 1
        try:
            with span("link"):
                tracker = immortal(library.link(self._jit, f"pullback{self._libraries}"))
        except RuntimeError as error:
            raise CompileError(_explain_link(missing, str(error))) from error
        self.addresses.update((name, tracker[name]) for name in missing)

    def object_of(self, code: Code, cache: Cache) -> bytes:
        """The object file of a code, from the cache or compiled."""
        with span("read the cache"):
            key = digest(code.name, code.text, *(need.name for need in code.needs), self._key)
            payload = cache.get(key)
        if payload is not None:
            with _counting:
                self.cached += 1
            return payload
        payload = self._compile(code)
        with _counting:
            self.compiled += 1
        with span("write the cache"):
            cache.put(key, payload)
        return payload

    def _compile(self, code: Code) -> bytes:
        """Text to an object file's bytes. Reading, optimizing and emitting a small kernel takes about 2 to 10 ms."""
        with span("LLVM: read", code.name):
            try:
                module = llvm.parse_assembly(code.text, llvm.create_context())
                module.triple, module.data_layout = self.target.triple, self._layout
                module.verify()
            except RuntimeError as error:
                raise CompileError(_explain(code, str(error))) from error
        with span("LLVM: optimize", code.name):
            self._passes.run(module, self._builder)
        with span("LLVM: generate", code.name):
            return self._machine.emit_object(module)

    def _target_machine(self) -> llvm.TargetMachine:
        return llvm.Target.from_triple(self.target.triple).create_target_machine(
            cpu=self.target.cpu, features=self.target.features, opt=3, codemodel="small", reloc="pic"
        )


#: JITLink reads ELF and Mach-O; Windows' objects still need the older linker.
_HAS_JITLINK = platform.system() != "Windows"


def _cache() -> Cache:
    return _cache_of(debug.get("cache_dir"), debug.get("cache_bytes"))


@functools.lru_cache
def _cache_of(directory: Path | None, limit: int) -> Cache:
    return Cache(directory, limit)


def _key_of_versions(target: Target) -> str:
    try:
        version = metadata.version("pullback")
    except metadata.PackageNotFoundError:  # run from a source tree that is not installed
        version = ""
    llvm_version = ".".join(map(str, llvm.llvm_version_info))
    return digest(target.cpu, target.features, target.triple, llvm_version, llvmlite.__version__, version, _PIPELINE)


def immortal(thing: Any) -> Any:
    """Keep `thing` to the very end: threads may still use it while the interpreter clears its modules."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
    return thing


def _explain(code: Code, message: str) -> str:
    """LLVM's message with the lines of text that it complains of, numbered."""
    match = re.search(r":(\d+):\d+: error", message)
    if match is None:
        return f"LLVM rejects the code of {code.name}: {message.strip()}\n{code.text}"
    wrong, lines = int(match[1]), code.text.splitlines()
    first = max(wrong - 4, 0)
    shown = "\n".join(
        f"{'>' if number == wrong else ' '}{number:5d}  {line}"
        for number, line in enumerate(lines[first : wrong + 3], first + 1)
    )
    return f"LLVM rejects the code of {code.name}: {message.strip()}\n{shown}"


def _explain_link(missing: dict[str, Code], message: str) -> str:
    """The linker's message with the functions that nothing defines; the linker itself only prints them."""
    declared = {
        name: code
        for code in missing.values()
        for name in re.findall(r"^declare [^@\n]*@([\w.$]+)\(", code.text, re.MULTILINE)
        if not name.startswith("llvm.")
    }
    unknown = [
        f"{name} (declared by {code.name})"
        for name, code in declared.items()
        if name not in missing and name not in [need.name for need in code.needs] and not llvm.address_of_symbol(name)
    ]
    return f"the linker rejects {', '.join(missing)}: {message.strip()}; undefined: {', '.join(unknown) or 'nothing'}"


@forks.in_child
def _renew_lock() -> None:
    global _lock, _counting
    _lock, _counting = threading.RLock(), threading.Lock()


# a fork waits for the thread that is inside LLVM: what it has begun there nobody could end in the child
forks.around(*(getattr(llvm.ffi.lib._lock, f"__{name}__") for name in ("enter", "exit", "exit")))
