"""Operations on the order and the places of elements: what the tables of operations cannot say."""

import numpy as np
import pytest
import torch

import pullback as pb
from pullback.errors import DTypeError, TraceError

DATA_DEPENDENT = {
    "nonzero": lambda x: x.nonzero(),
    "argwhere": lambda x: x.argwhere(),
    "masked_select": lambda x: x.masked_select(x > 0),
    "unique": lambda x: x.unique(),
    "unique_consecutive": lambda x: x.unique_consecutive(),
}


@pytest.mark.parametrize("name", DATA_DEPENDENT)
def test_a_result_whose_size_depends_on_data_is_refused_inside_a_compiled_step(name):
    step = pb.compile(DATA_DEPENDENT[name])
    with pytest.raises(TraceError, match=name):
        step(pb.tensor([1.0, 0.0, 2.0]))


def test_a_histogram_over_the_elements_own_range_has_a_fixed_size():
    for values in ([1.0, 2.0, 3.0, 5.0], [2.0, 2.0]):
        found = pb.compile(lambda x: pb.histogram(x, 4))(pb.tensor(values))
        wanted = torch.histogram(torch.tensor(values), 4)
        assert [part.tolist() for part in found] == [part.tolist() for part in wanted]
    with pytest.raises(ValueError, match="not finite"):
        pb.histogram(pb.tensor([1.0, float("inf")]), 3).hist.tolist()


def test_places_of_a_fixed_number_can_be_found_inside_a_compiled_step():
    step = pb.compile(lambda x: x.nonzero_static(size=3, fill_value=-7))
    assert step(pb.tensor([0.0, 4.0, 5.0])).tolist() == [[1], [2], [-7]]
    assert step(pb.tensor([1.0, 4.0, 5.0])).tolist() == [[0], [1], [2]]


def test_every_nan_is_distinct():
    values, counts = pb.tensor([np.nan, 1.0, np.nan]).unique(return_counts=True)
    assert counts.tolist() == [1, 1, 1]
    assert values.isnan().tolist() == [False, True, True]


def test_only_a_bool_mask_selects():
    with pytest.raises(DTypeError, match="mask must be bool"):
        pb.ones(3).masked_select(pb.tensor([1, 0, 1]))


def test_where_of_a_condition_alone_gives_the_places_axis_by_axis():
    rows, columns = pb.where(pb.tensor([[1, 0], [0, 2], [3, 0]]))
    assert (rows.tolist(), columns.tolist()) == ([0, 1, 2], [0, 1, 0])
    with pytest.raises(TypeError, match="a condition alone or with both"):
        pb.where(pb.tensor([True]), 1.0)
