"""The command as its users meet it: output, exit statuses, refusals and interruptions."""

import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pullback.cli import app, output
from pullback.cli.output import describe
from pullback.train import Progress
from pullback.train.weights import read_description

TINY = ["--context", "8", "--layers", "1", "--width", "8", "--heads", "2", "--batch-size", "2", "--sample-length", "20"]


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("the cat sat on the mat.\n" * 40, encoding="utf-8")
    return path


def refusal(result: Result) -> str:
    """The one line on standard error of a command that refused to begin."""
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("pullback: ")
    return line.removeprefix("pullback: ")


def test_text_is_trained_on_and_sampled(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "PLAIN_SECONDS", math.inf)  # a busy machine must not add lines
    out = tmp_path / "w.safetensors"
    result = invoke("train", "--data", text, "--steps", 6, "--eval-every", 4, "--out", out, *TINY)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("960 characters, 12 different; ")
    assert [line.split("  ")[0] for line in lines if line.startswith("step ")] == ["step 4/6", "step 6/6"]
    assert "nats a character after 6 steps" in result.stdout
    assert f"weights in {out}" in result.stdout
    assert read_description(out)["step"] == 6

    first, again, other = (invoke("sample", out, "--length", 30, "--seed", seed) for seed in (1, 1, 2))
    assert first.exit_code == 0, first.output
    assert first.stdout == again.stdout != other.stdout
    assert len(first.stdout.rstrip("\n")) <= 30
    assert invoke("sample", out, "--prompt", "the c", "--length", 5).stdout.startswith("the c")
    assert "'Z' is not in the vocabulary" in refusal(invoke("sample", out, "--prompt", "Z"))


def test_digits_are_learned(tmp_path: Path) -> None:
    out = tmp_path / "w.safetensors"
    result = invoke("train", "digits", "--out", out)
    assert result.exit_code == 0, result.output
    accuracy = next(line for line in result.stdout.splitlines() if line.startswith("test accuracy")).split()[2]
    assert float(accuracy.rstrip("%")) >= 97.0
    assert read_description(out)["kind"] == "digits classifier"


def test_digits_give_the_same_bits_again(tmp_path: Path) -> None:
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        assert invoke("train", "digits", "--steps", 40, "--seed", seed, "--out", tmp_path / name).exit_code == 0
    first, again, other = ((tmp_path / name).read_bytes() for name in ("first", "again", "other"))
    assert first == again != other


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    result = invoke("train", "digits", "--out", tmp_path / "w")
    assert "pip install 'pullback[digits]'" in refusal(result)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (None, "there is no such file"),
        (b"", "empty"),
        (b"\0\1", "binary"),
        (b"\xff\xfe", "not UTF-8"),
        (b"short", "5 characters"),
    ],
)
def test_texts_that_cannot_be_learned_from(content: bytes | None, what: str, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    line = refusal(invoke("train", "--data", path, "--out", tmp_path / "w"))
    assert what in line
    assert str(path) in line
    assert not (tmp_path / "w").exists()


def test_a_directory_is_no_text(tmp_path: Path) -> None:
    assert "this is a directory" in refusal(invoke("train", "--data", tmp_path, "--out", tmp_path / "w"))


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--steps", 0], "--steps must be a whole number of at least 1, got 0"),
        (["--batch-size", -1], "--batch-size must be"),
        (["--learning-rate", -0.1], "--learning-rate must be a positive finite number"),
        (["--learning-rate", "nan"], "--learning-rate must be"),
        (["--learning-rate", "inf"], "--learning-rate must be"),
        (["--dropout", 1], "--dropout must be at least 0 and below 1"),
        (["--dropout", "nan"], "--dropout must be"),
        (["--seed", -1], "--seed must be"),
        (["--seed", 2**63], "--seed must be below"),
        (["--threads", 0], "--threads must be"),
        (["--threads", 10**6], "the number of threads must be"),
        (["--eval-every", 0], "--eval-every must be"),
        (["--sample-length", -1], "--sample-length must be"),
        (["--context", 0], "--context must be"),
        (["--width", 10, "--heads", 4], "width (10) must be a multiple of heads (4)"),
    ],
)
def test_options_that_make_no_sense(options: list[object], what: str, tmp_path: Path) -> None:
    assert what in refusal(invoke("train", "--out", tmp_path / "w", *options))
    digits_too = options[0] in {"--steps", "--batch-size", "--learning-rate", "--dropout", "--seed", "--eval-every"}
    if digits_too:
        assert what in refusal(invoke("train", "digits", "--out", tmp_path / "w", *options))


def test_options_of_text_before_digits_are_refused() -> None:
    assert "--context stands before 'digits'" in refusal(invoke("train", "--context", 8, "digits"))


def test_a_word_where_a_number_belongs() -> None:
    assert invoke("train", "--steps", "many").exit_code == 2


