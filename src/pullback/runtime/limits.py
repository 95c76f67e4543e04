"""What this machine can do at most: floating-point operations and bytes of memory a second, measured once a process.

Each is measured by a small kernel run on the threads in question, the best of a few tries: a limit is what the machine
reaches when nothing is in the way. All together takes about 0.1 s, mostly for memory that has to be touched first.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import numpy as np

from ..codegen.target import Target, is_x86
from ..codegen.text import Code
from .buffers import allocate
from .jit import host_target, load
from .schedule import Schedule

#: sums that are added to in turn, so that no multiplication waits for the one before it
_CHAINS = 12
#: tasks for each thread, so that a thread that comes late leaves its part to the others
_TASKS = 4
#: runs of which the best counts
_TRIES = 5
#: how many times a measured loop goes round in a task: about 0.2 ms
_ROUNDS = 30_000
#: bytes that are gone through in one turn of a loop
_STRETCH = 256
#: memory that certainly lies in no cache, and the most that is touched to measure it
_BEYOND_CACHES, _MOST_TOUCHED = 4, 192 << 20


@functools.lru_cache
def peak_operations(dtype: str, threads: int) -> float:
    """Floating-point operations a second in multiply-adds of `dtype` on so many threads.

    For "float32" and "float64" of full vectors; for "bfloat16" of the processor's products of bfloat16 where it has
    them. All else is computed in float32, whose rate counts then.
    """
    target = host_target()
    if dtype == "bfloat16" and _has_bfloat16_products(target):
        kernel, an_instruction = _multiply_add_bfloat16(), 2 * 2 * target.lanes(4)
    else:
        double = dtype == "float64"
        kernel, an_instruction = (
            _multiply_add(target, "double" if double else "float"),
            2 * target.lanes(4 + 4 * double),
        )
    arguments = np.array([_ROUNDS, 0], np.int64)
    tasks = threads * _TASKS
    schedule = Schedule([(load([kernel])[kernel.name], arguments.ctypes.data, tasks)], threads, 64)
    return tasks * _ROUNDS * _CHAINS * an_instruction / _best(schedule)


@functools.lru_cache
def bandwidth(level: int, threads: int, reading: bool = False) -> float:
    """Bytes a second, those read and those written, of writing memory anew in place on so many threads, where all of it
    fits the cache of `level` 1, 2 or 3, or none (4); of reading alone with `reading`.

    In place, since a copy has the processor fetch what it writes over as well, which kernels can avoid.
    """
    target = host_target()
    # well beyond the second cache, and no more: other programs may hold a part of the third
    share = {1: target.l1 // 2, 2: target.l2 // 2, 3: min(target.l3 // (2 * threads), 4 * target.l2)}
    tasks = threads * _TASKS
    piece = max(share.get(level, _outside(target) // threads) // _TASKS // _STRETCH * _STRETCH, _STRETCH)
    # touched by writing zeros: pages that nobody has written to are all the same page
    memory = allocate(piece * tasks)
    memory.fill(0)
    repeats = max(1, (2 << 20) // piece) if level < 4 else 1
    arguments = np.array([memory.ctypes.data, piece, repeats], np.int64)
    kernel = _sweep(target, reading)
    schedule = Schedule([(load([kernel])[kernel.name], arguments.ctypes.data, tasks)], threads, 64)
    return (1 if reading else 2) * piece * tasks * repeats / _best(schedule)


#: bytes a second: see `bandwidth`, whose arguments it has
Rate = Callable[[int, int, bool], float]


def moving_seconds(read: float, written: float, threads: int, rate: Rate | None = None) -> float:
    """The time that moving so many bytes takes at least, wherever they were before.

    A cache can have held as much as it is large, so what is more comes from further away, at that level's rate. What is
    written may lie over what is read. As much of what is read as is written counts at the rate of writing anew, the
    rest at that of reading, where it is faster. `rate` is `bandwidth` unless given.
    """
    rate = rate or bandwidth
    target, total = host_target(), read + written
    nearer = {1: 0, 2: target.l1 * threads, 3: target.l2 * threads, 4: target.l3}
    least, place = 0.0, max(read, written)
    for level, held in nearer.items():
        if place > held:
            alone = max(read - written, 0.0)
            seconds = (total - alone) / rate(level, threads, False)
            if alone:
                seconds += alone / max(rate(level, threads, False), rate(level, threads, True))
            least = max(least, seconds * (place - held) / place)
    return least


def least_seconds(operations: float, read: float, written: float, dtype: str, threads: int) -> float:
    """The time below which no kernel of so many operations, bytes read and bytes written can stay on this machine (its
    roofline: Williams, Waterman & Patterson, CACM 52, 2009).
    """
    computing = operations / peak_operations(dtype, threads) if operations else 0.0
    return max(computing, moving_seconds(read, written, threads))


def _outside(target: Target) -> int:
    return min(_BEYOND_CACHES * target.l3, _MOST_TOUCHED)


def _has_bfloat16_products(target: Target) -> bool:
    return target.has_bf16 and target.vector_bytes == 64 and is_x86(target.triple)


def _best(schedule: Schedule) -> float:
    """The least time that a run takes, in seconds."""
    schedule.run()
    times = []
    for _ in range(_TRIES):
        start = time.perf_counter()
        schedule.run()
        times.append(time.perf_counter() - start)
    return min(times)


def _multiply_add(target: Target, element: str) -> Code:
    lanes = target.lanes(8 if element == "double" else 4)
    vector, suffix = f"<{lanes} x {element}>", f"v{lanes}f{64 if element == 'double' else 32}"
    declaration = f"declare {vector} @llvm.fma.{suffix}({vector}, {vector}, {vector})"
    return _chains(
        f"pullback_peak_{element}", vector, f"{vector}", declaration,
        lambda value: f"call {vector} @llvm.fma.{suffix}({vector} {value}, {vector} %x, {vector} %x)",
    )  # fmt: skip


def _multiply_add_bfloat16() -> Code:
    name = "llvm.x86.avx512bf16.dpbf16ps.512"
    declaration = f"declare <16 x float> @{name}(<16 x float>, <32 x bfloat>, <32 x bfloat>)"
    return _chains(
        "pullback_peak_bfloat16", "<16 x float>", "<32 x bfloat>", declaration,
        lambda value: f"call <16 x float> @{name}(<16 x float> {value}, <32 x bfloat> %x, <32 x bfloat> %x)",
    )  # fmt: skip


def _chains(name: str, vector: str, operand: str, declaration: str, step: Callable[[str], str]) -> Code:
    """Chains of one instruction on operands read from scratch, whose results are written there at the end.

    Every chain starts at a value of its own, for all that LLVM knows: it makes one chain of those that start alike.
    """
    chains = range(_CHAINS)
    starts = "".join(f"  %z{i} = load volatile {vector}, ptr %scratch, align 4\n" for i in chains)
    head = "".join(f"  %s{i} = phi {vector} [%z{i}, %entry], [%t{i}, %head]\n" for i in chains)
    body = "".join(f"  %t{i} = {step(f'%s{i}')}\n" for i in chains)
    ends = "".join(f"  store volatile {vector} %t{i}, ptr %scratch, align 4\n" for i in chains)
    text = f"""{declaration}
