"""What the benchmarks of budgets and of depth measure, on networks small enough for a test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import pullback as pb
from benchmarks import budgets, plot, published, workloads

torch = pytest.importorskip("torch")


@pytest.mark.parametrize(
    ("build", "sizes"),
    [
        (published.resnet50, {"width": 2, "batch": 2, "size": 32}),
        (published.unet, {"width": 2, "batch": 1, "size": 32}),
        (published.deep_resnet, {"layers": 4, "width": 4, "batch": 8}),
    ],
)
def test_a_published_network_is_the_same_in_pytorch(build, sizes) -> None:  # type: ignore[no-untyped-def]
    here, there = build(pb, **sizes), build(torch, **sizes)
    workloads.copy_weights(there.model, here.model, pb)
    found, expected = here.forward().item(), there.forward().item()
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_budget_is_measured_beside_the_step_without_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = published.Network(lambda library: published.deep_resnet(library, 8, 8, 512), {}, (2, 1000), "nobody: 1×")
    monkeypatch.setitem(published.NETWORKS, "small", small)
    monkeypatch.setattr(budgets, "_beside", lambda name: 1 << 20)
    rows = budgets.measure(["small"], rounds=1)
    assert [(row["factor"], row["of"]) for row in rows] == [(f, of) for f in (2, 1000) for of in ("own", "PyTorch's")]
    met, beside, refused, _ = rows
    assert met["held"] == met["peak"] < met["free"] and met["less"] >= 2 and met["recomputed"] > 0
    # what takes less than the part of PyTorch's by itself has no budget
    assert beside["peak"] == met["free"] and beside["time"] == 1 and beside["less"] >= 2
    assert refused["refused"].startswith("refused, the least is")
    budgets.table(rows)
    assert "nobody: 1×" in capsys.readouterr().out


def test_growth_has_a_row_for_each_way_and_draws_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = budgets.growth([4, 9], rounds=1)
    assert [(row["layers"], row["way"]) for row in rows[:3]] == [(4, "all kept"), (4, "least"), (4, "√n segments")]
    assert all(row["held"] == row["peak"] for row in rows)
    budgets.growth_table(rows)
    assert "least: memory grows as the depth to the power" in capsys.readouterr().out
    plot.growth(rows, tmp_path / "growth.svg")
    assert (tmp_path / "growth.svg").stat().st_size > 1000


def test_the_power_of_growth_is_fitted_over_logarithms() -> None:
    rows = [{"layers": n, "way": "a", "peak": 100 + 8 * n**2, "state": 100} for n in (3, 10, 30)]
    assert np.isclose(budgets.exponents(rows)["a"], 2)
