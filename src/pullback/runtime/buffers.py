"""Memory of tensors: 64-byte aligned, huge pages where large, and counted."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import threading
from collections import deque
from collections.abc import Iterable

import numpy as np

from .. import forks
from ..graph.calm import disturb
from ..graph.types import DType

#: One cache line, and one vector of the widest units.
ALIGNMENT = 64
#: From this size on memory is mapped on its own, and kept for reuse for a while when freed.
_MAPPED_FROM = 1 << 20
_HUGE_PAGE = 2 << 20
#: what is cut into single cache lines for the smallest values, such as losses: allocating each would take microseconds
_PAGE = 4096


def allocate(nbytes: int) -> np.ndarray:
    """`nbytes` of uninitialized memory as a uint8 array, 64-byte aligned; freed with the last array that views it."""
    return _allocated(nbytes)[0]


def _allocated(nbytes: int) -> tuple[np.ndarray, int]:
    """The memory and its address, which takes NumPy a microsecond to tell."""
    if nbytes >= _MAPPED_FROM:
        memory = np.asarray(_Lease(nbytes))
        return memory, memory.ctypes.data
    memory = np.empty(nbytes + ALIGNMENT - 1, np.uint8)
    address = memory.ctypes.data
    start = -address % ALIGNMENT
    return memory[start : start + nbytes], address + start


def return_free() -> None:
    """Give the system back what the C library holds of memory that was freed, where it has a function for that: else
    the process stays as large as it once was.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


class _Lease:
    """A mapping of `nbytes` that is in use. When the last array that views it is gone, the mapping is kept for reuse.

    The pages of a new mapping are made one by one as they are first touched, which takes longer than many a step does:
    half of the time of a product of 1,024 by 1,024 went there. A step asks for the sizes again that it gave back.
    """

    __slots__ = ("__weakref__", "mapping", "nbytes", "was_used")

    def __init__(self, nbytes: int):
        self.nbytes = nbytes
        kept = _kept.take(nbytes)
        #: whether somebody has written to it before
        self.was_used = kept is not None
        self.mapping = _map(nbytes) if kept is None else kept

    @property
    def __array_interface__(self) -> dict[str, object]:
        start = self.mapping.ctypes.data
        return {"version": 3, "shape": (self.nbytes,), "typestr": "|u1", "data": (start, False)}

    def __del__(self) -> None:
        mapping = getattr(self, "mapping", None)
        if mapping is not None:
            _kept.give(mapping)


def padding_bytes(sizes: Iterable[int]) -> int:
    """Bytes of addresses that memory of these sizes takes besides, each for itself: they are mapped, and no memory."""
    return sum(_padding(nbytes) for nbytes in sizes)


def _padding(nbytes: int) -> int:
    return _HUGE_PAGE if nbytes >= _HUGE_PAGE else 0


