"""A lock on a directory that ends with its process, however that ends. Linux and macOS have it (flock)."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path
from weakref import WeakSet, finalize

from .. import forks


class Taken(Exception):
    """Somebody else has the lock: `pid` is the process and `host` the machine, where they are known."""

    def __init__(self, pid: int | None, host: str):
        super().__init__(f"held by process {pid} on {host}")
        self.pid, self.host = pid, host


class DirectoryLock:
    """An open file `path` on which nobody else has the lock; what a dead process had is free.

    The file stays when the lock is given up: who removed it could remove another one's. Raises Taken, and OSError where
    the file cannot be opened or is a symbolic link.
    """

    def __init__(self, path: Path):
        try:
            import fcntl
        except ImportError:
            raise NotImplementedError(f"{path}: directories cannot be locked on this system") from None
        self._path = path
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        self._open = finalize(self, os.close, handle)
        self._file = _identity(os.fstat(handle))
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
        except BlockingIOError:
            holder = _holder(handle)
            self.release()
            raise holder from None
        except BaseException:
            self.release()
            raise
        _HELD.add(self)

    @property
    def held(self) -> bool:
        """Whether this process has the lock: not after `release`, and not in a forked child."""
        return self._open.alive

    @property
    def is_in_place(self) -> bool:
        """Whether the file that is locked is still the one at its path: a directory that was removed, and made anew,
        may be another process's.
        """
        try:
            return _identity(os.lstat(self._path)) == self._file
        except OSError:
            return False

    def release(self) -> None:
        """Give the lock up."""
        self._open()


_HELD: WeakSet[DirectoryLock] = WeakSet()


@forks.in_child
def _leave_to_the_parent() -> None:
    """A child that kept the file open would keep the lock when its parent has died."""
    for lock in list(_HELD):
        lock.release()


def _identity(file: os.stat_result) -> tuple[int, int]:
    return file.st_dev, file.st_ino


def _holder(handle: int) -> Taken:
    words = os.pread(handle, 300, 0).decode("utf-8", "replace").split()
    pid = None
    with suppress(ValueError, IndexError):
        pid = int(words[0])
    return Taken(pid, words[1] if len(words) > 1 else "an unknown machine")


__all__ = ["DirectoryLock", "Taken"]
