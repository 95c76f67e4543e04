"""What every test shares: a cache directory of the run's own, deterministic hypothesis, and golden files."""

import gc
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from pullback import debug
from pullback.runtime import threads

CACHE_VARIABLE = "PULLBACK_CACHE_DIR"
CACHE_KEY = pytest.StashKey[str]()

# The same examples on every run, so that a failure is the change's and not the day's. To look for new
# counterexamples: pytest --hypothesis-profile=explore
settings.register_profile("deterministic", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile("deterministic")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden files anew instead of comparing")


def pytest_configure(config: pytest.Config) -> None:
    """Give the run an empty compilation cache: the user's is neither read nor written, and the workers share one."""
    if not hasattr(config, "workerinput"):  # workers of pytest-xdist inherit the variable from the first process
        config.stash[CACHE_KEY] = os.environ[CACHE_VARIABLE] = tempfile.mkdtemp(prefix="pullback-tests-")
        # PyTorch, the other side of many comparisons: its threads would keep the cores from the other test processes by
        # waiting for each other, which takes ten times as long as the work itself
        os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where the suite runs on the reference, leave out what is promised of native code alone."""
    if debug.get("backend") == "reference":
        for item in items:
            if (mark := item.get_closest_marker("native")) is not None:
                item.add_marker(pytest.mark.skip(reason=mark.args[0]))


_begun: set[str] = set()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out of every collection what was there before the tests of a file: PyTorch, all the tests and what was
    compiled for them are a million objects, and to go through them, as tests ask for that look for what is left behind,
    takes half a second each time.
    """
    file = item.nodeid.partition("::")[0]
    if file not in _begun:
        _begun.add(file)
        gc.collect()
        gc.freeze()


def pytest_unconfigure(config: pytest.Config) -> None:
    if (directory := config.stash.get(CACHE_KEY, None)) is not None:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    """A number of threads that a test sets, even if to what it was, would count for more than the switch afterwards."""
    before = threads._num_threads
    yield
    threads._num_threads = before


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """A function `golden(name, text)` that compares text with the file golden/<name>.txt beside the test.

    Run `pytest --update-golden` to write the files, and read the difference before committing it.
    """
    directory = Path(request.path).parent / "golden"
    update: bool = request.config.getoption("--update-golden")

    def compare(name: str, text: str) -> None:
        path = directory / f"{name}.txt"
        if update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"{path} does not exist: write it with pytest --update-golden"
        assert text == path.read_text(encoding="utf-8"), f"differs from {path}: if meant, run pytest --update-golden"

    return compare
