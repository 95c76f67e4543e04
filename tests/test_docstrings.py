"""Every example in a docstring of the package runs."""

import doctest
import importlib
from pathlib import Path

import pytest

import pullback

SOURCE = Path(__file__).parents[1] / "src"


def modules_with_examples() -> list[str]:
    """The dotted names of the modules whose text holds an interactive example."""
    paths = (path for path in sorted(SOURCE.rglob("*.py")) if ">>> " in path.read_text(encoding="utf-8"))
    dotted = (".".join(path.relative_to(SOURCE).with_suffix("").parts) for path in paths)
    return [name.removesuffix(".__init__") for name in dotted]


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_in_docstrings_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    results = doctest.testmod(importlib.import_module(name), extraglobs={"pb": pullback}, optionflags=doctest.ELLIPSIS)
    assert results.failed == 0, f"{results.failed} of {results.attempted} examples in {name} failed (see the output)"
