"""The cache of objects on disk: damage, races, size."""

import os
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from pullback.runtime.cache import SUFFIX, Cache, digest

KEY, OTHER = digest("a"), digest("b")


def test_keys_tell_parts_apart():
    assert digest("ab", "c") != digest("a", "bc")
    assert digest("a") != digest("a", "")


def test_round_trip_and_absence(tmp_path):
    cache = Cache(tmp_path / "made" / "on demand")
    assert cache.get(KEY) is None
    cache.put(KEY, b"object")
    assert cache.get(KEY) == b"object"
    assert cache.get(OTHER) is None
    assert Cache(cache.directory).get(KEY) == b"object"
    assert [path.name for path in cache.directory.glob("*.*")] == [KEY + SUFFIX]


def test_without_a_directory_nothing_is_kept():
    cache = Cache(None)
    cache.put(KEY, b"object")
    assert cache.get(KEY) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:10],
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: b"something else entirely, and long enough to hold a header of 48 bytes and more",
    ],
)
def test_damaged_entries_are_absent_and_written_anew(tmp_path, damage):
    cache = Cache(tmp_path)
    cache.put(KEY, b"object")
    path = tmp_path / (KEY + SUFFIX)
    path.write_bytes(damage(path.read_bytes()))
    assert cache.get(KEY) is None
    cache.put(KEY, b"object")
    assert cache.get(KEY) == b"object"


def test_entry_under_another_key_is_absent(tmp_path):
    cache = Cache(tmp_path)
    cache.put(KEY, b"object")
    os.rename(tmp_path / (KEY + SUFFIX), tmp_path / (OTHER + SUFFIX))
    assert cache.get(OTHER) is None


def test_unusable_directory_warns_once(tmp_path):
    blocked = tmp_path / "a file"
    blocked.write_text("")
    cache = Cache(blocked / "below")
    with pytest.warns(RuntimeWarning, match="PULLBACK_CACHE_DIR"):
        cache.put(KEY, b"object")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.put(KEY, b"object")
    assert cache.get(KEY) is None


def test_least_recently_used_go_first(tmp_path):
    keys = [digest(str(i)) for i in range(10)]
    full = Cache(tmp_path)
    for age, key in enumerate(keys):
        full.put(key, bytes(1000))
        os.utime(tmp_path / (key + SUFFIX), (1e9 - age, 1e9 - age))
    limited = Cache(tmp_path, limit=5500)
    limited.put(KEY, bytes(1000))
    assert limited.get(KEY) is not None
    kept = [key for key in keys if limited.get(key) is not None]
    assert kept == keys[:3]  # the youngest: 4 entries with their headers are within nine tenths of the limit
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 5500


def test_a_lower_limit_holds_from_the_first_reading_on(tmp_path):
    full = Cache(tmp_path)
    for number in range(20):
        full.put(f"{number:064x}", bytes(1000))
    for limit in (10_000, 2000):
        assert Cache(tmp_path, limit).get(KEY) is None
        assert sum(path.stat().st_size for path in tmp_path.glob("*.object")) <= limit
    for number in range(20):  # a higher one is noted when something is written
        Cache(tmp_path, 30_000).put(f"{number:064x}", bytes(1000))
    assert Cache(tmp_path, 10_000).get(KEY) is None
    assert sum(path.stat().st_size for path in tmp_path.glob("*.object")) <= 10_000


@pytest.mark.parametrize("limit", [0, 5000])
def test_a_small_limit_holds_after_every_write(tmp_path, limit):
    cache = Cache(tmp_path, limit=limit)
    for number in range(20):
        cache.put(f"{number:064x}", bytes(1000))
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= limit


def test_reading_an_old_entry_makes_it_young(tmp_path):
    cache = Cache(tmp_path)
    cache.put(KEY, b"object")
    path = tmp_path / (KEY + SUFFIX)
    os.utime(path, (1e9, 1e9))
    assert cache.get(KEY) == b"object"
    assert path.stat().st_mtime > 1e9


def test_writers_and_readers_at_once(tmp_path):
    payload = bytes(range(256)) * 400

    def use(_: int) -> bool:
        cache = Cache(tmp_path)
        cache.put(KEY, payload)
        return cache.get(KEY) == payload

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(use, range(64)))
    assert [path.name for path in tmp_path.glob("*.*")] == [KEY + SUFFIX]