def _map(nbytes: int) -> np.ndarray:
    """Memory that starts on a huge page where it fills one. Padding that is never touched takes no memory. MemoryError
    where the system gives none.

    It is private: a forked child's writes are its own, and Linux gives huge pages to private memory alone.
    """
    padding = _padding(nbytes)
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    try:
        mapping = mmap.mmap(-1, nbytes + padding, **private)
    except OSError as error:
        raise MemoryError(
            f"the system gives no {nbytes} bytes more ({error.strerror}); tensors hold {live_bytes()} bytes. Free "
            "tensors that are not needed, raise the limit of the process (ulimit -v) or of its container, or take a "
            "smaller batch; a step in pullback.compile(step, memory=…) keeps to a number of bytes"
        ) from error
    memory = np.frombuffer(mapping, np.uint8)
    start = -memory.ctypes.data % padding if padding else 0
    if padding and hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel built without huge pages: ordinary ones serve
            # whole ones alone: a last one that is filled in part would hold more memory than was asked for
            mapping.madvise(mmap.MADV_HUGEPAGE, start, nbytes // _HUGE_PAGE * _HUGE_PAGE)
    return memory[start : start + nbytes]


class _Kept:
    """Mappings that nobody uses, the oldest first, for the next that asks for the same size; at most `most` bytes.

    Where none fits, as much of them as is asked for goes back to the system first: what is in use and what is kept
    together are never more than what was once in use.

    The garbage collector may give a mapping back at any moment, in the middle of `take` too: `give` only queues it
    then.
    """

    def __init__(self, most: int):
        self.most = most
        self._mappings: list[np.ndarray] = []
        self._given: deque[np.ndarray] = deque()
        self._lock = threading.Lock()

    def take(self, nbytes: int) -> np.ndarray | None:
        """A mapping of exactly `nbytes`, the latest that was given, or None."""
        with self._lock:
            self._settle()
            for index in reversed(range(len(self._mappings))):
                if self._mappings[index].nbytes == nbytes:
                    return self._mappings.pop(index)
            self._drop(nbytes)
            return None

    def give(self, mapping: np.ndarray) -> None:
        """Keep `mapping`, which nobody uses any more."""
        self._given.append(mapping)
        if self._lock.acquire(blocking=False):
            try:
                self._settle()
            finally:
                self._lock.release()

    def nbytes(self) -> int:
        """The bytes kept."""
        with self._lock:
            self._settle()
            return sum(mapping.nbytes for mapping in self._mappings)

    def _settle(self) -> None:
        """Take in what was given, and let go of the oldest beyond the limit."""
        while self._given:
            self._mappings.append(self._given.popleft())
        self._drop(sum(mapping.nbytes for mapping in self._mappings) - self.most)

    def _drop(self, nbytes: int) -> None:
        """Give at least `nbytes` back to the system, or all there is."""
        while nbytes > 0 and self._mappings:
            nbytes -= self._mappings.pop(0).nbytes


#: Freed memory that is kept: several results of a step of ordinary size, little beside what a large one holds.
_KEPT_BYTES = 64 << 20
_kept = _Kept(_KEPT_BYTES)


@forks.in_child
def _start_anew() -> None:
    """Another thread of the parent may have held the lock."""
    global _kept, _summing
    _kept, _summing = _Kept(_KEPT_BYTES), threading.Lock()


def kept_bytes() -> int:
    """Bytes of freed memory that are kept for the next tensors of the same sizes, at most 64 MiB."""
    return _kept.nbytes()


class Buffer:
    """Flat memory for the elements of one tensor.

    `array` is one-dimensional, of the dtype's storage type; `address` and `nbytes` are of its first byte and its
    extent. `owned` tells that Pullback allocated the memory: it is then 64-byte aligned and counted by `live_bytes`.
    `shared` tells that others than the tensor may look at the memory, which must then not be written again.
    `overwritten` tells that a compiled step may write new values over these. `lent` tells that the memory is a part of
    a program's arena, which the next run writes over. `zeroed` tells that it was made as zeros: see `is_blank`.
    """

    __slots__ = ("__weakref__", "address", "array", "lent", "nbytes", "overwritten", "owned", "shared", "zeroed")

    def __init__(self, array: np.ndarray, owned: bool, address: int | None = None):
        """`address` is that of the array's first byte, where it is known."""
        self.array = array
        self.address: int = array.ctypes.data if address is None else address
        self.nbytes: int = array.nbytes
        self.owned = owned
        self.shared = not owned
        self.overwritten = self.lent = self.zeroed = False
        if owned:
            _count(self.nbytes)

    @classmethod
    def empty(cls, count: int, dtype: DType) -> Buffer:
        """Uninitialized memory for `count` elements of `dtype`."""
        if count * dtype.itemsize <= ALIGNMENT:
            return cls._in_a_line(count, dtype)
        memory, address = _allocated(count * dtype.itemsize)
        return cls(memory.view(dtype.storage), True, address)

    @classmethod
    def _in_a_line(cls, count: int, dtype: DType) -> Buffer:
        """Memory of at most one cache line: a part of a page shared with others, which lives as long as any of them."""
        try:
            page, offset, address = _lines.pop()
        except IndexError:
            page = allocate(_PAGE)
            start = page.ctypes.data
            _lines.extend((page, offset, start + offset) for offset in range(ALIGNMENT, _PAGE, ALIGNMENT))
            offset, address = 0, start
        made = cls.__new__(cls)
        made.array = np.ndarray((count,), dtype.storage, page, offset)
        made.address, made.nbytes = address, count * dtype.itemsize
        made.owned, made.shared, made.overwritten, made.lent, made.zeroed = True, False, False, False, False
        _count(made.nbytes)
        return made

    @classmethod
    def zeros(cls, count: int, dtype: DType) -> Buffer:
        """Zeroed memory for `count` elements of `dtype`."""
        nbytes = count * dtype.itemsize
        if nbytes < _MAPPED_FROM:
            memory = allocate(nbytes)
            memory.fill(0)
        else:  # the pages of a new mapping are zeros already, made by whoever first touches them
            lease = _Lease(nbytes)
            memory = np.asarray(lease)
            if lease.was_used:
                memory.fill(0)
        made = cls(memory.view(dtype.storage), owned=True)
        made.zeroed = True
        return made

    @classmethod
    def of(cls, array: np.ndarray, copy: bool) -> Buffer:
        """The elements of `array` (of a storage type) in row-major order.

        Without `copy` the buffer shares the array's memory and keeps it alive. Raises ValueError where that
        memory is not contiguous and aligned to its elements.
        """
        if copy:
            plain, address = _allocated(array.nbytes)
            memory = plain.view(array.dtype)
            np.copyto(memory.reshape(array.shape), array)
            return cls(memory, True, address)
        if not (array.flags.c_contiguous and array.flags.aligned):
            raise ValueError("only a contiguous (row-major), aligned array can be shared; use copy=True")
        return cls(array.reshape(-1), owned=False)

    @property
    def is_blank(self) -> bool:
        """Whether it is known to be nothing but zeros, so that there is no need to read it: pages that are read before
        they are written come one by one, and stay small ones.
        """
        return self.zeroed and not (self.overwritten or self.shared)

    @classmethod
    def within(cls, memory: np.ndarray, dtype: DType) -> Buffer:
        """A part of a program's arena, which it keeps alive."""
        made = cls(memory.view(dtype.storage), owned=True)
        made.lent = True
        return made

    def move(self) -> None:
        """Lie in memory of its own from now on, with the values there are. For what was `within` an arena."""
        memory, address = _allocated(self.nbytes)
        array = memory.view(self.array.dtype)
        np.copyto(array, self.array)
        self.array, self.address, self.lent = array, address, False

    def share(self) -> None:
        """Note that somebody outside, such as a NumPy array, may look at the memory from now on: the memory that there
        is after this call, since nobody outside is shown an arena.
        """
        if self.lent:
            self.move()
        self.shared = True
        if self.overwritten:
            disturb()

    def __del__(self) -> None:
        if getattr(self, "owned", False):
            _count(-self.nbytes)


#: cache lines that nobody has yet: the page, the offset in it, and the address
_lines: deque[tuple[np.ndarray, int, int]] = deque()


# The count is a queue of differences, because appending to it is atomic even where the garbage collector runs `__del__`
# in the middle of another count; a plain `+=` there would lose one.
_differences: deque[int] = deque()
_summing = threading.Lock()


def live_bytes() -> int:
    """Bytes held by all owned buffers that are alive."""
    with _summing:
        return _sum()


def _count(difference: int) -> None:
    _differences.append(difference)
    if len(_differences) > 4096 and _summing.acquire(blocking=False):
        try:
            _sum()
        finally:
            _summing.release()


def _sum() -> int:
    total = sum(_differences.popleft() for _ in range(len(_differences)))
    _differences.append(total)
    return total
