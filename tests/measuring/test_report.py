"""Tables and plots of made-up figures, and what is computed for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command
from benchmarks import compare, limits, report, widths

LIMITS: dict[str, Any] = {
    "cpu": "znver9",
    "has_bf16": True,
    "threads": 4,
    "operations_a_second": {"float32": {"1": 1e9, "4": 4e9}, "bfloat16": {"1": 2e9, "4": 8e9}},
    "bytes_a_second": {"1": 1e10, "4": 2e10},
}
MACHINE = {"processor": "A Processor", "cores": 4}


def result(workload: str, contestant: str, *rounds: float, flops: int = 10**9) -> dict[str, Any]:
    return {
        "workload": workload, "contestant": contestant, "flops": flops, "rounds": list(rounds), "interleaved": True,
        "median_seconds": sorted(rounds)[len(rounds) // 2], "cold_seconds": 3.0, "warm_seconds": 0.25,
        "peak_bytes": 3 * 10**8, "imported_bytes": 10**8,
    }  # fmt: skip


def failed(workload: str, contestant: str, why: str) -> dict[str, Any]:
    return {"workload": workload, "contestant": contestant, "flops": 1, "interleaved": True, "failure": why}


RESULTS = [
    result("mlp", "pullback", 0.5, 0.5, 0.5),
    result("mlp", "torch", 2.0, 2.0, 2.0),
    result("mlp", "jax", 1.0, 1.5, 1.0),
    result("gpt-mid-bf16", "pullback", 0.5),
    failed("gpt-mid-bf16", "torch-compile", "no answer within 5 s"),
    result("gpt-mid-bf16", "torch", 0.25),
]


def test_speed_is_against_the_best_peer_and_share_against_the_rate_of_all_threads() -> None:
    related = compare.relate(RESULTS, LIMITS)
    assert [one.get("speed") for one in related] == [2.0, 0.5, 1.0, 0.5, None, 1.0]
    assert related[0]["share"] == pytest.approx(1e9 / 4e9 / 0.5)
    assert related[3]["share"] == pytest.approx(1e9 / 8e9 / 0.5), "bfloat16 is held against its own rate"


def test_a_workload_without_peers_has_a_share_and_no_speed() -> None:
    (alone,) = compare.relate([result("mlp", "pullback", 0.5)], LIMITS)
    assert alone["speed"] is None
    assert alone["share"] == 0.5


def test_one_table_shows_all_and_says_who_failed(capsys: pytest.CaptureFixture[str]) -> None:
    report.steps(compare.relate(RESULTS, LIMITS))
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines()]
    assert ["mlp", "Pullback", "500", "ms", "2.00", "50%", "3.00", "s", "250", "ms", "300", "MB", "200", "MB"] in rows
    assert "PyTorch, compiled failed at gpt-mid-bf16: no answer within 5 s" in printed


def test_markdown_has_the_same_cells() -> None:
    lines = report.markdown(compare.relate(RESULTS, LIMITS)).splitlines()
    assert lines[2] == "| mlp | Pullback | 500 ms | 2.00 | 50% | 3.00 s | 250 ms | 300 MB | 200 MB |"
    assert len({line.count("|") for line in lines}) == 1


def test_the_best_of_several_measurements_is_the_limit() -> None:
    slower = json.loads(json.dumps(LIMITS))
    slower["operations_a_second"]["float32"]["4"] = 3e9
    slower["bytes_a_second"]["1"] = 2e10
    best = limits.best([slower, LIMITS])
    assert limits.rate(best, "float32") == 4e9
    assert best["bytes_a_second"] == {"1": 2e10, "4": 2e10}


def test_jumps_are_between_neighbours_in_either_direction() -> None:
    times = {"1": 1.0, "2": 1.2, "3": 2.4, "4": 1.2, "40": 9.0, "48": 20.0}
    assert [(jump["before"], jump["width"]) for jump in widths.jumps(times)] == [(2, 3), (3, 4)]
    assert widths.jumps(times)[0]["times"] == pytest.approx(2.0)


def test_show_puts_files_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    swept = [{"contestant": "pullback", "batch": 128, "seconds": {"9": 1e-5, "10": 2e-5}, "jumps": []}]
    more = [{"contestant": "pullback", "batch": 128, "seconds": {"8": 1e-5, "9": 2e-5}, "jumps": []}]
    for name, held in (
        ("one", {"limits": LIMITS, "steps": RESULTS[:3], "widths": swept}),
        ("other", {"limits": LIMITS, "steps": RESULTS[3:], "widths": more}),
    ):
        (tmp_path / name).write_text(json.dumps({"machine": MACHINE, **held}))
    command.main(["show", str(tmp_path / "one"), str(tmp_path / "other"), "--markdown", str(tmp_path / "table.md")])
    printed = capsys.readouterr().out
    assert "4 GFLOP/s" in printed
    assert "Pullback: 1 jumps of more than 1.3 times: 9→10 (2.00×)" in printed
    assert (tmp_path / "table.md").read_text() == report.markdown(compare.relate(RESULTS, LIMITS))


def test_steps_and_widths_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots are drawn by matplotlib")
    from benchmarks import plot

    plot.steps(compare.relate(RESULTS, LIMITS), MACHINE, tmp_path / "steps.png")
    assert (tmp_path / "steps.png").read_bytes().startswith(b"\x89PNG")
    times = {"1": 1e-5, "2": 2e-5, "3": 2e-5}
    plot.widths(
        [{"contestant": "pullback", "seconds": times, "jumps": widths.jumps(times)}], MACHINE, tmp_path / "widths.svg"
    )
    assert (tmp_path / "widths.svg").read_text().lstrip().startswith("<?xml")
