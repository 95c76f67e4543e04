"""The native driver, as LLVM text: what runs a table of launches in order, in one call.

A kernel is `void(ptr args, ptr scratch, i64 task)`: `args` an array of 8-byte slots, `scratch` memory of the thread's
own, `task` which share of the work to do. A launch is a kernel, its arguments and its number of tasks. Tasks of one
launch run in any order, on any thread, and must not wait for one another; a launch begins when all tasks of the one
before it have ended. `schedule` makes the tables.
"""

from __future__ import annotations

import functools

from ..codegen.text import Code
from . import threads as workers
from .jit import host_target
from .threads import field

# Words of a schedule's table: the head, then three words a launch.
HEAD, LAUNCH = 4, 3
#: Bytes of a launch in the table.
LAUNCH_BYTES = 8 * LAUNCH
# Words before the places of a loop, see `move_on`.
TURN = 4


@functools.lru_cache
def move_on() -> Code:
    """A kernel that enters the addresses which a loop's launches have at this step.

    Its arguments are [step, length, bytes to go back, number of places], and for each place [where its address is
    entered, where the address of its home stands, offset, stride, mask]: see `codegen.launch.Place`.
    """
    names = ["to", "home.at", "offset", "stride", "mask"]
    fields = "".join(
        f"  %{name}.field = getelementptr i64, ptr %place, i64 {number}\n"
        f"  %{name} = load {'ptr' if name in ('to', 'home.at') else 'i64'}, ptr %{name}.field\n"
        for number, name in enumerate(names)
    )
    text = f"""define void @pullback_move_on(ptr %arguments, ptr %scratch, i64 %task) nounwind {{
entry:
  %step = load i64, ptr %arguments
  %count.at = getelementptr i64, ptr %arguments, i64 3
  %count = load i64, ptr %count.at
  %first = getelementptr i64, ptr %arguments, i64 {TURN}
  %bytes = mul i64 %count, {8 * len(names)}
  %last = getelementptr i8, ptr %first, i64 %bytes
  br label %look
look:
  %place = phi ptr [%first, %entry], [%next, %move]
  %all = icmp eq ptr %place, %last
  br i1 %all, label %end, label %move
move:
{fields}\
  %home = load ptr, ptr %home.at
  %turn = and i64 %step, %mask
  %way = mul i64 %turn, %stride
  %distance = add i64 %offset, %way
  %address = getelementptr i8, ptr %home, i64 %distance
  store ptr %address, ptr %to
  %next = getelementptr i64, ptr %place, i64 {len(names)}
  br label %look
end:
  ret void
}}
"""
    return Code("pullback_move_on", text)


def _turn(again: str) -> str:
    """LLVM text of the end of a loop's body: count the step, and go back to `again` if there is another, else `done`.

    The table's entry has no function; its arguments are those of `move_on`.
    """
    return f"""turn:
  %step = load i64, ptr %arguments
  %step.next = add i64 %step, 1
  %length.at = getelementptr i64, ptr %arguments, i64 1
  %length = load i64, ptr %length.at
  %back.at = getelementptr i64, ptr %arguments, i64 2
  %back = load i64, ptr %back.at
  %forth = sub i64 0, %back
  %loop.first = getelementptr i8, ptr %launch, i64 %forth
  %again = icmp ult i64 %step.next, %length
  %step.kept = select i1 %again, i64 %step.next, i64 0
  store i64 %step.kept, ptr %arguments
  br i1 %again, label %{again}, label %done
"""


