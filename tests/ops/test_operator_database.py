"""The first samples of each operator in PyTorch's own database: PyTorch's values, dtypes and gradients.

`python tests/operator_database.py` tries every sample.
"""

from pathlib import Path

import pytest
import torch

from operator_database import DIFFERENTIATED, NARROW, answered, database, ours, trial
from pullback import debug

#: names of the database, sorted, whose every sample is right
IN_SCOPE = Path(__file__).with_name("operators.txt").read_text(encoding="utf-8").split()
#: samples of each operator and dtype that the suite tries
SAMPLES = 8


#: operators of which every input that PyTorch's database knows as bad is tried
REFUSING = (
    *("all", "arange", "cat", "diag", "dist", "expand", "gather", "masked_fill", "masked_select", "narrow", "scatter"),
    *("cov", "linalg.norm", "linalg.solve_triangular", "nn.functional.avg_pool2d", "nn.functional.ctc_loss", "take"),
    *("nn.functional.layer_norm", "nn.functional.max_pool1d", "nn.functional.max_pool2d", "nn.functional.max_pool3d"),
)


#: operators that are tried in the smaller dtypes as well
NARROW_TOO = (
    *("all", "any", "dist", "einsum", "nn.functional.feature_alpha_dropout", "sort", "sum_to_size", "tensordot"),
    *("unravel_index", "where"),
)


def test_the_list_is_sorted_and_of_names_that_the_database_has() -> None:
    assert sorted(set(IN_SCOPE)) == IN_SCOPE
    assert set(IN_SCOPE) <= set(database())


def test_every_name_is_there() -> None:
    assert [name for name in IN_SCOPE if ours(name) is None] == []


@pytest.mark.parametrize("name", IN_SCOPE)
def test_samples_have_pytorchs_values_and_gradients(name: str) -> None:
    with debug.override(backend="reference"):
        outcome = trial(name, SAMPLES)
    assert outcome.samples
    assert outcome.failures == []


@pytest.mark.parametrize("name", IN_SCOPE)
def test_native_code_gives_them_too(name: str) -> None:
    with debug.override(backend="native"):
        outcome = trial(name, 2, (DIFFERENTIATED, torch.float32))
    assert outcome.failures == []


@pytest.mark.parametrize("name", REFUSING)
def test_bad_inputs_are_refused(name: str) -> None:
    with debug.override(backend="reference"):
        assert answered(name).failures == []


@pytest.mark.parametrize(
    "name",
    [
        "all",
        "any",
        "dist",
        "einsum",
        "nn.functional.feature_alpha_dropout",
        "sort",
        "sum_to_size",
        "tensordot",
        "unravel_index",
        "where",
    ],
)
def test_smaller_dtypes_give_them_too(name: str) -> None:
    with debug.override(backend="reference"):
        outcome = trial(name, 4, NARROW)
    assert outcome.samples
    assert outcome.failures == []
