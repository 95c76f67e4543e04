"""Files of weights: whole or not at all, and hostile ones refused before anything large is allocated."""

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from pullback.data import Corpus
from pullback.errors import StateDictError
from pullback.train import load_weights, save_weights
from pullback.train.gpt import GPTConfiguration
from pullback.train.text import TextSettings, TextTraining, load_text_model
from pullback.train.weights import check_writable, read_description

ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones((), np.float32)}
SHAPES = [("a", (2, 3)), ("b", ())]


def test_weights_and_description_come_back(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, ARRAYS, {"step": 3, "vocabulary": 'ä"\n'})
    assert read_description(path) == {"step": 3, "vocabulary": 'ä"\n'}
    found = load_weights(path, SHAPES)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, ARRAYS, {"step": 1})

    def refuse(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="the disk is full"):
        save_weights(path, ARRAYS, {"step": 2})
    assert read_description(path) == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_weights_that_are_not_finite_are_neither_written_nor_read(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, ARRAYS, {"step": 1})
    with pytest.raises(StateDictError, match="a holds values that are not finite"):
        save_weights(path, {"a": np.array([np.nan], np.float32)}, {"step": 2})
    assert read_description(path) == {"step": 1}
    save_file({"a": np.array([np.inf], np.float32)}, path, {"pullback": "{}"})
    with pytest.raises(StateDictError, match="not finite"):
        load_weights(path, [("a", (1,))])


def test_every_difference_is_listed(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({**ARRAYS, "c": np.ones(1, np.float64)}, path, {"pullback": "{}"})
    with pytest.raises(StateDictError) as caught:
        load_weights(path, [("a", (3, 2)), ("c", (1,)), ("d", (4,))])
    assert str(caught.value).splitlines()[1:] == [
        "  a has the shape [2, 3], expected [3, 2]",
        "  c has the type F64, expected F32",
        "  missing: d",
        "  left over: b",
    ]


@pytest.mark.parametrize(
    "content",
    [b"", b"no weights at all", struct.pack("<Q", 2**60) + b"{}", struct.pack("<Q", 4) + b"{}}}"],
    ids=["empty", "text", "a header of an exabyte", "a broken header"],
)
def test_what_is_no_safetensors_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(StateDictError, match=r"w\.safetensors: this is no safetensors file"):
        read_description(path)


def test_a_missing_file_and_a_directory(tmp_path: Path) -> None:
    with pytest.raises(StateDictError, match="there is no such file"):
        read_description(tmp_path / "missing")
    with pytest.raises(StateDictError):
        read_description(tmp_path)


@pytest.mark.parametrize(
    "metadata", [None, {"other": "{}"}, {"pullback": "["}, {"pullback": "[1]"}, {"pullback": "[" * 9999}]
)
def test_a_header_without_a_description(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    save_file(ARRAYS, tmp_path / "w", metadata)
    with pytest.raises(StateDictError, match="header"):
        read_description(tmp_path / "w")


def test_where_no_file_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="it is a directory"):
        check_writable(tmp_path)
    with pytest.raises(OSError, match="No such file or directory"):
        check_writable(tmp_path / "missing" / "w")
    with pytest.raises(OSError, match="not a regular file"):
        check_writable(Path("/dev/null"))
    check_writable(tmp_path / "w")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], dict[str, np.ndarray]]:
    """A model's file, its description and its weights."""
    path = tmp_path_factory.mktemp("model") / "w.safetensors"
    corpus = Corpus.of("abcde" * 40, context=4)
    configuration = GPTConfiguration(5, 4, layers=1, width=8, heads=2)
    TextTraining(corpus, configuration, TextSettings(), lambda _: None).save(path, 0)
    return path, read_description(path), load_weights(path, configuration.shapes())


def test_a_model_comes_back(saved: tuple[Path, dict[str, Any], dict[str, np.ndarray]]) -> None:
    path, description, weights = saved
    model, vocabulary = load_text_model(path)
    assert vocabulary.characters == description["vocabulary"] == "abcde"
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), weights[name])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "a parrot"}, "holds a 'a parrot'"),
        ({"vocabulary": "abc"}, "vocabulary has 3 characters, its configuration 5"),
        ({"vocabulary": "aabcd"}, "does not make sense"),
        ({"configuration": []}, "configuration is not a JSON object"),
        ({"configuration": {"vocabulary": 5, "surprise": 1}}, "surprise"),
        ({"configuration": {"vocabulary": 5, "width": "8"}}, "width must be"),
        ({"configuration": {"vocabulary": 5, "context": 4, "layers": 10**12, "width": 8, "heads": 2}}, "and more"),
        ({"configuration": {"vocabulary": 5, "context": 4, "layers": 1, "width": 2**40, "heads": 2}}, "expected"),
    ],
)
def test_descriptions_that_do_not_fit(
    saved: tuple[Path, dict[str, Any], dict[str, np.ndarray]], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    """Among them sizes that would exhaust the machine, were they believed."""
    _, description, weights = saved
    path = tmp_path / "w.safetensors"
    save_file(weights, path, {"pullback": json.dumps({**description, **changes})})
    with pytest.raises(StateDictError, match=message):
        load_text_model(path)