@functools.lru_cache
def run_serial() -> Code:
    """`void(schedule)`: all launches, task by task, on the calling thread."""
    text = f"""define void @pullback_run_serial(ptr %schedule) nounwind {{
entry:
  %count = load i64, ptr %schedule
  %scratch.at = getelementptr i64, ptr %schedule, i64 1
  %scratch = load ptr, ptr %scratch.at
  %bytes = mul i64 %count, {8 * LAUNCH}
  %first = getelementptr i64, ptr %schedule, i64 {HEAD}
  %last = getelementptr i8, ptr %first, i64 %bytes
  br label %look
look:
  %launch = phi ptr [%first, %entry], [%next, %done], [%loop.first, %turn]
  %all = icmp eq ptr %launch, %last
  br i1 %all, label %end, label %begin
begin:
  %function = load ptr, ptr %launch
  %arguments.at = getelementptr i64, ptr %launch, i64 1
  %arguments = load ptr, ptr %arguments.at
  %tasks.at = getelementptr i64, ptr %launch, i64 2
  %tasks = load i64, ptr %tasks.at
  %no.kernel = icmp eq ptr %function, null
  %some = icmp ne ptr %arguments, null
  %turns = and i1 %no.kernel, %some
  br i1 %turns, label %turn, label %start
{_turn("look")}\
start:
  br label %head
head:
  %task = phi i64 [0, %start], [%task.next, %body]
  %more = icmp ult i64 %task, %tasks
  br i1 %more, label %body, label %done
body:
  call void %function(ptr %arguments, ptr %scratch, i64 %task)
  %task.next = add nuw i64 %task, 1
  br label %head
done:
  %next = getelementptr i64, ptr %launch, i64 {LAUNCH}
  br label %look
end:
  ret void
}}
"""
    return Code("pullback_run_serial", text)


def _publish() -> str:
    """LLVM text of handing a launch to the workers, and doing a share of it."""
    return f"""publish:
  store atomic ptr %function, ptr %function.at monotonic, align 8
  store atomic ptr %arguments, ptr %arguments.at monotonic, align 8
  store atomic i64 %tasks, ptr %pending monotonic, align 8
  %old = load atomic i64, ptr %pool monotonic, align 8
  %number = lshr i64 %old, {2 * workers.CLAIM_BITS}
  %number.more = add i64 %number, 1
  %number.next = shl i64 %number.more, {2 * workers.CLAIM_BITS}
  %behind = shl i64 %tasks, {workers.CLAIM_BITS}
  %ticket = or disjoint i64 %number.next, %behind
  store atomic i64 %ticket, ptr %pool seq_cst, align 8
  %asleep = load atomic i64, ptr %sleepers seq_cst, align 8
  %any = icmp ne i64 %asleep, 0
  br i1 %any, label %wake, label %share
wake:
  call void @pullback_wake(ptr %pool)
  br label %share
share:
  %ran = call i64 @pullback_participate(ptr %pool, i64 0)
  br label %wait
"""


def _wait(relax: str) -> str:
    """LLVM text of waiting for the tasks that workers have taken, and of what follows a wait that was too long; `relax`
    is the instruction of a loop that spins.
    """
    return f"""wait:
  %looks = phi i64 [0, %share], [%looks.next, %relax], [%looks.next, %yield], [%looks.next, %nap]
  %left = load atomic i64, ptr %pending acquire, align 8
  %over = icmp eq i64 %left, 0
  br i1 %over, label %judge, label %patience
patience:
  ; A few microseconds of spinning, then the core is offered to whoever waits for it (a worker with one of our tasks
  ; perhaps), and after about a millisecond most of it is given away.
  %looks.next = add i64 %looks, 1
  %short = icmp ult i64 %looks, 256
  br i1 %short, label %relax, label %leave
leave:
  %first.leave = icmp eq i64 %looks, 256
  br i1 %first.leave, label %mark, label %longer
mark:
  %marked = call i64 @pullback_clock()
  store i64 %marked, ptr %waiting.since
  br label %longer
relax:
{relax}\
  br label %wait
longer:
  %medium = icmp ult i64 %looks, 4096
  br i1 %medium, label %yield, label %nap
yield:
  %yielded = call i32 @sched_yield()
  br label %wait
nap:
  %slept = call i32 @usleep(i32 20)
  br label %wait
judge:
  %waited.long = icmp ugt i64 %looks, 256
  %worked = icmp ne i64 %ran, 0
  %doubtful = and i1 %waited.long, %worked
  br i1 %doubtful, label %measure, label %done
measure:
  %since = load i64, ptr %waiting.since
  %now = call i64 @pullback_clock()
  %waited = sub i64 %now, %since
  %share.time = sub i64 %since, %published
  %twice = mul i64 %share.time, 2
  %interruption = call i64 @llvm.smax.i64(i64 %twice, i64 {workers.INTERRUPTION_NANOSECONDS})
  %interrupted = icmp sgt i64 %waited, %interruption
  br i1 %interrupted, label %withdraw, label %done
withdraw:
  %penalty = mul i64 %waited, {workers.ALONE_FOR}
  %penalty.most = call i64 @llvm.smin.i64(i64 %penalty, i64 {workers.ALONE_NANOSECONDS})
  %until = add i64 %now, %penalty.most
  store i64 %until, ptr %alone.at
  br label %done
"""


