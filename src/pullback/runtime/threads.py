"""The pool of native worker threads and the protocol by which they share the tasks of a launch.

A thread that runs a schedule (the caller) publishes one launch at a time in the pool: a descriptor, then a *ticket*,
one 64-bit word made of a serial number (high 32 bits) and the numbers of the first task not yet claimed and of the one
behind the last (16 bits each). Caller and workers claim a task by compare-and-swap, run it, and subtract what they ran
from `pending`. The caller goes on when `pending` is zero.

The caller claims the first task that is left and a worker the last one. So from launch to launch, and from run to run,
a thread mostly works on the same part of what tensors hold, which its caches still have.

Why this is safe. A descriptor is overwritten only while the ticket is exhausted, and every ticket has a new serial, so
a compare-and-swap that succeeds proves that the descriptor read before it belongs to the claimed launch. A thread
touches a schedule's memory only between a claim and the report of it in `pending`, and the caller waits for all
reports. Workers otherwise read only the pool, which lives as long as the process. So there is no arrival, no departure
and nobody to wait for: a worker that wakes late finds no ticket, and delays nobody.

What remains is a worker that loses its core to another program in the middle of a task: the caller must wait for it,
some milliseconds. On a busy machine that would happen again and again, so a caller that was kept waiting works alone
for a while (`ALONE_FOR` times as long as it waited), which bounds what such waits can cost.

Which thread runs a task depends on chance, what a task computes does not: results have the same bits for any number of
threads.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import math
import os
import sys
import threading
from pathlib import Path

from .. import debug, forks
from ..codegen.target import is_aarch64, is_x86
from ..codegen.text import Code
from .buffers import allocate
from .jit import host_target, immortal, load

#: The most tasks that one launch may have.
MAXIMUM_TASKS = (1 << 24) - 1
#: Bits of a ticket that number a task, and so how many tasks can be handed out one by one.
CLAIM_BITS = 16
MAXIMUM_CLAIMS = (1 << CLAIM_BITS) - 1
#: How long an idle worker looks for work before it sleeps, and how much of that time it keeps its core to itself.
SPIN_NANOSECONDS = 100_000
YIELD_AFTER_NANOSECONDS = 20_000
#: How often a thread looks (at about 20 to 60 ns each) before it looks at the clock or yields.
_LOOKS = 64

#: A wait for the last tasks is an interruption when it takes longer than this and than twice the caller's own share of
#: the launch; it makes the caller work alone for ALONE_FOR times as long, at most ALONE_NANOSECONDS.
INTERRUPTION_NANOSECONDS = 100_000
ALONE_FOR = 10
ALONE_NANOSECONDS = 50_000_000

# Byte offsets in the pool's memory. Words that different threads write stand on lines of their own (128 bytes, since
# some processors fetch lines in pairs).
TICKET, PENDING, SLEEPERS, OWNER, STOP, ALONE_UNTIL = 0, 128, 256, 384, 392, 400
DESCRIPTOR = 512
FUNCTION, ARGUMENTS, SCRATCH, STRIDE, LIMIT = (DESCRIPTOR + 8 * i for i in range(5))
MUTEX, CONDITION = 640, 768
POOL_BYTES = 1024


#: LLVM text: whether `%ticket` has a task that can be claimed.
_CLAIMABLE = f"""  %first = and i64 %ticket, {MAXIMUM_CLAIMS}
  %without.first = lshr i64 %ticket, {CLAIM_BITS}
  %behind = and i64 %without.first, {MAXIMUM_CLAIMS}
  %some = icmp ne i64 %first, %behind
"""


def field(name: str, offset: int) -> str:
    """LLVM text: %name = address of the pool's word at `offset`."""
    return f"  %{name} = getelementptr i8, ptr %pool, i64 {offset}\n"


def pause(triple: str) -> tuple[str, str]:
    """LLVM text that tells the core it is spinning: (declaration, instruction), both empty where there is none."""
    if is_x86(triple):
        return "declare void @llvm.x86.sse2.pause()\n", "  call void @llvm.x86.sse2.pause()\n"
    if is_aarch64(triple):
        return "declare void @llvm.aarch64.hint(i32)\n", "  call void @llvm.aarch64.hint(i32 1)\n"
    return "", ""


