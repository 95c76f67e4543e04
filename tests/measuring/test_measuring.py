"""Measured processes: short runs of the real thing, and what becomes of those that fail."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks import attention, compare, limits, optimizers, products, widths
from benchmarks.__main__ import main
from benchmarks.contestants import CONTESTANTS
from benchmarks.process import Failure, Worker


def test_a_race_has_the_figures_of_everyone(capsys: pytest.CaptureFixture[str]) -> None:
    keys = ("pullback", "torch")
    found = compare.run({"mlp": [CONTESTANTS[key] for key in keys]}, 2, 3, 120.0)
    assert [one["contestant"] for one in found] == list(keys)
    for one in found:
        assert "failure" not in one
        assert one["interleaved"]
        assert len(one["rounds"]) == 3
        assert one["steps_a_round"] == 2
        assert 0 < one["median_seconds"] < one["cold_seconds"]
        assert 0 < one["imported_bytes"] <= one["peak_bytes"]
    assert "[1/1] mlp" in capsys.readouterr().err


def test_who_fails_is_noted_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "_flops", lambda name: 1)
    found = compare.run({"no-such-workload": [CONTESTANTS["pullback"], CONTESTANTS["torch"]]}, 1, 1, 120.0)
    assert all("ended with status 1: KeyError: 'no-such-workload'" in one["failure"] for one in found)


def test_what_was_measured_before_an_interrupt_is_shown_and_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(race: Any, steps: int | None, rounds: int) -> list[dict[str, Any]]:
        if race.name == "ppo":
            raise KeyboardInterrupt
        return [{"workload": race.name, "contestant": "pullback", "flops": 1, "failure": "of another kind"}]

    rates = {"1": 1e9}
    found = {
        "cpu": "znver9",
        "has_bf16": True,
        "threads": 1,
        "operations_a_second": dict.fromkeys(("float32", "bfloat16"), rates),
        "bytes_a_second": rates,
    }
    monkeypatch.setattr(compare._Race, "run", run)
    monkeypatch.setattr(compare, "machine_limits", lambda timeout: found)
    file = tmp_path / "all.json"
    with pytest.raises(SystemExit, match="interrupted: only mlp of mlp, ppo measured"):
        main(["--only", "mlp,ppo,pullback", "--json", str(file)])
    assert [one["workload"] for one in json.loads(file.read_text())["steps"]] == ["mlp"]
    assert "mlp" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="before anything was measured"):
        main(["--only", "ppo,pullback"])


def test_who_does_not_answer_in_time_is_ended() -> None:
    with (
        pytest.raises(Failure, match=r"no answer within 0\.2 s"),
        Worker("widths", "pullback", environment=os.environ, timeout=0.2) as worker,
    ):
        worker.told()


def test_contestants_that_cannot_run_are_left_out_with_a_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in ("jax", "optax") else object())
    able = compare.available(CONTESTANTS.values())
    assert [one.key for one in able] == ["pullback", "pullback-undecorated", "torch", "torch-fused"]
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("PyTorch, compiled is left out: torch.compile needs a C++ compiler")
    assert said[1] == "JAX is left out: jax and optax are not installed"


def test_peers_do_not_inherit_settings_of_numpys_products(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    environments = {key: CONTESTANTS[key].environment(str(tmp_path)) for key in ("pullback", "jax")}
    assert ["OPENBLAS_CORETYPE" in one for one in environments.values()] == [True, False]
    assert environments["jax"]["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path)


def test_limits_are_what_a_processor_can_have() -> None:
    found = limits.measure()
    for rates in found["operations_a_second"].values():
        assert all(1e8 < rate < 1e15 for rate in rates.values())
    assert all(1e8 < rate < 1e13 for rate in found["bytes_a_second"].values())
    assert {"1", str(found["threads"])} == set(found["bytes_a_second"])
    assert limits.rate(found, "float32") > 0


def test_widths_are_timed_one_by_one(tmp_path: Path) -> None:
    (found,) = widths.run([CONTESTANTS["pullback"]], [1, 2], str(tmp_path), 120.0, batch=4)
    assert set(found["seconds"]) == {"1", "2"}
    assert all(taken > 0 for taken in found["seconds"].values())
    assert widths.cost(3, 4) == 6 * 4 * (30 + 9 + 30)


@pytest.mark.parametrize("backward", [False, True])
def test_attention_is_timed_beside_pytorchs(backward: bool, capsys: pytest.CaptureFixture[str]) -> None:
    case = attention.Case(1, 2, 8, 4, backward=backward)
    (found,) = attention.measure(1, [case], seconds=0.001)
    assert found["seconds"]["Pullback"] > 0 < found["seconds"]["PyTorch"]
    assert found["operations"] == 2 * (7 if backward else 2) * 2 * 36 * 4
    attention.table([found])
    assert "2 x 8 x 4" in capsys.readouterr().out


def test_products_are_timed_beside_peers() -> None:
    case = products.Case("tiny", 4, 5, 6)
    (found,) = products.measure(2, [case], seconds=0.001)
    assert found["seconds"]["Pullback"] > 0
    assert found["best_peer"] in ("NumPy", "PyTorch")


def test_updates_are_timed_in_turns(capsys: pytest.CaptureFixture[str]) -> None:
    found = optimizers.measure(1, ["AdamW", "AdamW4bit"], (64, 128), seconds=0.001)
    assert set(found["seconds"]["AdamW"]) == {"Pullback", "PyTorch"} and set(found["of_fp32"]) == {"AdamW4bit"}
    optimizers.table(found)
    printed = capsys.readouterr().out
    assert "AdamW4bit" in printed and all(why in printed for why in found["missing"].values())
