"""Targets, and loading code."""

import ctypes
import itertools
import math
import os
import subprocess
import sys
import threading

import pytest

from pullback import debug
from pullback.codegen import target as targets
from pullback.codegen.text import Code
from pullback.errors import CompileError
from pullback.runtime import jit

CACHES = (32 << 10, 1 << 20, 8 << 20)


def constant(name: str, value: float) -> Code:
    return Code(name, f"define double @{name}() nounwind {{\n  ret double {value}\n}}\n")


def call(address: int, *arguments: float) -> float:
    return ctypes.CFUNCTYPE(ctypes.c_double, *[ctypes.c_double] * len(arguments))(address)(*arguments)


def test_widths_and_registers_by_features():
    for features, width, registers in (
        (["sse2"], 16, 16),
        (["avx", "avx2"], 32, 16),
        (["avx2", "avx", "avx512f"], 64, 32),
    ):
        target = targets.for_cpu_features("any", features, "x86_64-unknown-linux-gnu", CACHES)
        assert (target.vector_bytes, target.registers, target.has_bf16) == (width, registers, False)
        assert (target.l1, target.l2, target.l3) == CACHES
        assert target.lanes(4) == width // 4
    arm = targets.for_cpu_features("apple-m1", ["neon", "bf16"], "arm64-apple-darwin", CACHES, ["+neon"])
    assert (arm.vector_bytes, arm.registers, arm.has_bf16, arm.features) == (16, 32, True, "+neon")


def test_wish_for_narrow_vectors_is_overruled():
    flags = ["+avx512f", "+prefer-256-bit", "-sse4a"]
    target = targets.for_cpu_features("any", ["avx512f", "avx512bf16"], "x86_64-linux", CACHES, flags)
    assert target.features == "+avx512f,-prefer-256-bit,-sse4a"
    assert target.has_bf16


def test_levels_include_those_below():
    levels = [targets.level_features(name) for name in targets.X86_LEVELS]
    assert all(lower < upper for lower, upper in itertools.pairwise(levels))


def test_named_processor_has_its_own_features_only():
    host = jit.host_target()
    if not targets.is_x86(host.triple):
        pytest.skip("levels are of x86-64")
    with debug.override(cpu="x86-64-v2"):
        lesser = jit.host_target()
    assert (lesser.cpu, lesser.features, lesser.vector_bytes) == ("x86-64-v2", "-prefer-256-bit", 16)
    assert jit.host_target() is host


def test_unknown_processor_is_an_error():
    with debug.override(cpu="pentium-pro"), pytest.raises(ValueError, match="PULLBACK_CPU='pentium-pro'"):
        jit.host_target()


def test_missing_features_are_named(monkeypatch):
    if not targets.is_x86(jit.host_target().triple):
        pytest.skip("levels are of x86-64")
    monkeypatch.setitem(targets.X86_LEVELS, "x86-64-v9", ("no-such-feature",))
    with debug.override(cpu="x86-64-v9"), pytest.raises(ValueError, match=r"has no .*no-such-feature"):
        jit.host_target()


def test_same_code_for_two_processors_in_one_process():
    code = constant("two_processors", 2.5)
    first = jit.load([code])
    if not targets.is_x86(jit.host_target().triple):
        pytest.skip("levels are of x86-64")
    with debug.override(cpu="x86-64"):
        second = jit.load([code])
    assert first != second
    assert call(first[code.name]) == call(second[code.name]) == 2.5


def test_needs_resolve_within_one_load_and_across_loads():
    def adds(name: str, need: Code) -> Code:
        text = f"""declare double @{need.name}()
define double @{name}() nounwind {{
  %x = call double @{need.name}()
  %y = fadd double %x, 1.0
  ret double %y
}}
"""
        return Code(name, text, (need,))

    base = constant("needs_base", 1.5)
    together = adds("needs_top", adds("needs_middle", base))
    assert call(jit.load([together])["needs_top"]) == 3.5
    later = adds("needs_later", base)
    addresses = jit.load([later, base, later])
    assert set(addresses) == {"needs_later", "needs_base"}
    assert call(addresses["needs_later"]) == 2.5


