"""Kept rates: measured by a few processes, the best of which all later ones use."""

from pathlib import Path

import pytest

from pullback import debug
from pullback.runtime import rates


def test_the_best_of_the_first_measurements_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = iter([1e9, 3e9, 2e9])
    monkeypatch.setattr(rates, "_MEASURED", 3)
    with debug.override(cache_dir=tmp_path):
        found = [rates._kept("example", lambda: next(measured)) for _ in range(5)]
    assert found == [1e9, 3e9, 3e9, 3e9, 3e9]


def test_a_kernel_takes_the_longer_of_computing_and_moving(tmp_path: Path) -> None:
    with debug.override(cache_dir=tmp_path):
        computing, moving = rates.expected_seconds(1e9, 1, "float32", 1), rates.expected_seconds(1, 1e9, "float32", 1)
        assert computing == 1e9 / rates.operations_rate("float32", 1)
        assert moving == 1e9 / rates.bytes_rate(4, 1)
        assert rates.expected_seconds(1e9, 1e9, "float32", 1) == max(computing, moving)
        assert rates.expected_seconds(0, 0, "float32", 1) == 0
