"""How a plan is shown and saved."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from plan_checker import planned
from pullback.memory import ROLES, format_bytes
from pullback.memory.table import format_seconds, place, text


def test_the_table_fits_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    _, plan = planned("gpt-char")
    plan.changes["bfloat16"] = "many words " * 20
    for columns in ("40", "80", "100", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        assert 50 < max(map(len, str(plan).splitlines())) <= min(max(int(columns), 60), 120)
        assert str(plan).count("many words") > 15
    lines = text(plan, 100).splitlines()
    assert f"({plan.peak_bytes:,} bytes)" in lines[0]
    for role in ROLES:
        assert any(line.startswith(f"  {role} ") for line in lines)
    assert sum("workloads.py:" in line for line in lines) >= 8
    assert repr(plan) == f"<plan of step: {plan.peak_bytes:,} bytes>"


def test_seconds_have_units() -> None:
    assert [format_seconds(s) for s in (9.9e-7, 2e-3, 1.5, 75)] == ["0.99 µs", "2 ms", "1.5 s", "75 s"]
    assert place(None) == ""


def test_a_plan_is_saved_as_numbers(tmp_path: Path) -> None:
    _, plan = planned("mlp")
    plan.save(tmp_path / "plan.json")
    read = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))
    assert read == plan.to_dict()
    assert read["peak_bytes"] == plan.peak_bytes and sum(read["breakdown"].values()) == plan.peak_bytes
    assert np.sum([*read["timeline"].values()], axis=0).max() == plan.peak_bytes - plan.gap_bytes
    assert all(b["source"] is None or ":" in b["source"] for b in read["buffers"])


def test_a_name_says_what_is_written(tmp_path: Path) -> None:
    _, plan = planned("mlp")
    with pytest.raises(ValueError, match=r"ends in \.html or \.json, got 'plan\.txt'"):
        plan.save(tmp_path / "plan.txt")


def test_the_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, plan = planned("mlp")
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    with pytest.raises(ImportError, match=r"pip install 'pullback\[plots\]'"):
        plan.save(tmp_path / "plan.html")
    assert not (tmp_path / "plan.html").exists()


def test_a_plan_says_whether_it_keeps_to_its_budget(tmp_path: Path) -> None:
    _, free = planned("ppo")
    assert free.budget is None and free.over_budget_bytes == 0 and "budget" not in str(free)
    peak = free.peak_bytes
    for asked, words in [
        (peak + 2048, f"keeps to the budget of {format_bytes(peak + 2048)}, 2 KiB of it left"),
        (peak // 8, f"MISSES the budget of {format_bytes(peak // 8)} by "),
        ("least", "the least for at most about one more forward pass; with everything kept"),
    ]:
        _, plan = planned("ppo", memory=asked)
        assert str(plan).splitlines()[1].startswith(f"  {words}")
        missed = max(plan.peak_bytes - asked, 0) if isinstance(asked, int) else 0
        assert plan.over_budget_bytes == missed == plan.to_dict()["over_budget_bytes"]
        assert plan.to_dict()["budget"] == plan.budget == asked