@functools.lru_cache
def run_shared() -> Code:
    """`void(schedule, pool)`: all launches, tasks shared with the pool's workers (the protocol is told in `threads`).

    Launches of one task run on the caller and are not published. While another thread owns the pool, all run serially.
    """
    declaration, relax = workers.pause(host_target().triple)
    text = f"""declare i64 @pullback_participate(ptr, i64)
declare i64 @pullback_clock()
declare void @pullback_wake(ptr)
declare void @pullback_run_serial(ptr)
declare i32 @sched_yield()
declare i32 @usleep(i32)
declare i64 @llvm.smax.i64(i64, i64)
declare i64 @llvm.smin.i64(i64, i64)
{declaration}
define void @pullback_run_shared(ptr %schedule, ptr %pool) nounwind {{
entry:
  %waiting.since = alloca i64, align 8
{field("owner", workers.OWNER)}{field("pending", workers.PENDING)}{field("sleepers", workers.SLEEPERS)}\
{field("function.at", workers.FUNCTION)}{field("arguments.at", workers.ARGUMENTS)}\
{field("scratch.at", workers.SCRATCH)}{field("stride.at", workers.STRIDE)}\
{field("limit.at", workers.LIMIT)}{field("alone.at", workers.ALONE_UNTIL)}\
  %pair = cmpxchg ptr %owner, i64 0, i64 1 acq_rel monotonic, align 8
  %owned = extractvalue {{ i64, i1 }} %pair, 1
  br i1 %owned, label %prepare, label %serial
serial:
  call void @pullback_run_serial(ptr %schedule)
  ret void
prepare:
  %count = load i64, ptr %schedule
  %own.scratch.at = getelementptr i64, ptr %schedule, i64 1
  %scratch = load ptr, ptr %own.scratch.at
  %own.stride.at = getelementptr i64, ptr %schedule, i64 2
  %stride = load i64, ptr %own.stride.at
  %own.limit.at = getelementptr i64, ptr %schedule, i64 3
  %limit = load i64, ptr %own.limit.at
  store atomic ptr %scratch, ptr %scratch.at monotonic, align 8
  store atomic i64 %stride, ptr %stride.at monotonic, align 8
  %old.limit = load atomic i64, ptr %limit.at monotonic, align 8
  %bytes = mul i64 %count, {8 * LAUNCH}
  %first = getelementptr i64, ptr %schedule, i64 {HEAD}
  %last = getelementptr i8, ptr %first, i64 %bytes
  %same = icmp eq i64 %limit, %old.limit
  br i1 %same, label %start, label %admit
admit:
  store atomic i64 %limit, ptr %limit.at seq_cst, align 8
  call void @pullback_wake(ptr %pool)
  br label %start
start:
  br label %look
look:
  %launch = phi ptr [%first, %start], [%next, %done], [%loop.first, %turn]
  %all = icmp eq ptr %launch, %last
  br i1 %all, label %end, label %begin
begin:
  %function = load ptr, ptr %launch
  %own.arguments.at = getelementptr i64, ptr %launch, i64 1
  %arguments = load ptr, ptr %own.arguments.at
  %own.tasks.at = getelementptr i64, ptr %launch, i64 2
  %tasks = load i64, ptr %own.tasks.at
  %no.kernel = icmp eq ptr %function, null
  %some = icmp ne ptr %arguments, null
  %turns = and i1 %no.kernel, %some
  br i1 %turns, label %turn, label %work
{_turn("look")}\
work:
  switch i64 %tasks, label %consider [i64 0, label %done
                                      i64 1, label %alone]
consider:
  %published = call i64 @pullback_clock()
  %alone.until = load i64, ptr %alone.at
  %stay.alone = icmp slt i64 %published, %alone.until
  br i1 %stay.alone, label %alone, label %publish
alone:
  %task = phi i64 [0, %work], [0, %consider], [%task.next, %alone]
  call void %function(ptr %arguments, ptr %scratch, i64 %task)
  %task.next = add nuw i64 %task, 1
  %task.more = icmp ult i64 %task.next, %tasks
  br i1 %task.more, label %alone, label %done
{_publish()}\
{_wait(relax)}\
done:
  %next = getelementptr i64, ptr %launch, i64 {LAUNCH}
  br label %look
end:
  store atomic i64 0, ptr %owner release, align 8
  ret void
}}
"""
    return Code("pullback_run_shared", text, (workers.participate(), workers.wake(), workers.clock(), run_serial()))


