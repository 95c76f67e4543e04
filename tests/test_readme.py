"""Every Python example of the documentation runs, and the README's commands are those that the checks run.

The ```python blocks of one file run in order and share their names, as a reader would type them. A block that shows
an error names it on its fence, ```python raises=ShapeError, and must raise it. Code that is not to be run stands in
a block of another kind, such as ```text.
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^ *```$", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """A fenced block: its language, the name of the error it shows or "", its text, and the line its text starts on."""

    language: str
    raises: str
    text: str
    line: int


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page in Markdown."""
    found = []
    for match in FENCE.finditer(page):
        language, _, options = match["info"].strip().partition(" ")
        raises = options.strip().removeprefix("raises=")
        text = re.sub(rf"^{match['indent']}", "", match["body"], flags=re.MULTILINE)
        found.append(Block(language, raises, text, page.count("\n", 0, match.start("body")) + 1))
    return found


def run(block: Block, path: Path, names: dict[str, object]) -> None:
    """Run one block as if it stood at its own place in the file, so that a traceback points there."""
    code = compile("\n" * (block.line - 1) + block.text, str(path), "exec")
    if not block.raises:
        exec(code, names)
        return
    with pytest.raises(Exception) as caught:
        exec(code, names)
    assert caught.type.__name__ == block.raises, f"{path}:{block.line} raised {caught.value!r}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_examples_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # Functions and classes defined in a block look up their module by name.
    monkeypatch.setitem(sys.modules, "example", module := type(sys)("example"))
    for block in blocks(path.read_text(encoding="utf-8")):
        if block.language == "python":
            run(block, path, module.__dict__)


def shell_lines(path: Path) -> list[str]:
    found = [block.text for block in blocks(path.read_text(encoding="utf-8")) if block.language == "bash"]
    return [line for text in found for line in text.splitlines()]


def test_the_readme_holds_the_commands_that_the_checks_run() -> None:
    printed = subprocess.run(["bash", str(ROOT / ".ci" / "run"), "--commands"], capture_output=True, text=True)
    assert printed.returncode == 0, printed.stderr
    install, test = printed.stdout.splitlines()
    assert f"{install} && {test}" in shell_lines(README)
    assert (install, test) == ("pip install '.[test]'", "pytest -n 2")


def test_the_readme_starts_with_one_command() -> None:
    assert shell_lines(README)[0] == "pip install . && pullback train"


def test_blocks_are_found_with_their_lines() -> None:
    page = "a\n```python\nx = 1\n```\n\n- b\n  ```python raises=ValueError\n  int('c')\n  ```\n```text\nno\n```\n"
    assert blocks(page) == [
        Block("python", "", "x = 1\n", 3),
        Block("python", "ValueError", "int('c')\n", 8),
        Block("text", "", "no\n", 11),
    ]
    names: dict[str, object] = {}
    for block in blocks(page)[:2]:
        run(block, Path("page.md"), names)
    assert names["x"] == 1
