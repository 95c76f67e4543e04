"""Training a GPT on a text: what `pullback train` does, without its command line."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import pullback as pb
from pullback import nn

from ..data import Corpus, TextError, Vocabulary
from ..errors import StateDictError
from .gpt import GPT, GPTConfiguration, parameter_groups, sample, validator
from .loop import Loop, Progress, warmup_cosine
from .resume import Snapshots, trained_as
from .weights import load_weights, read_description, save_weights

_KIND = "character GPT"


@dataclass(frozen=True)
class TextSettings:
    """How to train: AdamW with betas (0.9, 0.99), decay of matrices only, gradients clipped to norm 1."""

    steps: int = 1500
    batch_size: int = 12
    learning_rate: float = 2e-3
    evaluate_every: int = 250
    seed: int = 0

    def __post_init__(self) -> None:
        check_settings(self.steps, self.batch_size, self.learning_rate, self.seed)
        check_whole("evaluate_every", self.evaluate_every, 1)


def check_whole(name: str, value: int, least: int) -> None:
    """Raise ValueError unless `value` is a whole number of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")


def check_settings(steps: int, batch_size: int, learning_rate: float, seed: int) -> None:
    """Raise ValueError where settings that every training has make no sense."""
    check_whole("steps", steps, 1)
    check_whole("batch_size", batch_size, 1)
    if not (isinstance(learning_rate, (int, float)) and math.isfinite(learning_rate) and learning_rate > 0):
        raise ValueError(f"learning_rate must be a positive finite number, got {learning_rate!r}")
    check_whole("seed", seed, 0)
    if seed >= 2**63:
        raise ValueError(f"seed must be below 2**63, got {seed}")


class TextTraining:
    """A model, its optimizer and the loop that trains it on a corpus."""

    def __init__(
        self,
        corpus: Corpus,
        configuration: GPTConfiguration,
        settings: TextSettings,
        on_progress: Callable[[Progress], None],
    ):
        pb.manual_seed(settings.seed)
        self.corpus, self.settings = corpus, settings
        self.model = GPT(configuration)
        self.validate = validator(self.model, corpus.validation, settings.batch_size)
        self.generator = generator = np.random.default_rng(settings.seed)
        self.optimizer = optimizer = pb.optim.AdamW(
            parameter_groups(self.model, weight_decay=0.1), lr=settings.learning_rate, betas=(0.9, 0.99)
        )
        model = self.model

        @pb.compile
        def step(x: pb.Tensor, y: pb.Tensor) -> tuple[pb.Tensor, pb.Tensor]:
            optimizer.zero_grad()
            scores = model(x)
            loss = nn.functional.cross_entropy(scores.reshape(-1, scores.shape[-1]), y.reshape(-1))
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            return loss, norm

        def batch() -> tuple[pb.Tensor, ...]:
            drawn = corpus.draw(generator, settings.batch_size, configuration.context)
            return tuple(pb.tensor(part) for part in drawn)

        warmup = min(100, settings.steps // 10)
        self.loop = Loop(
            step,
            batch,
            settings.steps,
            optimizer,
            learning_rate=lambda index: warmup_cosine(index, settings.steps, settings.learning_rate, warmup),
            evaluate=self.validate,
            evaluate_every=settings.evaluate_every,
            items=settings.batch_size * configuration.context,
            on_progress=on_progress,
        )

    @property
    def parameters(self) -> int:
        """How many numbers the model learns."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def snapshots(self, directory: Path, every: int) -> Snapshots:
        """Snapshots of this training, from which it can go on."""
        about = {
            "kind": _KIND,
            **asdict(self.model.configuration),
            **trained_as(self.settings),
            "text": self.corpus.fingerprint(),
        }
        parts = {"model": self.model, "optimizer": self.optimizer, "data": self.generator}
        return Snapshots(directory, every, about, parts)

    def save(self, path: Path, step: int) -> None:
        """Write the present weights, those after `step` steps, with all that `load_text_model` needs."""
        description = {
            "kind": _KIND,
            "configuration": asdict(self.model.configuration),
            "vocabulary": self.corpus.vocabulary.characters,
            "settings": asdict(self.settings),
            "step": step,
        }
        save_weights(path, numpy_weights(self.model), description)

    def sample(self, length: int) -> str:
        """A text of `length` characters in the manner of the corpus, going on from a line's end."""
        return sample_text(self.model, self.corpus.vocabulary, "\n", length, self.settings.seed)


def numpy_weights(model: nn.Module) -> dict[str, np.ndarray]:
    """The weights of a model by name, copied, so that further steps do not change them."""
    return {name: np.array(value.numpy()) for name, value in model.state_dict().items()}


def sample_text(
    model: GPT, vocabulary: Vocabulary, prompt: str, length: int, seed: int, temperature: float = 0.8
) -> str:
    """`length` characters that go on from `prompt`. A prompt that is empty is a line's end, or else the first
    character of the vocabulary."""
    if not prompt or prompt == "\n":
        prompt = "\n" if "\n" in vocabulary.characters else vocabulary.characters[0]
    generator = np.random.default_rng(seed)
    return vocabulary.decode(list(sample(model, vocabulary.encode(prompt), length, generator, temperature)))


def load_text_model(path: Path) -> tuple[GPT, Vocabulary]:
    """The model and vocabulary in a file that `TextTraining.save` wrote; StateDictError if it is no such file."""
    description = read_description(path)
    if description.get("kind") != _KIND:
        raise StateDictError(f"{path}: holds a {description.get('kind')!r}, not a {_KIND!r}")
    try:
        configuration = GPTConfiguration(**_mapping(description, "configuration"))
        vocabulary = Vocabulary(str(description.get("vocabulary", "")))
    except (TypeError, ValueError, TextError) as error:
        raise StateDictError(f"{path}: its description does not make sense: {error}") from None
    if len(vocabulary) != configuration.vocabulary:
        raise StateDictError(
            f"{path}: its vocabulary has {len(vocabulary)} characters, its configuration {configuration.vocabulary}"
        )
    weights = load_weights(path, configuration.shapes())
    # only now, when the file is known to hold all the weights, is a model of their size made
    model = GPT(configuration)
    model.load_state_dict({name: pb.tensor(array) for name, array in weights.items()})
    return model, vocabulary


def _mapping(description: dict[str, Any], key: str) -> dict[str, Any]:
    value = description.get(key)
    if not isinstance(value, dict):
        raise ValueError(f"{key} is not a JSON object")
    return value