@functools.lru_cache
def run_bundled() -> Code:
    """A kernel whose tasks are those of several launches: its arguments are (function, arguments, task) of each."""
    text = """define void @pullback_run_bundled(ptr %members, ptr %scratch, i64 %task) nounwind {
  %first = mul i64 %task, 3
  %function.at = getelementptr i64, ptr %members, i64 %first
  %function = load ptr, ptr %function.at
  %arguments.at = getelementptr i64, ptr %function.at, i64 1
  %arguments = load ptr, ptr %arguments.at
  %own.at = getelementptr i64, ptr %function.at, i64 2
  %own = load i64, ptr %own.at
  call void %function(ptr %arguments, ptr %scratch, i64 %own)
  ret void
}
"""
    return Code("pullback_run_bundled", text)


@functools.lru_cache
def run_together() -> Code:
    """A kernel of one task that does all of a small bundle's: its arguments are those of `run_bundled`, their number
    before them.
    """
    text = """declare void @pullback_run_bundled(ptr, ptr, i64)
define void @pullback_run_together(ptr %bundle, ptr %scratch, i64 %ignored) nounwind {
entry:
  %tasks = load i64, ptr %bundle
  %members = getelementptr i64, ptr %bundle, i64 1
  br label %body
body:
  %task = phi i64 [0, %entry], [%task.next, %body]
  call void @pullback_run_bundled(ptr %members, ptr %scratch, i64 %task)
  %task.next = add nuw i64 %task, 1
  %more = icmp ult i64 %task.next, %tasks
  br i1 %more, label %body, label %end
end:
  ret void
}
"""
    return Code("pullback_run_together", text, (run_bundled(),))


@functools.lru_cache
def run_chunk() -> Code:
    """A kernel whose task is many of another: its arguments are [function, arguments, tasks, tasks of a chunk]."""
    text = """declare i64 @llvm.smin.i64(i64, i64)
define void @pullback_run_chunk(ptr %chunked, ptr %scratch, i64 %chunk) nounwind {
entry:
  %function = load ptr, ptr %chunked
  %arguments.at = getelementptr i64, ptr %chunked, i64 1
  %arguments = load ptr, ptr %arguments.at
  %tasks.at = getelementptr i64, ptr %chunked, i64 2
  %tasks = load i64, ptr %tasks.at
  %each.at = getelementptr i64, ptr %chunked, i64 3
  %each = load i64, ptr %each.at
  %first = mul i64 %chunk, %each
  %whole = add i64 %first, %each
  %stop = call i64 @llvm.smin.i64(i64 %whole, i64 %tasks)
  br label %body
body:
  %task = phi i64 [%first, %entry], [%task.next, %body]
  call void %function(ptr %arguments, ptr %scratch, i64 %task)
  %task.next = add nuw i64 %task, 1
  %more = icmp ult i64 %task.next, %stop
  br i1 %more, label %body, label %end
end:
  ret void
}
"""
    return Code("pullback_run_chunk", text)
