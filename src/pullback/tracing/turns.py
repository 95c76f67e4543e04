"""Who may run and who may record a step, among the threads of a process and around its forks."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .. import forks
from ..tensor.state import RECORDERS, RECORDING

#: how long a fork waits for the steps of other threads, in seconds
_LONGEST_WAIT = 20.0


class Steps:
    """Steps run side by side; while one is recorded, which touches tensors that others may use, no other goes on.

    A run enters itself and then looks for a recorder; a recorder enters itself and then looks for runs. Whichever comes
    second sees the other, so a run takes no lock unless somebody records.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.RLock())
        self._running: dict[int, int] = {}
        self._recorder = 0
        #: who recorded before this thread forked, or None where it waited in vain
        self._before_fork: int | None = None

    def before_fork(self) -> None:
        """Wait for the steps of other threads, which would be half done in the child for ever. A thread that itself
        waits for the one that forks is not waited for longer than some seconds.
        """
        me = threading.get_ident()
        with self._changed:
            self._before_fork = None
            if not self._changed.wait_for(lambda: self._recorder in (0, me), _LONGEST_WAIT):
                return
            self._before_fork, self._recorder = self._recorder, me
            self._changed.wait_for(lambda: list(self._running) in ([], [me]), _LONGEST_WAIT)

    def after_fork_in_parent(self) -> None:
        """Let the other threads go on."""
        if self._before_fork is not None:
            with self._changed:
                self._recorder = self._before_fork
                self._changed.notify_all()

    def after_fork_in_child(self) -> None:
        """Know no more of threads that are not there."""
        me = threading.get_ident()
        self._changed = threading.Condition(threading.RLock())
        self._running = {thread: depth for thread, depth in self._running.items() if thread == me}
        self._recorder = self._before_fork or 0

    def begin_run(self) -> bool:
        """Wait until nothing is being recorded by another thread. Gives whether this is the only run now."""
        me = threading.get_ident()
        running = self._running
        depth = running[me] = running.get(me, 0) + 1
        while self._recorder and self._recorder != me:
            self.end_run()
            with self._changed:
                while self._recorder not in (0, me):
                    self._changed.wait()
            running[me] = running.get(me, 0) + 1
        return depth == 1 and len(running) == 1

    def end_run(self) -> None:
        """The run that this thread began last is over."""
        me = threading.get_ident()
        left = self._running.pop(me) - 1
        if left:
            self._running[me] = left
        if self._recorder and self._recorder != me:
            with self._changed:
                self._changed.notify_all()

    def wait_for_recorder(self) -> bool:
        """Wait until no other thread records, and give whether one did; False too where it takes longer than some
        seconds, since it may wait for this one.
        """
        me = threading.get_ident()
        if self._recorder in (0, me):
            return False
        with self._changed:
            return self._changed.wait_for(lambda: self._recorder in (0, me), _LONGEST_WAIT)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Wait until no other thread records or runs a step."""
        me = threading.get_ident()
        with self._changed:
            while self._recorder not in (0, me):
                self._changed.wait()
            before, self._recorder = self._recorder, me
            while list(self._running) not in ([], [me]):
                self._changed.wait()
        RECORDING.append(me)
        try:
            yield
        finally:
            RECORDING.remove(me)
            with self._changed:
                self._recorder = before
                self._changed.notify_all()


STEPS = Steps()
RECORDERS.append(STEPS.wait_for_recorder)
forks.around(STEPS.before_fork, STEPS.after_fork_in_parent, STEPS.after_fork_in_child)


@contextmanager
def without_collections() -> Iterator[None]:
    """No garbage is collected meanwhile: a recording makes tens of thousands of objects that stay, and each time that
    some more are there Python would look through all of them, and all of the caller's, for cycles.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
