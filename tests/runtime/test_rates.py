"""Kept rates: measured by a few processes, the best of which all later ones use."""

from pathlib import Path

import pytest

from pullback import debug
from pullback.runtime import limits, rates


def test_the_best_of_the_first_measurements_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = iter([1e9, 3e9, 2e9])
    monkeypatch.setattr(rates, "_MEASURED", 3)
    with debug.override(cache_dir=tmp_path):
        found = [rates._kept("example", lambda: next(measured)) for _ in range(5)]
    assert found == [1e9, 3e9, 3e9, 3e9, 3e9]


def test_a_kernel_takes_the_longer_of_computing_and_moving(tmp_path: Path) -> None:
    with debug.override(cache_dir=tmp_path):
        computing = rates.expected_seconds(1e9, 1, 0, "float32", 1)
        moving = rates.expected_seconds(1, 6e8, 4e8, "float32", 1)
        assert computing == 1e9 / rates.operations_rate("float32", 1)
        assert moving == limits.moving_seconds(6e8, 4e8, 1, rates.bytes_rate)
        assert moving > 0.5 * 1e9 / rates.bytes_rate(1, 1, True)
        assert rates.expected_seconds(1e9, 6e8, 4e8, "float32", 1) == max(computing, moving)
        assert rates.expected_seconds(0, 0, 0, "float32", 1) == 0
