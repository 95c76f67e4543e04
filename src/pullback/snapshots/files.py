"""`save` and `load`: nested values in one safetensors file, with their description and a checksum in its metadata.

A file is written under a temporary name in its directory and renamed when it is on the disk: readers see the old file
or the new one, never a part. The checksum (SHA-256) is of the whole file with the checksum itself as zeros.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import SnapshotError
from ..graph import types
from ..ops.primitive import user_source
from ..runtime.buffers import allocate
from ..tensor import Tensor
from .description import describe, rebuild, tensor_of
from .foreign import check_kind
from .header import Header, header_length, make_header, parse_description, parse_header
from .stored import Fault, Stored
from .streams import is_stream, name_of, rest_of, write_all

#: what the description and the checksum stand under; a file with only one of them is damaged
_DESCRIPTION = "pullback"
_CHECKSUM = "pullback.checksum"
_ZEROS = "0" * 64
#: so much is hashed and written or read at once, while it is in the processor's cache
_PIECE = 1 << 20

AnyPath = str | os.PathLike[str]


def save(obj: Any, f: AnyPath | BinaryIO) -> None:
    """Write `obj` to the file `f`, a safetensors file that `load` gives back the same, and replace what was there in
    one move. `f` may also be a file that is open for bytes, such as io.BytesIO, which is written from where it stands.

    It may be any nesting of dicts (with strings and whole numbers as keys), lists, tuples, tensors, NumPy arrays and
    numbers, int, float, bool, str, bytes, dtypes and None. Tensors that require gradients come back as such that do
    not. A dict of tensors, such as `model.state_dict()`, is also read by every other library that knows the format.

    Raises TypeError for values of other types, and SnapshotError where the file cannot be written; an older file is
    then as it was.

    >>> pb.save({"weights": pb.ones(2), "step": 3, "rates": (0.1, None)}, "state.safetensors")
    >>> pb.load("state.safetensors")
    {'weights': tensor([1., 1.]), 'step': 3, 'rates': (0.1, None)}
    """
    description, arrays = describe(obj, copy=False)
    if is_stream(f, "write"):
        _write_stream(f, description, arrays)  # type: ignore[arg-type]
    else:
        write(Path(os.path.realpath(f)), description, arrays)  # type: ignore[arg-type]


def load(
    f: AnyPath | BinaryIO, map_location: Any = None, *, weights_only: bool = True, mmap: bool | None = None
) -> Any:
    """What `save` wrote to a file; of a safetensors file that others wrote, a dict of its tensors by name.

    `f` is a path or a file that is open for bytes, which is read from where it stands to its end. Nothing in the file
    is executed, and everything in it is checked before it is used: SnapshotError names the file and what is wrong with
    it. Pickles, as torch.save writes them, are refused whatever `weights_only` says: False would let in more than
    tensors and plain values, and there is no more. Since everything is read to be checked, `mmap` cannot be True.

    There is one device, so `map_location` is None, "cpu", a dict whose devices are the CPU, or a function that is
    called with each tensor and "cpu" and gives the tensor back, or None. FileNotFoundError where there is no file.
    """
    if not isinstance(weights_only, bool):
        raise TypeError(f"load: weights_only must be True or False, got {weights_only!r} (at {user_source()})")
    if mmap:
        raise ValueError(
            f"load: mmap=True is not there (at {user_source()}): a file is read whole, since its checksum is checked"
        )
    _check_location(map_location)
    value = _read_stream(f) if is_stream(f, "read") else read(Path(f), follow=True, foreign=True)  # type: ignore[arg-type]
    if callable(map_location):
        _place(value, map_location)
    return value


def _check_location(map_location: Any) -> None:
    asked = list(map_location.values()) if isinstance(map_location, dict) else [map_location]
    for place in asked:
        if not (place is None or callable(place) or str(place).partition(":")[0] == "cpu"):
            raise ValueError(f'load: map_location can be "cpu" only, got {map_location!r} (at {user_source()})')


def _place(value: Any, map_location: Callable[[Tensor, str], Any]) -> None:
    """Ask a function where each tensor is to be: there is only the place where it is."""
    if isinstance(value, Tensor):
        found = map_location(value, "cpu")
        if found is not None and found is not value:
            raise ValueError(
                f"load: the function map_location must give back the tensor that it was given, or None, got {found!r} "
                f"(at {user_source()})"
            )
    elif isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            _place(item, map_location)


# ---- writing


def write(path: Path, description: Any, arrays: dict[str, Stored], temporary: str | None = None) -> None:
    """Write a description and its arrays to `path`, by way of a file of the name `temporary` beside it.

    What is there and is no file, as /dev/null or a pipe, is written to: a file must not take its place.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        try:
            with path.open("wb", buffering=0) as stream:
                _write_stream(stream, description, arrays)
        except OSError as error:
            raise SnapshotError(path, f"cannot be written ({error.strerror or error})") from error
        return
    head, arrays = _head(description, arrays)
    needed = len(head) + sum(stored.flat.nbytes for stored in arrays.values())
    try:
        with replacing(path, temporary or f".{path.name}.{secrets.token_hex(4)}.tmp") as file:
            _write(file, head, arrays)
    except OSError as error:
        raise SnapshotError(path, _not_written(path, error, needed)) from error


