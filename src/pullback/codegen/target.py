"""The processor that code is generated for: its vector width, registers and caches. Pure data; the host is
asked in `pullback.runtime.jit.host_target`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

#: The x86-64 levels of the System V ABI supplement (section 3.1.1), each with the features that tell it from the level
#: below. These names may be asked for on any machine that has the features.
X86_LEVELS: dict[str, tuple[str, ...]] = {
    "x86-64": ("sse2",),
    "x86-64-v2": ("sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "cx16"),
    "x86-64-v3": ("avx", "avx2", "fma", "f16c", "bmi", "bmi2", "lzcnt", "movbe"),
    "x86-64-v4": ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
}


@dataclass(frozen=True)
class Target:
    """What code generation needs to know of a processor.

    `cpu`, `features` and `triple` are LLVM's words. `vector_bytes` is the width of the widest vector unit (16, 32 or
    64), `registers` the number of vector registers, `l1`, `l2` and `l3` the data caches in bytes. `has_bf16` tells
    that products of bfloat16 vectors exist (AVX512_BF16, or BF16 on AArch64).
    """

    cpu: str
    features: str
    vector_bytes: int
    registers: int
    l1: int
    l2: int
    l3: int
    triple: str
    has_bf16: bool = False

    def lanes(self, itemsize: int) -> int:
        """How many elements of `itemsize` bytes one vector register holds."""
        return self.vector_bytes // itemsize


def is_x86(triple: str) -> bool:
    """Whether `triple` names a 64-bit x86 machine."""
    return triple.startswith(("x86_64", "amd64"))


def is_aarch64(triple: str) -> bool:
    """Whether `triple` names a 64-bit ARM machine."""
    return triple.startswith(("aarch64", "arm64"))


def level_features(level: str) -> frozenset[str]:
    """Every feature that the x86-64 level `level` promises, those of the levels below included."""
    names = list(X86_LEVELS)
    return frozenset(feature for name in names[: names.index(level) + 1] for feature in X86_LEVELS[name])


def for_cpu_features(
    cpu: str, features: Iterable[str], triple: str, caches: tuple[int, int, int], flags: Iterable[str] = ()
) -> Target:
    """The target with the enabled `features` (LLVM's names, without signs) and `caches` (l1, l2, l3 in bytes).

    `flags` is what LLVM is told beside the name of the processor, such as "+avx2" or "-sse4a". Some processors ask
    for 256-bit vectors although they have wider ones; that wish is overruled, or wide code would be split in two.
    """
    enabled, signed = frozenset(features), set(flags)
    if is_x86(triple):
        wide = "avx512f" in enabled
        vector_bytes = 64 if wide else 32 if "avx" in enabled else 16
        registers = 32 if wide else 16
        signed = {flag for flag in signed if flag[1:] != "prefer-256-bit"} | {"-prefer-256-bit"}
        has_bf16 = "avx512bf16" in enabled
    else:
        # NEON. The scalable vectors of SVE are left to a later code generator.
        vector_bytes, registers, has_bf16 = 16, 32 if is_aarch64(triple) else 16, "bf16" in enabled
    return Target(cpu, ",".join(sorted(signed)), vector_bytes, registers, *caches, triple, has_bf16)


class Abilities(NamedTuple):
    """What instructions there are for that LLVM does not find by itself, or would call a function for.

    `half_conversions` tells that the processor converts float16, as all but x86 before F16C (2012) do; `permutes` how
    many float32 one instruction takes from any places of a vector, 0 where there is none.
    """

    half_conversions: bool = True
    permutes: int = 0


#: those of most processors
PLAIN = Abilities()


def abilities_of(target: Target) -> Abilities:
    """The abilities of a processor."""
    if not is_x86(target.triple):
        return PLAIN
    modern = target.cpu in ("x86-64-v3", "x86-64-v4")
    has_permutations = modern or "+avx2" in target.features
    return Abilities(modern or "+f16c" in target.features, target.vector_bytes // 4 if has_permutations else 0)
