"""`pullback plan`: what it prints, its exit status, and what it refuses."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import pullback as pb
from pullback.cli import app, planning, reductions
from pullback.cli.meanwhile import meanwhile
from pullback.memory import format_bytes
from pullback.runtime.buffers import live_bytes
from pullback.train import models
from pullback.train.llama import LlamaConfiguration

OWN = """
import pullback as pb

def training():
    model = pb.nn.Sequential(*[layer for _ in range(4) for layer in (pb.nn.Linear(64, 64), pb.nn.Tanh())])
    optimizer = pb.optim.Adam(model.parameters())

    def step(x, parts=1):
        optimizer.zero_grad()
        if parts == 1:
            loss = model(x).square().mean()
            loss.backward()
        else:
            loss = pb.accumulate(lambda x: model(x).square().mean(), x, parts=parts)
        optimizer.step()
        return loss

    return step, (pb.zeros(256, 64),)

def wrong():
    return 3

def raises():
    return helper()

def helper():
    raise RuntimeError("there is no data")

def mismatched():
    model = pb.nn.Linear(64, 64)
    return lambda x: model(x).sum(), (pb.zeros(2, 63),)

def fails_when_called():
    def step(x):
        return {}["a"]
    return step, (pb.zeros(1),)

def exits():
    raise SystemExit(3)

def more():
    return lambda x: x, (1, 2)
