"""Compiled objects, and the launches that use them, on disk, shared by all processes of a user.

An entry is a file named by its key, a digest of everything that determines the object. It holds a magic word, a
digest of key and payload, and the payload. Whatever does not fit (a truncated, corrupt or renamed file) is taken
for absent and written anew. Files are written beside their place and moved there: nobody ever reads half of one.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

MAGIC = b"PULLBACK OBJECT\n"
SUFFIX = ".object"
_HEADER = len(MAGIC) + hashlib.sha256().digest_size
#: Entries are looked through for the size limit on the first write of a process and every so many writes after it.
_WRITES_BETWEEN_CHECKS = 256
#: A file that says what limit the directory has been held to, so that a lower one is seen without a look at all files;
#: none is written for limits that it would not fit in.
_LIMIT, _LEAST_LIMIT = "limit", 4096
#: An entry's time of use is refreshed only when this old (seconds), so that reading stays reading.
_REFRESH_AFTER = 6 * 3600.0


def digest(*parts: str) -> str:
    """A key from `parts`; no two different lists of parts share one."""
    state = hashlib.sha256()
    for part in parts:
        data = part.encode()
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()


class Cache:
    """A directory of objects, at most about `limit` bytes of them; the least recently used go first.

    Without a `directory`, or where it cannot be used, everything is absent and nothing is kept (one warning).
    """

    def __init__(self, directory: Path | None, limit: int = sys.maxsize):
        self.directory, self.limit = directory, limit
        #: files written, and bytes of those since the directory was looked at
        self._writes = self._unchecked = 0
        #: whether the directory is known to be held to the limit
        self._is_held = False

    def get(self, key: str) -> bytes | None:
        """The object of `key`, or None where there is no sound entry."""
        if self.directory is None:
            return None
        if not self._is_held:
            self._hold(self.directory)
        path = self.directory / (key + SUFFIX)
        try:
            with open(path, "rb") as file:
                data = file.read()
                age = time.time() - os.fstat(file.fileno()).st_mtime
        except OSError:
            return None
        payload = data[_HEADER:]
        if data[:_HEADER] != MAGIC + _checksum(key, payload):
            return None
        if age > _REFRESH_AFTER:
            with contextlib.suppress(OSError):  # a read-only cache is still worth reading
                os.utime(path)
        return payload

    def put(self, key: str, payload: bytes) -> None:
        """Keep `payload` under `key`."""
        directory = self.directory  # which another thread may give up meanwhile
        if directory is None:
            return
        try:
            directory.mkdir(parents=True, exist_ok=True)
            _write(directory, key, payload)
            self._unchecked += len(payload)
            if not self._writes and self._held_to(directory) < self.limit:
                self._note(directory)
            if self._writes % _WRITES_BETWEEN_CHECKS == 0 or self._unchecked > self.limit // 10:
                self._shrink(directory)
                self._unchecked = 0
            self._writes += 1
        except OSError as error:
            if self.directory is not None:
                self.directory = None
                warnings.warn(
                    f"compiled code is not kept: {directory} cannot be written ({error.strerror}); "
                    "set PULLBACK_CACHE_DIR to another directory, or to off",
                    RuntimeWarning,
                    stacklevel=2,
                )

    def _hold(self, directory: Path) -> None:
        """Once in a process: hold the directory to a limit that is lower than the one before."""
        self._is_held = True
        with contextlib.suppress(OSError):  # there is no directory yet, or it can only be read
            if self._held_to(directory) > self.limit:
                self._shrink(directory)
                self._note(directory)

    def _held_to(self, directory: Path) -> float:
        """The limit that the directory was held to when it was last noted, infinite where none is."""
        try:
            return int((directory / _LIMIT).read_text())
        except (OSError, ValueError):
            return math.inf

    def _note(self, directory: Path) -> None:
        if self.limit >= _LEAST_LIMIT:
            (directory / _LIMIT).write_text(str(self.limit))

    def _shrink(self, directory: Path) -> None:
        """Remove the least recently used files until nine tenths of the limit are kept."""
        files = []
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name.endswith((SUFFIX, ".part")):
                    with contextlib.suppress(FileNotFoundError):  # another process removed it
                        status = entry.stat()
                        files.append((status.st_mtime, status.st_size, entry.path))
        excess = sum(size for _, size, _ in files) - self.limit
        if excess <= 0:
            return
        excess += self.limit // 10
        for _, size, path in sorted(files):
            if excess <= 0:
                return
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            excess -= size


def _write(directory: Path, key: str, payload: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=key[:16], suffix=".part", dir=directory)
    try:
        with open(descriptor, "wb") as file:
            file.write(MAGIC + _checksum(key, payload) + payload)
        os.replace(temporary, directory / (key + SUFFIX))
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _checksum(key: str, payload: bytes) -> bytes:
    return hashlib.sha256(key.encode() + payload).digest()