define void @{name}(ptr %args, ptr %scratch, i64 %task) nounwind {{
entry:
  %rounds = load i64, ptr %args
  store volatile i64 0, ptr %scratch
  %x = load volatile {operand}, ptr %scratch, align 4
{starts}  br label %head
head:
  %i = phi i64 [0, %entry], [%next, %head]
{head}{body}  %next = add i64 %i, 1
  %more = icmp ult i64 %next, %rounds
  br i1 %more, label %head, label %end
end:
{ends}  ret void
}}
"""
    return Code(name, text)


def _sweep(target: Target, reading: bool) -> Code:
    """Each task reads its own piece, and writes it anew unless `reading`, again and again, by cache lines or more."""
    vector, name = f"<{target.lanes(4)} x float>", "pullback_read" if reading else "pullback_rewrite"
    aligned = f"align {target.vector_bytes}"
    moves = ""
    for i in range(0, _STRETCH, target.vector_bytes):
        moves += f"  %at{i} = add i64 %i, {i}\n  %p{i} = getelementptr i8, ptr %from, i64 %at{i}\n"
        moves += f"  %x{i} = load volatile {vector}, ptr %p{i}, {aligned}\n"
        moves += "" if reading else f"  store volatile {vector} %x{i}, ptr %p{i}, {aligned}\n"
    text = f"""define void @{name}(ptr %args, ptr %scratch, i64 %task) nounwind {{
entry:
  %memory = load ptr, ptr %args
  %piece.at = getelementptr i64, ptr %args, i64 1
  %piece = load i64, ptr %piece.at
  %repeats.at = getelementptr i64, ptr %args, i64 2
  %repeats = load i64, ptr %repeats.at
  %start = mul i64 %task, %piece
  %from = getelementptr i8, ptr %memory, i64 %start
  br label %again
again:
  %round = phi i64 [0, %entry], [%round.next, %again.end]
  br label %head
head:
  %i = phi i64 [0, %again], [%next, %head]
{moves}  %next = add i64 %i, {_STRETCH}
  %more = icmp ult i64 %next, %piece
  br i1 %more, label %head, label %again.end
again.end:
  %round.next = add i64 %round, 1
  %all = icmp ult i64 %round.next, %repeats
  br i1 %all, label %again, label %end
end:
  ret void
}}
"""
    return Code(name, text)
