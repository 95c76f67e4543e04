"""A launch: one kernel, run for its tasks on the memory of given nodes."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field

from ..compiler.index import View
from ..graph.node import Node
from .text import Code


@dataclass(eq=False)
class Workspace:
    """Memory that the launches of one group share and nobody else sees."""

    nbytes: int


@dataclass(eq=False)
class Loop:
    """The launches between two turns, run `length` times."""

    length: int


@dataclass(frozen=True, eq=False)
class Place:
    """`offset` bytes behind `home`; in the steps of a loop (step & `mask`) * `stride` bytes further."""

    home: Node | Workspace | Place
    offset: int
    loop: Loop | None = None
    stride: int = 0
    mask: int = -1


Argument = Node | View | Workspace | Place | int


def owner_of(argument: Argument) -> Node | Workspace | None:
    """Whose memory the argument points into."""
    while isinstance(argument, Place):
        argument = argument.home
    if isinstance(argument, View):
        return argument.base
    return None if isinstance(argument, int) else argument


@dataclass(eq=False)
class Launch:
    """`tasks` calls of `code`; each argument is a node's memory, a workspace, a place in either, or a whole number.

    `reads` and `writes` are the nodes whose memory the kernel touches. `exact` are those it reads only at the very
    elements that it writes afterwards, so that what it writes may lie in the same memory; for `in_place` launches that
    holds of all they write, others may use the memory of a result for what is not final. `work` is about the number of
    operations and of elements moved, by which it is decided whether threads pay; in a loop the launch runs `times`.
    `columns` are the loops in which rows are summed: who sums them once more, and shall have the same bits, does it so.
    """

    code: Code
    tasks: int
    arguments: list[Argument]
    scratch_bytes: int
    reads: Set[Node | Workspace]
    writes: Set[Node | Workspace]
    exact: Set[Node | Workspace]
    work: int = 0
    in_place: bool = False
    times: int = 1
    columns: tuple[int, ...] = ()


@dataclass(eq=False)
class Turn(Launch):
    """Where a loop begins a step (`begins`), its places moving on; or goes back to there until it has done them all.

    Reads and writes are all that the loop has to do with: they stay where they are for as long as it runs.
    """

    loop: Loop = field(default_factory=lambda: Loop(1))
    begins: bool = True
