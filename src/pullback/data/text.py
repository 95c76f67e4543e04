"""A text as numbers: its vocabulary of characters, its two parts, and windows cut from them."""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import PullbackError


class TextError(PullbackError, ValueError):
    """A text that cannot be learned from, or a character that is not in the vocabulary."""


class Vocabulary:
    """The characters that a model knows, in the order of their tokens: token t stands for `characters[t]`."""

    def __init__(self, characters: str):
        if not characters or len(set(characters)) != len(characters):
            raise TextError("a vocabulary takes at least one character, each of them once")
        self.characters = characters
        self._tokens = {character: token for token, character in enumerate(characters)}

    @classmethod
    def of(cls, text: str) -> Vocabulary:
        """The characters of a text, sorted."""
        return cls("".join(sorted(set(text))))

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> np.ndarray:
        """The tokens of a text, int64 [len(text)]; TextError names the first character that is unknown."""
        try:
            return np.fromiter((self._tokens[character] for character in text), np.int64, len(text))
        except KeyError as error:
            raise TextError(f"the character {error.args[0]!r} is not in the vocabulary") from None

    def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
        """The text that tokens stand for."""
        return "".join(self.characters[token] for token in tokens)


@dataclass(frozen=True)
class Corpus:
    """A text's tokens, int64: the first part to train on, the rest to validate with."""

    vocabulary: Vocabulary
    training: np.ndarray
    validation: np.ndarray

    @classmethod
    def of(cls, text: str, context: int, validation_share: float = 0.1) -> Corpus:
        """Split a text; TextError if a part has no window of `context` characters with the one that follows."""
        split = len(text) - round(len(text) * validation_share)
        shortest = min(split, len(text) - split)
        if shortest <= context:
            least = round((context + 1) / min(validation_share, 1 - validation_share)) + 1
            raise TextError(
                f"the text has {len(text):,} characters, but windows of {context} need at least {least:,}; "
                "take a longer text or a shorter context"
            )
        vocabulary = Vocabulary.of(text)
        tokens = vocabulary.encode(text)
        return cls(vocabulary, tokens[:split], tokens[split:])

    def fingerprint(self) -> str:
        """Equal for equal texts."""
        tokens = np.concatenate([self.training, self.validation]).astype("<i8")
        return hashlib.sha256("".join(self.vocabulary.characters).encode() + tokens.tobytes()).hexdigest()[:16]

    def draw(self, generator: np.random.Generator, batch_size: int, context: int) -> tuple[np.ndarray, np.ndarray]:
        """A batch of the training part: windows from anywhere, and the same a character later."""
        starts = generator.integers(0, len(self.training) - context, batch_size)
        return windows(self.training, starts, context)


def windows(tokens: np.ndarray, starts: np.ndarray, context: int) -> tuple[np.ndarray, np.ndarray]:
    """The windows of `context` tokens from `starts` on, and the same a token later: what is to be predicted."""
    drawn = tokens[starts[:, None] + np.arange(context + 1)]
    return np.ascontiguousarray(drawn[:, :-1]), np.ascontiguousarray(drawn[:, 1:])


def read_text(path: Path) -> str:
    """The text of a UTF-8 file; TextError, in one line that names the file, if there is none to be had."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise TextError(f"{path}: there is no such file; a text file in UTF-8 is needed") from None
    except IsADirectoryError:
        raise TextError(f"{path}: this is a directory; a text file in UTF-8 is needed") from None
    except OSError as error:
        raise TextError(f"{path}: cannot be read ({error.strerror}); a text file in UTF-8 is needed") from None
    if not content.strip():
        raise TextError(f"{path}: the file is empty; a text file in UTF-8 is needed")
    if b"\0" in content:
        raise TextError(f"{path}: the file is binary (it holds NUL bytes); a text file in UTF-8 is needed")
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise TextError(f"{path}: the file is not UTF-8 (at byte {error.start:,}); convert it to UTF-8 first") from None


def read_python_topics() -> str:
    """The language reference that Python's own help() shows: about 465,000 characters of English on any machine."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise TextError("this Python comes without its help texts (pydoc_data); name a text file with --data") from None
    return "\n".join(topics.values())


def read_python_sources(characters: int = 1_000_000) -> str:
    """The beginning of the modules of Python's own library, in the order of their names: ASCII, about five
    million characters on any machine. TextError where there are fewer.
    """
    folder, found, length = Path(sysconfig.get_path("stdlib")), list[str](), 0
    for path in sorted(folder.glob("*.py")):
        source = path.read_bytes()
        if source.isascii():
            found.append(source.decode("ascii"))
            length += len(source)
        if length >= characters:
            return "".join(found)[:characters]
    raise TextError(f"{folder}: the sources here have {length:,} characters, fewer than {characters:,}")