def clock() -> Code:
    """`i64()`: monotonic time in nanoseconds."""
    identifier = 6 if sys.platform == "darwin" else 1  # CLOCK_MONOTONIC
    text = f"""declare i32 @clock_gettime(i32, ptr)
define i64 @pullback_clock() nounwind {{
  %time = alloca [2 x i64], align 8
  %ignored = call i32 @clock_gettime(i32 {identifier}, ptr %time)
  %seconds = load i64, ptr %time
  %nanoseconds.at = getelementptr i8, ptr %time, i64 8
  %nanoseconds = load i64, ptr %nanoseconds.at
  %scaled = mul i64 %seconds, 1000000000
  %sum = add i64 %scaled, %nanoseconds
  ret i64 %sum
}}
"""
    return Code("pullback_clock", text)


def participate() -> Code:
    """`i64(pool, i64 thread)`: claim and run tasks of the published launch until none is left; how many it ran."""
    text = f"""define i64 @pullback_participate(ptr %pool, i64 %thread) nounwind {{
entry:
{field("pending", PENDING)}{field("function.at", FUNCTION)}{field("arguments.at", ARGUMENTS)}\
{field("scratch.at", SCRATCH)}{field("stride.at", STRIDE)}{field("limit.at", LIMIT)}\
  %is.caller = icmp eq i64 %thread, 0
  %change = select i1 %is.caller, i64 1, i64 {-1 << CLAIM_BITS}
  br label %look
look:
  %ran = phi i64 [0, %entry], [%ran, %swap], [%ran.more, %run]
  %ticket = load atomic i64, ptr %pool acquire, align 8
{_CLAIMABLE}\
  br i1 %some, label %claim, label %report
claim:
  %function = load atomic ptr, ptr %function.at monotonic, align 8
  %arguments = load atomic ptr, ptr %arguments.at monotonic, align 8
  %scratch = load atomic ptr, ptr %scratch.at monotonic, align 8
  %stride = load atomic i64, ptr %stride.at monotonic, align 8
  %limit = load atomic i64, ptr %limit.at monotonic, align 8
  %wanted = icmp ult i64 %thread, %limit
  %less = add i64 %ticket, %change
  br i1 %wanted, label %swap, label %report
swap:
  %pair = cmpxchg weak ptr %pool, i64 %ticket, i64 %less acq_rel monotonic, align 8
  %mine = extractvalue {{ i64, i1 }} %pair, 1
  br i1 %mine, label %run, label %look
run:
  %last = sub i64 %behind, 1
  %task = select i1 %is.caller, i64 %first, i64 %last
  %offset = mul i64 %stride, %thread
  %own = getelementptr i8, ptr %scratch, i64 %offset
  call void %function(ptr %arguments, ptr %own, i64 %task)
  %ran.more = add i64 %ran, 1
  br label %look
report:
  %any = icmp ne i64 %ran, 0
  br i1 %any, label %subtract, label %end
subtract:
  %before = atomicrmw sub ptr %pending, i64 %ran release, align 8
  br label %end
end:
  ret i64 %ran
}}
"""
    return Code("pullback_participate", text)