"""


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["plan", *map(str, arguments)])


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(models.SIZES, "small", LlamaConfiguration(500, 64, 3, 4, 2, 160))


def test_a_model_is_planned_with_what_reduces_it(tmp_path: Path) -> None:
    result = invoke("--model", "small", "--tokens", 64, "--save", tmp_path / "plan.json")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("plan of small (float32, adamw, 1 × 64 tokens): ")
    rows = {line.split("  ")[0]: line for line in result.stdout.splitlines()}
    assert "--dtype bfloat16" in rows["Model parameters"] and "--dtype bfloat16" in rows["Gradients"]
    assert "--optimizer adafactor" in rows["Optimizer state"] and " less)" in rows["Optimizer state"]
    assert "--checkpoint, +" in rows["Activations"] and " less)" in rows["Activations"]
    # sizes say what a plan of the step so changed holds
    plain = planning.Training("small", "adamw", 1, 64, "float32")
    others = [
        plain._replace(**change)  # type: ignore[arg-type]
        for change in ({"dtype": "bfloat16"}, {"optimizer": "adafactor"}, {"quantize": "nf4", "lora_r": 16})
    ]
    held = [reductions.Outline.of(other.plan()).most for other in others]
    found = {(r.role, r.technique.split()[0]): r.nbytes for r in reductions.of_training(plain)(plain.plan())}
    for role in ("parameters", "gradients", "optimizer"):
        for option, most in zip(("--dtype", "--optimizer", "--quantize"), held, strict=True):
            assert found.get((role, option), most[role]) == most[role]
    assert len(found) == 2 + 1 + 1 + 3
    assert json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))["peak_bytes"] > 0
    assert max(len(line) for line in result.stdout.splitlines() if not line.startswith("the plan is written to")) <= 80


def test_what_is_computed_meanwhile_is_what_is_computed_here(monkeypatch: pytest.MonkeyPatch) -> None:
    for threads in (1, 2):
        monkeypatch.setattr("pullback.cli.meanwhile.get_num_threads", lambda threads=threads: threads)
        monkeypatch.setattr("threading.active_count", lambda: 1)
        answers = [meanwhile(lambda number=number: {"of": [number, os.getpid()]}) for number in range(3)]
        found = [answer()["of"] for answer in answers]
        assert [number for number, _ in found] == [0, 1, 2]
        assert all((process == os.getpid()) == (threads == 1) for _, process in found)
        failing = meanwhile(lambda: [][0])
        with pytest.raises(IndexError):
            failing()


def test_it_says_whether_that_much_is_enough(tmp_path: Path) -> None:
    plan = planning.Training("small", "sgd", 2, 64, "float32").plan()
    options = ("--model", "small", "--optimizer", "sgd", "--batch", 2, "--tokens", 64)
    enough, less, never = (
        invoke(*options, "--memory", size) for size in (plan.peak_bytes, int(0.8 * plan.peak_bytes), "300KiB")
    )
    assert enough.exit_code == 0 and enough.stdout.splitlines()[-1].startswith("it fits in ")
    assert less.exit_code == 0 and "more FLOP" in less.stdout.splitlines()[-1]
    page = tmp_path / "plan.json"
    told = invoke(*options, "--memory", int(0.8 * plan.peak_bytes), "--save", page).stdout.splitlines()
    assert any(line.startswith("the plan with that is written to") for line in told)
    assert json.loads(page.read_text(encoding="utf-8"))["peak_bytes"] <= 0.8 * plan.peak_bytes
    assert never.exit_code == 1 and "gradients alone take" in " ".join(never.stdout.split())
    assert max(len(line) for result in (enough, less, never) for line in result.stdout.splitlines()) <= 80


def test_seven_billion_parameters_are_planned_without_them() -> None:
    before = live_bytes()
    plan = planning.Training("llama-7b", "adamw", 1, 1024, "float32").plan()
    assert live_bytes() - before < 1 << 20
    parameters = 4 * 6_738_415_616
    assert plan.breakdown["parameters"] == plan.breakdown["gradients"] == parameters
    assert 0 <= plan.breakdown["optimizer"] - 2 * parameters < 1024
    # two operations a parameter and token forward, four backward, and attention
    assert 6 * 6.6e9 * 1024 < plan.flops < 6.5 * 6.74e9 * 1024


def test_adapters_beside_codes_are_planned() -> None:
    options = ("--model", "small", "--optimizer", "sgd", "--tokens", 64)
    result = invoke(*options, "--quantize", "nf4", "--lora-r", 2)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("plan of small (float32, nf4, adapters of rank 2, sgd, 1 × 64 tokens): ")
    training = planning.Training("small", "sgd", 1, 64, "float32", False, "nf4", 2)
    coded = training.plan()
    plain = planning.Training("small", "sgd", 1, 64, "float32", False, None, 2).plan()
    layers = 3 * (64 * 64 * 2 + 64 * 32 * 2 + 64 * 160 * 3)
    assert coded.breakdown["inputs"] == plain.breakdown["inputs"]
    assert plain.breakdown["parameters"] - coded.breakdown["parameters"] > 0.85 * 4 * layers
    # adapters beside codes are in float32, whatever the rest is in
    lower = training._replace(dtype="bfloat16")
    low = lower.plan()
    for reduced, plan, roles in ((training, coded, ["parameters"]), (lower, low, [])):
        rows = [row for row in reductions.of_training(reduced)(plan) if row.technique == "--dtype bfloat16"]
        assert [row.role for row in rows] == roles
        assert all(row.nbytes == reductions.Outline.of(low).most[row.role] for row in rows)
    assert "lora-r" in invoke(*options, "--quantize", "nf4").output
    assert "nf4, fp4 or int8" in invoke(*options, "--quantize", "nf5", "--lora-r", 2).output


def check_reductions(printed: str, step: Callable[..., pb.Tensor], arguments: tuple[pb.Tensor]) -> None:
    """Each figure of the table is that of a plan of the step that is written so."""

    def lowered(x: pb.Tensor) -> pb.Tensor:
        with pb.autocast("cpu", dtype=pb.bfloat16):
            return step(x)

    table = printed[printed.index("Component ") :]
    for technique, role, plan in (
        ("accumulate(…, parts=8)", "activations", pb.plan(step, *arguments, 8)),
        ("autocast to bfloat16", "activations", pb.plan(lowered, *arguments)),
        ('memory="least", +', "activations", pb.plan(step, *arguments, memory="least")),
    ):
        (row,) = (line for line in table.splitlines() if technique in line)
        assert f"  {format_bytes(int(plan.timeline[role].max()))} (" in row, row
    assert "model.to(bfloat16)" in table and "AdamW8bit" in table and 'allow=["early-update"]' in table
    assert max(map(len, printed.splitlines())) <= 80


def test_a_step_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "planned_here.py").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    result = invoke("--model", "planned_here:training", "--memory", "10MiB")
    assert result.exit_code == 0, result.output
    assert "plan of step:" in result.stdout and "it fits in 10 MiB" in result.stdout
    assert "planned_here.py:11" in result.stdout
    lines = [line.rsplit("  ", 1)[-1] for line in result.stdout.splitlines() if "float32[" in line]
    assert lines and all("planned_here.py:" in line for line in lines)
    module = sys.modules["planned_here"]
    check_reductions(result.stdout, *module.training())
    least = invoke("--model", "planned_here:training", "--memory", "least")
    assert least.exit_code == 0 and least.stdout.splitlines()[-1].startswith("the least for at most about one more")
    (tmp_path / "broken.py").write_text("def f(:", encoding="utf-8")
    (tmp_path / "needs.py").write_text("\nimport nothing_such", encoding="utf-8")
    here = str(tmp_path / "planned_here.py")
    for name, words in [
        ("planned_here:raises", f"{here}:27: RuntimeError: there is no data"),
        ("planned_here:mismatched", f"(at {here}:31)"),
        ("planned_here:fails_when_called", f"{here}:35: KeyError: 'a'"),
        ("planned_here:exits", f"{here}:39: it exited with 3"),
        ("planned_here:more", "is called with the arguments that it gives: too many positional arguments"),
        ("planned_here:helper.x", "is named module:function"),
        ("planned_here:", "is named module:function"),
        ("broken:f", f"{tmp_path / 'broken.py'}:1: SyntaxError"),
        ("needs:f", f"{tmp_path / 'needs.py'}:2: ModuleNotFoundError: No module named 'nothing_such'"),
        ("planned_here:wrong", "must give a step and a tuple of its arguments, it gave something of type int"),
        ("planned_here:nothing", "planned_here has no function 'nothing'"),
        ("not_there:training", "there is no module 'not_there'"),
    ]:
        refused = invoke("--model", name)
        assert refused.exit_code == 2 and words in refused.stderr, refused.output
        assert "Traceback" not in refused.output and len(refused.stderr.splitlines()) == 1
    assert "--batch is for named models" in invoke("--model", "planned_here:training", "--batch", 2).stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model", "gpt5"], "--model must be one of gpt2, gpt2-medium"),
        (["--model", "gpt2", "--optimizer", "best"], "--optimizer must be one of sgd"),
        (["--model", "gpt2", "--dtype", "int4"], "--dtype must be one of float32, bfloat16"),
        (["--model", "gpt2", "--batch", 0], "--batch must be"),
        (["--model", "gpt2", "--tokens", 4096], "--tokens must be at most 1024 for gpt2"),
        (["--model", "gpt2", "--memory", "much"], "--memory must be a number and a unit"),
        (["--model", "gpt2", "--memory", "0"], "--memory must be at least one byte"),
        (["--model", "gpt2", "--save", "plan.txt"], "ends in .html or .json"),
        (["--model", "gpt2", "--save", "no/such/folder/plan.json"], "--save: no/such/folder/plan.json: cannot be"),
    ],
)
def test_options_that_make_no_sense(options: list[object], words: str) -> None:
    result = invoke(*options)
    assert result.exit_code == 2 and words in result.stderr, result.output


def test_an_error_of_ones_own_names_ones_own_line_and_ours_keeps_its_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=rf"--model a:b: {__file__}:\d+: JSONDecodeError: "), planning.running("a:b"):
        json.loads("{")
    monkeypatch.setattr(planning, "_PACKAGE", str(Path(__file__).parent))
    with pytest.raises(AssertionError, match="of ours"), planning.running("a:b"):
        raise AssertionError("of ours")
