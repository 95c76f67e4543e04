"""Tables in the documentation are those that the code prints, and every error class has its examples."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import subgradients
from operation_table import operations
from pullback import debug, errors
from pullback.ops.primitive import table as table_of_primitives
from test_readme import blocks

ROOT = Path(__file__).parents[1]
ERRORS = [value for value in vars(errors).values() if inspect.isclass(value) and value is not errors.PullbackError]


@pytest.mark.parametrize(
    ("page", "name", "text"),
    [
        ("README.md", "switches", debug.table),
        ("docs/operations.md", "operations", operations),
        ("docs/operations.md", "subgradients", subgradients.table),
        ("docs/operations.md", "primitives", table_of_primitives),
    ],
)
def test_tables_are_those_that_the_code_prints(
    page: str, name: str, text: Callable[[], str], request: pytest.FixtureRequest
) -> None:
    path = ROOT / page
    before = path.read_text(encoding="utf-8")
    pattern = re.compile(rf"(<!-- {name}: written by [^\n]*-->\n)(.*?)(<!-- {name}: end -->)", re.DOTALL)
    assert len(pattern.findall(before)) == 1, f"{page} has no place for the table of {name}"
    after = pattern.sub(lambda found: found[1] + text() + found[3], before)
    if request.config.getoption("--update-golden"):
        path.write_text(after, encoding="utf-8")
    else:
        assert before == after, f"the table of {name} in {page} is not the present one: run pytest --update-golden"


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_every_error_has_a_failing_and_a_mended_example(error: type) -> None:
    sections = re.split(r"^## ", (ROOT / "docs" / "errors.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    (section,) = [section for section in sections if section.startswith(f"{error.__name__}\n")]
    examples = [block for block in blocks(section) if block.language == "python"]
    assert [example.raises for example in examples[:2]] == [error.__name__, ""]


def test_notes_of_decisions_are_listed() -> None:
    directory = ROOT / "docs" / "decisions"
    index = (directory / "README.md").read_text(encoding="utf-8")
    for note in directory.glob("*.md"):
        assert note.name == "README.md" or f"]({note.name})" in index, f"{note.name} is not listed in README.md"


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))])
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if not target.startswith("http"):
            assert (page.parent / target.partition("#")[0]).exists(), f"{page.name} links to {target}"