def work() -> Code:
    """`void(pool, i64 thread)`: a worker's life: look for tickets, sleep when long without, end on `stop`."""
    declaration, relax = pause(host_target().triple)
    text = f"""declare i64 @pullback_participate(ptr, i64)
declare i64 @pullback_clock()
declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @sched_yield()
{declaration}
define internal i1 @claimable(ptr %pool, i64 %thread) nounwind alwaysinline {{
{field("limit.at", LIMIT)}\
  %ticket = load atomic i64, ptr %pool seq_cst, align 8
{_CLAIMABLE}\
  %limit = load atomic i64, ptr %limit.at monotonic, align 8
  %wanted = icmp ult i64 %thread, %limit
  %both = and i1 %some, %wanted
  ret i1 %both
}}
; Only a worker that the present limit admits counts as a sleeper, or publishing a launch would try to wake it in vain.
; A change of the limit wakes everybody, to be counted anew.
define internal void @sleep(ptr %pool, i64 %thread) nounwind {{
entry:
{field("mutex", MUTEX)}{field("condition", CONDITION)}{field("sleepers", SLEEPERS)}{field("stop.at", STOP)}\
{field("limit.at", LIMIT)}\
  %locked = call i32 @pthread_mutex_lock(ptr %mutex)
  br label %look
look:
  %limit = load atomic i64, ptr %limit.at seq_cst, align 8
  %wanted = icmp ult i64 %thread, %limit
  %one = zext i1 %wanted to i64
  %before = atomicrmw add ptr %sleepers, i64 %one seq_cst, align 8
  %claimable = call i1 @claimable(ptr %pool, i64 %thread)
  %stop = load atomic i64, ptr %stop.at seq_cst, align 8
  %stopped = icmp ne i64 %stop, 0
  %up = or i1 %claimable, %stopped
  br i1 %up, label %end, label %wait
wait:
  %woken = call i32 @pthread_cond_wait(ptr %condition, ptr %mutex)
  %after = atomicrmw sub ptr %sleepers, i64 %one seq_cst, align 8
  br label %look
end:
  %last = atomicrmw sub ptr %sleepers, i64 %one seq_cst, align 8
  %unlocked = call i32 @pthread_mutex_unlock(ptr %mutex)
  ret void
}}
define void @pullback_work(ptr %pool, i64 %thread) nounwind {{
entry:
{field("stop.at", STOP)}\
  br label %rest
rest:
  %rested = call i64 @pullback_clock()
  br label %look
look:
  %looks = phi i64 [0, %rest], [%looks.next, %relax], [0, %check.spin], [0, %yield]
  %stop = load atomic i64, ptr %stop.at monotonic, align 8
  %stopped = icmp ne i64 %stop, 0
  br i1 %stopped, label %end, label %try
try:
  %claimable = call i1 @claimable(ptr %pool, i64 %thread)
  br i1 %claimable, label %run, label %idle
run:
  %ran = call i64 @pullback_participate(ptr %pool, i64 %thread)
  br label %rest
idle:
  %looks.next = add i64 %looks, 1
  %tired = icmp uge i64 %looks.next, {_LOOKS}
  br i1 %tired, label %check, label %relax
relax:
{relax}\
  br label %look
check:
  %now = call i64 @pullback_clock()
  %idle.for = sub i64 %now, %rested
  %long = icmp ugt i64 %idle.for, {SPIN_NANOSECONDS}
  br i1 %long, label %sleep, label %check.spin
check.spin:
  %polite = icmp ugt i64 %idle.for, {YIELD_AFTER_NANOSECONDS}
  br i1 %polite, label %yield, label %look
yield:
  %yielded = call i32 @sched_yield()
  br label %look
sleep:
  call void @sleep(ptr %pool, i64 %thread)
  br label %rest
end:
  ret void
}}
"""
    return Code("pullback_work", text, (participate(), clock()))


def wake() -> Code:
    """`void(pool)`: wake all sleeping workers; called after a ticket is published or `stop` is set."""
    text = f"""declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_cond_broadcast(ptr)
define void @pullback_wake(ptr %pool) nounwind {{
{field("mutex", MUTEX)}{field("condition", CONDITION)}\
  %locked = call i32 @pthread_mutex_lock(ptr %mutex)
  %sent = call i32 @pthread_cond_broadcast(ptr %condition)
  %unlocked = call i32 @pthread_mutex_unlock(ptr %mutex)
  ret void
}}
"""
    return Code("pullback_wake", text)


def prepare() -> Code:
    """`void(pool)`: initialize the mutex and the condition in zeroed memory."""
    text = f"""declare i32 @pthread_mutex_init(ptr, ptr)
declare i32 @pthread_cond_init(ptr, ptr)
define void @pullback_prepare(ptr %pool) nounwind {{
{field("mutex", MUTEX)}{field("condition", CONDITION)}\
  %first = call i32 @pthread_mutex_init(ptr %mutex, ptr null)
  %second = call i32 @pthread_cond_init(ptr %condition, ptr null)
  ret void
}}
"""
    return Code("pullback_prepare", text)


