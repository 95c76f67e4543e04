"""Arenas: memory for the temporaries of programs that run one after the other, as much as the largest of them needs.

A thread runs one program at a time, so that those it runs take turns in one arena: a step for full batches and one for
the last of an epoch, one that trains and one that validates. What a program has left in it that somebody still holds,
as gradients until the next step, is moved out before another program writes there.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet, ref

from ..graph.types import DType
from .buffers import Buffer, allocate

#: an arena of fewer bytes belongs to one program: that another came in between would be felt in its time
SHARED_FROM = 1 << 20
_NOTHING = allocate(0)


class Arena:
    """Memory that is one program's at a time."""

    def __init__(self) -> None:
        self.memory = _NOTHING
        self._tenant: ref[Any] | None = None
        #: what lies in it and is somebody's, until the tenant's next run
        self._lent: WeakSet[Buffer] = WeakSet()
        #: whether the tenant is running at this moment
        self.is_running = False

    @property
    def tenant(self) -> Any:
        """The program that had it last."""
        return self._tenant() if self._tenant is not None else None

    def lend(self, offset: int, nbytes: int, dtype: DType) -> Buffer:
        """A part of it, for the tenant's results."""
        buffer = Buffer.within(self.memory[offset : offset + nbytes], dtype)
        self._lent.add(buffer)
        return buffer

    def lent(self) -> list[Buffer]:
        """What programs have left in it and somebody holds."""
        return [buffer for buffer in self._lent if buffer.lent]

    def left(self) -> int:
        """The bytes of that."""
        return sum(buffer.nbytes for buffer in self.lent())

    def clear(self, alone: bool) -> None:
        """Have whoever holds something in it keep that, in memory of its own. Unless the program that asks is `alone`,
        somebody may be reading it at this moment, and the memory is left to him.
        """
        lent = self.lent()
        self._lent = WeakSet()
        for buffer in lent:
            if alone:
                buffer.move()
            else:
                buffer.lent = False
        if lent and not alone:
            self.memory = _NOTHING

    def take(self, tenant: object, nbytes: int, alone: bool) -> None:
        """Give it to a program, with at least so many bytes. What is in it then is nobody's."""
        self._tenant = None  # until there is memory
        self.clear(alone)
        if self.memory.nbytes < nbytes:
            self.memory = _NOTHING  # the old one is given back first
            self.memory = allocate(nbytes)
        self._tenant = ref(tenant, self._abandon)

    def _abandon(self, tenant: ref[Any]) -> None:
        """Give the memory back when the last tenant is gone, save for what somebody still holds."""
        if self._tenant is tenant:
            self.memory = _NOTHING

    @contextmanager
    def calling(self) -> Iterator[None]:
        """For the time that the tenant's run has Python called."""
        outer = _CALLING.arenas
        _CALLING.arenas = (*outer, self)
        try:
            yield
        finally:
            _CALLING.arenas = outer


class _Calling(threading.local):
    """The arenas of the runs in this thread that have Python called at this moment."""

    arenas: tuple[Arena, ...] = ()


_CALLING = _Calling()


def is_calling() -> bool:
    """Whether a run in this thread has Python called at this moment."""
    return bool(_CALLING.arenas)


def is_being_written(buffer: Buffer) -> bool:
    """Whether a run that has Python called, here, writes other values where this memory is."""
    return buffer.lent and any(buffer in arena._lent for arena in _CALLING.arenas)


class Arenas(threading.local):
    """An arena for each thread."""

    def __init__(self) -> None:
        self.arena = Arena()


__all__ = ["SHARED_FROM", "Arena", "Arenas", "is_being_written", "is_calling"]