@pytest.mark.parametrize("name", ["exp", "log", "sin", "erf", "tanh"])
def test_mathematical_library_resolves(name):
    text = f"""declare double @{name}(double)
define double @of_{name}(double %x) nounwind {{
  %y = call double @{name}(double %x)
  ret double %y
}}
"""
    address = jit.load([Code(f"of_{name}", text)])[f"of_{name}"]
    assert math.isclose(call(address, 0.5), getattr(math, name)(0.5), rel_tol=1e-14)


def test_constants_in_memory():
    text = """@table = private constant [4 x double] [double 1.0, double 2.0, double 4.0, double 8.0]
define double @looks_up(double %x) nounwind {
  %i = fptosi double %x to i64
  %p = getelementptr [4 x double], ptr @table, i64 0, i64 %i
  %y = load double, ptr %p
  ret double %y
}
"""
    assert call(jit.load([Code("looks_up", text)])["looks_up"], 2.0) == 4.0


def test_errors_show_the_offending_lines():
    text = "define void @wrong(ptr %p) {\n  %x = load float, ptr %p\n  %y = fadd double %x, 1.0\n  ret void\n}\n"
    with pytest.raises(CompileError) as caught:
        jit.load([Code("wrong", text)])
    assert ">    3    %y = fadd double %x, 1.0" in str(caught.value)
    assert "code of wrong" in str(caught.value)
    unverified = "define void @unverified() {\n  %y = fadd double %x, 1.0\n  %x = fadd double %y, 1.0\n  ret void\n}\n"
    with pytest.raises(CompileError, match="dominate"):
        jit.load([Code("unverified", unverified)])
    missing = "declare void @nowhere()\ndefine void @lost() {\n  call void @nowhere()\n  ret void\n}\n"
    with pytest.raises(CompileError, match=r"undefined: nowhere \(declared by lost\)"):
        jit.load([Code("lost", missing)])
    assert call(jit.load([constant("after_errors", 1.0)])["after_errors"]) == 1.0


def test_loading_from_many_threads():
    codes = [constant(f"thread_{i}", i + 0.5) for i in range(8)]
    results: list[dict[str, int]] = []
    threads = [threading.Thread(target=lambda: results.append(jit.load(codes))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6
    assert all(result == results[0] for result in results)


PROGRAM = """
import sys
from pullback.codegen.text import Code
from pullback.runtime import jit
jit.load([Code(f"kept_{i}", f"define i64 @kept_{i}() nounwind {{\\n  ret i64 {i}\\n}}\\n") for i in range(3)])
print(*jit.statistics())
"""


def run(directory, **environment: str) -> str:
    path = os.pathsep.join(part for part in sys.path if part)
    environment = {**os.environ, "PYTHONPATH": path, "PULLBACK_CACHE_DIR": str(directory), **environment}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, check=True, capture_output=True, text=True, timeout=120
    ).stdout.strip()


def test_second_process_compiles_nothing(tmp_path):
    assert run(tmp_path) == "3 0"
    assert run(tmp_path) == "0 3"
    victim = next(tmp_path.iterdir())
    victim.write_bytes(victim.read_bytes()[:-5])
    assert run(tmp_path) == "1 2"
    assert run("off") == "3 0"


def test_codes_are_compiled_ahead():
    codes = [constant(f"ahead{i}", float(i)) for i in range(4)]
    before = jit.statistics().compiled
    with debug.override(cache_dir=None), jit.Ahead() as ahead:
        for code in codes[:3]:
            ahead.start(code)
            ahead.start(code)
        addresses = jit.load(codes, ahead)
    assert jit.statistics().compiled - before == 4
    assert [call(addresses[code.name]) for code in codes] == [0.0, 1.0, 2.0, 3.0]
    with jit.Ahead() as ahead:
        ahead.start(codes[0])
        assert not ahead.objects  # it is there already


def test_what_is_wrong_ahead_is_told_where_it_is_loaded():
    wrong = Code("wrong_ahead", "define void @wrong_ahead() {\n  ret i32 0\n}\n")
    with jit.Ahead() as ahead:
        ahead.start(wrong)
        with pytest.raises(CompileError, match="wrong_ahead"):
            jit.load([wrong], ahead)