class Pool:
    """The workers of this process. Thread 0 is whoever calls; workers count from 1."""

    def __init__(self) -> None:
        self.memory = immortal(allocate(POOL_BYTES))
        self.memory.fill(0)
        self.address: int = self.memory.ctypes.data
        addresses = load([work(), wake(), prepare()])
        self._work = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(addresses["pullback_work"])
        self._wake = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(addresses["pullback_wake"])
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(addresses["pullback_prepare"])(self.address)
        #: The address as ctypes passes it fastest.
        self.pointer = ctypes.c_void_p(self.address)
        self._workers: list[threading.Thread] = []
        self._lock = threading.Lock()

    def grow(self, threads: int) -> None:
        """See to it that at least `threads` threads, the caller included, can work."""
        if len(self._workers) >= threads - 1:
            return
        with self._lock:
            for index in range(len(self._workers) + 1, threads):
                worker = threading.Thread(
                    target=self._work, args=(self.address, index), name=f"pullback-worker-{index}", daemon=True
                )
                try:
                    worker.start()
                except RuntimeError:
                    return  # the system or a closing interpreter gives no more threads: those there are do all the work
                self._workers.append(worker)

    def stop(self) -> None:
        """End all workers. They must be gone before the interpreter frees what they run on."""
        self.memory[STOP] = 1
        self._wake(self.address)
        for worker in self._workers:
            worker.join()
        self._workers.clear()


_pool: Pool | None = None
_pool_lock = threading.Lock()


def pool() -> Pool:
    """This process's pool, made on first use."""
    global _pool
    if _pool is None:
        with _pool_lock:
            if _pool is None:
                _pool = Pool()
                atexit.register(_pool.stop)
    return _pool


@forks.in_child
def _forget_pool() -> None:
    """A forked child has none of its parent's workers; it makes a pool of its own when it needs one."""
    global _pool, _pool_lock
    if _pool is not None:
        atexit.unregister(_pool.stop)
    _pool, _pool_lock = None, threading.Lock()


_num_threads: int | None = None


def set_num_threads(count: int) -> None:
    """Run programs that are compiled from now on with `count` threads. The bits of their results stay the same."""
    global _num_threads
    if not isinstance(count, int) or isinstance(count, bool):
        raise TypeError(f"the number of threads must be an int, got {count!r}")
    if not 1 <= count <= debug.MAXIMUM_THREADS:
        raise ValueError(f"the number of threads must be from 1 to {debug.MAXIMUM_THREADS}, got {count}")
    _num_threads = count


def get_num_threads() -> int:
    """Threads that programs run on: from `set_num_threads`, else PULLBACK_NUM_THREADS, else the cores available."""
    return _num_threads or debug.get("num_threads") or available_cores()


@functools.lru_cache(maxsize=1)
def available_cores() -> int:
    """The cores this process may use: its affinity, bounded by the quota of its cgroup where there is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota(Path("/"))
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def _cgroup_quota(root: Path) -> float | None:
    """Processor time that the cgroup (version 2 or 1) grants, in cores; None where it is not limited.

    `root` is the root of the file system. Every group up to the top may set a limit; the smallest holds.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    quotas = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            for group in _upwards(root / "sys/fs/cgroup", path):
                with contextlib.suppress(OSError, ValueError):
                    quota, period = (group / "cpu.max").read_text().split()
                    quotas.append(int(quota) / int(period))  # int("max") is the ValueError of no limit
        elif "cpu" in controllers.split(","):
            for group in _upwards(root / "sys/fs/cgroup/cpu", path):
                with contextlib.suppress(OSError, ValueError):
                    quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
                    if int(quota) > 0:
                        quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def _upwards(mount: Path, path: str) -> list[Path]:
    """The group at `path` under `mount` and all above it. In a container the path may not exist; the mount does."""
    group = mount / path.strip("/")
    return [group, *(parent for parent in group.parents if parent.is_relative_to(mount))]
