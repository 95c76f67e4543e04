"""PyTorch's own database of modules: each of ours, with PyTorch's state loaded, gives PyTorch's outputs and gradients.

`python tests/module_database.py` tries every input; nn/modules_not_yet.txt lists what is not there or not whole.
"""

import pytest

import pullback as pb
from module_database import both, database, moved, not_yet, samples_of, trial
from operator_database import tensors_in
from pullback import debug
from pullback.graph.node import reachable
from pullback.ops.primitive import ALIAS

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


#: the spaces of names that users call
SPACES = (pb, pb.Tensor, pb.nn.functional, pb.linalg, pb.special)
#: PyTorch's names, in torch itself, of what modules alone call here
LAYERS = {f"{kind}{cell}" for kind in ("lstm", "gru", "rnn_tanh", "rnn_relu") for cell in ("", "_cell")}
KNOWN = {known for space in SPACES for name in dir(space) for known in (name, name.strip("_"))} | LAYERS


@pytest.mark.parametrize("name", THERE)
def test_what_a_module_computes_is_told_by_names_that_users_know(name: str) -> None:
    """Errors and profiles name operations by what a node's source says."""
    record = database()[name]
    sample = next(samples_of(record, True))
    ours, _ = both(record, sample, True)
    given = moved(sample.forward_input.args), moved(sample.forward_input.kwargs)
    results = [t.node for t in tensors_in(ours(*given[0], **given[1]))]
    named = {n.source.operation for n in reachable(results, False) if n.source is not None and n.op.kind != ALIAS}
    assert named and named - KNOWN <= {""}
