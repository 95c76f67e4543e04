"""Texts to learn from, and the windows of characters that a training step takes."""

from .text import Corpus, TextError, Vocabulary, read_python_sources, read_python_topics, read_text, windows

__all__ = [
    "Corpus",
    "TextError",
    "Vocabulary",
    "read_python_sources",
    "read_python_topics",
    "read_text",
    "windows",
]
