"""All steps of a loop in one launch: each task goes through the kernels of every step for its own rows.

So there is no meeting of threads between kernels or steps, what one kernel writes the next one finds in the task's
cache, and the addresses that move from step to step are the task's own.
"""

from __future__ import annotations

from collections.abc import Sequence

from .launch import Argument, Launch, Place
from .matmul_tasks import kernel
from .text import Writer, code


def steps_launch(links: Sequence[Launch], length: int) -> Launch:
    """One launch that runs `links`, which have the same tasks, `length` times, task by task.

    Their arguments must be relocated; those that move do so by the step of this loop. The launch itself is given the
    addresses and numbers that they begin with.
    """
    (tasks,) = {link.tasks for link in links}
    arguments = [argument for link in links for argument in link.arguments]
    writer = kernel()
    own = writer.allocate("i64", max(1, len(arguments)), align=8)
    begun = [_begun(writer, slot, argument, own) for slot, argument in enumerate(arguments)]
    with writer.loop(0, length, as_written=True) as step:
        for slot, argument in enumerate(arguments):
            if _moves(argument):
                _move(writer, step, begun[slot], argument, writer.element(own, "i64", slot))
        first = 0
        for link in links:
            writer.declare(f"declare void @{link.code.name}(ptr, ptr, i64)")
            start = writer.element(own, "i64", first)
            writer.line(f"call void @{link.code.name}(ptr {start}, ptr %scratch, i64 %task)")
            first += len(link.arguments)
    reads, writes = (set().union(*some) for some in ([x.reads for x in links], [x.writes for x in links]))
    return Launch(
        code("steps", writer, needs=tuple(dict.fromkeys(link.code for link in links))),
        tasks,
        [_start(argument) for argument in arguments],
        max(link.scratch_bytes for link in links),
        reads,
        writes,
        set(),
        sum(link.work for link in links) * length,
    )


def _moves(argument: Argument) -> bool:
    return isinstance(argument, Place) and argument.loop is not None


def _start(argument: Argument) -> Argument:
    """Where the argument stands, or would stand, at step 0 of no stride."""
    return Place(argument.home, argument.offset) if isinstance(argument, Place) else argument


def _begun(writer: Writer, slot: int, argument: Argument, own: str) -> str:
    """The argument as it begins, entered among the task's `own` arguments."""
    type_ = "i64" if isinstance(argument, int) else "ptr"
    value = writer.argument(slot, type_)
    writer.line(f"store {type_} {value}, ptr {writer.element(own, 'i64', slot)}")
    return value


def _move(writer: Writer, step: str, begun: str, argument: Argument, to: str) -> None:
    """Enter where a place is at this step."""
    assert isinstance(argument, Place)
    turn = step if argument.mask == -1 else writer.op(f"and i64 {step}, {argument.mask}")
    address = writer.element(begun, "i8", writer.multiply(turn, argument.stride))
    writer.line(f"store ptr {address}, ptr {to}")
