"""What the command line of the benchmarks takes, and what it refuses before anything is measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import workloads


def chosen(line: str) -> tuple[str, list[str], list[str]]:
    arguments = command._arguments(line.split())
    return arguments.what, arguments.names, [contestant.key for contestant in arguments.contestants]


def test_nothing_said_means_all_usual_workloads() -> None:
    assert chosen("") == ("steps", list(workloads.NAMES), [])
    assert "gpt-deep" not in workloads.NAMES


def test_only_takes_workloads_and_contestants() -> None:
    assert chosen("--only mlp,jax,gpt-deep") == ("steps", ["mlp", "gpt-deep"], ["jax"])
    assert chosen("--only pullback") == ("steps", list(workloads.NAMES), ["pullback"])
    assert chosen("--only gpt-mid-bf16")[1] == ["gpt-mid-bf16"]


def test_bf16_adds_the_transformers_in_bfloat16() -> None:
    assert chosen("--only mlp,gpt-mid --bf16")[1] == ["mlp", "gpt-mid", "gpt-mid-bf16"]


def test_every_contestant_but_the_undecorated_runs_everywhere() -> None:
    races = command._races(command._arguments(["--only", "mlp,gpt-char"]))
    assert {"pullback", "torch", "torch-fused"} <= {one.key for one in races["gpt-char"]}
    assert [one.key for one in races["mlp"] if one not in races["gpt-char"]] == ["pullback-undecorated"]


def test_widths_are_a_range() -> None:
    assert command._arguments(["widths", "--widths", "3:9:3"]).widths == [3, 6, 9]
    assert command._arguments(["widths"]).widths == list(range(1, 513))


def test_products_are_chosen_by_the_beginning_of_their_names() -> None:
    cases = command._arguments(["products", "--only", "cube 256,mlp"]).cases
    assert {case.name for case in cases} == {"cube 256", "mlp"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--only mlp,nothing", "no workload or contestant 'nothing'"),
        ("products --only nothing", "no product begins with nothing"),
        ("depth --only mlp", "`depth` has no --only"),
        ("limits --bf16 --steps 3", "`limits` has no --bf16 and no --steps"),
        ("widths --widths 0:3", "1 ≤ FIRST ≤ LAST, got '0:3'"),
        ("widths --widths 9:3", "got '9:3'"),
        ("widths --widths 1:3:0", "1 ≤ STEP and 1 ≤ FIRST ≤ LAST, got '1:3:0'"),
        ("--only ,", "--only names nothing: ','"),
        ("show one.json --json two.json", "`show` has no --json"),
        ("show /nowhere/one.json", "/nowhere/one.json: No such file"),
        ("show /", "/: Is a directory"),
        ("limits --json /nowhere/one.json", "--json: there is no directory /nowhere"),
        ("limits --json /", "--json: / is a directory"),
        ("--markdown /nowhere/table.md", "--markdown: there is no directory /nowhere"),
        ("widths --only mlp", "--only chooses contestants there"),
        ("backward --only jax", "measures Pullback alone"),
        ("--rounds 0", "at least 1"),
        ("--timeout -1", "--timeout must be positive, got -1"),
        ("--timeout nan", "--timeout must be positive, got nan"),
        ("show", "`show` needs files"),
        ("limits figures.json", "nothing else takes files"),
    ],
)
def test_a_wrong_line_is_refused(line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command._arguments(line.split())
    assert message in capsys.readouterr().err


def test_a_plot_without_a_peer_is_refused_first(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="plots are drawn by matplotlib")
    with pytest.raises(SystemExit):
        command._arguments(["--only", "mlp,pullback", "--plot", "steps.svg"])
    assert "relative to the best peer" in capsys.readouterr().err


def test_a_plot_that_cannot_be_written_is_refused_first(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="plots are drawn by matplotlib")
    with pytest.raises(SystemExit):
        command._arguments(["--plot", "steps.docx"])
    assert "cannot write 'steps.docx'" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--only", "--only="])
def test_an_empty_choice_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command._arguments([option, ""] if option == "--only" else [option])
    assert ended.value.code == 2
    assert "--only names nothing: ''" in capsys.readouterr().err


_CUT, _OTHER = "JSON; was it written to its end?", "figures that --json wrote"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", _CUT),
        ('{"a":', _CUT),
        ("\xff", _CUT),
        ("{}", _OTHER),
        ("[]", _OTHER),
        ("3", _OTHER),
        ('{"machine": {}}', _OTHER),
        ('{"machine": {}, "steps": [1]}', _OTHER),
    ],
)
def test_a_file_that_json_did_not_write_is_refused_in_one_line(
    text: str, what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "figures.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(SystemExit) as ended:
        command.main(["show", str(file)])
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines() == [f"python -m benchmarks: error: {file} holds no {what}"]


def test_what_is_asked_of_files_must_be_in_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    file.write_text('{"machine": {}, "depth": []}')
    with pytest.raises(SystemExit):
        command.main(["show", str(file), "--markdown", str(tmp_path / "table.md")])
    assert "--markdown writes the table of steps, and the files hold none" in capsys.readouterr().err


def test_files_of_backward_and_depth_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    passes = [{"workload": "mlp", "forward_seconds": 1e-3, "both_seconds": 3e-3, "ratio": 2.0}]
    chain = [{"operations": 1000 * k, "first_seconds": 0.5 * k} for k in (1, 2, 4)]
    for name, results in (("backward", passes), ("depth", chain)):
        (tmp_path / name).write_text(json.dumps({"machine": {}, name: results}))
    command.main(["show", str(tmp_path / "backward"), str(tmp_path / "depth")])
    printed = capsys.readouterr().out
    assert "2.00" in printed and "500 µs for each of the operations" in printed
