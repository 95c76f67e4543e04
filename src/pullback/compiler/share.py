"""Share: how many rows of a kernel's work one task takes, where several kernels are run by the same tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..graph.node import Node

#: the fewest tasks that are worth having, and the rows of one: a register tile of this many serves all their products
_FEWEST, _ROWS = 4, 4
#: tasks from which on they rather take more rows than become more
_ENOUGH, _MOST_ROWS = 8, 16


@dataclass(frozen=True)
class Share:
    """The rows that a kernel's work is made of, and how many of them one task takes."""

    rows: int
    each: int

    @property
    def tasks(self) -> int:
        """How many tasks that makes."""
        return -(-self.rows // self.each)


def share_of(carries: Sequence[Node]) -> Share | None:
    """How the rows of the carries are shared out; None where there are too few."""
    if not carries or any(not c.shape or c.shape[0] != carries[0].shape[0] for c in carries):
        return None
    rows = carries[0].shape[0]
    if rows < _FEWEST * _ROWS:
        return None
    each = max(_ROWS, min(_MOST_ROWS, rows // _ENOUGH // _ROWS * _ROWS))
    return Share(rows, each)