def _head(description: Any, arrays: dict[str, Stored]) -> tuple[bytes, dict[str, Stored]]:
    """The header with zeros for the checksum, and the arrays in their order: larger elements first, so that each array
    is aligned to its elements."""
    arrays = dict(sorted(arrays.items(), key=lambda item: -item[1].dtype.itemsize))
    text = json.dumps(description, separators=(",", ":"), allow_nan=False)
    return make_header(arrays, {_CHECKSUM: _ZEROS, _DESCRIPTION: text}), arrays


def _pieces(arrays: dict[str, Stored]) -> Iterator[Any]:
    for stored in arrays.values():
        content = stored.bytes
        for start in range(0, len(content), _PIECE):
            yield content[start : start + _PIECE]


def _write_stream(stream: BinaryIO, description: Any, arrays: dict[str, Stored]) -> None:
    """Write to an open file, which may be one that goes forward only: the checksum is taken first."""
    head, arrays = _head(description, arrays)
    digest = _digest()
    digest.update(head)
    for piece in _pieces(arrays):
        digest.update(piece)
    try:
        write_all(stream, head.replace(_ZEROS.encode(), digest.hexdigest().encode(), 1))
        for piece in _pieces(arrays):
            write_all(stream, piece)
    except OSError as error:
        raise SnapshotError(name_of(stream), f"cannot be written ({error.strerror or error})") from error


def _write(file: BinaryIO, head: bytes, arrays: dict[str, Stored]) -> None:
    digest = _digest()
    digest.update(head)
    file.write(head)
    for piece in _pieces(arrays):
        digest.update(piece)
        file.write(piece)
    file.seek(head.index(_ZEROS.encode()))
    file.write(digest.hexdigest().encode())


def _digest() -> Any:
    return hashlib.sha256()


