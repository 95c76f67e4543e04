"""Aligned memory and its count."""

import gc
import os
import threading

import numpy as np
import pytest

from pullback.graph import types
from pullback.runtime import buffers
from pullback.runtime.buffers import Buffer, allocate, kept_bytes, live_bytes


@pytest.mark.parametrize("nbytes", [0, 1, 63, 64, 1000, (1 << 20) - 1, 1 << 20, (3 << 20) + 5])
def test_allocate_is_aligned_and_writable(nbytes):
    memory = allocate(nbytes)
    assert memory.dtype == np.uint8
    assert memory.shape == (nbytes,)
    assert memory.ctypes.data % 64 == 0 or nbytes == 0
    memory.fill(7)
    assert (memory == 7).all()


@pytest.mark.parametrize("dtype", types.ALL, ids=lambda dtype: dtype.name)
def test_zeros_and_empty(dtype):
    for count in (0, 5, 1 << 20):
        for buffer in (Buffer.zeros(count, dtype), Buffer.empty(count, dtype)):
            assert buffer.array.dtype == dtype.storage
            assert buffer.array.shape == (count,)
            assert buffer.nbytes == count * dtype.itemsize
            assert buffer.address == buffer.array.ctypes.data
        assert not Buffer.zeros(count, dtype).array.any()


def test_zeros_is_zero_in_reused_memory():
    for _ in range(4):
        buffer = Buffer.zeros(1000, types.float32)
        assert not buffer.array.any()
        buffer.array.fill(1)


def test_of_shares_or_copies():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    shared, copied = Buffer.of(array, copy=False), Buffer.of(array.T, copy=True)
    assert shared.address == array.ctypes.data
    assert not shared.owned
    assert copied.owned
    array[0, 0] = 9
    assert shared.array[0] == 9
    assert copied.array.tolist() == [0, 3, 1, 4, 2, 5]
    with pytest.raises(ValueError, match="copy=True"):
        Buffer.of(array.T, copy=False)
    assert Buffer.of(np.float32(3).reshape(()), copy=True).array.tolist() == [3]


def test_live_bytes_counts_owned_buffers():
    gc.collect()
    before = live_bytes()
    buffers = [Buffer.empty(1000, types.float32) for _ in range(5)]
    shared = Buffer.of(np.zeros(100), copy=False)
    assert live_bytes() - before == 5 * 4000
    buffers.pop()
    assert live_bytes() - before == 4 * 4000
    del buffers, shared
    gc.collect()
    assert live_bytes() == before


def test_live_bytes_under_threads():
    gc.collect()
    before = live_bytes()

    def churn():
        for _ in range(3000):
            Buffer.empty(3, types.float64)

    churning = [threading.Thread(target=churn) for _ in range(4)]
    for thread in churning:
        thread.start()
    for thread in churning:
        thread.join()
    assert live_bytes() == before


def test_the_smallest_buffers_have_a_cache_line_each():
    held = [
        Buffer.empty(count, dtype)
        for count in (0, 1, 3, 8)
        for dtype in (types.float32, types.float64)
        for _ in range(40)
    ]
    addresses = [buffer.address for buffer in held]
    assert len(set(addresses)) == len(held), "two buffers share a line"
    assert not any(address % 64 for address in addresses)
    for number, buffer in enumerate(held):
        assert buffer.address == buffer.array.ctypes.data
        buffer.array[...] = number
    assert all((buffer.array == number).all() for number, buffer in enumerate(held))


def test_a_small_buffer_outlives_its_neighbours():
    gc.collect()
    before = live_bytes()
    kept = [Buffer.empty(1, types.float32) for _ in range(300)][123]
    kept.array[...] = 7
    gc.collect()
    assert live_bytes() - before == 4
    others = [Buffer.zeros(1, types.float32) for _ in range(300)]
    assert kept.array[0] == 7 and len(others) == 300


MIB = 1 << 20


@pytest.fixture
def nothing_kept(monkeypatch):
    """A store of freed memory of this test's own."""
    store = buffers._Kept(64 * MIB)
    monkeypatch.setattr(buffers, "_kept", store)
    return store


def test_freed_memory_is_used_again_for_the_same_size(nothing_kept):
    memory = allocate(3 * MIB)
    address = memory.ctypes.data
    view = memory[10:20]
    del memory
    assert kept_bytes() == 0, "memory that an array still views was taken for free"
    view.fill(3)
    del view
    assert kept_bytes() == 3 * MIB
    again = allocate(3 * MIB)
    assert again.ctypes.data == address
    assert kept_bytes() == 0
    assert allocate(3 * MIB).ctypes.data != address, "memory in use was given out a second time"


def test_zeros_are_zero_in_memory_that_was_kept(nothing_kept):
    Buffer.empty(MIB, types.float32).array.fill(1)
    assert kept_bytes() == 4 * MIB
    assert not Buffer.zeros(MIB, types.float32).array.any()


def test_in_use_and_kept_are_never_more_than_was_once_in_use(nothing_kept):
    sizes = np.random.default_rng(0).integers(1, 9, 200) * MIB
    held, in_use, most = [], 0, 0
    for turn, size in enumerate(sizes.tolist()):
        held.append(allocate(size))
        in_use = sum(memory.nbytes for memory in held)
        most = max(most, in_use)
        assert in_use + kept_bytes() <= most
        if turn % 3:
            del held[turn % len(held)]


def test_no_more_than_the_limit_is_kept(nothing_kept):
    held = [allocate(10 * MIB) for _ in range(9)]
    held.clear()
    assert kept_bytes() == 60 * MIB
    del held
    allocate(70 * MIB)
    assert kept_bytes() == 0


def test_memory_is_kept_safely_when_many_threads_free_it(nothing_kept):
    def work(number):
        for turn in range(200):
            memory = allocate((1 + turn % 3) * MIB)
            memory[:64] = number
            memory[-64:] = number
            if not (memory[:64] == number).all() or not (memory[-64:] == number).all():
                wrong.append(number)

    wrong: list[int] = []
    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, "two threads were given the same memory"
    assert kept_bytes() <= 64 * MIB


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
@pytest.mark.parametrize("nbytes", [4096, 1 << 20, 5 << 20])
def test_what_a_forked_child_writes_is_its_own(nbytes):
    memory = allocate(nbytes)
    memory.fill(1)
    child = os.fork()
    if not child:
        memory.fill(2)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert memory.min() == memory.max() == 1
