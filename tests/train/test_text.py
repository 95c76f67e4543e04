"""Texts, windows of them, and what a model makes of them."""

from pathlib import Path

import numpy as np
import pytest

import pullback as pb
from pullback.data import Corpus, TextError, Vocabulary, read_python_topics, read_text, windows
from pullback.train.gpt import GPT, GPTConfiguration, sample, validator
from pullback.train.text import TextSettings, TextTraining

TINY = GPTConfiguration(vocabulary=5, context=4, layers=1, width=8, heads=2)


def test_a_vocabulary_turns_text_into_tokens_and_back() -> None:
    vocabulary = Vocabulary.of("hello world")
    assert vocabulary.characters == " dehlorw"
    assert vocabulary.decode(vocabulary.encode("world")) == "world"
    with pytest.raises(TextError, match="'z' is not in the vocabulary"):
        vocabulary.encode("doze")


@pytest.mark.parametrize("characters", ["", "aba"])
def test_a_vocabulary_has_each_character_once(characters: str) -> None:
    with pytest.raises(TextError):
        Vocabulary(characters)


def test_the_last_tenth_is_for_validation() -> None:
    corpus = Corpus.of("abcde" * 40, context=8)
    assert (len(corpus.training), len(corpus.validation)) == (180, 20)
    np.testing.assert_array_equal(corpus.validation, np.arange(20) % 5)


def test_the_least_length_that_is_named_is_enough() -> None:
    with pytest.raises(TextError, match="at least 91") as caught:
        Corpus.of("a" * 20, context=8)
    assert "20 characters" in str(caught.value)
    assert len(Corpus.of("a" * 91, context=8).validation) == 9


def test_windows_come_with_their_successors() -> None:
    inputs, targets = windows(np.arange(10), np.array([0, 5]), 4)
    np.testing.assert_array_equal(inputs, [[0, 1, 2, 3], [5, 6, 7, 8]])
    np.testing.assert_array_equal(targets, [[1, 2, 3, 4], [6, 7, 8, 9]])


def test_batches_reach_the_first_and_the_last_character() -> None:
    corpus = Corpus(Vocabulary("abcdef"), np.arange(6), np.arange(6))
    inputs, targets = corpus.draw(np.random.default_rng(0), 64, 4)
    assert (inputs.min(), targets.max()) == (0, 5)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "the file is empty"),
        (b" \n", "the file is empty"),
        (b"a\0b", "binary"),
        (b"caf\xe9 au lait", "not UTF-8 .at byte 3"),
    ],
)
def test_files_that_are_no_text(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    with pytest.raises(TextError, match=what) as caught:
        read_text(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes(b"\xef\xbb\xbfa\r\nb")
    assert read_text(tmp_path / "text.txt") == "a\nb"


def test_python_brings_a_text_along() -> None:
    assert len(read_python_topics()) > 300_000


def test_the_shapes_of_a_configuration_are_those_of_its_model() -> None:
    model = GPT(GPTConfiguration(vocabulary=7, context=6, layers=2, width=8, heads=2))
    found = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert dict(model.configuration.shapes()) == found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 9}, "width .9. must be a multiple of heads .2."),
        ({"layers": 0}, "layers must be a whole number of at least 1, got 0"),
        ({"context": True}, "context must be"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        ({"dropout": float("nan")}, "dropout must be"),
    ],
)
def test_configurations_that_make_no_sense(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GPTConfiguration(**{"vocabulary": 5, "width": 8, "heads": 2, **changes})  # type: ignore[arg-type]


def test_the_validation_loss_counts_each_character_once() -> None:
    """Against the loss computed window by window, where the last window is shorter."""
    pb.manual_seed(0)
    model = GPT(TINY)
    tokens = np.random.default_rng(0).integers(0, 5, 4 * 4 + 3)
    losses = []
    for start in range(0, len(tokens) - 1, 4):
        window = tokens[start : start + 5]
        scores = model(pb.tensor(window[None, :-1]))
        losses.append(pb.nn.functional.cross_entropy(scores[0], pb.tensor(window[1:]), reduction="sum").item())
    assert validator(model, tokens, batch_size=3)() == pytest.approx(sum(losses) / 18, rel=1e-5)


def test_sampling_agrees_with_the_model_on_exactly_the_known_characters() -> None:
    """The window is filled up behind the known characters; a model that looked there would choose otherwise."""
    pb.manual_seed(1)
    model = GPT(TINY)
    for parameter in model.parameters():
        with pb.no_grad():
            parameter.mul_(20.0)  # far from uniform, so that the likeliest token depends on the context
    seen = [3]
    for token in sample(model, np.array([3]), 8, np.random.default_rng(0), temperature=0):
        scores = model(pb.tensor(np.array([seen[-4:]])))
        assert token == int(scores[0, -1].detach().numpy().argmax())
        seen.append(token)


def trained(steps: int = 12) -> tuple[list[float], dict[str, np.ndarray]]:
    losses = []
    corpus = Corpus.of("abcde" * 40, context=4)
    settings = TextSettings(steps=steps, batch_size=4, learning_rate=0.02, evaluate_every=5)
    training = TextTraining(corpus, TINY, settings, lambda progress: losses.append(progress.loss))
    training.loop.run()
    return losses, {name: np.array(value.numpy()) for name, value in training.model.state_dict().items()}


def test_training_learns_and_gives_the_same_bits_again() -> None:
    (losses, weights), (again, weights_again) = trained(), trained()
    assert losses[-1] < 0.5 * losses[0]
    assert losses == again
    for name, array in weights.items():
        np.testing.assert_array_equal(array, weights_again[name], err_msg=name)