@contextmanager
def replacing(path: Path, temporary: str) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` once all that was written to it is on the disk; if that fails, or the
    body does, nothing is left of it.
    """
    beside = path.with_name(temporary)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
    handle = os.open(beside, flags | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(handle)
        os.replace(beside, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(beside)
        raise
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Have the names in a directory on the disk, where the system can be told so."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _not_written(path: Path, error: OSError, needed: int) -> str:
    said = f"cannot be written ({error.strerror or error})"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = ""
        if hasattr(os, "statvfs"):
            with suppress(OSError):
                found = os.statvfs(path.parent)
                free = f", of which the disk has {found.f_bavail * found.f_frsize:,} free"
        return f"{said}: it needs {needed:,} bytes{free}. What was there before is as it was"
    if error.errno == errno.EFBIG:
        most = _largest_file()
        allowed = "" if most is None else f", and the process may write {most:,} (ulimit -f)"
        return f"{said}: it needs {needed:,} bytes{allowed}. What was there before is as it was"
    return said


def _largest_file() -> int | None:
    """How many bytes a file of this process may have, where the system says that."""
    try:
        import resource
    except ImportError:
        return None
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return None if most == resource.RLIM_INFINITY else most


# ---- reading


def read(path: Path, follow: bool, foreign: bool) -> Any:
    """What a file holds. Symbolic links are followed, and files that others wrote read, only where that is said."""
    try:
        with _opened(path, follow) as (file, size):
            return _content(file, size, foreign)
    except Fault as fault:
        raise SnapshotError(path, str(fault)) from None
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SnapshotError(path, f"cannot be read ({error.strerror or error})") from error


def _read_stream(stream: BinaryIO) -> Any:
    name = name_of(stream)
    try:
        file, size = rest_of(stream)
        if not size:
            raise Fault("it ends after 0 bytes from where it stands; what was written is read after seek(0)")
        return _content(file, size, foreign=True)
    except Fault as fault:
        raise SnapshotError(name, str(fault)) from None
    except OSError as error:
        raise SnapshotError(name, f"cannot be read ({error.strerror or error})") from error


def _content(file: BinaryIO, size: int, foreign: bool) -> Any:
    check_kind(file)
    header = _read_header(file, size)
    own = _DESCRIPTION in header.metadata or _CHECKSUM in header.metadata
    if not own and not foreign:
        raise Fault("it is a safetensors file that Pullback did not write")
    description = _description(header) if own else None
    arrays = _read_arrays(file, header, own)
    if own:
        return rebuild(description, arrays)
    return {name: tensor_of(stored) for name, stored in arrays.items()}


@contextmanager
def _opened(path: Path, follow: bool) -> Iterator[tuple[BinaryIO, int]]:
    """A regular file and its size. Opening does not wait, as it would for the writer of a pipe."""
    flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    if not follow:
        if path.is_symlink():
            raise Fault("it is a symbolic link, which is not followed here")
        flags |= getattr(os, "O_NOFOLLOW", 0)
    handle = os.open(path, flags)
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        os.close(handle)
        raise Fault("it is no regular file")
    with os.fdopen(handle, "rb") as file:
        yield file, found.st_size


def _read_header(file: BinaryIO, size: int) -> Header:
    length = header_length(file.read(8), size)
    text = file.read(length)
    if len(text) != length:
        raise Fault("it became shorter while it was read")
    return parse_header(text, size - 8 - length)


def _description(header: Header) -> Any:
    for key in (_DESCRIPTION, _CHECKSUM):
        if key not in header.metadata:
            raise Fault(f"it is damaged: its metadata lack {key!r}")
    return parse_description(header.metadata[_DESCRIPTION])


def _read_arrays(file: BinaryIO, header: Header, checked: bool) -> dict[str, Stored]:
    """The arrays of a file, read from the end of its header on, and compared with its checksum where it has one."""
    digest = _digest()
    if checked:
        digest.update(len(header.text).to_bytes(8, "little") + _without_checksum(header))
    arrays: dict[str, Stored] = {}
    for entry in header.entries:
        memory = allocate(entry.stop - entry.start)
        content = memory.data
        for start in range(0, len(content), _PIECE):
            piece = content[start : start + _PIECE]
            if file.readinto(piece) != len(piece):  # type: ignore[attr-defined]
                raise Fault("it became shorter while it was read")
            if checked:
                digest.update(piece)
        if entry.dtype is types.bool_ and memory.size and memory.max() > 1:
            raise Fault(f"the tensor {entry.name!r} of booleans has bytes other than 0 and 1")
        arrays[entry.name] = Stored(entry.dtype, entry.shape, memory.view(entry.dtype.storage))
    if file.read(1):
        raise Fault("it became longer while it was read")
    if checked and digest.hexdigest() != header.metadata[_CHECKSUM]:
        raise Fault("it is damaged: its content does not have the checksum that it was written with")
    return arrays


def _without_checksum(header: Header) -> bytes:
    """The header as it was when the checksum was taken, with zeros in its place."""
    held = f'"{_CHECKSUM}":"{header.metadata[_CHECKSUM]}"'.encode("utf-8", "replace")
    if header.text.count(held) != 1 or len(header.metadata[_CHECKSUM]) != len(_ZEROS):
        raise Fault("it is damaged: its checksum is none that Pullback writes")
    return header.text.replace(held, f'"{_CHECKSUM}":"{_ZEROS}"'.encode())


__all__ = ["AnyPath", "load", "read", "replacing", "save", "sync_directory", "write"]
