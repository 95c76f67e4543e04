"""Reading and writing by index, against NumPy and PyTorch."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

import pullback as pb
from pullback.errors import DTypeError, IndexOutOfRange, ShapeError


@st.composite
def slices(draw, size: int) -> slice:
    """Any slice with a positive step, also beyond the ends."""
    bound = st.one_of(st.none(), st.integers(-size - 2, size + 2))
    return slice(draw(bound), draw(bound), draw(st.one_of(st.none(), st.integers(1, 4))))


@st.composite
def indexed(draw, with_arrays: bool) -> tuple[np.ndarray, tuple]:
    """An array and an index into it: integers, slices, None, Ellipsis and, if asked for, arrays of integers."""
    shape = tuple(draw(st.lists(st.integers(0 if not with_arrays else 1, 6), min_size=1, max_size=4)))
    common = draw(st.sampled_from([(), (1,), (3,), (2, 3)]))
    items: list = []
    for size in shape[: draw(st.integers(0, len(shape)))]:
        kinds = ["slice", "whole"] + (["integer"] if size else []) + (["array", "array"] if with_arrays else [])
        kind = draw(st.sampled_from(kinds))
        if kind == "slice":
            items.append(draw(slices(size)))
        elif kind == "whole":
            items.append(slice(None))
        elif kind == "integer":
            items.append(draw(st.integers(-size, size - 1)))
        else:
            wanted = tuple(1 if s > 1 and draw(st.booleans()) else s for s in common)
            count = int(np.prod(wanted))
            flat = draw(st.lists(st.integers(-size, size - 1), min_size=count, max_size=count))
            items.append(np.array(flat, np.int64).reshape(wanted))
    if draw(st.booleans()):
        used = len(items)
        at = draw(st.integers(0, used))
        # what stands behind an Ellipsis counts from the last axis: only whole axes fit any size
        items[at:] = [Ellipsis] + [slice(None)] * draw(st.integers(0, min(len(shape) - at, 2)))
    for _ in range(draw(st.integers(0, 2))):
        items.insert(draw(st.integers(0, len(items))), None)
    array = np.arange(np.prod(shape), dtype=np.float64).reshape(shape) + 1
    return array, tuple(items)


def as_torch(index: tuple) -> tuple:
    return tuple(torch.from_numpy(i) if isinstance(i, np.ndarray) else i for i in index)


def as_ours(index: tuple) -> tuple:
    return tuple(pb.tensor(i) if isinstance(i, np.ndarray) else i for i in index)


@pytest.fixture(autouse=True, scope="module")
def reference():
    """An index is taken apart alike on every backend; the interpreter need not compile each example."""
    with pb.debug.override(backend="reference"):
        yield


@settings(max_examples=150)
@given(indexed(with_arrays=False))
def test_basic_indices_read_what_numpy_reads(case):
    array, index = case
    np.testing.assert_array_equal(pb.tensor(array)[index].numpy(), array[index])


@settings(max_examples=150)
@given(indexed(with_arrays=True))
def test_integer_arrays_read_what_pytorch_reads(case):
    # an integer beside arrays cuts its axis first, as in PyTorch; NumPy has it move axes like an array of shape ()
    array, index = case
    np.testing.assert_array_equal(
        pb.tensor(array)[as_ours(index)].numpy(), torch.tensor(array)[as_torch(index)].numpy()
    )


@settings(max_examples=60)
@given(indexed(with_arrays=True))
def test_gradients_of_an_index_are_pytorchs(case):
    array, index = case
    ours, theirs = pb.tensor(array, requires_grad=True), torch.tensor(array, requires_grad=True)
    (ours[as_ours(index)] * ours[as_ours(index)]).sum().backward()
    (theirs[as_torch(index)] * theirs[as_torch(index)]).sum().backward()
    np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy())


@settings(max_examples=100)
@given(indexed(with_arrays=False), st.booleans())
def test_writing_by_a_basic_index_writes_what_numpy_writes(case, one_number):
    array, index = case
    wanted = array.copy()
    value = 7.0 if one_number else -np.arange(array[index].size, dtype=np.float64).reshape(array[index].shape)
    wanted[index] = value
    ours = pb.tensor(array)
    ours[index] = value
    np.testing.assert_array_equal(ours.numpy(), wanted)


@settings(max_examples=100)
@given(indexed(with_arrays=True))
def test_writing_by_integer_arrays_writes_what_pytorch_writes(case):
    array, index = case
    wanted = torch.tensor(array)
    # each place gets the same value however often it is written, so that the order of writing does not matter
    value = -wanted[as_torch(index)].numpy()
    wanted[as_torch(index)] = torch.tensor(value)
    ours = pb.tensor(array)
    ours[as_ours(index)] = pb.tensor(value)
    np.testing.assert_array_equal(ours.numpy(), wanted.numpy())


def test_of_several_values_written_to_one_place_the_last_stays():
    x = pb.zeros(3)
    x[pb.tensor([1, 1, 1])] = pb.tensor([5.0, 6.0, 7.0])
    assert x.tolist() == [0.0, 7.0, 0.0]


def test_gradients_of_written_values_are_pytorchs():
    results = []
    for library in (pb, torch):
        x = library.ones(4, 3, requires_grad=True)
        v = library.ones(2, 3, requires_grad=True)
        y = x * 2
        y[library.tensor([0, 2])] = v * 3
        y[1, 1:] = v[0, :2]
        (y * y).sum().backward()
        results.append((x.grad.tolist(), v.grad.tolist()))
    assert results[0] == results[1]


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_an_index_out_of_range_names_its_position_and_value(backend):
    with pb.debug.override(backend=backend):
        x = pb.arange(12).reshape(3, 4)
        with pytest.raises(IndexOutOfRange, match=r"axis 0: 3 at position \[1\] is not in -3 to 2 .*test_indexing.py"):
            x[pb.tensor([0, 3, 1])].numpy()
        with pytest.raises(IndexOutOfRange, match=r"axis 1: -5 at position \[0, 1\]"):
            x[:, pb.tensor([[0, -5]])].numpy()
        with pytest.raises(IndexOutOfRange, match=r"4 at position \[0, 1\]"):
            x.gather(1, pb.tensor([[0, 4]])).numpy()
        assert x[pb.tensor([2])].tolist() == [[8, 9, 10, 11]]


def test_a_constant_index_out_of_range_is_refused_at_the_call():
    x = pb.zeros(3, 4)
    with pytest.raises(IndexOutOfRange, match="index 3 is outside axis 0 of size 3"):
        x[3]
    with pytest.raises(IndexOutOfRange, match="3 indices for a tensor with 2 axes"):
        x[0, 0, 0]
    with pytest.raises(IndexOutOfRange, match="negative step"):
        x[::-1]
    with pytest.raises(IndexError):
        x[..., ...]


def test_floats_are_no_indices():
    with pytest.raises(DTypeError, match="must be of integers"):
        pb.arange(3)[pb.tensor([0.0])]


def test_a_value_that_does_not_fit_is_refused():
    with pytest.raises(ShapeError, match=r"shapes \[3\] and \[2\] do not broadcast"):
        pb.zeros(4, 2)[0] = pb.ones(3)
