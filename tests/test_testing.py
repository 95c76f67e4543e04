"""`testing.assert_close` passes and fails where PyTorch's does."""

import numpy as np
import pytest
import torch

import pullback as pb

PAIRS = [
    ([1.0, 2.0], [1.0, 2.0], {}),
    ([1.0, 2.0], [1.0, 2.000001], {}),
    ([1.0, 2.0], [1.0, 2.001], {}),
    ([1.0, 2.0], [1.0, 2.001], {"rtol": 1e-2, "atol": 0}),
    ([np.nan], [np.nan], {}),
    ([np.nan], [np.nan], {"equal_nan": True}),
    ([np.inf], [np.inf], {}),
    ([np.inf], [-np.inf], {}),
    ([1, 2], [1, 2], {}),
    ([1, 2], [1, 3], {}),
    ([1, 2], [1.0, 2.0], {}),
    ([1, 2], [1.0, 2.0], {"check_dtype": False}),
    ([[1.0]], [1.0], {}),
    ([True], [False], {}),
]


def passes(lib, actual, expected, options):
    try:
        lib.testing.assert_close(actual, expected, **options)
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize(("actual", "expected", "options"), PAIRS)
def test_tensors_arrays_and_lists_of_them(actual, expected, options):
    for wrap in (lambda t: t, lambda t: [t, t], lambda t: {"a": (t,)}):
        told = [passes(lib, wrap(lib.tensor(actual)), wrap(lib.tensor(expected)), options) for lib in (pb, torch)]
        assert told[0] == told[1]
    arrays = [np.array(actual), np.array(expected)]
    assert passes(pb, *arrays, options) == passes(torch, *arrays, options)


@pytest.mark.parametrize(
    ("actual", "expected"), [(1, 1.0), (1.0, 1.0 + 1e-9), (1.0, 1.1), ([1, 2], [1]), ({"a": 1}, {"b": 1}), (None, None)]
)
def test_numbers_and_what_holds_them(actual, expected):
    assert passes(pb, actual, expected, {}) == passes(torch, actual, expected, {})


def test_messages():
    x, y = pb.tensor([[1.0, 2.0]]), pb.tensor([[1.0, 2.5]])
    with pytest.raises(AssertionError, match=r"at 0 are not close: 1 of 2 elements \(50.0%\)(.|\n)*0.5, at \[0, 1\]"):
        pb.testing.assert_close([x], [y])
    with pytest.raises(AssertionError, match=r"^mine$"):
        pb.testing.assert_close(x, y, msg="mine")
    with pytest.raises(AssertionError, match=r"^so: Tensors are not close"):
        pb.testing.assert_close(x, y, msg=lambda said: f"so: {said}")
    with pytest.raises(AssertionError, match="strides"):
        pb.testing.assert_close(pb.ones(2, 3).t(), pb.ones(3, 2), check_stride=True)
    with pytest.raises(AssertionError, match="types"):
        pb.testing.assert_close(pb.nn.Parameter(x), x, allow_subclasses=False)
    with pytest.raises(ValueError, match="both"):
        pb.testing.assert_close(x, y, rtol=1.0)
    with pytest.raises(TypeError, match="str"):
        pb.testing.assert_close("a", "a")
