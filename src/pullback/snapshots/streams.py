"""Files that are already open: anything with `read` or `write`, such as io.BytesIO, from where it stands."""

from __future__ import annotations

import io
from typing import Any, BinaryIO

from ..ops.primitive import user_source


class _Rest(io.RawIOBase):
    """What follows the place where a stream stands, as a file of its own. The stream stays open."""

    def __init__(self, stream: Any, start: int):
        self._stream, self._start = stream, start

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, memory: Any) -> int:
        piece = self._stream.read(len(memory))
        memory[: len(piece)] = piece
        return len(piece)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._stream.seek(offset + (self._start if whence == io.SEEK_SET else 0), whence)
        return self.tell()

    def tell(self) -> int:
        return self._stream.tell() - self._start


def is_stream(f: Any, method: str) -> bool:
    """Whether `f` is an open file that can `read` or `write`; TypeError where it is one of text."""
    if isinstance(f, io.TextIOBase):
        raise TypeError(f"a file for snapshots must be opened in binary mode, got {f!r} (at {user_source()})")
    return callable(getattr(f, method, None))


def name_of(stream: Any) -> str:
    """What errors call an open file: its name if it has one."""
    name = getattr(stream, "name", None)
    return name if isinstance(name, str) else f"<{type(stream).__name__}>"


def rest_of(stream: Any) -> tuple[BinaryIO, int]:
    """What follows in a stream, as a file, and its size. One that does not know its end is read whole."""
    try:
        start = stream.tell()
        stream.seek(0, io.SEEK_END)
        size = stream.tell() - start
        stream.seek(start)
    except (AttributeError, OSError, ValueError):  # pipes, and files that are unpacked while they are read
        content = stream.read()
        return io.BytesIO(content), len(content)
    return io.BufferedReader(_Rest(stream, start), 1 << 16), size


def write_all(stream: Any, content: Any) -> None:
    """Write all of `content`, where a file may take it piece by piece."""
    view = memoryview(content)
    while len(view):
        count = stream.write(view)
        view = view[count if isinstance(count, int) else len(view) :]


__all__ = ["is_stream", "name_of", "rest_of", "write_all"]