def test_a_place_that_cannot_be_written_is_found_first(tmp_path: Path, text: Path) -> None:
    out = tmp_path / "missing" / "w"
    result = invoke("train", "--data", text, "--out", out)
    assert str(out) in refusal(result)
    assert result.stdout == ""
    assert "it is a directory" in refusal(invoke("train", "digits", "--out", tmp_path))


def test_a_loss_that_is_not_finite_keeps_the_weights_before(text: Path, tmp_path: Path) -> None:
    out = tmp_path / "w.safetensors"
    out.write_bytes(b"earlier weights")
    result = invoke("train", "--data", text, "--steps", 8, "--learning-rate", 1e38, "--out", out, *TINY)
    assert result.exit_code == 1, result.output
    (line,) = result.stderr.splitlines()
    assert "training stopped" in line
    assert "smaller learning rate" in line
    assert out.read_bytes() == b"earlier weights"


def test_samples_of_what_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"no weights")
    assert "this is no safetensors file" in refusal(invoke("sample", tmp_path / "w"))
    assert "there is no such file" in refusal(invoke("sample", tmp_path / "missing"))
    assert "--temperature must be" in refusal(invoke("sample", tmp_path / "w", "--temperature", "nan"))
    assert "--length must be" in refusal(invoke("sample", tmp_path / "w", "--length", 0))


def start(*arguments: object) -> "subprocess.Popen[str]":
    """The command in a process of its own, in which SIGINT does what it does at a terminal."""
    command = [sys.executable, "-m", "pullback", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))


def test_an_interrupted_run_keeps_its_weights(text: Path, tmp_path: Path) -> None:
    out = tmp_path / "w.safetensors"
    with start("train", "--data", text, "--steps", 10**7, "--eval-every", 5, "--out", out, *TINY) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("step "):
                break
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=30)
    assert process.returncode == 130, error
    assert "interrupted after step" in error
    assert "Traceback" not in error
    description = read_description(out)
    assert f"after step {description['step']} of" in error
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_version_and_machine() -> None:
    assert invoke("--version").stdout.startswith("pullback ")
    result = invoke("info")
    assert result.exit_code == 0, result.output
    first_words = {line.split()[0] for line in result.stdout.splitlines()}
    assert {"processor", "threads", "cache", "NumPy", "llvmlite"} <= first_words


def test_a_switch_with_a_bad_value_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULLBACK_NUM_THREADS", "several")
    assert "PULLBACK_NUM_THREADS='several' is not allowed" in refusal(invoke("info"))


def test_the_line_of_progress() -> None:
    progress = Progress(7, 1000, 1.23456, 0.5, 1e-3, None, False, 1.0, 3725.0, 12345.6)
    assert describe(progress, "characters") == (
        "step    7/1000  loss 1.235  validation loss –  gradient norm 0.50  12k characters/s  1:02:05 left"
    )


@pytest.mark.parametrize("what", ["text", "digits"])
def test_a_killed_run_goes_on_from_its_snapshots_with_the_same_bits(what: str, text: Path, tmp_path: Path) -> None:
    def arguments(name: str, steps: int = 9) -> list[object]:
        out = ["--steps", steps, "--eval-every", 4, "--out", tmp_path / f"{name}.safetensors", "--threads", 1]
        return ["train", *(["digits", *out] if what == "digits" else ["--data", text, *out, *TINY])]

    kept = ["--snapshots", tmp_path / "kept", "--snapshot-every", 2]
    whole = invoke(*arguments("whole"))
    assert whole.exit_code == 0, whole.output
    program = "import sys; from pullback.cli.main import main; sys.argv[0] = 'pullback'; main()"
    killed = (
        "import os, pullback.train.resume as r; after = r.Snapshots.after\n"
        "def die(self, step, force=False):\n"
        "    after(self, step, force)\n"
        "    if step == 5: self._kept.wait(); os.kill(os.getpid(), 9)\n"
        "r.Snapshots.after = die\n" + program
    )
    command = [sys.executable, "-c", killed, *map(str, [*arguments("run"), *kept])]
    assert subprocess.run(command, capture_output=True, timeout=120).returncode == -signal.SIGKILL
    again = invoke(*arguments("run"), *kept)
    assert again.exit_code == 0 and "going on after step 4 of 9" in again.stdout, again.output
    assert (tmp_path / "run.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    once_more = invoke(*arguments("run", steps=11), *kept)
    assert "another run: steps was 9, and is 11" in refusal(once_more)


def test_a_run_at_its_end_has_nothing_left_to_do(text: Path, tmp_path: Path) -> None:
    command = ["train", "--data", text, "--steps", 4, "--out", tmp_path / "w.safetensors", *TINY]
    command += ["--snapshots", tmp_path / "kept", "--snapshot-every", 2]
    assert invoke(*command).exit_code == 0
    (tmp_path / "w.safetensors").unlink()
    again = invoke(*command)
    assert again.exit_code == 0 and "all 4 steps were done before" in again.stdout, again.output
    assert read_description(tmp_path / "w.safetensors")["step"] == 4
