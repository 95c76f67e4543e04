"""PyTorch's own database of modules: each of ours, with PyTorch's state loaded, gives PyTorch's outputs and gradients.

`python tests/module_database.py` tries every input; nn/modules_not_yet.txt lists what is not there or not whole.
"""

import pytest

import pullback as pb
from module_database import database, not_yet, trial
from pullback import debug

#: inputs of each module and mode that the suite tries
SAMPLES = 6
THERE = [name for name in database() if name not in not_yet()]


def test_the_list_of_what_is_not_there_is_sorted_and_of_names_that_the_database_has() -> None:
    assert sorted(not_yet()) == list(not_yet())
    assert set(not_yet()) <= set(database())


def test_what_is_listed_as_not_there_is_not() -> None:
    """A module that is there and right has to leave the list."""
    with debug.override(backend="reference"):
        whole = [n for n in not_yet() if hasattr(pb.nn, n.removeprefix("nn.")) and not trial(n).failures]
    assert whole == []


@pytest.mark.parametrize("name", THERE)
def test_a_module_has_pytorchs_outputs_gradients_state_and_printed_form(name: str) -> None:
    with debug.override(backend="reference"):
        outcome = trial(name, SAMPLES)
    assert outcome.samples
    assert outcome.failures == []


@pytest.mark.parametrize("name", THERE)
def test_native_code_gives_them_too(name: str) -> None:
    with debug.override(backend="native"):
        outcome = trial(name, 1, (True,))
    assert outcome.failures == []
