"""A launch: one kernel, run for its tasks on the memory of given nodes."""

from __future__ import annotations

from dataclasses import dataclass

from ..compiler.index import View
from ..graph.node import Node
from .text import Code


@dataclass(eq=False)
class Workspace:
    """Memory that the launches of one group share and nobody else sees."""

    nbytes: int


@dataclass(eq=False)
class Launch:
    """`tasks` calls of `code`; each argument is a node's memory, a workspace, or a whole number.

    `reads` and `writes` are the nodes whose memory the kernel touches. `exact` are those it reads only at the very
    elements that it writes afterwards, so that what it writes may lie in the same memory; for `in_place` launches that
    holds of all they write, others may use the memory of a result for what is not final. `work` is about the number of
    operations and of elements moved, by which it is decided whether threads pay.
    """

    code: Code
    tasks: int
    arguments: list[Node | View | Workspace | int]
    scratch_bytes: int
    reads: set[Node]
    writes: set[Node]
    exact: set[Node]
    work: int = 0
    in_place: bool = False
