"""The examples of training in low precision, at sizes of seconds."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from pullback.train.llama import LlamaConfiguration

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield importlib.import_module
    for name in ("finetune_gpt", "llama_layers", "low_precision"):
        sys.modules.pop(name, None)


def test_a_gpt_is_tuned_in_parts(example: Any, tmp_path: Path) -> None:
    made = example("finetune_gpt")
    size, told = made.SIZES["tiny"]._replace(pretraining=2, tuning=4, every=2), []
    for _ in range(8):
        work = made.Work(tmp_path, size)
        if not work.left():
            break
        work.go_on(0.0, told.append)  # up to the next look
    assert len(told) == 2 + 2 * 3 and not work.left()
    full, qlora = (work.found[name] for name in (made.FULL, made.QLORA))
    assert full["steps"] == qlora["steps"] == [0, 2, 4] and full["losses"][-1] < full["losses"][0]
    assert qlora["trained"] < 0.4 * full["trained"] and qlora["held"]["optimizer"] < 0.4 * full["held"]["optimizer"]
    assert "memory of a step" in made.table(work.found)


def test_adapters_are_trained_from_one_start(example: Any, tmp_path: Path) -> None:
    made, found = example("low_precision"), {}
    text = (EXAMPLES / "low_precision.py").read_text()
    made.run(["QLoRA"], text, 2, tmp_path / "base.safetensors", found.__setitem__)
    assert found["QLoRA"].steps == [0, 2] and found["QLoRA"].state_bytes < 600_000
    assert json.dumps(found) and "QLoRA" in made.table(found)


def test_blocks_of_a_llama_take_what_was_planned(example: Any) -> None:
    made = example("llama_layers")
    runs = [made.run(LlamaConfiguration(100, 64, layers, 2, 2, 128), 32, 4, 2) for layers in (1, 2)]
    assert [run.held - run.planned for run in runs] == [2, 2]  # the loss, in bfloat16
