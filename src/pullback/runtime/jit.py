"""LLVM text to callable addresses, in this process and through the cache on disk.

Chosen by measurement (LLVM 22): ORC's LLJIT with JITLink, one library for each `load`. 60 cached objects load in about
10 ms; a library each takes 25 ms, an MCJIT engine each 120 ms. MCJIT with one engine takes 7 ms, but can only be
trusted with the large code model, whose every constant and call is a 64-bit absolute address. JITLink puts the
sections of an object side by side and builds the stubs, so the small, position-independent model is safe.
Loop and SLP vectorizers stay off: the code that arrives is already written in vectors.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import re
import sys
import threading
import time
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite
import llvmlite.binding as llvm

from .. import debug
from ..codegen import target as targets
from ..codegen.target import Target
from ..codegen.text import Code
from ..errors import CompileError
from .cache import Cache, digest

#: How code is compiled, as part of the key of cached objects; change it together with `_Session._compile`.
_PIPELINE = "speed 3, no vectorizers, small, pic, 1"


class Statistics(NamedTuple):
    """Codes compiled, and codes taken from the disk cache, by this process so far."""

    compiled: int
    cached: int


def load(codes: Iterable[Code]) -> dict[str, int]:
    """The address of every code's function, by name; compiles what neither this process nor the cache on disk has.

    Codes that `codes` need are loaded with them. The addresses stay valid to the end of the process. Raises
    CompileError where LLVM rejects a text.
    """
    return _session(host_target()).load(list(codes))


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
        self._libraries = 0
        self._machine = self._target_machine()
        self._layout = str(self._machine.target_data)
        options = llvm.create_pipeline_tuning_options(speed_level=3)
        options.loop_vectorization = options.slp_vectorization = False
        self._options = options
        self._builder = llvm.create_pass_builder(self._machine, options)
        self._jit = immortal(llvm.create_lljit_compiler(self._target_machine(), use_jit_link=_HAS_JITLINK))
        self._key = _key_of_versions(target)

    def load(self, codes: list[Code]) -> dict[str, int]:
        addresses = self.addresses
        if any(code.name not in addresses for code in codes):
            with _lock:
                self._link(self._missing(codes))
        return {code.name: addresses[code.name] for code in codes}

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

    def _link(self, missing: dict[str, Code]) -> None:
        if not missing:
            return
        cache = _cache(debug.get("cache_dir"))
        library = llvm.JITLibraryBuilder().add_current_process()
        for code in missing.values():
            library.add_object_img(self._object(code, cache)).export_symbol(code.name)
            for need in code.needs:
                if need.name not in missing:
                    library.import_symbol(need.name, self.addresses[need.name])
        self._libraries += 1
        try:
            tracker = immortal(library.link(self._jit, f"pullback{self._libraries}"))
        except RuntimeError as error:
            raise CompileError(_explain_link(missing, str(error))) from error
        self.addresses.update((name, tracker[name]) for name in missing)

    def _object(self, code: Code, cache: Cache) -> bytes:
        key = digest(code.name, code.text, *(need.name for need in code.needs), self._key)
        payload = cache.get(key)
        if payload is not None:
            self.cached += 1
            return payload
        start = time.perf_counter()
        payload = self._compile(code)
        self.compiled += 1
        cache.put(key, payload)
        if "compile" in debug.get("debug"):
            milliseconds = (time.perf_counter() - start) * 1e3
            print(f"compile {code.name}: {milliseconds:.1f} ms, {len(payload)} bytes", file=sys.stderr)
        return payload

    def _compile(self, code: Code) -> bytes:
        """Text to an object file's bytes. Reading, optimizing and emitting a small kernel takes about 5 to 15 ms."""
        try:
            module = llvm.parse_assembly(code.text, llvm.create_context())
            module.triple, module.data_layout = self.target.triple, self._layout
            module.verify()
        except RuntimeError as error:
            raise CompileError(_explain(code, str(error))) from error
        self._builder.getModulePassManager().run(module, self._builder)
        return self._machine.emit_object(module)

    def _target_machine(self) -> llvm.TargetMachine:
        return llvm.Target.from_triple(self.target.triple).create_target_machine(
            cpu=self.target.cpu, features=self.target.features, opt=3, codemodel="small", reloc="pic"
        )


#: JITLink reads ELF and Mach-O; Windows' objects still need the older linker.
_HAS_JITLINK = platform.system() != "Windows"


@functools.lru_cache
def _cache(directory: Path | None) -> Cache:
    return Cache(directory)


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


def _renew_lock() -> None:
    """In a forked child nobody is left to release a lock that another thread of the parent held."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
